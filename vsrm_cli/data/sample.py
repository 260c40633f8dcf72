"""What a training sample looks like."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ClipShape:
    """What one training sample looks like.

    Attributes:
        frames: How many frames a clip has.
        patch: Side of the small (network input) frames in pixels.
        batch: Clips in one step.
        photo_share: How many of the clips are made from photos, 0 to 1.
        motion: Greatest speed of the synthetic camera, in small pixels per frame.
    """

    frames: int
    patch: int
    batch: int
    photo_share: float
    motion: float = 4.0


@dataclass(frozen=True)
class Sample:
    """Clips to learn from.

    Attributes:
        small: Network input, (B, T, 3, H, W), 0 to 1, steps of 1/255.
        sharp: What the network should give, (B, T, 3, 4H, 4W), 0 to 1.
        flow_backward: True flow from frame t to t + 1 in small pixels, (B, T-1, 2, H, W); x first.
        flow_forward: True flow from frame t + 1 to t, same shape.
        has_flow: (B,), whether the flow of a clip is known; where not, it holds zeros.
    """

    small: Tensor
    sharp: Tensor
    flow_backward: Tensor
    flow_forward: Tensor
    has_flow: Tensor
