"""Clips to watch the learning by: a few, always the same, small enough to be restored often."""

from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsrm_cli.data.degradations import SCALE, Degradation, degrade
from vsrm_cli.data.footage import Footage, open_footage
from vsrm_cli.data.sample import ClipShape
from vsrm_cli.data.sources import Run, Source, Window
from vsrm_cli.data.synthetic_motion import move_camera
from vsrm_cli.errors import InputError

# Of photos, from which a clip has to be made.
_FILMED_SIDE = 192


def validation_clips(
    data: Footage | Path, *, most: int = 16, frames: int = 12, side: int = 640
) -> dict[str, Tensor]:
    """Choose clips to validate on: the sharp side of `validation_pairs`.

    Returns:
        (T, 3, H, W) uint8 by their names, sides multiples of four.
    """
    runs = _runs(data, most=most, frames=frames, side=side)
    return {name: run.sharp for name, run in runs.items()}


def validation_pairs(
    data: Footage | Path,
    degradation: Degradation,
    *,
    most: int = 16,
    frames: int = 12,
    side: int = 640,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Choose clips to validate on, with the small twins that a network is given.

    They are spread evenly over the footage: over its clips, and over the length of each where
    there are few. Only if there is no clip, photos are filmed. The same footage gives the same
    clips.

    Args:
        data: What `open_footage` found, or what it shall look for.
        degradation: How the small ones are made, where none came with the footage.
        most: How many clips there are at most.
        frames: Their greatest length.
        side: Of larger pictures the middle is taken, a square of this many pixels.

    Returns:
        Small frames, (T, 3, H, W), and sharp ones, (T, 3, 4H, 4W), both uint8, by their names.

    Raises:
        InputError: If none can be read.
    """
    pairs = {}
    runs = _runs(data, most=most, frames=frames, side=side)
    for number, (name, run) in enumerate(runs.items()):
        small = run.small
        if small is None:
            rng = np.random.default_rng(number)
            made = degrade(run.sharp.float() / 255, degradation, rng)
            small = (made * 255).round().to(torch.uint8)
        pairs[name] = (small, run.sharp)
    return pairs


def _runs(data: Footage | Path, *, most: int, frames: int, side: int) -> dict[str, Run]:
    footage = open_footage(data) if isinstance(data, Path) else data
    sources = footage.clips or footage.photos
    if len(sources) > most:
        sources = tuple(sources[n * len(sources) // most] for n in range(most))
    runs: dict[str, Run] = {}
    for source in sources:
        length = min(frames, source.frames)
        for first in _places(source.frames - length, most // len(sources)):
            run = source.read(first, length, _middle(source, side))
            if run is None:  # damaged, or behind a cut
                continue
            name = f"{source.name} {first}" if source.frames > length else source.name
            if name in runs:  # of the twins in packs, or of files that differ in their endings
                name = next(n for k in count(2) if (n := f"{name} ({k})") not in runs)
            runs[name] = _filmed(run, frames) if length == 1 and run.small is None else run
    if not runs:
        raise InputError(
            f"No clip of {footage.path} can be read without damage or a scene cut; choose other "
            f"validation footage."
        )
    return runs


def _places(room: int, number: int) -> list[int]:
    """So many numbers from 0 to ``room``, evenly spread, as far as they differ."""
    return sorted({(2 * n + 1) * room // (2 * number) for n in range(number)})


def _middle(source: Source, side: int) -> Window:
    """The middle of its pictures, sides and place multiples of four."""
    height, width = (min(side, length) // SCALE * SCALE for length in source.size)
    top, left = (
        (length - part) // (2 * SCALE) * SCALE
        for length, part in zip(source.size, (height, width), strict=True)
    )
    return Window(top, left, height, width)


def _filmed(run: Run, frames: int) -> Run:
    """A photo as a clip."""
    patch = min(_FILMED_SIDE, *run.sharp.shape[-2:]) // SCALE
    shape = ClipShape(frames=frames, patch=patch, batch=1, photo_share=1.0)
    photo = run.sharp[0]
    clip, _, _ = move_camera(photo, photo, shape, np.random.default_rng(0))
    return Run((clip * 255).round().to(torch.uint8))
