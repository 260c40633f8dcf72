"""Optical flow between distant frames, composed from the flows between neighbors."""

from torch import Tensor

from vsrm_cli.layers.implicit_alignment import ImplicitAlign, Taps
from vsrm_cli.ops.warp import warp


class ComposedFlows:
    """Flow from each frame to the frames around it.

    All layers share it, forward and backward: the taps that gather frame b at anchor a also scatter
    results from anchor b to frame a.

    Args:
        align: Converts a flow to taps.
        flows: From t to t + 1 and from t + 1 to t, each (B, T-1, 2, H, W).
        radius: Frames on each side.

    Source: GSMamba. As in the authors' code, the composition starts with the pair farthest from the
    anchor, although the result is on the anchor's grid.
    """

    def __init__(self, align: ImplicitAlign, flows: tuple[Tensor, Tensor], radius: int) -> None:
        """Compose the flows, all anchors of one distance in a batch."""
        forward, backward = (flow.float().transpose(0, 1) for flow in flows)  # (T-1, B, 2, H, W)
        self.last = len(forward)
        self._taps: dict[tuple[int, int], Taps] = {}
        still = align.taps(forward[0].new_zeros(forward.shape[1:]))
        for t in range(self.last + 1):
            self._taps[t, t] = still
        far, near = forward, backward
        for distance in range(1, min(radius, self.last) + 1):
            if distance > 1:
                far = _compose(forward[: len(far) - 1], far[1:])
                near = _compose(backward[distance - 1 :], near[:-1])
            self._keep(align, far, 0, distance)
            self._keep(align, near, distance, -distance)

    def between(self, target: int, source: int, *, is_reversed: bool) -> Taps:
        """The taps from one frame to another.

        Args:
            target: The frame whose grid the taps are on.
            source: The frame to sample.
            is_reversed: Whether frames are counted from the end.
        """
        if is_reversed:
            return self._taps[self.last - target, self.last - source]
        return self._taps[target, source]

    def _keep(self, align: ImplicitAlign, flows: Tensor, first: int, step: int) -> None:
        for t, flow in enumerate(flows, start=first):
            self._taps[t, t + step] = align.taps(flow)


def _compose(first: Tensor, second: Tensor) -> Tensor:
    """The authors' composition, frame by frame of (n, B, 2, H, W)."""
    return second + warp(first.flatten(0, 1), second.flatten(0, 1)).view_as(second)
