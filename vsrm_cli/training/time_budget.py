"""How fast a run is, and what its time allows."""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vsrm_cli.training.distributed import all_reduce_max

# Where the time decides how many steps there are: after how many of them that is decided, from
# which one on they are timed (the first ones take longer), which share of the time is planned, and
# how much of that may go into validations.
STEPS_BEFORE_PLAN, STEPS_UNTIMED, PLANNED_SHARE, VALIDATED_SHARE = 8, 3, 0.95, 0.2

SECONDS_BETWEEN_SAVES = 120.0


class TimeBudget:
    """Times one call of the training loop.

    Args:
        minutes: How long it may take; infinity for any time.
        device: Of the network; processes agree by way of it.
    """

    def __init__(self, minutes: float, device: torch.device) -> None:
        """Start."""
        self._minutes, self._device = minutes, device
        self._began = self._last_save = self._mark = time.monotonic()
        self._steps_done = 0
        self._seconds: deque[float] = deque(maxlen=20)
        self._seconds_of_look = 0.0

    def note_step(self) -> None:
        """To be called after each step; what came since the last call belongs to it."""
        now = time.monotonic()
        self._steps_done += 1
        if self._steps_done > STEPS_UNTIMED:
            self._seconds.append(now - self._mark)
        self._mark = now

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is done inside is no part of a step; the longest such thing is remembered."""
        began = time.monotonic()
        yield
        now = time.monotonic()
        self._seconds_of_look = max(self._seconds_of_look, now - began)
        self._mark += now - began

    def is_up(self) -> bool:
        """Whether the time is up in any of the processes."""
        is_up = time.monotonic() - self._began > 60 * self._minutes
        return all_reduce_max(is_up, self._device) > 0

    def is_save_due(self) -> bool:
        """Whether the last save was a while ago; if so, the next one is counted from now on."""
        now = time.monotonic()
        is_due = now - self._last_save > SECONDS_BETWEEN_SAVES
        if is_due:
            self._last_save = now
        return is_due

    def plan(self, validations: int) -> tuple[int, int] | None:
        """How many more steps fit into the time, and beside how many validations.

        Args:
            validations: How many are wished for. There are fewer where they would take too much
                of the time, but one in any case.

        Returns:
            Steps and validations; None as long as too few steps have been timed.
        """
        if self._steps_done < STEPS_BEFORE_PLAN:
            return None
        left = PLANNED_SHARE * (60 * self._minutes - (time.monotonic() - self._began))
        # Of the processes, the slowest one decides.
        look = all_reduce_max(self._seconds_of_look, self._device)
        step = all_reduce_max(sum(self._seconds) / len(self._seconds), self._device)
        affordable = int(VALIDATED_SHARE * left / look) if look else validations
        looks = max(1, min(validations, affordable))
        return max(1, int((left - looks * look) / step)), looks

    def steps_per_second(self) -> float | None:
        """Lately; None at first."""
        return len(self._seconds) / sum(self._seconds) if self._seconds else None

    def seconds_left(self, steps: int | None) -> float | None:
        """Until so many more steps are done, or the time is up; None if neither is known."""
        rate = self.steps_per_second()
        needed = math.inf if steps is None or rate is None else steps / rate
        left = min(needed, 60 * self._minutes - (time.monotonic() - self._began))
        return None if math.isinf(left) else max(0.0, left)
