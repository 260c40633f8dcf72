"""Interlaced videos drawn by code: two moments in each frame, line by line."""

from fractions import Fraction

import av
import numpy as np

WIDTH, HEIGHT = 176, 144


def moment(time):
    """A scene with a box that moves to the right, (H, W, 3), at a time counted in fields."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.repeat(
        (128 + 60 * np.sin((x + 3 * time) / 9) + 30 * np.cos(y / 7))[..., None], 3, 2
    )
    left = 10 + 3 * time % (WIDTH - 50)
    picture[30:90, left : left + 30] = 230
    return picture.clip(0, 255).astype(np.uint8)


def interlaced(index, order):
    """A frame of two moments: the earlier in the even lines ("tff"), or in the odd ones."""
    frame = moment(2 * index)
    if order != "progressive":
        late = 1 if order == "tff" else 0
        frame[late::2] = moment(2 * index + 1)[late::2]
    return frame


def make_video(path, order, *, mark=None, frames=20, codec="libx264", pixel_format="yuv420p"):
    options = {"bf": "0", "crf": "5"} if codec == "libx264" else {}
    if mark:
        options["x264-params"] = f"{mark}=1"
    with av.open(str(path), "w") as output:
        video = output.add_stream(
            codec, rate=25, width=WIDTH, height=HEIGHT, pix_fmt=pixel_format, options=options
        )
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(interlaced(index, order)).reformat(
                format=pixel_format
            )
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path
