"""How near a restored frame is to the true one: PSNR and SSIM by the literature's rules.

The rules are those by which REDS4, Vid4, UDM10 and Vimeo-90K-T are measured: both pictures are
rounded to 8 bits, brightness is MATLAB's, SSIM looks through a Gaussian window of 11 pixels and
counts only where the window lies inside the picture.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# ITU-R BT.601 luma of full-range RGB, limited range, as MATLAB's rgb2ycbcr and the
# super-resolution literature have it: 16 to 235.
_LUMA = (65.481, 128.553, 24.966)

SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_C1, _SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def luma(rgb: Tensor) -> Tensor:
    """The Y of BT.601 in the units of 8-bit video, unrounded.

    Args:
        rgb: (..., 3, H, W), values 0 to 1.

    Returns:
        (..., H, W), float64, values 16 to 235.
    """
    weights = torch.tensor(_LUMA, dtype=torch.float64, device=rgb.device)
    return torch.einsum("...chw,c->...hw", rgb.double(), weights) + 16.0


def levels(rgb: Tensor, *, on_luma: bool, crop: int = 0) -> Tensor:
    """What is compared: a picture rounded to 8 bits, in gray levels.

    Args:
        rgb: (3, H, W), values 0 to 1; what lies outside is clamped.
        on_luma: Whether brightness alone counts.
        crop: Pixels that are left out at each edge.

    Returns:
        (1, h, w) luma or (3, h, w) RGB, float64, 0 to 255.
    """
    height, width = rgb.shape[-2:]
    inner = rgb[..., crop : height - crop, crop : width - crop]
    rounded = (inner.double().clamp(0, 1) * 255).round()
    return luma(rounded / 255)[None] if on_luma else rounded


def psnr(restored: Tensor, hr: Tensor, *, on_luma: bool, crop: int = 0) -> float:
    """Peak signal-to-noise ratio in dB, after rounding both pictures to 8 bits.

        10 log10(255^2 / mean squared error)

    Args:
        restored: (3, H, W), values 0 to 1.
        hr: Shaped like ``restored``.
        on_luma: Whether brightness alone counts, or all of RGB.
        crop: Pixels that are left out at each edge.

    Returns:
        dB; infinity where the pictures are equal.
    """
    difference = levels(restored, on_luma=on_luma, crop=crop)
    difference -= levels(hr, on_luma=on_luma, crop=crop)
    error = difference.square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def psnr_y(restored: Tensor, hr: Tensor) -> float:
    """The PSNR of the luma of whole frames, (3, H, W), in dB; see `psnr`."""
    return psnr(restored, hr, on_luma=True)


def ssim(restored: Tensor, hr: Tensor, *, on_luma: bool, crop: int = 0) -> float:
    """Structural similarity, after rounding both pictures to 8 bits.

    Args:
        restored: (3, H, W), values 0 to 1.
        hr: Shaped like ``restored``.
        on_luma: Whether brightness alone counts, or the mean over R, G and B.
        crop: Pixels that are left out at each edge.

    Returns:
        The mean over all places where the window lies inside; 1 where the pictures are equal.

    Raises:
        ValueError: If the window of 11 pixels does not fit into what is left of the picture.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural
    Similarity", IEEE TIP 13(4), 2004, equation 13, with their constants.
    """
    x = levels(restored, on_luma=on_luma, crop=crop)
    y = levels(hr, on_luma=on_luma, crop=crop)
    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs {SSIM_WINDOW} pixels each way, got {x.shape[-1]}x{x.shape[-2]}"
        )
    x_mean, y_mean, xx, yy, xy = _window_means(torch.stack((x, y, x * x, y * y, x * y)))
    x_variance, y_variance = xx - x_mean.square(), yy - y_mean.square()
    covariance = xy - x_mean * y_mean
    likeness = (2 * x_mean * y_mean + _SSIM_C1) * (2 * covariance + _SSIM_C2)
    likeness /= x_mean.square() + y_mean.square() + _SSIM_C1
    likeness /= x_variance + y_variance + _SSIM_C2
    return float(likeness.mean())


def gradient_energy(frame: Tensor) -> float:
    """How strong the edges and textures of a frame are, after rounding it to 8 bits.

    The mean square of the differences of luma between pixels side by side, plus that of pixels one
    above the other.

    Args:
        frame: (3, H, W), values 0 to 1.

    Returns:
        In squared gray levels.
    """
    y = levels(frame, on_luma=True)
    return float(y.diff(dim=-1).square().mean() + y.diff(dim=-2).square().mean())


def sharpness(energies: Sequence[tuple[float, float]]) -> float:
    """How much detail frames have against the ground truth, whether it is the right one or not.

        sqrt(sum of the gradient energies of the restored frames / sum of those of the true ones)

    Args:
        energies: Of each frame, the `gradient_energy` of the restored and of the true one.

    Returns:
        1 where there is as much detail as in the ground truth, less where frames are soft;
        infinity where the ground truth is flat.
    """
    restored, true = (math.fsum(values) for values in zip(*energies, strict=True))
    return math.sqrt(restored / true) if true else math.inf


def _window_means(pictures: Tensor) -> Tensor:
    """Gaussian means around each pixel, (N, C, H, W) to (N, C, H - 10, W - 10)."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64, device=pictures.device)
    line = torch.exp(-((offsets - SSIM_WINDOW // 2) ** 2) / (2 * _SSIM_SIGMA**2))
    line /= line.sum()
    planes = pictures.flatten(0, 1)[:, None]
    means = F.conv2d(F.conv2d(planes, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))
    return means.view(*pictures.shape[:2], *means.shape[-2:])
