"""Detects loss spikes and rolls the training back.

Too high a learning rate makes weights from which a network does not recover. The guard keeps copies
of the trainer's state in memory. After a loss spike it restores a copy that was followed by good
losses, and halves the learning rate; the training continues with other samples.
"""

import math
from collections import deque
from copy import deepcopy
from statistics import median
from typing import Any

from vsrm_cli.errors import OutputError
from vsrm_cli.training.trainer import StepLosses, Trainer

# How often a copy is made, and of how many losses the usual value is the median.
STEPS_BETWEEN_COPIES = 25
STEPS_REMEMBERED = 50

# How many times its usual value, and the bicubic baseline, a loss must reach. Losses are divided by
# that of the baseline on the same batch, so a batch with much detail is no spike.
SPIKE = 3.0

# A discriminator that is never wrong teaches nothing. It pauses long before
# (`vsrm_cli.training.perceptual.stage`), so a loss below this means that training has diverged.
MIN_DISCRIMINATOR_LOSS = 0.02

MAX_RETURNS = 3
# After this many good steps the counter starts again at zero; the lower rate stays.
CALM_STEPS = 500


class DivergenceGuard:
    """Watches one trainer.

    Args:
        trainer: Its present state counts as good.

    Attributes:
        returns: How many rollbacks there were lately.
    """

    def __init__(self, trainer: Trainer) -> None:
        """Copy the state of the trainer."""
        self.returns = 0
        self._trainer = trainer
        self._ratios: deque[float] = deque(maxlen=STEPS_REMEMBERED)
        self._discriminator_losses: deque[float] = deque(maxlen=STEPS_REMEMBERED)
        self._has_won = False
        self._steps_since_return = 0
        self._good = self._newest = deepcopy(trainer.state_dict())

    def accept(self, losses: StepLosses) -> bool:
        """Remember the losses of a step; False if no step can be made of them."""
        self._has_won = False
        if not math.isfinite(losses.loss) or not math.isfinite(losses.discriminator or 0.0):
            return False
        if losses.discriminator is not None:
            known = self._discriminator_losses
            known.append(losses.discriminator)
            is_full = len(known) == STEPS_REMEMBERED
            self._has_won = is_full and median(known) < MIN_DISCRIMINATOR_LOSS
            if self._has_won:
                return False
        baseline = 1.0 if losses.baseline is None else losses.baseline
        ratio = losses.loss / baseline if baseline else 1.0
        if self._ratios and ratio > SPIKE * max(1.0, median(self._ratios)):
            return False
        self._ratios.append(ratio)
        return True

    def note_step(self) -> None:
        """Count a step; to be called after each one."""
        self._steps_since_return += 1
        if self._steps_since_return == CALM_STEPS:
            self.returns = 0
        if self._steps_since_return % STEPS_BETWEEN_COPIES == 0:
            # The newest copy may already be damaged: the one before it was followed by good losses.
            self._good, self._newest = self._newest, deepcopy(self._trainer.state_dict())

    def roll_back(self) -> str:
        """Restore the last good state of the trainer, at half the learning rate.

        The discriminator's rate is halved, too; if it has won, only that one.

        Returns:
            What happened, in a clause.

        Raises:
            OutputError: If this has been tried too often; the state is restored all the same.
        """
        trainer, failed_at = self._trainer, self._trainer.step
        self._discriminator_losses.clear()
        self.returns += 1
        self._steps_since_return = 0
        what = "the discriminator won" if self._has_won else "the loss exploded"
        if self.returns > MAX_RETURNS:
            trainer.load_state_dict(self._good)
            way_out = (
                "a smaller --discriminator-lr or a larger --adversarial-weight"
                if self._has_won
                else f"a --lr below {trainer.recipe.lr:g}"
            )
            raise OutputError(
                f"{what.capitalize()} again at step {failed_at}, after {MAX_RETURNS} returns to a "
                f"good state with half the rate; the best weights so far are kept. Start again "
                f"with {way_out}."
            )
        trainer.back_off(self._good, is_network_slower=not self._has_won)
        self._newest = self._good
        rate = "the discriminator's rate" if self._has_won else "the learning rate"
        return (
            f"{what} at step {failed_at}: back to step {trainer.step}, with half {rate} and other "
            f"samples"
        )

    def state_dict(self) -> dict[str, Any]:
        """The state of the guard, to be saved."""
        return {
            "returns": self.returns,
            "ratios": list(self._ratios),
            "steps_since_return": self._steps_since_return,
            "mistakes": list(self._discriminator_losses),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state."""
        self.returns = state["returns"]
        self._ratios.extend(state["ratios"])
        self._steps_since_return = state["steps_since_return"]
        # Missing in runs of former versions.
        self._discriminator_losses.extend(state.get("mistakes", ()))
