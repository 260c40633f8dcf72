"""How good a network is on unseen clips, beside bicubic and beside itself without time."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.training.degradations import SCALE, shrink_4x
from vsrm_cli.training.metrics import psnr_y


@dataclass(frozen=True)
class Score:
    """Mean PSNR-Y in dB over the frames of one clip.

    Attributes:
        clip: Its name.
        bicubic: Of plain enlargement (a = -0.5, as Pillow and MATLAB do it).
        together: Of the network, all frames seen together.
        alone: Of the network, each frame by itself; None where it was not asked for.
    """

    clip: str
    bicubic: float
    together: float
    alone: float | None


def validate(network: nn.Module, clips: Mapping[str, Tensor], *, alone: bool = True) -> list[Score]:
    """Shrink clips by BI x4, restore them, and compare all frames, no border cut.

    Args:
        network: Maps (B, T, 3, H, W) to (B, T, 3, 4H, 4W); its mode is left as it is.
        clips: Sharp clips by name, (T, 3, H, W) uint8, sides multiples of four.
        alone: Whether to restore the frames one by one as well.
    """
    scores = []
    with torch.inference_mode():
        for name, clip in clips.items():
            sharp = clip.float() / 255
            small = shrink_4x(sharp)
            together = network(small[None])[0]
            single = [network(frame[None, None])[0, 0] for frame in small] if alone else None
            # With antialias=True PyTorch's bicubic kernel is Pillow's, also when enlarging.
            plain = F.interpolate(
                small, scale_factor=SCALE, mode="bicubic", antialias=True, align_corners=False
            )
            scores.append(
                Score(
                    clip=name,
                    bicubic=_mean_psnr(plain, sharp),
                    together=_mean_psnr(together, sharp),
                    alone=None if single is None else _mean_psnr(torch.stack(single), sharp),
                )
            )
    return scores


def _mean_psnr(restored: Tensor, sharp: Tensor) -> float:
    values = [psnr_y(a, b) for a, b in zip(restored, sharp, strict=True)]
    return sum(values) / len(values)
