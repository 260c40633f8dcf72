"""Who does which tasks: each process goes from neighbor to neighbor, and all end together."""

from hypothesis import given
from hypothesis import strategies as st

from vsrm_cli.upscale.distributed.runs import Runs


def test_one_taker_gets_all_tasks_in_order():
    runs = Runs([1, 2, 3, 4])

    assert [runs.take("a") for _ in range(4)] == [1, 2, 3, 4]
    assert not runs


def test_each_of_two_takers_goes_through_its_half():
    runs = Runs(range(10))

    taken = [(runs.take("a"), runs.take("b")) for _ in range(5)]

    assert taken == [(0, 5), (1, 6), (2, 7), (3, 8), (4, 9)]


def test_a_task_that_is_given_back_is_the_next_of_anybody():
    runs = Runs([1, 2, 3, 4])
    task = runs.take("a")
    runs.give_back(task)

    assert runs.take("b") == task


@given(count=st.integers(0, 40), takers=st.lists(st.integers(0, 4), min_size=40, max_size=40))
def test_every_task_is_taken_once_however_fast_each_is(count, takers):
    runs = Runs(range(count))

    taken = [runs.take(taker) for taker in takers[:count]]

    assert sorted(taken) == list(range(count))
    assert not runs
