"""The scan on the meta device: shapes without values, an operator that FLOP counters can see."""

import torch
from torch import Tensor


@torch.library.custom_op("vsrm::selective_scan", mutates_args=())
def selective_scan_meta(u: Tensor, A: Tensor) -> Tensor:
    """A scan of meta tensors: ``u`` and ``A`` are those of `selective_scan`.

    It is computed on no other device.
    """
    raise NotImplementedError("only meta tensors have no values to scan")


@selective_scan_meta.register_fake
def _(u: Tensor, A: Tensor) -> Tensor:
    return torch.empty_like(u)
