"""One frame of a video.

The reader creates frames, the network replaces their pixels, the writer encodes them. The time of a
frame is never recomputed.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

# How many times larger most networks make frames; others say so themselves.
SCALE = 4

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Fingerprint:
    """Identifies a frame when it is read again.

    Attributes:
        time: When it is shown, in seconds on the clock of its file, as the text of a fraction.
        checksum: Of its pixels as they were read.
    """

    time: str
    checksum: int


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """Where a frame comes from; it stays with the frame through the network.

    Attributes:
        number: Its number among the frames of the job.
        fingerprint: Identifies it.
        damaged: Damaged packets in the file up to it.
    """

    number: int
    fingerprint: Fingerprint
    damaged: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame and the time at which it is shown.

    Attributes:
        pixels: RGB, (3, H, W), full range: uint8 for sources of 8 bits, uint16 (0 to 65535)
            for deeper ones.
        time: When the frame is shown, in seconds on the clock of its file, exact.
        duration: How long it is shown, in seconds, if the file says so.
        begins_shot: Whether it is the first frame after a scene cut.
        record: Its number and fingerprint, if it is read for a job.
        ends_window: Whether it is the last frame of a window: later windows do not change frames up
            to it.
        tile: Side of the tiles in which it was restored; None for the whole frame.
    """

    pixels: Pixels
    time: Fraction
    duration: Fraction | None = None
    begins_shot: bool = False
    record: FrameRecord | None = None
    ends_window: bool = False
    tile: int | None = None


def to_8_bits(pixels: Pixels) -> Pixels:
    """Round pixels of 16 bits to 8; others are unchanged."""
    if pixels.dtype == np.uint8:
        return pixels
    rounded: Pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return rounded
