"""The compact network of version 0.1, for weight files that people trained with it.

VSRM's branches between a stem of residual blocks and an upsampler on LR frames that takes sub-pixel
samples of neighbors. `vsrm_compact` replaced it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.frame import SCALE
from vsrm_cli.layers.blocks import ResidualBlock, channels_last
from vsrm_cli.layers.subpixel import CHANNELS, GAIN, subpixel_samples
from vsrm_cli.models.config_checks import check_choice
from vsrm_cli.models.vsrm import VSRM, VSRMConfig


@dataclass(frozen=True)
class CompactV01Config(VSRMConfig):
    """The size of a compact network of version 0.1.

    Attributes:
        feature_blocks: Residual blocks before the branches.
        upsampler: "direct".
        upsampler_blocks: Residual blocks of the upsampler.
        neighbors: Frames on each side whose samples the upsampler takes, at least 1.
        base: "bicubic".
    """

    feature_blocks: int
    upsampler: str
    upsampler_blocks: int
    neighbors: int
    base: str

    def __post_init__(self) -> None:
        """Refuse what no network could be built from, with a ValueError."""
        super().__post_init__()
        check_choice("upsampler", self.upsampler, ("direct",))
        check_choice("base", self.base, ("bicubic",))
        if self.neighbors < 1:
            raise ValueError("neighbors must be at least 1")


class DirectUpsampler(nn.Module):
    """Residual convolutions on LR frames, then one pixel shuffle by four.

    Args:
        channels: Channels of the features.
        width: Channels of the residual blocks.
        blocks: How many of them.
    """

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        """Make the convolutions."""
        super().__init__()
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.conv_last = nn.Conv2d(width, 3 * SCALE**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, C, H, W) to a correction of the large frame, (B, 3, 4H, 4W)."""
        x = self.conv_last(self.blocks(self.conv_in(channels_last(x))))
        return F.pixel_shuffle(x, SCALE)


class CompactV01(VSRM):
    """The whole network; see `VSRM`.

    Args:
        config: Its size.
    """

    config: CompactV01Config

    def __init__(self, config: CompactV01Config) -> None:
        """Make all modules."""
        super().__init__(config)
        c = config.channels
        self.features = nn.Sequential(*(ResidualBlock(c) for _ in range(config.feature_blocks)))
        self.upsampler = DirectUpsampler(  # type: ignore[assignment]
            c + CHANNELS, config.upsampler_width, config.upsampler_blocks
        )

    def passes(self, clip: Tensor, flows: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Restore a clip; see `Network.passes`."""
        return (self._enlarged(self.propagate(self.extract(clip), flows), clip, flows),)

    def frames(self, clip: Tensor, flows: tuple[Tensor, Tensor]) -> Tensor:
        """Restore a clip without propagation; see `Network.frames`."""
        return self._enlarged(self.extract(clip), clip, flows)

    def extract(self, clip: Tensor) -> Tensor:
        """Features of each frame from itself alone; see `Network.extract`."""
        own = channels_last(clip.flatten(0, 1).to(self.dtype))
        features = self.features(self.conv_first(own))
        frames: Tensor = features.unflatten(0, clip.shape[:2])
        return frames

    def _enlarged(self, features: Tensor, clip: Tensor, flows: tuple[Tensor, Tensor]) -> Tensor:
        large = []
        for t, small in enumerate(clip.unbind(1)):
            samples = subpixel_samples(clip, flows, t, self.config.neighbors)
            known = torch.cat((features[:, t], samples.to(features.dtype)), dim=1)
            base = F.interpolate(small, scale_factor=SCALE, mode="bicubic", align_corners=False)
            large.append(base + self.upsample_features(known))
        return torch.stack(large, dim=1)

    def _stack(self, current: Tensor, aligned: list[Tensor]) -> Tensor:
        """As in `VSRM`, but neighbors are shown as amplified differences."""
        sides = [GAIN * (frame - current) for frame in aligned]
        sides += [torch.zeros_like(current)] * (2 - len(sides))
        return torch.stack((sides[0], current, sides[1]), dim=1)
