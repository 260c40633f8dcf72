"""Validation: a network on unseen clips, compared with bicubic and with single frames."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.data.crops import measure_detail
from vsrm_cli.evaluation.metrics import psnr_y
from vsrm_cli.training.losses import restoration_loss
from vsrm_cli.training.recipe import Recipe, TrainingStage

# LR frames, (T, 3, H, W), and HR frames, (T, 3, scale H, scale W), both uint8.
Pair = tuple[Tensor, Tensor]
# Of a restored and an HR clip, (T, 3, H, W), 0 to 1; lower is better.
Criterion = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class ClipScore:
    """Mean PSNR-Y of the frames of one clip against the ground truth, in dB.

    Attributes:
        clip: Its name.
        bicubic: Of bicubic enlargement (a = -0.5, as in Pillow and MATLAB).
        together: Of the network, with all frames together.
        alone: Of the network, each frame by itself; None if not measured.
        loss: The training loss, with all frames together.
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
) -> list[ClipScore]:
    """Restore clips and compare all frames with the ground truth, borders included.

    Args:
        network: Maps (B, T, 3, H, W) to (B, T, 3, scale H, scale W); its mode is not changed.
        pairs: Clips by name, see `vsrm_cli.data.validation_clips.validation_pairs`.
        frequency_weight: Of the loss.
        criterion: The loss; by default `restoration_loss`.
        alone: Whether to restore the frames one by one as well.
        show: Called for each clip with its name, the bicubic and the restored frames, both
            (T, 3, H, W), about 0 to 1.
    """
    scores = []
    if criterion is None:
        criterion = partial(_restoration_loss, frequency_weight=frequency_weight)
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        for name, pair in pairs.items():
            lr, hr = (frames.to(device).float() / 255 for frames in pair)
            together = network(lr[None])[0]
            single = [network(frame[None, None])[0, 0] for frame in lr] if alone else None
            # With antialias=True PyTorch's bicubic kernel is Pillow's, also when enlarging.
            plain = F.interpolate(
                lr, size=hr.shape[-2:], mode="bicubic", antialias=True, align_corners=False
            )
            scores.append(
                ClipScore(
                    clip=name,
                    bicubic=_mean_psnr(plain, hr),
                    together=_mean_psnr(together, hr),
                    alone=None if single is None else _mean_psnr(torch.stack(single), hr),
                    loss=criterion(together, hr),
                )
            )
            if show is not None:
                show(name, plain, together)
    return scores


def _restoration_loss(restored: Tensor, hr: Tensor, *, frequency_weight: float) -> float:
    return restoration_loss(restored, hr, frequency_weight=frequency_weight).item()


def _mean_psnr(restored: Tensor, hr: Tensor) -> float:
    values = [psnr_y(a, b) for a, b in zip(restored, hr, strict=True)]
    return sum(values) / len(values)


# How many clips the report shows a crop of, and its largest side in pixels. The crops are part of
# the saved state, which should stay small.
CLIPS_SHOWN, SIDE_SHOWN = 4, 112


@dataclass(frozen=True)
class ShownCrop:
    """A crop of a clip's middle frame, (3, h, w) uint8.

    Attributes:
        clip: Name of the clip.
        frame: Number of the frame, from 0.
        hr: The ground truth.
        bicubic: By bicubic enlargement.
    """

    clip: str
    frame: int
    hr: Tensor
    bicubic: Tensor


@dataclass(frozen=True)
class Validation:
    """One validation.

    Attributes:
        step: After which step.
        scores: One for each clip.
        images: The output of the network for each `ShownCrop`.
    """

    step: int
    scores: list[ClipScore]
    images: list[Tensor]

    @property
    def loss(self) -> float:
        """The mean over the clips."""
        return sum(score.loss for score in self.scores) / len(self.scores)

    @property
    def psnr_y(self) -> float:
        """The mean over the clips, in dB."""
        return sum(score.together for score in self.scores) / len(self.scores)

    @property
    def bicubic(self) -> float:
        """The mean PSNR-Y of bicubic enlargement, in dB."""
        return sum(score.bicubic for score in self.scores) / len(self.scores)


class Validator:
    """Validates the averaged weights of a run, and remembers the best.

    Args:
        pairs: LR-HR clips by name; empty for no validation.
        recipe: Of the run; its loss is the criterion.
        criterion: Another criterion, see `validate`.

    Attributes:
        first: Of the weights at the start.
        best: Of the best weights, which may be those at the start.
        latest: Of the latest validated weights.
        crops: Crops of some clips, for the report.
    """

    def __init__(
        self, pairs: Mapping[str, Pair], recipe: Recipe, criterion: Criterion | None = None
    ) -> None:
        """Keep the clips; nothing is validated yet."""
        self.pairs, self._recipe, self._criterion = pairs, recipe, criterion
        names = list(pairs)
        stride = max(1, -(-len(names) // CLIPS_SHOWN))
        self._shown = set(names[::stride])
        self.first: Validation | None = None
        self.best: Validation | None = None
        self.latest: Validation | None = None
        self.crops: list[ShownCrop] = []

    def validate(self, network: nn.Module, step: int) -> bool:
        """Validate a network; returns whether it is the best so far."""
        crops: list[ShownCrop] = []
        images: list[Tensor] = []

        def keep(name: str, plain: Tensor, restored: Tensor) -> None:
            if name in self._shown:
                clip = self.pairs[name][1]
                frame, *place = _place_to_see(clip)
                hr, bicubic, image = (
                    _cut(frames[frame], *place) for frames in (clip, plain, restored)
                )
                crops.append(ShownCrop(name, frame, hr, bicubic))
                images.append(image)

        scores = validate(
            network,
            self.pairs,
            frequency_weight=self._recipe.frequency_weight,
            criterion=self._criterion,
            alone=False,
            show=keep,
        )
        self.latest = Validation(step, scores, images)
        self.first = self.first or self.latest
        self.crops = crops
        # Progress of the flow network alone does not show in frames yet.
        is_best = (
            self.best is None
            or self._recipe.stage is TrainingStage.FLOW
            or _rank_of(self.latest) < _rank_of(self.best)
        )
        if is_best:
            self.best = self.latest
        return is_best

    def state_dict(self) -> dict[str, Any]:
        """The validations so far, to be saved."""
        # The images of the latest validation are not needed later, unless it is the best as well.
        latest = None if self.latest is None else replace(self.latest, images=[])
        validations = {"first": self.first, "best": self.best, "latest": latest}
        kept = {name: None if x is None else _values_of(x) for name, x in validations.items()}
        crops = [
            {"clip": x.clip, "frame": x.frame, "truth": x.hr, "bicubic": x.bicubic}
            for x in self.crops
        ]
        return {**kept, "pieces": crops}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state."""
        self.first, self.best, self.latest = (
            None if state[name] is None else _validation_of(state[name])
            for name in ("first", "best", "latest")
        )
        self.crops = [
            ShownCrop(x["clip"], x["frame"], x["truth"], x["bicubic"]) for x in state["pieces"]
        ]


def _rank_of(validation: Validation) -> float:
    """The loss, with NaN as the worst."""
    return validation.loss if math.isfinite(validation.loss) else math.inf


def _values_of(validation: Validation) -> dict[str, Any]:
    scores = [asdict(score) for score in validation.scores]
    return {"step": validation.step, "scores": scores, "pictures": validation.images}


def _validation_of(values: dict[str, Any]) -> Validation:
    return Validation(
        values["step"], [ClipScore(**score) for score in values["scores"]], values["pictures"]
    )


def _place_to_see(clip: Tensor) -> tuple[int, slice, slice]:
    """Number of a clip's middle frame, and rows and columns of its most detailed square."""
    frame = len(clip) // 2
    height, width = clip.shape[-2:]
    side = min(SIDE_SHOWN, height, width)
    stride = max(1, side // 2)
    places = [
        (slice(top, top + side), slice(left, left + side))
        for top in range(0, height - side + 1, stride)
        for left in range(0, width - side + 1, stride)
    ]
    return frame, *max(places, key=lambda place: measure_detail(clip[frame, :, place[0], place[1]]))


def _cut(frame: Tensor, rows: slice, columns: slice) -> Tensor:
    """A copy of a crop of a frame (3, H, W), as (3, h, w) uint8."""
    crop = frame[:, rows, columns]
    if crop.is_floating_point():
        crop = (crop.nan_to_num() * 255).round().clamp(0, 255).to(torch.uint8)
    return crop.cpu().clone()
