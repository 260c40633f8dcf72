"""How often progressive clips are detected as interlaced, and how often interlaced ones are.

    python tests/interlacing_rates.py [FOLDER]

Drawn clips of `motion.py` are encoded by three encoders. Each video of a folder is checked as
it is, and again with every two frames interlaced into one. Prints the errors and the rates.
"""

import argparse
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from motion import INTERLACED, PROGRESSIVE, interlaced, progressive, telecined

from vsrm_cli.decode.deinterlace import detect_field_order

FRAMES = 30
ENCODERS = {
    "x264": ("libx264", {"crf": "18"}),
    "x264, low quality": ("libx264", {"crf": "30"}),
    "mpeg4": ("mpeg4", {"b": "600000"}),
}
VIDEOS = {".mp4", ".mkv", ".mov", ".avi", ".264", ".webm", ".ts", ".mpg"}


def encode(path, frames, *, codec="libx264", options=None, mark=None):
    """Write gray pictures (H, W) as a video, with one key frame."""
    options = {"g": "300", **(options or {})}
    if mark:
        options["x264-params"] = f"{mark}=1"
    with av.open(str(path), "w") as output:
        height, width = frames[0].shape
        video = output.add_stream(codec, rate=25, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path


def fields_of(path):
    with av.open(str(path)) as container:
        return detect_field_order(container, container.streams.video[0])


def drawn(folder):
    """Each drawn clip: its name, its field order or None, the detected fields."""
    path = folder / "clip.mkv"
    for encoder, (codec, options) in ENCODERS.items():
        for name, draw in PROGRESSIVE.items():
            encode(path, progressive(draw, FRAMES), codec=codec, options=options)
            yield f"{name} ({encoder})", None, fields_of(path)
        for name, draw in INTERLACED.items():
            for order in ("tff", "bff"):
                mark = order if codec == "libx264" else None
                frames = interlaced(draw, FRAMES, order=order)
                encode(path, frames, codec=codec, options=options, mark=mark)
                yield f"{name}, {order} ({encoder})", order, fields_of(path)
            encode(path, telecined(draw, FRAMES), codec=codec, options=options)
            yield f"{name}, telecined ({encoder})", "tff", fields_of(path)


def real(videos, folder):
    """Each video of a folder, as it is and interlaced, likewise."""
    for source in sorted(path for path in videos.rglob("*") if path.suffix.lower() in VIDEOS):
        yield source.name, None, fields_of(source)
        moments = []
        with av.open(str(source)) as container:
            for frame in container.decode(video=0):
                moments.append(frame.reformat(format="gray").to_ndarray()[:1080, :1920])
                if len(moments) == 2 * FRAMES:
                    break
        height = moments[0].shape[0] // 2 * 2
        frames = [np.array(one[:height]) for one in moments[::2]]
        for one, other in zip(frames, moments[1::2], strict=False):
            one[1::2] = other[1:height:2]
        yield f"{source.name}, interlaced", "tff", fields_of(encode(folder / "clip.mkv", frames))


def report(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    asked = parser.parse_args()
    alarms, hits = [], []
    with tempfile.TemporaryDirectory() as scratch:
        kinds = [drawn(Path(scratch))]
        if asked.folder:
            kinds.append(real(asked.folder, Path(scratch)))
        for found in kinds:
            for name, order, fields in found:
                (alarms if order is None else hits).append(fields.first == order)
                if fields.first != order or fields.is_doubtful:
                    report(f"{name}: {order or 'progressive'}, found {fields}")
    report(f"false alarms: {alarms.count(False)} of {len(alarms)} progressive clips")
    report(f"hits: {hits.count(True)} of {len(hits)} interlaced clips")


if __name__ == "__main__":
    main()
