"""Frames to a pipe, as YUV4MPEG2 (y4m), which other programs read.

A header gives size, rate and pixel format, and the frames follow, uncompressed. There is no sound
and no time except for the rate.
"""

from __future__ import annotations

from fractions import Fraction
from typing import BinaryIO, Self

import av

from vsrm_cli.decode.y4m import pack_planes
from vsrm_cli.encode.options import EncodingPlan
from vsrm_cli.errors import OutputError
from vsrm_cli.frame import Frame
from vsrm_cli.media.color import FromRgb
from vsrm_cli.media.geometry import OutputShape
from vsrm_cli.media.orientation import rotate_upright
from vsrm_cli.media.probe import VideoInfo

# Pixel formats and their names in the header. The chroma location is that of H.264.
_NAMES = {
    "yuv420p": "420mpeg2",
    "yuv422p": "422",
    "yuv444p": "444",
    **{f"yuv{s}p{bits}le": f"{s}p{bits}" for s in (420, 422, 444) for bits in (10, 12)},
}
_ALL_BUT_FRAMES = "sound, subtitles and metadata: y4m cannot hold them"


class Y4mWriter:
    """An uncompressed video written to a pipe; see `DirectWriter`."""

    kept: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __init__(
        self, file: BinaryIO, *, source: VideoInfo, shape: OutputShape, pixel_format: str
    ) -> None:
        """Prepare; the header is written with the first frame.

        Args:
            file: The pipe.
            source: The video that the frames come from.
            shape: Of the frames as stored; those in the pipe are upright.
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
        self.shape = self.shown_shape = shape = shape.upright(source)
        color = source.color.fitted(
            pixel_format,
            width=shape.width,
            height=shape.height,
            source_format=source.pixel_format,
        )
        self.plan = EncodingPlan("y4m", "rawvideo", pixel_format, {})
        self.dropped = (*source.dropped, _ALL_BUT_FRAMES)
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

    def __exit__(self, *error: object) -> None:
        """Flush the pipe."""
        self._file.flush()

    def write(self, frame: Frame) -> None:
        """Write one frame.

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
        self._file.write(
            b"FRAME\n" + pack_planes(self._from_rgb(rotate_upright(frame.pixels, self._matrix)))
        )
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
    """The pixel format of y4m that is nearest to that of a source."""
    form = av.VideoFormat(source.pixel_format)
    wide = form.chroma_width(16) if not form.is_rgb else 16
    high = form.chroma_height(16) if not form.is_rgb else 16
    kind = {(8, 8): "420", (8, 16): "422"}.get((wide, high), "444")
    depth = "" if source.bits <= 8 else "10le" if source.bits <= 10 else "12le"
    return f"yuv{kind}p{depth}"
