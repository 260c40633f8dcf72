"""Make the image at the top of the README: bicubic, a network, and the ground truth.

    vsrm upscale tests/data/sample.mp4 -o sample_x4.mp4
    python benchmarks/before_after.py sample_x4.mp4 benchmarks/before_after.png --label vsrm-t-sharp

The sample is drawn by a script, which can also draw the ground truth at four times the size. This
needs the extra `test`.
"""

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import torch

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.evaluation.baselines import upscale_bicubic
from vsrm_cli.frame import Pixels
from vsrm_cli.report.html import encode_png
from vsrm_cli.report.labels import draw_label

SAMPLE_FOLDER = Path(__file__).parents[1] / "tests" / "data"
sys.path.insert(0, str(SAMPLE_FOLDER))

import make  # noqa: E402  the script that draws the sample

FRAME = 12  # the middle of the first window
TOP, LEFT, HEIGHT, WIDTH = 72, 150, 320, 272  # awning, curtain, bricks and a wheel
GAP = 8


def main() -> None:
    """Crop the three frames alike and write them side by side."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("upscaled", type=Path)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--label", default="vsrm")
    options = arguments.parse_args()
    small = torch.from_numpy(read_frame(SAMPLE_FOLDER / "sample.mp4").copy()).float() / 255
    bicubic = (upscale_bicubic(small).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    panels = []
    for frame, label in (
        (bicubic, "bicubic"),
        (read_frame(options.upscaled), options.label),
        (ground_truth(), "ground truth"),
    ):
        panel = frame[:, TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH].copy()
        draw_label(panel, label)
        panels += [panel, np.full((3, HEIGHT, GAP), 255, np.uint8)]
    options.out.write_bytes(encode_png(cast(Pixels, np.concatenate(panels[:-1], axis=2))))


def read_frame(path: Path) -> Pixels:
    """The frame to show, (3, H, W) uint8."""
    with VideoReader(path) as reader:
        return next(islice(reader, FRAME, None)).pixels


def ground_truth() -> Pixels:
    """The same frame, drawn at four times the size of the sample: (3, H, W) uint8."""
    drawn = make.draw_frame(make.street(), FRAME)
    large = drawn.resize((4 * make.WIDTH, 4 * make.HEIGHT), make.BICUBIC)
    return cast(Pixels, np.asarray(large).transpose(2, 0, 1))


if __name__ == "__main__":
    main()
