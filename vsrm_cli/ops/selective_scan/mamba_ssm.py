"""The selective scan of the package mamba-ssm, where its CUDA extension is installed."""

import torch
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from torch import Tensor
from torch.nn import functional as F


def selective_scan_mamba_ssm(
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
    """Compute the whole operator; arguments as `selective_scan` has them, tokens first.

    The extension needs channels contiguous along the tokens and one dtype, and has no reverse
    direction, so inputs are copied.
    """
    dtype = torch.promote_types(u.dtype, delta.dtype)

    def channels_first(x: Tensor) -> Tensor:
        """(batch, length, ...) to (batch, ..., length); constant weights are unchanged."""
        if x.dim() == 2:
            return x.float()
        return (x.flip(1) if reverse else x).movedim(1, -1).to(dtype).contiguous()

    y: Tensor = selective_scan_fn(
        channels_first(u),
        channels_first(delta),
        A.float(),
        channels_first(B),
        channels_first(C),
        D=None if D is None else D.float(),
        z=None if z is None or add is not None else channels_first(z),
        delta_bias=None if delta_bias is None else delta_bias.float(),
        delta_softplus=delta_softplus,
    )
    y = y.transpose(1, 2)
    y = y.flip(1) if reverse else y
    if add is not None:  # it comes before the gate
        y = (y + add) if z is None else (y + add) * F.silu(z)
    return y.to(u.dtype)
