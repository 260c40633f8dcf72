"""Encode frames and decode them again, in memory: real compression artifacts for training."""

from __future__ import annotations

import platform
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vsrm_cli.media.color import SMPTE170M, Color, FromRgb, ToRgb

# The encoder and the decoder of each codec.
_CODECS = {
    "h264": ("libx264", "h264"),
    "hevc": ("libx265", "hevc"),
    "vp9": ("libvpx-vp9", "vp9"),
    "mpeg4": ("mpeg4", "mpeg4"),
    "mpeg2": ("mpeg2video", "mpeg2video"),
}
# One thread, since the caller runs in several processes. And always the same bytes: x264's AVX-512
# code reads past its buffers if the width is not a multiple of 128 (other bytes in 6 of 60 runs on
# 96x64 pixels), so it is limited to instructions that every x86 of the last fifteen years has.
_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
_X264 = ["asm=SSE2,SSSE3,SSE4.2"] if _IS_X86 else []
# x265 does the same where a frame is one block of 64 pixels wide, and below 64x32 it writes
# there. None of the codecs codes an odd side in this format.
_LEAST_SIDE = {"h264": 32, "hevc": 80, "vp9": 32, "mpeg4": 32, "mpeg2": 32}
_PIXEL_FORMAT = "yuv420p"
_COLOR = Color(SMPTE170M, full_range=False)


def encode_and_decode(
    frames: NDArray[np.uint8],
    codec: str,
    *,
    crf: float,
    preset: str = "medium",
    deblocks: bool = True,
) -> NDArray[np.uint8]:
    """Encode frames as a video with color at half the resolution, and decode them.

    Frames whose sides are odd, or shorter than 32 pixels (HEVC: 80), are continued by their mirror
    image, which is cut off afterwards.

    Args:
        frames: RGB, (T, 3, H, W).
        codec: "h264" (x264), "hevc" (x265), "vp9" (libvpx), "mpeg4" (as in DivX and Xvid) or
            "mpeg2" (as on a DVD); the last two have no filter against blocks.
        crf: Quality on the encoder's own scale, smaller is better: 0 to 51, VP9 0 to 63; of the
            two old ones the quantizer, 2 to 31.
        preset: Of x264 and x265.
        deblocks: Whether H.264 filters the edges of its blocks, as nearly all files have it.

    Returns:
        As many frames of the same size; the same ones for the same input.
    """
    height, width = frames.shape[-2:]
    rows, columns = (max(_LEAST_SIDE[codec], side + side % 2) - side for side in (height, width))
    padding = ((0, 0), (0, 0), (0, rows), (0, columns))
    padded = np.pad(frames, padding, mode="symmetric")
    options = _options(codec, crf=crf, preset=preset, deblocks=deblocks)
    packets = _encode(padded, codec, options)
    video_frames = _decode(packets, codec)
    to_rgb = ToRgb(width=padded.shape[-1], height=padded.shape[-2])
    decoded = np.stack([to_rgb(frame, _COLOR) for frame in video_frames])
    return cast("NDArray[np.uint8]", decoded[..., :height, :width])


def _options(codec: str, *, crf: float, preset: str, deblocks: bool) -> dict[str, str]:
    if codec in ("mpeg4", "mpeg2"):
        quantizer = str(round(crf))
        return {"qmin": quantizer, "qmax": quantizer, "bf": "0"}
    if codec == "vp9":
        return {"crf": str(round(crf)), "b": "0", "deadline": "realtime", "cpu-used": "7"}
    options = {"crf": str(crf), "preset": preset}
    if codec == "hevc":
        return options | {"x265-params": "log-level=none:pools=none:frame-threads=1"}
    parameters = _X264 if deblocks else [*_X264, "no-deblock=1"]
    return options | ({"x264-params": ":".join(parameters)} if parameters else {})


def _encode(frames: NDArray[np.uint8], codec: str, options: dict[str, str]) -> list[Packet[Any]]:
    height, width = frames.shape[-2:]
    encoder = av.CodecContext.create(_CODECS[codec][0], "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, _PIXEL_FORMAT
    encoder.time_base = Fraction(1, 25)
    encoder.framerate = Fraction(25)
    encoder.thread_count = 1
    encoder.options = options
    from_rgb = FromRgb(_COLOR, _PIXEL_FORMAT, width=width, height=height)
    packets: list[Packet[Any]] = []
    for number, pixels in enumerate(frames):
        frame = from_rgb(pixels)
        frame.pts, frame.time_base = number, encoder.time_base
        packets += encoder.encode(frame)
    return [*packets, *encoder.encode(None)]


def _decode(packets: list[Packet[Any]], codec: str) -> list[VideoFrame]:
    decoder = av.CodecContext.create(_CODECS[codec][1], "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    frames = [frame for packet in packets for frame in decoder.decode(packet)]
    return [*frames, *decoder.decode(None)]
