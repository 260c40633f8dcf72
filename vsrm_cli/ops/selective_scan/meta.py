"""The scan on the meta device: an operator without values, for counting FLOPs."""

import torch
from torch import Tensor, library


@library.custom_op("vsrm::selective_scan", mutates_args=())
def selective_scan_meta(u: Tensor, A: Tensor) -> Tensor:
    """A scan of meta tensors; ``u`` and ``A`` as in `selective_scan`."""
    raise NotImplementedError("only meta tensors have no values to scan")


@selective_scan_meta.register_fake
def _(u: Tensor, A: Tensor) -> Tensor:
    return torch.empty_like(u)
