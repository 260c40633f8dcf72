"""The restoration loss: Charbonnier, on pixels and on frequencies; and that of flows."""

import torch
from torch import Tensor

# Where the losses turn from square to absolute, in units of what they compare.
EPS, FLOW_EPS = 1e-3, 1e-2


def charbonnier(restored: Tensor, target: Tensor) -> Tensor:
    """Mean of sqrt((restored - target)^2 + EPS^2) over all elements: a smooth absolute error.

    Args:
        restored: Any shape, any float type; values 0 to 1.
        target: Shaped like ``restored``.

    Returns:
        A scalar in float32 (float64 for float64 input).

    Source: VSRM (arXiv 2506.22762), loss section; Lai et al., arXiv 1710.01992, section 3.3.
    The mean, not the norm of the whole image, as the code of that line of papers has it.
    """
    restored, target = _at_least_float32(restored), _at_least_float32(target)
    return smooth_mean(restored - target)


def frequency_charbonnier(restored: Tensor, target: Tensor, *, weight: float = 0.02) -> Tensor:
    """Charbonnier distance of the real and of the imaginary parts of two spectra, weighted.

    The spectrum is the full 2-D Fourier transform of each frame and channel, without a scale: the
    paper leaves it open, and comparable losses with weights of this size have none. It is taken in
    float32 whatever the input's type: the constant term of a 256 x 256 patch reaches 65,536,
    more than float16 holds.

    Args:
        restored: (..., H, W), values 0 to 1.
        target: Shaped like ``restored``.
        weight: Factor of each of the two parts.

    Source: VSRM (arXiv 2506.22762), frequency Charbonnier loss.
    """
    spectrum = torch.fft.fft2(_at_least_float32(restored) - _at_least_float32(target))
    return weight * (smooth_mean(spectrum.real) + smooth_mean(spectrum.imag))


def restoration_loss(restored: Tensor, target: Tensor, *, frequency_weight: float = 0.02) -> Tensor:
    """The paper's loss: `charbonnier` plus `frequency_charbonnier`.

    Args:
        restored: (..., H, W), values 0 to 1.
        target: Shaped like ``restored``.
        frequency_weight: Weight of the frequency part; 0 leaves it out.
    """
    loss = charbonnier(restored, target)
    if frequency_weight:
        loss = loss + frequency_charbonnier(restored, target, weight=frequency_weight)
    return loss


def end_point_error(flow: Tensor, true_flow: Tensor) -> Tensor:
    """Mean distance between where two flow fields point, in pixels, smoothed below `FLOW_EPS`.

    Args:
        flow: (..., 2, H, W).
        true_flow: Shaped like ``flow``.
    """
    return ((flow - true_flow).square().sum(-3) + FLOW_EPS**2).sqrt().mean()


def smooth_mean(error: Tensor) -> Tensor:
    """The mean absolute error, smoothed near zero: of sqrt(error^2 + EPS^2)."""
    return (error.square() + EPS * EPS).sqrt().mean()


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
