"""Compare two ways to enlarge two times: `vsrm-t-x2`, and four times with the result resampled.

    python benchmarks/two_times.py [--frames 12]
    python benchmarks/two_times.py --quality FOLDER

The first compares times. `vsrm-t-x2` and `vsrm-t` both upscale the same drawn 640x360 clip from
file to file with `--scale 2`, in this process, with the same threads. The goal is a ratio of at
most 0.4. Processor time is printed, too, because it depends less on other programs.

The second compares quality on compressed footage: the first frames of each clip in FOLDER are
shrunk by two and compressed by H.264 at crf 28. It needs the extra `metrics` for LPIPS.
"""

import argparse
import math
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch
from torch import Tensor

from vsrm_cli import load_model, upscale_video
from vsrm_cli.data.degradations import shrink_bicubic
from vsrm_cli.evaluation.baselines import list_methods, restore_clip
from vsrm_cli.evaluation.metrics import gradient_energy, psnr_y, sharpness, ssim
from vsrm_cli.evaluation.perceptual import Measure, find_lpips
from vsrm_cli.evaluation.test_sets import find_clips, read_clip
from vsrm_cli.models.network import Network
from vsrm_cli.upscale.summary import JobSummary

WIDTH, HEIGHT = 640, 360
GOAL = 0.4
DEGRADATION, QUALITY_FRAMES = "h264-28", 4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--quality", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.quality is not None:
        measure_quality(options.quality)
    else:
        measure_times(options.frames)


def measure_quality(folder: Path) -> None:
    """Print PSNR-Y, SSIM-Y, LPIPS and sharpness of each way, as means over the clips."""
    lpips = find_lpips(torch.device("cpu"))
    if lpips is None:
        raise SystemExit("LPIPS is not installed: pip install 'vsrm[metrics]'")
    clips = [
        read_clip(files, DEGRADATION, scale=2, most_frames=QUALITY_FRAMES)
        for files in find_clips(folder, DEGRADATION, scale=2).clips
    ]
    methods = list_methods([load_model("vsrm-t-x2")], window=None)
    ways = {name: methods[name] for name in ("bicubic", "vsrm-t-x2")}
    for name in ("vsrm-t-real", "vsrm-t-sharp"):
        ways[f"{name}, resampled"] = partial(enlarge_and_shrink, load_model(name))
    for name, enlarge in ways.items():
        scores = [score(enlarge(clip.lr), clip.hr, lpips) for clip in clips]
        means = " ".join(f"{value:.3f}" for value in np.mean(scores, axis=0))
        print(f"{name}: {means}")  # noqa: T201 - this script is a terminal program


def enlarge_and_shrink(network: Network, lr: Tensor) -> Tensor:
    """Enlarge a clip two times by way of four: (T, 3, H, W) uint8 to (T, 3, 2H, 2W) uint8."""
    large = restore_clip(network, lr, window=None).float() / 255
    return (shrink_bicubic(large, scale=2) * 255).round().clamp(0, 255).to(torch.uint8)


def score(restored: Tensor, hr: Tensor, lpips: Measure) -> list[float]:
    """PSNR-Y, SSIM-Y, LPIPS and sharpness of a clip, (T, 3, H, W) uint8."""
    pairs = list(zip(restored.float() / 255, hr.float() / 255, strict=True))
    return [
        float(np.mean([psnr_y(*pair) for pair in pairs])),
        float(np.mean([ssim(*pair, on_luma=True) for pair in pairs])),
        float(np.mean([lpips(*pair) for pair in zip(restored, hr, strict=True)])),
        sharpness([(gradient_energy(a), gradient_energy(b)) for a, b in pairs]),
    ]


def measure_times(frames: int) -> None:
    """Print the times of both networks, and their ratio."""
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
