"""How fast a run is, and how many steps fit into its time budget."""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vsrm_cli.training.distributed import all_reduce_max

# If the time budget decides the number of steps: after how many steps it is decided, how many of
# them are not timed (the first ones take longer), which share of the time is planned, and how much
# of that may go into validations.
STEPS_BEFORE_PLAN, STEPS_UNTIMED, PLANNED_SHARE, VALIDATED_SHARE = 8, 3, 0.95, 0.2

SECONDS_BETWEEN_SAVES = 120.0


class TimeBudget:
    """Times one call of the training loop.

    Args:
        minutes: The budget; infinity for none.
        device: Of the network; the processes reduce over it.
    """

    def __init__(self, minutes: float, device: torch.device) -> None:
        """Start."""
        self._minutes, self._device = minutes, device
        self._began = self._last_save = self._mark = time.monotonic()
        self._steps_done = 0
        self._seconds: deque[float] = deque(maxlen=20)
        self._seconds_per_validation = 0.0

    def note_step(self) -> None:
        """Count a step; it took the time since the last call."""
        now = time.monotonic()
        self._steps_done += 1
        if self._steps_done > STEPS_UNTIMED:
            self._seconds.append(now - self._mark)
        self._mark = now

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """Time spent inside does not count as part of a step; the longest is remembered."""
        began = time.monotonic()
        yield
        now = time.monotonic()
        self._seconds_per_validation = max(self._seconds_per_validation, now - began)
        self._mark += now - began

    def is_up(self) -> bool:
        """Whether the time is up in any of the processes."""
        is_up = time.monotonic() - self._began > 60 * self._minutes
        return all_reduce_max(is_up, self._device) > 0

    def take_save_due(self) -> bool:
        """Whether a save is due; if so, the next one is timed from now."""
        now = time.monotonic()
        is_due = now - self._last_save > SECONDS_BETWEEN_SAVES
        if is_due:
            self._last_save = now
        return is_due

    def plan(self, validations: int) -> tuple[int, int] | None:
        """How many more steps and validations fit into the time.

        Args:
            validations: How many there should be. There are fewer if they would take too much of
                the time, but at least one.

        Returns:
            Steps and validations; None as long as too few steps have been timed.
        """
        if self._steps_done < STEPS_BEFORE_PLAN:
            return None
        left = PLANNED_SHARE * (60 * self._minutes - (time.monotonic() - self._began))
        # The slowest process decides.
        seconds_each = all_reduce_max(self._seconds_per_validation, self._device)
        step = all_reduce_max(sum(self._seconds) / len(self._seconds), self._device)
        affordable = int(VALIDATED_SHARE * left / seconds_each) if seconds_each else validations
        count = max(1, min(validations, affordable))
        return max(1, int((left - count * seconds_each) / step)), count

    def steps_per_second(self) -> float | None:
        """Over the last steps; None at first."""
        return len(self._seconds) / sum(self._seconds) if self._seconds else None

    def seconds_left(self, steps: int | None) -> float | None:
        """Until this many more steps are done, or the time is up; None if neither is known."""
        rate = self.steps_per_second()
        needed = math.inf if steps is None or rate is None else steps / rate
        left = min(needed, 60 * self._minutes - (time.monotonic() - self._began))
        return None if math.isinf(left) else max(0.0, left)
