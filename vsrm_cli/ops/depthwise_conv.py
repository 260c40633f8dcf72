"""The depthwise convolution of a clip whose channels lie together."""

from functools import cache
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.ops.dispatch import fuses


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve each channel by itself in time and space; what lies outside is zero.

    Args:
        x: (B, T, H, W, C).
        weight: (C, 1, 3, 3, 3), as `nn.Conv3d` has it.
        bias: (C,).

    Returns:
        Shaped like ``x``, in its type.
    """
    if fuses(x, weight, bias):
        y: Tensor = _fused()(x, weight, bias)
        return y
    # The channels stay where they are: nothing moves in memory.
    moved = F.conv3d(x.permute(0, 4, 1, 2, 3), weight, bias, padding=1, groups=len(weight))
    return moved.permute(0, 2, 3, 4, 1)


@cache
def _fused() -> Any:
    # Triton comes with PyTorch for CUDA only, and takes a while to import.
    from vsrm_cli.ops.fused_triton import depthwise_conv_triton

    return depthwise_conv_triton
