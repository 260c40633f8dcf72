"""Sample a frame along a flow field."""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.ops.dispatch import fuses


def pixel_grid(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Coordinates of all pixels, (2, H, W) float32, x in channel 0 and y in channel 1."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack((x, y))


def sample(
    picture: Tensor, points: Tensor, *, padding: str = "zeros", mode: str = "bilinear"
) -> Tensor:
    """Read a picture at the given points.

    Args:
        picture: (B, C, H, W).
        points: Where to read, in pixels of ``picture``, (B, 2, h, w), x first; float32, since
            float16 has steps of a quarter pixel from 256 on.
        padding: What lies outside: "zeros" or "border".
        mode: "bilinear", or "bicubic", which keeps more detail.

    Returns:
        (B, C, h, w), in the type of ``picture``.
    """
    height, width = picture.shape[-2:]
    # With align_corners=False -1 and 1 are the outer edges of the picture: pixel p of n lies at
    # (2p + 1) / n - 1, which is also true of a picture one pixel wide.
    x, y = points.float().unbind(1)
    grid = torch.stack(((2.0 * x + 1.0) / width - 1.0, (2.0 * y + 1.0) / height - 1.0), dim=-1)
    sampled = F.grid_sample(
        picture.float(), grid, mode=mode, padding_mode=padding, align_corners=False
    )
    return sampled.to(picture.dtype)


def sample_tokens(picture: Tensor, points: Tensor) -> Tensor:
    """Read a picture at several points for each of its pixels, the channels of a point together.

    What lies outside is read from the border.

    Args:
        picture: (B, C, H, W).
        points: Where to read, in pixels of ``picture``, (B, k, 2, H, W), x first; float32.

    Returns:
        (B * H * W, k, C), in the type of ``picture``.
    """
    if fuses(picture, points):
        tokens: Tensor = _fused()(picture, points)
        return tokens
    count, height = points.shape[1], picture.shape[2]
    rows = points.permute(0, 2, 1, 3, 4).flatten(2, 3)  # (B, 2, kH, W)
    values: Tensor = sample(picture, rows, padding="border").unflatten(2, (count, height))
    return values.permute(0, 3, 4, 2, 1).reshape(-1, count, picture.shape[1])


@cache
def _fused() -> Any:
    # Triton comes with PyTorch for CUDA only, and takes a while to import.
    from vsrm_cli.ops.fused_triton import sample_tokens_triton

    return sample_tokens_triton


def warp(
    picture: Tensor, flow: Tensor, *, padding: str = "zeros", mode: str = "bilinear"
) -> Tensor:
    """Bring a picture onto another one: result(p) = picture(p + flow(p)).

    Args:
        picture: The source, (B, C, H, W).
        flow: Where the match of each target pixel lies in the source, relative to the pixel,
            (B, 2, H, W), in pixels, dx first.
        padding: What lies outside the source: "zeros" or "border".
        mode: As in `sample`.

    Returns:
        Shaped like ``picture``.
    """
    grid = pixel_grid(flow.shape[-2], flow.shape[-1], device=flow.device)
    return sample(picture, grid + flow.float(), padding=padding, mode=mode)
