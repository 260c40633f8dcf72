"""Films through pipes, as YUV4MPEG2: what other programs read and write without a file between.

A header tells size, rate and pixel format, and the frames follow, uncompressed. There is no sound,
no time but the rate, and no way back, so such a job cannot go on after an interruption.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vsrm_cli.errors import InputError, OutputError
from vsrm_cli.frame import Frame
from vsrm_cli.media.color import FromRgb, ToRgb, color_of
from vsrm_cli.media.cuts import CutFinder
from vsrm_cli.media.encoding import EncodingPlan
from vsrm_cli.media.geometry import Shape
from vsrm_cli.media.orientation import upright
from vsrm_cli.media.probe import VideoInfo, probe

# Pixel formats and what the header calls them. Samples of color lie as in H.264.
_NAMES = {
    "yuv420p": "420mpeg2",
    "yuv422p": "422",
    "yuv444p": "444",
    **{f"yuv{s}p{bits}le": f"{s}p{bits}" for s in (420, 422, 444) for bits in (10, 12)},
}
_LONGEST_HEADER = 4096
_ALL_BUT_FRAMES = "sound and all else but the pictures: y4m cannot hold them"


class PipeReader:
    """The frames of a film that comes through a pipe; like a `VideoReader`.

    Attributes:
        info: What the header and the first frame say.
        frames_read: Frames handed out so far.
        damaged_packets: Always 0.
        resized_frames: Always 0: all frames have one size.
        reshaped_frames: Always 0, likewise.
        truncated: Always False: a pipe does not tell how much should come.
    """

    damaged_packets = 0
    resized_frames = 0
    reshaped_frames = 0
    truncated = False

    def __init__(self, file: BinaryIO, *, start: Fraction | None, end: Fraction | None) -> None:
        """Read the first frame.

        Args:
            file: Where the film comes from.
            start: Leave out frames shown earlier than this, in seconds.
            end: Leave out frames shown at this time or later, in seconds.

        Raises:
            InputError: If what comes is no YUV4MPEG2.
        """
        header = file.readline(_LONGEST_HEADER)
        if not header.startswith(b"YUV4MPEG2 "):
            raise InputError("What comes through the pipe is no YUV4MPEG2; send it as y4m.")
        self.frames_read = 0
        self.notices: list[str] = []
        if any(word[:1] == b"I" and word[1:2] not in b"p?" for word in header.split()[1:]):
            self.notices.append("the film in the pipe says that it is interlaced: taken as it is")
        self._start = start or Fraction(0)
        self._end = end
        try:
            self._container = av.open(cast(Any, _Joined(header, file)), format="yuv4mpegpipe")
            self._frames = self._container.decode(video=0)
            first = next(self._frames)
        except (av.FFmpegError, StopIteration) as error:
            raise InputError(
                "Not one frame came through the pipe; look at what the sender says."
            ) from error
        self._frames = chain([first], self._frames)
        # Whoever wants to look at the source finds its beginning in a file.
        self._folder = tempfile.TemporaryDirectory(prefix="vsrm-")
        beginning = Path(self._folder.name) / "stdin.y4m"
        beginning.write_bytes(header + b"FRAME\n" + _packed(first))
        self.info: VideoInfo = replace(probe(beginning), duration=None, expected_frames=None)

    def close(self) -> None:
        """Read no more."""
        self._container.close()
        self._folder.cleanup()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order.

        Raises:
            InputError: If none lies in the asked range.
        """
        to_rgb = ToRgb(width=self.info.width, height=self.info.height)
        cuts = CutFinder()
        step = self.info.time_base
        for number, picture in enumerate(self._frames):
            time = number * step
            if time < self._start:
                continue
            if self._end is not None and time >= self._end:
                break
            color = color_of(picture)
            pixels = to_rgb(picture, self.info.color if color.guessed else color)
            self.frames_read += 1
            yield Frame(pixels, time, step, cuts.begins_shot(pixels))
        if self.frames_read == 0:
            raise InputError(
                "No frame in the pipe lies in the part that was asked for; choose another --start "
                "or --end."
            )


class PipeWriter:
    """A film written into a pipe.

    Attributes:
        plan: How it is encoded: not at all.
        shape: Of its pictures.
        frames_written: Frames taken so far.
        kept: Nothing.
        dropped: What a pipe cannot hold.
        warnings: None.
    """

    kept: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __init__(
        self, file: BinaryIO, *, source: VideoInfo, shape: Shape, pixel_format: str
    ) -> None:
        """Prepare; the header goes out with the first frame.

        Args:
            file: Where the film goes.
            source: The film that the frames come from.
            shape: Of the film's frames as they are stored; those in the pipe are upright.
            pixel_format: FFmpeg's name, or "auto" for the nearest to that of the source.

        Raises:
            OutputError: If y4m cannot hold the pixel format, or the source has no rate.
        """
        if pixel_format == "auto":
            pixel_format = _nearest(source)
        if pixel_format not in _NAMES:
            raise OutputError(
                f"A pipe of y4m cannot hold {pixel_format}; choose one of {', '.join(_NAMES)}."
            )
        if source.frame_rate is None:
            raise OutputError("The input tells no frame rate, which y4m needs; write a file.")
        shape = shape.upright(source)
        color = source.color.fitted(
            pixel_format,
            width=shape.width,
            height=shape.height,
            source_format=source.pixel_format,
        )
        self.plan = EncodingPlan("y4m", "rawvideo", pixel_format, {})
        self.shape = shape
        self.dropped = (*source.left_behind, _ALL_BUT_FRAMES)
        self.frames_written = 0
        self._file = file
        self._matrix = source.display_matrix
        self._rate = source.frame_rate
        self._clock = source.time_base
        self._first: Fraction | None = None
        self._from_rgb = FromRgb(color, pixel_format, width=shape.width, height=shape.height)

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send what is still held back."""
        self._file.flush()

    def write(self, frame: Frame) -> None:
        """Send one frame.

        Raises:
            OutputError: If it is not shown one step of the rate after the frame before.
        """
        if self._first is None:
            self._first = frame.time
            self._file.write(self._header())
        due = self._first + self.frames_written / self._rate
        # Containers round times to their clocks.
        if abs(frame.time - due) > max(self._clock, Fraction(1, 1000)):
            raise OutputError(
                f"The frame at {float(frame.time):.3f} s is not shown when the rate of "
                f"{float(self._rate):.3f} says; y4m holds no other times, so write a file."
            )
        pixels = upright(frame.pixels, self._matrix)
        self._file.write(b"FRAME\n" + _packed(self._from_rgb(pixels)))
        self.frames_written += 1

    def _header(self) -> bytes:
        pixel = self.shape.sample_aspect_ratio or Fraction(0, 1)
        words = (
            "YUV4MPEG2",
            f"W{self.shape.width}",
            f"H{self.shape.height}",
            f"F{self._rate.numerator}:{self._rate.denominator}",
            "Ip",
            f"A{pixel.numerator}:{pixel.denominator if pixel else 0}",
            f"C{_NAMES[self.plan.pixel_format]}",
            f"XCOLORRANGE={'FULL' if self._from_rgb.color.full_range else 'LIMITED'}",
        )
        return " ".join(words).encode() + b"\n"


class _Joined:
    """A file of which the first line has been read, as if it had not."""

    def __init__(self, line: bytes, file: BinaryIO) -> None:
        self._line = line
        self._file = file

    def read(self, size: int) -> bytes:
        data, self._line = self._line[:size], self._line[size:]
        return data or self._file.read(size)


def _nearest(source: VideoInfo) -> str:
    """The format of y4m that loses least of a source's."""
    form = av.VideoFormat(source.pixel_format)
    wide = form.chroma_width(16) if not form.is_rgb else 16
    high = form.chroma_height(16) if not form.is_rgb else 16
    kind = {(8, 8): "420", (8, 16): "422"}.get((wide, high), "444")
    depth = "" if source.bits <= 8 else "10le" if source.bits <= 10 else "12le"
    return f"yuv{kind}p{depth}"


def _packed(frame: VideoFrame) -> bytes:
    """The planes of a frame, without the padding at the end of their rows."""
    width = 2 if any(part.bits > 8 for part in frame.format.components) else 1
    parts = []
    for plane in frame.planes:
        rows: NDArray[np.uint8] = np.frombuffer(cast(Any, plane), np.uint8)
        parts.append(
            rows.reshape(plane.height, plane.line_size)[:, : plane.width * width].tobytes()
        )
    return b"".join(parts)
