"""Validation clips: a few, always the same, small enough to be restored often."""

from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsrm_cli.data.crops import CropBox
from vsrm_cli.data.degradations import Degradation, degrade
from vsrm_cli.data.footage import Footage, open_footage
from vsrm_cli.data.sources import FootageSource, FrameRun
from vsrm_cli.data.synthetic_motion import move_camera
from vsrm_cli.data.training_batch import ClipShape
from vsrm_cli.errors import InputError
from vsrm_cli.frame import SCALE

# Side of clips that are made from photos.
PHOTO_CLIP_SIDE = 192


def validation_pairs(
    data: Footage | Path,
    degradation: Degradation,
    *,
    most: int = 16,
    frames: int = 12,
    side: int = 640,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Choose LR-HR pairs of validation clips.

    They are spread evenly over the footage: over its clips, and over the length of each if there
    are few. Clips are made from photos only if there are no others. The same footage gives the same
    clips.

    Args:
        data: From `open_footage`, or its argument.
        degradation: How LR frames are made, if the footage has none.
        most: Maximum number of clips.
        frames: Maximum length.
        side: Larger frames are cropped to the middle, a square of this many pixels.

    Returns:
        LR frames, (T, 3, H, W), and HR frames, (T, 3, 4H, 4W), both uint8, by name.

    Raises:
        InputError: If no clip can be read.
    """
    pairs = {}
    runs = _runs(data, most=most, frames=frames, side=side)
    for number, (name, run) in enumerate(runs.items()):
        lr = run.lr
        if lr is None:
            rng = np.random.default_rng(number)
            made = degrade(run.hr.float() / 255, degradation, rng)
            lr = (made * 255).round().to(torch.uint8)
        pairs[name] = (lr, run.hr)
    return pairs


def _runs(data: Footage | Path, *, most: int, frames: int, side: int) -> dict[str, FrameRun]:
    footage = open_footage(data) if isinstance(data, Path) else data
    sources = footage.clips or footage.photos
    if len(sources) > most:
        sources = tuple(sources[n * len(sources) // most] for n in range(most))
    runs: dict[str, FrameRun] = {}
    for source in sources:
        length = min(frames, source.frames)
        for first in _places(source.frames - length, most // len(sources)):
            run = source.read(first, length, _center_box(source, side))
            if run is None:  # damaged, or with a scene cut
                continue
            name = f"{source.name} {first}" if source.frames > length else source.name
            if name in runs:  # LR versions in packs, or files that differ in their endings
                name = next(n for k in count(2) if (n := f"{name} ({k})") not in runs)
            runs[name] = _photo_clip(run, frames) if length == 1 and run.lr is None else run
    if not runs:
        raise InputError(
            f"No clip of {footage.path} can be read without damage or a scene cut; choose other "
            f"validation footage."
        )
    return runs


def _places(room: int, number: int) -> list[int]:
    """This many different numbers from 0 to ``room``, evenly spread."""
    return sorted({(2 * n + 1) * room // (2 * number) for n in range(number)})


def _center_box(source: FootageSource, side: int) -> CropBox:
    """The middle of its frames; sides and position are multiples of four."""
    height, width = (min(side, length) // SCALE * SCALE for length in source.size)
    top, left = (
        (length - part) // (2 * SCALE) * SCALE
        for length, part in zip(source.size, (height, width), strict=True)
    )
    return CropBox(top, left, height, width)


def _photo_clip(run: FrameRun, frames: int) -> FrameRun:
    """A photo as a clip."""
    patch = min(PHOTO_CLIP_SIDE, *run.hr.shape[-2:]) // SCALE
    shape = ClipShape(frames=frames, patch=patch, batch=1, photo_share=1.0)
    photo = run.hr[0]
    clip, _, _ = move_camera(photo, photo, shape, np.random.default_rng(0))
    return FrameRun((clip * 255).round().to(torch.uint8))
