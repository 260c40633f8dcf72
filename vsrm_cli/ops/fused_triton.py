"""Fused Triton kernels for inference, besides the scan: intermediate results stay in registers.

Each reads its input once and writes its output once, where PyTorch makes several passes over arrays
of tokens x channels. They have no gradients; `dispatch.uses_fused_kernels` decides when they are
used. Their references are the PyTorch code in `causal_conv`, `depthwise_conv` and `warp`.
"""

import math

import torch
import triton
from torch import Tensor

from vsrm_cli.ops.fused_triton_kernels import convolve, convolve_clip, gather

# Tokens or points of a program. With BLOCK channels that is 2048 values, 16 for each lane of four
# warps.
TOKENS = 32
BLOCK = 64
# Maximum channels in one load: 16 bytes of float16.
WIDEST = 8
# Fused multiply-add; explicit, because Triton warns if it is left unspecified.
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


def depthwise_conv_triton(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute `depthwise_conv` on a GPU, the sum in float32."""
    x = x.contiguous()
    batch, time, height, width, channels = x.shape
    count = batch * time * height * width
    y = torch.empty_like(x)
    taps = weight.flatten(1).t().contiguous()  # (27, C): neighboring channels are adjacent
    align = math.gcd(channels, WIDEST)
    grid = (triton.cdiv(count, TOKENS), triton.cdiv(channels, BLOCK))
    with torch.cuda.device_of(x):
        convolve_clip[grid](
            *(x, taps, bias, y, time, height, width, count, channels // align),
            ALIGN=align,
            TOKENS=TOKENS,
            BLOCK=BLOCK,
            **FUSED,
        )
    return y


def sample_tokens_triton(image: Tensor, points: Tensor) -> Tensor:
    """Compute `sample_tokens` on a GPU, the weights and sums in float32."""
    batch, channels, height, width = image.shape
    count = points.shape[1] * height * width
    pixels = image.permute(0, 2, 3, 1).contiguous()
    points = points.float().contiguous()
    out = image.new_empty(batch * height * width, points.shape[1], channels)
    align = math.gcd(channels, WIDEST)
    grid = (triton.cdiv(count, TOKENS), triton.cdiv(channels, BLOCK), batch)
    with torch.cuda.device_of(image):
        gather[grid](
            *(pixels, points, points.stride(), out, height, width, count, channels // align),
            ALIGN=align,
            POINTS=points.shape[1],
            AT_ONCE=TOKENS,
            BLOCK=BLOCK,
            **FUSED,
        )
    return out
