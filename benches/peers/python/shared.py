"""What the runs' peers in Python have in common: the harness's random numbers, its callers, and its percentiles."""

import threading
import time

MASK = (1 << 64) - 1


def mix(number):
    z = (number + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


class Random:
    def __init__(self, seed, stream):
        self.state = mix(mix(seed) ^ stream)

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        return mix(self.state)

    def below(self, bound):
        return self.next() % bound


def percentiles(latencies):
    latencies.sort()
    at = lambda share: latencies[max(0, -int(-share * len(latencies) // 1) - 1)] * 1e6
    return {"p50_us": at(0.50), "p99_us": at(0.99), "p999_us": at(0.999)}


class Callers:
    """Callers that start together, each finishing the call it is in when time is up; `call` makes one and answers its seconds."""

    def run(self, seconds):
        gate, latencies, failures, ends = threading.Barrier(self.callers + 1), [[] for _ in range(self.callers)], [], []
        until = [0.0]

        def work(caller):
            try:
                gate.wait()
                while True:
                    latencies[caller].append(self.call(caller))
                    if time.perf_counter() >= until[0]:
                        break
            except BaseException as error:  # a caller's thread must not end unseen
                failures.append(error)
            ends.append(time.perf_counter())

        threads = [threading.Thread(target=work, args=[caller]) for caller in range(self.callers)]
        for thread in threads:
            thread.start()
        began = time.perf_counter()
        until[0] = began + seconds
        gate.wait()
        for thread in threads:
            thread.join()
        if failures:
            raise SystemExit(f"a caller failed: {failures[0]!r}")
        return [latency for list_ in latencies for latency in list_], max(ends) - began
