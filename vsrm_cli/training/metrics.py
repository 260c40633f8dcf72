"""How near a restored picture is to the true one."""

import math

import torch
from torch import Tensor

# ITU-R BT.601 luma of full-range RGB, limited range, as MATLAB's rgb2ycbcr and the
# super-resolution literature have it: 16 to 235.
_LUMA = (65.481, 128.553, 24.966)


def luma(rgb: Tensor) -> Tensor:
    """The Y of BT.601 in the units of 8-bit video, unrounded.

    Args:
        rgb: (..., 3, H, W), values 0 to 1.

    Returns:
        (..., H, W), float64, values 16 to 235.
    """
    weights = torch.tensor(_LUMA, dtype=torch.float64, device=rgb.device)
    return torch.einsum("...chw,c->...hw", rgb.double(), weights) + 16.0


def psnr_y(restored: Tensor, sharp: Tensor) -> float:
    """Peak signal-to-noise ratio of the luma, in dB, after rounding both pictures to 8 bits.

    Args:
        restored: (3, H, W), values 0 to 1.
        sharp: Shaped like ``restored``.

    Returns:
        dB; infinity where the pictures are equal. The whole frame counts, no border is cut.
    """
    error = (luma(_rounded(restored)) - luma(_rounded(sharp))).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def _rounded(rgb: Tensor) -> Tensor:
    return (rgb.double().clamp(0, 1) * 255).round() / 255
