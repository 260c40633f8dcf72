"""A flow network learns from the true flow where it is known, and from the frames elsewhere."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from vsrm_cli.data.training_batch import TrainingBatch
from vsrm_cli.layers.spynet import SpyNet
from vsrm_cli.training.flow_loss import compare_flows


def moving(dx, *, known, clips=2, side=16, seed=0):
    """Clips of two frames of soft noise, the second one shifted right by dx LR pixels."""
    rng = torch.Generator().manual_seed(seed)
    scene = torch.rand(clips, 3, side + 8, side + 8, generator=rng)
    scene = functional.interpolate(scene, scale_factor=4, mode="bicubic").clamp(0, 1)
    first = scene[..., 16:-16, 16:-16]
    moved = round(4 * dx)
    second = scene[..., 16:-16, 16 - moved : -16 - moved]
    hr = torch.stack((first, second), dim=1)
    lr = functional.avg_pool2d(hr.flatten(0, 1), 4).unflatten(0, (clips, 2))
    flow = torch.zeros(clips, 1, 2, side, side)
    flow[:, :, 0] = dx
    zeros = torch.zeros_like(flow)
    flows = (flow, -flow) if known else (zeros, zeros)
    return TrainingBatch(lr, hr, *flows, torch.full((clips,), known))


class ConstantMotion(SpyNet):
    """Estimates the same motion everywhere, for any frames."""

    def __init__(self, dx):
        super().__init__(levels=3, widths=(4,), kernel=3)
        self.dx = dx

    def pyramid(self, ref, supp):
        half = len(ref) // 2
        signs = torch.cat((torch.ones(half), -torch.ones(half))).view(-1, 1, 1, 1)
        flows = []
        for halvings in (2, 1, 0):
            shape = (len(ref), 1, *(side >> halvings for side in ref.shape[-2:]))
            x = (signs * self.dx / 2**halvings).expand(shape)
            flows.append(torch.cat((x, torch.zeros_like(x)), dim=1))
        return flows


@pytest.mark.parametrize("known", [True, False])
def test_the_true_motion_has_the_lowest_loss(known):
    batch = moving(1.5, known=known)

    losses = {
        dx: compare_flows(ConstantMotion(dx), batch)[0].item() for dx in (-1.5, 0.0, 1.0, 1.5, 2.0)
    }

    assert min(losses, key=losses.__getitem__) == 1.5


def test_a_network_without_motion_has_the_loss_of_zero_flow():
    loss, plain = compare_flows(SpyNet(levels=3, widths=(4,), kernel=3), moving(2.0, known=True))

    assert loss == plain
    # The levels are 2, 1 and half a pixel off; the coarser ones count three tenths.
    assert loss.item() == pytest.approx(2 + 0.3 * (1 + 0.5), rel=1e-3)


def test_clips_with_and_without_known_flow_have_equal_weight():
    network = ConstantMotion(1.0)
    known, unknown = moving(1.5, known=True), moving(1.5, known=False, seed=1)
    both = TrainingBatch(
        *(
            torch.cat((getattr(known, n), getattr(unknown, n)))
            for n in TrainingBatch.__annotations__
        )
    )

    whole = compare_flows(network, both)[0]

    parts = [compare_flows(network, batch)[0] for batch in (known, unknown)]
    torch.testing.assert_close(whole, (parts[0] + parts[1]) / 2)


def test_frames_are_cropped_to_a_size_that_the_pyramid_can_halve():
    batch = moving(1.0, known=True, side=18)
    even = replace(
        batch,
        lr=batch.lr[..., :16, :16],
        hr=batch.hr[..., :64, :64],
        flow_backward=batch.flow_backward[..., :16, :16],
        flow_forward=batch.flow_forward[..., :16, :16],
    )

    torch.testing.assert_close(
        compare_flows(ConstantMotion(0.5), batch), compare_flows(ConstantMotion(0.5), even)
    )


def test_motion_is_learned_without_known_flow():
    torch.manual_seed(0)
    network = SpyNet(levels=2, widths=(12, 8), kernel=5)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for step in range(120):
        loss, _ = compare_flows(network, moving(1.0, known=False, seed=step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    unseen = moving(1.0, known=True, seed=1000)
    with torch.no_grad():
        flow = network(unseen.lr[:, 0], unseen.lr[:, 1])

    middle = flow[..., 4:-4, 4:-4].mean((0, 2, 3))
    assert middle[0].item() == pytest.approx(1.0, abs=0.3)
    assert abs(middle[1].item()) < 0.2
