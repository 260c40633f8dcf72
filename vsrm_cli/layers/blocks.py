"""Residual blocks, gated feed-forward layers, and the upsampler."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def channels_last(x: Tensor) -> Tensor:
    """Convert (B, C, H, W) to channels last: on a CPU small convolutions are three times faster."""
    return x.contiguous(memory_format=torch.channels_last)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), without normalization.

    Args:
        channels: Channels in, between and out.
    """

    def __init__(self, channels: int) -> None:
        """Make both convolutions; the second has small weights, so that deep stacks train."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.conv2.weight.mul_(0.1)
            self.conv2.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        y: Tensor = self.conv2(F.relu(self.conv1(x), inplace=True))
        return x + y


class TGFN(nn.Module):
    """Temporal gated feed-forward network: one half, after GELU, gates the other.

        (a, b) = split(proj_in(x));  y = proj_out(DW1(LN(a)) * GELU(DW2(LN(b))))

    Args:
        channels: Channels of the tokens.
        hidden: Channels of each half.

    Source: VSRM (arXiv 2506.22762), TGFN; the normalizations have weights of their own.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        """Make the projections and the two depthwise 3 x 3 x 3 convolutions."""
        super().__init__()
        self.proj_in = nn.Linear(channels, 2 * hidden)
        self.norm1 = nn.LayerNorm(hidden)
        self.norm2 = nn.LayerNorm(hidden)
        self.dw1 = nn.Conv3d(hidden, hidden, 3, padding=1, groups=hidden)
        self.dw2 = nn.Conv3d(hidden, hidden, 3, padding=1, groups=hidden)
        self.proj_out = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, H, W, C) to the same shape."""
        a, b = self.proj_in(x).chunk(2, dim=-1)
        a = _depthwise(self.dw1, self.norm1(a))
        b = _depthwise(self.dw2, self.norm2(b))
        y: Tensor = self.proj_out(a * F.gelu(b))
        return y


def _depthwise(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """Apply a 3-D convolution to (B, T, H, W, C) without copying the input."""
    y: Tensor = conv(x.permute(0, 4, 1, 2, 3))
    return y.permute(0, 2, 3, 4, 1)


class TwoStepUpsampler(nn.Module):
    """Two convolutions with a pixel shuffle by two each, then two convolutions on HR frames.

    Args:
        channels: Channels of the features.
        width: Channels of the upsampled features.
    """

    def __init__(self, channels: int, width: int) -> None:
        """Make the convolutions."""
        super().__init__()
        self.conv_before_upsample = nn.Conv2d(channels, width, 3, padding=1)
        self.upconv1 = nn.Conv2d(width, 4 * width, 3, padding=1)
        self.upconv2 = nn.Conv2d(width, 4 * width, 3, padding=1)
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, C, H, W) to a correction of the HR frame, (B, 3, 4H, 4W)."""
        x = self.conv_before_upsample(x)
        x = F.leaky_relu(F.pixel_shuffle(self.upconv1(x), 2), 0.1)
        x = F.leaky_relu(F.pixel_shuffle(self.upconv2(x), 2), 0.1)
        y: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), 0.1))
        return y


class GEGLU(nn.Module):
    """A gated feed-forward layer: fc2(GELU(fc11(x)) * fc12(x)).

    Args:
        channels: Channels of the tokens.
        hidden: Channels between the layers.

    Source: Shazeer, "GLU Variants Improve Transformer" (arXiv 2002.05202), equation 6.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        """Make the layers."""
        super().__init__()
        self.fc11 = nn.Linear(channels, hidden)
        self.fc12 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        y: Tensor = self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))
        return y
