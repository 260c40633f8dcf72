"""Each container, codec, rate and pixel format in, each container out: frames, times and order.

A few of all the combinations run by default, such that every value of every kind is among them;
the rest is slow.
"""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
from clips import index_of, make_clip

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.encode.options import EncodingOptions
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.encode.video_target import VideoTarget
from vsrm_cli.media.geometry import OutputShape

SIZE = (96, 64)
HALF_A_MILLISECOND = Fraction(1, 2000)

# Name of the file, encoder, pixel format, ticks per second that the container counts by itself.
INPUTS = {
    "mp4 h264": ("in.mp4", "libx264", "yuv420p", None),
    "mp4 hevc 10 bit": ("in.mp4", "libx265", "yuv420p10le", None),
    "mp4 av1": ("in.mp4", "libsvtav1", "yuv420p", None),
    "mov prores": ("in.mov", "prores_ks", "yuv422p10le", None),
    "mov mpeg4": ("in.mov", "mpeg4", "yuv420p", None),
    "mkv h264 444": ("in.mkv", "libx264", "yuv444p", 1000),
    "mkv ffv1 12 bit": ("in.mkv", "ffv1", "yuv422p12le", 1000),
    "mkv ffv1 rgb": ("in.mkv", "ffv1", "bgr0", 1000),
    "mkv vp8": ("in.mkv", "libvpx", "yuv420p", 1000),
    "webm vp9": ("in.webm", "libvpx-vp9", "yuv420p", 1000),
    "ts h264": ("in.ts", "libx264", "yuv420p", 90000),
    "ts mpeg2": ("in.ts", "mpeg2video", "yuv420p", 90000),
    "nut ffv1 gray": ("in.nut", "ffv1", "gray", None),
}
# Ticks per second, times in ticks, and what the encoder is told.
TIMINGS = {
    "25": (25, range(20), {}),
    "23.976": (Fraction(24000, 1001), range(20), {}),
    "29.97": (Fraction(30000, 1001), range(20), {}),
    "59.94": (Fraction(60000, 1001), range(20), {}),
    "variable": (12800, (0, 512, 700, 1900, 1920, 4000, 4512, 9000, 20000, 20512), {}),
    "one frame": (25, range(1), {}),
    "late": (25, range(37, 57), {}),
    "reordered": (25, range(20), {"bf": "3"}),
    "open": (25, range(20), {"bf": "3", "x264-params": "open-gop=1:keyint=6:bframes=3"}),
}
OUTPUTS = {
    "mp4 h264": ("out.mp4", "h264"),
    "mov hevc": ("out.mov", "hevc"),
    "mkv h264": ("out.mkv", "h264"),
    "mkv ffv1": ("out.mkv", "ffv1"),
    "webm vp9": ("out.webm", "vp9"),
    "nut ffv1": ("out.nut", "ffv1"),
}


def combinations():
    """Every combination; all but those that show a value for the first time are slow."""
    seen = set()
    for (i, source), (j, timing), (k, target) in product(
        enumerate(INPUTS), enumerate(TIMINGS), enumerate(OUTPUTS)
    ):
        is_new = {source, timing, f"to {target}"} - seen
        is_on_the_diagonal = j == i % len(TIMINGS) and k == i % len(OUTPUTS)
        seen |= {source, timing, f"to {target}"} if is_on_the_diagonal else set()
        marks = [] if is_new and is_on_the_diagonal else [pytest.mark.slow]
        yield pytest.param(source, timing, target, marks=marks, id=f"{source}-{timing}-{target}")


def draw(folder, source, timing):
    name, codec, pixel_format, counts = INPUTS[source]
    rate, times, told = TIMINGS[timing]
    if codec not in ("libx264", "libx265"):
        told = {}
    elif "bf" not in told:
        told = {**told, "bf": "0"}
    if codec == "libx265":
        # Blocks smaller than the picture, and one thread: x265 is not safe with tiny pictures.
        safe = "pools=none:frame-threads=1:ctu=32"
        told = {"x265-params": f"log-level=none:bframes={told['bf']}:{safe}"}
    clock = 1 / Fraction(rate)
    if codec == "mpeg2video":  # it knows few rates, all of them constant
        times, clock = range(len(times)), Fraction(1, 25)
    elif counts is not None:  # drawn on the clock of the container, so that nothing is rounded
        times = [round(ticks * clock * counts) for ticks in times]
        clock = Fraction(1, counts)
    return make_clip(
        folder / name,
        times=times,
        clock=clock,
        size=SIZE,
        codec=codec,
        pixel_format=pixel_format,
        encoder=told,
    )


@pytest.mark.parametrize(("source", "timing", "target"), list(combinations()))
def test_every_frame_is_read_once_in_order_at_its_time(tmp_path, source, timing, target):
    clip = draw(tmp_path, source, timing)
    name, codec = OUTPUTS[target]

    with VideoReader(clip) as reader:
        with VideoWriter(
            VideoTarget(
                tmp_path / name,
                source=reader.info,
                shape=OutputShape(*SIZE, None),
                encoding=EncodingOptions(codec),
            )
        ) as writer:
            before = list(reader)
            for frame in before:
                writer.write(replace(frame))
        truncated = reader.truncated

    with VideoReader(tmp_path / name) as reader:
        after = list(reader)
    count = len(TIMINGS[timing][1])
    # FFmpeg's decoder of MPEG-2 calls a frame that stands alone damaged.
    is_called_damaged = (source, timing) == ("ts mpeg2", "one frame")
    assert (len(before), truncated) == (count, is_called_damaged)
    assert [index_of(f.pixels) for f in after] == [index_of(f.pixels) for f in before]
    assert [index_of(f.pixels) for f in before] == list(range(count))
    # A transport stream has the clock of its sender; outputs begin at zero.
    zero = before[0].time if source.startswith("ts") else 0
    rounding = HALF_A_MILLISECOND if name.endswith((".mkv", ".webm")) else 0
    for old, new in zip(before, after, strict=True):
        assert abs(new.time - (old.time - zero)) <= rounding
