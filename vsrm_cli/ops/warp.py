"""Sample a frame along a flow field."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.ops.dispatch import uses_fused_kernels


def pixel_grid(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Coordinates of all pixels, (2, H, W) float32, x in channel 0 and y in channel 1."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack((x, y))


def sample_points(
    image: Tensor, points: Tensor, *, padding: str = "zeros", mode: str = "bilinear"
) -> Tensor:
    """Sample images at the given points.

    Args:
        image: (B, C, H, W).
        points: Where to read, in pixels of ``image``, (B, 2, h, w), x first; float32, since
            float16 has steps of a quarter pixel from 256 on.
        padding: Values outside the image: "zeros" or "border".
        mode: "bilinear", or "bicubic", which keeps more detail.

    Returns:
        (B, C, h, w), in the type of ``image``.
    """
    height, width = image.shape[-2:]
    # With align_corners=False, -1 and 1 are the outer edges of the image: pixel p of n is at
    # (2p + 1) / n - 1, also if n is 1.
    x, y = points.float().unbind(1)
    grid = torch.stack(((2.0 * x + 1.0) / width - 1.0, (2.0 * y + 1.0) / height - 1.0), dim=-1)
    sampled = F.grid_sample(
        image.float(), grid, mode=mode, padding_mode=padding, align_corners=False
    )
    return sampled.to(image.dtype)


def sample_tokens(image: Tensor, points: Tensor) -> Tensor:
    """Sample images at several points for each of their pixels, channels last.

    Points outside are clamped to the border.

    Args:
        image: (B, C, H, W).
        points: Where to read, in pixels of ``image``, (B, k, 2, H, W), x first; float32.

    Returns:
        (B * H * W, k, C), in the type of ``image``.
    """
    if uses_fused_kernels(image, points):
        # Triton comes only with PyTorch for CUDA, and is slow to import.
        from vsrm_cli.ops.fused_triton import sample_tokens_triton

        return sample_tokens_triton(image, points)
    count, height = points.shape[1], image.shape[2]
    rows = points.permute(0, 2, 1, 3, 4).flatten(2, 3)  # (B, 2, kH, W)
    values: Tensor = sample_points(image, rows, padding="border").unflatten(2, (count, height))
    return values.permute(0, 3, 4, 2, 1).reshape(-1, count, image.shape[1])


def warp(image: Tensor, flow: Tensor, *, padding: str = "zeros", mode: str = "bilinear") -> Tensor:
    """Warp images along a flow: result(p) = image(p + flow(p)).

    Args:
        image: The source, (B, C, H, W).
        flow: From target to source, (B, 2, H, W), in pixels, dx first.
        padding: Values outside the image: "zeros" or "border".
        mode: As in `sample_points`.

    Returns:
        Shaped like ``image``.
    """
    grid = pixel_grid(flow.shape[-2], flow.shape[-1], device=flow.device)
    return sample_points(image, grid + flow.float(), padding=padding, mode=mode)
