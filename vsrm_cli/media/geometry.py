"""How large the output is, so that it has the shape on the screen that the input has.

A stored picture is not always the one that is seen: its pixels may be wider than high (a DVD), and
players may turn it by a quarter (a telephone). What a user asks for is what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from vsrm_cli.media.probe import VideoInfo


@dataclass(frozen=True, slots=True)
class Shape:
    """The stored picture of an output.

    Attributes:
        width: In pixels, even.
        height: In pixels, even.
        sample_aspect_ratio: Width of a pixel over its height, where the file shall say so.
    """

    width: int
    height: int
    sample_aspect_ratio: Fraction | None

    def upright(self, info: VideoInfo) -> Shape:
        """The same picture, its pixels turned as players show those of a video."""
        if not info.is_turned:
            return self
        pixel = self.sample_aspect_ratio
        return Shape(self.height, self.width, None if pixel is None else 1 / pixel)

    def enlargement(self, info: VideoInfo) -> Fraction:
        """How many times larger it is than the frames of an input: of both sides, the greater."""
        return max(Fraction(self.width, info.width), Fraction(self.height, info.height))

    def squared(self) -> Shape:
        """The same picture on the screen, made of square pixels."""
        if self.sample_aspect_ratio is None:
            return self
        return Shape(_even(self.width * self.sample_aspect_ratio), self.height, None)


def output_shape(
    info: VideoInfo,
    *,
    scale: Fraction,
    height: int | None = None,
    box: tuple[int, int] | None = None,
) -> Shape:
    """Choose the size of the output.

    Args:
        info: The source.
        scale: How many times larger to make it, if nothing else is asked for.
        height: Lines on the screen; the pixels keep their shape.
        box: Width and height on the screen into which the picture shall just fit, with square
            pixels.

    Returns:
        A shape with the aspect ratio of the source, but for the rounding to even numbers that
        most codecs need.
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
        return Shape(width, lines, square)
    if height is not None:
        scale = height / seen_height
    return Shape(_even(info.width * scale), _even(info.height * scale), info.sample_aspect_ratio)


def _even(pixels: Fraction) -> int:
    return max(2, 2 * round(pixels / 2))
