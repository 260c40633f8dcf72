"""How good a network is on unseen clips, beside bicubic and beside itself without time."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.data.degradations import SCALE, shrink_bicubic
from vsrm_cli.data.packs import detail
from vsrm_cli.evaluation.metrics import psnr_y
from vsrm_cli.training.losses import restoration_loss
from vsrm_cli.training.recipe import Recipe, Stage

# Small frames, (T, 3, H, W), and sharp ones, (T, 3, scale H, scale W), both uint8.
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
        network: Maps (B, T, 3, H, W) to (B, T, 3, scale H, scale W); its mode is left as it is.
        pairs: Clips by name, such as those of `with_lr_frames` or
            `vsrm_cli.data.validation_clips.validation_pairs`.
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
                small, size=sharp.shape[-2:], mode="bicubic", antialias=True, align_corners=False
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


def with_lr_frames(clips: Mapping[str, Tensor], *, scale: int = SCALE) -> dict[str, Pair]:
    """Shrink clips as the literature's BI does.

    Args:
        clips: Sharp clips by name, (T, 3, H, W) uint8, sides multiples of the scale.
        scale: How many times smaller the LR frames are.
    """
    pairs = {}
    for name, sharp in clips.items():
        small = shrink_bicubic(sharp.float() / 255, scale=scale)
        pairs[name] = ((small * 255).round().to(torch.uint8), sharp)
    return pairs


def _restoration_loss(restored: Tensor, sharp: Tensor, *, frequency_weight: float) -> float:
    return restoration_loss(restored, sharp, frequency_weight=frequency_weight).item()


def _mean_psnr(restored: Tensor, sharp: Tensor) -> float:
    values = [psnr_y(a, b) for a, b in zip(restored, sharp, strict=True)]
    return sum(values) / len(values)


# Of how many clips a piece is kept for the report, and its greatest side in pixels: they are part
# of the state, which shall stay small.
CLIPS_SHOWN, SIDE_SHOWN = 4, 112


@dataclass(frozen=True)
class ShownCrop:
    """A piece of a clip's middle frame, as (3, h, w) uint8.

    Attributes:
        clip: Name of the clip.
        frame: Number of the frame, from 0.
        truth: The sharp one.
        bicubic: By plain enlargement.
    """

    clip: str
    frame: int
    truth: Tensor
    bicubic: Tensor


@dataclass(frozen=True)
class Validation:
    """One validation.

    Attributes:
        step: After which step.
        scores: One for each clip.
        pictures: What the network makes of each `ShownCrop`.
    """

    step: int
    scores: list[Score]
    pictures: list[Tensor]

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
        """The mean PSNR-Y of plain enlargement, in dB."""
        return sum(score.bicubic for score in self.scores) / len(self.scores)


class Validator:
    """Validates the average of a run now and then.

    Args:
        pairs: Clips by name, see `vsrm_cli.training.validation`; none for no validation.
        recipe: Of the run; its loss is validated.
        criterion: What is validated instead, see `validate`.

    Attributes:
        first: Of the weights at the start.
        best: Of the best weights, which may be those at the start.
        latest: Of the last weights that were looked at.
        pieces: Of some clips, to look at.
    """

    def __init__(
        self, pairs: Mapping[str, Pair], recipe: Recipe, criterion: Criterion | None = None
    ) -> None:
        """Remember the clips."""
        self.pairs, self._recipe, self._criterion = pairs, recipe, criterion
        names = list(pairs)
        stride = max(1, -(-len(names) // CLIPS_SHOWN))
        self._shown = set(names[::stride])
        self.first: Validation | None = None
        self.best: Validation | None = None
        self.latest: Validation | None = None
        self.pieces: list[ShownCrop] = []

    def look(self, network: nn.Module, step: int) -> bool:
        """Validate a network; whether it is the best so far."""
        pieces: list[ShownCrop] = []
        pictures: list[Tensor] = []

        def keep(name: str, plain: Tensor, restored: Tensor) -> None:
            if name in self._shown:
                frame, *place = _place_to_see(self.pairs[name][1])
                truth, bicubic, picture = (
                    _cut(frames[frame], *place) for frames in (self.pairs[name][1], plain, restored)
                )
                pieces.append(ShownCrop(name, frame, truth, bicubic))
                pictures.append(picture)

        scores = validate(
            network,
            self.pairs,
            frequency_weight=self._recipe.frequency_weight,
            criterion=self._criterion,
            alone=False,
            show=keep,
        )
        self.latest = Validation(step, scores, pictures)
        self.first = self.first or self.latest
        self.pieces = pieces
        # What the flow network has learned by itself does not show in pictures yet.
        is_best = (
            self.best is None
            or self._recipe.stage is Stage.FLOW
            or _rank_of(self.latest) < _rank_of(self.best)
        )
        if is_best:
            self.best = self.latest
        return is_best

    def state(self) -> dict[str, Any]:
        """What was seen so far, in a form that can be saved."""
        # The pictures of the latest are shown to nobody later, unless it is the best as well.
        latest = None if self.latest is None else replace(self.latest, pictures=[])
        verdicts = {"first": self.first, "best": self.best, "latest": latest}
        kept = {name: None if x is None else asdict(x) for name, x in verdicts.items()}
        return {**kept, "pieces": [asdict(piece) for piece in self.pieces]}

    def restore(self, state: dict[str, Any]) -> None:
        """Remember what a former judge has seen."""
        self.first, self.best, self.latest = (
            None if state[name] is None else _verdict_of(state[name])
            for name in ("first", "best", "latest")
        )
        self.pieces = [ShownCrop(**piece) for piece in state["pieces"]]


def _rank_of(verdict: Validation) -> float:
    """The loss; of weights that give no numbers, the worst one."""
    return verdict.loss if math.isfinite(verdict.loss) else math.inf


def _verdict_of(values: dict[str, Any]) -> Validation:
    return Validation(
        values["step"], [Score(**score) for score in values["scores"]], values["pictures"]
    )


def _place_to_see(clip: Tensor) -> tuple[int, slice, slice]:
    """Number, rows and columns of the most detailed square of a clip's middle frame."""
    frame = len(clip) // 2
    height, width = clip.shape[-2:]
    side = min(SIDE_SHOWN, height, width)
    stride = max(1, side // 2)
    places = [
        (slice(top, top + side), slice(left, left + side))
        for top in range(0, height - side + 1, stride)
        for left in range(0, width - side + 1, stride)
    ]
    return frame, *max(places, key=lambda place: detail(clip[frame, :, place[0], place[1]]))


def _cut(frame: Tensor, rows: slice, columns: slice) -> Tensor:
    """A piece of a frame, (3, H, W), as (3, h, w) uint8 of its own."""
    piece = frame[:, rows, columns]
    if piece.is_floating_point():
        piece = (piece.nan_to_num() * 255).round().clamp(0, 255).to(torch.uint8)
    return piece.cpu().clone()
