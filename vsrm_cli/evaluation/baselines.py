"""The methods to compare: bicubic, Lanczos, and networks with whole clips and single frames."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.errors import UsageError
from vsrm_cli.frame import SCALE, Frame
from vsrm_cli.inference.blending import to_pixels
from vsrm_cli.inference.restorer import Restorer, SupportsRestore
from vsrm_cli.models.network import Network
from vsrm_cli.upscale.options import DEFAULT_OVERLAP

LANCZOS_LOBES = 3
FILTERS = {"bicubic", "lanczos"}

Enlarge = Callable[[Tensor], Tensor]  # (T, 3, H, W) uint8 to (T, 3, scale H, scale W) uint8


def list_methods(networks: Sequence[Network], *, window: int | None) -> dict[str, Enlarge]:
    """Bicubic and Lanczos, and each network, all frames together and one at a time, by name.

    Args:
        networks: Loaded; all of one scale.
        window: Frames per window; None for whole clips.
    """
    scale = common_scale(networks)
    methods: dict[str, Enlarge] = {
        "bicubic": partial(_each_frame, partial(upscale_bicubic, scale=scale)),
        "lanczos": partial(_each_frame, partial(upscale_lanczos, scale=scale)),
    }
    for network in networks:
        methods[network.name] = partial(restore_clip, network, window=window)
        methods[f"{network.name}, frames alone"] = partial(restore_clip, network, window=1)
    return methods


def common_scale(networks: Sequence[Network]) -> int:
    """The scale of all networks; 4 if there are none.

    Raises:
        UsageError: If they differ: the networks would need different LR frames.
    """
    scales = sorted({network.scale for network in networks})
    if len(scales) > 1:
        scales_text = " and ".join(map(str, scales))
        raise UsageError(
            f"The networks upscale {scales_text} times; measure those of one scale at a time."
        )
    return scales[0] if scales else SCALE


def upscale_bicubic(frame: Tensor, *, scale: int = SCALE) -> Tensor:
    """Upscale (3, H, W), 0 to 1, with the bicubic kernel of Pillow and MATLAB."""
    # With antialias=True, PyTorch uses the same kernel (a = -0.5), also for upscaling.
    large = F.interpolate(
        frame[None], scale_factor=scale, mode="bicubic", antialias=True, align_corners=False
    )
    return large[0]


def upscale_frame(frame: Frame, *, scale: int = SCALE) -> Frame:
    """Upscale a frame with `upscale_bicubic`."""
    peak = np.iinfo(frame.pixels.dtype).max
    values = torch.from_numpy(frame.pixels.astype(np.float32)) / peak
    large = upscale_bicubic(values, scale=scale)
    return replace(frame, pixels=to_pixels(large, frame.pixels.dtype))


def upscale_lanczos(frame: Tensor, *, scale: int = SCALE) -> Tensor:
    """Upscale (3, H, W), 0 to 1, with the three-lobed Lanczos kernel of Pillow."""
    height, width = frame.shape[-2:]
    large: Tensor = _lanczos_weights(height, scale) @ frame @ _lanczos_weights(width, scale).T
    return large


def _lanczos_weights(size: int, scale: int) -> Tensor:
    """Weights of the input pixels for each output pixel, (scale size, size); rows sum to one."""
    centers = (torch.arange(scale * size) + 0.5) / scale - 0.5
    x = centers[:, None] - torch.arange(size)
    weights = torch.sinc(x) * torch.sinc(x / LANCZOS_LOBES) * (x.abs() < LANCZOS_LOBES)
    return weights / weights.sum(dim=1, keepdim=True)


def _each_frame(enlarge: Callable[[Tensor], Tensor], lr: Tensor) -> Tensor:
    frames = [(enlarge(frame.float() / 255) * 255).round().clamp(0, 255) for frame in lr]
    return torch.stack([frame.to(torch.uint8) for frame in frames])


class Restores(SupportsRestore, Protocol):
    """A network for `Restorer`, with its device and the type of its clips."""

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        ...

    @property
    def clip_dtype(self) -> torch.dtype:
        """The type of its clips."""
        ...


def restore_clip(network: Restores, lr: Tensor, *, window: int | None) -> Tensor:
    """Upscale a clip as `vsrm upscale` does.

    Args:
        network: Loaded.
        lr: (T, 3, H, W) uint8.
        window: Frames per window; None for the whole clip.

    Returns:
        (T, 3, scale H, scale W) uint8.
    """
    length = min(window or len(lr), len(lr))
    restorer = Restorer(
        network,
        window=length,
        overlap=min(DEFAULT_OVERLAP, length // 2),
        tile="auto",
        device=network.device,
        dtype=network.clip_dtype,
    )
    frames = (Frame(pixels.numpy(), Fraction(t)) for t, pixels in enumerate(lr))
    return torch.stack([torch.from_numpy(frame.pixels) for frame in restorer.restore(frames)])
