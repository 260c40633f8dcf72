"""Decoding, network and encoding at the same time.

A video is read by one thread, restored by the caller's, and written by a third. Between them
lie short queues: a fast stage waits for a slow one instead of filling the memory. A failure
anywhere ends all three, and is raised where the caller stands.

Only the plumbing lives here: it moves items of any kind and never looks into one.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")
Read = TypeVar("Read")
Written = TypeVar("Written")

# Windows delivers Ctrl-C only to a running thread; a waiting one must wake up to notice it.
# Four times a second is prompt for a person and costs nothing.
WAKE_SECONDS = 0.25

# What may lie in each queue. The network gives and takes whole windows at a time: a queue that
# holds as many lets the other stages work on while it computes. For large pictures that would be
# gigabytes, so there the queue is shorter.
QUEUE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Progress:
    """How far the job is.

    Attributes:
        frames_done: Frames encoded, those of an interrupted job before it included.
        frames_expected: How many there will be, as far as the file can be trusted.
        decode_fps: Frames per second of the decoder while it works; 0 before the first frame.
        network_fps: The same of the network.
        encode_fps: The same of the encoder.
        seconds_left: Estimate, None where there is nothing to base it on.
        frames_computed: Frames that the network has done, those of an interrupted job included; of
            those that it is working on, a part.
        shares: Of several devices, each with the frames that it has done; then the speeds of
            decoder and encoder are not known.
    """

    frames_done: int
    frames_expected: int | None
    decode_fps: float
    network_fps: float
    encode_fps: float
    seconds_left: float | None
    frames_computed: float = 0.0
    shares: tuple[tuple[str, int], ...] = ()


def queue_depth(items: int, item_bytes: int) -> int:
    """How many of some items may wait: all, or as many as `QUEUE_BYTES` hold."""
    return max(1, min(items, QUEUE_BYTES // item_bytes))


class Timer:
    """How many items a stage has handled, and how long it was busy with them.

    Attributes:
        items: Number of items handled.
        seconds: Time that they took to make or to write.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.items = 0
        self.seconds = 0.0

    def time_each(self, source: Iterable[T]) -> Iterator[T]:
        """Pass the items of `source` on, counting the time that it takes to make each."""
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
    """A queue of at most `depth` items between two threads, which either side can end."""

    def __init__(self, depth: int) -> None:
        """Make an empty queue."""
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._is_ended = False

    def put(self, item: T) -> bool:
        """Wait for room and add `item`; False if the queue has ended and nobody will take it."""
        with self._changed:
            while len(self._items) >= self._depth and not self._is_ended:
                self._changed.wait(WAKE_SECONDS)
            if self._is_ended:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def end(self) -> None:
        """Take no more items; those that are waiting can still be fetched."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Take no more items and drop those that are waiting."""
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


class _Stage(Generic[T]):
    """A thread at one end of a queue: what reading ahead and writing behind have in common.

    Attributes:
        meter: The work of the thread.
    """

    def __init__(self, name: str, *, depth: int) -> None:
        self.meter = Timer()
        self._lane: BoundedQueue[T] = BoundedQueue(depth)
        self._error: BaseException | None = None
        # A daemon: a second Ctrl-C, during the clean-up, must be able to end the program.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the thread after the item in its hands, and wait for it."""
        self._lane.abandon()
        self._join()

    def _work(self) -> None:
        raise NotImplementedError

    def _join(self) -> None:
        while self._thread.is_alive():
            self._thread.join(WAKE_SECONDS)

    def _raise_failure(self) -> None:
        if self._error is not None:
            raise self._error


class ReadAhead(_Stage[T]):
    """The items of `source`, made by a thread a few steps ahead of whoever takes them.

    Attributes:
        waiting: How long the caller has waited for items.
    """

    def __init__(self, source: Iterable[T], *, depth: int) -> None:
        """Prepare to read at most `depth` items ahead; `with` starts it."""
        super().__init__("decode", depth=depth)
        self.waiting = Timer()
        self._source = source

    def __iter__(self) -> Iterator[T]:
        """Yield the items in order; then raise what `source` raised, if it failed."""
        yield from self.waiting.time_each(self._lane)
        self._raise_failure()

    def _work(self) -> None:
        try:
            for item in self.meter.time_each(self._source):
                if not self._lane.put(item):
                    break
        except BaseException as error:
            self._error = error
        finally:
            self._lane.end()


class WriteBehind(_Stage[T]):
    """Items are given to `write` by a thread, a few steps behind whoever puts them."""

    def __init__(self, write: Callable[[T], None], *, depth: int) -> None:
        """Prepare to let at most `depth` items wait; `with` starts it."""
        super().__init__("encode", depth=depth)
        self._write = write

    def put(self, item: T) -> None:
        """Hand over an item as soon as there is room; raise what `write` raised, if it failed."""
        if not self._lane.put(item):
            self._raise_failure()

    def finish(self) -> None:
        """Wait until every item is written; raise what `write` raised, if it failed."""
        self._lane.end()
        self._join()
        self._raise_failure()

    def _work(self) -> None:
        try:
            for item in self._lane:
                began = time.perf_counter()
                self._write(item)
                self.meter.seconds += time.perf_counter() - began
                self.meter.items += 1
        except BaseException as error:
            self._error = error
            self._lane.abandon()


class Throughput:
    """Reads the meters of the three stages.

    Attributes:
        network: The work of the stage in the middle, waiting for the decoder included.
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
        """How far the job is now.

        Args:
            ahead: Frames that the network has done but not handed on, in part.
        """
        done = self._encoded.meter.items
        self._computed = max(self._computed, self.network.items + ahead)
        if self._first is None and self._computed:
            # Of a window that is seen from inside, loading and compiling are over now.
            is_inside = self._computed < 1
            self._first = (time.perf_counter(), self._computed) if is_inside else (self._began, 0.0)
        # The network gives a whole window at a time. Right after, when one frame of it has been
        # handed on, the frames taken in tell how fast it is, and those given out do not.
        taken: float = self._decoded.waiting.items
        network_seconds = self.network.seconds - self._decoded.waiting.seconds
        if not self.network.items and self._first is not None:  # within the first window
            taken = self._computed - self._first[1]
            network_seconds = time.perf_counter() - self._first[0]
        return Progress(
            frames_done=self._frames_before + done,
            frames_expected=self._frames_expected,
            decode_fps=_per_second(self._decoded.meter.items, self._decoded.meter.seconds),
            network_fps=_per_second(taken, network_seconds),
            encode_fps=_per_second(done, self._encoded.meter.seconds),
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
    """Take every item of `read` through `restore` to `write`, in order.

    Args:
        read: Makes the items; iterated by a thread of its own.
        restore: Makes of the items read those to be written; runs in the calling thread.
        write: Is given each of them, by a third thread.
        read_depth: How many items may wait to be restored.
        write_depth: How many may wait to be written.
        frames_before: For the report: how many were done before.
        frames_expected: Likewise: how many there will be with these; None if unknown.
        report: Called in this thread after each item restored, and at the end.
        watch: Given a function to be called, in this thread, with how many of the next items are
            computed; each call is reported.

    Raises:
        Exception: What any stage has raised; the others have stopped by then.
    """
    with (
        ReadAhead(read, depth=read_depth) as decoded,
        WriteBehind(write, depth=write_depth) as encoded,
    ):
        tally = Throughput(
            decoded, encoded, frames_before=frames_before, frames_expected=frames_expected
        )
        if report and watch:
            watch(lambda ahead: report(tally.progress(ahead)))
        for item in tally.network.time_each(restore(decoded)):
            encoded.put(item)
            if report:
                report(tally.progress())
        encoded.finish()
        if report:
            report(tally.progress())
