"""GSMamba: attention in spatial windows, Mamba along time (arXiv 2510.00862).

`GSM` computes the flow between neighboring frames and passes features through its layers, which
process the clip forward and backward in turn. A layer first applies shifted-window attention to all
frames (`AttentionBlock`). Then it processes the clip window by window: the frames around an anchor
are gathered onto its grid, a Mamba block scans all frames of each pixel, pixel after pixel, and
the results are scattered back to the frames (`GatherScatterBlock`). Each window reads the results
of the windows before it.

Parameter names are those of the authors' code, so that their weights load unchanged. The order of
operations is theirs, too, where it affects the result. Repeated work is done once: flows are
composed once for all layers, keys and values are projected before they are gathered, and position
codes are projected once per clip.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.frame import SCALE
from vsrm_cli.layers.blocks import channels_last
from vsrm_cli.layers.flow_composition import ComposedFlows
from vsrm_cli.layers.implicit_alignment import ImplicitAlign, Taps, gather_bilinear
from vsrm_cli.layers.mamba import BiMamba
from vsrm_cli.layers.spynet import SpyNet
from vsrm_cli.layers.window_attention import AttentionBlock
from vsrm_cli.models.config_checks import check_blocks, check_sizes
from vsrm_cli.models.network import FeaturePropagation, initialize_linear
from vsrm_cli.ops.depthwise_conv import depthwise_conv


@dataclass(frozen=True)
class GSMConfig:
    """The size of a GSMamba network.

    Attributes:
        channels: Features of each pixel, C; a multiple of four.
        heads: Heads of all attention; a divisor of C.
        layers: Propagation layers; even, since each turns time around.
        attention_blocks: Attention blocks at the beginning of each layer.
        radius: Frames on each side of an anchor.
        expand: Width inside the Mamba blocks, as a multiple of C.
        state: States of each channel of a scan.
        conv: Length of the causal convolution before a scan.
        rank: Width of the bottleneck of the step sizes.
        ffn: Width of the feed-forward layers after Mamba, as a multiple of C.
        attention_ffn: Width of those after attention, as a multiple of C.
        flow_levels: Levels of the flow pyramid.
        flow_widths: Channels between the convolutions of each level.
        flow_kernel: Side of the flow network's kernels.
        upsampler_width: Channels of the upsampler.
    """

    channels: int
    heads: int
    layers: int
    attention_blocks: int
    radius: int
    expand: int
    state: int
    conv: int
    rank: int
    ffn: int
    attention_ffn: int
    flow_levels: int
    flow_widths: tuple[int, ...]
    flow_kernel: int
    upsampler_width: int

    def __post_init__(self) -> None:
        """Raise a ValueError if no network can have this size."""
        check_sizes(self)
        check_blocks(self.layers * (self.attention_blocks + 1))
        if self.layers % 2 or self.channels % 4 or not self.heads or self.channels % self.heads:
            raise ValueError(
                f"its {self.layers} layers must be even, its {self.channels} channels divisible "
                f"by 4 and by its {self.heads} heads"
            )


class MixFFN(nn.Module):
    """A feed-forward layer with a depthwise convolution: fc2(GELU(conv 3 x 3 x 3(fc1(x)))).

    Args:
        channels: Channels of the tokens.
        hidden: Channels between the layers.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        """Make the layers."""
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = nn.ModuleDict({"dwconv": nn.Conv3d(hidden, hidden, 3, 1, 1, groups=hidden)})
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, wanted: slice) -> Tensor:
        """Map (B, K, H, W, C) to the ``wanted`` ones of the K frames."""
        conv = cast(nn.Conv3d, self.dwconv["dwconv"])
        y = depthwise_conv(self.fc1(x), conv.weight, cast(Tensor, conv.bias))
        out: Tensor = self.fc2(F.gelu(y[:, wanted]))
        return out


class GatherScatterBlock(nn.Module):
    """Mamba along time on frames gathered to an anchor, scattered back, and a feed-forward layer.

    Args:
        config: Size of the network.
    """

    def __init__(self, config: GSMConfig) -> None:
        """Create the layers; both skip scales start at one."""
        super().__init__()
        c = config.channels
        self.skip_scale = nn.Parameter(torch.ones(1, c, 1, 1, 1))
        self.skip_scale2 = nn.Parameter(torch.ones(1, 1, c))
        self.norm1 = nn.LayerNorm(c)
        self.mamba = BiMamba(
            c, expand=config.expand, state=config.state, conv=config.conv, rank=config.rank
        )
        self.norm2 = nn.LayerNorm(c)
        self.mlp = MixFFN(c, config.ffn * c)

    def forward(
        self, clip: Tensor, aligned: Tensor, scatter_taps: list[Taps | None], wanted: slice
    ) -> Tensor:
        """One window.

        Args:
            clip: The K frames, (B, K, H, W, C).
            aligned: The same frames on the grid of the anchor, (B, H * W, K, C).
            scatter_taps: For each frame, the positions of its pixels in the anchor; None for the
                anchor and copies of it.
            wanted: Which frames of the window are needed.

        Returns:
            The wanted frames, (B, wanted, H, W, C).
        """
        half = self.mamba.in_proj.weight.dtype
        # The weights of the normalizations are float32, and CUDA requires input of the same type.
        tokens = self.mamba(self.norm1(aligned.float()).to(half).flatten(1, 2)).view(aligned.shape)
        z = self.skip_scale.view(-1) * clip + scatter(tokens, scatter_taps).view(clip.shape)
        y = self.mlp(self.norm2(z).to(half), wanted)
        out: Tensor = self.skip_scale2[0, 0] * z[:, wanted] + y
        return out


def scatter(tokens: Tensor, scatter_taps: list[Taps | None]) -> Tensor:
    """Sample the results of gathered frames on the grids of these frames.

    Args:
        tokens: (B, H * W, K, C) on the grid of the anchor.
        scatter_taps: For each frame, the positions of its pixels in the anchor; None to copy.

    Returns:
        (B, K, H * W, C); zero for positions outside of the anchor.
    """
    count = len(scatter_taps)
    flat = tokens.flatten(0, 2)
    frames = [
        tokens[:, :, k]
        if taps is None
        else gather_bilinear(flat, taps.index * count + k, taps.weight).view(tokens[:, :, k].shape)
        for k, taps in enumerate(scatter_taps)
    ]
    return torch.stack(frames, dim=1)


class AttentionStack(nn.Module):
    """Attention blocks one after another; the windows of every second one are shifted.

    Args:
        config: Size of the network.
    """

    def __init__(self, config: GSMConfig) -> None:
        """Make the blocks."""
        super().__init__()
        c, hidden = config.channels, config.attention_ffn * config.channels
        self.blocks = nn.ModuleList(
            AttentionBlock(c, config.heads, hidden, is_shifted=number % 2 == 1)
            for number in range(config.attention_blocks)
        )

    def forward(self, frames: list[Tensor]) -> list[Tensor]:
        """Map T frames (B, H, W, C) to as many."""
        for block in self.blocks:
            frames = block(frames)
        return frames


class PropagationStage(nn.Module):
    """The two halves of a layer, under the authors' names.

    Args:
        config: Size of the network.
    """

    def __init__(self, config: GSMConfig) -> None:
        """Make both."""
        super().__init__()
        self.attn_blocks = AttentionStack(config)
        self.mamba_block = GatherScatterBlock(config)


class PropagationLayer(nn.Module):
    """Attention on all frames, then Mamba window by window; returns the frames in reverse order.

    Args:
        config: Size of the network.
    """

    def __init__(self, config: GSMConfig) -> None:
        """Make the blocks."""
        super().__init__()
        self.radius = config.radius
        self.stage = PropagationStage(config)

    def forward(
        self,
        frames: list[Tensor],
        motion: ComposedFlows,
        align: ImplicitAlign,
        *,
        is_reversed: bool,
    ) -> list[Tensor]:
        """Map T frames (B, H, W, C) to as many, the last one first.

        Args:
            frames: In the order in which this layer reads them.
            motion: Of the clip, in its own order.
            align: Shared by all layers.
            is_reversed: Whether the frames are in reverse order.
        """
        y: list[Tensor] = self.stage.attn_blocks(frames)
        for anchor in range(len(y)):
            y = self.window(y, anchor, motion, align, is_reversed=is_reversed)
        return [f + g for f, g in zip(frames, y, strict=True)][::-1]

    def window(
        self,
        frames: list[Tensor],
        anchor: int,
        motion: ComposedFlows,
        align: ImplicitAlign,
        *,
        is_reversed: bool,
    ) -> list[Tensor]:
        """Process the frames around an anchor; returns all frames.

        The clip is padded with copies of its first and last frame, whose results are dropped.
        """
        last = len(frames) - 1
        around = range(anchor - self.radius, anchor + self.radius + 1)
        places = [min(max(place, 0), last) for place in around]
        query = align.project_query(frames[anchor].flatten(0, 2))
        gathered = {
            place: align(
                query,
                align.project_keys_values(frames[place].flatten(0, 2)),
                motion.between(anchor, place, is_reversed=is_reversed),
            )
            for place in range(places[0], places[-1] + 1)
        }
        batch, height, width, channels = frames[anchor].shape
        aligned = torch.stack([gathered[place] for place in places], dim=1)
        first = -min(around[0], 0)
        written: Tensor = self.stage.mamba_block(
            torch.stack([frames[place] for place in places], dim=1),
            aligned.view(batch, height * width, len(places), channels),
            [
                None if place == anchor else motion.between(place, anchor, is_reversed=is_reversed)
                for place in places
            ],
            slice(first, first + len(gathered)),
        )
        results = list(frames)
        results[places[0] : places[-1] + 1] = written.unbind(1)
        return results


class FrameConv(nn.Conv3d):
    """A convolution of single frames, stored as a 3-D convolution of length one.

    Args:
        inputs: Channels in.
        outputs: Channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        """Make a kernel of 3 x 3."""
        super().__init__(inputs, outputs, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, outputs, H, W)."""
        return F.conv2d(x, self.weight.squeeze(2), self.bias, padding=1)


class GSM(FeaturePropagation):
    """The whole network: (B, T, 3, H, W), values 0 to 1, to (B, T, 3, 4H, 4W).

    Args:
        config: Its size.
    """

    family = "gsm"
    config: GSMConfig
    float32_parameters = (
        *FeaturePropagation.float32_parameters,
        ".A_b_log",
        ".D_b",
        "dt_proj_b.bias",
        "norm1.weight",
        "norm1.bias",
        "norm2.weight",
        "norm2.bias",
        "norm.weight",
        "norm.bias",
        "skip_scale",
        "skip_scale2",
    )

    def __init__(self, config: GSMConfig) -> None:
        """Make all modules with their initial values."""
        super().__init__(config)
        c, width = config.channels, config.upsampler_width
        self.spynet = SpyNet(
            levels=config.flow_levels,
            widths=config.flow_widths,
            kernel=config.flow_kernel,
            keeps_statistics=True,
        )
        self.conv_first = FrameConv(3, c)
        self.implicit_align = ImplicitAlign(c, config.heads)
        self.prop_layers = nn.ModuleList(PropagationLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(c)
        self.conv_after_body = nn.Linear(c, c)
        self.conv_before_upsample = nn.Sequential(FrameConv(c, width))
        # The numbers are indexes in the authors' nn.Sequential, which includes activations.
        self.upsample = nn.ModuleDict(
            {
                "0": FrameConv(width, 4 * width),
                "5": FrameConv(width, 4 * width),
                "10": FrameConv(width, width),
            }
        )
        self.conv_last = FrameConv(width, 3)
        self._initialize()

    def _initialize(self) -> None:
        """Initialize the Mamba blocks; the propagation layers start as the identity."""
        for name, module in self.prop_layers.named_modules():
            if isinstance(module, nn.Linear) and ".mamba_block." in name:
                initialize_linear(module, ends_residual=name.endswith(("out_proj", "fc2")))
        nn.init.zeros_(self.conv_after_body.weight)
        nn.init.zeros_(self.conv_after_body.bias)
        self.reset_scans()

    def forward(self, clip: Tensor) -> Tensor:
        """Restore a clip; a single frame is repeated.

        Args:
            clip: (B, T, 3, H, W), values 0 to 1; any T, H and W.

        Returns:
            (B, T, 3, 4H, 4W); values may lie slightly outside 0 to 1.
        """
        if clip.shape[1] == 1:
            return super().forward(clip.expand(-1, 2, -1, -1, -1))[:, :1]
        return super().forward(clip)

    def propagate(self, features: Tensor, flows: tuple[Tensor, Tensor]) -> Tensor:
        """Propagate features layer by layer; see `FeaturePropagation.propagate`."""
        motion = ComposedFlows(self.implicit_align, flows, self.config.radius)
        # The residual stream stays in float32.
        frames = list(features.float().permute(1, 0, 3, 4, 2).contiguous().unbind(0))
        for number, layer in enumerate(self.prop_layers):
            is_reversed = number % 2 == 1
            frames = layer(frames, motion, self.implicit_align, is_reversed=is_reversed)
        y = self.norm(torch.stack(frames, dim=1)).to(features.dtype)  # (B, T, H, W, C)
        change: Tensor = self.conv_after_body(y)
        return features + change.permute(0, 1, 4, 2, 3)

    def upsample_features(self, features: Tensor) -> Tensor:
        """The correction of a large frame, (B, 3, 4H, 4W), from features (B, C, H, W)."""
        x = F.leaky_relu(self.conv_before_upsample(channels_last(features)), 0.01)
        for number in ("0", "5"):
            x = F.leaky_relu(F.pixel_shuffle(self.upsample[number](x), 2), 0.1)
        large: Tensor = self.conv_last(self.upsample["10"](x))
        return large

    def temporal_parameters(self) -> list[nn.Parameter]:
        """The weights of alignment and layers, and of what follows them."""
        parts = (self.implicit_align, self.prop_layers, self.norm, self.conv_after_body)
        return [parameter for part in parts for parameter in part.parameters()]

    def checkpointed(self) -> list[tuple[nn.Module, str]]:
        """The layers, and the enlargement of a frame."""
        layers = [(layer, "forward") for layer in self.prop_layers]
        return [*layers, (self, "upsample_features")]

    def memory_bytes(self, time: int, height: int, width: int) -> int:
        """What all frames and one window hold; see `Network.memory_bytes`."""
        c = self.config
        window = 2 * c.radius + 1
        frame = 3 * (1 + SCALE**2) + 5 * c.channels + 2 * c.radius * (c.channels + 12)
        step = window * (6 * c.channels + max(6 * c.expand, 2 * c.ffn) * c.channels)
        large = SCALE**2 * 3 * c.upsampler_width + 4 * c.upsampler_width + 12 * c.channels
        return 4 * height * width * (time * frame + max(step, large))
