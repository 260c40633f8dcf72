"""How much of a window is computed: seen by the calls of a network's modules, while it runs."""

import threading
from collections.abc import Callable
from functools import partial
from time import monotonic

# How often somebody hears of it.
SECONDS_BETWEEN_REPORTS = 0.5


class Work:
    """Counts what a network has done of the windows that it was given.

    A network that computes frame by frame names modules, and what share of a frame's work each call
    of them stands for (`Network.paced`); of others, whole tiles are counted.
    """

    def __init__(self, network: object, report: Callable[[float], None]) -> None:
        """Listen to a network.

        Args:
            network: What is run.
            report: Called in the thread that made this with how many frames, in part, are
                computed of those that come next.
        """
        self._report = report
        self._thread = threading.get_ident()
        self._calls: list[float] = []  # several threads append to it
        self._tiles = self._frames = self._comes = self._done = 0
        self._due = 0.0
        paced = getattr(network, "paced", None)
        self._hooks = [
            module.register_forward_hook(partial(self._note_call, share))
            for module, share in (paced() if paced else ())
        ]

    def stop(self) -> None:
        """Listen no more: the network may go on to another job."""
        for hook in self._hooks:
            hook.remove()

    def begin(self, *, tiles: int, frames: int, comes: int) -> None:
        """Begin with some windows.

        Args:
            tiles: In all of them.
            frames: Of each tile.
            comes: How many frames of the output come of it.
        """
        self._tiles, self._frames, self._comes, self._done = tiles, frames, comes, 0
        self._calls.clear()

    def note_tiles(self, tiles: int) -> None:
        """Some tiles are finished."""
        self._done += tiles
        self._calls.clear()
        self.tell()

    def tell(self) -> None:
        """Report, if the last report is a while ago or all is done."""
        is_complete = self._done >= self._tiles
        if monotonic() < self._due and not is_complete:
            return
        self._due = monotonic() + SECONDS_BETWEEN_REPORTS
        in_part = min(sum(self._calls) / self._frames, self._tiles - self._done)
        self._report(self._comes * (self._done + in_part) / self._tiles)

    def _note_call(self, share: float, *_: object) -> None:
        self._calls.append(share)
        if threading.get_ident() == self._thread:
            self.tell()
