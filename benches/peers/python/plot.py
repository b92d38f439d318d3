"""Draws recall against latency from what `vectors.py --points FILE` wrote: `plot.py FILE SIZE > docs/vectors.svg`.

Standard library only; the picture is plain SVG, and readable on light and dark backgrounds.
"""

import json
import math
import sys

WIDTH, HEIGHT, LEFT, TOP = 720, 440, 70, 30
PLOT_WIDTH, PLOT_HEIGHT = 520, 340
COLOURS = ["#d62728", "#7f7f7f", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b"]
RECALL_MIN = 0.80


def main(path, size):
    points = {peer: [tuple(point) for point in own if point[0] >= RECALL_MIN] for peer, own in json.load(open(path))[size].items()}
    points = {peer: sorted(own) for peer, own in points.items() if own}
    times = [time for own in points.values() for _, time in own]
    low, high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    # What is missed, on a logarithmic scale: 0.9, 0.99 and 0.999 are as far from each other.
    miss = lambda recall: -math.log10(max(1 - recall, 1e-4))
    x = lambda recall: LEFT + PLOT_WIDTH * (miss(recall) - miss(RECALL_MIN)) / (4 - miss(RECALL_MIN))
    y = lambda time: TOP + PLOT_HEIGHT * (high - math.log10(time)) / max(1, high - low)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18">median latency of one query by recall@10, {int(size):,} × 384: lower and further right is better</text>',
    ]
    for power in range(low, high + 1):
        out.append(f'<path d="M{LEFT} {y(10**power):.1f}h{PLOT_WIDTH}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(10**power) + 4:.1f}" text-anchor="end">{10**power:,} µs</text>')
    for recall in (0.8, 0.9, 0.99, 0.999, 0.9999):
        name = "1" if recall == 0.9999 else f"{recall:g}"
        out.append(f'<path d="M{x(recall):.1f} {TOP}v{PLOT_HEIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{x(recall):.1f}" y="{TOP + PLOT_HEIGHT + 18}" text-anchor="middle">{name}</text>')
    out.append(f'<text x="{LEFT + PLOT_WIDTH / 2}" y="{TOP + PLOT_HEIGHT + 40}" text-anchor="middle">recall@10</text>')
    for number, (peer, own) in enumerate(points.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [(x(recall), y(time)) for recall, time in own]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{6 if peer == "larder" else 4}" fill="{colour}"/>' for a, b in places]
        key = TOP + 20 + 22 * number
        out.append(f'<circle cx="{LEFT + PLOT_WIDTH + 20}" cy="{key - 4}" r="5" fill="{colour}"/>')
        out.append(f'<text x="{LEFT + PLOT_WIDTH + 32}" y="{key}">{peer}</text>')
    print("\n".join([*out, "</svg>"]))


if __name__ == "__main__":
    main(*sys.argv[1:3])
