"""Flicker: compare neighboring frames along the optical flow of the ground truth.

All methods use the same flow, and occluded pixels are ignored.
"""

from itertools import pairwise

import torch
from torch import Tensor

from vsrm_cli.models.network import Network
from vsrm_cli.ops.warp import pixel_grid, warp

# The flow network for all measurements, so that figures are comparable. On the validation clips,
# its flow between HR frames is better than that between frames of half or a quarter of the size.
FLOW_MODEL = "vsrm-t"


@torch.inference_mode()
def warping_errors(network: Network, hr: Tensor, clips: dict[str, Tensor]) -> dict[str, float]:
    """Measure how much clips change between neighbors beyond the motion of the ground truth.

        mean of (x[t](p) - x[t+1](p + flow(p)))^2 over pixels that are visible in both frames

    Args:
        network: Computes the flow.
        hr: The HR frames, (T, 3, H, W) uint8, T at least two.
        clips: By name, shaped like ``hr``.

    Returns:
        For each clip the mean over its pairs of neighbors, in thousandths of the squared range
        of values.

    Source: Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, section 4.1, with
    the visibility test of Ruder et al., "Artistic Style Transfer for Videos", 2016.
    """
    errors: dict[str, list[float]] = {name: [] for name in clips}
    for t, (now, later) in enumerate(pairwise(hr)):
        pair = torch.stack((now, later))[None].to(network.device).float() / 255
        forward, backward = (flow[:, 0].float() for flow in network.flows(pair))
        seen = find_visible(forward, backward)
        for name, clip in clips.items():
            a, b = (x[None].to(network.device).float() / 255 for x in (clip[t], clip[t + 1]))
            difference = (a - warp(b, forward, padding="border")).square().mean(dim=1)
            total = (difference * seen).sum() / seen.sum().clamp(min=1)
            errors[name].append(1000 * float(total))
    return {name: sum(values) / len(values) for name, values in errors.items()}


def find_visible(forward: Tensor, backward: Tensor) -> Tensor:
    """Find pixels that are visible in both frames, by forward-backward consistency.

    Args:
        forward: Flow from the first frame to the second, (B, 2, H, W).
        backward: Flow from the second to the first.

    Returns:
        (B, H, W), 1 where a pixel is visible in both, else 0.
    """
    returned = warp(backward, forward, padding="border")
    size = forward.square().sum(1) + returned.square().sum(1)
    is_back = (forward + returned).square().sum(1) <= 0.01 * size + 0.5
    height, width = forward.shape[-2:]
    x, y = (pixel_grid(height, width, device=forward.device) + forward).unbind(1)
    is_inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return (is_back & is_inside).float()


def error_flicker(restored: Tensor, hr: Tensor) -> float:
    """How much the error of a clip changes from frame to frame, in gray levels.

        mean of |e[t+1] - e[t]|, with e = restored - hr

    Hallucinated detail that changes in every frame increases it; so does missing detail where
    something moves. It does not depend on a flow.

    Args:
        restored: (T, 3, H, W) uint8, T at least two.
        hr: Shaped like ``restored``.

    Returns:
        The mean over all pixels, colors and pairs of neighbors, 0 to 255.
    """
    errors = [a.float() - b.float() for a, b in zip(restored, hr, strict=True)]
    changes = [float((late - early).abs().mean()) for early, late in pairwise(errors)]
    return sum(changes) / len(changes)
