"""Combing: whether the two fields of a frame show different moments, and which is earlier.

A frame interleaves a top field (its even lines) and a bottom field. The further apart in time two
fields are, the longer the teeth between them. So each field is interleaved with those of the frames
before and after, and the teeth are compared, in small blocks of the frame:

    interlaced, top first    now = (top, bottom before) = (top after, bottom)  <  the other two
    progressive              now  <  all four

The frames on both sides are used, so uneven motion cancels out. Vertical motion alone proves
nothing: a progressive frame with doubled lines that moves up by two lines equals an interlaced one
that moves up by one line per field. So a block counts only if lines differ more from their
neighbors than from the lines of their own field.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from operator import add

import numpy as np
from numpy.typing import NDArray

Luma = NDArray[np.int16]

# Pixels. A block is small enough to lie inside a moving thing.
_BLOCK_HEIGHT, _BLOCK_WIDTH = 16, 32
# Minimum ratios of two sums of teeth. No frame of 24 real progressive videos has a block that has
# all three, few of 44 drawn ones have up to three in all; in interlaced videos half of the moving
# blocks have them (tests/interlacing_rates.py).
_FURTHER = 1.3  # teeth of fields three moments apart, against those of neighbors in time
_AS_LONG = 0.9  # teeth of the frame itself, against those of neighbors in time
_TOOTH = 1.25  # teeth of the frame, against the changes along its own fields
# Below this many levels per pixel the noise of a codec decides.
_LEAST_LEVELS = 2


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """Counts of blocks in some frames.

    Attributes:
        tff: Combing, with the top field first.
        bff: Combing, with the bottom field first.
        progressive: Motion without combing.
        total: All blocks, most of which may show neither.
    """

    tff: int = 0
    bff: int = 0
    progressive: int = 0
    total: int = 0

    def __add__(self, other: BlockCounts) -> BlockCounts:
        """Count the blocks of more frames."""
        return BlockCounts(*map(add, astuple(self), astuple(other)))


def find_combing(before: Luma, frame: Luma, after: Luma) -> BlockCounts:
    """Look for combing in a frame.

    Args:
        before: Luma of the frame before, (H, W), 0 to 255.
        frame: Luma of the frame.
        after: Luma of the frame after.
    """
    now = 2 * _block_sums(_teeth(frame)[1:-1])
    top_first = _block_sums((_teeth(_woven(frame, before)) + _teeth(_woven(after, frame)))[1:-1])
    bottom_first = _block_sums((_teeth(_woven(frame, after)) + _teeth(_woven(before, frame)))[1:-1])
    along_fields = 2 * _block_sums(np.abs(frame[:-4] - 2 * frame[2:-2] + frame[4:]))

    noise = 2 * _LEAST_LEVELS * _BLOCK_HEIGHT * _BLOCK_WIDTH
    near, far = np.minimum(top_first, bottom_first), np.maximum(top_first, bottom_first)
    is_ordered = far > _FURTHER * near + noise
    is_combed = is_ordered & (now > _AS_LONG * near) & (now > _TOOTH * along_fields)
    is_progressive = ~is_combed & (near > _FURTHER * now + noise)
    return BlockCounts(
        tff=int((is_combed & (top_first < bottom_first)).sum()),
        bff=int((is_combed & (top_first > bottom_first)).sum()),
        progressive=int(is_progressive.sum()),
        total=now.size,
    )


def _woven(top: Luma, bottom: Luma) -> Luma:
    """A frame of the even lines of one frame and the odd lines of another."""
    woven = top.copy()
    woven[1::2] = bottom[1::2]
    return woven


def _teeth(luma: Luma) -> Luma:
    """The difference of each inner line from the mean of its neighbors, doubled; (H - 2, W)."""
    teeth: Luma = np.abs(luma[:-2] - 2 * luma[1:-1] + luma[2:])
    return teeth


def _block_sums(values: Luma) -> NDArray[np.int64]:
    rows, columns = values.shape[0] // _BLOCK_HEIGHT, values.shape[1] // _BLOCK_WIDTH
    inside = values[: rows * _BLOCK_HEIGHT, : columns * _BLOCK_WIDTH]
    blocks = inside.reshape(rows, _BLOCK_HEIGHT, columns, _BLOCK_WIDTH)
    sums: NDArray[np.int64] = blocks.sum((1, 3), dtype=np.int64)
    return sums
