"""Clips and photos in files: found, probed once, and read from any frame."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from vsrm_cli.data.crops import CropBox, shrink
from vsrm_cli.data.file_index import Facts, FileIndex
from vsrm_cli.data.sources import FootageSource, FrameRun, SkippedFile
from vsrm_cli.decode.frame_index import read_frame_index
from vsrm_cli.decode.image_sequence import by_number, read_image
from vsrm_cli.decode.scene_cuts import SceneCutFinder
from vsrm_cli.decode.video import VideoReader
from vsrm_cli.errors import InputError
from vsrm_cli.files import IMAGE_ENDINGS, VIDEO_ENDINGS
from vsrm_cli.frame import to_8_bits
from vsrm_cli.media.probe import probe

# The longer side of a photo becomes at most 1.5 times this.
PHOTO_SIDE = 1024
# Compressed video of this many lines or more is halved, which removes most codec artifacts.
HALVED_LINES = 720
# How many images of a folder decide whether it is an image sequence or a collection of photos.
_IMAGES_PROBED = 4


@dataclass(frozen=True)
class VideoSource:
    """A video file.

    Attributes:
        path: The file.
        name: Its name for the user.
        ticks: The times of its frames, in units of ``time_base``.
        time_base: In seconds.
        size: Height and width after reading.
        is_halved: Whether frames are shrunk to half of their size.
        is_lossy: Whether its codec is lossy.
    """

    path: Path
    name: str
    ticks: tuple[int, ...]
    time_base: Fraction
    size: tuple[int, int]
    is_halved: bool
    is_lossy: bool
    is_in_memory: bool = field(default=False, init=False)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.ticks)

    def read(self, first: int, count: int, box: CropBox) -> FrameRun | None:
        """Decode, from the key frame before ``first``."""
        stored = box.scaled(2) if self.is_halved else box
        start = (self.ticks[first] - self.ticks[0]) * self.time_base
        images: list[Tensor] = []
        try:
            with VideoReader(self.path, start=start or None) as reader:
                for frame in islice(reader, count):
                    if images and frame.begins_shot:
                        return None
                    image = stored.crop(torch.from_numpy(to_8_bits(frame.pixels)))
                    images.append(shrink(image, 0.5) if self.is_halved else image)
        except InputError:
            return None
        is_whole = len(images) == count and not reader.faults.damaged
        return FrameRun(torch.stack(images)) if is_whole else None


@dataclass(frozen=True)
class ImageSource:
    """An image sequence, or one photo.

    Attributes:
        files: In their order.
        name: Its name for the user.
        size: Height and width after reading.
        is_photo: Whether it is read and shrunk by `read_photo`.
    """

    files: tuple[Path, ...]
    name: str
    size: tuple[int, int]
    is_photo: bool
    is_in_memory: bool = field(default=False, init=False)
    is_lossy: bool = field(default=False, init=False)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.files)

    def read(self, first: int, count: int, box: CropBox) -> FrameRun | None:
        """Read each image."""
        wanted = self.files[first : first + count]
        read = read_photo if self.is_photo else _read_image
        try:
            images = [read(file) for file in wanted]
        except InputError:
            return None
        if any(image.shape[-2:] != self.size for image in images):
            return None
        cuts = SceneCutFinder()
        if any(cuts.begins_shot(image.numpy()) for image in images):
            return None
        return FrameRun(torch.stack([box.crop(image) for image in images]))


def read_photo(path: Path) -> Tensor:
    """Read an image as (3, H, W) uint8, shrunk to at most 1.5 `PHOTO_SIDE` on its longer side.

    Raises:
        InputError: If it cannot be read.
    """
    photo = _read_image(path)
    factor = _photo_factor(photo.shape[-2], photo.shape[-1])
    return photo if factor == 1 else shrink(photo, factor)


def find_sources(
    root: Path, files: Iterable[Path], index: FileIndex, *, keeps_size: bool = False
) -> tuple[list[FootageSource], list[SkippedFile]]:
    """Probe files: videos, folders of frames, and photos.

    A folder of images is an image sequence if the first ones are of one size, without a scene cut
    among them; otherwise each of them is a photo.

    Args:
        root: Names are relative to it.
        files: Videos and images.
        index: Cached facts about them.
        keeps_size: Whether no frame is shrunk.

    Returns:
        Sources sorted by name, without file endings; and files that cannot be used.
    """
    sources: list[FootageSource] = []
    skipped: list[SkippedFile] = []
    for name, row in _group_files(root, files, index):
        path = row[0]
        facts = index.facts(path, _probe_video if is_video(path) else _probe_image)
        if "reason" in facts:
            skipped.append(SkippedFile(path, facts["reason"]))
        else:
            sources.append(_source(name, row, facts, keeps_size=keeps_size))
    return sorted(sources, key=lambda source: source.name), skipped


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its name."""
    return path.suffix.lower() in VIDEO_ENDINGS


def _group_files(
    root: Path, files: Iterable[Path], index: FileIndex
) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Names, and the files that belong together: a video, a photo, or an image sequence."""
    folders: dict[Path, list[Path]] = {}
    for file in files:
        if is_video(file):
            yield _name(file.with_suffix(""), root), (file,)
        else:
            folders.setdefault(file.parent, []).append(file)
    for folder, images in folders.items():
        row = tuple(_images(images))
        if len(row) > 1 and index.facts(folder, _probe_folder)["is_sequence"]:
            yield _name(folder, root), row
        else:
            yield from ((_name(file.with_suffix(""), root), (file,)) for file in row)


def _source(name: str, row: tuple[Path, ...], facts: Facts, *, keeps_size: bool) -> FootageSource:
    height, width = facts["size"]
    if is_video(row[0]):
        is_halved = not keeps_size and facts["is_lossy"] and min(height, width) >= HALVED_LINES
        size = (height // 2, width // 2) if is_halved else (height, width)
        ticks, clock = tuple(facts["ticks"]), Fraction(*facts["clock"])
        return VideoSource(row[0], name, ticks, clock, size, is_halved, facts["is_lossy"])
    is_photo = len(row) == 1 and not keeps_size
    factor = _photo_factor(height, width) if is_photo else 1.0
    return ImageSource(row, name, (int(height * factor), int(width * factor)), is_photo)


def _photo_factor(height: int, width: int) -> float:
    return min(1.0, 1.5 * PHOTO_SIDE / max(height, width))


def _probe_video(path: Path) -> Facts:
    try:
        with VideoReader(path) as reader:
            info = reader.info
            if reader.fields.first is not None:
                return {"reason": f"{path} is interlaced; deinterlace it first."}
        table = read_frame_index(path)
    except InputError as error:
        return {"reason": str(error)}
    first = round(info.start / info.time_base)
    return {
        "size": [info.height, info.width],
        "ticks": [ticks for ticks in table.ticks if ticks >= first],
        "clock": [info.time_base.numerator, info.time_base.denominator],
        "is_lossy": table.is_lossy,
    }


def _probe_image(path: Path) -> Facts:
    try:
        info = probe(path)
    except InputError as error:
        return {"reason": str(error)}
    return {"size": [info.height, info.width]}


def _probe_folder(folder: Path) -> Facts:
    """Whether its images are of one size, without a scene cut among them."""
    images = _images(folder.iterdir())[:_IMAGES_PROBED]
    cuts = SceneCutFinder()
    try:
        seen = [_read_image(image) for image in images]
    except InputError:
        return {"is_sequence": False}
    is_sequence = len(seen) > 1 and len({image.shape for image in seen}) == 1
    return {"is_sequence": is_sequence and not any(cuts.begins_shot(p.numpy()) for p in seen)}


def _images(files: Iterable[Path]) -> list[Path]:
    """The images among files, in the order of the numbers in their names."""
    images = (f for f in files if f.suffix.lower() in IMAGE_ENDINGS and f.name[0] != ".")
    return sorted(images, key=by_number)


def _read_image(path: Path) -> Tensor:
    return torch.from_numpy(to_8_bits(read_image(path)))


def _name(path: Path, root: Path) -> str:
    return root.name if path == root else path.relative_to(root).as_posix()
