"""Packs: photos and short clips, decoded once and kept as plain 8-bit tensors.

A training loop that decodes video is slower than the network it feeds. A pack is one
safetensors file, so it is data and nothing else, and it can be used where no video library is
installed; `vsrm_cli.data.make_pack` makes one.

Names inside a pack: ``photo.N``, (3, H, W), and ``clip.N``, (T, 3, H, W), uint8 RGB. A clip can
have LR versions, ``twin-0.N``, ``twin-1.N`` and so on, (T, 3, H/4, W/4).
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

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
