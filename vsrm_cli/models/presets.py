"""Configurations: those of the papers, and a compact one that runs on a CPU."""

from dataclasses import replace

from vsrm_cli.models.gsmamba import GSMConfig
from vsrm_cli.models.vsrm import VSRMConfig
from vsrm_cli.models.vsrm_compact import CompactConfig

BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")

VSRM_FULL = VSRMConfig(
    channels=120,
    expand=2,
    state=8,
    conv=4,
    rank=8,
    ffn=200,
    s2t_blocks=16,
    dambs=1,
    branches=BRANCHES,
    offset_reach=2.0,
    flow_levels=6,
    flow_widths=(32, 64, 32, 16),
    flow_kernel=7,
    upsampler_width=64,
)

VSRM_ABLATION = replace(VSRM_FULL, s2t_blocks=5)

# Ours, not the paper's: small enough for a CPU (`models.vsrm_compact`).
VSRM_T = CompactConfig(
    channels=16,
    feature_blocks=2,
    width=64,
    blocks=8,
    hidden=32,
    states=2,
    neighbors=2,
    flow_levels=4,
    flow_widths=(24, 24, 16),
    flow_kernel=5,
)

# Two times instead of four, at a quarter of the cost: a pixel of its grid is four input pixels,
# which need more features.
VSRM_T_X2 = replace(VSRM_T, fold=2, channels=32)

GSM_FULL = GSMConfig(
    channels=192,
    heads=8,
    layers=4,
    attention_blocks=4,
    radius=2,
    expand=2,
    state=16,
    conv=4,
    rank=12,
    ffn=4,
    attention_ffn=2,
    flow_levels=6,
    flow_widths=(32, 64, 32, 16),
    flow_kernel=7,
    upsampler_width=64,
)
