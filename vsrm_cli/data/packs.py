"""Packs: photos and short clips, decoded once and kept as plain 8-bit tensors.

A training loop that decodes video is slower than the network it feeds. A pack is one
safetensors file, so it is data and nothing else, and it can be used where no video library is
installed; `vsrm_cli.data.make_pack` makes one.

Names inside a pack: ``photo.N``, (3, H, W), and ``clip.N``, (T, 3, H, W), uint8 RGB. A clip can
have LR versions, ``twin-0.N``, ``twin-1.N`` and so on, (T, 3, H/4, W/4).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.errors import InputError

LR_PREFIX = "twin-"


def load_pack(pack: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read a pack, without the LR versions of its clips.

    Returns:
        Photos, each (3, H, W), and clips, each (T, 3, H, W), all uint8, by name and in its order.

    Raises:
        InputError: If the file is no pack.
    """
    photos: dict[str, Tensor] = {}
    clips: dict[str, Tensor] = {}
    for kind, name, tensor in _tensors(pack):
        if not kind.startswith(LR_PREFIX):
            (photos if kind == "photo" else clips)[name] = tensor
    return photos, clips


def load_lr_clips(pack: Path) -> dict[str, list[Tensor]]:
    """Read the LR versions of the clips in a pack.

    Returns:
        Those of each clip that has any, (T, 3, H/4, W/4) uint8, by the names of the clips.

    Raises:
        InputError: If the file is no pack.
    """
    lr_clips: dict[str, list[Tensor]] = {}
    for kind, name, tensor in _tensors(pack):
        if kind.startswith(LR_PREFIX):
            lr_clips.setdefault(name, []).append(tensor)
    return lr_clips


def _tensors(pack: Path) -> Iterator[tuple[str, str, Tensor]]:
    """Kind, name and tensor of everything in a pack."""
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


def shrink(frames: Tensor, factor: float) -> Tensor:
    """Shrink (..., 3, H, W) uint8 by antialiased bicubic interpolation, rounded to 8 bits."""
    shrunk = F.interpolate(
        frames.reshape(-1, *frames.shape[-3:]).float(),
        scale_factor=factor,
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    shrunk = shrunk.round().clamp(0, 255).to(torch.uint8)
    return shrunk.reshape(*frames.shape[:-2], *shrunk.shape[-2:])


def detail(image: Tensor) -> float:
    """Mean absolute difference of neighboring pixels, in gray levels, of (..., H, W) values."""
    image = image.float()
    across = (image[..., 1:] - image[..., :-1]).abs().mean()
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().mean()
    return float(across + down)


def most_detailed(
    image: Tensor, height: int, width: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Choose the place with most detail out of three random places in an image.

    Args:
        image: (3, H, W).
        height: Of the place; if the image is smaller, the place is at its border.
        width: Of the place, likewise.
        rng: Chooses the places.

    Returns:
        The top and the left of the place.
    """
    places = [
        (
            int(rng.integers(max(image.shape[-2] - height, 0) + 1)),
            int(rng.integers(max(image.shape[-1] - width, 0) + 1)),
        )
        for _ in range(3)
    ]
    return max(
        places,
        key=lambda at: detail(image[:, at[0] : at[0] + height : 2, at[1] : at[1] + width : 2]),
    )
