"""Draws charts as SVG text, for an HTML report or as files for a Markdown page.

They are ours because a plotting library would be the largest thing to install, and its output would not follow a
reader's light or dark setting. Every mark has its value as a tooltip, which screen readers read too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 64, 24, 44, 48
LETTER = 6.7  # width of one at 12 px, about
# Okabe and Ito's colours, which the colour-blind can tell apart, in a shade with contrast on each background.
SERIES = 6
STYLE = """
.chart { font: 12px system-ui, sans-serif; color-scheme: light dark; }
.chart text { fill: #1c2024; } .chart .soft { fill: #545d66; }
.chart .grid { stroke: #d6dade; } .chart .axis, .chart .front { stroke: #545d66; fill: none; }
.chart .front { stroke-dasharray: 5 4; }
.chart .s0 { fill: #0067a5; stroke: #0067a5; } .chart .s1 { fill: #b34e00; stroke: #b34e00; }
.chart .s2 { fill: #00734d; stroke: #00734d; } .chart .s3 { fill: #9a3f78; stroke: #9a3f78; }
.chart .s4 { fill: #7a6100; stroke: #7a6100; } .chart .s5 { fill: #5b5b5b; stroke: #5b5b5b; }
.chart .line { fill: none; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
.chart text { fill: #e6e9ec; } .chart .soft { fill: #a4adb6; }
.chart .grid { stroke: #343a41; } .chart .axis, .chart .front { stroke: #a4adb6; }
.chart .s0 { fill: #56b4e9; stroke: #56b4e9; } .chart .s1 { fill: #f0954a; stroke: #f0954a; }
.chart .s2 { fill: #3cc89a; stroke: #3cc89a; } .chart .s3 { fill: #e08fc0; stroke: #e08fc0; }
.chart .s4 { fill: #e3c84a; stroke: #e3c84a; } .chart .s5 { fill: #b5b5b5; stroke: #b5b5b5; }
.chart .line { fill: none; }
}
"""


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels, with ticks at round values."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        bend: Callable[[float], float] = math.log10 if self.log else float
        low, high = bend(self.low), bend(self.high)
        return self.start + (bend(value) - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [10.0**power for power in powers if self.low <= 10.0**power <= self.high]
        step = round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [step * count for count in range(first, math.floor(self.high / step + 1e-9) + 1)]


def round_step(least: float) -> float:
    """Choose 1, 2 or 5 times a power of ten that is not less than `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def from_zero(highest: float, start: float, end: float) -> Axis:
    highest = highest if highest > 0 else 1.0
    step = round_step(highest / 5)
    return Axis(0.0, step * math.ceil(highest / step - 1e-9), start, end)


def around(values: Sequence[float], start: float, end: float) -> Axis:
    """Make an axis around the values; from zero their differences would be too small to see."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.15 or abs(high) * 0.05 or 1.0
    return Axis(low - margin, high + margin, start, end)


def decades(values: Sequence[float], start: float, end: float) -> Axis:
    low, high = (
        10.0 ** turn(math.log10(pick(values))) for turn, pick in ((math.floor, min), (math.ceil, max))
    )
    return Axis(low, high if high > low else 10 * low, start, end, log=True)


# ---- the charts ------------------------------------------------------------------------------------------------


def bars(
    title: str, rows: Mapping[str, Mapping[str, float | None]], unit: str, highest: float | None = None
) -> str:
    """Draw a group of horizontal bars for each row, one per series; None leaves out the bar and writes –."""
    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    thick, gap = (16, 10) if len(series) < 3 else (11, 10)
    left = 20 + LETTER * max(map(len, rows))
    tall = gap + thick * len(series)
    height = TOP + 20 + tall * len(rows) + BOTTOM
    values = [value for row in rows.values() for value in row.values() if value is not None]
    axis = from_zero(highest or max(values, default=1.0), left, WIDTH - 60)
    parts = [key(series), *vertical_grid(axis, TOP + 20, height - BOTTOM, unit)]
    for place, (name, row) in enumerate(rows.items()):
        top = TOP + 20 + gap / 2 + tall * place
        parts.append(text(name, left - 8, top + thick * len(series) / 2 + 4, "end"))
        for index, one in enumerate(series):
            value, y = row.get(one), top + thick * index
            shown = "–" if value is None else spelled(value)
            told = f"{name}, {one}: {shown} {unit}"
            width = 0.0 if value is None else max(axis.at(value) - left, 0)
            parts.append(rectangle(left, y, width, thick - 2, index, told))
            parts.append(text(shown, left + width + 5, y + thick - 5, css="soft"))
    return svg(title, height, parts)


def waterfall(title: str, stages: Sequence[tuple[str, float, float]]) -> str:
    """Draw stages (name, median and p99 in ms) as bars; each begins where the one before ends."""
    thick = 24
    left = 20 + LETTER * max(len(name) for name, _, _ in stages)
    height = TOP + thick * len(stages) + BOTTOM
    axis = from_zero(sum(ms for _, ms, _ in stages), left, WIDTH - 150)
    parts = vertical_grid(axis, TOP, height - BOTTOM, "ms")
    begun = 0.0
    for place, (name, ms, p99) in enumerate(stages):
        y = TOP + thick * place
        told = f"{name}: median {spelled(ms)} ms, p99 {spelled(p99)} ms"
        parts.append(text(name, left - 8, y + 16, "end"))
        parts.append(
            rectangle(axis.at(begun), y + 3, max(axis.at(begun + ms) - axis.at(begun), 1), thick - 6, 0, told)
        )
        begun += ms
        parts.append(text(f"{spelled(ms)} (p99 {spelled(p99)})", axis.at(begun) + 5, y + 16, css="soft"))
    return svg(title, height, parts)


def curves(title: str, x: str, y: str, series: Mapping[str, Sequence[tuple[float, float]]], unit: str) -> str:
    """Draw lines through points, from zero upwards; the x axis has a tick at each point's x."""
    height = 340
    across = sorted({one for points in series.values() for one, _ in points})
    places = {
        one: LEFT + 20 + (WIDTH - LEFT - RIGHT - 40) * index / max(len(across) - 1, 1)
        for index, one in enumerate(across)
    }
    up = from_zero(max(value for points in series.values() for _, value in points), height - BOTTOM, TOP + 24)
    parts = [key(list(series)), *horizontal_grid(up), *axis_labels(x, y, height)]
    parts += [
        text(spelled(one), place, height - BOTTOM + 16, "middle", "soft") for one, place in places.items()
    ]
    for index, (name, points) in enumerate(series.items()):
        line = " ".join(f"{places[one]:.1f},{up.at(value):.1f}" for one, value in points)
        parts.append(f'<polyline class="s{index % SERIES} line" points="{line}"/>')
        for one, value in points:
            parts.append(
                dot(places[one], up.at(value), index, f"{name}, {x} {spelled(one)}: {spelled(value)} {unit}")
            )
    return svg(title, height, parts)


def pareto(title: str, x: str, y: str, points: Sequence[tuple[str, float, float]]) -> str:
    """Draw points, for which more is better on both axes, and a line through those that no other point beats."""
    height = 380
    right = around([one for _, one, _ in points], LEFT, WIDTH - RIGHT)
    up = around([one for _, _, one in points], height - BOTTOM, TOP)
    front = [one for one in points if not any(beats(other, one) for other in points)]
    front.sort(key=lambda one: one[1:])
    parts = [*vertical_grid(right, TOP, height - BOTTOM), *horizontal_grid(up), *axis_labels(x, y, height)]
    line = " ".join(f"{right.at(one):.1f},{up.at(other):.1f}" for _, one, other in front)
    parts.append(f'<polyline class="front" points="{line}"/>')
    told = "{}: {} {}, {} {}"
    parts += named_dots(
        [
            (name, right.at(one), up.at(other), told.format(name, spelled(one), x, spelled(other), y))
            for name, one, other in points
        ],
        0,
    )
    return svg(title, height, parts)


def beats(one: tuple[str, float, float], other: tuple[str, float, float]) -> bool:
    return one[1:] != other[1:] and one[1] >= other[1] and one[2] >= other[2]


def roofline(
    title: str, roofs: Mapping[str, tuple[float, float]], points: Sequence[tuple[str, float, float]]
) -> str:
    """Draw a roofline: `roofs` are devices' TFLOPS and GB/s, `points` graphs' operations per byte and TFLOPS."""
    height = 380
    ridges = [1000 * peak / bandwidth for peak, bandwidth in roofs.values()]
    intensities = [*ridges, *(one for _, one, _ in points)]
    right = decades([min(intensities) / 3, max(intensities) * 3], LEFT, WIDTH - RIGHT)
    lows = [right.low * bandwidth / 1000 for _, bandwidth in roofs.values()]
    up = decades(
        [*lows, *(peak for peak, _ in roofs.values()), *(one for *_, one in points)],
        height - BOTTOM,
        TOP + 24,
    )
    parts = [key(list(roofs)), *vertical_grid(right, TOP + 24, height - BOTTOM), *horizontal_grid(up)]
    parts += axis_labels("operations per byte", "TFLOPS", height)
    for index, (name, (peak, bandwidth)) in enumerate(roofs.items()):
        corners = [
            (right.low, right.low * bandwidth / 1000),
            (1000 * peak / bandwidth, peak),
            (right.high, peak),
        ]
        line = " ".join(f"{right.at(one):.1f},{up.at(other):.1f}" for one, other in corners)
        told = f"{name}: {spelled(peak)} TFLOPS, {spelled(bandwidth)} GB/s"
        parts.append(
            f'<polyline class="s{index % SERIES} line" points="{line}"><title>{escape(told)}</title></polyline>'
        )
    told = "{}: {} operations per byte, {} TFLOPS"
    parts += named_dots(
        [
            (name, right.at(one), up.at(other), told.format(name, spelled(one), spelled(other)))
            for name, one, other in points
        ],
        5,
    )
    return svg(title, height, parts)


def strip(title: str, cells: Sequence[tuple[str, float, int, str]], names: Mapping[str, int]) -> str:
    """Draw a band of cells (name, weight, series, tooltip), as wide as their weight; `names` maps names to series."""
    height = TOP + 60
    total = sum(weight for _, weight, _, _ in cells) or 1.0
    parts, x = [key(list(names), list(names.values()))], 4.0
    for name, weight, index, told in cells:
        width = (WIDTH - 8) * weight / total
        parts.append(rectangle(x, TOP, max(width - 0.5, 0.3), 40, index, f"{name}: {told}"))
        x += width
    return svg(title, height, parts)


# ---- their parts -----------------------------------------------------------------------------------------------


def svg(title: str, height: float, parts: Sequence[str]) -> str:
    heading = f'<text class="heading" x="4" y="16" font-weight="600">{escape(title)}</text>'
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img"'
        f' aria-label="{escape(title)}">{heading}{"".join(parts)}</svg>'
    )


def standing_alone(chart: str) -> str:
    """Turn a chart into a file with its own colours and background."""
    paper = (
        f"<style>{STYLE}.paper {{ fill: #ffffff; }}"
        "@media (prefers-color-scheme: dark) { .paper { fill: #15181b; } }</style>"
        '<rect class="paper" width="100%" height="100%"/>'
    )
    opening, bracket, rest = chart.partition(">")
    return f"{opening}{bracket}{paper}{rest}\n"


def text(words: str, x: float, y: float, anchor: str = "start", css: str = "") -> str:
    kind = f' class="{css}"' if css else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def rectangle(x: float, y: float, width: float, height: float, index: int, told: str) -> str:
    return (
        f'<rect class="s{index % SERIES}" stroke="none" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}"'
        f' height="{height:.1f}"><title>{escape(told)}</title></rect>'
    )


def dot(x: float, y: float, index: int, told: str) -> str:
    return f'<circle class="s{index % SERIES}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{escape(told)}</title></circle>'


def named_dots(dots: Sequence[tuple[str, float, float, str]], index: int) -> list[str]:
    """Draw dots (name, x, y, tooltip) with their names beside them, moved down where two would overlap."""
    parts, lowest = [], -math.inf
    for name, x, y, told in sorted(dots, key=lambda one: one[2]):
        lowest = max(y + 4, lowest + 14)
        beyond = x + 9 + LETTER * len(name) > WIDTH - 4
        parts.append(dot(x, y, index, told))
        parts.append(text(name, x - 9 if beyond else x + 9, lowest, "end" if beyond else "start"))
    return parts


def key(names: Sequence[str], series: Sequence[int] | None = None) -> str:
    """Draw the key of the series' colours (by default in turn); a single series in turn needs none."""
    if len(names) < 2 and series is None:
        return ""
    parts, x = [], 4.0
    for name, index in zip(names, series or range(len(names)), strict=True):
        parts.append(
            f'<rect class="s{index % SERIES}" stroke="none" x="{x:.1f}" y="26" width="10" height="10"/>'
        )
        parts.append(text(name, x + 15, 35))
        x += 31 + LETTER * len(name)
    return "".join(parts)


def vertical_grid(axis: Axis, top: float, bottom: float, unit: str = "") -> list[str]:
    parts = []
    for tick in axis.ticks():
        x = axis.at(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}"/>')
        parts.append(text(f"{spelled(tick)} {unit}".rstrip(), x, bottom + 16, "middle", "soft"))
    return parts


def horizontal_grid(axis: Axis) -> list[str]:
    parts = []
    for tick in axis.ticks():
        y = axis.at(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(text(spelled(tick), LEFT - 6, y + 4, "end", "soft"))
    return parts


def axis_labels(x: str, y: str, height: float) -> list[str]:
    return [
        text(x, (LEFT + WIDTH - RIGHT) / 2, height - 10, "middle", "soft"),
        f'<text class="soft" x="14" y="{height / 2:.0f}" text-anchor="middle"'
        f' transform="rotate(-90 14 {height / 2:.0f})">{escape(y)}</text>',
    ]


def spelled(value: float) -> str:
    """Write three or four significant digits, never an exponent."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    shown = f"{value:.{decimals}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown
