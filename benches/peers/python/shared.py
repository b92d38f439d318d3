"""What the runs' peers in Python have in common: the harness's random numbers, and its percentiles."""

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
