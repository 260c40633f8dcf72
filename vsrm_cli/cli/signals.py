"""The first Ctrl-C stops the job at the next resume point, the second one at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signal(report: Callable[[str], None], what: str) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C or SIGTERM stop the job at the next resume point.

    The second one stops it at once, as a `KeyboardInterrupt`; a third one kills the program.

    Args:
        report: Called at the first one with what happens now.
        what: What is finished before the job stops.

    Yields:
        A function that returns whether to stop.
    """
    signals_seen = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal signals_seen
        signals_seen += 1
        if signals_seen > 1:
            for each in former:
                signal.signal(each, signal.SIG_DFL)
            raise KeyboardInterrupt
        report(f"finishing this {what}; press Ctrl-C again to stop now")

    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: signals_seen > 0
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Let SIGTERM end a job as Ctrl-C does: at once, with its unfinished files removed."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
