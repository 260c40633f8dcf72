"""The selective scan: check the input and call an implementation.

The environment variable ``VSRM_KERNELS`` selects one for the whole program, for example to find out
whether a kernel causes a wrong frame.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.ops.dispatch import choose_kernel
from vsrm_cli.ops.selective_scan.chunked import selective_scan_chunked
from vsrm_cli.ops.selective_scan.meta import selective_scan_meta
from vsrm_cli.ops.selective_scan.reference import selective_scan_reference


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
    *,
    add: Tensor | None = None,
    token_major: bool = False,
) -> Tensor:
    """Run the selective state-space recurrence of Mamba over a sequence.

        step = delta + delta_bias, through softplus if delta_softplus
        h[t] = exp(step[t] * A) * h[t-1] + step[t] * B[t] * u[t],    h[-1] = 0
        y[t] = (<C[t], h[t]> + D * u[t] + add[t]) * silu(z[t])

    Shapes and meaning are those of mamba-ssm's function of this name, or, token-major, the same
    with the length before the channels; that layout is the faster one and is not copied. State
    and decay are float32 whatever the input's type (float64 for float64 input).

    Args:
        u: Input, (batch, channel, length); token-major (batch, length, channel).
        delta: Step sizes, shaped like ``u``.
        A: Decay rates, (channel, state); negative.
        B: Input weights: (batch, state, length), token-major (batch, length, state); or, where
            the channels are divided into groups, (batch, group, state, length), token-major
            (batch, length, group, state); or constant, (channel, state).
        C: Output weights, in one of the forms of ``B``.
        D: Weights of the skip, (channel,).
        z: Gate, shaped like ``u``.
        delta_bias: Added to ``delta``, (channel,).
        delta_softplus: Whether the step sizes go through softplus.
        reverse: Run from the last step to the first.
        add: Added before the gate, shaped like ``u``: in a bidirectional block, the result of the
            other direction.
        token_major: Whether the length is before the channels and states.

    Returns:
        y, shaped like ``u`` and in its type.

    Raises:
        ValueError: If the shapes do not fit together.
        UsageError: If ``VSRM_KERNELS`` names an implementation that does not support the input.

    Source: Gu and Dao, "Mamba", arXiv:2312.00752, Algorithm 2.
    """
    _check(u, delta, A, B, C, D, z, delta_bias, add, token_major)
    if u.is_meta:
        shaped: Tensor = selective_scan_meta(u, A)
        return shaped
    if not token_major:
        u, delta, B, C = (_tokens_first(x) for x in (u, delta, B, C))
        z, add = (None if x is None else _tokens_first(x) for x in (z, add))
    is_shared = all(x.dim() == 3 or (x.dim() == 4 and x.shape[2] == 1) for x in (B, C))
    name = choose_kernel(u.device, u.dtype, is_shared=is_shared)
    options = {"delta_softplus": delta_softplus, "reverse": reverse}
    y = _implementation(name)(u, delta, A, B, C, D, z, delta_bias, add, **options)
    return y if token_major else y.transpose(1, 2)


def _tokens_first(x: Tensor) -> Tensor:
    """Transpose (batch, ..., length) to (batch, length, ...); constant weights are unchanged."""
    return x if x.dim() == 2 else x.movedim(-1, 1)


def _around(
    recurrence: Callable[..., Tensor],
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    add: Tensor | None,
    *,
    delta_softplus: bool,
    reverse: bool,
) -> Tensor:
    """Compute the operator with an implementation of the recurrence alone."""
    if delta.dtype not in (A.dtype, u.dtype) or u.dtype.itemsize < 4:
        delta = delta.float()
    if delta_bias is not None:
        delta = delta + delta_bias.to(delta.dtype)
    if delta_softplus:
        delta = F.softplus(delta)
    y = recurrence(u, delta, A, _per_channel(B, u), _per_channel(C, u), reverse=reverse)
    if D is not None:
        y = torch.addcmul(y, u.to(y.dtype), D.to(y.dtype))
    if add is not None:
        y = y + add
    if z is not None:
        y = y * F.silu(z.to(y.dtype))
    return y.to(u.dtype)


def _implementation(name: str) -> Callable[..., Tensor]:
    """The operator by one implementation; optional packages and slow ones are imported here."""
    if name == "triton":
        from vsrm_cli.ops.selective_scan.triton_gpu import selective_scan_triton

        return selective_scan_triton
    if name == "mamba_ssm":
        from vsrm_cli.ops.selective_scan.mamba_ssm import selective_scan_mamba_ssm

        return selective_scan_mamba_ssm
    if name == "compiled":
        from vsrm_cli.ops.selective_scan.numba_cpu import selective_scan_compiled

        return partial(_around, selective_scan_compiled)
    recurrence = selective_scan_reference if name == "reference" else selective_scan_chunked
    return partial(_around, recurrence)


def _per_channel(weights: Tensor, u: Tensor) -> Tensor:
    """Reshape B or C, tokens first, to (batch, length, channel or 1, state)."""
    batch, length, channel = u.shape
    if weights.dim() == 2:
        return weights.expand(batch, length, *weights.shape)
    if weights.dim() == 3:
        return weights.unsqueeze(2)
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
    add: Tensor | None,
    token_major: bool,
) -> None:
    order = "length, channel" if token_major else "channel, length"
    if u.dim() != 3:
        raise ValueError(f"u must be (batch, {order}), got {tuple(u.shape)}")
    batch, length, channel = u.shape if token_major else u.transpose(1, 2).shape
    for name, x in (("delta", delta), ("z", z), ("add", add)):
        if x is not None and x.shape != u.shape:
            raise ValueError(
                f"{name} must be shaped like u, got {tuple(x.shape)} and {tuple(u.shape)}"
            )
    if A.dim() != 2 or A.shape[0] != channel:
        raise ValueError(f"A must be ({channel}, state), got {tuple(A.shape)}")
    for name, x in (("B", B), ("C", C)):
        _check_weights(name, x, (batch, length, channel, A.shape[1]), token_major)
    for name, x in (("D", D), ("delta_bias", delta_bias)):
        if x is not None and x.shape != (channel,):
            raise ValueError(f"{name} must be ({channel},), got {tuple(x.shape)}")


def _check_weights(
    name: str, x: Tensor, sizes: tuple[int, int, int, int], token_major: bool
) -> None:
    batch, length, channel, state = sizes
    groups = 1
    if x.dim() == 4:
        groups = x.shape[2 if token_major else 1]
    divides = groups > 0 and channel % groups == 0
    shared, grouped = (batch, state, length), (batch, groups, state, length)
    forms = "(batch, state, length), (batch, group, state, length)"
    if token_major:
        shared, grouped = (batch, length, state), (batch, length, groups, state)
        forms = "(batch, length, state), (batch, length, group, state)"
    if x.shape not in ((channel, state), shared) and not (divides and x.shape == grouped):
        raise ValueError(
            f"{name} must be {forms} or (channel, state) with batch {batch}, channel {channel}, "
            f"state {state}, length {length}; got {tuple(x.shape)}"
        )
