"""Crops of frames: their place and detail, and how frames are shrunk and turned."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class CropBox:
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def scaled(self, factor: float) -> "CropBox":
        """The same rectangle of frames enlarged by a factor."""
        sides = (int(factor * side) for side in (self.top, self.left, self.height, self.width))
        return CropBox(*sides)

    def crop(self, frames: Tensor) -> Tensor:
        """Crop frames, (..., H, W)."""
        rows = slice(self.top, self.top + self.height)
        return frames[..., rows, self.left : self.left + self.width]


def shrink(frames: Tensor, factor: float) -> Tensor:
    """Shrink (..., 3, H, W) uint8 by antialiased bicubic interpolation, rounded to 8 bits."""
    shrunk = F.interpolate(
        frames.reshape(-1, *frames.shape[-3:]).float(),
        scale_factor=factor,
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    shrunk = shrunk.round().clamp(0, 255).to(torch.uint8)
    return shrunk.reshape(*frames.shape[:-2], *shrunk.shape[-2:])


def measure_detail(image: Tensor) -> float:
    """Mean absolute difference of neighboring pixels, in gray levels, of (..., H, W) values."""
    image = image.float()
    across = (image[..., 1:] - image[..., :-1]).abs().mean()
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().mean()
    return float(across + down)


def most_detailed(
    image: Tensor, height: int, width: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Choose the place with most detail out of three random places in an image.

    Args:
        image: (3, H, W).
        height: Of the place; if the image is smaller, the place is at its border.
        width: Of the place, likewise.
        rng: Chooses the places.

    Returns:
        The top and the left of the place.
    """
    places = [
        (
            int(rng.integers(max(image.shape[-2] - height, 0) + 1)),
            int(rng.integers(max(image.shape[-1] - width, 0) + 1)),
        )
        for _ in range(3)
    ]
    return max(
        places,
        key=lambda at: measure_detail(
            image[:, at[0] : at[0] + height : 2, at[1] : at[1] + width : 2]
        ),
    )


def flip_and_rotate(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """Flip and rotate (..., H, W) by quarter turns at random."""
    if rng.random() < 0.5:
        frames = frames.flip(-1)
    return torch.rot90(frames, int(rng.integers(4)), (-2, -1)).contiguous()
