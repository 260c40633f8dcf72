"""A time limit becomes a number of steps, with time reserved for validations."""

import pytest
import torch

from vsrm_cli.training import time_budget
from vsrm_cli.training.time_budget import STEPS_BEFORE_PLAN, TimeBudget

CPU = torch.device("cpu")


@pytest.fixture
def now(monkeypatch):
    """A fake monotonic clock, set by hand."""

    class FakeTime:
        seconds = 100.0

        def monotonic(self):
            return self.seconds

    fake_time = FakeTime()
    monkeypatch.setattr(time_budget, "time", fake_time)
    return fake_time


def do_steps(budget, now, *, seconds=1.0, count=STEPS_BEFORE_PLAN):
    for number in range(count):
        now.seconds += 10 * seconds if number == 0 else seconds
        budget.note_step()


def test_the_planned_steps_fill_the_remaining_time(now):
    budget = TimeBudget(10, CPU)

    do_steps(budget, now)

    # 600 seconds, of which the first steps took 17; a twentieth is kept in reserve.
    assert budget.plan(10) == (int(0.95 * 583), 10)


def test_nothing_is_planned_before_some_steps_are_timed(now):
    budget = TimeBudget(10, CPU)

    do_steps(budget, now, count=STEPS_BEFORE_PLAN - 1)

    assert budget.plan(10) is None


def test_time_is_reserved_for_validations(now):
    budget = TimeBudget(10, CPU)
    with budget.untimed():
        now.seconds += 5

    do_steps(budget, now)

    assert budget.plan(10) == (int(0.95 * 578 - 10 * 5), 10)


def test_slow_validations_are_fewer_but_at_least_one(now):
    for seconds_each, count in ((50, 2), (400, 1)):
        budget = TimeBudget(10, CPU)
        with budget.untimed():
            now.seconds += seconds_each
        do_steps(budget, now)

        steps, validations = budget.plan(10)

        assert validations == count
        assert steps >= 1


def test_validation_time_does_not_count_as_step_time(now):
    budget = TimeBudget(10, CPU)

    do_steps(budget, now, seconds=2.0)
    with budget.untimed():
        now.seconds += 60
    now.seconds += 2
    budget.note_step()

    assert budget.steps_per_second() == pytest.approx(0.5)


def test_the_time_left_is_that_of_the_steps_or_the_limit_whichever_ends_first(now):
    budget = TimeBudget(10, CPU)
    assert budget.seconds_left(None) == 600
    assert TimeBudget(float("inf"), CPU).seconds_left(None) is None

    do_steps(budget, now, count=30)

    assert budget.seconds_left(50) == pytest.approx(50)
    assert budget.seconds_left(100_000) == pytest.approx(600 - 39)


def test_the_time_is_up_after_its_minutes_and_not_before(now):
    budget = TimeBudget(10, CPU)

    now.seconds += 600
    assert not budget.is_up()
    now.seconds += 1
    assert budget.is_up()


def test_a_checkpoint_is_due_every_two_minutes(now):
    budget = TimeBudget(10, CPU)

    due = []
    for _ in range(5):
        now.seconds += 61
        due.append(budget.take_save_due())

    assert due == [False, True, False, True, False]
