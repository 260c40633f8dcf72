"""How LR frames are made from HR frames.

BI and BD are those of the literature. The third is real-world degradation: blur, resizing, noise
and compression (`vsrm_cli.data.real_degradation`).
"""

import enum

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.data.real_degradation import degrade_real
from vsrm_cli.frame import SCALE

# The Gaussian of BD: standard deviation and reach in pixels.
BD_SIGMA, BD_REACH = 1.6, 6


class Degradation(enum.StrEnum):
    """How LR frames are made."""

    BI = "bi"
    BD = "bd"
    REAL = "real"


def degrade(hr: Tensor, kind: Degradation, rng: np.random.Generator) -> Tensor:
    """Make the LR frames of a clip.

    Args:
        hr: (T, 3, 4H, 4W), values 0 to 1.
        kind: `shrink_bicubic`, `blur_and_subsample` or `degrade_real`. Only the last needs PyAV.
        rng: For `Degradation.REAL`; the others are not random.

    Returns:
        (T, 3, H, W), values 0 to 1 in steps of 1/255.

    Raises:
        ValueError: If a side is no multiple of the scale.
    """
    if kind is Degradation.BI:
        return shrink_bicubic(hr)
    if kind is Degradation.BD:
        return blur_and_subsample(hr)
    return degrade_real(hr, lr_size(hr), rng)


def lr_size(hr: Tensor, scale: int = SCALE) -> tuple[int, int]:
    """Height and width of the LR frames of HR frames (..., H, W).

    Raises:
        ValueError: If a side is no multiple of the scale.
    """
    height, width = hr.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"sides must be multiples of {scale}, got {height} x {width}")
    return height // scale, width // scale


def shrink_bicubic(hr: Tensor, *, scale: int = SCALE) -> Tensor:
    """Shrink by BI of the literature, and round to 8 bits.

    Antialiased bicubic interpolation (a = -0.5, support widened by the scale): what MATLAB's
    imresize and Pillow compute. Within two LR pixels of a border it is Pillow's: weights outside
    the frame are left out, where MATLAB mirrors it.

    Args:
        hr: (..., 3, H, W), values 0 to 1; H and W multiples of the scale.
        scale: How many times smaller.

    Returns:
        (..., 3, H/scale, W/scale), values 0 to 1 in steps of 1/255.

    Raises:
        ValueError: If a side is no multiple of the scale.
    """
    lr = F.interpolate(
        hr.reshape(-1, 3, *hr.shape[-2:]),
        size=lr_size(hr, scale),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    lr = (lr * 255).round().clamp(0, 255) / 255
    return lr.reshape(*hr.shape[:-2], *lr.shape[-2:])


def blur_and_subsample(hr: Tensor) -> Tensor:
    """Shrink four times by BD of the literature (blur and subsample), and round to 8 bits.

    A Gaussian of 1.6 pixels, then every fourth pixel. Its position differs in the literature. Here
    it has an even number of weights, centered between two pixels, at the center of an LR pixel, so
    that nothing moves relative to `shrink_bicubic`. BasicVSR and those who compare with it do the
    same (github.com/ckkelvinchan/BasicVSR-IconVSR, BD_degradation.m, whose weights and borders
    these are). Jo et al. ("Deep Video Super-Resolution Network Using Dynamic Upsampling Filters",
    CVPR 2018) take the first of every four pixels, which moves the frame by 1.5 HR pixels.

    Args:
        hr: (..., 3, H, W), values 0 to 1; H and W multiples of four.

    Returns:
        (..., 3, H/4, W/4), values 0 to 1 in steps of 1/255.

    Raises:
        ValueError: If a side is no multiple of four.
    """
    height, width = lr_size(hr)
    offsets = torch.arange(-BD_REACH, BD_REACH, dtype=torch.float32) + 0.5
    line = torch.exp(-(offsets**2) / (2 * BD_SIGMA**2))
    line /= line.sum()
    # The center of the first LR pixel is at 2, in the middle of four pixels of the frame.
    planes = hr.reshape(-1, 1, *hr.shape[-2:])
    planes = F.pad(planes, (BD_REACH - SCALE // 2,) * 4, mode="replicate")
    rows = F.conv2d(planes, line.view(1, 1, -1, 1), stride=(SCALE, 1))
    lr = F.conv2d(rows, line.view(1, 1, 1, -1), stride=(1, SCALE))
    lr = (lr * 255).round().clamp(0, 255) / 255
    return lr.reshape(*hr.shape[:-2], height, width)
