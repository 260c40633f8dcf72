"""How far a measurement over many clips is, and how long the rest will take."""

import time
from collections.abc import Callable

from vsrm_cli.report.units import in_time

SECONDS_BETWEEN_LINES = 10.0


class Countdown:
    """Tells which clip is measured, by which method, and how long the rest will take."""

    def __init__(self, report: Callable[[str], None], *, clips: int, steps: int) -> None:
        """Start the clock.

        Args:
            report: Is told: at the beginning of each clip, and later every few seconds.
            clips: How many there are.
            steps: Of each clip; all take about as long.
        """
        self._report = report
        self._clips, self._steps = clips, steps
        self._clip, self._step = "", 0
        self._number = 0
        self._began = time.monotonic()
        self._is_due_at = self._began

    def next_clip(self, name: str) -> None:
        """A clip begins."""
        self._clip, self._step = name, 0
        self._number += 1
        self._is_due_at = time.monotonic()
        self._tell("")

    def next_step(self, name: str) -> None:
        """A step of the clip begins."""
        self._tell(f", {name}")
        self._step += 1

    def _tell(self, step: str) -> None:
        now = time.monotonic()
        if now < self._is_due_at:
            return
        self._is_due_at = now + SECONDS_BETWEEN_LINES
        done = self._number - 1 + self._step / self._steps
        left = ""
        if done:
            seconds = (now - self._began) / done * (self._clips - done)
            left = f", about {in_time(seconds)} left"
        self._report(f"clip {self._number} of {self._clips}: {self._clip}{step}{left}")
