"""The frames of a place in the video: those shown, and context frames for the network.

Large frames are cropped to the part with most detail, so that a preview takes minutes.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch

from vsrm_cli.errors import InputError
from vsrm_cli.evaluation.quality import find_densest_box
from vsrm_cli.frame import Frame, Pixels, to_8_bits
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.preview.places import Read

# Frames that are shown, and context frames before and after them, for the network only.
FRAMES_SHOWN, CONTEXT = 8, 4
# Frames with more pixels are cropped to this height and width (after rotation), plus a margin for
# the network only.
_WHOLE_PIXELS, _PART, _MARGIN = 102_400, (180, 320), 16
# The approximate longer side of the overview.
_OVERVIEW_PIXELS = 240


@dataclass(frozen=True)
class PreviewClip:
    """The frames of a place.

    Attributes:
        time: Of the first frame shown on the page, in seconds after the first of the video.
        frames: Input of the network, cropped with a margin.
        shown: Which of them the page shows.
        inside: Rows and columns of the crop without its margin.
        overview: A thumbnail of the whole frame with the crop marked, (3, H, W) uint8; None without
            a crop.
    """

    time: Fraction
    frames: Sequence[Frame]
    shown: slice
    inside: tuple[slice, slice]
    overview: Pixels | None


def read_preview_clip(
    read: Read, time: Fraction, *, info: VideoInfo, step: Fraction
) -> PreviewClip:
    """Read the frames of a place.

    Args:
        read: Reads frames from a time on.
        time: The first frame at this time or later is the first one shown.
        info: The video.
        step: Approximate seconds from frame to frame.

    Raises:
        InputError: If no frame is shown at that time or later.
    """
    before: deque[Frame] = deque(maxlen=CONTEXT)
    rest: list[Frame] = []
    try:
        for frame in read(max(Fraction(0), time - CONTEXT * step)):
            (before if frame.time - info.start < time else rest).append(frame)
            if len(rest) == FRAMES_SHOWN + CONTEXT:
                break
    except InputError:
        if time == 0:
            raise
    if not rest:
        length = "" if info.duration is None else f" of {float(info.duration):.3f} s"
        raise InputError(
            f"No frame of {info.path}{length} is shown at {float(time):g} s or later; give an "
            "earlier --at."
        )
    shown = slice(len(before), len(before) + min(FRAMES_SHOWN, len(rest)))
    frames = [*before, *rest]
    middle = to_8_bits(frames[(shown.start + shown.stop) // 2].pixels)
    box = _part_with_most_detail(middle)
    outer = tuple(slice(max(0, x.start - _MARGIN), x.stop + _MARGIN) for x in box)
    inside = tuple(
        slice(x.start - y.start, x.stop - y.start) for x, y in zip(box, outer, strict=True)
    )
    is_whole = (box[0].stop, box[1].stop) == middle.shape[1:] and not box[0].start + box[1].start
    return PreviewClip(
        time=rest[0].time - info.start,
        # Copies, so that the whole frames do not stay in memory.
        frames=[
            replace(frame, pixels=frame.pixels[:, outer[0], outer[1]].copy()) for frame in frames
        ],
        shown=shown,
        inside=(inside[0], inside[1]),
        overview=None if is_whole else _overview(middle, box),
    )


def _part_with_most_detail(frame: Pixels) -> tuple[slice, slice]:
    """Rows and columns of the crop."""
    height, width = frame.shape[1:]
    if height * width <= _WHOLE_PIXELS:
        return slice(0, height), slice(0, width)
    lines, columns = sorted(_PART, reverse=height > width)
    lines, columns = min(lines, height), min(columns, width)
    luma = torch.from_numpy(frame).float().mean(0)
    detail = torch.zeros_like(luma)
    detail[1:] += luma.diff(dim=0).abs()
    detail[:, 1:] += luma.diff(dim=1).abs()
    top, left, _ = find_densest_box(detail, height=lines, width=columns)
    return slice(top, top + lines), slice(left, left + columns)


def _overview(frame: Pixels, box: tuple[slice, slice]) -> Pixels:
    """A thumbnail with a white line around a part."""
    step = max(1, round(max(frame.shape[1:]) / _OVERVIEW_PIXELS))
    height, width = (side // step for side in frame.shape[1:])
    blocks = frame[:, : height * step, : width * step].reshape(3, height, step, width, step)
    small: Pixels = blocks.mean((2, 4)).round().astype(np.uint8)
    top, bottom, left, right = (
        min(place // step, side - 1)
        for part, side in zip(box, (height, width), strict=True)
        for place in (part.start, part.stop)
    )
    small[:, [top, bottom], left : right + 1] = 255
    small[:, top : bottom + 1, [left, right]] = 255
    return small
