"""Frames into a pipe, as YUV4MPEG2: what other programs read without a file between.

A header gives size, rate and pixel format, and the frames follow, uncompressed. It holds no sound
and no time but the rate.
"""

from __future__ import annotations

from fractions import Fraction
from types import TracebackType
from typing import BinaryIO, Self

import av

from vsrm_cli.decode.y4m import packed
from vsrm_cli.encode.options import EncodingPlan
from vsrm_cli.errors import OutputError
from vsrm_cli.frame import Frame
from vsrm_cli.media.color import FromRgb
from vsrm_cli.media.geometry import Shape
from vsrm_cli.media.orientation import upright
from vsrm_cli.media.probe import VideoInfo

# Pixel formats and what the header calls them. Samples of color lie as in H.264.
_NAMES = {
    "yuv420p": "420mpeg2",
    "yuv422p": "422",
    "yuv444p": "444",
    **{f"yuv{s}p{bits}le": f"{s}p{bits}" for s in (420, 422, 444) for bits in (10, 12)},
}
_ALL_BUT_FRAMES = "sound, subtitles and metadata: y4m cannot hold them"


class Y4mWriter:
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
            raise OutputError("The input has no frame rate, which y4m needs; write a file.")
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
        self._file.write(b"FRAME\n" + packed(self._from_rgb(upright(frame.pixels, self._matrix))))
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


def _nearest(source: VideoInfo) -> str:
    """The format of y4m that loses least of a source's."""
    form = av.VideoFormat(source.pixel_format)
    wide = form.chroma_width(16) if not form.is_rgb else 16
    high = form.chroma_height(16) if not form.is_rgb else 16
    kind = {(8, 8): "420", (8, 16): "422"}.get((wide, high), "444")
    depth = "" if source.bits <= 8 else "10le" if source.bits <= 10 else "12le"
    return f"yuv{kind}p{depth}"
