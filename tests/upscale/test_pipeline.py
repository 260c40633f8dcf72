"""Three stages at once: all items, in order, and one clean end whichever stage fails."""

import threading
import time

import pytest

from vsrm_cli.upscale.pipeline import ReadAhead, Timer, WriteBehind, run_stages


def run(read, restore, write, **changes):
    options = {"read_depth": 2, "write_depth": 2, "frames_expected": None, "report": None}
    run_stages(read, restore, write, **(options | changes))


def fail_after(count, error):
    yield from range(count)
    raise error


def wait_until(is_reached):
    deadline = time.monotonic() + 5
    while not is_reached() and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def no_thread_is_left_behind():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("depth", [1, 7])
def test_every_item_arrives_once_and_in_order(count, depth):
    written = []

    run(range(count), iter, written.append, read_depth=depth, write_depth=depth)

    assert written == list(range(count))


def test_each_stage_has_a_thread_of_its_own_and_the_middle_one_is_the_callers():
    threads = {}

    def rewrite(items, stage):
        for item in items:
            threads[stage] = threading.current_thread()
            yield item

    run(
        rewrite(range(3), "read"),
        lambda items: rewrite(items, "restore"),
        lambda item: threads.update(write=threading.current_thread()),
    )

    assert threads["restore"] is threading.current_thread()
    assert len(set(threads.values())) == 3


def test_the_reader_is_ahead_by_the_queue_length_only():
    read = []

    with ReadAhead((read.append(i) or i for i in range(100)), depth=3) as ahead:
        first = next(iter(ahead))
        wait_until(lambda: len(read) >= 5)
        time.sleep(0.05)

    # One was taken, three wait in the queue, and one is in the hands of the thread.
    assert first == 0
    assert len(read) == 5


def test_a_slow_writer_blocks_the_caller():
    gate = threading.Event()
    put = []

    def hand_over(behind):
        for item in range(10):
            behind.put(item)
            put.append(item)

    with WriteBehind(lambda item: gate.wait(5), depth=2) as behind:
        caller = threading.Thread(target=hand_over, args=(behind,))
        caller.start()
        wait_until(lambda: len(put) >= 3)
        time.sleep(0.05)
        held_back_at = len(put)
        gate.set()
        caller.join()
        behind.finish()

    assert held_back_at == 3
    assert behind.timer.items == 10


def test_an_error_of_the_reader_is_raised_after_earlier_items():
    written = []

    with pytest.raises(OSError, match="disk"):
        run(fail_after(3, OSError("disk")), iter, written.append)

    assert set(written) <= {0, 1, 2}


def test_an_error_of_the_network_ends_the_other_stages():
    with pytest.raises(ZeroDivisionError):
        run(range(1000), lambda items: (1 // (5 - item) for item in items), lambda item: None)


@pytest.mark.parametrize("failing_item", [0, 5, 9])
def test_an_error_of_the_writer_ends_the_other_stages(failing_item):
    def write(item):
        if item == failing_item:
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        run(range(10), iter, write)


def test_an_interruption_of_the_caller_ends_the_other_stages():
    def interrupted(items):
        yield next(iter(items))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(range(1000), interrupted, lambda item: None)


def test_waiting_for_another_stage_is_not_counted_as_work():
    def slow():
        for item in range(5):
            time.sleep(0.02)
            yield item

    reports = []

    run(slow(), iter, lambda item: None, report=reports.append)

    assert reports[-1].decode_fps < 51
    assert reports[-1].network_fps > 100


def test_progress_counts_what_is_written_and_estimates_the_rest():
    reports = []

    run(range(6), iter, lambda item: time.sleep(0.01), frames_expected=8, report=reports.append)

    assert len(reports) == 7
    assert [report.frames_done for report in reports] == sorted(r.frames_done for r in reports)
    assert reports[-1].frames_done == 6
    assert reports[-1].frames_expected == 8
    # Two of eight are missing when six have taken at least 0.06 seconds.
    assert reports[-1].seconds_left >= 0.02


def test_the_speed_of_a_network_that_gives_many_items_at_once_is_correct():
    def restore_all_at_once(items):
        everything = list(items)
        time.sleep(0.1)
        yield from everything

    reports = []

    run(range(20), restore_all_at_once, lambda item: None, report=reports.append)

    assert 20 / 0.3 < reports[0].network_fps <= 20 / 0.1


def test_a_window_in_progress_counts_in_part():
    def restore(items):
        everything = list(items)
        for done in (0.5, 2.0, 4.0):
            tell(done)
        yield from everything

    def watch(function):
        nonlocal tell
        tell = function

    tell, reports = None, []

    run(
        range(4),
        restore,
        lambda item: None,
        frames_before=10,
        frames_expected=14,
        report=reports.append,
        watch=watch,
    )

    assert [report.frames_computed for report in reports] == [10.5, 12, 14, 14, 14, 14, 14, 14]
    assert reports[0].frames_done == 10
    assert reports[0].seconds_left is None  # too early to say
    assert reports[1].seconds_left > 0
    assert reports[-1].seconds_left == 0


def test_without_a_usable_hint_no_time_is_promised():
    reports = []

    run(range(3), iter, lambda item: None, frames_expected=2, report=reports.append)
    run(range(3), iter, lambda item: None, report=reports.append)

    assert reports[3].seconds_left is None
    assert reports[-1].seconds_left is None


def test_a_timer_counts_making_items_and_not_using_them():
    timer = Timer()

    for _ in timer.time_each(range(3)):
        time.sleep(0.02)

    assert timer.items == 3
    assert timer.seconds < 0.02
