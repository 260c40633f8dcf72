"""The selective scan step by step: the reference implementation."""

import torch
from torch import Tensor


def selective_scan_reference(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: bool = False
) -> Tensor:
    """Run the selective state-space recurrence step by step.

        h[t] = exp(delta[t] * A) * h[t-1] + delta[t] * B[t] * u[t],    h[-1] = 0
        y[t] = <C[t], h[t]>

    Faster versions are tested against this loop, so it stays slow and simple. It computes in
    float32, or in float64 where ``u`` is float64.

    Args:
        u: Input, (batch, length, channel).
        delta: Step sizes, shaped like ``u``; positive.
        A: Decay rates, (channel, state); negative.
        B: Input weights, (batch, length, channel or 1, state).
        C: Output weights, shaped like ``B``.
        reverse: Run from the last step to the first.

    Returns:
        y, shaped like ``u``, float32 or float64.

    Source: Gu and Dao, "Mamba", arXiv:2312.00752, Algorithm 2. As in the authors' code, B is
    discretized by an Euler step, not by the zero-order hold of equation 4.
    """
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    u, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
    batch, length, channel = u.shape
    h = u.new_zeros(batch, channel, A.shape[1])
    y: list[Tensor] = [h[..., 0]] * length
    rows = [x.unbind(1) for x in (u, delta[..., None], B, C)]
    for t in reversed(range(length)) if reverse else range(length):
        x, step, into, out = (row[t] for row in rows)  # step: (batch, channel, 1)
        h = torch.exp(step * A) * h + step * into * x[..., None]
        y[t] = (h * out).sum(-1)
    return torch.stack(y, dim=1) if length else torch.zeros_like(u)
