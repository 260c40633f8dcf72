"""Processes that share tasks: one for each device, on this machine.

Each process opens its worker once, takes a task whenever it is idle, and gives back a result. A
process that dies gives its task back, and is started again; a task that fails three times ends the
work. Processes end with the one that has started them, however that ends.

Only the plumbing lives here: what a task is, workers know.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from vsrm_cli.errors import VsrmError

Task = TypeVar("Task")
Result = TypeVar("Result")
Task_contra = TypeVar("Task_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

# A fault that comes three times is none of the moment.
MAX_FAILURES = 3
# How often somebody is asked whether to stop, while nothing happens.
WAKE_SECONDS = 0.25


class Worker(Protocol[Task_contra, Result_co]):
    """What does tasks; it lives in a process of its own.

    Attributes:
        facts: What it says of itself when it is there.
    """

    facts: Any

    def work(self, task: Task_contra, report: Callable[[int], None]) -> Result_co:
        """Do a task, and report how many of its items are done."""
        ...


@dataclass(frozen=True)
class _Message:
    """What a process says: facts, progress, a result or a failure, as ``kind`` tells."""

    kind: str
    content: Any
    log: str = ""


class _Log(Exception):
    """The traceback of another process, as the cause of an exception in this one."""


class _Process(Generic[Task]):
    """A process as seen from the one that has started it.

    Attributes:
        device: Where it computes.
        is_ready: Whether its worker is there.
        facts: What its worker says of itself, when it is.
        task: What it is doing.
        items: How much of that is done.
        items_before: How much it had done in the tasks before.
        failures: How many times it has died since it last finished a task.
    """

    def __init__(self, device: str, open_worker: Callable[[str], Any]) -> None:
        self.device = device
        self.facts: Any = None
        self.task: Task | None = None
        self.items = self.items_before = 0
        self.failures = 0
        self._open_worker = open_worker
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_run, args=(self._open_worker, self.device, there), daemon=True
        )
        self.is_ready, self.task, self.items = False, None, 0
        with _without_interrupts():
            self.process.start()
        there.close()

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def give(self, task: Task) -> None:
        self.task, self.items = task, 0
        self.connection.send(task)

    def receive(self) -> _Message:
        """What it says next, or how it died."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):  # the end of the process is the end of its connection
            self.process.join()
            return _Message("death", VsrmError(f"the process ended with {self._exit()}"))
        assert isinstance(message, _Message)
        return message

    def _exit(self) -> str:
        code = self.process.exitcode or 0
        if code >= 0:
            return f"exit code {code}"
        hint = ", perhaps for lack of memory" if code == -getattr(signal, "SIGKILL", 9) else ""
        return f"{signal.Signals(-code).name}{hint}"


class Workers(Generic[Task, Result]):
    """The processes. Use it in a ``with`` statement; leaving it ends them, whatever they do."""

    def __init__(
        self,
        open_worker: Callable[[str], Worker[Task, Result]],
        devices: Sequence[str],
        *,
        warn: Callable[[str], None],
    ) -> None:
        """Name what is to be started.

        Args:
            open_worker: Called in each process with its device. It must be importable there.
            devices: One for each process.
            warn: Called with each failure that does not end the work.
        """
        self._open_worker = open_worker
        self._devices = devices
        self._warn = warn
        self._processes: list[_Process[Task]] = []
        self._unusable: list[_Process[Task]] = []

    def __enter__(self) -> Self:
        """Start the processes."""
        try:
            for device in self._devices:
                self._processes.append(_Process(device, self._open_worker))
        except BaseException:
            self._end_all()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes, whatever they do."""
        self._end_all()

    def facts(self) -> list[Any]:
        """Wait until all workers are there, and give what they say of themselves.

        Raises:
            VsrmError: If one cannot be opened.
        """
        while waiting := [p for p in self._processes if not p.is_ready]:
            for process in _with_news(waiting):
                message = process.receive()
                if message.kind != "facts":
                    raise _failure(message, f"{process.device} cannot be used")
                process.is_ready, process.facts = True, message.content
        return [process.facts for process in self._processes]

    def shares(self) -> list[tuple[str, int]]:
        """Each device, and how many items it has done."""
        processes = [*self._processes, *self._unusable]
        return [(process.device, process.items_before + process.items) for process in processes]

    def do(
        self, tasks: Sequence[Task], *, should_stop: Callable[[], bool]
    ) -> Iterator[tuple[Task, Result] | None]:
        """Do tasks; they are begun in turn.

        Args:
            tasks: What to do; messages call each by its `str`.
            should_stop: After a yes no task is begun; those at work are finished.

        Yields:
            A task that is done, and its result; or None while others are at work.

        Raises:
            VsrmError: If a task fails three times, or no device is left.
        """
        waiting = list(reversed(tasks))
        failures: dict[int, int] = {}  # by the identity of a task
        while True:
            is_stopped = should_stop()
            for process in self._processes:
                if waiting and not is_stopped and process.is_ready and process.task is None:
                    self._give(process, waiting)
            if all(p.task is None for p in self._processes) and (is_stopped or not waiting):
                return
            for process in _with_news(self._processes):
                task, message = process.task, process.receive()
                if message.kind == "facts":
                    process.is_ready, process.facts = True, message.content
                elif message.kind == "progress":
                    process.items = message.content
                elif message.kind == "result":
                    assert task is not None
                    process.items_before += process.items
                    process.task, process.items, process.failures = None, 0, 0
                    yield task, message.content
                    continue
                else:
                    if task is not None:
                        process.task, process.items = None, 0
                        waiting.append(task)
                        failures[id(task)] = failures.get(id(task), 0) + 1
                        if failures[id(task)] == MAX_FAILURES:
                            raise _failure(message, f"{task} failed {MAX_FAILURES} times")
                    self._go_on_after(message, process, task)
            yield None

    def _give(self, process: _Process[Task], waiting: list[Task]) -> None:
        try:
            process.give(waiting[-1])
        except OSError:  # it has died: that is seen where it is listened to
            return
        waiting.pop()

    def _go_on_after(self, message: _Message, process: _Process[Task], task: Task | None) -> None:
        """Say what has failed, and start a process that has died again."""
        name = "its process" if task is None else str(task)
        what = f"{process.device}: {name} failed ({message.content})"
        if message.kind != "death":
            self._warn(f"{what}; it is tried again")
            return
        process.failures += 1
        if process.is_ready and process.failures < MAX_FAILURES:
            self._warn(f"{what}; it is tried again")
            process.end()
            process.start()
            return
        self._warn(f"{what}; {process.device} is not used any more")
        process.end()
        self._processes.remove(process)
        self._unusable.append(process)
        if not self._processes:
            raise _failure(message, "No device is left")

    def _end_all(self) -> None:
        for process in self._processes:
            process.end()
        self._processes = []


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let processes that are started now ignore Ctrl-C, which goes to all of a terminal.

    The one that has started them decides what becomes of them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _with_news(processes: Sequence[_Process[Task]]) -> list[_Process[Task]]:
    """Those that have said something, or died; none after a little while."""
    ready = wait([process.connection for process in processes], timeout=WAKE_SECONDS)
    return [process for process in processes if process.connection in ready]


def _failure(message: _Message, what: str) -> VsrmError:
    """Make an exception of a failure: of its kind, where that is one for a user."""
    error = message.content
    kind = type(error) if isinstance(error, VsrmError) else VsrmError
    failure = kind(f"{what}: {error}")
    failure.__cause__ = _Log(message.log) if message.log else None
    return failure


def _run(
    open_worker: Callable[[str], Worker[Any, Any]],
    device: str,
    connection: "Connection[_Message, Any]",
) -> None:
    """What a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        worker = open_worker(device)
        connection.send(_Message("facts", worker.facts))
        while True:
            task = connection.recv()
            try:
                result = worker.work(task, lambda n: connection.send(_Message("progress", n)))
            except VsrmError as error:
                connection.send(_Message("failure", error, traceback.format_exc()))
            else:
                connection.send(_Message("result", result))
    except VsrmError as error:
        connection.send(_Message("death", error, traceback.format_exc()))
    except (EOFError, BrokenPipeError):
        pass  # nobody listens any more
    except Exception as error:
        # After a fault of a driver, nothing works any more in a process: another one must.
        told = VsrmError(f"{type(error).__name__}: {error}")
        connection.send(_Message("death", told, traceback.format_exc()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
