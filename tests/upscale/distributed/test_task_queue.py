"""Each process gets consecutive tasks, and every task is done once."""

from hypothesis import given
from hypothesis import strategies as st

from vsrm_cli.upscale.distributed.task_queue import TaskQueue


def test_one_process_gets_all_tasks_in_order():
    queue = TaskQueue([1, 2, 3, 4])

    assert [queue.take("a") for _ in range(4)] == [1, 2, 3, 4]
    assert not queue


def test_two_processes_get_half_of_the_tasks_each_in_order():
    queue = TaskQueue(range(10))

    taken = [(queue.take("a"), queue.take("b")) for _ in range(5)]

    assert taken == [(0, 5), (1, 6), (2, 7), (3, 8), (4, 9)]


def test_a_returned_task_is_the_next_of_any_process():
    queue = TaskQueue([1, 2, 3, 4])
    task = queue.take("a")
    queue.give_back(task)

    assert queue.take("b") == task


@given(count=st.integers(0, 40), takers=st.lists(st.integers(0, 4), min_size=40, max_size=40))
def test_every_task_is_taken_once_whatever_the_speed_of_processes(count, takers):
    queue = TaskQueue(range(count))

    taken = [queue.take(taker) for taker in takers[:count]]

    assert sorted(taken) == list(range(count))
    assert not queue
