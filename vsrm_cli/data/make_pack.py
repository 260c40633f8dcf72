"""The job of `vsrm pack`: decode photos and videos once, and keep crops with detail."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from vsrm_cli.data.crops import measure_detail, shrink
from vsrm_cli.data.degradations import Degradation, degrade
from vsrm_cli.data.file_sources import read_photo
from vsrm_cli.data.packs import LR_PREFIX
from vsrm_cli.decode.video import VideoReader
from vsrm_cli.errors import InputError
from vsrm_cli.files import (
    IMAGE_ENDINGS,
    VIDEO_ENDINGS,
    check_output_path,
    files_below,
    write_atomically,
)
from vsrm_cli.frame import SCALE, to_8_bits

# Compressed video is shrunk to this height first: at half size, 720p shows no codec artifacts.
CLIP_HEIGHT = 360
CLIP_FRAMES = 12
CLIP_SIDE = 208


def make_pack(
    folder: Path,
    pack: Path,
    *,
    clips_per_video: int = 32,
    seed: int = 0,
    lr_versions: int = 0,
    overwrite: bool = True,
    report: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> int:
    """Decode every photo and every video below a folder into one pack.

    Photos are kept whole (shrunk by `vsrm_cli.data.file_sources.read_photo`). Of each video, crops
    of `CLIP_FRAMES` frames and `CLIP_SIDE` pixels are kept: of random places, those with the
    strongest gradients.

    Args:
        folder: Searched with all its subfolders.
        pack: The safetensors file to write.
        clips_per_video: Maximum number of crops of a video.
        seed: Decides the places.
        lr_versions: How many LR versions with real-world degradation each clip has, for training
            without PyAV.
        overwrite: Whether the file may exist.
        report: Called with the name of each file before it is read.
        warn: Called with each file that cannot be read and is skipped.

    Returns:
        The number of photos and clips in the pack.

    Raises:
        InputError: If the folder holds no readable photo or video.
        OutputError: If the pack cannot be written there.
    """
    check_output_path(pack, overwrite=overwrite)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one with photos and videos.")
    rng = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    files = files_below(folder)
    for path in (file for file in files if file.suffix.lower() in IMAGE_ENDINGS):
        report(str(path))
        try:
            tensors[f"photo.{len(tensors)}"] = read_photo(path)
        except InputError as error:
            warn(f"skipped: {error}")
    photos = len(tensors)
    for path in (file for file in files if file.suffix.lower() in VIDEO_ENDINGS):
        report(str(path))
        try:
            clips = _detailed_clips(path, clips_per_video, rng)
        except InputError as error:
            warn(f"skipped: {error}")
            continue
        for clip in clips:
            tensors[f"clip.{len(tensors) - photos}"] = _crop_to_fours(clip) if lr_versions else clip
    if not tensors:
        raise InputError(f"{folder} has no photos and no videos; give a folder that has some.")
    lr_clips = {
        f"{LR_PREFIX}{version}.{clip}": _degraded(tensors[f"clip.{clip}"], [seed, clip, version])
        for clip in range(len(tensors) - photos)
        for version in range(lr_versions)
    }
    with write_atomically(pack) as part:
        save_file(tensors | lr_clips, part)
    return len(tensors)


def _crop_to_fours(clip: Tensor) -> Tensor:
    """Crop the sides of frames to multiples of four."""
    height, width = (side - side % SCALE for side in clip.shape[-2:])
    return clip[..., :height, :width].contiguous()


def _degraded(clip: Tensor, seed: list[int]) -> Tensor:
    """A clip after real-world degradation."""
    lr = degrade(clip.float() / 255, Degradation.REAL, np.random.default_rng(seed))
    return (lr * 255).round().to(torch.uint8)


def _runs(path: Path) -> Iterator[Tensor]:
    """A video in runs of `CLIP_FRAMES` frames, (T, 3, H, W) uint8."""
    run: list[Tensor] = []
    with VideoReader(path) as reader:
        for frame in reader:
            pixels = torch.from_numpy(to_8_bits(frame.pixels).copy())
            side = min(pixels.shape[1:])
            run.append(shrink(pixels, CLIP_HEIGHT / side) if side > CLIP_HEIGHT else pixels)
            if len(run) == CLIP_FRAMES:
                yield torch.stack(run)
                run = []


def _detailed_clips(path: Path, count: int, rng: torch.Generator) -> list[Tensor]:
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
            places.append((measure_detail(crop[0]), crop))
        places.sort(key=lambda place: place[0], reverse=True)
        scored += [(score, crop.clone()) for score, crop in places[:2]]
    scored.sort(key=lambda place: place[0], reverse=True)
    return [crop for _, crop in scored[:count]]
