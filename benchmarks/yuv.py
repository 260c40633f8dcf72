"""A prototype: YUV to RGB and back in PyTorch, held against what the scaler of FFmpeg gives.

    python benchmarks/yuv.py [--device cuda]

On a GPU this would save the copy of half the bytes of each large picture, and some work of the
thread that encodes. It is no part of the program: README.md beside this says why. It prints how far
both are apart, in levels of 255, and how long each takes for a picture.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from av.video.frame import VideoFrame
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.media.color import BT709, BT2020, SMPTE170M, Color, FromRgb, ToRgb

# Shares of red and blue in brightness (ITU-R BT.601, BT.709, BT.2020).
SHARES = {SMPTE170M: (0.299, 0.114), BT709: (0.2126, 0.0722), BT2020: (0.2627, 0.0593)}


@dataclass(frozen=True)
class Form:
    """How pictures are stored.

    Attributes:
        bits: Of each sample.
        halves: Whether color is halved along rows, and along columns.
    """

    bits: int
    halves: tuple[bool, bool]


FORMS = {
    "yuv420p": Form(8, (True, True)),
    "yuv422p": Form(8, (False, True)),
    "yuv444p": Form(8, (False, False)),
    "yuv420p10le": Form(10, (True, True)),
}


def cubic(distance: Tensor) -> Tensor:
    """The scaler's bicubic filter: Keys' with a = -0.6, of distances in samples."""
    x, a = distance.abs(), -0.6
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def double(color: Tensor, *, dim: int, centered: bool) -> Tensor:
    """Twice as many samples along an axis of (..., H, W).

    Args:
        color: The samples.
        dim: -1 or -2.
        centered: Whether a sample lies between two pixels (rows of 4:2:0), or on the first one.
    """
    shift = 0.25 if centered else 0.0
    phases = []
    for place in (-shift, 0.5 - shift):
        taps = torch.arange(-2, 3, device=color.device)
        phases.append(_filtered(color, cubic(taps - place), dim=dim, before=2))
    if dim == -1:
        return torch.stack(phases, dim=-1).flatten(-2)
    return torch.stack(phases, dim=-2).flatten(-3, -2)


def halve(color: Tensor, *, dim: int, centered: bool) -> Tensor:
    """Half as many samples: the same filter, twice as wide; for arguments see `double`."""
    taps = torch.arange(-3, 5, device=color.device) - (0.5 if centered else 0.0)
    return _filtered(color, cubic(taps / 2), dim=dim, before=3, step=2)


def _filtered(x: Tensor, weights: Tensor, *, dim: int, before: int, step: int = 1) -> Tensor:
    """Weighted sums along an axis, the border repeated."""
    weights = weights / weights.sum()
    behind = len(weights) - 1 - before
    flat = x.flatten(0, -3).unsqueeze(1)
    if dim == -1:
        padded = F.pad(flat, (before, behind, 0, 0), mode="replicate")
        y = F.conv2d(padded, weights.view(1, 1, 1, -1).to(x), stride=(1, step))
    else:
        padded = F.pad(flat, (0, 0, before, behind), mode="replicate")
        y = F.conv2d(padded, weights.view(1, 1, -1, 1).to(x), stride=(step, 1))
    return y.squeeze(1).unflatten(0, x.shape[:-2])


def to_rgb(planes: list[Tensor], form: Form, color: Color) -> Tensor:
    """Planes of integers, (H, W) and two of color, as RGB of 0 to 1, (3, H, W)."""
    luma, chroma = planes[0].float(), torch.stack(planes[1:]).float()
    black, span, middle, swing = _levels(form.bits, is_full=color.full_range)
    for dim, is_halved in zip((-2, -1), form.halves, strict=True):
        if is_halved:
            chroma = double(chroma, dim=dim, centered=dim == -2)
    y = (luma - black) / span
    blue, red = (chroma - middle) / swing
    kr, kb = SHARES[color.matrix]
    r, b = y + 2 * (1 - kr) * red, y + 2 * (1 - kb) * blue
    return torch.stack((r, (y - kr * r - kb * b) / (1 - kr - kb), b)).clamp(0, 1)


def from_rgb(rgb: Tensor, form: Form, color: Color) -> list[Tensor]:
    """RGB of 0 to 1, (3, H, W), as three planes of integers."""
    black, span, middle, swing = _levels(form.bits, is_full=color.full_range)
    kr, kb = SHARES[color.matrix]
    r, g, b = rgb
    y = kr * r + (1 - kr - kb) * g + kb * b
    chroma = torch.stack(((b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))))
    for dim, is_halved in zip((-1, -2), form.halves[::-1], strict=True):
        if is_halved:
            chroma = halve(chroma, dim=dim, centered=dim == -2)
    peak = 2**form.bits - 1
    values = (black + span * y, *(middle + swing * chroma))
    return [value.round().clamp(0, peak).to(torch.int32) for value in values]


def _levels(bits: int, *, is_full: bool) -> tuple[float, float, float, float]:
    """Black and the span of brightness, the middle and the swing of color, in code values."""
    one = 2.0 ** (bits - 8)
    if is_full:
        return 0.0, 2.0**bits - 1, 128 * one, 2.0**bits - 1
    return 16 * one, 219 * one, 128 * one, 224 * one


def draw(height: int, width: int) -> np.ndarray:
    """A picture with soft slopes and edges, RGB, (3, H, W) uint8; its colors are not garish."""
    rng = np.random.default_rng(0)
    small = torch.from_numpy(rng.random((1, 3, height // 8 + 2, width // 8 + 2), np.float32))
    smooth = F.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1)[0]
    smooth[:, height // 3 : height // 2, width // 4 : width // 2] = 0.8
    return (40 + 170 * smooth).round().to(torch.uint8).numpy()


def planes_of(frame: VideoFrame) -> list[Tensor]:
    """The planes of a frame, without the padding of their rows."""
    found = []
    for plane in frame.planes:
        deep = frame.format.components[0].bits > 8
        rows = np.frombuffer(plane, np.uint16 if deep else np.uint8)
        rows = rows.reshape(plane.height, -1)[:, : plane.width]
        found.append(torch.from_numpy(rows.astype(np.int32)))
    return found


@dataclass(frozen=True)
class Differences:
    """How far PyTorch and the scaler are apart, in levels of 255: greatest and mean."""

    greatest_to_rgb: float
    mean_to_rgb: float
    greatest_from_rgb: float
    mean_from_rgb: float


def compare(name: str, color: Color, *, height: int = 96, width: int = 160) -> Differences:
    """Convert one picture both ways by both."""
    form, pixels = FORMS[name], draw(height, width)
    frame = FromRgb(color, name, width=width, height=height)(pixels)
    planes = planes_of(frame)
    ours = from_rgb(torch.from_numpy(pixels) / 255, form, color)
    stored = torch.cat([(a - b).abs().flatten() for a, b in zip(planes, ours, strict=True)])
    stored = stored / 2.0 ** (form.bits - 8)
    expected = ToRgb(width=width, height=height)(frame, color)
    shown = 255 * expected.astype(np.float32) / np.iinfo(expected.dtype).max
    rgb = 255 * to_rgb(planes, form, color)
    rgb = rgb.round() if form.bits == 8 else rgb
    seen = (rgb - torch.from_numpy(shown)).abs()
    return Differences(
        seen.max().item(), seen.mean().item(), stored.max().item(), stored.mean().item()
    )


def milliseconds(run: Callable[[], object], device: torch.device) -> float:
    """The least time of some runs."""
    times = []
    for _ in range(8):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return min(times)


def main() -> None:
    """Compare and time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = torch.device(parser.parse_args().device)
    say = sys.stdout.write
    say("levels of 255      to RGB: greatest, mean    from RGB: greatest, mean\n")
    for name in FORMS:
        for matrix in SHARES:
            for full in (False, True):
                d = compare(name, Color(matrix, full))
                label = f"{name} {matrix} {'full' if full else 'limited'}"
                say(
                    f"{label:26} {d.greatest_to_rgb:8.2f} {d.mean_to_rgb:8.3f}"
                    f" {d.greatest_from_rgb:16.2f} {d.mean_from_rgb:8.3f}\n"
                )
    color, form, pixels = Color(BT709, False), FORMS["yuv420p"], draw(720, 1280)
    scaler = FromRgb(color, "yuv420p", width=1280, height=720)
    frame, back = scaler(pixels), ToRgb(width=1280, height=720)
    rgb = torch.from_numpy(pixels).to(device) / 255
    planes = [plane.to(device) for plane in planes_of(frame)]
    with torch.inference_mode():
        for label, run in (
            ("scaler, to RGB", lambda: back(frame, color)),
            ("scaler, from RGB", lambda: scaler(pixels)),
            (f"PyTorch on {device}, to RGB", lambda: to_rgb(planes, form, color)),
            (f"PyTorch on {device}, from RGB", lambda: from_rgb(rgb, form, color)),
        ):
            say(f"{label:30} {milliseconds(run, device):7.2f} ms for 1280x720\n")


if __name__ == "__main__":
    main()
