"""VSRM: video super-resolution with Mamba blocks along space and time (arXiv 2506.22762).

`VSRM` computes the flow between neighboring frames, propagates features through the clip in
recurrent branches, backward and forward in turn, and upsamples the output of the last branch. In
each step, a `Branch` gets three frames: the current one and the two processed before it, aligned.
It consists of `DAMB`s: several spatial-to-temporal blocks and one temporal-to-spatial block, which
differ only in the order of the tokens and the scan directions.

The authors published neither code nor weights. Details that the paper leaves open follow the code
that it builds on; parameter counts equal those of the published networks (see the tests).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.frame import SCALE
from vsrm_cli.layers.blocks import TGFN, TwoStepUpsampler, channels_last
from vsrm_cli.layers.deformable_alignment import DCA
from vsrm_cli.layers.mamba import MambaMixer
from vsrm_cli.layers.spynet import SpyNet
from vsrm_cli.models.config_checks import check_blocks, check_choice, check_sizes
from vsrm_cli.models.network import FeaturePropagation, initialize_linear
from vsrm_cli.ops.warp import warp


@dataclass(frozen=True)
class VSRMConfig:
    """The size of a VSRM network.

    Attributes:
        channels: Channels of the features, C.
        expand: Inner width of the Mamba mixers, as a multiple of C.
        state: States of each channel of a scan.
        conv: Length of the causal convolution before a scan.
        rank: Width of the bottleneck of the step sizes.
        ffn: Channels of each half of the feed-forward layers.
        s2t_blocks: Spatial-to-temporal blocks in each DAMB.
        dambs: DAMBs in each branch.
        branches: Names of the recurrent branches in their order; each begins with "backward"
            or "forward".
        offset_reach: Greatest learned offset of the alignment, in pixels.
        flow_levels: Levels of the flow pyramid.
        flow_widths: Channels between the convolutions of each level.
        flow_kernel: Side of the flow network's kernels.
        upsampler_width: Channels of the upsampler.
    """

    channels: int
    expand: int
    state: int
    conv: int
    rank: int
    ffn: int
    s2t_blocks: int
    dambs: int
    branches: tuple[str, ...]
    offset_reach: float
    flow_levels: int
    flow_widths: tuple[int, ...]
    flow_kernel: int
    upsampler_width: int

    def __post_init__(self) -> None:
        """Raise a ValueError if no network can have this size."""
        check_sizes(self)
        check_blocks(self.s2t_blocks * self.dambs * len(self.branches))
        for name in self.branches:
            check_choice("the first part of a branch", name.split("_")[0], ("backward", "forward"))


def temporal_first(x: Tensor) -> Tensor:
    """Order the tokens of (B, T, H, W, C) so that all frames of a pixel follow each other.

    Token (h * W + w) * T + t of the result, (B, H * W * T, C), is pixel (h, w) of frame t.
    """
    return x.permute(0, 2, 3, 1, 4).flatten(1, 3)


def temporal_first_undo(tokens: Tensor, time: int, height: int, width: int) -> Tensor:
    """The inverse of `temporal_first`: (B, H * W * T, C) to (B, T, H, W, C)."""
    pixels: Tensor = tokens.unflatten(1, (height, width, time))
    return pixels.permute(0, 3, 1, 2, 4)


class MambaBlock(nn.Module):
    """A Mamba mixer and a gated feed-forward layer, each on normalized tokens, each residual.

    Args:
        config: Size of the network.
        temporal: False for S2T: frame by frame in raster order, both directions. True for T2S:
            all frames of a pixel first, forward only.
    """

    def __init__(self, config: VSRMConfig, *, temporal: bool) -> None:
        """Make the mixer and the feed-forward layer."""
        super().__init__()
        self.temporal = temporal
        self.norm1 = nn.LayerNorm(config.channels)
        self.mixer = MambaMixer(
            config.channels,
            expand=config.expand,
            state=config.state,
            conv=config.conv,
            rank=config.rank,
            bidirectional=not temporal,
        )
        self.norm2 = nn.LayerNorm(config.channels)
        self.ffn = TGFN(config.channels, config.ffn)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, H, W, C) to the same shape."""
        y = self.norm1(x)
        if self.temporal:
            y = temporal_first_undo(self.mixer(temporal_first(y)), *x.shape[1:4])
        else:
            y = self.mixer(y.flatten(1, 3)).view_as(x)
        x = x + y
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


class DAMB(nn.Module):
    """Dual aggregation Mamba block: S2T blocks, one T2S block, a 3-D convolution, residual.

    Args:
        config: Size of the network.
    """

    def __init__(self, config: VSRMConfig) -> None:
        """Make the blocks."""
        super().__init__()
        self.s2t = nn.ModuleList(
            MambaBlock(config, temporal=False) for _ in range(config.s2t_blocks)
        )
        self.t2s = MambaBlock(config, temporal=True)
        self.conv = nn.Conv3d(config.channels, config.channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, H, W, C) to the same shape."""
        y: Tensor = self.conv(self._mix(x).permute(0, 4, 1, 2, 3))
        return x + y.permute(0, 2, 3, 4, 1)

    def center(self, x: Tensor) -> Tensor:
        """The output of `forward` for the middle one of three frames, (B, H, W, C).

        The convolution there sees all three frames: it is a 2-D one over their channels, a
        third of the work.
        """
        y = self._mix(x)
        batch, time, height, width, channels = y.shape
        stacked = y.permute(0, 1, 4, 2, 3).reshape(batch, time * channels, height, width)
        weight = self.conv.weight.transpose(1, 2).flatten(1, 2)  # (C, 3C, 3, 3)
        out = F.conv2d(channels_last(stacked), weight, self.conv.bias, padding=1)
        return x[:, 1] + out.permute(0, 2, 3, 1)

    def _mix(self, x: Tensor) -> Tensor:
        for block in self.s2t:
            x = block(x)
        y: Tensor = self.t2s(x)
        return y


class Branch(nn.Module):
    """One step of a recurrent branch: three aligned frames to one.

    Args:
        config: Size of the network.
    """

    def __init__(self, config: VSRMConfig) -> None:
        """Make the blocks; the last convolution starts at zero: a branch begins as identity."""
        super().__init__()
        self.dambs = nn.ModuleList(DAMB(config) for _ in range(config.dambs))
        self.norm = nn.LayerNorm(config.channels)
        self.conv_after = nn.Conv2d(config.channels, config.channels, 3, padding=1)
        nn.init.zeros_(self.conv_after.weight)
        nn.init.zeros_(self.conv_after.bias)  # type: ignore[arg-type]

    def forward(self, stack: Tensor) -> Tensor:
        """Refine the middle frame of (B, 3, C, H, W); returns (B, C, H, W)."""
        x = stack.permute(0, 1, 3, 4, 2).contiguous()  # (B, 3, H, W, C)
        for damb in self.dambs[:-1]:
            x = damb(x)
        center = self.norm(self.dambs[-1].center(x))  # type: ignore[operator]
        out: Tensor = stack[:, 1] + self.conv_after(center.permute(0, 3, 1, 2))
        return out


class VSRM(FeaturePropagation):
    """The whole network: (B, T, 3, H, W), values 0 to 1, to (B, T, 3, 4H, 4W).

    Args:
        config: Its size.
    """

    family = "vsrm"
    config: VSRMConfig

    def __init__(self, config: VSRMConfig) -> None:
        """Make all modules with the paper's (or Mamba's) initial values."""
        super().__init__(config)
        c = config.channels
        self.spynet = SpyNet(
            levels=config.flow_levels, widths=config.flow_widths, kernel=config.flow_kernel
        )
        self.conv_first = nn.Conv2d(3, c, 3, padding=1)
        self.align = DCA(c, state=config.state, rank=config.rank, reach=config.offset_reach)
        self.branches = nn.ModuleDict({name: Branch(config) for name in config.branches})
        self.upsampler = TwoStepUpsampler(c, config.upsampler_width)
        self._initialize()

    def _initialize(self) -> None:
        """Initialize the linear layers, then the scans, whose layers are among them."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                initialize_linear(module, ends_residual=name.endswith(("out_proj", "proj_out")))
        self.reset_scans()

    def propagate(self, features: Tensor, flows: tuple[Tensor, Tensor]) -> Tensor:
        """Propagate features branch by branch; see `FeaturePropagation.propagate`."""
        frames = list(features.unbind(1))  # T times (B, C, H, W)
        backward_flow, forward_flow = flows
        for name, branch in self.branches.items():
            flow = backward_flow if name.startswith("backward") else forward_flow
            frames = self._propagate(branch, frames, flow, backward=name.startswith("backward"))
        return torch.stack(frames, dim=1)

    def _propagate(
        self, branch: nn.Module, frames: list[Tensor], flows: Tensor, *, backward: bool
    ) -> list[Tensor]:
        """Process the frames in one direction, each with the aligned results of the last two."""
        order = range(len(frames) - 1, -1, -1) if backward else range(len(frames))
        results: dict[int, Tensor] = {}
        visited: list[int] = []
        for t in order:
            current = frames[t]
            aligned: list[Tensor] = []
            if visited:
                one = visited[-1]
                flow = flows[:, min(t, one)]  # from t to the frame processed before
                aligned.append(self.align(results[one], current, flow))
            if len(visited) > 1:
                two = visited[-2]
                # The flow over two frames: the older flow, sampled where the newer one points.
                flow = flow + warp(flows[:, min(one, two)], flow)
                aligned.append(self.align(results[two], current, flow))
            results[t] = branch(self._stack(current, aligned))
            visited.append(t)
        return [results[t] for t in range(len(frames))]

    def _stack(self, current: Tensor, aligned: list[Tensor]) -> Tensor:
        """The input of a branch, (B, 3, C, H, W), with the current frame in the middle.

        The first frame takes the place of both of its missing neighbors; at the second one, the
        place of the older neighbor is empty.
        """
        sides = aligned or [current, current]
        sides = sides + [torch.zeros_like(current)] * (2 - len(sides))
        return torch.stack((sides[0], current, sides[1]), dim=1)

    def upsample_features(self, features: Tensor) -> Tensor:
        """The correction of a large frame, (B, 3, 4H, 4W), from features (B, C, H, W)."""
        correction: Tensor = self.upsampler(features)
        return correction

    def temporal_parameters(self) -> list[nn.Parameter]:
        """The weights of alignment and branches."""
        return [*self.align.parameters(), *self.branches.parameters()]

    def checkpointed(self) -> list[tuple[nn.Module, str]]:
        """The branches, and the enlargement of a frame."""
        branches = [(branch, "forward") for branch in self.branches.values()]
        return [*branches, (self, "upsample_features")]

    def memory_bytes(self, time: int, height: int, width: int) -> int:
        """Features of all frames, and one step; see `Network.memory_bytes`."""
        c = self.config
        inner = c.expand * c.channels
        frame = 3 * (1 + SCALE**2) + (len(c.branches) + 2) * c.channels + 4
        stack = 3 * (4 * c.channels + 6 * inner + 5 * c.ffn)
        large = SCALE**2 * 3 * c.upsampler_width + 4 * c.upsampler_width + 12 * c.channels
        return 4 * height * width * (time * frame + max(stack, large))
