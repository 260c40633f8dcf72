"""FLOPs of a network, counted without computing anything."""

import copy
import math

import torch
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from vsrm_cli.models.network import Network

# Operations of a scan for each state of each channel and step (decay: a product and an
# exponential; input: two products and a sum; output: a product and a sum), and for each channel
# and step (skip: a product and a sum; step times input: a product).
SCAN_OPERATIONS_PER_STATE, SCAN_OPERATIONS_PER_STEP = 7, 3


def count_flops(network: Network, shape: tuple[int, ...]) -> int:
    """Count the floating-point operations of a network on a clip, without computing anything.

    Matrix products, convolutions and selective scans are counted; pointwise operations are not, as
    is usual.

    Args:
        network: Any network; it is not changed.
        shape: Of the clip, (B, T, 3, H, W).
    """
    # Tensors on the meta device have shapes without values.
    hollow = copy.deepcopy(network).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        hollow(torch.empty(shape, device="meta", dtype=network.dtype))
    return int(counter.get_total_flops())


@register_flop_formula(torch.ops.vsrm.selective_scan)
def _scan_flops(u: tuple[int, ...], A: tuple[int, ...], **_: object) -> int:
    return math.prod(u) * (SCAN_OPERATIONS_PER_STATE * A[1] + SCAN_OPERATIONS_PER_STEP)
