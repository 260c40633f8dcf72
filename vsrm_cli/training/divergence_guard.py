"""Accidents of training: they are noticed, undone, and bounded.

A learning rate that is too high makes weights from which a network does not recover. The guard
keeps copies of the learner in memory. Where a loss cannot be trusted any more, it puts the learner
back to a copy that was followed by good losses, and halves the rate; whoever drives it goes on
with other samples.
"""

import math
from collections import deque
from copy import deepcopy
from statistics import median
from typing import Any

from vsrm_cli.errors import OutputError
from vsrm_cli.training.trainer import Learner, Lesson

# How often a copy is made, and how many losses tell what is usual.
STEPS_BETWEEN_COPIES = 25
STEPS_REMEMBERED = 50

# How much worse than usual, and than plain enlargement, a loss has to be. Losses are compared with
# that of plain enlargement on the same batch, so a batch of rich pictures is no accident.
SPIKE = 3.0

# A discriminator that is never wrong any more teaches nothing, and what it says is not to be
# followed. It rests long before (`vsrm_cli.training.perceptual.stage`), so this is an accident.
WON_BELOW = 0.02

MAX_RETURNS = 3
# After so many good steps, accidents are forgotten; the lower rate stays.
CALM_STEPS = 500


class Guard:
    """Watches one learner.

    Args:
        learner: As it is now, it is taken for good.

    Attributes:
        returns: How often the learner had to be put back lately.
    """

    def __init__(self, learner: Learner) -> None:
        """Copy the learner."""
        self.returns = 0
        self._learner = learner
        self._ratios: deque[float] = deque(maxlen=STEPS_REMEMBERED)
        self._mistakes: deque[float] = deque(maxlen=STEPS_REMEMBERED)
        self._has_won = False
        self._steps_since_return = 0
        self._good = self._newest = deepcopy(learner.state())

    def trusts(self, lesson: Lesson) -> bool:
        """Whether a step should be made of a lesson; if so, it is remembered."""
        self._has_won = False
        if not math.isfinite(lesson.loss) or not math.isfinite(lesson.discriminator or 0.0):
            return False
        if lesson.discriminator is not None:
            self._mistakes.append(lesson.discriminator)
            is_known = len(self._mistakes) == STEPS_REMEMBERED
            self._has_won = is_known and median(self._mistakes) < WON_BELOW
            if self._has_won:
                return False
        ratio = lesson.loss / lesson.plain if lesson.plain else 1.0
        if self._ratios and ratio > SPIKE * max(1.0, median(self._ratios)):
            return False
        self._ratios.append(ratio)
        return True

    def note_step(self) -> None:
        """To be called after each step."""
        self._steps_since_return += 1
        if self._steps_since_return == CALM_STEPS:
            self.returns = 0
        if self._steps_since_return % STEPS_BETWEEN_COPIES == 0:
            # The newest copy may hold the accident already: good is the one that all losses
            # since the last copy speak for.
            self._good, self._newest = self._newest, deepcopy(self._learner.state())

    def go_back(self) -> str:
        """Put the learner back to its last good state, at half the learning rate.

        Where there is a discriminator its rate is halved, too; where it has won, its rate alone.

        Returns:
            What has happened, in a clause.

        Raises:
            OutputError: If that did not help several times already; the learner is put back.
        """
        learner, failed_at, perceptual = self._learner, self._learner.step, self._learner.perceptual
        brake = learner.brake if self._has_won else learner.brake / 2
        opponent_brake = perceptual.brake / 2 if perceptual else 1.0
        learner.restore(self._good)
        self._mistakes.clear()
        self.returns += 1
        self._steps_since_return = 0
        what = "the discriminator won" if self._has_won else "the loss exploded"
        if self.returns > MAX_RETURNS:
            way_out = (
                "a smaller --discriminator-lr or a larger --adversarial-weight"
                if self._has_won
                else f"a --lr below {learner.recipe.lr:g}"
            )
            raise OutputError(
                f"{what.capitalize()} again at step {failed_at}, after {MAX_RETURNS} returns to a "
                f"good state with half the rate; the best weights so far are kept. Start again "
                f"with {way_out}."
            )
        learner.brake = brake
        if perceptual:
            perceptual.brake = opponent_brake
        self._newest = self._good
        rate = "the discriminator's rate" if self._has_won else "the learning rate"
        return (
            f"{what} at step {failed_at}: back to step {learner.step}, with half {rate} and other "
            f"samples"
        )

    def state(self) -> dict[str, Any]:
        """All that a later guard needs to decide as this one would."""
        return {
            "returns": self.returns,
            "ratios": list(self._ratios),
            "steps_since_return": self._steps_since_return,
            "mistakes": list(self._mistakes),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the guard whose state this is."""
        self.returns = state["returns"]
        self._ratios.extend(state["ratios"])
        self._steps_since_return = state["steps_since_return"]
        self._mistakes.extend(state.get("mistakes", ()))  # of runs begun before there were any
