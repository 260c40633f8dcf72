"""Detect interlaced video and deinterlace it.

The two fields of an interlaced frame (its even and its odd lines) show different moments. Where
something moves they are displaced, which looks like the teeth of a comb, and a network would
enlarge the teeth. The flags in files are often wrong, so frames from all parts of the video are
examined. Each interlaced frame becomes one progressive frame at the time of its first field, so
neither the number nor the times of frames change.

A progressive video that is deinterlaced loses half of its lines, so the evidence must be clear.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, dropwhile, islice
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vsrm_cli.decode.combing import BlockCounts, Luma, find_combing
from vsrm_cli.media.color import luma_of

# Parts of the video that are examined, consecutive frames of each, and how many frames are decoded
# at most to reach a part without a key frame.
_PLACES = 5
_FRAMES_LOOKED_AT = 10
_MOST_FRAMES_SKIPPED = 300
# No television frame has more lines. Half of the columns of a wide one are enough.
_MOST_LINES = 1152
_MOST_COLUMNS = 960
# AVFieldOrder: interlaced from this value on.
_FIRST_INTERLACED_ORDER = 2

# A frame is combed if this share of its moving blocks is. Encoders blur the combing of a video that
# they take for progressive, so the share is small; progressive videos have almost none.
_LEAST_SHARE_OF_BLOCKS = 0.02
_LEAST_BLOCKS_OF_FRAME = 2
# Minimum share of combed frames among those with motion. In telecined video, two of five are.
_LEAST_SHARE_MARKED = 0.15
_LEAST_SHARE_UNMARKED = 0.2
# The field order is certain if the other one is found this many times less.
_LEAST_AGREEMENT = 3
_LEAST_BLOCKS_MARKED = 4
_LEAST_BLOCKS_UNMARKED = 12
_LEAST_FRAMES = 3

FirstField = Literal["tff", "bff"]


@dataclass(frozen=True, slots=True)
class FieldOrder:
    """The field order of a video, as far as it is known.

    Attributes:
        first: Which field shows the earlier moment, "tff" (top) or "bff" (bottom), where combing
            is seen; None where none is.
        is_marked: Whether the file says that it is interlaced.
        is_doubtful: Whether some combing is seen, but too little to be sure.
    """

    first: FirstField | None = None
    is_marked: bool = False
    is_doubtful: bool = False


def detect_field_order(container: InputContainer, stream: VideoStream) -> FieldOrder:
    """Look for combing in some frames from all parts of a video.

    Args:
        container: The file; nothing has to be read from it any more.
        stream: Its main video.
    """
    if stream.codec_context.height > _MOST_LINES:
        return FieldOrder()
    seen: list[BlockCounts] = []
    is_marked = False
    for frames in sample_frames(container, stream):
        is_marked |= any(frame.interlaced_frame for frame in frames)
        seen += _look_at(frames)
    is_marked |= stream.codec_context.field_order >= _FIRST_INTERLACED_ORDER
    return _decide(seen, is_marked=is_marked)


def _decide(seen: list[BlockCounts], *, is_marked: bool) -> FieldOrder:
    """Decide by the combing of the frames."""
    blocks = sum(seen, BlockCounts())
    first: FirstField = "tff" if blocks.tff >= blocks.bff else "bff"
    combed, other = max(blocks.tff, blocks.bff), min(blocks.tff, blocks.bff)
    combed_frames = moving_frames = 0
    for frame in seen:
        moving = frame.tff + frame.bff + frame.progressive
        least = max(_LEAST_BLOCKS_OF_FRAME, _LEAST_SHARE_OF_BLOCKS * moving)
        combed_frames += getattr(frame, first) >= least
        moving_frames += moving >= _LEAST_BLOCKS_OF_FRAME
    enough = _LEAST_BLOCKS_MARKED if is_marked else _LEAST_BLOCKS_UNMARKED
    if combed < enough or combed_frames < _LEAST_FRAMES:
        return FieldOrder(is_marked=is_marked)
    share = _LEAST_SHARE_MARKED if is_marked else _LEAST_SHARE_UNMARKED
    is_sure = combed >= _LEAST_AGREEMENT * other and combed_frames >= share * moving_frames
    return FieldOrder(first if is_sure else None, is_marked, is_doubtful=not is_sure)


def sample_frames(container: InputContainer, stream: VideoStream) -> Iterator[list[VideoFrame]]:
    """Consecutive frames from all parts of a video, no frame twice.

    A jump lands on a key frame, and a whole video may have only one; then the frames up to the
    part that is wanted are decoded.

    Args:
        container: The file; nothing has to be read from it any more.
        stream: Its main video.
    """
    time_base = stream.time_base or Fraction(1, 1000)
    duration = Fraction(container.duration or 0, av.time_base) / time_base
    start, length = stream.start_time or 0, int(stream.duration or duration)
    reached: int | None = None
    for place in range(_PLACES if length else 1):
        begin = start + length * place // _PLACES
        try:
            container.seek(begin, stream=stream)
            frames = container.decode(stream)
            head = next(frames, None)
            if head is None or (head.pts is None and place):
                continue  # without times it is unknown where a seek has landed
            frames = chain([head], frames)
            if reached is not None and head.pts is not None and head.pts <= reached:
                frames = _from(max(begin, reached + 1), frames)
            sample = list(islice(frames, _FRAMES_LOOKED_AT))
        except av.FFmpegError:
            continue  # damage is reported by the reader
        reached = max([reached or 0, *(f.pts for f in sample if f.pts is not None)])
        yield sample


def _from(ticks: int, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    """The frames from a time on; none if too many are before it."""
    near = islice(frames, _MOST_FRAMES_SKIPPED)
    return dropwhile(lambda frame: frame.pts is None or frame.pts < ticks, near)


def _look_at(frames: list[VideoFrame]) -> Iterator[BlockCounts]:
    """The combing of each frame that has neighbors on both sides."""
    lumas = [_luma(frame) for frame in frames]
    for before, luma, after in zip(lumas, lumas[1:], lumas[2:], strict=False):
        if before.shape == luma.shape == after.shape:
            yield find_combing(before, luma, after)


def _luma(frame: VideoFrame) -> Luma:
    luma = luma_of(frame).astype(np.int16)
    return luma[:, :: -(-frame.width // _MOST_COLUMNS)]


def apply_filter(
    frames: Iterable[tuple[VideoFrame, Fraction]], name: str, **options: str
) -> Iterator[tuple[VideoFrame, Fraction]]:
    """Pass frames through a filter of FFmpeg that returns one for each.

    Args:
        frames: Frames with their times, which may change in size and format.
        name: FFmpeg's name of the filter.
        options: Its options.

    Yields:
        The filtered frames, each with the time of its original.
    """
    times: deque[tuple[Fraction, int]] = deque()
    graph: Graph | None = None
    kind: tuple[int, int, str] | None = None
    for frame, time in frames:
        if kind != (frame.width, frame.height, frame.format.name):
            yield from _drain(graph, times, is_end=True)
            kind = (frame.width, frame.height, frame.format.name)
            graph = _new_graph(frame, name, options)
        assert graph is not None
        times.append((time, frame.duration))
        # Filters may use times, and not all frames have one.
        frame.pts = int(time * 1_000_000)
        frame.time_base = Fraction(1, 1_000_000)
        graph.vpush(frame)
        yield from _drain(graph, times, is_end=False)
    yield from _drain(graph, times, is_end=True)


def _new_graph(frame: VideoFrame, name: str, options: dict[str, str]) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
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
            frame = graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
        time, duration = times.popleft()
        frame.duration = duration
        yield frame, time
