"""Pictures on their way through a filter of FFmpeg, each with the time that it came with."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
from av.filter import Graph
from av.video.frame import VideoFrame


def filtered(
    pictures: Iterable[tuple[VideoFrame, Fraction]], name: str, **options: str
) -> Iterator[tuple[VideoFrame, Fraction]]:
    """Send pictures through a filter of FFmpeg that gives one for each.

    Args:
        pictures: Pictures with their times, which may change in size and format.
        name: FFmpeg's name of the filter.
        options: Its options.

    Yields:
        The filtered pictures, each with the time of its original.
    """
    times: deque[tuple[Fraction, int]] = deque()
    graph: Graph | None = None
    kind: tuple[int, int, str] | None = None
    for picture, time in pictures:
        if kind != (picture.width, picture.height, picture.format.name):
            yield from _drain(graph, times, is_end=True)
            kind = (picture.width, picture.height, picture.format.name)
            graph = _new_graph(picture, name, options)
        assert graph is not None
        times.append((time, picture.duration))
        # Filters may look at times, and not all pictures have one.
        picture.pts = int(time * 1_000_000)
        picture.time_base = Fraction(1, 1_000_000)
        graph.vpush(picture)
        yield from _drain(graph, times, is_end=False)
    yield from _drain(graph, times, is_end=True)


def _new_graph(picture: VideoFrame, name: str, options: dict[str, str]) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=Fraction(1, 1_000_000),
    )
    graph.link_nodes(source, graph.add(name, **options), graph.add("buffersink")).configure()
    return graph


def _drain(
    graph: Graph | None, times: deque[tuple[Fraction, int]], *, is_end: bool
) -> Iterator[tuple[VideoFrame, Fraction]]:
    if graph is None:
        return
    if is_end:
        graph.vpush(None)
    while times:
        try:
            picture = graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
        time, duration = times.popleft()
        picture.duration = duration
        yield picture, time
