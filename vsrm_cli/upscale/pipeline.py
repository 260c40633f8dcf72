"""Decoding, network and encoding in three threads.

A video is read by one thread, restored by the calling thread, and written by a third. Between them
are bounded queues: a fast stage waits for a slow one instead of filling the memory. An error in one
stage ends all three, and is raised in the calling thread.

The pipeline passes items of any type and does not use their content.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

T = TypeVar("T")
Read = TypeVar("Read")
Written = TypeVar("Written")

# Windows delivers Ctrl-C only to a running thread; a waiting one must wake up to notice it. Four
# times a second is fast enough and costs nothing.
WAKE_SECONDS = 0.25

# Maximum size of a queue. The network takes and returns whole windows: a queue that holds a window
# lets the other stages continue while it computes. For large frames that would be gigabytes, so the
# queue is shorter.
QUEUE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Progress:
    """How far the job is.

    Attributes:
        frames_done: Frames encoded, including those of the interrupted job that is resumed.
        frames_expected: How many there will be, by the metadata of the file.
        decode_fps: Frames per second of the decoder while it works; 0 before the first frame.
        network_fps: Likewise for the network.
        encode_fps: Likewise for the encoder.
        seconds_left: Estimate; None if unknown.
        frames_computed: Frames that the network has computed, including those of the interrupted
            job, and a part of the frames that it is working on.
        shares: For several devices, each with the number of its frames; the speeds of decoder and
            encoder are unknown then.
    """

    frames_done: int
    frames_expected: int | None
    decode_fps: float = 0.0
    network_fps: float = 0.0
    encode_fps: float = 0.0
    seconds_left: float | None = None
    frames_computed: float = 0.0
    shares: tuple[tuple[str, int], ...] = ()


def queue_depth(items: int, item_bytes: int) -> int:
    """Length of a queue: all items, or as many as fit into `QUEUE_BYTES`."""
    return max(1, min(items, QUEUE_BYTES // item_bytes))


class Timer:
    """Counts the items of a stage and the time spent on them.

    Attributes:
        items: Number of items.
        seconds: Time spent on reading or writing them.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.items = 0
        self.seconds = 0.0

    def time_each(self, source: Iterable[T]) -> Iterator[T]:
        """Yield the items of `source`, and time each."""
        iterator = iter(source)
        while True:
            began = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - began
            self.items += 1
            yield item


class BoundedQueue(Generic[T]):
    """A queue of at most `depth` items between two threads; either side can end it."""

    def __init__(self, depth: int) -> None:
        """Create an empty queue."""
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._is_ended = False

    def put(self, item: T) -> bool:
        """Wait for room and add `item`; False if the queue has ended."""
        with self._changed:
            while len(self._items) >= self._depth and not self._is_ended:
                self._changed.wait(WAKE_SECONDS)
            if self._is_ended:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def end(self) -> None:
        """Accept no more items; waiting ones can still be fetched."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Accept no more items, and drop waiting ones."""
        with self._changed:
            self._items.clear()
            self.end()

    def __iter__(self) -> Iterator[T]:
        """Fetch items as they come, until the queue has ended and is empty."""
        while True:
            with self._changed:
                while not self._items and not self._is_ended:
                    self._changed.wait(WAKE_SECONDS)
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


class _PipelineThread(Generic[T]):
    """A thread at one end of a queue: the common part of reading ahead and writing behind.

    Attributes:
        timer: The work of the thread.
    """

    def __init__(self, name: str, *, depth: int) -> None:
        self.timer = Timer()
        self._queue: BoundedQueue[T] = BoundedQueue(depth)
        self._error: BaseException | None = None
        # A daemon thread, so that a second Ctrl-C, during the cleanup, can end the program.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the thread after its current item, and wait for it."""
        self._queue.abandon()
        self._join()

    def _work(self) -> None:
        raise NotImplementedError

    def _join(self) -> None:
        while self._thread.is_alive():
            self._thread.join(WAKE_SECONDS)

    def _raise_failure(self) -> None:
        if self._error is not None:
            raise self._error


class ReadAhead(_PipelineThread[T]):
    """Reads the items of `source` ahead, in a thread.

    Attributes:
        waiting: How long the caller has waited for items.
    """

    def __init__(self, source: Iterable[T], *, depth: int) -> None:
        """Prepare to read at most `depth` items ahead; `with` starts it."""
        super().__init__("decode", depth=depth)
        self.waiting = Timer()
        self._source = source

    def __iter__(self) -> Iterator[T]:
        """Yield the items in order; then raise the error of `source`, if there was one."""
        yield from self.waiting.time_each(self._queue)
        self._raise_failure()

    def _work(self) -> None:
        try:
            for item in self.timer.time_each(self._source):
                if not self._queue.put(item):
                    break
        except BaseException as error:
            self._error = error
        finally:
            self._queue.end()


class WriteBehind(_PipelineThread[T]):
    """Writes items in a thread."""

    def __init__(self, write: Callable[[T], None], *, depth: int) -> None:
        """Prepare to let at most `depth` items wait; `with` starts it."""
        super().__init__("encode", depth=depth)
        self._write = write

    def put(self, item: T) -> None:
        """Add an item as soon as there is room; raises the error of `write`, if there was one."""
        if not self._queue.put(item):
            self._raise_failure()

    def finish(self) -> None:
        """Wait until every item is written; raises the error of `write`, if there was one."""
        self._queue.end()
        self._join()
        self._raise_failure()

    def _work(self) -> None:
        try:
            for item in self._queue:
                began = time.perf_counter()
                self._write(item)
                self.timer.seconds += time.perf_counter() - began
                self.timer.items += 1
        except BaseException as error:
            self._error = error
            self._queue.abandon()


class Throughput:
    """Measures the speed of the three stages.

    Attributes:
        network: The work of the network, including waiting for the decoder.
    """

    def __init__(
        self,
        decoded: ReadAhead[Read],
        encoded: WriteBehind[Written],
        *,
        frames_before: int,
        frames_expected: int | None,
    ) -> None:
        """Start the clock."""
        self.network = Timer()
        self._decoded = decoded
        self._encoded = encoded
        self._frames_before = frames_before
        self._frames_expected = frames_expected
        self._computed = 0.0
        self._first: tuple[float, float] | None = None
        self._began = time.perf_counter()

    def progress(self, ahead: float = 0.0) -> Progress:
        """The current progress.

        Args:
            ahead: Frames that the network has computed but not returned, as a fraction.
        """
        done = self._encoded.timer.items
        self._computed = max(self._computed, self.network.items + ahead)
        if self._first is None and self._computed:
            # If progress within a window is known, loading and compiling are over now.
            is_inside = self._computed < 1
            self._first = (time.perf_counter(), self._computed) if is_inside else (self._began, 0.0)
        # The network returns a whole window at a time. When only one frame of it has been passed
        # on, the frames taken in show its speed, and those passed on do not.
        taken: float = self._decoded.waiting.items
        network_seconds = self.network.seconds - self._decoded.waiting.seconds
        if not self.network.items and self._first is not None:  # within the first window
            taken = self._computed - self._first[1]
            network_seconds = time.perf_counter() - self._first[0]
        return Progress(
            frames_done=self._frames_before + done,
            frames_expected=self._frames_expected,
            decode_fps=_per_second(self._decoded.timer.items, self._decoded.timer.seconds),
            network_fps=_per_second(taken, network_seconds),
            encode_fps=_per_second(done, self._encoded.timer.seconds),
            seconds_left=self._seconds_left(done=done),
            frames_computed=self._frames_before + self._computed,
        )

    def _seconds_left(self, *, done: int) -> float | None:
        if self._frames_expected is None or self._first is None:
            return None
        since, before = self._first
        left = self._frames_expected - self._frames_before - max(done, self._computed)
        if left < 0 or self._computed - before < 1:
            return None
        return (time.perf_counter() - since) / (self._computed - before) * left


def _per_second(items: float, seconds: float) -> float:
    return items / seconds if seconds > 0 else 0.0


def run_stages(
    read: Iterable[Read],
    restore: Callable[[Iterable[Read]], Iterator[Written]],
    write: Callable[[Written], None],
    *,
    read_depth: int,
    write_depth: int,
    frames_before: int = 0,
    frames_expected: int | None,
    report: Callable[[Progress], None] | None,
    watch: Callable[[Callable[[float], None]], None] | None = None,
) -> None:
    """Pass every item from `read` through `restore` to `write`, in order.

    Args:
        read: The input items; iterated in a thread of its own.
        restore: Turns input items into output items; runs in the calling thread.
        write: Called with each output item, in a third thread.
        read_depth: How many items may wait to be restored.
        write_depth: How many may wait to be written.
        frames_before: For the report: how many were finished before.
        frames_expected: For the report: how many there will be in total; None if unknown.
        report: Called in this thread after each restored item, and at the end.
        watch: Called with a function that reports progress within a window; it is called in this
            thread with the number of computed items.

    Raises:
        Exception: The error of any stage, after the others have stopped.
    """
    with (
        ReadAhead(read, depth=read_depth) as decoded,
        WriteBehind(write, depth=write_depth) as encoded,
    ):
        throughput = Throughput(
            decoded, encoded, frames_before=frames_before, frames_expected=frames_expected
        )
        if report and watch:
            watch(lambda ahead: report(throughput.progress(ahead)))
        for item in throughput.network.time_each(restore(decoded)):
            encoded.put(item)
            if report:
                report(throughput.progress())
        encoded.finish()
        if report:
            report(throughput.progress())
