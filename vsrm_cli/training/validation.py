"""How good a network is on unseen clips, beside bicubic and beside itself without time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.training.degradations import SCALE, shrink_4x
from vsrm_cli.training.losses import restoration_loss
from vsrm_cli.training.metrics import psnr_y

# Small frames, (T, 3, H, W), and sharp ones, (T, 3, 4H, 4W), both uint8.
Pair = tuple[Tensor, Tensor]
# A restored and a sharp clip, (T, 3, H, W), 0 to 1, to what is to be small.
Criterion = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Score:
    """How near the frames of one clip come to the truth: PSNR-Y in dB, their mean.

    Attributes:
        clip: Its name.
        bicubic: Of plain enlargement (a = -0.5, as Pillow and MATLAB do it).
        together: Of the network, all frames seen together.
        alone: Of the network, each frame by itself; None where it was not asked for.
        loss: What training minimizes, of all frames together.
    """

    clip: str
    bicubic: float
    together: float
    alone: float | None
    loss: float


def validate(
    network: nn.Module,
    pairs: Mapping[str, Pair],
    *,
    frequency_weight: float = 0.0,
    criterion: Criterion | None = None,
    alone: bool = True,
    show: Callable[[str, Tensor, Tensor], None] | None = None,
) -> list[Score]:
    """Restore clips and compare all frames with the truth, no border cut.

    Args:
        network: Maps (B, T, 3, H, W) to (B, T, 3, 4H, 4W); its mode is left as it is.
        pairs: Clips by name, such as those of `with_small_twins` or
            `vsrm_cli.training.watched.validation_pairs`.
        frequency_weight: Of the loss.
        criterion: The loss; by default that of `restoration_loss`.
        alone: Whether to restore the frames one by one as well.
        show: Is shown, of each clip, its name, plain enlargement and what the network made of
            it, both (T, 3, H, W), about 0 to 1.
    """
    scores = []
    if criterion is None:
        criterion = partial(_restoration_loss, frequency_weight=frequency_weight)
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        for name, pair in pairs.items():
            small, sharp = (frames.to(device).float() / 255 for frames in pair)
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
                    loss=criterion(together, sharp),
                )
            )
            if show is not None:
                show(name, plain, together)
    return scores


def with_small_twins(clips: Mapping[str, Tensor]) -> dict[str, Pair]:
    """Shrink clips as the literature's BI does.

    Args:
        clips: Sharp clips by name, (T, 3, H, W) uint8, sides multiples of four.
    """
    return {
        name: ((shrink_4x(sharp.float() / 255) * 255).round().to(torch.uint8), sharp)
        for name, sharp in clips.items()
    }


def _restoration_loss(restored: Tensor, sharp: Tensor, *, frequency_weight: float) -> float:
    return restoration_loss(restored, sharp, frequency_weight=frequency_weight).item()


def _mean_psnr(restored: Tensor, sharp: Tensor) -> float:
    values = [psnr_y(a, b) for a, b in zip(restored, sharp, strict=True)]
    return sum(values) / len(values)
