"""Training footage: everything in a folder, without preparation.

Videos, folders of frames, photos, packs, or LR-HR pairs of any of these in ``lr`` and ``hr``, under
the same names.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from vsrm_cli.data.file_index import FileIndex
from vsrm_cli.data.packs import load_lr_clips, load_pack
from vsrm_cli.data.sources import FootageSource, PairedSource, SkippedFile, StoredFrames
from vsrm_cli.data.training_batch import ClipShape
from vsrm_cli.errors import InputError
from vsrm_cli.files import IMAGE_ENDINGS, VIDEO_ENDINGS, cache_dir, files_below
from vsrm_cli.frame import SCALE

HR_FOLDER, LR_FOLDER = "hr", "lr"
PACK_ENDING = ".safetensors"
# Of LR frames: fewer pixels show nothing.
LEAST_PATCH = 8


@dataclass(frozen=True)
class Footage:
    """Photos and clips.

    Attributes:
        path: The folder or file.
        sources: All of them, sorted by name.
        skipped: What cannot be used.
    """

    path: Path
    sources: tuple[FootageSource, ...]
    skipped: tuple[SkippedFile, ...] = ()

    @property
    def photos(self) -> tuple[FootageSource, ...]:
        """The sources of one frame."""
        return tuple(source for source in self.sources if source.frames == 1)

    @property
    def clips(self) -> tuple[FootageSource, ...]:
        """The sources of several frames."""
        return tuple(source for source in self.sources if source.frames > 1)

    @property
    def is_compressed(self) -> bool:
        """Whether most clips, or their LR frames, are from compressed video."""
        return 2 * sum(clip.is_lossy for clip in self.clips) > len(self.clips)

    def fit(self, shape: ClipShape) -> ClipShape:
        """Make samples smaller or shorter until half of the sources fit.

        Returns:
            The same shape if they fit, otherwise one with a smaller patch or fewer frames.
        """
        patch = _upper_median([min(s.size) // SCALE for s in self.sources], at_most=shape.patch)
        lengths = [source.frames for source in self.clips]
        frames = _upper_median(lengths, at_most=shape.frames) if lengths else shape.frames
        return replace(shape, patch=patch, frames=frames)

    def usable(self, shape: ClipShape) -> "Footage":
        """The footage that is large and long enough for a shape; the rest is skipped."""
        side = SCALE * shape.patch
        fits: list[FootageSource] = []
        skipped = list(self.skipped)
        for source in self.sources:
            height, width = source.size
            if min(source.size) < side:
                reason = f"is too small: {width}x{height} pixels, where patches have {side}."
            elif 1 < source.frames < shape.frames:
                reason = f"is too short: {source.frames} frames, where clips have {shape.frames}."
            else:
                fits.append(source)
                continue
            skipped.append(SkippedFile(self.path / source.name, f"{source.name} {reason}"))
        if not fits:
            raise InputError(
                f"{self.path} holds no photo and no clip of {side} pixels and {shape.frames} "
                f"frames; make the patch smaller or the clips shorter."
            )
        return Footage(self.path, tuple(fits), tuple(skipped))


def _upper_median(values: list[int], *, at_most: int) -> int:
    """The largest number, up to a limit, that at least half of the values reach."""
    return min(at_most, sorted(values)[len(values) // 2])


def open_footage(data: Path, *, index: Path | None = None) -> Footage:
    """Find all footage in a folder and its subfolders, and probe the files that are new.

    Hidden files and folders are skipped. Compressed video of 720 lines and more is halved, and
    photos are shrunk to 1536 pixels, so that the artifacts of their codecs are not learned. Pairs
    are taken as they are.

    Args:
        data: A folder; or one video, photo or pack.
        index: A file that caches facts about files; by default in the user's cache folder.

    Raises:
        InputError: If there is no usable footage, or if the frames of a pair do not match.
    """
    if not data.exists():
        raise InputError(f"{data} does not exist; check the spelling.")
    known = _index(data, index)
    if (data / HR_FOLDER).is_dir() and (data / LR_FOLDER).is_dir():
        sources, skipped = _pairs(data, known)
    else:
        sources, skipped = _sources(data, known)
    known.save()
    large = []
    for source in sources:
        if min(source.size) >= SCALE * LEAST_PATCH:
            large.append(source)
            continue
        reason = f"{source.name} is too small: {source.size[1]}x{source.size[0]} pixels."
        skipped.append(SkippedFile(data / source.name, reason))
    if not large:
        found = f" ({len(skipped)} were skipped, the first: {skipped[0].reason})" if skipped else ""
        raise InputError(
            f"{data} has no usable footage{found}; give a folder of videos, photos, "
            f"folders of frames, or packs."
        )
    return Footage(data, tuple(large), tuple(skipped))


def _index(data: Path, file: Path | None) -> FileIndex:
    name = hashlib.sha256(str(data.absolute()).encode()).hexdigest()[:16]
    return FileIndex(file or cache_dir() / "footage" / f"{name}.json")


def _files(data: Path) -> list[Path]:
    return [data] if data.is_file() else files_below(data)


def _sources(data: Path, index: FileIndex) -> tuple[list[FootageSource], list[SkippedFile]]:
    """All packs, videos, image sequences and photos."""
    files = _files(data)
    root = data if data.is_dir() else data.parent
    sources: list[FootageSource] = []
    skipped: list[SkippedFile] = []
    for pack in (file for file in files if file.suffix.lower() == PACK_ENDING):
        where = "" if pack == data else f"{pack.relative_to(root).with_suffix('').as_posix()}/"
        try:
            sources += load_pack_sources(pack, where)
        except InputError as error:
            skipped.append(SkippedFile(pack, str(error)))
    found, others = _in_files(root, files, index)
    return sources + found, skipped + others


def load_pack_sources(pack: Path, where: str = "") -> list[FootageSource]:
    """The photos, then the clips of a pack, in memory.

    A clip appears once for each of its LR versions.

    Args:
        pack: The file.
        where: Prefix of their names.

    Raises:
        InputError: If the file is no pack, or if LR and HR frames do not match.
    """
    photos, clips = load_pack(pack)
    lr_clips = load_lr_clips(pack)
    stored: list[FootageSource] = []
    for name, photo in photos.items():
        stored.append(StoredFrames(f"{where}photo.{name}", photo[None]))
    for name, clip in clips.items():
        hr = StoredFrames(where + name, clip)
        pairs = [PairedSource(hr, StoredFrames(where + name, lr)) for lr in lr_clips.get(name, ())]
        for pair in pairs:
            _check_pair(pack / name, pair)
        stored += pairs or [hr]
    return stored


def _pairs(data: Path, index: FileIndex) -> tuple[list[FootageSource], list[SkippedFile]]:
    """Sources that are in both folders under the same name."""
    found, skipped = _in_files(data / HR_FOLDER, None, index, keeps_size=True)
    others, more_skipped = _in_files(data / LR_FOLDER, None, index, keeps_size=True)
    hr, lr = ({source.name: source for source in side} for side in (found, others))
    for name in sorted(hr.keys() ^ lr.keys()):
        here, there = (HR_FOLDER, LR_FOLDER)[:: 1 if name in hr else -1]
        reason = f"{here}/{name} has no counterpart in {there}/."
        skipped.append(SkippedFile(data / here / name, reason))
    pairs: list[FootageSource] = []
    for name in sorted(hr.keys() & lr.keys()):
        pairs.append(PairedSource(hr[name], lr[name]))
        _check_pair(data / HR_FOLDER / name, PairedSource(hr[name], lr[name]))
    return pairs, skipped + more_skipped


def _check_pair(path: Path, pair: PairedSource) -> None:
    """Make sure that LR and HR frames match.

    Raises:
        InputError: If their numbers differ, or the HR frames are not four times as large.
    """
    hr, lr = pair.hr, pair.lr
    if hr.frames != lr.frames:
        raise InputError(
            f"{path} has {hr.frames} frames, but its LR version has {lr.frames}; both need "
            f"the same number."
        )
    if hr.size != (SCALE * lr.size[0], SCALE * lr.size[1]):
        raise InputError(
            f"{path} has {hr.size[1]}x{hr.size[0]} pixels, but its LR version has "
            f"{lr.size[1]}x{lr.size[0]}; it must be four times smaller."
        )


def _in_files(
    root: Path, files: list[Path] | None, index: FileIndex, *, keeps_size: bool = False
) -> tuple[list[FootageSource], list[SkippedFile]]:
    """Sources in videos and images; PyAV is needed only if there are any."""
    media = [
        file
        for file in (_files(root) if files is None else files)
        if file.suffix.lower() in IMAGE_ENDINGS | VIDEO_ENDINGS
    ]
    if not media:
        return [], []
    try:
        # Imported here, since training from packs works without PyAV.
        from vsrm_cli.data.file_sources import find_sources
    except ImportError as error:
        raise InputError(
            f"Reading {media[0]} needs PyAV, which is not installed; install it, or give packs."
        ) from error
    return find_sources(root, media, index, keeps_size=keeps_size)
