"""A pool of worker processes on this machine, one for each device, which share tasks.

Each process opens its worker once, takes a task whenever it is idle (see `task_queue`), and returns
a result. If a process dies or hangs, it is restarted and its task is retried; a task that fails
three times ends the work. Processes end when their parent ends, for whatever reason.

Only processes and messages are handled here; tasks are opaque.
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
from typing import Any, Generic, Protocol, Self, TypeVar

from vsrm_cli.errors import VsrmError
from vsrm_cli.upscale.distributed.task_queue import TaskQueue

Task = TypeVar("Task")
Result = TypeVar("Result")
Task_contra = TypeVar("Task_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

# A fault that occurs three times is not transient.
MAX_FAILURES = 3
# Interval in seconds at which `should_stop` is polled.
WAKE_SECONDS = 0.25
# A busy process is killed if it has sent no message for this many seconds, and for this many times
# the longest pause between two messages so far.
TIMEOUT_SECONDS = 600.0
TIMEOUT_PAUSES = 20


class Worker(Protocol[Task_contra, Result_co]):
    """Does tasks in its own process.

    Attributes:
        facts: About the worker, sent when it is open.
    """

    facts: Any

    def work(self, task: Task_contra, report: Callable[[int], None]) -> Result_co:
        """Do a task, and report the number of finished items."""
        ...


@dataclass(frozen=True)
class WorkerMessage:
    """A message of a process.

    Its kinds are the place of the process ("place"), the worker's facts ("facts"), the number of
    finished items ("progress"), the result of a task ("result"), why it failed ("failure"), or why
    the process died ("death").
    """

    kind: str
    content: Any
    log: str = ""


class _RemoteTraceback(Exception):
    """The traceback of another process, as the cause of an exception here."""


class WorkerProcess(Generic[Task]):
    """The parent's handle of a process.

    Attributes:
        device: Of its worker.
        is_ready: Whether its worker is open.
        facts: Of its worker, when it is open.
        task: The current task.
        items: Finished items of the current task.
        items_before: Finished items of earlier tasks.
        failures: How many times it has died since it last finished a task.
        heard_at: Time of its last message.
    """

    def __init__(self, device: str) -> None:
        """Set the device; `start` starts the process."""
        self.device = device
        self.is_ready = False
        self.facts: Any = None
        self.task: Task | None = None
        self.items = self.items_before = 0
        self.failures = 0
        self.heard_at = 0.0

    def start(self) -> None:
        """Start or restart it."""
        raise NotImplementedError

    def end(self) -> None:
        """Kill it."""
        raise NotImplementedError

    def give(self, task: Task) -> None:
        """Send it a task.

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
        with ignore_interrupts():
            self.process.start()
        there.close()

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def give(self, task: Task) -> None:
        self.connection.send(task)

    def receive(self) -> WorkerMessage:
        """Its next message, or a death message."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):  # its connection closes when it ends
            self.process.join()
            return WorkerMessage("death", VsrmError(f"the process ended with {self._exit()}"))
        assert isinstance(message, WorkerMessage)
        return message

    def _exit(self) -> str:
        code = self.process.exitcode or 0
        if code >= 0:
            return f"exit code {code}"
        hint = ", possibly out of memory" if code == -getattr(signal, "SIGKILL", 9) else ""
        return f"{signal.Signals(-code).name}{hint}"


class Workers(Generic[Task, Result]):
    """The processes. Use it in a ``with`` statement; leaving it kills them.

    Attributes:
        devices: One for each process.
        timeout_seconds: Minimum time without a message before a busy process is killed.
    """

    def __init__(
        self,
        open_worker: Callable[[str], Worker[Task, Result]],
        devices: Sequence[str],
        *,
        warn: Callable[[str], None],
    ) -> None:
        """Prepare the processes; `__enter__` starts them.

        Args:
            open_worker: Called in each process with its device. It must be importable there.
            devices: One for each process.
            warn: Called with each failure that does not end the work.
        """
        self.devices = devices
        self.timeout_seconds = TIMEOUT_SECONDS
        self._open_worker = open_worker
        self._warn = warn
        self._processes: list[WorkerProcess[Task]] = []
        self._unusable: list[WorkerProcess[Task]] = []
        self._failures: dict[int, int] = {}  # by the identity of a task
        self._longest_pause = 0.0
        self._clock, self._checked_at = 0.0, time.monotonic()

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

    def __exit__(self, *error: object) -> None:
        """Kill the processes."""
        self._end_all()

    def facts(self) -> list[Any]:
        """Wait until all workers are open, and return their facts.

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
        """Each device, and its number of finished items."""
        processes = [*self._processes, *self._unusable]
        return [(process.device, process.items_before + process.items) for process in processes]

    def do(
        self,
        tasks: Sequence[Task],
        *,
        should_stop: Callable[[], bool],
        accept: Callable[[Any], None] = lambda _: None,
    ) -> Iterator[tuple[Task, Result] | None]:
        """Do tasks; each process gets consecutive ones, see `TaskQueue`.

        Args:
            tasks: In order; named in messages by their `str`.
            should_stop: Once it returns true, no task is started; those in progress are finished.
            accept: Called with the facts of a worker that joins later; raises `VsrmError` if it
                cannot be used.

        Yields:
            A finished task and its result; or None while waiting.

        Raises:
            VsrmError: If a task fails three times, or no device is left.
        """
        waiting = TaskQueue(tasks)
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
                    self._restart_after(message, process, task)
            yield None

    def _new_process(self, device: str) -> WorkerProcess[Task]:
        return _ChildProcess(device, self._open_worker)

    def _receive(
        self, processes: Sequence[WorkerProcess[Task]]
    ) -> list[tuple[WorkerProcess[Task], WorkerMessage]]:
        """Wait for messages of some processes; empty on timeout."""
        children = {p.connection: p for p in processes if isinstance(p, _ChildProcess)}
        ready = wait(list(children), timeout=WAKE_SECONDS)
        return [(p, p.receive()) for connection, p in children.items() if connection in ready]

    def _is_awaited(self, process: WorkerProcess[Task]) -> bool:
        """Whether the work waits for a process to start."""
        return not process.is_ready

    def _limit(self, process: WorkerProcess[Task]) -> float:
        """Seconds without a message after which a process is killed."""
        return max(self.timeout_seconds, TIMEOUT_PAUSES * self._longest_pause)

    def _listen(
        self, processes: Sequence[WorkerProcess[Task]]
    ) -> list[tuple[WorkerProcess[Task], WorkerMessage]]:
        """What some processes send next, or that one has said nothing for too long."""
        messages = self._receive(processes)
        # This clock stops while all processes are suspended, as by Ctrl-Z.
        now = time.monotonic()
        self._clock += min(now - self._checked_at, 4 * WAKE_SECONDS)
        self._checked_at = now
        for process, _ in messages:
            if process.task is not None:
                self._longest_pause = max(self._longest_pause, self._clock - process.heard_at)
            process.heard_at = self._clock
        for process in processes:
            seconds = self._clock - process.heard_at
            is_busy = process.task is not None or not process.is_ready
            if is_busy and seconds > self._limit(process):
                error = VsrmError(f"it sent no message for {seconds:.0f} s")
                messages.append((process, WorkerMessage("death", error)))
        return messages

    def _note(self, process: WorkerProcess[Task], message: WorkerMessage) -> None:
        """Update the state of a process from a message."""
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

    def _give(self, process: WorkerProcess[Task], waiting: TaskQueue[Task]) -> None:
        task = waiting.take(process)
        try:
            process.give(task)
        except OSError:  # `_receive` notices that it has died
            waiting.give_back(task)
            return
        process.task, process.items, process.heard_at = task, 0, self._clock

    def _count_failure(self, task: Task, message: WorkerMessage) -> None:
        self._failures[id(task)] = self._failures.get(id(task), 0) + 1
        if self._failures[id(task)] == MAX_FAILURES:
            raise _failure(message, f"{task} failed {MAX_FAILURES} times")

    def _restart_after(
        self, message: WorkerMessage, process: WorkerProcess[Task], task: Task | None
    ) -> None:
        """Report a failure, and restart a process that has died."""
        name = "its process" if task is None else str(task)
        what = f"{process.device}: {name} failed ({message.content})"
        if message.kind != "death":
            self._warn(f"{what}; retrying")
            return
        process.failures += 1
        process.end()
        if process.is_ready and process.failures < MAX_FAILURES:
            self._warn(f"{what}; retrying")
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
def ignore_interrupts() -> Iterator[None]:
    """Let processes that are started now ignore Ctrl-C, which a terminal sends to all processes.

    Their parent handles it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _examined(facts: WorkerMessage, accept: Callable[[Any], None]) -> WorkerMessage:
    """The facts of a worker, or a death message if it cannot be used."""
    try:
        accept(facts.content)
    except VsrmError as error:
        return WorkerMessage("death", error)
    return facts


def _failure(message: WorkerMessage, what: str) -> VsrmError:
    """Convert a failure to an exception, of the same class if it is a `VsrmError`."""
    error = message.content
    kind = type(error) if isinstance(error, VsrmError) else VsrmError
    failure = kind(f"{what}: {error}")
    failure.__cause__ = _RemoteTraceback(message.log) if message.log else None
    return failure


def run_task(worker: Worker[Any, Any], task: Any, send: Callable[[WorkerMessage], None]) -> None:
    """Do a task and send messages; errors other than `VsrmError` are raised."""
    try:
        result = worker.work(task, lambda n: send(WorkerMessage("progress", n)))
    except VsrmError as error:
        send(WorkerMessage("failure", error, traceback.format_exc()))
    else:
        send(WorkerMessage("result", result))


def death_message(error: Exception) -> WorkerMessage:
    """The death message for the current exception.

    After a device error a process is unusable and must be replaced.
    """
    is_user_error = isinstance(error, VsrmError)
    shown = error if is_user_error else VsrmError(f"{type(error).__name__}: {error}")
    return WorkerMessage("death", shown, traceback.format_exc())


def _run(
    open_worker: Callable[[str], Worker[Any, Any]],
    device: str,
    connection: "Connection[WorkerMessage, Any]",
) -> None:
    """The main function of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        worker = open_worker(device)
        connection.send(WorkerMessage("facts", worker.facts))
        while True:
            run_task(worker, connection.recv(), connection.send)
    except (EOFError, BrokenPipeError):
        pass  # the connection is closed
    except Exception as error:
        connection.send(death_message(error))


def end_with_parent() -> None:
    """Kill this process when its parent ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
