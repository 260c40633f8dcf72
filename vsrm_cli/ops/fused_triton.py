"""Fused Triton kernels besides the scan, for inference: intermediate results stay in registers.

Each reads its input once and writes its result once; PyTorch makes several passes over arrays of
tokens x channels. They have no gradients; `dispatch.fuses` decides when they are used. Their
reference is the PyTorch code in `causal_conv` and `warp`.
"""

import torch
import triton
from torch import Tensor

from vsrm_cli.ops.fused_triton_kernels import convolve, gather

# Tokens, or points, of a program: with a block of channels some thousand values, a few registers
# for each lane of four warps.
TOKENS = 32
BLOCK = 64
# Said because Triton warns where it is left open: products and sums are rounded together.
FUSED = {"enable_fp_fusion": True}


def causal_conv_triton(u: Tensor, weight: Tensor, bias: Tensor, *, reverse: bool) -> Tensor:
    """Compute `causal_conv` on a GPU, the sum and SiLU in float32."""
    batch, length, channels = u.shape
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    grid = (triton.cdiv(length, TOKENS), triton.cdiv(channels, BLOCK), batch)
    with torch.cuda.device_of(u):
        convolve[grid](
            *(u, u.stride(), weight.contiguous(), bias, y, length, channels),
            TAPS=weight.shape[2],
            REVERSE=reverse,
            TOKENS=TOKENS,
            BLOCK=BLOCK,
            **FUSED,
        )
    return y


def sample_tokens_triton(picture: Tensor, points: Tensor) -> Tensor:
    """Compute `sample_tokens` on a GPU, the weights and sums in float32."""
    batch, channels, height, width = picture.shape
    count = points.shape[1] * height * width
    pixels = picture.permute(0, 2, 3, 1).contiguous()
    points = points.float().contiguous()
    out = picture.new_empty(batch * height * width, points.shape[1], channels)
    grid = (triton.cdiv(count, TOKENS), triton.cdiv(channels, BLOCK), batch)
    with torch.cuda.device_of(picture):
        gather[grid](
            *(pixels, points, points.stride(), out, height, width, count, channels),
            POINTS=points.shape[1],
            AT_ONCE=TOKENS,
            BLOCK=BLOCK,
            **FUSED,
        )
    return out
