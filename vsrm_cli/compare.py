"""The job of `vsrm compare`: two videos beside each other, frame by frame.

Frame n of the one is always shown with frame n of the other. A video that is two or four times
smaller is enlarged by bicubic interpolation, so that a source can stand beside what was made of it.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import cast

import numpy as np
import torch

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.encode.options import Encoding
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.errors import InputError, UsageError
from vsrm_cli.evaluation.baselines import upscale_bicubic
from vsrm_cli.evaluation.quality import densest_place
from vsrm_cli.files import check_output_path
from vsrm_cli.frame import Frame, Pixels
from vsrm_cli.inference.blending import to_pixels
from vsrm_cli.media.geometry import Shape
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.remux.stream_mapping import check_container_name
from vsrm_cli.report.html import (
    encode_png,
    html_page,
    paragraph,
    side_by_side,
    slider,
    write_whole,
)
from vsrm_cli.report.labels import draw_label
from vsrm_cli.report.svg import line_plot
from vsrm_cli.upscale.pipeline import Progress, run_stages

MODES = ("side", "wipe", "difference")
# What the networks here enlarge by: a source may be so many times smaller than what was made of it.
SCALES = (2, 4)

# The edge of a wipe goes there and back in so many seconds.
WIPE_SECONDS = 4
# Differences are small: shown as they are, they would be black.
DIFFERENCE_GAIN = 4
# Pairs that wait to be drawn, and pictures that wait to be encoded.
QUEUE_LENGTH = 4

# What a still shows: of the frame that differs most, the part that does.
LARGEST_STILL = (360, 400)  # height, width
GAP = 8  # white columns between the two

# What a page shows: so many frames spread over the video, and the one that differs most; of large
# frames the part that differs most.
FRAMES_SHOWN = 5
LARGEST_PICTURE = (450, 800)  # height, width

Pair = tuple[Frame, Frame]


@dataclass(frozen=True)
class Comparison:
    """What was made.

    Attributes:
        output: The file written.
        frames: How many frames were compared.
        width: Of a compared frame, in pixels.
        height: Of a compared frame, in pixels.
        enlarged: The video that was enlarged by bicubic; None where both have one size.
    """

    output: str
    frames: int
    width: int
    height: int
    enlarged: str | None


def compare_videos(
    first: Path,
    second: Path,
    output: Path,
    *,
    mode: str = "side",
    labels: tuple[str, str] | None = None,
    encoding: Encoding | None = None,
    overwrite: bool = False,
    report: Callable[[Progress], None] | None = None,
) -> Comparison:
    """Put two videos into one video, into a page with sliders, or into a still.

    Args:
        first: A video; its times and sound are those of the output.
        second: Another with as many frames, of the same size or four times larger or smaller.
        output: The file to write: a video, a page if it ends in ".html", or the most telling
            piece of both if it ends in ".png".
        mode: For a video: "side" by side, "wipe" with a moving edge, or "difference".
        labels: What the two are called; None for the names of their files.
        encoding: Of a video; None for the default.
        overwrite: Whether `output` may exist and be replaced.
        report: Is told how far the work is, where a video is made.

    Raises:
        InputError: If a video cannot be read, or they do not fit together.
        OutputError: If the output cannot be written as asked.
        UsageError: If there is no such mode.
    """
    if mode not in MODES:
        raise UsageError(f'The mode must be one of {", ".join(MODES)}, not "{mode}".')
    make = {".html": _make_page, ".png": _make_still}.get(output.suffix.lower())
    if make is None:
        check_container_name(output)
    check_output_path(output, inputs=[first, second], overwrite=overwrite)
    with ExitStack() as stack:
        a, b = (
            stack.enter_context(VideoReader(path, turns_upright=True)) for path in (first, second)
        )
        width, height, enlarged = _common_size(a.info, b.info)
        names = labels or _names(a.info, b.info, enlarged)
        if make is not None:
            frames, content = make(a, b, names)
            write_whole(output, content, overwrite=overwrite)
        else:
            artist = _Artist(mode, names, width=width, height=height)
            writer = stack.enter_context(
                VideoWriter(
                    output,
                    source=a.info,
                    shape=Shape(artist.width, artist.height, a.info.sample_aspect_ratio),
                    encoding=encoding or Encoding(),
                    overwrite=overwrite,
                )
            )
            run_stages(
                _pairs(a, b),
                artist.draw,
                writer.write,
                read_depth=QUEUE_LENGTH,
                write_depth=QUEUE_LENGTH,
                frames_expected=a.info.expected_frames,
                # No network works here: its rate would be that of the drawing.
                report=report and (lambda progress: report(replace(progress, network_fps=0.0))),
            )
            frames = writer.frames_written
    return Comparison(str(output), frames, width, height, enlarged)


def _common_size(a: VideoInfo, b: VideoInfo) -> tuple[int, int, str | None]:
    """Width and height in which both are compared, and which of them is enlarged for it.

    Raises:
        InputError: If their sizes do not fit together.
    """
    if (a.width, a.height) == (b.width, b.height):
        return a.width, a.height, None
    for (small, large), scale in product(((a, b), (b, a)), SCALES):
        if (scale * small.width, scale * small.height) == (large.width, large.height):
            return large.width, large.height, str(small.path)
    told = " or ".join(map(str, SCALES))
    raise InputError(
        f"{a.path} has frames of {a.width}x{a.height} pixels and {b.path} of {b.width}x{b.height}; "
        f"they can only be compared if the sizes are equal or one is {told} times the other."
    )


def _names(a: VideoInfo, b: VideoInfo, enlarged: str | None) -> tuple[str, str]:
    first, second = (
        f"{info.path.name}, bicubic" if str(info.path) == enlarged else info.path.name
        for info in (a, b)
    )
    return first, second


def _pairs(a: VideoReader, b: VideoReader) -> Iterator[Pair]:
    """Frames of one number, in one size and depth.

    Raises:
        InputError: If one video ends before the other.
    """
    width, _, _ = _common_size(a.info, b.info)
    others = iter(b)
    count = 0
    for one in a:
        other = next(others, None)
        if other is None:
            raise _uneven(b, a, count)
        count += 1
        yield _alike(_enlarged(one, width), _enlarged(other, width))
    if next(others, None) is not None:
        raise _uneven(a, b, count)


def _uneven(shorter: VideoReader, longer: VideoReader, count: int) -> InputError:
    return InputError(
        f"{shorter.info.path} has {count} frames, {longer.info.path} has more; only videos with "
        "the same number of frames can be compared."
    )


def _enlarged(frame: Frame, width: int) -> Frame:
    if frame.pixels.shape[2] == width:
        return frame
    peak = np.iinfo(frame.pixels.dtype).max
    values = torch.from_numpy(frame.pixels.astype(np.float32)) / peak
    large = upscale_bicubic(values, scale=width // frame.pixels.shape[2])
    return replace(frame, pixels=to_pixels(large, frame.pixels.dtype))


def _alike(one: Frame, other: Frame) -> Pair:
    """Bring a pair to the depth of the deeper one."""
    if one.pixels.dtype == other.pixels.dtype:
        return one, other
    a, b = (
        replace(f, pixels=f.pixels.astype(np.uint16) * 257) if f.pixels.dtype == np.uint8 else f
        for f in (one, other)
    )
    return a, b


class _Artist:
    """Draws pairs of frames into one.

    Attributes:
        width: Of what is drawn: even, as most encoders demand.
        height: Likewise.
    """

    def __init__(self, mode: str, names: tuple[str, str], *, width: int, height: int) -> None:
        self._draw = {"side": _side, "wipe": _wipe, "difference": _difference}[mode]
        self._names = names
        drawn = 2 * width if mode == "side" else width
        self.width, self.height = drawn + drawn % 2, height + height % 2

    def draw(self, pairs: Iterable[Pair]) -> Iterator[Frame]:
        """Draw each pair; the result has the time of its first frame."""
        for one, other in pairs:
            drawn = self._draw(one, other, self._names)
            rest = (self.height - drawn.shape[1], self.width - drawn.shape[2])
            if any(rest):
                drawn = cast(Pixels, np.pad(drawn, ((0, 0), (0, rest[0]), (0, rest[1])), "edge"))
            yield replace(one, pixels=drawn)


def _side(one: Frame, other: Frame, names: tuple[str, str]) -> Pixels:
    halves = [frame.pixels.copy() for frame in (one, other)]
    for half, name in zip(halves, names, strict=True):
        draw_label(half, name)
    return cast(Pixels, np.concatenate(halves, axis=2))


def _wipe(one: Frame, other: Frame, names: tuple[str, str]) -> Pixels:
    """The first to the left of a moving white line, the second to the right of it."""
    drawn = other.pixels.copy()
    width = drawn.shape[2]
    turn = float(one.time) / WIPE_SECONDS
    edge = round(width * (0.5 - 0.5 * math.cos(2 * math.pi * turn)))
    drawn[:, :, :edge] = one.pixels[:, :, :edge]
    drawn[:, :, max(0, edge - 1) : edge + 1] = np.iinfo(drawn.dtype).max
    draw_label(drawn, names[0])
    draw_label(drawn, names[1], right=True)
    return drawn


def _difference(one: Frame, other: Frame, names: tuple[str, str]) -> Pixels:
    peak = np.iinfo(one.pixels.dtype).max
    apart = np.abs(one.pixels.astype(np.int64) - other.pixels) * DIFFERENCE_GAIN
    drawn: Pixels = np.minimum(apart, peak).astype(one.pixels.dtype)
    draw_label(drawn, f"{DIFFERENCE_GAIN} x difference: {names[0]} - {names[1]}")
    return drawn


def _make_page(a: VideoReader, b: VideoReader, names: tuple[str, str]) -> tuple[int, bytes]:
    """The number of frames, and a page with the difference of all and sliders of some."""
    errors = [_squared_error(one, other) for one, other in _pairs(a, b)]
    sliders = [
        _slider(pair, names, number) for number, pair in _again(a, b, _frames_to_show(errors))
    ]
    curve = line_plot(
        f"{names[0]} against {names[1]}",
        {"difference": [(number, error**0.5) for number, error in enumerate(errors)]},
        x_label="frame",
        y_label="RMS difference, of 255",
    )
    lead = f"{len(errors)} frames, {names[0]} and {names[1]}"
    parts = [paragraph("Move the edge of each picture."), side_by_side(sliders), curve]
    return len(errors), html_page("vsrm compare", lead, parts).encode()


def _make_still(a: VideoReader, b: VideoReader, names: tuple[str, str]) -> tuple[int, bytes]:
    """The number of frames, and a PNG of both where they differ most."""
    errors = [_squared_error(one, other) for one, other in _pairs(a, b)]
    ((_, pair),) = _again(a, b, {errors.index(max(errors))})
    halves = _most_different_part(pair, LARGEST_STILL)
    for half, name in zip(halves, names, strict=True):
        draw_label(half, name)
    gap = np.full((3, halves[0].shape[1], GAP), 255, np.uint8)
    joined = np.concatenate((halves[0], gap, halves[1]), axis=2)
    return len(errors), encode_png(cast(Pixels, joined))


def _again(a: VideoReader, b: VideoReader, wanted: set[int]) -> Iterator[tuple[int, Pair]]:
    """Read both videos a second time, for some of their frames."""
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(VideoReader(reader.info.path, turns_upright=True))
            for reader in (a, b)
        )
        for number, pair in enumerate(_pairs(one, other)):
            if number in wanted:
                yield number, pair


def _squared_error(one: Frame, other: Frame) -> float:
    """Mean squared difference in 8-bit levels."""
    level = np.iinfo(one.pixels.dtype).max / 255
    apart = (one.pixels.astype(np.float32) - other.pixels) / level
    return float(np.square(apart).mean())


def _frames_to_show(errors: list[float]) -> set[int]:
    last = len(errors) - 1
    spread = {round(last * k / max(1, FRAMES_SHOWN - 1)) for k in range(FRAMES_SHOWN)}
    return spread | {errors.index(max(errors))}


def _slider(pair: Pair, names: tuple[str, str], number: int) -> str:
    one, other = _most_different_part(pair, LARGEST_PICTURE)
    caption = f"frame {number}, at {float(pair[0].time):.3f} s"
    return slider(one, other, labels=names, caption=caption)


def _most_different_part(pair: Pair, largest: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """The part of two frames that differs most, at most as large as this, (3, h, w) uint8."""
    one, other = (_to_8_bits(frame.pixels) for frame in pair)
    difference = torch.from_numpy(np.square(one.astype(np.float32) - other).mean(0))
    height, width = (min(sides) for sides in zip(largest, one.shape[1:], strict=True))
    top, left, _ = densest_place(difference, height=height, width=width)
    box = (slice(None), slice(top, top + height), slice(left, left + width))
    return one[box].copy(), other[box].copy()


def _to_8_bits(pixels: Pixels) -> Pixels:
    if pixels.dtype == np.uint8:
        return pixels
    rounded: Pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return rounded
