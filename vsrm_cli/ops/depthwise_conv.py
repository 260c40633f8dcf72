"""The depthwise convolution of a channels-last clip."""

from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.ops.dispatch import uses_fused_kernels


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve each channel separately over time and space, with zero padding.

    Args:
        x: (B, T, H, W, C).
        weight: (C, 1, 3, 3, 3), like the weight of `nn.Conv3d`.
        bias: (C,).

    Returns:
        Shaped like ``x``, in its type.
    """
    if uses_fused_kernels(x, weight, bias):
        # Triton comes only with PyTorch for CUDA, and is slow to import.
        from vsrm_cli.ops.fused_triton import depthwise_conv_triton

        return depthwise_conv_triton(x, weight, bias)
    # The permutations are views: the memory stays channels-last.
    result = F.conv3d(x.permute(0, 4, 1, 2, 3), weight, bias, padding=1, groups=len(weight))
    return result.permute(0, 2, 3, 4, 1)
