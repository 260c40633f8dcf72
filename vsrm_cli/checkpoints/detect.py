"""Detect the architecture of a weight file from the names and shapes of its tensors.

Files of this project name their network and configuration. Others are recognized by their keys:
those of the Gather-Scatter Mamba authors can be loaded, some others are named in the error.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

# Keys that only one architecture has, and its name for the message.
KNOWN_KEYS = (
    (
        re.compile(r"^cell\.conv_in\.|^align\.A_log$"),
        "a network of this project without its configuration; write it with "
        "vsrm_cli.checkpoints.loading.save_weights",
    ),
    (re.compile(r"basic_module\.\d+\.basic_module\."), "SpyNet, an optical flow network"),
    (re.compile(r"body\.\d+\.rdb1\.conv1\."), "RRDBNet (ESRGAN), which upscales single images"),
    (re.compile(r"conv_up1\.|RRDB_trunk\."), "RRDBNet (ESRGAN), which upscales single images"),
    (re.compile(r"deform_align\."), "BasicVSR++"),
    (re.compile(r"backward_trunk\.|backward_resblocks\."), "BasicVSR"),
    (re.compile(r"layers\.\d+\.residual_group\."), "a transformer such as SwinIR or HAT"),
    (re.compile(r"stage\d+\.reshape\.|stage\d+\.residual_group1\."), "VRT"),
    (re.compile(r"patch_align\.|implicit_align\."), "a network of the PSRT and IART family"),
)

_TABLE = "prop_layers.0.stage.attn_blocks.blocks.0.attn.relative_position_bias_table"
_GSM_KEYS = {
    "conv_first.weight",
    "implicit_align.q.weight",
    "conv_before_upsample.0.weight",
    _TABLE,
}
_GSM_PA_FRAME = 2  # of the released configuration; no shape depends on it
_GSM_CONFIG_KEYS = ("embed_dims", "num_heads", "prop_depth", "attn_depth", "pa_frame", "upscale")

# Of a third scan, which some versions of the Mamba package create and no forward pass uses.
GSM_UNUSED = re.compile(r".*\.mamba\.(A_s_log|D_s|(conv1d|x_proj|dt_proj)_s\.(weight|bias))")


def is_gsm(shapes: Shapes) -> bool:
    """Whether these are the keys of the Gather-Scatter Mamba authors' network."""
    return shapes.keys() >= _GSM_KEYS


def gsm_settings(shapes: Shapes, metadata: Mapping[str, str]) -> dict[str, int]:
    """The settings of a Gather-Scatter Mamba network, with its authors' names.

    Args:
        shapes: Of its tensors, with the authors' keys.
        metadata: Of the file; ``config`` may be JSON with some of the settings.

    Returns:
        embed_dims, num_heads, prop_depth, attn_depth, pa_frame and upscale. No shape depends on
        pa_frame, the radius of the window: without metadata, it is that of the released network.

    Raises:
        ValueError: If the shapes are not those of such a network, or contradict the metadata.
    """
    seen = _gsm_settings_seen(shapes)
    config: Any = json.loads(metadata.get("config", "{}"))
    if not isinstance(config, dict) or not all(
        type(config.get(n, 0)) is int for n in _GSM_CONFIG_KEYS
    ):
        raise ValueError("its config is not a table of integers")
    for name in seen.keys() & config.keys():
        if config[name] != seen[name]:
            raise ValueError(f"its config says {name} {config[name]}, its tensors {seen[name]}")
    return {**seen, "pa_frame": config.get("pa_frame", _GSM_PA_FRAME)}


def _gsm_settings_seen(shapes: Shapes) -> dict[str, int]:
    def count(pattern: str) -> int:
        # Counted, since a file could contain any highest index.
        return len({found[1] for name in shapes if (found := re.match(pattern, name))})

    upsamplers = [shape for name, shape in shapes.items() if re.match(r"upsample\.\d+\.w", name)]
    ranks = (len(shapes[_TABLE]), *(len(s) for s in (shapes["conv_first.weight"], *upsamplers)))
    if ranks[0] != 2 or any(rank != 5 for rank in ranks[1:]) or any(not s[1] for s in upsamplers):
        raise ValueError("its tensors have the names of a GSM network, but not their shapes")
    return {
        "embed_dims": shapes["conv_first.weight"][0],
        "num_heads": shapes[_TABLE][1],
        "prop_depth": count(r"prop_layers\.(\d+)\."),
        "attn_depth": count(r"prop_layers\.0\.stage\.attn_blocks\.blocks\.(\d+)\."),
        # A convolution before a pixel shuffle by s has s * s times as many output channels.
        "upscale": math.prod(math.isqrt(out // taken) for out, taken, *_ in upsamplers),
    }


def guess_architecture(shapes: Shapes) -> str:
    """Guess the architecture from the keys; a phrase for a message."""
    for pattern, network in KNOWN_KEYS:
        if any(pattern.search(name) for name in shapes):
            return f"it looks like {network}"
    return "its tensors match no known network"
