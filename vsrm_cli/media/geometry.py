"""The size of the output, with the display aspect ratio of the input.

Stored and displayed size may differ: pixels may not be square (a DVD), and players may rotate the
video by 90 degrees (a phone). Options mean the displayed size.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from vsrm_cli.media.probe import VideoInfo


@dataclass(frozen=True, slots=True)
class OutputShape:
    """The stored frame size of an output.

    Attributes:
        width: In pixels, even.
        height: In pixels, even.
        sample_aspect_ratio: Width of a pixel over its height; None to leave it unset.
    """

    width: int
    height: int
    sample_aspect_ratio: Fraction | None

    def upright(self, info: VideoInfo) -> OutputShape:
        """The size after rotating the frames as players do."""
        if not info.is_turned:
            return self
        pixel = self.sample_aspect_ratio
        return OutputShape(self.height, self.width, None if pixel is None else 1 / pixel)

    def enlargement(self, info: VideoInfo) -> Fraction:
        """The larger of the two ratios of its sides to those of an input."""
        return max(Fraction(self.width, info.width), Fraction(self.height, info.height))

    def squared(self) -> OutputShape:
        """The same displayed size with square pixels."""
        if self.sample_aspect_ratio is None:
            return self
        return OutputShape(_even(self.width * self.sample_aspect_ratio), self.height, None)


def output_shape(
    info: VideoInfo,
    *,
    scale: Fraction,
    height: int | None = None,
    box: tuple[int, int] | None = None,
) -> OutputShape:
    """Choose the size of the output.

    Args:
        info: The source.
        scale: How many times larger to make it; ignored with ``height`` or ``box``.
        height: Displayed height; the pixel aspect ratio is kept.
        box: Displayed width and height to fit into, with square pixels.

    Returns:
        A shape with the aspect ratio of the source, up to rounding to even sizes, which most codecs
        need.
    """
    pixel = info.sample_aspect_ratio or Fraction(1)
    seen_width, seen_height = info.width * pixel, Fraction(info.height)
    if info.is_turned:
        seen_width, seen_height = seen_height, seen_width
    if box is not None:
        factor = min(box[0] / seen_width, box[1] / seen_height)
        width, lines = _even(seen_width * factor), _even(seen_height * factor)
        if info.is_turned:
            width, lines = lines, width
        square = None if info.sample_aspect_ratio is None else Fraction(1)
        return OutputShape(width, lines, square)
    if height is not None:
        scale = height / seen_height
    return OutputShape(
        _even(info.width * scale), _even(info.height * scale), info.sample_aspect_ratio
    )


def _even(pixels: Fraction) -> int:
    return max(2, 2 * round(pixels / 2))
