"""Packs: photos and short clips, decoded once and kept as plain 8-bit tensors.

A training loop that decodes video is slower than the network it feeds. A pack is one
safetensors file, so it is data and nothing else, and it can be used where no video library is
installed; `vsrm_cli.pack` makes one.

Names inside a pack: ``photo.N``, (3, H, W), and ``clip.N``, (T, 3, H, W), uint8 RGB.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F


def load_pack(pack: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read a pack.

    Returns:
        Photos, each (3, H, W), and clips, each (T, 3, H, W), all uint8, by name and in its order.
    """
    photos: dict[str, Tensor] = {}
    clips: dict[str, Tensor] = {}
    with safe_open(pack, framework="pt") as tensors:
        for name in sorted(tensors.keys()):
            kind, _, rest = name.partition(".")
            (photos if kind == "photo" else clips)[rest] = tensors.get_tensor(name)
    return photos, clips


def shrink(pictures: Tensor, factor: float) -> Tensor:
    """Shrink (..., 3, H, W) uint8 by antialiased bicubic interpolation, rounded to 8 bits."""
    small = F.interpolate(
        pictures.reshape(-1, *pictures.shape[-3:]).float(),
        scale_factor=factor,
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    small = small.round().clamp(0, 255).to(torch.uint8)
    return small.reshape(*pictures.shape[:-2], *small.shape[-2:])


def detail(picture: Tensor) -> float:
    """Mean absolute difference of neighboring pixels, in grey levels, of (..., H, W) values."""
    picture = picture.float()
    across = (picture[..., 1:] - picture[..., :-1]).abs().mean()
    down = (picture[..., 1:, :] - picture[..., :-1, :]).abs().mean()
    return float(across + down)
