"""Which weights of a run are the best: those whose average does best on clips set aside.

The weights at the start take part. So a run never hands on what is worse than what it was given,
and says so where nothing was better.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vsrm_cli.learning.recipe import Recipe, Stage
from vsrm_cli.training.packs import detail
from vsrm_cli.training.validation import Score, validate

# Of how many clips a piece is kept for the report, and its greatest side in pixels.
CLIPS_SHOWN, SIDE_SHOWN = 6, 160


@dataclass(frozen=True)
class Piece:
    """A piece of a clip's middle frame, as (3, h, w) uint8.

    Attributes:
        clip: Name of the clip.
        frame: Number of the frame, from 0.
        truth: The sharp one.
        bicubic: By plain enlargement.
        network: By the network.
    """

    clip: str
    frame: int
    truth: Tensor
    bicubic: Tensor
    network: Tensor


@dataclass(frozen=True)
class Verdict:
    """One validation.

    Attributes:
        step: After which step.
        scores: One for each clip.
        pieces: Of the first clips.
    """

    step: int
    scores: list[Score]
    pieces: list[Piece]

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


class Judge:
    """Validates the average of a run now and then.

    Args:
        clips: Sharp clips by name, (T, 3, H, W) uint8; none for a run without validation.
        recipe: Of the run; its loss and its degradation are validated.

    Attributes:
        first: Of the weights at the start.
        best: Of the best weights, which may be those at the start.
        latest: Of the last weights that were looked at.
    """

    def __init__(self, clips: Mapping[str, Tensor], recipe: Recipe) -> None:
        """Remember the clips."""
        self.clips, self._recipe = clips, recipe
        self.first: Verdict | None = None
        self.best: Verdict | None = None
        self.latest: Verdict | None = None

    def look(self, network: nn.Module, step: int) -> bool:
        """Validate a network; whether it is the best so far."""
        pieces: list[Piece] = []

        def keep(name: str, plain: Tensor, restored: Tensor) -> None:
            if len(pieces) < CLIPS_SHOWN:
                pieces.append(_piece(name, self.clips[name], plain, restored))

        scores = validate(
            network,
            self.clips,
            degradation=self._recipe.degradation,
            frequency_weight=self._recipe.frequency_weight,
            alone=False,
            show=keep,
        )
        self.latest = Verdict(step, scores, pieces)
        self.first = self.first or self.latest
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
        return {
            name: None if verdict is None else asdict(verdict)
            for name, verdict in (
                ("first", self.first),
                ("best", self.best),
                ("latest", self.latest),
            )
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Remember what a former judge has seen."""
        self.first, self.best, self.latest = (
            None if state[name] is None else _verdict_of(state[name])
            for name in ("first", "best", "latest")
        )


def _rank_of(verdict: Verdict) -> float:
    """The loss; of weights that give no numbers, the worst one."""
    return verdict.loss if math.isfinite(verdict.loss) else math.inf


def _verdict_of(values: dict[str, Any]) -> Verdict:
    return Verdict(
        values["step"],
        [Score(**score) for score in values["scores"]],
        [Piece(**piece) for piece in values["pieces"]],
    )


def _piece(name: str, clip: Tensor, plain: Tensor, restored: Tensor) -> Piece:
    """The most detailed square of a clip's middle frame."""
    frame = len(clip) // 2
    height, width = clip.shape[-2:]
    side = min(SIDE_SHOWN, height, width)
    stride = max(1, side // 2)
    places = [
        (slice(top, top + side), slice(left, left + side))
        for top in range(0, height - side + 1, stride)
        for left in range(0, width - side + 1, stride)
    ]
    rows, columns = max(places, key=lambda place: detail(clip[frame, :, place[0], place[1]]))

    def cut(pictures: Tensor) -> Tensor:
        piece = pictures[frame, :, rows, columns]
        if piece.is_floating_point():
            piece = (piece.nan_to_num() * 255).round().clamp(0, 255).to(torch.uint8)
        return piece.cpu().clone()

    return Piece(name, frame, cut(clip), cut(plain), cut(restored))
