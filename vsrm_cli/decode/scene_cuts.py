"""Where one shot ends and the next begins.

A network that sees frames of two shots together draws a ghost of one into the other. So each
frame is compared with the one before, while both are at hand anyway: how much its pixels differ
in place, and how much its colors differ wherever they are. Motion changes the first and hardly
the second; a cut changes both.

Only these two frames decide. So a video gives the same cuts wherever one begins to read it.
"""

import numpy as np
from numpy.typing import NDArray

from vsrm_cli.frame import Pixels

# Frames are reduced to about so many lines.
_LINES = 72
# Colors are sorted into bins, so many along red, green and blue.
_BOXES = 8

# On 20 clips of everyday footage the sum of the two measures stays below 0.20 from frame to frame,
# with all motion of hands and cameras; between frames of two of the clips it lies above 0.45. What
# is between are jumps within a scene. PySceneDetect's AdaptiveDetector finds the same cuts in them.
_CUT = 0.28
# If many pixels lie between two bins, slight flicker moves them all; that is no cut.
_LEAST_DIFFERENCE = 0.04


class SceneCutFinder:
    """Finds the scene cuts of one video, frame by frame."""

    def __init__(self) -> None:
        """Start before the first frame."""
        self._last: tuple[NDArray[np.float32], NDArray[np.float64]] | None = None

    def begins_shot(self, pixels: Pixels) -> bool:
        """Whether a frame is the first of a new shot.

        Args:
            pixels: The next frame: RGB, (3, H, W), all of one size and type.

        Returns:
            False for the first frame of all.
        """
        sample = _sample(pixels)
        colors = _color_shares(sample)
        last, self._last = self._last, (sample, colors)
        if last is None:
            return False
        difference = float(np.abs(sample - last[0]).mean())
        recolored = float(np.abs(colors - last[1]).sum()) / 2
        return difference > _LEAST_DIFFERENCE and difference + recolored > _CUT


def _sample(pixels: Pixels) -> NDArray[np.float32]:
    """Some of the pixels, evenly spread, as numbers from 0 to 1."""
    step = max(1, min(pixels.shape[1:]) // _LINES)
    few: NDArray[np.float32] = pixels[:, ::step, ::step].astype(np.float32)
    return few / np.float32(np.iinfo(pixels.dtype).max)


def _color_shares(sample: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of pixels in each bin of colors; they sum to 1."""
    red, green, blue = np.minimum(sample * _BOXES, _BOXES - 1).astype(np.intp)
    boxes = (red * _BOXES + green) * _BOXES + blue
    counts: NDArray[np.float64] = np.bincount(boxes.ravel(), minlength=_BOXES**3) / boxes.size
    return counts
