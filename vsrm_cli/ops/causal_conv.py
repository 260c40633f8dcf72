"""The causal depthwise convolution with SiLU before a selective scan."""

from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.ops.dispatch import uses_fused_kernels


def causal_conv(u: Tensor, weight: Tensor, bias: Tensor, *, reverse: bool = False) -> Tensor:
    """Convolve each channel causally along the tokens, and apply SiLU.

        y[t] = silu(bias + weight[K-1] u[t] + weight[K-2] u[t-1] + ... + weight[0] u[t-K+1])

    Args:
        u: Tokens, (B, L, d); zero before the first one.
        weight: (d, 1, K), as `nn.Conv1d` has it.
        bias: (d,).
        reverse: Anti-causal: equals flipping the tokens before and after.

    Returns:
        (B, L, d), in the type of ``u``.
    """
    if uses_fused_kernels(u, weight, bias):
        # Triton comes only with PyTorch for CUDA, and is slow to import.
        from vsrm_cli.ops.fused_triton import causal_conv_triton

        return causal_conv_triton(u, weight, bias, reverse=reverse)
    return F.silu(_convolve(u, weight, bias, reverse=reverse))


def _convolve(u: Tensor, weight: Tensor, bias: Tensor, *, reverse: bool) -> Tensor:
    """The convolution as a 2-D one with a single row.

    This keeps the channels innermost in memory: ten times faster than `nn.Conv1d` on a CPU.
    """
    weight = weight.unsqueeze(2)  # (d, 1, 1, K)
    if reverse:
        weight = weight.flip(3)
    length, margin = u.shape[1], weight.shape[3] - 1
    row = u.transpose(1, 2).unsqueeze(2)  # (B, d, 1, L), channels last
    v = F.conv2d(row, weight, bias, padding=(0, margin), groups=weight.shape[0])
    start = margin if reverse else 0
    return v.squeeze(2).transpose(1, 2)[:, start : start + length]
