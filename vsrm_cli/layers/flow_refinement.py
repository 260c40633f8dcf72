"""Refine optical flow to sub-pixel precision with a few Lucas-Kanade steps.

The flow of a compact network is wrong by a few tenths of a pixel, which blurs features that are
propagated on the HR grid. A Lucas-Kanade step has no trained weights. In closed form, it computes
the shift that best explains the remaining difference between a frame and its warped neighbor, in a
Gaussian window around each pixel.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.frame import LUMA_WEIGHTS
from vsrm_cli.layers.blocks import channels_last
from vsrm_cli.ops.warp import warp

# Standard deviation of the window in pixels. 1.5 fits noise, 4 mixes different motions.
SIGMA = 2.5
# Added to the squared gradients (frames are 0..1), so that flat areas keep their flow.
DAMPING = 2e-5
# PyTorch's bicubic kernel (a = -0.75) shifts a ramp by up to 0.04 pixels. The unbiased one
# (a = -0.5) was tried: exact on synthetic shifts, but 0.3 dB worse on real frames, because it
# blurs fine detail.
KERNEL = "bicubic"
# Maximum correction of one step in pixels: frames are only locally linear.
REACH = 0.5


def refine_flow(here: Tensor, there: Tensor, flow: Tensor, *, steps: int) -> Tensor:
    """Refine a flow so that the two frames match better around each pixel.

    A step solves, in a Gaussian window w around each pixel,

        [sum w gx gx   sum w gx gy] [dx]   [sum w gx e]
        [sum w gx gy   sum w gy gy] [dy] = [sum w gy e],   e = here - warp(there, flow)

    with the gradients g of the mean of both frames. Where it does not reduce the sum of w e^2, the
    step is dropped. Flat areas keep their flow.

    Args:
        here: Target frames, (B, C, H, W), values 0 to 1, any size.
        there: Source frames, shaped like ``here``.
        flow: Initial flow, (B, 2, H, W), pixels, dx first: there(p + flow(p)) matches here(p).
        steps: Number of steps.

    Returns:
        The refined flow, (B, 2, H, W), float32.

    Source: Lucas and Kanade, "An Iterative Image Registration Technique", IJCAI 1981; the
    symmetric gradients are those of Baker and Matthews, "Lucas-Kanade 20 Years On", 2004.
    """
    here, there, flow = here.float(), there.float(), flow.float()
    warped = warp(there, flow, padding="border", mode=KERNEL)
    for step in range(steps):
        difference = here - warped
        gx, gy = _gradients((here + warped) / 2)
        products = (
            gx * gx,
            gx * gy,
            gy * gy,
            gx * difference,
            gy * difference,
            difference.square(),
        )
        sums = _window(torch.stack([product.sum(1) for product in products], dim=1))
        xx, xy, yy, xe, ye, error = sums.unbind(1)  # (B, H, W) each
        xx, yy = xx + DAMPING, yy + DAMPING
        determinant = xx * yy - xy * xy
        shift = torch.stack((yy * xe - xy * ye, xx * ye - xy * xe), dim=1)
        shift = (shift / determinant.unsqueeze(1)).clamp(-REACH, REACH)
        candidate = flow + shift
        moved = warp(there, candidate, padding="border", mode=KERNEL)
        after = _window((here - moved).square().sum(1, keepdim=True))
        is_better = after < error.unsqueeze(1)
        flow = torch.where(is_better, candidate, flow)
        if step + 1 < steps:
            warped = torch.where(is_better, moved, warped)
    return flow


def rgb_to_luma(frames: Tensor) -> Tensor:
    """The luma of RGB frames or differences: (..., 3, H, W) to (..., 1, H, W)."""
    # Numbers, not a tensor of weights: a CUDA graph cannot record copying that to the device.
    red, green, blue = frames.unbind(-3)
    return (LUMA_WEIGHTS[0] * red + LUMA_WEIGHTS[1] * green + LUMA_WEIGHTS[2] * blue).unsqueeze(-3)


def refine_clip_flow(here: Tensor, there: Tensor, flow: Tensor, *, steps: int) -> Tensor:
    """Refine the flow of clips, (B, T, ...); gradients pass straight through to ``flow``."""
    if not flow.shape[1]:
        return flow
    with torch.no_grad():
        better = refine_flow(*(x.flatten(0, 1) for x in (here, there, flow)), steps=steps)
    return flow + (better.view_as(flow) - flow).detach()


def _gradients(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, each (B, C, H, W), with replicate padding."""
    padded = F.pad(frames, (1, 1, 1, 1), mode="replicate")
    gx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    gy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return gx, gy


def _window(maps: Tensor) -> Tensor:
    """Gaussian means around each pixel of (B, C, H, W), with replicate padding.

    Means over such a wide window are smooth, so they are computed at half resolution, in a fifth of
    the time.
    """
    height, width = maps.shape[-2:]
    maps = F.pad(maps, (0, width % 2, 0, height % 2), mode="replicate")
    small = F.avg_pool2d(channels_last(maps), 2)
    # Averaging two pixels widens the window as well.
    sigma = math.sqrt(SIGMA**2 - 0.25) / 2
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(offsets.square() / (-2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(maps.shape[1], 1, 1, -1)
    small = F.pad(small, (reach, reach, reach, reach), mode="replicate")
    small = F.conv2d(small, kernel, groups=maps.shape[1])
    small = F.conv2d(small, kernel.mT, groups=maps.shape[1])
    wide = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    return wide[..., :height, :width]
