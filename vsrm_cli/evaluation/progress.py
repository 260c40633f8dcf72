"""Progress of a measurement over many clips, with the remaining time."""

import time
from collections.abc import Callable

from vsrm_cli.report.units import format_duration

SECONDS_BETWEEN_LINES = 10.0


class MeasurementProgress:
    """Reports the current clip and method, and the remaining time."""

    def __init__(self, report: Callable[[str], None], *, clips: int, steps: int) -> None:
        """Start the clock.

        Args:
            report: Called at the start of each clip and every few seconds.
            clips: Number of clips.
            steps: Steps of each clip; all take about equally long.
        """
        self._report = report
        self._clips, self._steps = clips, steps
        self._clip, self._step = "", 0
        self._number = 0
        self._began = time.monotonic()
        self._is_due_at = self._began

    def next_clip(self, name: str) -> None:
        """Start a clip."""
        self._clip, self._step = name, 0
        self._number += 1
        self._is_due_at = time.monotonic()
        self._report_line("")

    def next_step(self, name: str) -> None:
        """Start a step of the clip."""
        self._report_line(f", {name}")
        self._step += 1

    def _report_line(self, step: str) -> None:
        now = time.monotonic()
        if now < self._is_due_at:
            return
        self._is_due_at = now + SECONDS_BETWEEN_LINES
        done = self._number - 1 + self._step / self._steps
        left = ""
        if done:
            seconds = (now - self._began) / done * (self._clips - done)
            left = f", about {format_duration(seconds)} left"
        self._report(f"clip {self._number} of {self._clips}: {self._clip}{step}{left}")
