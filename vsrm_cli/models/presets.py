"""Configurations: those of the papers, and compact ones that run on a CPU."""

from vsrm_cli.models.gsmamba import GSMConfig
from vsrm_cli.models.vsrm import VSRMConfig

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
    feature_blocks=0,
    upsampler="two-step",
    upsampler_width=64,
    upsampler_blocks=0,
    neighbors=0,
    base="bilinear",
)

VSRM_ABLATION = VSRMConfig(
    channels=120,
    expand=2,
    state=8,
    conv=4,
    rank=8,
    ffn=200,
    s2t_blocks=5,
    dambs=1,
    branches=BRANCHES,
    offset_reach=2.0,
    flow_levels=6,
    flow_widths=(32, 64, 32, 16),
    flow_kernel=7,
    feature_blocks=0,
    upsampler="two-step",
    upsampler_width=64,
    upsampler_blocks=0,
    neighbors=0,
    base="bilinear",
)

# Ours, not the paper's: the same modules, narrow enough for a CPU.
VSRM_T = VSRMConfig(
    channels=16,
    expand=1,
    state=4,
    conv=4,
    rank=2,
    ffn=24,
    s2t_blocks=1,
    dambs=1,
    branches=("backward_1", "forward_1"),
    offset_reach=2.0,
    flow_levels=4,
    flow_widths=(24, 24, 16),
    flow_kernel=5,
    feature_blocks=2,
    upsampler="direct",
    upsampler_width=64,
    upsampler_blocks=8,
    neighbors=2,
    base="bicubic",
)

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
    feature_blocks=0,
    upsampler="two-step",
    upsampler_width=64,
    upsampler_blocks=0,
    neighbors=0,
    base="bilinear",
)

# Ours, not the paper's: the same modules, narrow enough for a CPU, between the way in and the way
# out of `VSRM_T`.
GSM_T = GSMConfig(
    channels=32,
    heads=4,
    layers=2,
    attention_blocks=2,
    radius=1,
    expand=1,
    state=8,
    conv=4,
    rank=2,
    ffn=2,
    attention_ffn=2,
    flow_levels=4,
    flow_widths=(24, 24, 16),
    flow_kernel=5,
    feature_blocks=2,
    upsampler="direct",
    upsampler_width=64,
    upsampler_blocks=8,
    neighbors=2,
    base="bicubic",
)
