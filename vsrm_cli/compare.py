"""The job of `vsrm compare`: two or three videos side by side, frame by frame.

Frames are matched by number. A video that is two or four times smaller is upscaled by bicubic
interpolation, so that a source can be compared with its result.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
import torch

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.encode.options import EncodingOptions
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.encode.video_target import VideoTarget
from vsrm_cli.errors import InputError, UsageError
from vsrm_cli.evaluation.baselines import upscale_frame
from vsrm_cli.evaluation.quality import find_densest_box
from vsrm_cli.files import check_output_path
from vsrm_cli.frame import Frame, Pixels, to_8_bits, to_16_bits
from vsrm_cli.media.geometry import OutputShape
from vsrm_cli.remux.stream_mapping import check_container_name
from vsrm_cli.report import viewer
from vsrm_cli.report.html import data_uri, encode_png, html_page, paragraph, write_whole
from vsrm_cli.report.labels import draw_label
from vsrm_cli.report.svg import line_plot
from vsrm_cli.upscale.pipeline import Progress, run_stages

MODES = ("side", "wipe", "difference")
# The scales of the networks: a source may be this many times smaller than its result.
SCALES = (2, 4)

# Period of the moving edge, in seconds.
WIPE_SECONDS = 4
# Gain, since differences are small.
DIFFERENCE_GAIN = 4
# Length of the queues before drawing and before encoding.
QUEUE_LENGTH = 4

# A still shows the part that differs most, of the frame that differs most.
MAX_STILL_CROP = (360, 400)  # height, width
GAP = 8  # white columns between two videos

# A page shows this many frames spread over the video, and the one that differs most; large frames
# are cropped to the part that differs most.
FRAMES_SHOWN = 5
MAX_PAGE_CROP = (450, 800)  # height, width

# One frame of each video, with the same number.
Frames = tuple[Frame, ...]


@dataclass(frozen=True)
class Comparison:
    """Summary of a comparison.

    Attributes:
        output: The file written.
        frames: Number of compared frames.
        width: Of a compared frame, in pixels.
        height: Of a compared frame, in pixels.
        enlarged: The video that was upscaled by bicubic; None if all have one size.
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
    third: Path | None = None,
    start: Fraction | None = None,
    mode: str = "side",
    labels: Sequence[str] | None = None,
    encoding: EncodingOptions | None = None,
    overwrite: bool = False,
    report: Callable[[Progress], None] | None = None,
) -> Comparison:
    """Combine videos into one video, a page with sliders, or a still.

    Args:
        first: A video; the output has its times and audio.
        second: Another with as many frames, of the same size or two or four times larger or
            smaller.
        output: The file to write: a video, a page (".html"), or the crop that differs most
            (".png").
        third: A third video, like `second`.
        start: Start of `first`, in seconds after its first frame; it ends where the others end.
            For results of `vsrm upscale --start`.
        mode: For a video: "side" by side; for two, "wipe" with a moving edge or "difference".
        labels: Names of the videos; None for their file names.
        encoding: Of a video; None for the default.
        overwrite: Whether `output` may exist and be replaced.
        report: Called with the progress of a video.

    Raises:
        InputError: If a video cannot be read, or the videos do not match.
        OutputError: If the output cannot be written.
        UsageError: If there is no such mode, or it is for two videos only.
    """
    paths = [first, second] if third is None else [first, second, third]
    if mode not in MODES:
        raise UsageError(f'The mode must be one of {", ".join(MODES)}, not "{mode}".')
    if mode != "side" and len(paths) > 2:
        raise UsageError(f'The mode "{mode}" is for two videos; give --mode side, or name a page.')
    make = {".html": _make_page, ".png": _make_still}.get(output.suffix.lower())
    if make is None:
        check_container_name(output)
    check_output_path(output, inputs=paths, overwrite=overwrite)
    with ExitStack() as stack:
        videos = _Videos(stack, paths, start)
        names = labels or videos.names()
        if make is not None:
            frames, content = make(videos, names)
            write_whole(output, content, overwrite=overwrite)
        else:
            source = videos.infos[0]
            renderer = _Renderer(mode, names, width=videos.width, height=videos.height)
            writer = stack.enter_context(
                VideoWriter(
                    VideoTarget(
                        output,
                        source=source,
                        shape=OutputShape(
                            renderer.width, renderer.height, source.sample_aspect_ratio
                        ),
                        encoding=encoding or EncodingOptions(),
                        start=start,
                        end=videos.end,
                        overwrite=overwrite,
                    )
                )
            )
            run_stages(
                videos.read(),
                renderer.draw,
                writer.write,
                read_depth=QUEUE_LENGTH,
                write_depth=QUEUE_LENGTH,
                frames_expected=videos.infos[1].expected_frames,
                # No network runs here: its rate would be that of drawing.
                report=report and (lambda progress: report(replace(progress, network_fps=0.0))),
            )
            frames = writer.frames_written
    return Comparison(str(output), frames, videos.width, videos.height, videos.enlarged)


class _Videos:
    """The videos to compare.

    Attributes:
        infos: Of each video.
        width: Of the compared frames, in pixels.
        height: Of the compared frames, in pixels.
        enlarged: The first video that is upscaled; None if all have one size.
        end: Where the first one ends, if before its own end.
    """

    def __init__(self, stack: ExitStack, paths: Sequence[Path], start: Fraction | None) -> None:
        """Probe the videos.

        Raises:
            InputError: If one cannot be read, or their sizes do not match.
        """
        self._stack = stack
        self._paths = paths
        self._start = start
        self.infos = [reader.info for reader in self._open()]
        largest = max(self.infos, key=lambda info: info.width)
        self.width, self.height = largest.width, largest.height
        self.enlarged = None
        for info in self.infos:
            sizes = [(scale * info.width, scale * info.height) for scale in (1, *SCALES)]
            if (self.width, self.height) not in sizes:
                scales_text = " or ".join(map(str, SCALES))
                raise InputError(
                    f"{info.path} has frames of {info.width}x{info.height} pixels and "
                    f"{largest.path} of {self.width}x{self.height}; they can only be compared if "
                    f"the sizes are equal or one is {scales_text} times the other."
                )
            if info.width < self.width:
                self.enlarged = self.enlarged or str(info.path)
        length = self.infos[1].duration
        self.end = None if start is None or length is None else start + length

    def names(self) -> list[str]:
        """Default names of the videos."""
        return [
            info.path.name + ("" if info.width == self.width else ", bicubic")
            for info in self.infos
        ]

    def read(self) -> Iterator[Frames]:
        """Read the frames of each number, in one size and bit depth.

        Raises:
            InputError: If one video ends before another.
        """
        readers = self._open()
        streams = [iter(reader) for reader in readers]
        count = 0
        while True:
            frames = [next(stream, None) for stream in streams]
            # The compared part may end before the first video.
            others = frames if self._start is None else frames[1:]
            if all(frame is None for frame in others):
                return
            if None in frames:
                shorter, longer = (
                    next(r for r, f in zip(readers, frames, strict=True) if (f is None) is is_over)
                    for is_over in (True, False)
                )
                raise InputError(
                    f"{shorter.info.path} has {count} frames, {longer.info.path} has more; only "
                    "videos with the same number of frames can be compared. If one is a part of "
                    "the other, name the longer one first and give --start."
                )
            count += 1
            yield _same_depth([self._enlarged(frame) for frame in frames if frame is not None])

    def _enlarged(self, frame: Frame) -> Frame:
        scale = self.width // frame.pixels.shape[2]
        return frame if scale == 1 else upscale_frame(frame, scale=scale)

    def _open(self) -> list[VideoReader]:
        starts = (self._start, *(None for _ in self._paths[1:]))
        return [
            self._stack.enter_context(VideoReader(path, start=start, turns_upright=True))
            for path, start in zip(self._paths, starts, strict=True)
        ]


def _same_depth(frames: Sequence[Frame]) -> Frames:
    """Convert frames to the largest bit depth among them."""
    if len({frame.pixels.dtype for frame in frames}) == 1:
        return tuple(frames)
    return tuple(replace(frame, pixels=to_16_bits(frame.pixels)) for frame in frames)


class _Renderer:
    """Draws the frames of one number into one frame.

    Attributes:
        width: Of the output: even, as most encoders require.
        height: Likewise.
    """

    def __init__(self, mode: str, names: Sequence[str], *, width: int, height: int) -> None:
        self._draw = {"side": _side, "wipe": _wipe, "difference": _difference}[mode]
        self._names = names
        drawn = len(names) * width if mode == "side" else width
        self.width, self.height = drawn + drawn % 2, height + height % 2

    def draw(self, groups: Iterable[Frames]) -> Iterator[Frame]:
        """Draw the frames of each number; the output has the time of the first one."""
        for frames in groups:
            drawn = self._draw(frames, self._names)
            rest = (self.height - drawn.shape[1], self.width - drawn.shape[2])
            if any(rest):
                drawn = cast(Pixels, np.pad(drawn, ((0, 0), (0, rest[0]), (0, rest[1])), "edge"))
            yield replace(frames[0], pixels=drawn)


def _side(frames: Frames, names: Sequence[str]) -> Pixels:
    parts = [frame.pixels.copy() for frame in frames]
    for part, name in zip(parts, names, strict=True):
        draw_label(part, name)
    return cast(Pixels, np.concatenate(parts, axis=2))


def _wipe(frames: Frames, names: Sequence[str]) -> Pixels:
    """The first video left of a moving white line, the second right of it."""
    one, other = frames
    drawn = other.pixels.copy()
    width = drawn.shape[2]
    turn = float(one.time) / WIPE_SECONDS
    edge = round(width * (0.5 - 0.5 * math.cos(2 * math.pi * turn)))
    drawn[:, :, :edge] = one.pixels[:, :, :edge]
    drawn[:, :, max(0, edge - 1) : edge + 1] = np.iinfo(drawn.dtype).max
    draw_label(drawn, names[0])
    draw_label(drawn, names[1], right=True)
    return drawn


def _difference(frames: Frames, names: Sequence[str]) -> Pixels:
    one, other = frames
    peak = np.iinfo(one.pixels.dtype).max
    apart = np.abs(one.pixels.astype(np.int64) - other.pixels) * DIFFERENCE_GAIN
    drawn: Pixels = np.minimum(apart, peak).astype(one.pixels.dtype)
    draw_label(drawn, f"{DIFFERENCE_GAIN} x difference: {names[0]} - {names[1]}")
    return drawn


def _make_page(videos: _Videos, names: Sequence[str]) -> tuple[int, bytes]:
    """The number of frames, and a page with a plot of the difference and sliders."""
    errors = [_squared_errors(frames) for frames in videos.read()]
    views = [
        _view(frames, number)
        for number, frames in _again(videos, _frames_to_show([sum(e) for e in errors]))
    ]
    curve = line_plot(
        f"{names[0]} against {' and '.join(names[1:])}",
        {
            name: [(number, each[place] ** 0.5) for number, each in enumerate(errors)]
            for place, name in enumerate(names[1:])
        },
        x_label="frame",
        y_label="RMS difference, of 255",
    )
    parts = [
        paragraph("Move the edge in each image with the mouse, a finger, or the slider below it."),
        viewer.toolbar(names, plays=False),
        *(viewer.viewer(view, names) for view in views),
        curve,
    ]
    lead = f"{len(errors)} frames, {', '.join(names[:-1])} and {names[-1]}"
    style, script = viewer.STYLE, viewer.SCRIPT
    page = html_page("vsrm compare", lead, parts, style=style, script=script)
    return len(errors), page.encode()


def _make_still(videos: _Videos, names: Sequence[str]) -> tuple[int, bytes]:
    """The number of frames, and a PNG of the crop that differs most."""
    errors = [sum(_squared_errors(frames)) for frames in videos.read()]
    ((_, frames),) = _again(videos, {errors.index(max(errors))})
    parts = _most_different_part(frames, MAX_STILL_CROP)
    for part, name in zip(parts, names, strict=True):
        draw_label(part, name)
    gap = np.full((3, parts[0].shape[1], GAP), 255, np.uint8)
    row = [piece for part in parts for piece in (gap, part)][1:]
    return len(errors), encode_png(cast(Pixels, np.concatenate(row, axis=2)))


def _again(videos: _Videos, numbers: set[int]) -> Iterator[tuple[int, Frames]]:
    """Read the videos a second time, for some of their frames."""
    return ((n, frames) for n, frames in enumerate(videos.read()) if n in numbers)


def _squared_errors(frames: Frames) -> list[float]:
    """Mean squared difference of each to the first one, in 8-bit levels."""
    level = np.iinfo(frames[0].pixels.dtype).max / 255
    first = frames[0].pixels.astype(np.float32)
    return [float(np.square((f.pixels - first) / level).mean()) for f in frames[1:]]


def _frames_to_show(errors: list[float]) -> set[int]:
    last = len(errors) - 1
    spread = {round(last * k / max(1, FRAMES_SHOWN - 1)) for k in range(FRAMES_SHOWN)}
    return spread | {errors.index(max(errors))}


def _view(frames: Frames, number: int) -> viewer.PlaceVersions:
    parts = _most_different_part(frames, MAX_PAGE_CROP)
    height, width = parts[0].shape[1:]
    return viewer.PlaceVersions(
        title=f"frame {number}, at {float(frames[0].time):.3f} s",
        caption="",
        frames=[[data_uri(part)] for part in parts],
        width=width,
        height=height,
    )


def _most_different_part(frames: Frames, largest: tuple[int, int]) -> list[Pixels]:
    """The crop of frames that differs most, up to a size, (3, h, w) uint8."""
    first, *others = (to_8_bits(frame.pixels) for frame in frames)
    squares = [np.square(first.astype(np.float32) - other).mean(0) for other in others]
    height, width = (min(sides) for sides in zip(largest, first.shape[1:], strict=True))
    difference = torch.from_numpy(np.sum(squares, axis=0))
    top, left, _ = find_densest_box(difference, height=height, width=width)
    box = (slice(None), slice(top, top + height), slice(left, left + width))
    return [pixels[box].copy() for pixels in (first, *others)]
