"""How sharp frames become the small ones that a network learns to enlarge.

Two ways are the literature's, and the third is what people have: footage that was blurred, resized
by whatever program, grainy, and above all compressed (`vsrm_cli.data.real_degradation`).
"""

import enum

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.data.real_degradation import degrade_real

SCALE = 4

# The Gaussian of BD: standard deviation in pixels, and pixels that it reaches to each side.
BD_SIGMA, BD_REACH = 1.6, 6


class Degradation(enum.StrEnum):
    """What small frames are made by."""

    BI = "bi"
    BD = "bd"
    REAL = "real"


def degrade(
    sharp: Tensor, kind: Degradation, rng: np.random.Generator, *, scale: int = SCALE
) -> Tensor:
    """Make the small frames of a clip.

    Args:
        sharp: (T, 3, scale H, scale W), values 0 to 1.
        kind: `shrink_bicubic`, `blur_and_take` or `degrade_real`. Only the last needs PyAV.
        rng: Decides all of `Degradation.REAL`; the others leave nothing to decide.
        scale: How many times smaller; 4 for `Degradation.BD`.

    Returns:
        (T, 3, H, W), values 0 to 1 in steps of 1/255.

    Raises:
        ValueError: If a side is no multiple of the scale.
    """
    if kind is Degradation.BI:
        return shrink_bicubic(sharp, scale=scale)
    if kind is Degradation.BD:
        return blur_and_take(sharp)
    return degrade_real(sharp, small_size(sharp, scale), rng)


def small_size(sharp: Tensor, scale: int = SCALE) -> tuple[int, int]:
    """Height and width of the small twins of frames (..., H, W).

    Raises:
        ValueError: If a side is no multiple of the scale.
    """
    height, width = sharp.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"sides must be multiples of {scale}, got {height} x {width}")
    return height // scale, width // scale


def shrink_bicubic(sharp: Tensor, *, scale: int = SCALE) -> Tensor:
    """Shrink as the literature's BI does, and round to 8 bits.

    Antialiased bicubic interpolation (a = -0.5, support widened by the scale): what MATLAB's
    imresize and Pillow compute. Two small pixels from a border and nearer it is Pillow's: weights
    outside the picture are left out, where MATLAB would see its mirror image.

    Args:
        sharp: (..., 3, H, W), values 0 to 1; H and W multiples of the scale.
        scale: How many times smaller.

    Returns:
        (..., 3, H/scale, W/scale), values 0 to 1 in steps of 1/255.

    Raises:
        ValueError: If a side is no multiple of the scale.
    """
    small = F.interpolate(
        sharp.reshape(-1, 3, *sharp.shape[-2:]),
        size=small_size(sharp, scale),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    small = (small * 255).round().clamp(0, 255) / 255
    return small.reshape(*sharp.shape[:-2], *small.shape[-2:])


def blur_and_take(sharp: Tensor) -> Tensor:
    """Shrink four times as the literature's BD does, and round to 8 bits.

    A Gaussian of 1.6 pixels, of which every fourth pixel is taken. Where it stands differs in the
    literature. Here it is an even number of weights, its middle between two pixels: where the
    middle of a small pixel is, so that nothing moves against `shrink_bicubic`. So BasicVSR and
    those who compare themselves with it have it (github.com/ckkelvinchan/BasicVSR-IconVSR,
    BD_degradation.m, whose weights and borders these are). Jo et al. ("Deep Video
    Super-Resolution Network Using Dynamic Upsampling Filters", CVPR 2018) take the first of each
    four pixels, which moves the picture by 1.5 sharp pixels.

    Args:
        sharp: (..., 3, H, W), values 0 to 1; H and W multiples of four.

    Returns:
        (..., 3, H/4, W/4), values 0 to 1 in steps of 1/255.

    Raises:
        ValueError: If a side is no multiple of four.
    """
    height, width = small_size(sharp)
    offsets = torch.arange(-BD_REACH, BD_REACH, dtype=torch.float32) + 0.5
    line = torch.exp(-(offsets**2) / (2 * BD_SIGMA**2))
    line /= line.sum()
    # The first small pixel has its middle at 2, four pixels of the frame and two before it.
    planes = sharp.reshape(-1, 1, *sharp.shape[-2:])
    planes = F.pad(planes, (BD_REACH - SCALE // 2,) * 4, mode="replicate")
    rows = F.conv2d(planes, line.view(1, 1, -1, 1), stride=(SCALE, 1))
    small = F.conv2d(rows, line.view(1, 1, 1, -1), stride=(1, SCALE))
    small = (small * 255).round().clamp(0, 255) / 255
    return small.reshape(*sharp.shape[:-2], height, width)
