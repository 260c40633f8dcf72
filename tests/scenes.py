"""Images that are smooth functions of position, for exact shifts, and footage made of them."""

import dataclasses
import math

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from vsrm_cli.data.degradations import shrink_bicubic


def smooth_picture(height, width, *, shift=(0.0, 0.0), wavelength=48.0, phase=0.0):
    """A scene of waves, (3, H, W), 0.1 to 0.9, moved by ``shift`` pixels (x to the right, y down).

    No wave is shorter than ``wavelength`` pixels.
    """
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - shift[1],
        torch.arange(width, dtype=torch.float64) - shift[0],
        indexing="ij",
    )
    unit = 2 * math.pi / wavelength
    channels = [
        torch.sin(unit * x + phase) + torch.sin(unit * (0.5 * x + 0.6 * y)),
        torch.cos(unit * y + phase) + torch.sin(unit * (0.4 * x - 0.7 * y)),
        torch.sin(unit * (0.7 * x + 0.7 * y) + phase) + torch.cos(unit * (0.8 * x - 0.3 * y)),
    ]
    return (0.5 + 0.2 * torch.stack(channels)).float()


def to_8_bits(picture):
    return (picture * 255).round().clamp(0, 255).to(torch.uint8)


def add_lr_frames(clips, *, scale=4):
    """LR-HR pairs of HR clips, (T, 3, H, W) uint8, by name: shrunk as the literature's BI does."""
    return {
        name: (to_8_bits(shrink_bicubic(hr.float() / 255, scale=scale)), hr)
        for name, hr in clips.items()
    }


def levels(picture):
    """Values 0 to 1 as 8-bit levels that may overshoot, int64."""
    return picture.mul(255).round().to(torch.int64)


def constant_flow(dx, dy, height, width):
    return torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(1, 2, height, width)


def assert_equal_samples(a, b):
    for field in dataclasses.fields(a):
        assert torch.equal(getattr(a, field.name), getattr(b, field.name)), field.name


def draw_pack(path, *, photos=2, clips=1, side=64, clip_frames=4):
    """A training pack of smooth photos, and of clips in which they move; returns its path."""
    tensors = {
        f"photo.{n}": to_8_bits(smooth_picture(side, side, wavelength=12.0 + 4 * n, phase=n))
        for n in range(photos)
    }
    for n in range(clips):
        frames = [
            smooth_picture(side, side, shift=(2.0 * t, -1.0 * t), wavelength=16.0, phase=n)
            for t in range(clip_frames)
        ]
        tensors[f"clip.{n}"] = to_8_bits(torch.stack(frames))
    save_file(tensors, path)
    return path


def draw_folder(folder, *, frames=3, height=32, width=48, names="{:03}.png"):
    """A clip as a folder of images, in which a scene moves; returns its frames."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number in range(frames):
        picture = to_8_bits(
            smooth_picture(height, width, shift=(2.0 * number, 1.0), wavelength=9.0)
        )
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / names.format(number))
        pictures.append(picture)
    return torch.stack(pictures)


def draw_photo(path, *, height=20, width=30, seed=0):
    """A photo of noise; returns it, (3, H, W) uint8."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def draw_pair(folder, name, *, frames=4, height=16, width=20):
    """LR frames of noise, and HR frames that repeat every LR pixel sixteen times."""
    generator = torch.Generator().manual_seed(len(name))
    first = torch.randint(0, 256, (3, height, width), generator=generator)
    for number in range(frames):
        small = (first + 2 * number).clamp(0, 255).byte().permute(1, 2, 0)
        for kind, scale in (("lr", 1), ("hr", 4)):
            picture = small.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
            file = name if frames == 1 else f"{name}/{number}"
            path = folder / kind / f"{file}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.numpy()).save(path)
