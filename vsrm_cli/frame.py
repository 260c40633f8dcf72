"""One picture of a video on its way through the program.

The reader makes frames, the network replaces their pixels, the writer encodes them. The time
that a frame came with is never recomputed on the way.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Fingerprint:
    """What a frame is known by when it is read again.

    Attributes:
        time: When it is shown, in seconds on the clock of its file, as a fraction in digits.
        checksum: Of its pixels as they were read.
    """

    time: str
    checksum: int


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """Where a frame comes from; it goes with the frame past the network.

    Attributes:
        number: Its place among the frames of the job.
        stamp: What it is known by.
        damaged: Damaged packets met in the file up to it.
    """

    number: int
    stamp: Fingerprint
    damaged: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture and the moment at which it is shown.

    Attributes:
        pixels: RGB, (3, H, W), full range: uint8 for sources of 8 bits, uint16 (0 to 65535)
            for deeper ones.
        time: When the frame is shown, in seconds on the clock of its file, exact.
        duration: How long it is shown, in seconds, where the file says so.
        begins_shot: It shows another scene than the frame before it, behind a cut.
        record: Where it comes from, if it is read for a job.
        ends_window: It is the last that a window of the network gives: none of what comes later
            can change what was given so far.
        tile: Side of the tiles that the network made it of; None for a whole picture.
    """

    pixels: Pixels
    time: Fraction
    duration: Fraction | None = None
    begins_shot: bool = False
    record: FrameRecord | None = None
    ends_window: bool = False
    tile: int | None = None


def to_8_bits(pixels: Pixels) -> Pixels:
    """Round pixels of 16 bits to 8; others stay as they are."""
    if pixels.dtype == np.uint8:
        return pixels
    rounded: Pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return rounded
