"""Which process does which task: each gets consecutive ones.

A task is cheaper for the process that has just done the one before it.
"""

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

Task = TypeVar("Task")


class TaskQueue(Generic[Task]):
    """Waiting tasks, divided into runs of consecutive ones.

    The first process gets all tasks as its run. A process without a run takes the second half of
    the longest one. So all finish at about the same time, whatever their speeds.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        """Take the tasks, in order."""
        self._undivided = list(reversed(tasks))  # the next one is at the end, as in all runs
        self._runs: dict[Hashable, list[Task]] = {}
        self._returned: list[Task] = []

    def __bool__(self) -> bool:
        """Whether there are tasks."""
        return bool(self._undivided or self._returned or any(self._runs.values()))

    def take(self, process: Hashable) -> Task:
        """Take the next task for a process: one that was given back, or the next of its run."""
        if self._returned:
            return self._returned.pop()
        if not self._runs.get(process):
            self._runs[process] = self._new_run()
        return self._runs[process].pop()

    def give_back(self, task: Task) -> None:
        """Give back a task that was not done; the next process that asks gets it."""
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
