"""The shape and content of a training batch."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ClipShape:
    """The shape of the clips of a training batch.

    Attributes:
        frames: How many frames a clip has.
        patch: Side of the LR frames (network input) in pixels.
        batch: Clips in one step.
        photo_share: Share of the clips that are made from photos, 0 to 1.
        motion: Maximum speed of the synthetic camera, in LR pixels per frame.
    """

    frames: int
    patch: int
    batch: int
    photo_share: float
    motion: float = 4.0


@dataclass(frozen=True)
class TrainingBatch:
    """The clips of one training step.

    Attributes:
        lr: Network input, (B, T, 3, H, W), 0 to 1, steps of 1/255.
        hr: Ground truth, (B, T, 3, 4H, 4W), 0 to 1.
        flow_backward: True flow from frame t to t + 1 in LR pixels, (B, T-1, 2, H, W); x first.
        flow_forward: True flow from frame t + 1 to t, same shape.
        has_flow: (B,), whether the flow of a clip is known; if not, it is zero.
    """

    lr: Tensor
    hr: Tensor
    flow_backward: Tensor
    flow_forward: Tensor
    has_flow: Tensor
