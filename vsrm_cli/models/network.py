"""The interface of all networks: optical flow, a restored clip, restored single frames.

Networks differ in how they propagate features through the clip. Training needs only this: flow
between neighbors, the result of each pass over the clip, and frames without propagation, which cost
much less.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.frame import SCALE
from vsrm_cli.layers.blocks import channels_last
from vsrm_cli.layers.spynet import SpyNet


class Network(nn.Module, ABC):
    """Maps a clip to the same clip four times larger.

    Attributes:
        scale: How many times larger the frames become.
        name: Name of the loaded weights.
        config: The size of the network; a frozen dataclass.
        family: Name of the architecture.
    """

    scale = SCALE
    family: str
    # Parameters that stay in float32 at any precision, by the ends of their names: flow in float16
    # is exact to a quarter pixel at best, and a decay acts on a state over thousands of tokens.
    float32_parameters: tuple[str, ...] = (".A_log", ".D", "dt_proj.bias")

    spynet: SpyNet
    conv_first: nn.Module

    def __init__(self, config: Any) -> None:
        """Keep the configuration."""
        super().__init__()
        self.config = config
        self.name = self.family

    def forward(self, clip: Tensor) -> Tensor:
        """Restore a clip.

        Args:
            clip: (B, T, 3, H, W), values 0 to 1; T, H and W at least 1.

        Returns:
            (B, T, 3, 4H, 4W); values may lie slightly outside 0 to 1.
        """
        return self.passes(clip, self.flows(clip))[-1]

    def flows(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Flows between neighbors in LR pixels.

        Returns:
            From t to t + 1 and from t + 1 to t, each (B, T-1, 2, H, W), in the type of the flow
            network.
        """
        batch, time, _, height, width = clip.shape
        early = clip[:, :-1].reshape(-1, 3, height, width)
        late = clip[:, 1:].reshape(-1, 3, height, width)
        shape = (batch, time - 1, 2, height, width)
        if time == 1:
            return early.new_zeros(shape), early.new_zeros(shape)
        return self.spynet(early, late).view(shape), self.spynet(late, early).view(shape)

    @abstractmethod
    def passes(self, clip: Tensor, flows: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Restore a clip: the result of each pass over it, the final one last.

        Args:
            clip: (B, T, 3, H, W), values 0 to 1.
            flows: Of `flows`.

        Returns:
            (B, T, 3, 4H, 4W) each.
        """

    @abstractmethod
    def frames(self, clip: Tensor, flows: tuple[Tensor, Tensor]) -> Tensor:
        """Restore a clip without propagation, at a small part of the cost.

        Networks are first trained this way, and with propagation after that.

        Args:
            clip: (B, T, 3, H, W), values 0 to 1.
            flows: Of `flows`.

        Returns:
            (B, T, 3, 4H, 4W).
        """

    @abstractmethod
    def extract(self, clip: Tensor) -> Tensor:
        """Features of each frame by itself.

        Args:
            clip: (B, T, 3, H, W), values 0 to 1.

        Returns:
            (B, T, C, H, W).
        """

    def ablations(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Ways to restore a clip with a part of the network left out, by name."""
        return {"without propagation": lambda clip: self.frames(clip, self.flows(clip))}

    @abstractmethod
    def temporal_parameters(self) -> list[nn.Parameter]:
        """The weights that only propagation uses: `frames` does not depend on them."""

    @abstractmethod
    def checkpointed(self) -> list[tuple[nn.Module, str]]:
        """Modules and their methods that gradient checkpointing recomputes."""

    def paced(self) -> list[tuple[nn.Module, float]]:
        """Modules that are called frame by frame, and each call's share of a frame's work."""
        return []

    @abstractmethod
    def memory_bytes(self, time: int, height: int, width: int) -> int:
        """Estimate the peak memory of one clip in float32.

        Args:
            time: Frames.
            height: Of the LR frames.
            width: Of the LR frames.
        """

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.conv_first.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights, except for those that are always float32."""
        return next(self.conv_first.parameters()).dtype

    @property
    def clip_dtype(self) -> torch.dtype:
        """The type of its clips: that of the weights, but bfloat16 would round frames to 8 bits."""
        return torch.float32 if self.dtype is torch.bfloat16 else self.dtype

    def set_precision(self, dtype: torch.dtype) -> None:
        """Convert the weights, except for the flow network and `float32_parameters`.

        Args:
            dtype: The new type.
        """
        for name, parameter in self.named_parameters():
            is_exact = name.startswith("spynet.") or name.endswith(self.float32_parameters)
            parameter.data = parameter.data.to(torch.float32 if is_exact else dtype)

    def reset_scans(self) -> None:
        """Initialize decays and step sizes of all scans, after all other initialization."""
        for module in self.modules():
            reset: Callable[[], None] | None = getattr(module, "reset_scan", None)
            if reset is not None:
                reset()


class FeaturePropagation(Network):
    """A network that propagates features through the clip, and upsamples them at the end."""

    def passes(self, clip: Tensor, flows: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Restore a clip; see `Network.passes`."""
        return (self.enlarge(self.propagate(self.extract(clip), flows), clip),)

    def frames(self, clip: Tensor, flows: tuple[Tensor, Tensor]) -> Tensor:
        """Restore a clip without propagation; see `Network.frames`."""
        return self.enlarge(self.extract(clip), clip)

    def extract(self, clip: Tensor) -> Tensor:
        """Features of each frame by itself; see `Network.extract`."""
        features = self.conv_first(channels_last(clip.flatten(0, 1).to(self.dtype)))
        frames: Tensor = features.unflatten(0, clip.shape[:2])
        return frames

    @abstractmethod
    def propagate(self, features: Tensor, flows: tuple[Tensor, Tensor]) -> Tensor:
        """Propagate features through the clip.

        Args:
            features: Of `extract`, (B, T, C, H, W).
            flows: Of `flows`.

        Returns:
            (B, T, C, H, W): features of each frame, with information from the others.
        """

    def enlarge(self, features: Tensor, clip: Tensor) -> Tensor:
        """Upsample the features of each frame.

        Args:
            features: (B, T, C, H, W).
            clip: (B, T, 3, H, W), whose bilinear enlargement is corrected.

        Returns:
            (B, T, 3, 4H, 4W).
        """
        # One frame at a time: large frames would fill the memory.
        return torch.stack(
            [
                F.interpolate(small, scale_factor=SCALE, mode="bilinear", align_corners=False)
                + self.upsample_features(known)
                for known, small in zip(features.unbind(1), clip.unbind(1), strict=True)
            ],
            dim=1,
        )

    @abstractmethod
    def upsample_features(self, features: Tensor) -> Tensor:
        """The correction of a large frame, (B, 3, 4H, 4W), from features (B, C, H, W)."""


def initialize_linear(linear: nn.Linear, *, ends_residual: bool) -> None:
    """Initialize a layer: near zero if it ends a residual, else to keep the scale of its input."""
    std = 0.02 if ends_residual else linear.in_features**-0.5
    nn.init.trunc_normal_(linear.weight, std=std)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
