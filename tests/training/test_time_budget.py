"""The time that a run has becomes a number of steps, most of it for learning."""

import pytest
import torch

from vsrm_cli.training import time_budget as clocks
from vsrm_cli.training.time_budget import STEPS_BEFORE_PLAN, TimeBudget

CPU = torch.device("cpu")


@pytest.fixture
def now(monkeypatch):
    """A clock on the wall that is set by hand."""

    class Wall:
        seconds = 100.0

        def monotonic(self):
            return self.seconds

    wall = Wall()
    monkeypatch.setattr(clocks, "time", wall)
    return wall


def do_steps(clock, now, *, seconds=1.0, count=STEPS_BEFORE_PLAN):
    for number in range(count):
        now.seconds += 10 * seconds if number == 0 else seconds
        clock.note_step()


def test_the_plan_fills_the_time_that_is_left(now):
    clock = TimeBudget(10, CPU)

    do_steps(clock, now)

    # 600 seconds, of which the first steps took 17; a twentieth is left for surprises.
    assert clock.plan(10) == (int(0.95 * 583), 10)


def test_there_is_no_plan_before_some_steps_are_timed(now):
    clock = TimeBudget(10, CPU)

    do_steps(clock, now, count=STEPS_BEFORE_PLAN - 1)

    assert clock.plan(10) is None


def test_time_for_validations_is_set_aside(now):
    clock = TimeBudget(10, CPU)
    with clock.untimed():
        now.seconds += 5

    do_steps(clock, now)

    assert clock.plan(10) == (int(0.95 * 578 - 10 * 5), 10)


def test_slow_validations_are_fewer_and_never_none(now):
    for seconds_each, count in ((50, 2), (400, 1)):
        clock = TimeBudget(10, CPU)
        with clock.untimed():
            now.seconds += seconds_each
        do_steps(clock, now)

        steps, validations = clock.plan(10)

        assert validations == count
        assert steps >= 1


def test_what_is_done_aside_is_no_part_of_a_step(now):
    clock = TimeBudget(10, CPU)

    do_steps(clock, now, seconds=2.0)
    with clock.untimed():
        now.seconds += 60
    now.seconds += 2
    clock.note_step()

    assert clock.steps_per_second() == pytest.approx(0.5)


def test_time_left_is_that_of_the_steps_or_of_the_time_whichever_ends_first(now):
    clock = TimeBudget(10, CPU)
    assert clock.seconds_left(None) == 600
    assert TimeBudget(float("inf"), CPU).seconds_left(None) is None

    do_steps(clock, now, count=30)

    assert clock.seconds_left(50) == pytest.approx(50)
    assert clock.seconds_left(100_000) == pytest.approx(600 - 39)


def test_the_time_is_up_when_it_is(now):
    clock = TimeBudget(10, CPU)

    now.seconds += 600
    assert not clock.is_up()
    now.seconds += 1
    assert clock.is_up()


def test_a_save_is_due_every_two_minutes(now):
    clock = TimeBudget(10, CPU)

    due = []
    for _ in range(5):
        now.seconds += 61
        due.append(clock.take_save_due())

    assert due == [False, True, False, True, False]
