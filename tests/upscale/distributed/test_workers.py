"""Processes share tasks, and the work survives the loss of one."""

import re
import sys
from functools import partial

import pool_workers
import pytest

from vsrm_cli.errors import InputError, VsrmError
from vsrm_cli.upscale.distributed.workers import Workers


def do(open_worker, tasks, *, devices=("a", "b"), should_stop=lambda: False, patience=60, **more):
    """Do tasks: the results by their tasks, what each device did, and the warnings."""
    warnings = []
    with Workers(open_worker, devices, warn=warnings.append) as workers:
        workers.facts()
        workers.timeout_seconds = patience
        done = [result for result in workers.do(tasks, should_stop=should_stop, **more) if result]
        shares = workers.shares()
    return dict(done), shares, warnings


def test_all_tasks_are_done_by_all_devices():
    results, shares, warnings = do(pool_workers.Slow, range(1, 7))

    assert results == {number: number**2 for number in range(1, 7)}
    assert sum(count for _, count in shares) == 6
    assert all(count > 0 for _, count in shares)
    assert warnings == []


def test_a_worker_reports_its_facts():
    with Workers(pool_workers.Squaring, ["a", "b"], warn=pytest.fail) as workers:
        assert workers.facts() == ["on a", "on b"]


def test_an_unusable_device_is_reported_before_the_work():
    with pytest.raises(VsrmError, match=r"^b cannot be used: There is no device b\.$"):
        do(pool_workers.Unusable, [1, 2])


def test_a_task_that_fails_three_times_ends_the_work_with_its_error():
    with pytest.raises(InputError, match=r"^3 failed 3 times: 3 is no good\.$"):
        do(pool_workers.Failing, [1, 2, 3, 4])


def test_a_bug_ends_the_work_with_its_traceback():
    with pytest.raises(VsrmError, match="failed 3 times: ZeroDivisionError: by zero") as failure:
        do(pool_workers.Broken, [1])

    assert "in work" in str(failure.value.__cause__)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_process_that_is_killed_is_started_again_and_nothing_is_lost(tmp_path):
    results, _, warnings = do(
        partial(pool_workers.Dying, str(tmp_path)), [1, 2, 3, 4], devices=["a"]
    )

    assert results == {1: 1, 2: 4, 3: 9, 4: 16}
    assert len(warnings) == 1
    assert warnings[0].startswith("a: 3 failed (the process ended with SIGKILL")


def test_a_process_that_hangs_is_ended_and_its_task_given_to_another(tmp_path, monkeypatch):
    # On a busy machine, twenty of its pauses would be minutes.
    monkeypatch.setattr("vsrm_cli.upscale.distributed.workers.TIMEOUT_PAUSES", 2)
    results, _, warnings = do(
        partial(pool_workers.Hanging, str(tmp_path)), [1, 2, 3, 4, 5], devices=["a"], patience=2
    )

    assert results == {1: 1, 2: 4, 3: 9, 4: 16, 5: 25}
    assert len(warnings) == 1
    assert re.match(r"a: 3 failed \(it sent no message for \d+ s\)", warnings[0])


def test_a_slow_process_is_given_time():
    results, _, warnings = do(pool_workers.Slowing, [2, 10], devices=["a"], patience=0.5)

    assert (results, warnings) == ({2: 4, 10: 100}, [])


def test_a_restarted_worker_on_other_hardware_is_not_used(tmp_path):
    def accept(facts):
        if facts != "the first":
            raise VsrmError(f"it is {facts}")

    with pytest.raises(VsrmError, match=r"^No device is left: it is another$"):
        do(partial(pool_workers.Changing, str(tmp_path)), [3, 4], devices=["a"], accept=accept)


def test_stopping_returns_the_tasks_in_progress():
    asked = iter(range(100))

    results, *_ = do(pool_workers.Slow, range(1, 50), should_stop=lambda: next(asked) >= 3)

    assert 0 < len(results) < 10
