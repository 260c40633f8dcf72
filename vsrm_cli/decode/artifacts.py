"""Detect artifacts of earlier compression in frames, whatever codec the file has now.

Frames of a lossless codec, an image file or a pipe may have been compressed before, reduced to a
palette, or recorded in the dark. They need another network than clean footage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vsrm_cli.frame import LUMA_WEIGHTS, Pixels, to_8_bits
from vsrm_cli.media.color import ToRgb, color_of
from vsrm_cli.media.containers import open_container, video_stream

# Consecutive frames that are examined, at the start of a file and after a third of it.
_FRAMES = 3
# Blocks of JPEG and of most video codecs have this size, or a multiple of it.
_BLOCK = 8
# Steps at the edges of blocks, against those elsewhere. Eleven clean clips (DAVIS, halved) have
# 1.025 at most; encoded by x264 at crf 28 they have 1.05 and more, as JPEG of quality 90 1.055.
# HEVC filters the edges of its blocks so well that it is not detected.
_LEAST_BLOCKING = 1.04
# The same for frames that were cropped afterwards: any of eight grids may be the one. Those clips
# have 1.11 at most, and as JPEG of quality 75 1.14 and more.
_LEAST_BLOCKING_CROPPED = 1.13
# Chance alone makes one of eight grids stand out where there are few blocks.
_LEAST_SIDE_CROPPED = 96
# A palette has no more colors. Of the pixels of a photo reduced to one, 9 % and more stand alone
# between equal neighbors; 30 % and more where it is dithered.
_MOST_COLORS = 256
_LEAST_LONELY = 0.05
# Standard deviation in levels of 255. The same clips have 2.1 at most; with noise of 5 added, 2.9
# and more.
_LEAST_NOISE = 2.6
# Smaller frames are not examined.
_LEAST_SIDE = 32
# A step of more is an edge of the scene.
_LARGEST_STEP = 20
_LUMA = np.array(LUMA_WEIGHTS, np.float32)

_Plane = NDArray[np.float32]


def find_artifacts(paths: Sequence[Path]) -> str | None:
    """Look for traces of compression, of a palette, or of noise in some frames.

    Args:
        paths: A video; or image files.

    Returns:
        What is seen, as a clause such as "the frames are noisy"; None for clean frames.
    """
    frames = [frame for path in paths for frame in _frames_of(path)]
    frames = [frame for frame in frames if min(frame.shape[1:]) >= _LEAST_SIDE]
    if not frames:
        return None
    is_gray = all((frame == frame[0]).all() for frame in frames)
    if not is_gray and max(_distinct_colors(frame) for frame in frames) <= _MOST_COLORS:
        is_reduced = max(_lonely_share(frame) for frame in frames) > _LEAST_LONELY
        return "the frames are reduced to a palette" if is_reduced else None
    lumas = [np.tensordot(_LUMA, frame.astype(np.float32), 1) for frame in frames]
    is_cropped = _find_grid(lumas) > _LEAST_BLOCKING_CROPPED
    if is_cropped or measure_blocking(lumas) > _LEAST_BLOCKING:
        return "the frames show the blocks of an earlier compression"
    if max(measure_noise(luma) for luma in lumas) > _LEAST_NOISE:
        return "the frames are noisy"
    return None


def measure_blocking(lumas: Sequence[_Plane]) -> float:
    """How much larger steps between pixels are at multiples of 8 than elsewhere; 1 for equal ones.

    Args:
        lumas: Frames, each (H, W), 0 to 255.
    """
    return float(np.mean([_ratios(way, np.mean)[0] for way in _both_ways(lumas)]))


def _find_grid(lumas: Sequence[_Plane]) -> float:
    """The same for the clearest of all eight grids, in the direction that shows less of it."""
    if min(min(luma.shape) for luma in lumas) < _LEAST_SIDE_CROPPED:
        return 1.0
    # Medians, because a single edge of the scene makes one grid stand out.
    return min(float(_ratios(way, np.median).max()) for way in _both_ways(lumas))


def _both_ways(lumas: Sequence[_Plane]) -> list[list[_Plane]]:
    return [list(lumas), [luma.T for luma in lumas]]


def _ratios(lumas: Sequence[_Plane], average: Callable[[_Plane], Any]) -> NDArray[np.float64]:
    """Average steps before every eighth column against those elsewhere, of all eight grids."""
    steps = np.zeros(_BLOCK)
    for luma in lumas:
        a, b, c, d = luma[:, :-3], luma[:, 1:-2], luma[:, 2:-1], luma[:, 3:]
        # What remains of a step where the slope on both sides is taken off.
        step = np.minimum(np.abs((c - b) - ((b - a) + (d - c)) / 2), _LARGEST_STEP).mean(0)
        for place in range(_BLOCK):
            steps[(place + 2) % _BLOCK] += average(step[place::_BLOCK])
    elsewhere = (steps.sum() - steps) / (_BLOCK - 1)
    ratios: NDArray[np.float64] = np.ones(_BLOCK)
    np.divide(steps, elsewhere, out=ratios, where=elsewhere > 0)
    return ratios


def measure_noise(luma: _Plane) -> float:
    """Standard deviation of the noise of a frame, in the flattest tenth of it.

    Source: Immerkaer, "Fast Noise Variance Estimation" (1996), within blocks.

    Args:
        luma: (H, W), 0 to 255.
    """
    rows = luma[:-2] - 2 * luma[1:-1] + luma[2:]
    both = np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])
    height, width = (side // _BLOCK for side in both.shape)
    inside = both[: height * _BLOCK, : width * _BLOCK]
    blocks = inside.reshape(height, _BLOCK, width, _BLOCK).mean((1, 3))
    return float(np.percentile(blocks, 10) * np.sqrt(np.pi / 2) / 6) if blocks.size else 0.0


def _distinct_colors(frame: Pixels) -> int:
    return len(np.unique(_packed(frame)))


def _lonely_share(frame: Pixels) -> float:
    """The share of pixels that differ from two equal neighbors on opposite sides."""
    packed = _packed(frame)
    here, left, right = packed[1:-1, 1:-1], packed[1:-1, :-2], packed[1:-1, 2:]
    above, below = packed[:-2, 1:-1], packed[2:, 1:-1]
    differs_across = (here != left) & (here != right)
    differs_along = (here != above) & (here != below)
    has_equal_neighbors = (left == right) | (above == below)
    return float(((differs_across | differs_along) & has_equal_neighbors).mean())


def _packed(frame: Pixels) -> NDArray[np.uint32]:
    """A number for each color, (H, W)."""
    red, green, blue = frame.astype(np.uint32)
    packed: NDArray[np.uint32] = red << 16 | green << 8 | blue
    return packed


def _frames_of(path: Path) -> Iterator[Pixels]:
    """A few frames of a file with 8 bits, (3, H, W); those that decode."""
    with open_container(path) as container:
        stream = video_stream(container, path)
        begin, length = container.start_time or 0, container.duration or 0
        for place in sorted({0, length // 3}):
            try:
                if place:
                    container.seek(begin + place)
                frames = list(islice(container.decode(stream), _FRAMES))
            except av.FFmpegError:
                continue  # damage is reported by the reader
            for frame in frames:
                to_rgb = ToRgb(width=frame.width, height=frame.height)
                pixels = to_rgb(frame, color_of(frame))
                yield to_8_bits(pixels)
