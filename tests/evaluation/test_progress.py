"""Long measurements report their progress and the remaining time."""

import pytest

from vsrm_cli.evaluation import progress
from vsrm_cli.evaluation.progress import MeasurementProgress


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds; a list of one number, to be changed."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_follows_from_the_steps_that_are_done(clock):
    told = []
    waiting = MeasurementProgress(told.append, clips=2, steps=2)

    for clip in ("sea", "sky"):
        waiting.next_clip(clip)
        for step in ("vsrm-t", "comparing"):
            waiting.next_step(step)
            clock[0] += 15

    assert told == [
        "clip 1 of 2: sea",
        "clip 1 of 2: sea, comparing, about 0:45 left",
        "clip 2 of 2: sky, about 0:30 left",
        "clip 2 of 2: sky, comparing, about 0:15 left",
    ]


def test_fast_clips_have_one_line_of_progress_each(clock):
    told = []
    waiting = MeasurementProgress(told.append, clips=50, steps=3)

    for _ in range(50):
        waiting.next_clip("sea")
        for step in ("one", "two", "three"):
            waiting.next_step(step)
            clock[0] += 0.01

    assert len(told) == 50
