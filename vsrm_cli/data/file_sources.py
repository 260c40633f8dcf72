"""Clips and photos in files: found, looked at once, and read from any frame on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from vsrm_cli.data.file_index import Facts, Index
from vsrm_cli.data.packs import shrink
from vsrm_cli.data.sources import (
    PHOTO_ENDINGS,
    VIDEO_ENDINGS,
    Run,
    Skipped,
    Source,
    Window,
    to_8_bits,
)
from vsrm_cli.decode.frame_index import read_frame_index
from vsrm_cli.decode.image_sequence import by_number, read_image
from vsrm_cli.decode.scene_cuts import SceneCutFinder
from vsrm_cli.decode.video import VideoReader
from vsrm_cli.errors import InputError
from vsrm_cli.media.probe import probe

# The longer side of a photo becomes at most 1.5 times this.
PHOTO_SIDE = 1024
# Compressed video is halved from this many lines on: half of a 720p film shows its codec no more.
HALVED_LINES = 720
# So many pictures of a folder are looked at to tell a film from a collection of photos.
_LOOKED_AT = 4


@dataclass(frozen=True)
class Video:
    """A video file.

    Attributes:
        path: Where it lies.
        name: What a user calls it.
        ticks: When its frames are shown, in units of ``time_base``.
        time_base: In seconds.
        size: Height and width of what is read.
        is_halved: Whether frames are shrunk to half of their size.
        is_lossy: Whether its codec loses something.
    """

    path: Path
    name: str
    ticks: tuple[int, ...]
    time_base: Fraction
    size: tuple[int, int]
    is_halved: bool
    is_lossy: bool

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.ticks)

    @property
    def is_in_memory(self) -> bool:
        """It is in a file."""
        return False

    def read(self, first: int, count: int, window: Window) -> Run | None:
        """Decode from the key frame before ``first`` on."""
        stored = window.times(2) if self.is_halved else window
        start = (self.ticks[first] - self.ticks[0]) * self.time_base
        pictures: list[Tensor] = []
        try:
            with VideoReader(self.path, start=start or None) as reader:
                for frame in islice(reader, count):
                    if pictures and frame.begins_shot:
                        return None
                    picture = to_8_bits(stored.of(torch.from_numpy(frame.pixels)))
                    pictures.append(shrink(picture, 0.5) if self.is_halved else picture)
        except InputError:
            return None
        is_whole = len(pictures) == count and not reader.damaged_packets
        return Run(torch.stack(pictures)) if is_whole else None


@dataclass(frozen=True)
class Pictures:
    """A film of picture files, or one photo.

    Attributes:
        files: In their order.
        name: What a user calls it.
        size: Height and width of what is read.
        is_photo: Whether it is shrunk as `read_photo` does it.
    """

    files: tuple[Path, ...]
    name: str
    size: tuple[int, int]
    is_photo: bool

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.files)

    @property
    def is_in_memory(self) -> bool:
        """It is in files."""
        return False

    def read(self, first: int, count: int, window: Window) -> Run | None:
        """Read each picture."""
        wanted = self.files[first : first + count]
        read = read_photo if self.is_photo else _read_picture
        try:
            pictures = [read(file) for file in wanted]
        except InputError:
            return None
        if any(picture.shape[-2:] != self.size for picture in pictures):
            return None
        cuts = SceneCutFinder()
        if any(cuts.begins_shot(picture.numpy()) for picture in pictures):
            return None
        return Run(torch.stack([window.of(picture) for picture in pictures]))


def read_photo(path: Path) -> Tensor:
    """Read a picture as (3, H, W) uint8, shrunk to at most 1.5 `PHOTO_SIDE` on its longer side.

    Raises:
        InputError: If it cannot be read.
    """
    photo = _read_picture(path)
    factor = _photo_factor(photo.shape[-2], photo.shape[-1])
    return photo if factor == 1 else shrink(photo, factor)


def find_sources(
    root: Path, files: Iterable[Path], index: Index, *, as_they_are: bool = False
) -> tuple[list[Source], list[Skipped]]:
    """Look at files: videos, folders of frames, and photos.

    A folder of pictures is a film if those that come first are of one size and follow each other
    without a cut; otherwise each of them is a photo.

    Args:
        root: Names begin below it.
        files: Videos and pictures.
        index: What is known of them already.
        as_they_are: Whether nothing may be shrunk.

    Returns:
        Sources in the order of their names, which have no endings, and what cannot be used.
    """
    sources: list[Source] = []
    skipped: list[Skipped] = []
    for name, row in _films(root, files, index):
        path = row[0]
        facts = index.facts(path, _look_at_video if is_video(path) else _look_at_picture)
        if "why" in facts:
            skipped.append(Skipped(path, facts["why"]))
        else:
            sources.append(_source(name, row, facts, as_they_are=as_they_are))
    return sorted(sources, key=lambda source: source.name), skipped


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its name."""
    return path.suffix.lower() in VIDEO_ENDINGS


def _films(
    root: Path, files: Iterable[Path], index: Index
) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Names, and the files that belong together: one video, one photo, or the frames of a film."""
    folders: dict[Path, list[Path]] = {}
    for file in files:
        if is_video(file):
            yield _name(file.with_suffix(""), root), (file,)
        else:
            folders.setdefault(file.parent, []).append(file)
    for folder, pictures in folders.items():
        row = tuple(_pictures(pictures))
        if len(row) > 1 and index.facts(folder, _look_at_folder)["is_film"]:
            yield _name(folder, root), row
        else:
            yield from ((_name(file.with_suffix(""), root), (file,)) for file in row)


def _source(name: str, row: tuple[Path, ...], facts: Facts, *, as_they_are: bool) -> Source:
    height, width = facts["size"]
    if is_video(row[0]):
        is_halved = not as_they_are and facts["is_lossy"] and min(height, width) >= HALVED_LINES
        size = (height // 2, width // 2) if is_halved else (height, width)
        ticks, clock = tuple(facts["ticks"]), Fraction(*facts["clock"])
        return Video(row[0], name, ticks, clock, size, is_halved, facts["is_lossy"])
    is_photo = len(row) == 1 and not as_they_are
    factor = _photo_factor(height, width) if is_photo else 1.0
    return Pictures(row, name, (int(height * factor), int(width * factor)), is_photo)


def _photo_factor(height: int, width: int) -> float:
    return min(1.0, 1.5 * PHOTO_SIDE / max(height, width))


def _look_at_video(path: Path) -> Facts:
    try:
        with VideoReader(path) as reader:
            info = reader.info
            if reader.fields.first is not None:
                return {"why": f"{path} is interlaced; deinterlace it first."}
        table = read_frame_index(path)
    except InputError as error:
        return {"why": str(error)}
    first = round(info.start / info.time_base)
    return {
        "size": [info.height, info.width],
        "ticks": [ticks for ticks in table.ticks if ticks >= first],
        "clock": [info.time_base.numerator, info.time_base.denominator],
        "is_lossy": table.is_lossy,
    }


def _look_at_picture(path: Path) -> Facts:
    try:
        info = probe(path)
    except InputError as error:
        return {"why": str(error)}
    return {"size": [info.height, info.width]}


def _look_at_folder(folder: Path) -> Facts:
    """Whether its pictures are of one size, and each resembles the one before it."""
    pictures = _pictures(folder.iterdir())[:_LOOKED_AT]
    cuts = SceneCutFinder()
    try:
        seen = [_read_picture(picture) for picture in pictures]
    except InputError:
        return {"is_film": False}
    is_film = len(seen) > 1 and len({picture.shape for picture in seen}) == 1
    return {"is_film": is_film and not any(cuts.begins_shot(p.numpy()) for p in seen)}


def _pictures(files: Iterable[Path]) -> list[Path]:
    """The pictures among files, in the order of the numbers in their names."""
    pictures = (f for f in files if f.suffix.lower() in PHOTO_ENDINGS and f.name[0] != ".")
    return sorted(pictures, key=by_number)


def _read_picture(path: Path) -> Tensor:
    return to_8_bits(torch.from_numpy(read_image(path)))


def _name(path: Path, root: Path) -> str:
    return root.name if path == root else path.relative_to(root).as_posix()
