"""GSMamba: attention inside windows of space, Mamba along time (arXiv 2510.00862).

Read it from the bottom: `GSM` finds the flow between neighboring frames and sends features
through its layers, which read the clip forward and backward in turn. A layer first lets all
frames look at their surroundings (`AttentionBlock`), then goes through the clip window by window:
the frames around an anchor are gathered onto it, a Mamba block reads them pixel by pixel, all
frames of a pixel first, and the results are scattered back to where they came from
(`GatherScatterBlock`). Each window reads what the windows before it wrote.

Parameter names are those of the authors' code, so that their weights load as they are. Where the
order of things matters to the numbers it is theirs too; work that they repeat is done once: flows
are composed once for all layers, keys and values projected before they are gathered, position
codes projected once per clip.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.frame import SCALE
from vsrm_cli.layers.blocks import channels_last
from vsrm_cli.layers.flow_composition import ComposedFlows
from vsrm_cli.layers.implicit_alignment import ImplicitAlign, Taps, read_along
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
        """Refuse what no network could be built from, with a ValueError."""
        check_sizes(self)
        check_blocks(self.layers * (self.attention_blocks + 1))
        if self.layers % 2 or self.channels % 4 or not self.heads or self.channels % self.heads:
            raise ValueError(
                f"its {self.layers} layers must be even, its {self.channels} channels divisible "
                f"by 4 and by its {self.heads} heads"
            )


class MixFFN(nn.Module):
    """A feed-forward layer that sees its neighbors: fc2(GELU(depthwise 3 x 3 x 3(fc1(x)))).

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
        """Make the parts; both skips begin as identity."""
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
        self, clip: Tensor, aligned: Tensor, ways_back: list[Taps | None], wanted: slice
    ) -> Tensor:
        """One window.

        Args:
            clip: The K frames as they are, (B, K, H, W, C).
            aligned: The same frames on the anchor's grid, all frames of a pixel together,
                (B, H * W, K, C).
            ways_back: For each frame, where its pixels lie in the anchor; None for the anchor
                and for copies of it.
            wanted: Which frames of the window are needed.

        Returns:
            The wanted frames, (B, wanted, H, W, C).
        """
        half = self.mamba.in_proj.weight.dtype
        # The normalizations have float32 weights, and CUDA wants their input in the same type.
        tokens = self.mamba(self.norm1(aligned.float()).to(half).flatten(1, 2)).view(aligned.shape)
        z = self.skip_scale.view(-1) * clip + scatter(tokens, ways_back).view(clip.shape)
        y = self.mlp(self.norm2(z).to(half), wanted)
        out: Tensor = self.skip_scale2[0, 0] * z[:, wanted] + y
        return out


def scatter(tokens: Tensor, ways_back: list[Taps | None]) -> Tensor:
    """Send what became of gathered frames back to where they came from.

    Args:
        tokens: (B, H * W, K, C) on the grid of the anchor.
        ways_back: For each frame, where its pixels lie in the anchor; None where it stays.

    Returns:
        (B, K, H * W, C); zero where a pixel's way leads out of the anchor.
    """
    count = len(ways_back)
    flat = tokens.flatten(0, 2)
    frames = [
        tokens[:, :, k]
        if way is None
        else read_along(flat, way.index * count + k, way.weight).view(tokens[:, :, k].shape)
        for k, way in enumerate(ways_back)
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


class Stage(nn.Module):
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
    """Attention on all frames, then Mamba window after window; the result runs backwards in time.

    Args:
        config: Size of the network.
    """

    def __init__(self, config: GSMConfig) -> None:
        """Make the blocks."""
        super().__init__()
        self.radius = config.radius
        self.stage = Stage(config)

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
            is_reversed: Whether the frames run backwards.
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
        """The frames with those around an anchor rewritten.

        Past the ends of the clip stand copies of its first and last frame; they are read, and
        what becomes of them is dropped.
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
    """A convolution of each frame by itself, stored with a third axis of length one.

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
    """The whole network: (B, T, 3, H, W) in 0 to 1 gives (B, T, 3, 4H, 4W).

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
        # The numbers are places in the authors' list, which also holds what has no weights.
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
        """Linear layers of the Mamba blocks keep the size of their input, the last start small.

        All that lies between the way in and the way out begins as the identity.
        """
        for name, module in self.prop_layers.named_modules():
            if isinstance(module, nn.Linear) and ".mamba_block." in name:
                initialize_linear(module, ends_residual=name.endswith(("out_proj", "fc2")))
        nn.init.zeros_(self.conv_after_body.weight)
        nn.init.zeros_(self.conv_after_body.bias)
        self.reset_scans()

    def forward(self, clip: Tensor) -> Tensor:
        """Restore a clip; a single frame is seen twice.

        Args:
            clip: (B, T, 3, H, W), values 0 to 1; T and both sides from one on.

        Returns:
            (B, T, 3, 4H, 4W); values may lie slightly outside 0 to 1.
        """
        if clip.shape[1] == 1:
            return super().forward(clip.expand(-1, 2, -1, -1, -1))[:, :1]
        return super().forward(clip)

    def propagate(self, features: Tensor, flows: tuple[Tensor, Tensor]) -> Tensor:
        """Carry features through the clip, layer after layer.

        Args:
            features: Of `extract`, (B, T, C, H, W).
            flows: Of `flows`.

        Returns:
            (B, T, C, H, W): of each frame, with what the others know of it.
        """
        motion = ComposedFlows(self.implicit_align, flows, self.config.radius)
        # The stream that all layers add to stays in float32.
        frames = list(features.float().permute(1, 0, 3, 4, 2).contiguous().unbind(0))
        for number, layer in enumerate(self.prop_layers):
            is_reversed = number % 2 == 1
            frames = layer(frames, motion, self.implicit_align, is_reversed=is_reversed)
        y = self.norm(torch.stack(frames, dim=1)).to(features.dtype)  # (B, T, H, W, C)
        known: Tensor = self.conv_after_body(y)
        return features + known.permute(0, 1, 4, 2, 3)

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
        """Estimate the peak memory of one clip in float32: what all frames and one window hold.

        Args:
            time: Frames.
            height: Of the LR frames.
            width: Of the LR frames.
        """
        c = self.config
        window = 2 * c.radius + 1
        frame = 3 * (1 + SCALE**2) + 5 * c.channels + 2 * c.radius * (c.channels + 12)
        step = window * (6 * c.channels + max(6 * c.expand, 2 * c.ffn) * c.channels)
        large = SCALE**2 * 3 * c.upsampler_width + 4 * c.upsampler_width + 12 * c.channels
        return 4 * height * width * (time * frame + max(step, large))
