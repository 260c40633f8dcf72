"""Ctrl-C as a wish: the first one lets the work come to a point to go on from."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_when_asked(tell: Callable[[str], None], what: str) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C, or SIGTERM, be a wish to stop at the next point to go on from.

    The second one ends the work at once, as a `KeyboardInterrupt`; a third one the program.

    Args:
        tell: Is told, at the first one, what is done now.
        what: What is finished before the work stops.

    Yields:
        A function that says whether to stop.
    """
    signals_seen = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal signals_seen
        signals_seen += 1
        if signals_seen > 1:
            for each in former:
                signal.signal(each, signal.SIG_DFL)
            raise KeyboardInterrupt
        tell(f"finishing the {what}; press Ctrl-C again to stop at once")

    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: signals_seen > 0
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
