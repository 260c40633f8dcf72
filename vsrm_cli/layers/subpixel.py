"""Samples of neighboring frames at sub-pixel positions of the current frame.

A camera that moves by a fraction of a pixel samples the scene at new positions, which the flow
gives. The difference between a neighbor's pixel and the current frame's interpolation at that
position is detail that a single frame has lost. A compact network learns to use these samples
within minutes if they are placed on a sub-pixel grid. It learned almost nothing from warped
neighbors, because interpolation loses the sample positions. (Not in the paper; the idea is classic
multi-frame super-resolution, as in Irani and Peleg, "Improving Resolution by Image Registration",
1991.)
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.frame import SCALE
from vsrm_cli.ops.warp import pixel_grid, sample_points, warp

# For each of the sub-pixels, three colors and their weight.
CHANNELS = 4 * SCALE**2
# Scales differences of a hundredth of full scale to the size of features.
GAIN = 10.0
# A larger mean difference from the current frame around a pixel means occlusion or wrong flow.
MAX_DIFFERENCE = 0.04
# Prior weight of a zero difference in the mean over the samples of a sub-pixel.
PRIOR_WEIGHT = 0.05


def subpixel_samples(
    clip: Tensor, flows: tuple[Tensor, Tensor], t: int, reach: int, *, side: int = SCALE
) -> Tensor:
    """Collect samples of the frames around frame ``t`` for its sub-pixels.

    Args:
        clip: (B, T, 3, H, W), values 0 to 1.
        flows: From t to t + 1 and from t + 1 to t, each (B, T-1, 2, H, W), in pixels, dx first.
        t: The frame.
        reach: Neighboring frames on each side.
        side: Sub-pixels along each side of a pixel: the scale.

    Returns:
        (B, 4 side^2, H, W): for each color, then for each of the side x side sub-pixels, rows
        first, `GAIN` times the mean difference of the samples there from the frame's
        interpolation; then for each sub-pixel the weight of its samples. Zero without samples.
    """
    here = clip[:, t].float()
    batch, _, height, width = here.shape
    total = here.new_zeros(batch, 3, side**2, height, width)
    known = here.new_zeros(batch, side**2, height, width)
    for there, flow in _around(clip, flows, t, reach):
        difference, weights = _samples(here, there, flow, side)
        total += difference.unsqueeze(2) * weights.unsqueeze(1)
        known += weights
    mean = (total / (known + PRIOR_WEIGHT).unsqueeze(1)).flatten(1, 2)
    return torch.cat((GAIN * mean, known), dim=1).to(clip.dtype)


def _around(
    clip: Tensor, flows: tuple[Tensor, Tensor], t: int, reach: int
) -> list[tuple[Tensor, Tensor]]:
    """The frames around frame ``t``, and the flow to each of them."""
    found = []
    for direction, flow in ((1, flows[0]), (-1, flows[1])):
        way: Tensor | None = None
        for other in range(t + direction, t + direction * (reach + 1), direction):
            if not 0 <= other < clip.shape[1]:
                break
            last = flow[:, min(other, other - direction)].float()
            # Each further flow is sampled at the end of the flow so far.
            way = last if way is None else way + warp(last, way, padding="border")
            found.append((clip[:, other].float(), way))
    return found


def _samples(here: Tensor, there: Tensor, flow: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """For each pixel the nearest sample of another frame.

    Returns:
        Its difference from the interpolation of ``here`` at its position, (B, 3, H, W), and its
        weight in each sub-pixel, (B, side^2, H, W): bilinear, and small where frames do not match.
    """
    height, width = here.shape[-2:]
    grid = pixel_grid(height, width, device=here.device)
    place = grid + flow
    nearest = place.round()
    delta = nearest - place  # the sample relative to the pixel: half a pixel at most
    x, y = nearest.unbind(1)
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # (B, H, W)
    expected = sample_points(here, grid + delta, padding="border", mode="bicubic")
    difference = sample_points(there, nearest, padding="border") - expected
    error = F.avg_pool2d(
        difference.square().mean(1, keepdim=True), 3, stride=1, padding=1, count_include_pad=False
    )
    trust = torch.exp(error * (-0.5 / MAX_DIFFERENCE**2)) * is_inside.unsqueeze(1)
    rows, columns = _tents(delta[:, 1], side), _tents(delta[:, 0], side)
    weights = (rows.unsqueeze(2) * columns.unsqueeze(1)).flatten(1, 2)
    return difference, weights * trust


def _tents(delta: Tensor, side: int) -> Tensor:
    """Bilinear weights of the sub-pixels on one axis, (B, side, H, W), for positions (B, H, W)."""
    rim = (side - 1) / 2
    centers = torch.arange(side, device=delta.device).view(-1, 1, 1) - rim
    places = (side * delta).clamp(-rim, rim).unsqueeze(1)
    return (1 - (places - centers).abs()).clamp_min(0)
