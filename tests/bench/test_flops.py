"""FLOPs are counted without computing, scans included, and without changing the network."""

import pytest
import torch
from networks import make_network
from torch import nn

from vsrm_cli.bench.flops import count_flops
from vsrm_cli.checkpoints.loading import load_model
from vsrm_cli.layers import mamba


class OneConvolution(nn.Module):
    dtype = torch.float32

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)

    def forward(self, clip):
        return self.conv(clip.flatten(0, 1))


class OneScan(nn.Module):
    """Scans the pixels of a clip as 12 channels with 5 states each."""

    dtype = torch.float32

    def forward(self, clip):
        u = clip.reshape(2, 12, -1)
        weights = torch.ones(2, 5, u.shape[-1], device=clip.device)
        decay = torch.ones(12, 5, device=clip.device)
        return mamba.selective_scan(u, u, decay, weights, weights)


def test_a_convolution_costs_two_operations_for_each_weight_and_pixel():
    count = count_flops(OneConvolution(), (1, 2, 3, 10, 14))

    assert count == 2 * (3 * 8 * 9) * (2 * 10 * 14)


def test_a_scan_costs_seven_operations_for_each_state_and_three_for_each_step():
    count = count_flops(OneScan(), (1, 4, 3, 8, 10))

    steps = 4 * 3 * 8 * 10
    assert count == steps * (7 * 5 + 3)


def test_the_network_is_left_as_it_is():
    network = make_network()
    clip = torch.rand(1, 3, 3, 8, 12)
    before = network(clip)

    count_flops(network, (1, 3, 3, 8, 12))

    assert torch.equal(network(clip), before)


@pytest.mark.parametrize("model", ["vsrm-t", pytest.param("vsrm-t-x2", marks=pytest.mark.slow)])
def test_the_flops_of_a_bundled_network_grow_with_the_frame_size(model):
    network = load_model(model, device="cpu")

    small, large = (count_flops(network, (1, 2, 3, 32 * k, 32 * k)) for k in (1, 2))

    assert small > 0
    assert large == pytest.approx(4 * small, rel=0.1)
