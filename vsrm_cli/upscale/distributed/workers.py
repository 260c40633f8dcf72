"""Processes that share tasks: one for each device, on this machine.

Each process opens its worker once, takes a task whenever it is idle (see `runs` for which), and
gives back a result. A process that dies, or of which nothing is heard any more, gives its task
back, and is started again; a task that fails three times ends the work. Processes end with the one
that has started them, however that ends.

Only the plumbing lives here: what a task is, workers know.
"""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from vsrm_cli.errors import VsrmError
from vsrm_cli.upscale.distributed.runs import Runs

Task = TypeVar("Task")
Result = TypeVar("Result")
Task_contra = TypeVar("Task_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

# A fault that comes three times is none of the moment.
MAX_FAILURES = 3
# How often somebody is asked whether to stop, while nothing happens.
WAKE_SECONDS = 0.25
# A process at work is given up for lost when nothing was heard of it for so long, and for so many
# times the longest pause between two reports of progress so far.
PATIENCE_SECONDS = 600.0
PATIENCE_PAUSES = 20


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
class Message:
    """What a process says, as ``kind`` tells.

    That is where it is ("place"), what its worker says of itself ("facts"), how much of a task is
    done ("progress"), its result ("result"), why it failed ("failure"), or of what it died
    ("death").
    """

    kind: str
    content: Any
    log: str = ""


class _Log(Exception):
    """The traceback of another process, as the cause of an exception in this one."""


class WorkerProcess(Generic[Task]):
    """A process as seen from the one that uses it.

    Attributes:
        device: Where it computes.
        is_ready: Whether its worker is there.
        facts: What its worker says of itself, when it is.
        task: What it is doing.
        items: How much of that is done.
        items_before: How much it had done in the tasks before.
        failures: How many times it has died since it last finished a task.
        heard_at: When it last said something, on the clock of those who listen.
    """

    def __init__(self, device: str) -> None:
        """Name a process that is yet to be started."""
        self.device = device
        self.is_ready = False
        self.facts: Any = None
        self.task: Task | None = None
        self.items = self.items_before = 0
        self.failures = 0
        self.heard_at = 0.0

    def start(self) -> None:
        """Start it, or start it again."""
        raise NotImplementedError

    def end(self) -> None:
        """End it, whatever it does."""
        raise NotImplementedError

    def give(self, task: Task) -> None:
        """Hand over a task.

        Raises:
            OSError: If it has died.
        """
        raise NotImplementedError


class _ChildProcess(WorkerProcess[Task]):
    """A process on this machine."""

    def __init__(self, device: str, open_worker: Callable[[str], Any]) -> None:
        super().__init__(device)
        self._open_worker = open_worker

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_run, args=(self._open_worker, self.device, there), daemon=True
        )
        with without_interrupts():
            self.process.start()
        there.close()

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def give(self, task: Task) -> None:
        self.connection.send(task)

    def receive(self) -> Message:
        """What it says next, or how it died."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):  # the end of the process is the end of its connection
            self.process.join()
            return Message("death", VsrmError(f"the process ended with {self._exit()}"))
        assert isinstance(message, Message)
        return message

    def _exit(self) -> str:
        code = self.process.exitcode or 0
        if code >= 0:
            return f"exit code {code}"
        hint = ", perhaps for lack of memory" if code == -getattr(signal, "SIGKILL", 9) else ""
        return f"{signal.Signals(-code).name}{hint}"


class Workers(Generic[Task, Result]):
    """The processes. Use it in a ``with`` statement; leaving it ends them, whatever they do.

    Attributes:
        devices: One for each process.
        patience_seconds: For how long nothing must be heard of a process, at least, before it is
            given up for lost.
    """

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
        self.devices = devices
        self.patience_seconds = PATIENCE_SECONDS
        self._open_worker = open_worker
        self._warn = warn
        self._processes: list[WorkerProcess[Task]] = []
        self._unusable: list[WorkerProcess[Task]] = []
        self._failures: dict[int, int] = {}  # by the identity of a task
        self._longest_pause = 0.0
        self._clock, self._looked_at = 0.0, time.monotonic()

    def __enter__(self) -> Self:
        """Start the processes."""
        try:
            for device in self.devices:
                process = self._new_process(device)
                self._start(process)
                self._processes.append(process)
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
        while waiting := [p for p in self._processes if self._is_awaited(p)]:
            for process, message in self._listen(waiting):
                if message.kind not in ("place", "facts"):
                    raise _failure(message, f"{process.device} cannot be used")
                self._note(process, message)
        return [process.facts for process in self._processes if process.is_ready]

    def shares(self) -> list[tuple[str, int]]:
        """Each device, and how many items it has done."""
        processes = [*self._processes, *self._unusable]
        return [(process.device, process.items_before + process.items) for process in processes]

    def do(
        self,
        tasks: Sequence[Task],
        *,
        should_stop: Callable[[], bool],
        accept: Callable[[Any], None] = lambda _: None,
    ) -> Iterator[tuple[Task, Result] | None]:
        """Do tasks; each process goes from one to the next, see `Runs`.

        Args:
            tasks: What to do, in order; messages call each by its `str`.
            should_stop: After a yes no task is begun; those at work are finished.
            accept: Given the facts of a worker that comes later; raises `VsrmError` if it cannot
                be used.

        Yields:
            A task that is done, and its result; or None while others are at work.

        Raises:
            VsrmError: If a task fails three times, or no device is left.
        """
        waiting = Runs(tasks)
        while True:
            is_stopped = should_stop()
            for process in self._processes:
                if waiting and not is_stopped and process.is_ready and process.task is None:
                    self._give(process, waiting)
            if all(p.task is None for p in self._processes) and (is_stopped or not waiting):
                return
            for process, message in self._listen(self._processes):
                task = process.task
                if message.kind == "facts":
                    message = _examined(message, accept)
                self._note(process, message)
                if message.kind == "result":
                    assert task is not None
                    yield task, message.content
                elif message.kind in ("failure", "death"):
                    if task is not None:
                        waiting.give_back(task)
                        self._count_failure(task, message)
                    self._go_on_after(message, process, task)
            yield None

    def _new_process(self, device: str) -> WorkerProcess[Task]:
        return _ChildProcess(device, self._open_worker)

    def _receive(
        self, processes: Sequence[WorkerProcess[Task]]
    ) -> list[tuple[WorkerProcess[Task], Message]]:
        """What some processes say next; nothing after a little while."""
        children = {p.connection: p for p in processes if isinstance(p, _ChildProcess)}
        ready = wait(list(children), timeout=WAKE_SECONDS)
        return [(p, p.receive()) for connection, p in children.items() if connection in ready]

    def _is_awaited(self, process: WorkerProcess[Task]) -> bool:
        """Whether the work cannot begin without a process."""
        return not process.is_ready

    def _limit(self, process: WorkerProcess[Task]) -> float:
        """For how many seconds nothing may be heard of a process that should say something."""
        return max(self.patience_seconds, PATIENCE_PAUSES * self._longest_pause)

    def _listen(
        self, processes: Sequence[WorkerProcess[Task]]
    ) -> list[tuple[WorkerProcess[Task], Message]]:
        """What some processes say next, or that one has said nothing for too long."""
        news = self._receive(processes)
        # This clock halts while this program does, as by Ctrl-Z, and all processes with it.
        now = time.monotonic()
        self._clock += min(now - self._looked_at, 4 * WAKE_SECONDS)
        self._looked_at = now
        for process, _ in news:
            if process.task is not None:
                self._longest_pause = max(self._longest_pause, self._clock - process.heard_at)
            process.heard_at = self._clock
        for process in processes:
            seconds = self._clock - process.heard_at
            is_busy = process.task is not None or not process.is_ready
            if is_busy and seconds > self._limit(process):
                told = VsrmError(f"nothing was heard of it for {seconds:.0f} s")
                news.append((process, Message("death", told)))
        return news

    def _note(self, process: WorkerProcess[Task], message: Message) -> None:
        """Keep what a message says of its process."""
        if message.kind == "place":
            process.device = message.content
        elif message.kind == "facts":
            process.is_ready, process.facts = True, message.content
        elif message.kind == "progress":
            process.items = message.content
        elif message.kind == "result":
            process.items_before += process.items
            process.task, process.items, process.failures = None, 0, 0
        else:
            process.task, process.items = None, 0

    def _start(self, process: WorkerProcess[Task]) -> None:
        process.is_ready, process.heard_at = False, self._clock
        process.start()

    def _give(self, process: WorkerProcess[Task], waiting: Runs[Task]) -> None:
        task = waiting.take(process)
        try:
            process.give(task)
        except OSError:  # it has died: that is seen where it is listened to
            waiting.give_back(task)
            return
        process.task, process.items, process.heard_at = task, 0, self._clock

    def _count_failure(self, task: Task, message: Message) -> None:
        self._failures[id(task)] = self._failures.get(id(task), 0) + 1
        if self._failures[id(task)] == MAX_FAILURES:
            raise _failure(message, f"{task} failed {MAX_FAILURES} times")

    def _go_on_after(
        self, message: Message, process: WorkerProcess[Task], task: Task | None
    ) -> None:
        """Say what has failed, and start a process that has died again."""
        name = "its process" if task is None else str(task)
        what = f"{process.device}: {name} failed ({message.content})"
        if message.kind != "death":
            self._warn(f"{what}; it is tried again")
            return
        process.failures += 1
        process.end()
        if process.is_ready and process.failures < MAX_FAILURES:
            self._warn(f"{what}; it is tried again")
            self._start(process)
            return
        self._warn(f"{what}; {process.device} is not used any more")
        self._processes.remove(process)
        self._unusable.append(process)
        if not self._processes:
            raise _failure(message, "No device is left")

    def _end_all(self) -> None:
        for process in self._processes:
            process.end()
        self._processes = []


@contextmanager
def without_interrupts() -> Iterator[None]:
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


def _examined(facts: Message, accept: Callable[[Any], None]) -> Message:
    """The facts of a worker, or the death of one that cannot be used."""
    try:
        accept(facts.content)
    except VsrmError as error:
        return Message("death", error)
    return facts


def _failure(message: Message, what: str) -> VsrmError:
    """Make an exception of a failure: of its kind, where that is one for a user."""
    error = message.content
    kind = type(error) if isinstance(error, VsrmError) else VsrmError
    failure = kind(f"{what}: {error}")
    failure.__cause__ = _Log(message.log) if message.log else None
    return failure


def attempt(worker: Worker[Any, Any], task: Any, say: Callable[[Message], None]) -> None:
    """Do a task and say how it goes; an error that is not for a user is raised."""
    try:
        result = worker.work(task, lambda n: say(Message("progress", n)))
    except VsrmError as error:
        say(Message("failure", error, traceback.format_exc()))
    else:
        say(Message("result", result))


def death_by(error: Exception) -> Message:
    """Say of what a process dies: the exception that is handled.

    After a fault of a driver, nothing works any more in a process: another one must.
    """
    is_told = isinstance(error, VsrmError)
    told = error if is_told else VsrmError(f"{type(error).__name__}: {error}")
    return Message("death", told, traceback.format_exc())


def _run(
    open_worker: Callable[[str], Worker[Any, Any]],
    device: str,
    connection: "Connection[Message, Any]",
) -> None:
    """What a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        worker = open_worker(device)
        connection.send(Message("facts", worker.facts))
        while True:
            attempt(worker, connection.recv(), connection.send)
    except (EOFError, BrokenPipeError):
        pass  # nobody listens any more
    except Exception as error:
        connection.send(death_by(error))


def end_with_parent() -> None:
    """End this process, at once, with the one that has started it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
