"""Choose places of a video for a preview: spread out, in motion, not black, in different scenes.

Only a few frames are decoded, after seeking, so long videos take little more time than short ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from vsrm_cli.decode.scene_cuts import SceneCutFinder
from vsrm_cli.errors import InputError
from vsrm_cli.frame import Frame

# Reads frames from a time on, in seconds after the first frame.
Read = Callable[[Fraction], Iterator[Frame]]

# Positions to try within each part of the video.
_OFFSETS = tuple(Fraction(n, 8) for n in (4, 2, 6, 1, 5))
# Read this many times the frames of a place to find enough of them without a cut.
_READ_FACTOR = 3
# Levels of 255: almost all of a black frame is darker; a flat one has a smaller deviation.
_MAX_BLACK, _MIN_CONTRAST = 32, 3
# There is motion if the means of this fraction of blocks, of this side in pixels, change by this
# many levels of 255. Noise averages out in the means.
_MIN_MOVING, _BLOCK, _MIN_CHANGE = 0.01, 8, 2


@dataclass(frozen=True)
class _Candidate:
    """A few frames from a time on: the first one, and their properties."""

    time: Fraction
    part: int
    first: Frame
    is_plain: bool
    is_still: bool


def find_places(
    read: Read, duration: Fraction, *, start: Fraction, count: int, frames: int
) -> list[Fraction]:
    """Find the times of up to ``count`` places, increasing, in seconds after the first frame.

    There are fewer if the video has fewer scenes. Without any motion, still places are taken; if
    no place has ``frames`` frames, or all are black, the beginning.

    Args:
        read: Reads frames from a time on.
        duration: Of the video, in seconds.
        start: The time of the first frame on the clock of the file, in seconds.
        count: How many places to find.
        frames: Frames of each place, without a scene cut between them.
    """
    # From the middle outward: titles are at the beginning and at the end.
    parts = sorted(range(count), key=lambda part: abs(2 * part + 1 - count))
    times = [((part + offset) * duration / count, part) for offset in _OFFSETS for part in parts]
    seen_at: dict[Fraction, _Candidate | None] = {}
    chosen: list[_Candidate] = []
    for is_one_each in (True, False):
        for time, part in times:
            is_taken = is_one_each and any(sample.part == part for sample in chosen)
            if len(chosen) == count or time in seen_at or is_taken:
                continue
            sample = seen_at[time] = _sample_at(read, time, part, start=start, frames=frames)
            if (
                sample
                and not (sample.is_plain or sample.is_still)
                and _is_new_scene(sample, chosen)
            ):
                chosen.append(sample)
    if not chosen:
        for sample in filter(None, seen_at.values()):
            if len(chosen) < count and not sample.is_plain and _is_new_scene(sample, chosen):
                chosen.append(sample)
    return sorted(sample.time for sample in chosen) or [Fraction(0)]


def _sample_at(
    read: Read, time: Fraction, part: int, *, start: Fraction, frames: int
) -> _Candidate | None:
    """Read some frames of one shot; None if there are not enough."""
    seen: list[Frame] = []
    try:
        for frame in islice(read(time), _READ_FACTOR * frames):
            seen = [frame] if frame.begins_shot else [*seen, frame]
            if len(seen) == frames:
                break
    except InputError:  # the video is shorter than its header says, or damaged here
        return None
    if len(seen) < frames:
        return None
    first, last = _gray_levels(seen[0]), _gray_levels(seen[-1])
    is_plain = bool(np.percentile(first, 99) < _MAX_BLACK or first.std() < _MIN_CONTRAST)
    change = np.abs(_block_means(last) - _block_means(first))
    is_still = bool((change > _MIN_CHANGE).mean() < _MIN_MOVING)
    return _Candidate(seen[0].time - start, part, seen[0], is_plain, is_still)


def _gray_levels(frame: Frame) -> NDArray[np.float64]:
    """The mean of R, G and B in levels of 255, (H, W)."""
    gray: NDArray[np.float64] = frame.pixels.mean(0) * (255 / np.iinfo(frame.pixels.dtype).max)
    return gray


def _block_means(gray: NDArray[np.float64]) -> NDArray[np.float64]:
    block = min(_BLOCK, *gray.shape)
    height, width = (side // block for side in gray.shape)
    inside = gray[: height * block, : width * block]
    means: NDArray[np.float64] = inside.reshape(height, block, width, block).mean((1, 3))
    return means


def _is_new_scene(sample: _Candidate, others: list[_Candidate]) -> bool:
    """Whether a place differs from each of the others by a scene cut."""
    for other in others:
        cuts = SceneCutFinder()
        cuts.begins_shot(other.first.pixels)
        if not cuts.begins_shot(sample.first.pixels):
            return False
    return True
