"""Progress within a window, from the calls of a network's modules."""

import threading
from collections.abc import Callable
from functools import partial
from time import monotonic

# How often progress is reported.
SECONDS_BETWEEN_REPORTS = 0.5


class WindowProgress:
    """Counts how much of the current windows a network has computed.

    A network that computes frame by frame names modules, and the share of a frame's work that each
    call of them takes (`Network.paced`); for other networks, whole tiles are counted.
    """

    def __init__(self, network: object, report: Callable[[float], None]) -> None:
        """Register hooks on a network.

        Args:
            network: The network.
            report: Called in the thread that created this, with the number of computed frames of
                the current windows, as a fraction.
        """
        self._report = report
        self._thread = threading.get_ident()
        self._calls: list[float] = []  # several threads append to it
        self._tiles = self._frames = self._outputs = self._done = 0
        self._due = 0.0
        paced = getattr(network, "paced", None)
        self._hooks = [
            module.register_forward_hook(partial(self._note_call, share))
            for module, share in (paced() if paced else ())
        ]

    def stop(self) -> None:
        """Remove the hooks: the network may be used for another job."""
        for hook in self._hooks:
            hook.remove()

    def begin(self, *, tiles: int, frames: int, outputs: int) -> None:
        """Start some windows.

        Args:
            tiles: In all of them.
            frames: Of each tile.
            outputs: How many output frames they give.
        """
        self._tiles, self._frames, self._outputs, self._done = tiles, frames, outputs, 0
        self._calls.clear()

    def note_tiles(self, tiles: int) -> None:
        """Count finished tiles."""
        self._done += tiles
        self._calls.clear()
        self.report()

    def report(self) -> None:
        """Report, if the last report was long enough ago or all tiles are done."""
        is_complete = self._done >= self._tiles
        if monotonic() < self._due and not is_complete:
            return
        self._due = monotonic() + SECONDS_BETWEEN_REPORTS
        in_part = min(sum(self._calls) / self._frames, self._tiles - self._done)
        self._report(self._outputs * (self._done + in_part) / self._tiles)

    def _note_call(self, share: float, *_: object) -> None:
        self._calls.append(share)
        if threading.get_ident() == self._thread:
            self.report()
