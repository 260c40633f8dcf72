"""One frame of a video.

The reader creates frames, the network replaces their pixels, the writer encodes them. The time of a
frame is never recomputed.
"""

from dataclasses import astuple, dataclass
from fractions import Fraction
from operator import add, sub

import numpy as np
from numpy.typing import NDArray

# How many times larger most networks make frames; others say so themselves.
SCALE = 4

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

# Frames per second of a video whose file states none.
FALLBACK_RATE = Fraction(25)
# ITU-R BT.601: the share of each channel of full-range RGB in the luma.
LUMA_WEIGHTS = (0.299, 0.587, 0.114)


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
class Faults:
    """Faults of an input up to a frame.

    Attributes:
        damaged: Packets that could not be decoded or gave a broken frame.
        resized: Frames of another size than the first, which were scaled to it.
        reshaped: Frames of another pixel aspect ratio than the first.
    """

    damaged: int = 0
    resized: int = 0
    reshaped: int = 0

    def __add__(self, other: "Faults") -> "Faults":
        """Both together."""
        return Faults(*map(add, astuple(self), astuple(other)))

    def __sub__(self, other: "Faults") -> "Faults":
        """Those that are not in the other."""
        return Faults(*map(sub, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """Where a frame comes from; it stays with the frame through the network.

    Attributes:
        number: Its number among the frames of the job.
        fingerprint: Identifies it.
        faults: Of the input up to it.
    """

    number: int
    fingerprint: Fingerprint
    faults: Faults = Faults()


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


def to_16_bits(pixels: Pixels) -> Pixels:
    """Spread pixels of 8 bits over 16; others are unchanged."""
    return pixels.astype(np.uint16) * 257 if pixels.dtype == np.uint8 else pixels
