"""A clip and a network for tests of the whole program: both small, known exactly, and fast."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import torch

from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.models.presets import VSRM_T_X2

WIDTH, HEIGHT = 48, 32

# A network of the catalog that enlarges two times.
X2_ENTRY = replace(MODELS["vsrm-t"], name="vsrm-t-x2", config=VSRM_T_X2, scale=2)


class NearestNeighbor(torch.nn.Module):
    """Repeats every pixel, four times in both directions by default."""

    name = "nearest"
    device = torch.device("cpu")
    dtype = clip_dtype = torch.float32

    def __init__(self, scale=4):
        super().__init__()
        self.scale = scale
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, clip):
        return clip.repeat_interleave(self.scale, dim=-1).repeat_interleave(self.scale, dim=-2)

    def memory_bytes(self, time, height, width):
        return 4 * time * 3 * 17 * height * width


def load_nearest(name_or_path, *, device="auto", dtype="auto", detail=None, report=None):
    entry = MODELS.get(str(name_or_path))
    return NearestNeighbor(entry.scale if entry else 4).eval()


def picture(index):
    """A picture whose grey tells its index, up to 50 of them: (H, W, 3) uint8."""
    return np.full((HEIGHT, WIDTH, 3), 20 + 4 * (index % 50), np.uint8)


def draw_clip(path, *, frames=10, rate=25):
    """Write a video of `frames` pictures, `rate` per second, and return its path."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_clip(path):
    """The times and the greys of a video's frames, and the size of its pictures."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    times = [frame.pts * frame.time_base for frame in frames]
    greys = [round(float(frame.to_ndarray(format="gray").mean())) for frame in frames]
    return times, greys, (frames[0].width, frames[0].height)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())
