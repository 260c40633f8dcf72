"""Test clips: HR frames, their LR frames, and how known test sets are measured.

A folder contains HR clips, each a folder of images or a video, which are degraded here. Or it
contains HR clips in ``GT`` and LR clips in ``LR`` (or ``BIx4``, ``BDx4``, ``sharp_bicubic``), like
the test sets of the literature.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from vsrm_cli.data.degradations import blur_and_subsample, shrink_bicubic
from vsrm_cli.decode.image_sequence import by_number
from vsrm_cli.decode.video import VideoReader
from vsrm_cli.encode.roundtrip import encode_and_decode
from vsrm_cli.errors import InputError, UsageError
from vsrm_cli.files import IMAGE_ENDINGS, VIDEO_ENDINGS, files_below, files_in
from vsrm_cli.frame import SCALE, to_8_bits

HR_FOLDERS = ("GT", "target")
LR_FOLDERS: dict[str, tuple[str, ...]] = {
    "bi": ("BIx{scale}", "sharp_bicubic", "LR", "low_resolution"),
    "bd": ("BDx{scale}", "LR", "low_resolution"),
}
# A codec and a quality on its encoder's own scale, such as h264-28. Made here always: test sets
# have no compressed LR clips.
_COMPRESSED = re.compile(r"(h264|hevc|vp9|mpeg4|mpeg2)-(\d+)")
_WORST_QUALITIES = {"h264": 51, "hevc": 51, "vp9": 63, "mpeg4": 31, "mpeg2": 31}
SMALLEST_SIDE = 16  # of HR frames: SSIM has a window of 11 pixels


@dataclass(frozen=True)
class EvaluationProtocol:
    """How a test set is measured in the literature.

    Attributes:
        name: Of the set; empty if unknown.
        on_luma: Luma instead of RGB.
        center_only: Whether only the middle frame of each clip is measured.
    """

    name: str
    on_luma: bool
    center_only: bool


_REDS4 = EvaluationProtocol("REDS4", on_luma=False, center_only=False)
_VID4 = EvaluationProtocol("Vid4", on_luma=True, center_only=False)
_UDM10 = EvaluationProtocol("UDM10", on_luma=True, center_only=False)
_BY_CLIPS = {
    "000 011 015 020": _REDS4,
    "calendar city foliage walk": _VID4,
    "archpeople archwall auditorium band caffe camera clap lake photography polyflow": _UDM10,
}
# BasicVSR's author: PSNR and SSIM count for the 4th of 7 frames (BasicVSR-IconVSR issue 12).
_VIMEO = EvaluationProtocol("Vimeo-90K-T", on_luma=True, center_only=True)
_VIMEO_CLIP = re.compile(r"\d{5}/\d{4}")
_UNKNOWN = EvaluationProtocol("", on_luma=True, center_only=False)


@dataclass(frozen=True)
class ClipFiles:
    """Paths of a clip: folders of images, or videos.

    Attributes:
        name: Its path below the folder of the set.
        hr: The HR frames.
        lr: The LR frames; None if they are made here.
    """

    name: str
    hr: Path
    lr: Path | None


@dataclass(frozen=True)
class ClipSet:
    """The clips of a folder.

    Attributes:
        clips: Sorted by name.
        protocol: How they are measured.
        has_lr: Whether the set contains LR frames.
    """

    clips: tuple[ClipFiles, ...]
    protocol: EvaluationProtocol
    has_lr: bool


@dataclass(frozen=True)
class EvaluationClip:
    """A clip in memory.

    Attributes:
        name: Its name.
        hr: The ground truth, (T, 3, scale H, scale W) uint8.
        lr: The LR frames, (T, 3, H, W) uint8.
        note: For the user, such as a crop; empty if there is none.
    """

    name: str
    hr: Tensor
    lr: Tensor
    note: str

    @property
    def scale(self) -> int:
        """The ratio of HR to LR size."""
        return self.hr.shape[-1] // self.lr.shape[-1]


def check_degradation(degradation: str, scale: int = SCALE) -> None:
    """Check that a degradation exists for a scale.

    Raises:
        UsageError: If it does not.
    """
    if degradation == "bd" and scale != SCALE:
        raise UsageError(
            f'The degradation "bd" is for networks that upscale {SCALE} times, not {scale} times; '
            "use bi."
        )
    if degradation in LR_FOLDERS:
        return
    compression = _COMPRESSED.fullmatch(degradation)
    if compression is None:
        raise UsageError(
            f"The degradation must be {', '.join(LR_FOLDERS)}, or a codec and its quality such "
            f'as h264-28, hevc-30, vp9-40, mpeg4-6 or mpeg2-6, not "{degradation}".'
        )
    codec, quality = compression[1], int(compression[2])
    if quality > _WORST_QUALITIES[codec]:
        raise UsageError(
            f"The quality of {codec} goes to {_WORST_QUALITIES[codec]}, so there is no "
            f'degradation "{degradation}".'
        )


def find_clips(folder: Path, degradation: str, *, scale: int = SCALE) -> ClipSet:
    """List the clips of a folder, and recognize a known test set by their names.

    Args:
        folder: As the module describes it; also one folder of images, or one video.
        degradation: As in `make_lr_clip`: which LR clips to use.
        scale: How many times smaller the LR frames are.

    Raises:
        InputError: If there is no clip in it.
    """
    if not folder.exists():
        raise InputError(f"{folder} does not exist; check the spelling.")
    hr_root = next((folder / n for n in HR_FOLDERS if (folder / n).is_dir()), folder)
    names = [name.format(scale=scale) for name in LR_FOLDERS.get(degradation, ())]
    lr_root = next((folder / name for name in names if (folder / name).is_dir()), None)
    if lr_root is not None and hr_root == folder:
        raise InputError(f"{folder} holds {lr_root.name} but no GT; put the HR clips there.")
    lr = _clips_below(lr_root) if lr_root is not None else {}
    clips = tuple(
        # A missing LR clip is reported when the clip is read, so that the rest is measured.
        ClipFiles(name, path, lr.get(name, lr_root / name) if lr_root else None)
        for name, path in _clips_below(hr_root).items()
    )
    if not clips:
        raise InputError(
            f"{folder} holds no clip; give a folder of videos, or with a folder of images for "
            "each clip."
        )
    return ClipSet(clips, _protocol_for({clip.name for clip in clips}), lr_root is not None)


def _clips_below(root: Path) -> dict[str, Path]:
    """Folders of images and videos by name, sorted."""
    if root.is_file():
        return {root.stem: root}
    found: dict[str, Path] = {}
    for path in files_below(root):
        ending = path.suffix.lower()
        if ending in IMAGE_ENDINGS:
            below = path.parent.relative_to(root).as_posix()
            found[root.name if below == "." else below] = path.parent
        elif ending in VIDEO_ENDINGS:
            found[path.relative_to(root).with_suffix("").as_posix()] = path
    return found


def _protocol_for(names: set[str]) -> EvaluationProtocol:
    if all(_VIMEO_CLIP.fullmatch(name) for name in names):
        return _VIMEO
    return _BY_CLIPS.get(" ".join(sorted(name.lower() for name in names)), _UNKNOWN)


def read_clip(
    files: ClipFiles, degradation: str, *, scale: int = SCALE, most_frames: int | None = None
) -> EvaluationClip:
    """Read a clip, and make its LR frames if there are none.

    Args:
        files: Its paths.
        degradation: As in `make_lr_clip`, for LR frames that are made here.
        scale: How many times smaller the LR frames are.
        most_frames: Maximum number of frames; None for all.

    Raises:
        InputError: If a file cannot be read, or LR and HR frames do not match; names the clip.
    """
    hr = _read_frames(files.name, files.hr, most_frames)
    height, width = (side - side % scale for side in hr.shape[-2:])
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(f"clip {files.name} has frames of {width}x{height} pixels, too small.")
    note = ""
    if (height, width) != tuple(hr.shape[-2:]):
        before = f"{hr.shape[-1]}x{hr.shape[-2]}"
        note = f"clip {files.name} was cropped from {before} to {width}x{height} pixels"
        hr = hr[..., :height, :width].contiguous()
    if files.lr is None:
        return EvaluationClip(files.name, hr, make_lr_clip(hr, degradation, scale), note)
    if not files.lr.exists():
        raise InputError(f"clip {files.name} has no LR version {files.lr}.")
    lr = _read_frames(files.name, files.lr, most_frames)
    if len(lr) != len(hr):
        raise InputError(f"clip {files.name} has {len(hr)} HR frames, but {len(lr)} LR frames.")
    if tuple(lr.shape[-2:]) != (height // scale, width // scale):
        raise InputError(
            f"clip {files.name} has HR frames of {width}x{height}, but LR frames of "
            f"{lr.shape[-1]}x{lr.shape[-2]} pixels, not 1/{scale} of that."
        )
    return EvaluationClip(files.name, hr, lr, note)


def read_upscaled_clip(
    method: str, root: Path, clip: EvaluationClip, *, most_frames: int | None = None
) -> Tensor:
    """Read the result of another program for a clip.

    Args:
        method: Name of the program.
        root: A folder with a video or a folder of images of the clip's name; or the video or
            the images of the only clip.
        clip: The clip.
        most_frames: Maximum number of frames; None for all.

    Returns:
        Shaped like the ground truth, uint8.

    Raises:
        InputError: If there is nothing of that name, or frames differ in number or size.
    """
    found = _clips_below(root)
    only = next(iter(found.values())) if len(found) == 1 else None
    path = found.get(clip.name, only)
    if path is None:
        raise InputError(f"{method}: {root} holds no clip {clip.name}.")
    frames = _read_frames(clip.name, path, most_frames)
    if len(frames) != len(clip.hr):
        raise InputError(
            f"{method}: clip {clip.name} has {len(frames)} frames in {path}, but the ground truth "
            f"has {len(clip.hr)}."
        )
    height, width = clip.hr.shape[-2:]
    # The ground truth may have been cropped to a multiple of the scale.
    more_rows, more_columns = frames.shape[-2] - height, frames.shape[-1] - width
    if not (0 <= more_rows < clip.scale and 0 <= more_columns < clip.scale):
        raise InputError(
            f"{method}: clip {clip.name} has frames of {frames.shape[-1]}x{frames.shape[-2]} in "
            f"{path}, but the ground truth has {width}x{height}."
        )
    return frames[..., :height, :width].contiguous()


def _read_frames(name: str, path: Path, most_frames: int | None) -> Tensor:
    """All frames of a folder of images or of a video, (T, 3, H, W) uint8."""
    if path.is_dir():
        images = (p for p in files_in(path) if p.suffix.lower() in IMAGE_ENDINGS)
        paths: Iterable[Path] = sorted(images, key=by_number)
    else:
        paths = [path]
    frames: list[Tensor] = []
    for file in paths:
        with VideoReader(file) as reader:
            left = None if most_frames is None else most_frames - len(frames)
            for frame in islice(reader, left):
                frames.append(torch.from_numpy(to_8_bits(frame.pixels).copy()))
    if not frames:
        raise InputError(f"clip {name} has no frames in {path}.")
    if len({frame.shape for frame in frames}) > 1:
        raise InputError(f"clip {name} has frames of different sizes in {path}.")
    return torch.stack(frames)


def make_lr_clip(hr: Tensor, degradation: str, scale: int = SCALE) -> Tensor:
    """Make LR frames by BI or BD of the literature, or by BI and compression.

    Args:
        hr: (T, 3, H, W) uint8, sides multiples of the scale.
        degradation: "bi": `shrink_bicubic`. "bd": `blur_and_subsample`. A codec and a quality, such
            as "h264-28": BI, then that codec at that quality, with preset medium.
        scale: How many times smaller; 4 for "bd".

    Returns:
        (T, 3, H/scale, W/scale) uint8.
    """
    shrink = blur_and_subsample if degradation == "bd" else partial(shrink_bicubic, scale=scale)
    # One frame at a time, since a long clip needs too much memory as float32.
    lr = torch.stack([shrink(frame.float() / 255) for frame in hr])
    frames = (lr * 255).round().to(torch.uint8)
    compression = _COMPRESSED.fullmatch(degradation)
    if compression is None:
        return frames
    codec, quality = compression[1], int(compression[2])
    return torch.from_numpy(encode_and_decode(frames.numpy(), codec, crf=quality, preset="medium"))
