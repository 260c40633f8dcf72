"""Frames as WebP files, for pages: a third of the size of JPEG."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

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
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="bgra")
    codec = av.CodecContext.create("libwebp", "w")
    assert isinstance(codec, VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt = frame.width, frame.height, "bgra"
    codec.time_base = Fraction(1, 25)
    codec.options = {"quality": str(quality), "compression_level": str(_EFFORT)}
    frame.pts = 0
    return b"".join(bytes(packet) for packet in (*codec.encode(frame), *codec.encode(None)))
