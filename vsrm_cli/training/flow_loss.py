"""The loss of the flow network: supervised where the true motion is known, photometric elsewhere.

Synthetic clips, made by moving a camera over a photo, have an exact flow; each level of the pyramid
is compared with it. The flow of real footage is unknown; there one HR frame, warped, should look
like the other one. The network itself sees LR frames, which may be compressed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.data.training_batch import TrainingBatch
from vsrm_cli.layers.spynet import SpyNet
from vsrm_cli.ops.warp import warp
from vsrm_cli.training.losses import end_point_error

# Weights of the coarser levels of the pyramid, of the photometric error, and of smoothness.
COARSE, PHOTOMETRIC, SMOOTH = 0.3, 6.0, 0.5
# Differences of details far above this hardly count more: something came into view.
SURPRISE = 0.1


def compare_flows(network: SpyNet, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """The loss of the flows of a batch.

    Args:
        network: The flow network.
        batch: A batch of clips of two frames or more.

    Returns:
        The loss, a mean over all clips, and the supervised part of it for zero flow.
    """
    lr, hr = _without_rest(batch, 2 ** (len(network.basic_module) - 1))
    height, width = lr.shape[-2:]
    true_flow = torch.stack((batch.flow_backward, batch.flow_forward))[..., :height, :width]
    true_flow = true_flow.flatten(0, 2)
    known = batch.has_flow[None, :, None].expand(2, -1, lr.shape[1] - 1).flatten()
    ref, supp = _both_ways(lr)
    flows = network.pyramid(network.normalized(ref), network.normalized(supp))
    loss, baseline = 0.0 * flows[-1].sum(), true_flow.new_zeros(())
    if known.any():
        share, still = known.float().mean(), [torch.zeros_like(flow[known]) for flow in flows]
        loss = loss + share * _pyramid_error([flow[known] for flow in flows], true_flow[known])
        baseline = share * _pyramid_error(still, true_flow[known])
    if not known.all():
        share = 1 - known.float().mean()
        hr_ref, hr_supp = (frames[~known] for frames in _both_ways(hr))
        loss = loss + share * _photometric_error(flows[-1][~known], hr_ref, hr_supp)
    return loss, baseline


def _without_rest(batch: TrainingBatch, multiple: int) -> tuple[Tensor, Tensor]:
    """The frames, cropped so that the sides of the LR frames are multiples of a number."""
    height, width = (side - side % multiple for side in batch.lr.shape[-2:])
    scale = batch.hr.shape[-1] // batch.lr.shape[-1]
    return (
        batch.lr[..., :height, :width],
        batch.hr[..., : scale * height, : scale * width],
    )


def _both_ways(clip: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbors of (B, T, 3, H, W), each (2 B (T - 1), 3, H, W): from t to t + 1, and back."""
    early, late = clip[:, :-1].flatten(0, 1), clip[:, 1:].flatten(0, 1)
    return torch.cat((early, late)), torch.cat((late, early))


def _pyramid_error(flows: Sequence[Tensor], true_flow: Tensor) -> Tensor:
    """End-point errors of all levels, each in its own pixels; the finest counts most."""
    errors = []
    for halvings, flow in enumerate(reversed(flows)):
        goal = F.avg_pool2d(true_flow, 2**halvings) / 2**halvings
        errors.append((COARSE if halvings else 1.0) * end_point_error(flow, goal))
    return torch.stack(errors).sum()


def _photometric_error(flow: Tensor, ref: Tensor, supp: Tensor) -> Tensor:
    """How the details of ``supp``, warped along a flow, differ from those of ``ref``.

    Computed at half the size of the HR frames, which costs a quarter. Brightness is left out, as it
    may change. A flow that bends where the frame has no edge costs a little.

    Args:
        flow: In LR pixels, (N, 2, H, W).
        ref: HR frames, (N, 3, 4H, 4W).
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
    """Frames minus the mean of 9 x 9 pixels."""
    return frames - F.avg_pool2d(frames, 9, stride=1, padding=4, count_include_pad=False)
