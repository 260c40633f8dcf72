"""One picture of a video on its way through the program.

The reader makes frames, the network replaces their pixels, the writer encodes them. The time
that a frame came with is never recomputed on the way.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture and the moment at which it is shown.

    Attributes:
        pixels: RGB, (3, H, W), full range: uint8 for sources of 8 bits, uint16 (0 to 65535)
            for deeper ones.
        time: When the frame is shown, in seconds on the clock of its file, exact.
        duration: How long it is shown, in seconds, where the file says so.
        begins_shot: It shows another scene than the frame before it, behind a cut.
    """

    pixels: Pixels
    time: Fraction
    duration: Fraction | None = None
    begins_shot: bool = False
