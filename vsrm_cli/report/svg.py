"""Line, point and bar plots as SVG, without a plotting library.

Every plot is a complete SVG document for a page or a file, with light and dark colors.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 520, 330
LEFT, RIGHT, TOP, BOTTOM = 78, 16, 56, 48  # margins around the axes

# Okabe and Ito's colors, which people with any color vision can distinguish.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8f98")

_STYLE = """
.paper { fill: #fff } .ink { fill: #1b1f24 } .soft { fill: #5b6470 } .grid { stroke: #d5dae0 }
@media (prefers-color-scheme: dark) {
  .paper { fill: #14171b } .ink { fill: #e8ebef } .soft { fill: #9aa4b0 } .grid { stroke: #343b44 }
}
text { font: 14px system-ui, sans-serif } .title { font-size: 15px; font-weight: 600 }
"""

Points = Sequence[tuple[float, float]]


def line_plot(
    title: str, lines: Mapping[str, Points], *, x_label: str, y_label: str, from_zero: bool = True
) -> str:
    """Draw lines through points.

    Args:
        title: Of the plot.
        lines: Points (x, y) of each line by name, with increasing x.
        x_label: Label of the x axis, with its unit.
        y_label: Label of the y axis, with its unit.
        from_zero: Whether both axes start at zero.
    """
    axes = _Axes([p for points in lines.values() for p in points], from_zero=from_zero)
    marks = []
    for color, points in zip(_colors(len(lines)), lines.values(), strict=True):
        way = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
        marks.append(f'<polyline points="{way}" fill="none" stroke="{color}" stroke-width="2.5"/>')
        if len(points) <= 20:
            marks += [_dot(axes.x(x), axes.y(y), color, f"{x:g}: {y:.4g}") for x, y in points]
    return _svg(title, axes.drawn(x_label, y_label) + "".join(marks) + _legend(list(lines)))


def point_plot(
    title: str, points: Mapping[str, tuple[float, float]], *, x_label: str, y_label: str
) -> str:
    """Draw labeled points, with axes that fit them.

    Args:
        title: Of the plot.
        points: (x, y) by name.
        x_label: Label of the x axis, with its unit.
        y_label: Label of the y axis, with its unit.
    """
    axes = _Axes(list(points.values()), from_zero=False, margin=0.15)
    marks = []
    for color, (name, (x, y)) in zip(_colors(len(points)), points.items(), strict=True):
        is_right = axes.x(x) > (LEFT + WIDTH - RIGHT) / 2
        anchor, shift = ("end", -10) if is_right else ("start", 10)
        marks.append(_dot(axes.x(x), axes.y(y), color, f"{name}: {x:.4g}, {y:.4g}", radius=6))
        marks.append(_text(axes.x(x) + shift, axes.y(y) - 8, name, anchor=anchor))
    return _svg(title, axes.drawn(x_label, y_label) + "".join(marks))


def bar_plot(
    title: str, groups: Sequence[str], bars: Mapping[str, Sequence[float]], *, label: str
) -> str:
    """Draw grouped horizontal bars.

    Args:
        title: Of the plot.
        groups: Names of the groups, from top to bottom.
        bars: For each name in the legend, the value in each group.
        label: Label of the values, with their unit.
    """
    values = [value for row in bars.values() for value in row]
    ticks = _ticks(min(0.0, *values), max(0.0, *values))  # bars must start at zero
    left = min(210, 24 + 7.6 * max(len(group) for group in groups))
    thick, gap = (12, 12) if len(bars) > 1 else (16, 10)
    pitch = thick * len(bars) + gap
    # The top margin has room for a legend of two lines.
    above = max(TOP, 17 + max((y for _, _, y in _legend_places(list(bars))), default=0.0))
    height = above + pitch * len(groups) + BOTTOM

    def x_of(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (WIDTH - RIGHT - left)

    marks = []
    for tick in ticks:
        x, bottom = x_of(tick), height - BOTTOM
        marks.append(f'<path class="grid" d="M{x:.1f} {above:g}V{bottom:g}"/>')
        marks.append(_text(x, bottom + 17, f"{tick:g}", anchor="middle", kind="soft"))
    for number, group in enumerate(groups):
        top = above + gap / 2 + number * pitch
        middle = top + thick * len(bars) / 2
        marks.append(_text(left - 8, middle + 4, group, anchor="end"))
        for row, (color, series) in enumerate(zip(_colors(len(bars)), bars.values(), strict=True)):
            a, b = sorted((x_of(0.0), x_of(series[number])))
            marks.append(
                f'<rect x="{a:.1f}" y="{top + row * thick:.1f}" width="{b - a:.1f}" '
                f'height="{thick - 2}" fill="{color}"><title>{escape(group)}: '
                f"{series[number]:.4g}</title></rect>"
            )
    marks.append(_text((left + WIDTH) / 2, height - 10, label, anchor="middle", kind="soft"))
    return _svg(title, "".join(marks) + _legend(list(bars)), height=height)


class _Axes:
    """The axes of a plot: they map values to coordinates."""

    def __init__(self, points: Points, *, from_zero: bool, margin: float = 0.0) -> None:
        self._x_ticks, self._y_ticks = (
            _ticks(*_room([point[k] for point in points], from_zero=from_zero, margin=margin))
            for k in (0, 1)
        )

    def x(self, value: float) -> float:
        low, high = self._x_ticks[0], self._x_ticks[-1]
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self._y_ticks[0], self._y_ticks[-1]
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def drawn(self, x_label: str, y_label: str) -> str:
        parts = []
        for tick in self._y_ticks:
            y = self.y(tick)
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(_text(LEFT - 8, y + 4, f"{tick:g}", anchor="end", kind="soft"))
        for tick in self._x_ticks:
            place = self.x(tick), HEIGHT - BOTTOM + 18
            parts.append(_text(*place, f"{tick:g}", anchor="middle", kind="soft"))
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(_text(middle, HEIGHT - 10, x_label, anchor="middle", kind="soft"))
        parts.append(
            f'<text class="soft" text-anchor="middle" transform="translate(16 '
            f'{(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">{escape(y_label)}</text>'
        )
        return "".join(parts)


def _room(values: Sequence[float], *, from_zero: bool, margin: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    if from_zero:
        low = min(0.0, low)
    extra = margin * (high - low)
    return low - extra, high + extra


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers that enclose the values."""
    if high <= low:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    raw = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = unit * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _colors(count: int) -> list[str]:
    return [COLORS[number % len(COLORS)] for number in range(count)]


def _legend(names: Sequence[str]) -> str:
    """Names in their colors, below the title; empty for one name."""
    parts = []
    for color, (name, x, y) in zip(_colors(len(names)), _legend_places(names), strict=False):
        parts.append(f'<rect x="{x:.1f}" y="{y:g}" width="10" height="10" fill="{color}"/>')
        parts.append(_text(x + 14, y + 9, name, anchor="start"))
    return "".join(parts)


def _legend_places(names: Sequence[str]) -> list[tuple[str, float, float]]:
    """Positions of the names of a legend, in as many lines as needed."""
    places, x, y = [], 14.0, 24.0
    for name in names if len(names) > 1 else ():
        length = 32 + 7.2 * len(name)
        if x + length > WIDTH and x > 14:
            x, y = 14.0, y + 15
        places.append((name, x, y))
        x += length
    return places


def _dot(x: float, y: float, color: str, words: str, *, radius: float = 4) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}">'
        f"<title>{escape(words)}</title></circle>"
    )


def _text(x: float, y: float, words: str, *, anchor: str, kind: str = "ink") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(words)}</text>'


def _svg(title: str, content: str, *, height: float = HEIGHT) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{escape(title)}"><style>{_STYLE}</style>'
        f'<rect class="paper" width="{WIDTH}" height="{height:g}"/>'
        f'<text class="ink title" x="14" y="18">{escape(title)}</text>{content}</svg>'
    )
