"""CUDA graphs: the kernels for tiles of one shape are recorded once and replayed.

A window takes thousands of small kernels, and launching each of them costs time on the CPU. A graph
launches them at once. Recording takes the time of some calls and the memory of one, so it is done
only for shapes that are used repeatedly. A replay is compared with the computed result, and the
graph is not used if it differs or cannot be recorded.
"""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from vsrm_cli.inference.memory import free_cache, is_memory_shortage
from vsrm_cli.inference.restorer import SupportsRestore

# The calls of a shape before it is recorded; they also fill caches, such as masks. Recording takes
# about as long as two calls.
CALLS_BEFORE = 4
# Full batches, and the rest of a row.
MAX_KEPT = 2
# A quarter of a level of 255.
MAX_DIFFERENCE = 1 / 1024

Replay = Callable[[Tensor], Tensor]
GraphRecorder = Callable[[SupportsRestore, Tensor], Replay]


def record_on_cuda(network: SupportsRestore, clip: Tensor) -> Replay:
    """Record a network on clips shaped like this one.

    Raises:
        RuntimeError: If it does something that cannot be recorded, or runs out of memory.
    """
    given = clip.clone()
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the device at the same time.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = network(given)

    def replay(clip: Tensor) -> Tensor:
        given.copy_(clip)
        graph.replay()
        return result.clone()  # the next replay overwrites it

    return replay


class ReplayedNetwork:
    """A network that replays CUDA graphs for the shapes that come most often.

    Attributes:
        scale: That of the network.
        disabled_reason: Why nothing is recorded any more; None if nothing prevents it.
    """

    def __init__(self, network: SupportsRestore, *, record: GraphRecorder = record_on_cuda) -> None:
        """Start without any recording.

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
        """Restore a clip, by a replay if its shape has been recorded."""
        try:
            if replay := self._replays.get(clip.shape):
                return replay(clip)
            expected = self._network(clip)
        except RuntimeError as error:
            if is_memory_shortage(error):  # frees the memory of the recordings for the next attempt
                self._replays.clear()
                self.disabled_reason = "the memory is too small for recordings"
            raise
        self._calls[clip.shape] += 1
        is_due = self._calls[clip.shape] == CALLS_BEFORE and len(self._replays) < MAX_KEPT
        if is_due and self.disabled_reason is None:
            self._keep(clip, expected)
        return expected

    def _keep(self, clip: Tensor, expected: Tensor) -> None:
        """Record this shape, if a replay equals the computed result."""
        # Whether driver and kernels allow it can only be tried; it only affects speed.
        try:
            replay = self._record(self._network, clip)
            difference = (replay(clip) - expected).abs().max().item()
        except RuntimeError as error:
            self.disabled_reason = str(error).splitlines()[0]
            free_cache(clip.device)
            return
        if difference <= MAX_DIFFERENCE:  # false for NaN
            self._replays[clip.shape] = replay
        else:
            self.disabled_reason = f"a replay differed by {difference:.1e} from what was computed"
