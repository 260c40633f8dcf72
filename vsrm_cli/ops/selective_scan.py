"""The one door to the selective scan: it checks its input and chooses an implementation.

The environment variable ``VSRM_KERNELS`` (auto, reference, chunked, compiled) decides for the
whole program, so that any doubt about a picture can be settled by one rerun.
"""

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.errors import UsageError
from vsrm_cli.ops.selective_scan_chunked import selective_scan_chunked
from vsrm_cli.ops.selective_scan_reference import selective_scan_reference

KERNELS = ("auto", "reference", "chunked", "compiled")


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
) -> Tensor:
    """Run the selective state-space recurrence of Mamba over a sequence.

        step = delta + delta_bias, through softplus if asked
        h[t] = exp(step[t] * A) * h[t-1] + step[t] * B[t] * u[t],    h[-1] = 0
        y[t] = (<C[t], h[t]> + D * u[t]) * silu(z[t])

    Shapes and meaning are those of mamba-ssm's function of this name. State and decay are
    float32 whatever the input's type (float64 for float64 input). Tokens may lie in memory
    channel after channel or, as a transposed view, token after token; the second is faster.

    Args:
        u: Input, (batch, channel, length).
        delta: Step sizes, shaped like ``u``.
        A: Decay rates, (channel, state); negative.
        B: Input weights: (batch, state, length), (batch, group, state, length) where the
            channels are divided into groups, or constant, (channel, state).
        C: Output weights, in one of the forms of ``B``.
        D: Weights of the skip, (channel,).
        z: Gate, shaped like ``u``.
        delta_bias: Added to ``delta``, (channel,).
        delta_softplus: Whether the step sizes go through softplus.
        reverse: Run from the last step to the first.

    Returns:
        y, shaped like ``u`` and in its type.

    Raises:
        ValueError: If the shapes do not fit together.

    Source: Gu and Dao, "Mamba", arXiv:2312.00752, Algorithm 2.
    """
    _check(u, delta, A, B, C, D, z, delta_bias)
    tokens = u.transpose(1, 2)  # (batch, length, channel)
    step = delta.transpose(1, 2)
    if step.dtype not in (A.dtype, u.dtype) or u.dtype.itemsize < 4:
        step = step.float()
    if delta_bias is not None:
        step = step + delta_bias.to(step.dtype)
    if delta_softplus:
        step = F.softplus(step)
    B, C = _per_channel(B, u), _per_channel(C, u)
    y = _implementation(tokens, B, C)(tokens, step, A, B, C, reverse=reverse)
    if D is not None:
        y = torch.addcmul(y, tokens.to(y.dtype), D.to(y.dtype))
    if z is not None:
        y = y * F.silu(z.transpose(1, 2).to(y.dtype))
    return y.transpose(1, 2).to(u.dtype)


def _implementation(u: Tensor, B: Tensor, C: Tensor) -> Callable[..., Tensor]:
    """Choose by asking: the forced implementation, else the fastest that can do this input."""
    kernel = _forced_kernel()
    if kernel == "reference":
        return selective_scan_reference
    shared = B.shape[2] == C.shape[2] == 1 and u.device.type == "cpu" and u.dtype != torch.float64
    if kernel == "chunked" or not (shared and _has_numba()):
        return selective_scan_chunked
    return _compiled()


def _forced_kernel() -> str:
    kernel = os.environ.get("VSRM_KERNELS", "auto")
    if kernel not in KERNELS:
        raise UsageError(f"VSRM_KERNELS is {kernel!r}; it can be one of {', '.join(KERNELS)}.")
    if kernel == "compiled" and not _has_numba():
        raise UsageError(
            "VSRM_KERNELS is 'compiled', but Numba is not installed; run: pip install numba"
        )
    return kernel


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None


@cache
def _compiled() -> Callable[..., Tensor]:
    # Numba is an extra: this file must import without it.
    from vsrm_cli.ops.selective_scan_compiled import selective_scan_compiled

    return selective_scan_compiled


def _per_channel(weights: Tensor, u: Tensor) -> Tensor:
    """Bring B or C to (batch, length, channel or 1, state)."""
    batch, channel, length = u.shape
    if weights.dim() == 2:
        return weights.expand(batch, length, *weights.shape)
    if weights.dim() == 3:
        return weights.transpose(1, 2).unsqueeze(2)
    weights = weights.permute(0, 3, 1, 2)  # (batch, length, group, state)
    groups = weights.shape[2]
    return weights if groups == 1 else weights.repeat_interleave(channel // groups, dim=2)


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    if u.dim() != 3:
        raise ValueError(f"u must be (batch, channel, length), got {tuple(u.shape)}")
    batch, channel, length = u.shape
    for name, x in (("delta", delta), ("z", z)):
        if x is not None and x.shape != u.shape:
            raise ValueError(
                f"{name} must be shaped like u, got {tuple(x.shape)} and {tuple(u.shape)}"
            )
    if A.dim() != 2 or A.shape[0] != channel:
        raise ValueError(f"A must be ({channel}, state), got {tuple(A.shape)}")
    state = A.shape[1]
    for name, x in (("B", B), ("C", C)):
        constant = x.shape == (channel, state)
        shared = x.shape == (batch, state, length)
        groups = x.shape[1] if x.dim() == 4 else 0
        grouped = groups > 0 and channel % groups == 0
        grouped = grouped and x.shape == (batch, groups, state, length)
        if not (constant or shared or grouped):
            raise ValueError(
                f"{name} must be (batch, state, length), (batch, group, state, length) or "
                f"(channel, state) with batch {batch}, channel {channel}, state {state}, "
                f"length {length}; got {tuple(x.shape)}"
            )
    for name, x in (("D", D), ("delta_bias", delta_bias)):
        if x is not None and x.shape != (channel,):
            raise ValueError(f"{name} must be ({channel},), got {tuple(x.shape)}")
