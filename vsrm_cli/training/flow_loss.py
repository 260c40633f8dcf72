"""How a flow network is taught: by the true motion where it is known, by the frames where not.

Clips that were made by moving a camera over a photo have an exact flow, and each level of the
pyramid is measured by it. Of real footage nobody knows the flow; there the sharp frames tell
whether it is right: one of them, warped, should look like the other one. That the small frames
which the network sees have lost detail, and may have been compressed, makes it no worse a teacher.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.data.sample import Sample
from vsrm_cli.layers.spynet import SpyNet
from vsrm_cli.ops.warp import warp
from vsrm_cli.training.losses import end_point_error

# Weight of the coarser levels of the pyramid, of what warped frames show, and of smoothness.
COARSE, PHOTOMETRIC, SMOOTH = 0.3, 6.0, 0.5
# Differences of details much above this count little more: something came into view.
SURPRISE = 0.1


def motion_losses(network: SpyNet, sample: Sample) -> tuple[Tensor, Tensor]:
    """What the flows of a batch lack.

    Args:
        network: The flow network.
        sample: A batch of clips of two frames or more.

    Returns:
        What is minimized, a mean over all clips, and the part of it that is due to known flow
        for who sees no motion at all.
    """
    small, sharp = _without_rest(sample, 2 ** (len(network.basic_module) - 1))
    height, width = small.shape[-2:]
    truth = torch.stack((sample.flow_backward, sample.flow_forward))[..., :height, :width]
    truth = truth.flatten(0, 2)
    known = sample.has_flow[None, :, None].expand(2, -1, small.shape[1] - 1).flatten()
    ref, supp = _both_ways(small)
    flows = network.pyramid(network.normalized(ref), network.normalized(supp))
    loss, plain = 0.0 * flows[-1].sum(), truth.new_zeros(())
    if known.any():
        share, still = known.float().mean(), [torch.zeros_like(flow[known]) for flow in flows]
        loss = loss + share * _pyramid_error([flow[known] for flow in flows], truth[known])
        plain = share * _pyramid_error(still, truth[known])
    if not known.all():
        share = 1 - known.float().mean()
        looks, target = (frames[~known] for frames in _both_ways(sharp))
        loss = loss + share * _photometric_error(flows[-1][~known], looks, target)
    return loss, plain


def _without_rest(sample: Sample, multiple: int) -> tuple[Tensor, Tensor]:
    """The frames, cut so that the sides of the small ones are multiples of a number."""
    height, width = (side - side % multiple for side in sample.small.shape[-2:])
    scale = sample.sharp.shape[-1] // sample.small.shape[-1]
    return (
        sample.small[..., :height, :width],
        sample.sharp[..., : scale * height, : scale * width],
    )


def _both_ways(clip: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbors of (B, T, 3, H, W), each (2 B (T - 1), 3, H, W): from t to t + 1, and back."""
    early, late = clip[:, :-1].flatten(0, 1), clip[:, 1:].flatten(0, 1)
    return torch.cat((early, late)), torch.cat((late, early))


def _pyramid_error(flows: Sequence[Tensor], truth: Tensor) -> Tensor:
    """End-point errors of all levels, each in its own pixels; the finest counts most."""
    errors = []
    for halvings, flow in enumerate(reversed(flows)):
        goal = F.avg_pool2d(truth, 2**halvings) / 2**halvings
        errors.append((COARSE if halvings else 1.0) * end_point_error(flow, goal))
    return torch.stack(errors).sum()


def _photometric_error(flow: Tensor, ref: Tensor, supp: Tensor) -> Tensor:
    """How the details of ``supp``, warped along a flow, differ from those of ``ref``.

    Seen at half the size of the sharp frames, which costs a quarter. Brightness is left out, as
    it changes by itself. A flow that bends where the picture has no edge costs a little.

    Args:
        flow: In small pixels, (N, 2, H, W).
        ref: Sharp frames, (N, 3, 4H, 4W).
        supp: Shaped like ``ref``.
    """
    ref, supp = F.avg_pool2d(ref, 2), F.avg_pool2d(supp, 2)
    scale = ref.shape[-1] // flow.shape[-1]
    fine = scale * F.interpolate(flow, scale_factor=scale, mode="bilinear", align_corners=False)
    difference = _details(warp(supp, fine, padding="border")) - _details(ref)
    surprise = (difference.abs().mean(1).square() + 1e-6).sqrt()
    bends = [
        (fine.diff(dim=axis).abs() * torch.exp(-20 * ref.diff(dim=axis).abs().mean(1, True))).mean()
        for axis in (-1, -2)
    ]
    return PHOTOMETRIC * (surprise / (surprise + SURPRISE)).mean() + SMOOTH * (bends[0] + bends[1])


def _details(frames: Tensor) -> Tensor:
    """What frames hold beyond the mean of 9 x 9 pixels."""
    return frames - F.avg_pool2d(frames, 9, stride=1, padding=4, count_include_pad=False)
