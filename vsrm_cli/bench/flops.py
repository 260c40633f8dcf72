"""FLOPs of a network, counted without computing anything."""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vsrm_cli.models.network import Network
from vsrm_cli.ops.selective_scan import selective_scan

# Operations of a scan for each state of each channel and step (decay: a product and an
# exponential; input: two products and a sum; output: a product and a sum), and for each channel
# and step (skip: a product and a sum; step times input: a product).
SCAN_OPERATIONS_PER_STATE, SCAN_OPERATIONS_PER_STEP = 7, 3


def count_flops(network: Network, shape: tuple[int, ...]) -> int:
    """Count the floating-point operations of a network on a clip, without computing anything.

    Products of matrices and convolutions are counted by PyTorch, selective scans by hand; what
    is done pixel by pixel between them is not counted, as nobody does.

    Args:
        network: Any of the catalog; it is left as it is.
        shape: Of the clip, (B, T, 3, H, W).
    """
    # On the meta device tensors have a shape and no values.
    hollow = copy.deepcopy(network).to("meta")
    scans: list[int] = []
    with torch.no_grad(), _scans_counted(scans), FlopCounterMode(display=False) as counter:
        hollow(torch.empty(shape, device="meta", dtype=network.dtype))
    return int(counter.get_total_flops()) + sum(scans)


@contextmanager
def _scans_counted(operations: list[int]) -> Iterator[None]:
    """Let every user of the scan meet a stand-in, which notes what the scan would cost."""

    def count(u: Tensor, delta: Tensor, A: Tensor, *_: Tensor | None, **__: object) -> Tensor:
        per_step = SCAN_OPERATIONS_PER_STATE * A.shape[1] + SCAN_OPERATIONS_PER_STEP
        operations.append(u.numel() * per_step)
        return torch.empty_like(u)

    door = selective_scan  # this file is among its users, so the name itself is exchanged too
    users = [
        module
        for name, module in sys.modules.items()
        if name.startswith("vsrm_cli.") and getattr(module, "selective_scan", None) is door
    ]
    for module in users:
        module.selective_scan = count  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in users:
            module.selective_scan = door  # type: ignore[attr-defined]
