"""Draws what `LARDER_POINTS=points.json cargo bench --bench agents` wrote: `agents_plot.py points.json docs`.

Writes `agents-mix.svg`, requests a second of each store alone and together, and `agents-growth.svg`, the median of a read by the number of
items. Standard library only; plain SVG.
"""

import json
import math
import sys
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 720, 400, 80, 30, 480, 310
COLOURS = ["#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b"]


class Picture:
    """An SVG with a logarithmic axis from `low` to `high`, powers of ten."""

    def __init__(self, title, values, unit):
        self.low, self.high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        self.out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/><text x="{LEFT}" y="18">{title}</text>',
        ]
        for power in range(self.low, self.high + 1):
            place = self.y(10**power)
            self.out.append(f'<path d="M{LEFT} {place:.1f}h{PLOT_WIDTH}" stroke="#ddd"/>')
            self.text(LEFT - 8, place + 4, f"{10.0**power:,.10g} {unit}", "end")

    def y(self, value):
        return TOP + PLOT_HEIGHT * (self.high - math.log10(value)) / max(1, self.high - self.low)

    def text(self, x, y, text, anchor="middle"):
        self.out.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>')

    def key(self, number, colour, name):
        place = TOP + 20 + 22 * number
        self.out.append(f'<circle cx="{LEFT + PLOT_WIDTH + 20}" cy="{place - 4}" r="5" fill="{colour}"/>')
        self.text(LEFT + PLOT_WIDTH + 32, place, name, "start")

    def write(self, path):
        path.write_text("\n".join([*self.out, "</svg>"]) + "\n")


def mix(points):
    picture = Picture("requests a second, each store alone and all together", points["alone"] + points["together"], "/s")
    step = PLOT_WIDTH / len(points["loads"])
    for number, (name, *rates) in enumerate(zip(points["loads"], points["alone"], points["together"])):
        left = LEFT + step * number
        for at, rate in enumerate(rates):
            top = picture.y(rate)
            height = TOP + PLOT_HEIGHT - top
            x = left + step * (0.15 + 0.37 * at)
            picture.out.append(f'<rect x="{x:.1f}" y="{top:.1f}" width="{step * 0.33:.1f}" height="{height:.1f}" fill="{COLOURS[at]}"/>')
        picture.text(left + step / 2, TOP + PLOT_HEIGHT + 18, name)
    for at, name in enumerate(["alone", "together"]):
        picture.key(at, COLOURS[at], name)
    return picture


def growth(points):
    sizes, columns = points["growth"]["sizes"], points["growth"]["columns"]
    medians = [[column[at][0] * 1000 for column in columns] for at in range(len(points["loads"]))]
    picture = Picture("median of a read by items in the store", [max(value, 0.1) for row in medians for value in row], "µs")
    x = lambda size: LEFT + PLOT_WIDTH * (math.log10(size / sizes[0]) / max(1, math.log10(sizes[-1] / sizes[0])))
    for size in sizes:
        picture.text(x(size), TOP + PLOT_HEIGHT + 18, f"{size:,}")
    for number, (name, row) in enumerate(zip(points["loads"], medians)):
        line = " ".join(f"{x(size):.1f},{picture.y(max(value, 0.1)):.1f}" for size, value in zip(sizes, row))
        picture.out.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[number]}" stroke-width="2"/>')
        picture.key(number, COLOURS[number], name)
    return picture


if __name__ == "__main__":
    read, folder = json.load(open(sys.argv[1])), Path(sys.argv[2])
    mix(read).write(folder / "agents-mix.svg")
    growth(read).write(folder / "agents-growth.svg")
