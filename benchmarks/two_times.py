"""Compare two ways to enlarge two times: `vsrm-t-x2`, and `vsrm-t` with its result resampled.

    python benchmarks/two_times.py [--frames 12]

Both upscale the same drawn 640x360 clip from file to file with `--scale 2`, in this process, with
the same threads. The goal is a ratio of at most 0.4. Processor time is printed, too, because it
depends less on other programs.
"""

import argparse
import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from vsrm_cli import upscale_video
from vsrm_cli.upscale.summary import JobSummary

WIDTH, HEIGHT = 640, 360
GOAL = 0.4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=12)
    frames = parser.parse_args().frames
    with TemporaryDirectory() as folder:
        clip = draw_clip(Path(folder) / "clip.mkv", frames=frames)
        # A warm-up: the first job also loads and allocates.
        upscale(clip, "vsrm-t-x2", end="0.08")
        wall, processor = {}, {}
        for model in ("vsrm-t-x2", "vsrm-t"):
            began = time.process_time()
            wall[model] = upscale(clip, model).elapsed_s
            processor[model] = time.process_time() - began
            print(  # noqa: T201 - this script is a terminal program
                f"{model}: {wall[model]:.1f} s, {processor[model]:.1f} s of processor time, for "
                f"{frames} frames of {WIDTH}x{HEIGHT}"
            )
    ratios = [seconds["vsrm-t-x2"] / seconds["vsrm-t"] for seconds in (wall, processor)]
    print("ratio {:.3f}, of processor time {:.3f}, goal {}".format(*ratios, GOAL))  # noqa: T201


def draw_clip(path: Path, *, frames: int) -> Path:
    """Write a lossless video of waves that move by a fraction of a pixel per frame."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", 24)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            waves = [
                np.sin((x + 0.7 * index) / length) * np.cos((y - 0.3 * index) / length)
                for length in (3.0, 7.0, math.e * 10)
            ]
            image = np.stack(waves, axis=-1) * 100 + 128
            frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def upscale(clip: Path, model: str, *, end: str | None = None) -> JobSummary:
    """Enlarge the clip two times."""
    output = clip.with_name(f"{model}.mkv")
    return upscale_video(clip, output, model=model, scale=2, end=end, overwrite=True)


if __name__ == "__main__":
    main()
