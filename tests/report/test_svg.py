"""Plots are well-formed SVG in which larger values lie further along round ticks."""

import re
from xml.etree import ElementTree

import pytest

from vsrm_cli.report.svg import HEIGHT, TOP, WIDTH, _ticks, bar_plot, line_plot, point_plot

SVG = "{http://www.w3.org/2000/svg}"


def drawn(svg):
    """The plot, read as XML; everything lies inside its borders."""
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    _, _, width, height = map(float, root.get("viewBox").split())
    for text in root.iter(f"{SVG}text"):
        if text.get("x"):
            assert 0 <= float(text.get("x")) <= width
            assert 0 <= float(text.get("y")) <= height
    return root


def words(root):
    return [text.text for text in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 1560, [0, 500, 1000, 1500, 2000]),
        (-0.2, 2.7, [-1, 0, 1, 2, 3]),
        (25.77, 27.0, [25.75, 26, 26.25, 26.5, 26.75, 27]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low, high, expected):
    assert _ticks(low, high) == expected


@pytest.mark.parametrize("value", [0, 5, -3, 0.001])
def test_a_single_value_has_ticks_too(value):
    ticks = _ticks(value, value)

    assert len(ticks) >= 2
    assert ticks[0] <= value <= ticks[-1]


def test_larger_values_are_higher_in_a_line_plot():
    root = drawn(
        line_plot(
            "Time by size",
            {"vsrm-t": [(57, 100.0), (130, 240.0), (230, 400.0)], "other": [(57, 50), (230, 60)]},
            x_label="pixels",
            y_label="ms",
        )
    )

    ways = [line.get("points").split() for line in root.iter(f"{SVG}polyline")]
    places = [tuple(map(float, place.split(","))) for place in ways[0]]
    assert len(ways) == 2
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)
    assert {"Time by size", "vsrm-t", "other", "pixels", "ms"} <= set(words(root))


def test_every_point_has_its_name_beside_it():
    root = drawn(point_plot("Q", {"a": (1.0, 27.0), "b": (9.0, 26.0)}, x_label="fps", y_label="dB"))

    circles = list(root.iter(f"{SVG}circle"))
    assert {"a", "b"} <= set(words(root))
    assert float(circles[0].get("cx")) < float(circles[1].get("cx"))
    assert float(circles[0].get("cy")) < float(circles[1].get("cy"))


def test_bars_begin_at_zero_and_are_as_long_as_their_values():
    root = drawn(bar_plot("Gain", ["bear", "dog"], {"x": [1.0, 2.0], "y": [-0.5, 0.0]}, label="dB"))

    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.find(f"{SVG}title") is not None]
    lengths = [float(bar.get("width")) for bar in bars]  # bear x, bear y, dog x, dog y
    assert lengths[2] == pytest.approx(2 * lengths[0], abs=0.2)
    assert lengths[1] == pytest.approx(lengths[0] / 2, abs=0.2)
    assert lengths[3] == 0
    starts = [float(bar.get("x")) for bar in bars]
    assert starts[0] == starts[2] == pytest.approx(starts[1] + lengths[1], abs=0.2)


def test_many_groups_make_a_taller_plot():
    few, many = (
        drawn(bar_plot("G", [f"clip {n}" for n in range(k)], {"x": [1.0] * k}, label="dB"))
        for k in (2, 30)
    )

    heights = [float(root.get("viewBox").split()[3]) for root in (few, many)]
    assert heights[0] < HEIGHT < heights[1]
    assert {root.get("viewBox").split()[2] for root in (few, many)} == {str(WIDTH)}


def test_text_is_escaped():
    svg = line_plot("<b>", {"<i>": [(0, 1), (1, 2)]}, x_label="&", y_label='"')

    assert not re.search("<[bi]>", svg)
    drawn(svg)


def test_a_long_legend_wraps_to_a_second_line():
    names = ["lanczos", "vsrm-t", "vsrm-t, frames alone", "gsm-t", "gsm-t, frames alone"]

    svg = bar_plot("Gain", ["one"], {name: [1.0] for name in names}, label="dB")

    legend = re.findall(r'<text class="ink" x="([0-9.]+)" y="([0-9.]+)"[^>]*>([^<]+)', svg)
    found = {name: (float(x), float(y)) for x, y, name in legend if name in names}
    assert list(found) == names
    assert all(x + 7.2 * len(name) <= WIDTH for name, (x, _) in found.items())
    assert len({y for _, y in found.values()}) == 2
    assert max(y for _, y in found.values()) < TOP


def test_bars_begin_below_a_legend_of_any_length():
    root = drawn(
        bar_plot("Gain", ["clip"], {f"network number {n}": [1.0] for n in range(9)}, label="")
    )

    rectangles = [r for r in root.iter(f"{SVG}rect") if r.get("class") is None]
    legend = [float(r.get("y")) for r in rectangles if r.find(f"{SVG}title") is None]
    bars = [float(r.get("y")) for r in rectangles if r.find(f"{SVG}title") is not None]
    assert len(legend) == len(bars) == 9
    assert max(legend) + 10 < min(bars)
