"""Pack a folder of photos and videos for training: decode them once, keep what is worth seeing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from vsrm_cli.data.degradations import SCALE, Degradation, degrade
from vsrm_cli.data.file_sources import read_photo
from vsrm_cli.data.packs import TWIN, detail, shrink
from vsrm_cli.data.sources import PHOTO_ENDINGS, VIDEO_ENDINGS, to_8_bits
from vsrm_cli.decode.video import VideoReader
from vsrm_cli.errors import InputError
from vsrm_cli.files import check_output_path, write_atomically

# Compressed video is shrunk to this height first: half of a 720p film shows its codec no more.
CLIP_HEIGHT = 360
CLIP_FRAMES = 12
CLIP_SIDE = 208


def make_pack(
    folder: Path,
    pack: Path,
    *,
    clips_per_video: int = 32,
    seed: int = 0,
    twins: int = 0,
    overwrite: bool = True,
    report: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> int:
    """Decode every photo and every video below a folder into one pack.

    Photos are kept whole (shrunk as `vsrm_cli.data.file_sources.read_photo` does it). Of each
    video, crops of `CLIP_FRAMES` frames and `CLIP_SIDE` pixels are kept where there is something
    to see: of random places, those with the strongest gradients.

    Args:
        folder: Searched with all its subfolders.
        pack: The safetensors file to write.
        clips_per_video: How many crops of a video are kept at most.
        seed: Makes the choice of places repeatable.
        twins: How many small twins, worn as real footage is, each clip brings: to learn from where
            PyAV is not installed.
        overwrite: Whether the file may exist.
        report: Told the name of each file before it is read.
        warn: Told which files cannot be read; they are skipped.

    Returns:
        How many photos and clips the pack holds.

    Raises:
        InputError: If the folder holds nothing that can be read.
        OutputError: If the pack cannot be written there.
    """
    check_output_path(pack, overwrite=overwrite)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one with photos and videos.")
    rng = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_ENDINGS):
        report(str(path))
        try:
            tensors[f"photo.{len(tensors)}"] = read_photo(path)
        except InputError as error:
            warn(f"skipped: {error}")
    photos = len(tensors)
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_ENDINGS):
        report(str(path))
        try:
            clips = _interesting_clips(path, clips_per_video, rng)
        except InputError as error:
            warn(f"skipped: {error}")
            continue
        for clip in clips:
            tensors[f"clip.{len(tensors) - photos}"] = _in_fours(clip) if twins else clip
    if not tensors:
        raise InputError(f"{folder} has no photos and no videos; give a folder that has some.")
    worn = {
        f"{TWIN}{twin}.{clip}": _worn(tensors[f"clip.{clip}"], [seed, clip, twin])
        for clip in range(len(tensors) - photos)
        for twin in range(twins)
    }
    with write_atomically(pack) as part:
        save_file(tensors | worn, part)
    return len(tensors)


def _in_fours(clip: Tensor) -> Tensor:
    """Cut the sides of pictures to multiples of four."""
    height, width = (side - side % SCALE for side in clip.shape[-2:])
    return clip[..., :height, :width].contiguous()


def _worn(clip: Tensor, seed: list[int]) -> Tensor:
    """A small twin of a clip."""
    small = degrade(clip.float() / 255, Degradation.REAL, np.random.default_rng(seed))
    return (small * 255).round().to(torch.uint8)


def make_validation_pack(folder: Path, pack: Path) -> int:
    """Keep clips whole: each folder of pictures below ``folder`` is one, in the order of names.

    Sides are cut to multiples of four, so that the clips can be shrunk.

    Args:
        folder: Holds one folder for each clip.
        pack: The safetensors file to write.

    Returns:
        How many clips the pack holds.

    Raises:
        InputError: If there is no folder of pictures.
    """
    tensors: dict[str, Tensor] = {}
    for clip in sorted(p for p in folder.iterdir() if p.is_dir()):
        paths = sorted(p for p in clip.iterdir() if p.suffix.lower() in PHOTO_ENDINGS)
        if paths:
            frames = torch.stack([read_photo(path) for path in paths])
            tensors[f"clip.{clip.name}"] = _in_fours(frames)
    if not tensors:
        raise InputError(f"{folder} holds no folder of pictures; give one with a folder per clip.")
    with write_atomically(pack) as part:
        save_file(tensors, part)
    return len(tensors)


def _runs(path: Path) -> Iterator[Tensor]:
    """Runs of `CLIP_FRAMES` frames, (T, 3, H, W) uint8, one after another through a video."""
    run: list[Tensor] = []
    with VideoReader(path) as reader:
        for frame in reader:
            pixels = to_8_bits(torch.from_numpy(frame.pixels.copy()))
            side = min(pixels.shape[1:])
            run.append(shrink(pixels, CLIP_HEIGHT / side) if side > CLIP_HEIGHT else pixels)
            if len(run) == CLIP_FRAMES:
                yield torch.stack(run)
                run = []


def _interesting_clips(path: Path, count: int, rng: torch.Generator) -> list[Tensor]:
    """The crops of a video with most detail, at most two of each run of frames."""
    scored: list[tuple[float, Tensor]] = []
    for run in _runs(path):
        places: list[tuple[float, Tensor]] = []
        for _ in range(8):
            top, left = (
                int(torch.randint(max(size - CLIP_SIDE, 0) + 1, (), generator=rng))
                for size in run.shape[-2:]
            )
            crop = run[..., top : top + CLIP_SIDE, left : left + CLIP_SIDE]
            places.append((detail(crop[0]), crop))
        places.sort(key=lambda place: place[0], reverse=True)
        scored += [(score, crop.clone()) for score, crop in places[:2]]
    scored.sort(key=lambda place: place[0], reverse=True)
    return [crop for _, crop in scored[:count]]
