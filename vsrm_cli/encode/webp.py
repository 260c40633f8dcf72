"""Frames as WebP files, for pages: a third of the size of JPEG."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame

from vsrm_cli.encode.image_sequence import encode_still
from vsrm_cli.frame import Pixels

# How long the encoder searches, 0 to 6: beyond 2 it takes twice the time for one percent.
_EFFORT = 2


def encode_webp(pixels: Pixels, *, quality: int) -> bytes:
    """Encode a frame with losses.

    Args:
        pixels: RGB, (3, H, W), uint8.
        quality: 0 to 100, larger is better.
    """
    rgb = np.ascontiguousarray(np.moveaxis(pixels, 0, -1), dtype=np.uint8)
    # Given RGB and not YUV, the encoder itself makes of it the colors that a WebP file must have.
    frame = VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="bgra")
    return encode_still(frame, "libwebp", quality=str(quality), compression_level=str(_EFFORT))
