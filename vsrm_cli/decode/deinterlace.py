"""Interlaced video: half of the lines of each frame show a later moment than the other half.

On moving things these halves, the fields, stand apart like the teeth of a comb, and a network
would enlarge the teeth. Files say whether they are interlaced, but many say it wrongly, so some
frames are looked at. Each interlaced frame then becomes one whole frame of the moment of its
first field, so that neither number nor times of frames change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Literal

import av
from av.container import InputContainer
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

# Parts of the video at which is looked, and how many frames of each.
_PLACES = (0.0, 1 / 3, 2 / 3)
_FRAMES_LOOKED_AT = 8
# No television picture has more lines.
_MOST_LINES = 1152
# In film that was made interlaced, two frames of five show combs; where little moves, fewer do.
_LEAST_SHARE_MARKED = 0.15
_LEAST_SHARE_UNMARKED = 0.3
_LEAST_FRAMES = 3

FirstField = Literal["tff", "bff"]


@dataclass(frozen=True, slots=True)
class Fields:
    """What is known of the fields of a video.

    Attributes:
        first: Which field shows the earlier moment, "tff" (top) or "bff" (bottom), where combs
            are seen; None where none are.
        is_marked: Whether the file says that it is interlaced.
    """

    first: FirstField | None = None
    is_marked: bool = False


def look_for_fields(container: InputContainer, stream: VideoStream) -> Fields:
    """Look at some frames of a video, from its beginning, middle and end.

    Args:
        container: The file; nothing has to be read from it any more.
        stream: Its main video.
    """
    if stream.codec_context.height > _MOST_LINES:
        return Fields()
    seen: dict[str, float] = {"tff": 0, "bff": 0, "frames": 0}
    is_marked = False
    for place in _PLACES if stream.duration else (0.0,):
        begin = int((stream.start_time or 0) + place * (stream.duration or 0))
        try:
            container.seek(begin, stream=stream)
            frames = list(islice(container.decode(stream), _FRAMES_LOOKED_AT))
        except av.FFmpegError:
            continue  # whoever reads the video will tell of the damage
        is_marked |= any(frame.interlaced_frame for frame in frames)
        for name, count in _combs(frames).items():
            seen[name] += count
    first: FirstField = "tff" if seen["tff"] >= seen["bff"] else "bff"
    share = _LEAST_SHARE_MARKED if is_marked else _LEAST_SHARE_UNMARKED
    is_combed = seen[first] >= max(_LEAST_FRAMES, share * seen["frames"])
    return Fields(first if is_combed else None, is_marked)


def _combs(frames: list[VideoFrame]) -> dict[str, float]:
    """In how many frames the top field, or the bottom field, shows the earlier moment."""
    told: dict[str, str] = {}
    for frame, _ in filtered(((frame, Fraction(0)) for frame in frames), "idet"):
        told = frame.metadata
    counts = {name: float(told.get(f"lavfi.idet.multiple.{name}", 0)) for name in ("tff", "bff")}
    return counts | {"frames": len(frames)}


def deinterlaced(
    pictures: Iterable[tuple[VideoFrame, Fraction]], first: FirstField
) -> Iterator[tuple[VideoFrame, Fraction]]:
    """Make whole frames of interlaced ones, one for one, each with the time it came with."""
    return filtered(pictures, "bwdif", mode="send_frame", parity=first, deint="all")


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
