"""Networks small enough for tests, with every part of them in use."""

from dataclasses import replace

import torch
from torch import nn

from vsrm_cli.evaluation.feature_networks import FeatureNetwork
from vsrm_cli.models.gsmamba import GSM, GSMConfig
from vsrm_cli.models.vsrm import VSRM, VSRMConfig
from vsrm_cli.models.vsrm_compact import CompactConfig, VSRMCompact

TINY_VSRM = VSRMConfig(
    channels=8,
    expand=1,
    state=2,
    conv=4,
    rank=1,
    ffn=6,
    s2t_blocks=1,
    dambs=1,
    branches=("backward_1", "forward_1"),
    offset_reach=2.0,
    flow_levels=2,
    flow_widths=(8,),
    flow_kernel=3,
    upsampler_width=8,
)

# The published network in everything but its width.
PAPER_LIKE = replace(
    TINY_VSRM,
    expand=2,
    dambs=2,
    branches=("backward_1", "forward_1", "backward_2", "forward_2"),
    flow_levels=6,
    flow_kernel=7,
)

TINY_GSM = GSMConfig(
    channels=8,
    heads=2,
    layers=2,
    attention_blocks=2,
    radius=1,
    expand=1,
    state=2,
    conv=4,
    rank=1,
    ffn=2,
    attention_ffn=2,
    flow_levels=2,
    flow_widths=(8,),
    flow_kernel=3,
    upsampler_width=8,
)

# The released network in everything but its width.
RELEASED_LIKE = replace(
    TINY_GSM,
    radius=2,
    expand=2,
    state=4,
    ffn=4,
    flow_levels=6,
    flow_kernel=7,
)


TINY = CompactConfig(
    channels=4,
    feature_blocks=1,
    width=8,
    blocks=2,
    hidden=16,
    states=2,
    neighbors=1,
    flow_levels=2,
    flow_widths=(8,),
    flow_kernel=3,
)

NETWORKS = {VSRMConfig: VSRM, GSMConfig: GSM, CompactConfig: VSRMCompact}


def make_network(config=TINY, *, seed=0, randomized=True):
    """A network with weights of its own.

    ``randomized`` gives values to the layers that start at zero: without them the branches, the
    offsets and the upsampler would not affect the output, and no test would find their errors.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NETWORKS[type(config)](config).eval()
        if randomized:
            randomize_zeros(network)
    return network


def randomize_zeros(module):
    """Give every weight that is all zero small random values."""
    with torch.no_grad():
        for weight in module.parameters():
            if weight.dim() > 1 and not weight.any():
                weight.normal_(std=0.1)


def make_feature_network(seed=0):
    """An untrained feature network of two stages."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stages = [
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU()),
        ]
    return FeatureNetwork(stages, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def count_parameters(module):
    return sum(weight.numel() for weight in module.parameters())


def draw_randomly(*shape, seed=0):
    """Values 0 to 1."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def draw_clip(time, height, width, *, batch=1, seed=0):
    """A clip of noise, (B, T, 3, H, W), values 0 to 1."""
    return draw_randomly(batch, time, 3, height, width, seed=seed)
