"""CUDA graphs: what a network does to tiles of one shape, recorded once and replayed.

A window is thousands of small kernels, and a GPU waits for the processor to start each of them.
Replayed, they start by themselves. Recording costs some calls' time and a call's memory, so it is
done only for a shape that comes again and again: a short job never gets there. What is replayed
is compared with what was computed, and given up where it differs or cannot be recorded.
"""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from vsrm_cli.inference.memory import free_cache, is_memory_shortage
from vsrm_cli.inference.restorer import SupportsRestore

# The calls of a shape before it is recorded; they also make all that is made once, such as
# masks. Recording takes about as long as two calls.
CALLS_BEFORE = 4
# Whole tiles, and one more shape: full batches and what is left over of a row.
MAX_KEPT = 2
# A quarter of a level of 255.
MAX_DIFFERENCE = 1 / 1024

Replay = Callable[[Tensor], Tensor]
Recorder = Callable[[SupportsRestore, Tensor], Replay]


def record_on_cuda(network: SupportsRestore, clip: Tensor) -> Replay:
    """Record a network's work on clips shaped like this one.

    Raises:
        RuntimeError: If it does something that cannot be recorded, or the memory is too small.
    """
    given = clip.clone()
    graph = torch.cuda.CUDAGraph()
    # The threads that read and write may use the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = network(given)

    def replay(clip: Tensor) -> Tensor:
        given.copy_(clip)
        graph.replay()
        return result.clone()  # the next replay overwrites it

    return replay


class ReplayedNetwork:
    """A network that replays its work on the shapes that come most often.

    Attributes:
        scale: As the network's.
        hindrance: Why nothing is replayed any more, in words; None where nothing hinders it.
    """

    def __init__(self, network: SupportsRestore, *, record: Recorder = record_on_cuda) -> None:
        """Begin without any recording.

        Args:
            network: On a CUDA device; its weights must stay where they are.
            record: How to record; another one for tests.
        """
        self.scale = network.scale
        self.memory_bytes = network.memory_bytes
        self.disabled_reason: str | None = None
        self._network = network
        self._record = record
        self._replays: dict[torch.Size, Replay] = {}
        self._calls: Counter[torch.Size] = Counter()

    def __call__(self, clip: Tensor) -> Tensor:
        """Restore a clip as the network does, sooner where its shape has been recorded."""
        try:
            if replay := self._replays.get(clip.shape):
                return replay(clip)
            expected = self._network(clip)
        except RuntimeError as error:
            if is_memory_shortage(error):  # recordings hold memory: the next attempt may have it
                self._replays.clear()
                self.disabled_reason = "the memory is too small for recordings"
            raise
        self._calls[clip.shape] += 1
        is_due = self._calls[clip.shape] == CALLS_BEFORE and len(self._replays) < MAX_KEPT
        if is_due and self.disabled_reason is None:
            self._keep(clip, expected)
        return expected

    def _keep(self, clip: Tensor, expected: Tensor) -> None:
        """Record this shape, if what is replayed is what was computed."""
        # What a driver and each kernel allow can only be tried; nothing depends on it but speed.
        try:
            replay = self._record(self._network, clip)
            difference = (replay(clip) - expected).abs().max().item()
        except RuntimeError as error:
            self.disabled_reason = str(error).splitlines()[0]
            free_cache(clip.device)
            return
        if difference <= MAX_DIFFERENCE:  # not so where it is no number
            self._replays[clip.shape] = replay
        else:
            self.disabled_reason = f"a replay differed by {difference:.1e} from what was computed"
