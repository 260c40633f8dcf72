"""Which process does which task: each goes from neighbor to neighbor.

A task is cheaper for the process that has done the one before it. So the processes do not take
turns: each has a run of neighbors.
"""

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

Task = TypeVar("Task")


class Runs(Generic[Task]):
    """Tasks that nobody is doing, divided into runs.

    Whoever takes the first task has all of them for a run. One without a run takes the second half
    of the longest: so all end at about the same time, however fast each is.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        """Take the tasks, in order."""
        self._undivided = list(reversed(tasks))  # the first at the end, as in all runs
        self._runs: dict[Hashable, list[Task]] = {}
        self._returned: list[Task] = []

    def __bool__(self) -> bool:
        """Whether there are tasks."""
        return bool(self._undivided or self._returned or any(self._runs.values()))

    def take(self, taker: Hashable) -> Task:
        """The next task for somebody: one that was given back, or the next of a run."""
        if self._returned:
            return self._returned.pop()
        if not self._runs.get(taker):
            self._runs[taker] = self._new_run()
        return self._runs[taker].pop()

    def give_back(self, task: Task) -> None:
        """Give back a task that was taken but not done; whoever asks next gets it."""
        self._returned.append(task)

    def _new_run(self) -> list[Task]:
        if self._undivided:
            run, self._undivided = self._undivided, []
            return run
        longest = max(self._runs.values(), key=len)
        half = (len(longest) + 1) // 2
        run = longest[:half]
        del longest[:half]
        return run
