"""Packs: photos and short clips, decoded once and kept as plain 8-bit tensors.

A training loop that decodes video is slower than the network it feeds. A pack is one
safetensors file, so it is data and nothing else, and it can be used where no video library is
installed; `vsrm_cli.data.make_pack` makes one.

Names inside a pack: ``photo.N``, (3, H, W), and ``clip.N``, (T, 3, H, W), uint8 RGB. A clip may
bring small twins, ``twin-0.N``, ``twin-1.N`` and so on, (T, 3, H/4, W/4).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.errors import InputError

TWIN = "twin-"


def load_pack(pack: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read a pack, but not the small twins in it.

    Returns:
        Photos, each (3, H, W), and clips, each (T, 3, H, W), all uint8, by name and in its order.

    Raises:
        InputError: If the file is no pack.
    """
    photos: dict[str, Tensor] = {}
    clips: dict[str, Tensor] = {}
    for kind, name, tensor in _tensors(pack):
        if not kind.startswith(TWIN):
            (photos if kind == "photo" else clips)[name] = tensor
    return photos, clips


def load_lr_clips(pack: Path) -> dict[str, list[Tensor]]:
    """Read the small twins in a pack.

    Returns:
        Of the clips that have any, each (T, 3, H/4, W/4) uint8, by the names of the clips.

    Raises:
        InputError: If the file is no pack.
    """
    twins: dict[str, list[Tensor]] = {}
    for kind, name, tensor in _tensors(pack):
        if kind.startswith(TWIN):
            twins.setdefault(name, []).append(tensor)
    return twins


def _tensors(pack: Path) -> Iterator[tuple[str, str, Tensor]]:
    """Kind, name and content of everything in a pack."""
    try:
        with safe_open(pack, framework="pt") as tensors:
            for key in sorted(tensors.keys()):
                kind, _, name = key.partition(".")
                tensor = tensors.get_tensor(key)
                if tensor.dtype != torch.uint8 or tensor.dim() != (3 if kind == "photo" else 4):
                    raise InputError(f"{pack} is not a pack of photos and clips; make a new one.")
                yield kind, name, tensor
    except (SafetensorError, OSError) as error:
        raise InputError(f"{pack} cannot be read as a pack; copy or make it again.") from error


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
    """Mean absolute difference of neighboring pixels, in gray levels, of (..., H, W) values."""
    picture = picture.float()
    across = (picture[..., 1:] - picture[..., :-1]).abs().mean()
    down = (picture[..., 1:, :] - picture[..., :-1, :]).abs().mean()
    return float(across + down)


def most_detailed(
    picture: Tensor, height: int, width: int, rng: np.random.Generator, *, step: int = 1
) -> tuple[int, int]:
    """Of three random places in a picture the one with most detail.

    Args:
        picture: (3, H, W).
        height: Of the place; where the picture is smaller, it is at its border.
        width: Likewise.
        rng: Decides where to look.
        step: Places are multiples of this.

    Returns:
        The top and the left of the place.
    """
    places = [
        (
            step * int(rng.integers(max(picture.shape[-2] - height, 0) // step + 1)),
            step * int(rng.integers(max(picture.shape[-1] - width, 0) // step + 1)),
        )
        for _ in range(3)
    ]
    return max(
        places,
        key=lambda at: detail(picture[:, at[0] : at[0] + height : 2, at[1] : at[1] + width : 2]),
    )
