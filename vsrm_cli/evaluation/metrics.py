"""PSNR and SSIM by the rules of the literature.

As for REDS4, Vid4, UDM10 and Vimeo-90K-T, both images are rounded to 8 bits, luma is MATLAB's, and
SSIM has a Gaussian window of 11 pixels, only where the window is inside the image.
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
    """BT.601 luma in 8-bit levels, unrounded.

    Args:
        rgb: (..., 3, H, W), values 0 to 1.

    Returns:
        (..., H, W), float64, values 16 to 235.
    """
    weights = torch.tensor(_LUMA, dtype=torch.float64, device=rgb.device)
    return torch.einsum("...chw,c->...hw", rgb.double(), weights) + 16.0


def to_gray_levels(rgb: Tensor, *, on_luma: bool, crop: int = 0) -> Tensor:
    """Round an image to 8 bits, as gray levels.

    Args:
        rgb: (3, H, W), clamped to 0..1.
        on_luma: Luma instead of RGB.
        crop: Pixels ignored at each edge.

    Returns:
        (1, h, w) luma or (3, h, w) RGB, float64, 0 to 255.
    """
    height, width = rgb.shape[-2:]
    inner = rgb[..., crop : height - crop, crop : width - crop]
    rounded = (inner.double().clamp(0, 1) * 255).round()
    return luma(rounded / 255)[None] if on_luma else rounded


def psnr(restored: Tensor, hr: Tensor, *, on_luma: bool, crop: int = 0) -> float:
    """Peak signal-to-noise ratio in dB, after rounding both images to 8 bits.

        10 log10(255^2 / mean squared error)

    Args:
        restored: (3, H, W), values 0 to 1.
        hr: Shaped like ``restored``.
        on_luma: Luma instead of RGB.
        crop: Pixels ignored at each edge.

    Returns:
        dB; infinity if the images are equal.
    """
    difference = to_gray_levels(restored, on_luma=on_luma, crop=crop)
    difference -= to_gray_levels(hr, on_luma=on_luma, crop=crop)
    error = difference.square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def psnr_y(restored: Tensor, hr: Tensor) -> float:
    """The PSNR of the luma of whole frames, (3, H, W), in dB; see `psnr`."""
    return psnr(restored, hr, on_luma=True)


def ssim(restored: Tensor, hr: Tensor, *, on_luma: bool, crop: int = 0) -> float:
    """Structural similarity, after rounding both images to 8 bits.

    Args:
        restored: (3, H, W), values 0 to 1.
        hr: Shaped like ``restored``.
        on_luma: Luma instead of the mean over R, G and B.
        crop: Pixels ignored at each edge.

    Returns:
        The mean over all positions with the window inside; 1 if the images are equal.

    Raises:
        ValueError: If the image without the cropped edges is smaller than the window of 11 pixels.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural
    Similarity", IEEE TIP 13(4), 2004, equation 13, with their constants.
    """
    x = to_gray_levels(restored, on_luma=on_luma, crop=crop)
    y = to_gray_levels(hr, on_luma=on_luma, crop=crop)
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
    """Energy of the luma gradients of a frame, after rounding it to 8 bits.

    The mean squared difference of horizontal neighbors, plus that of vertical neighbors.

    Args:
        frame: (3, H, W), values 0 to 1.

    Returns:
        In squared gray levels.
    """
    y = to_gray_levels(frame, on_luma=True)
    return float(y.diff(dim=-1).square().mean() + y.diff(dim=-2).square().mean())


def sharpness(energies: Sequence[tuple[float, float]]) -> float:
    """The amount of detail relative to the ground truth, correct or not.

        sqrt(sum of the gradient energies of the restored frames / sum of those of the HR frames)

    Args:
        energies: `gradient_energy` of the restored and the HR frame, for each frame.

    Returns:
        1 for as much detail as in the ground truth, less for blurred frames; infinity if the ground
        truth is flat.
    """
    restored, true = (math.fsum(values) for values in zip(*energies, strict=True))
    return math.sqrt(restored / true) if true else math.inf


def _window_means(images: Tensor) -> Tensor:
    """Gaussian means around each pixel, (N, C, H, W) to (N, C, H - 10, W - 10)."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64, device=images.device)
    line = torch.exp(-((offsets - SSIM_WINDOW // 2) ** 2) / (2 * _SSIM_SIGMA**2))
    line /= line.sum()
    planes = images.flatten(0, 1)[:, None]
    means = F.conv2d(F.conv2d(planes, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))
    return means.view(*images.shape[:2], *means.shape[-2:])
