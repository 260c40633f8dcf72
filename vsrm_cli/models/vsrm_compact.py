"""VSRM for CPUs: recurrent propagation with a selective scan along the motion, on the HR grid.

The network of the paper has 17 million parameters, this one has one million. It keeps the parts of
VSRM (arXiv 2506.22762) that are worth their time and replaces the others by smaller ones
(`vsrm bench --quality --ablate` measures what each part adds):

- Flow between neighbors is refined by Lucas-Kanade steps (`layers.flow_refinement`): first on the
  LR frames, then on the output of the first pass, where it is far more precise.
- One recurrent cell processes all frames, backward and then forward. Its state is the last HR
  estimate and the states of a scan. Both are warped on the HR grid and folded to the LR grid.
- The scan is the temporal scan (T2S), from frame to frame along the motion:
  h = exp(-delta A) warp(h) + delta B x, y = C h.

With `CompactConfig.fold` 2 the same network enlarges two times: blocks of 2 x 2 input pixels become
channels of a grid with half the sides, and four times that grid is twice the input. This takes
about a quarter of the time. Only the bicubic frame and the samples of neighbors use the input grid.
(RealESRGAN_x2plus starts with pixel_unshuffle, too: Wang et al., "Real-ESRGAN", 2021, section 3.)

Spatial scans (S2T) in the cell took a tenth of the time and had no measurable effect. At this size,
a convolution is as good as the temporal scan. `weights/README.md` has the figures.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.frame import SCALE
from vsrm_cli.layers.blocks import ResidualBlock, channels_last
from vsrm_cli.layers.flow_refinement import refine_clip_flow, rgb_to_luma
from vsrm_cli.layers.spynet import SpyNet
from vsrm_cli.layers.subpixel import CHANNELS, subpixel_samples
from vsrm_cli.models.config_checks import check_blocks, check_sizes
from vsrm_cli.models.network import Network
from vsrm_cli.ops.warp import warp

# Scales corrections of a hundredth of full scale to the size of features.
GAIN = 10.0
# A warped estimate with a larger mean error (full scale is 1) gets little weight.
MAX_DIFFERENCE = 0.04
# Lucas-Kanade steps on the LR frames, and on the estimates of the first pass: more do not help.
STEPS_SMALL, STEPS_LARGE = 2, 2
# Channels of an HR frame, folded to the LR grid.
FOLDED = 3 * SCALE**2


@dataclass(frozen=True)
class CompactConfig:
    """The size of a compact network.

    Attributes:
        channels: Channels of the features of single frames.
        feature_blocks: Residual blocks that compute them.
        width: Channels of the cell.
        blocks: Residual blocks of the cell.
        hidden: Channels of the scan on the LR grid; a multiple of SCALE^2 / states.
        states: States of each channel of the scan.
        neighbors: Frames on each side whose samples the cell gets (`layers.subpixel`).
        flow_levels: Levels of the flow pyramid.
        flow_widths: Channels between the convolutions of each level.
        flow_kernel: Side of the flow network's kernels.
        fold: Side of the blocks of input pixels that become one pixel of the network's grid: 1 in
            a network that enlarges four times, 2 in one that enlarges two times.
    """

    channels: int
    feature_blocks: int
    width: int
    blocks: int
    hidden: int
    states: int
    neighbors: int
    flow_levels: int
    flow_widths: tuple[int, ...]
    flow_kernel: int
    fold: int = 1

    def __post_init__(self) -> None:
        """Raise a ValueError if no network can have this size."""
        check_sizes(self)
        check_blocks(self.feature_blocks + self.blocks)
        if self.fold not in (1, 2):
            raise ValueError(f"fold can be 1 or 2, not {self.fold}")
        if self.hidden * self.states % SCALE**2:
            raise ValueError(
                f"hidden x states must be a multiple of {SCALE**2}, "
                f"not {self.hidden} x {self.states}"
            )


class CellState(NamedTuple):
    """The recurrent state that a pass propagates; H x W is the grid of the network.

    Attributes:
        estimate: The HR frame, (B, 3, 4H, 4W), float32.
        scan: States of the scan, folded, (B, states * hidden, H, W), float32.
    """

    estimate: Tensor
    scan: Tensor


class PassFeatures(NamedTuple):
    """What the second pass gets from the first pass about a frame.

    Attributes:
        correction: Of the bicubic frame, folded and amplified, (B, 48, H, W).
        scan_output: y = C h, (B, hidden, H, W).
    """

    correction: Tensor
    scan_output: Tensor


class Cell(nn.Module):
    """The recurrent cell: computes the HR estimate of a frame from its features and the state.

    Args:
        config: Size of the network.
    """

    def __init__(self, config: CompactConfig) -> None:
        """Make the layers; the estimate starts as the bicubic frame."""
        super().__init__()
        width, hidden, states = config.width, config.hidden, config.states
        self.hidden, self.states = hidden, states
        self.conv_in = nn.Conv2d(config.channels + CHANNELS, width, 3, padding=1)
        self.conv_carried = nn.Conv2d(FOLDED + 1 + hidden, width, 3, padding=1, bias=False)
        self.conv_seen = nn.Conv2d(FOLDED + hidden, width, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(config.blocks)))
        self.conv_last = nn.Conv2d(width, FOLDED, 3, padding=1)
        # The temporal scan: input, step sizes and B from the end of the cell, C from its start.
        self.conv_scan = nn.Conv2d(width, 2 * hidden + states, 3, padding=1)
        self.conv_c = nn.Conv2d(width, states, 1)
        self.A_log = nn.Parameter(torch.empty(states, hidden))
        for conv in (self.conv_carried, self.conv_seen):
            nn.init.normal_(conv.weight, std=0.1 * (9 * conv.in_channels) ** -0.5)
        nn.init.zeros_(self.conv_last.weight)
        nn.init.zeros_(self.conv_last.bias)  # type: ignore[arg-type]
        self.reset_scan()

    def reset_scan(self) -> None:
        """Initialize the scan: decay rates of 0.3 to 1.5, step sizes log-uniform from 0.1 to 1."""
        if self.A_log.is_meta:
            return
        bias, c_bias = cast(Tensor, self.conv_scan.bias), cast(Tensor, self.conv_c.bias)
        with torch.no_grad():
            decays = torch.logspace(math.log10(0.3), math.log10(1.5), self.states)
            self.A_log.copy_(decays.log().unsqueeze(1).expand_as(self.A_log))
            step = torch.empty(self.hidden).uniform_(math.log(0.1), 0.0).exp()
            x, dt, b = bias.split((self.hidden, self.hidden, self.states))
            x.zero_()
            dt.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
            b.fill_(1.0)
            c_bias.fill_(0.7)

    def forward(
        self,
        features: Tensor,
        base: Tensor,
        aligned: CellState | None,
        earlier: PassFeatures | None,
    ) -> tuple[CellState, PassFeatures]:
        """Restore one frame.

        Args:
            features: The output of `conv_in`, (B, C, H, W).
            base: The bicubic frame, (B, 3, 4H, 4W), float32.
            aligned: The state after the previous frame, warped onto this one.
            earlier: Features of this frame from an earlier pass.

        Returns:
            The state after this frame, and its features for a later pass.
        """
        x = features
        read = self.conv_c(features).float().unsqueeze(2).unbind(1)  # C: n times (B, 1, H, W)
        states: list[Tensor] = []
        if aligned is not None:
            states = list(aligned.scan.chunk(self.states, dim=1))  # n times (B, hidden, H, W)
            difference = _weighted_difference(aligned.estimate, base)
            propagated = torch.cat((difference, _scan_output(states, read)), dim=1)
            x = x + self.conv_carried(channels_last(propagated.to(x.dtype)))
        if earlier is not None:
            x = x + self.conv_seen(channels_last(torch.cat(earlier, dim=1)))
        x = self.blocks(x)
        correction = self.conv_last(x)
        u, dt, write = self.conv_scan(x).float().split((self.hidden, self.hidden, self.states), 1)
        dt = F.softplus(dt)
        u, writes = dt * u, write.unsqueeze(2).unbind(1)
        if states:
            rates = -self.A_log.float().exp()[..., None, None]  # (n, hidden, 1, 1)
            decays = [torch.exp(dt * rate) for rate in rates]
            states = [
                torch.addcmul(decay * state, u, b)
                for decay, state, b in zip(decays, states, writes, strict=True)
            ]
        else:
            states = [u * b for b in writes]
        estimate = base + F.pixel_shuffle(correction.float(), SCALE)
        output = _scan_output(states, read).to(x.dtype)
        state = CellState(estimate, torch.cat(states, dim=1))
        return state, PassFeatures(GAIN * correction, output)


def _scan_output(states: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The output C h of a scan, (B, hidden, H, W)."""
    total = states[0] * weights[0]
    for state, weight in zip(states[1:], weights[1:], strict=True):
        total = torch.addcmul(total, state, weight)
    return total


def _weighted_difference(estimate: Tensor, base: Tensor) -> Tensor:
    """The difference of a warped estimate from the bicubic frame, and its weight.

    The weight is near 1 where the difference is small, and near 0 where the frames do not match.

    Returns:
        (B, 49, H, W), folded: the weighted and amplified difference, then the weight.
    """
    difference = estimate - base
    error = F.avg_pool2d(difference, SCALE).square().mean(1, keepdim=True)
    error = F.avg_pool2d(error, 3, stride=1, padding=1, count_include_pad=False)
    weight = torch.exp(error * (-0.5 / MAX_DIFFERENCE**2))
    return torch.cat((F.pixel_unshuffle(difference, SCALE) * (GAIN * weight), weight), dim=1)


class VSRMCompact(Network):
    """The whole network: (B, T, 3, H, W), values 0 to 1, to (B, T, 3, scale H, scale W).

    Public methods use the grid of the input. In private ones, H x W is the grid of the network,
    where each pixel is a block of `CompactConfig.fold` x `CompactConfig.fold` input pixels.

    Args:
        config: Its size.
    """

    family = "vsrm-compact"
    config: CompactConfig

    def __init__(self, config: CompactConfig) -> None:
        """Make all modules."""
        super().__init__(config)
        c, self.fold = config.channels, config.fold
        self.scale = SCALE // config.fold
        self.spynet = SpyNet(
            levels=config.flow_levels, widths=config.flow_widths, kernel=config.flow_kernel
        )
        self.conv_first = nn.Conv2d(3 * config.fold**2, c, 3, padding=1)
        self.features = nn.Sequential(*(ResidualBlock(c) for _ in range(config.feature_blocks)))
        self.cell = Cell(config)
        self.steps_small, self.steps_large = STEPS_SMALL, STEPS_LARGE

    def flows(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Flow between neighbors, refined on the luma of the frames; see `Network.flows`."""
        # Padded, where the flow network would resize: tiles and whole frames get the same flow.
        padded = self._pad(clip, self.fold * 2 ** (self.config.flow_levels - 1))
        small = _average_blocks(padded, self.fold)
        backward, forward = super().flows(small)
        brightness = rgb_to_luma(small.float())
        early, late = brightness[:, :-1], brightness[:, 1:]
        height, width = clip.shape[-2:]
        backward, forward = (
            _upsample_flow(flow, self.fold)[..., :height, :width]
            for flow in (
                refine_clip_flow(early, late, backward, steps=self.steps_small),
                refine_clip_flow(late, early, forward, steps=self.steps_small),
            )
        )
        return backward, forward

    def extract(self, clip: Tensor) -> Tensor:
        """Features of single frames, on the grid of the network; see `Network.extract`."""
        blocks = F.pixel_unshuffle(self._pad(clip).flatten(0, 1), self.fold)
        features = self.features(self.conv_first(channels_last(blocks.to(self.dtype))))
        frames: Tensor = features.unflatten(0, clip.shape[:2])
        return frames

    def forward(self, clip: Tensor) -> Tensor:
        """Restore a clip; see `Network.forward`."""
        return self._stack(self._passes(clip, self.flows(clip))[-1], clip)

    def passes(self, clip: Tensor, flows: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Restore a clip, backward and then forward; see `Network.passes`."""
        return tuple(self._stack(frames, clip) for frames in self._passes(clip, flows))

    def _pad(self, maps: Tensor, multiple: int | None = None) -> Tensor:
        """Pad (B, T, C, H, W) to a multiple, by default `fold`; repeats the last row and column."""
        height, width = maps.shape[-2:]
        multiple = multiple or self.fold
        right, below = -width % multiple, -height % multiple
        if not right and not below:
            return maps
        padded = F.pad(maps.flatten(0, 1), (0, right, 0, below), mode="replicate")
        blocks: Tensor = padded.unflatten(0, maps.shape[:2])
        return blocks

    def _stack(self, frames: list[Tensor], clip: Tensor) -> Tensor:
        """Stack the frames of a pass, in the type of ``clip`` and without its padding."""
        height, width = (self.scale * side for side in clip.shape[-2:])
        return torch.stack(frames, dim=1)[..., :height, :width].to(clip.dtype)

    def _passes(
        self, clip: Tensor, flows: tuple[Tensor, Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The estimates of both passes, (B, 3, 4H, 4W), float32, for each frame."""
        clip, flows = self._pad(clip), (self._pad(flows[0]), self._pad(flows[1]))
        features, bases = self._input_features(clip, flows), _upscale_bicubic(clip, self.scale)
        nothing: list[PassFeatures | None] = [None] * len(features)
        backward, forward = (_average_blocks(flow, self.fold) / self.fold for flow in flows)
        first, earlier = self._pass(features, bases, nothing, backward, backward=True)
        if len(first) > 1:
            halves = torch.stack([rgb_to_luma(F.avg_pool2d(x.detach(), 2)) for x in first], dim=1)
            doubled = _upsample_flow(forward, 2)
            forward = refine_clip_flow(
                halves[:, 1:], halves[:, :-1], doubled, steps=self.steps_large
            )
        second, _ = self._pass(features, bases, list(earlier), forward, backward=False)
        return first, second

    def _pass(
        self,
        features: list[Tensor],
        bases: list[Tensor],
        earlier: list[PassFeatures | None],
        flows: Tensor,
        *,
        backward: bool,
    ) -> tuple[list[Tensor], list[PassFeatures]]:
        """Process all frames in one direction; ``flows`` lead to the frame processed before."""
        estimates: dict[int, Tensor] = {}
        later: dict[int, PassFeatures] = {}
        state: CellState | None = None
        frames = range(len(features))
        for t in reversed(frames) if backward else frames:
            if state is not None:
                flow = flows[:, t if backward else t - 1]
                state = _warp_state(state, flow, bases[t].shape[-1])
            state, later[t] = self.cell(features[t], bases[t], state, earlier[t])
            estimates[t] = state.estimate
        return [estimates[t] for t in frames], [later[t] for t in frames]

    def _input_features(self, clip: Tensor, flows: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Features of each frame and of its neighbors' samples for the cell, (B, C, H, W) each."""
        own = self.extract(clip)
        features = []
        for t in range(clip.shape[1]):
            samples = self._samples(clip, flows, t)
            both = torch.cat((own[:, t], samples.to(own.dtype)), dim=1)
            features.append(self.cell.conv_in(channels_last(both)))
        return features

    def _samples(self, clip: Tensor, flows: tuple[Tensor, Tensor], t: int) -> Tensor:
        """Samples of the neighbors of a frame, at 4 x 4 sub-pixels of each pixel of the network."""
        samples = subpixel_samples(clip, flows, t, self.config.neighbors, side=self.scale)
        if self.fold == 1:
            return samples
        return F.pixel_unshuffle(F.pixel_shuffle(samples, self.scale), SCALE)

    def frames(self, clip: Tensor, flows: tuple[Tensor, Tensor]) -> Tensor:
        """Restore a clip without propagation; see `Network.frames`."""
        padded = self._pad(clip)
        features = self._input_features(padded, (self._pad(flows[0]), self._pad(flows[1])))
        frames = [
            self.cell(frame, base, None, None)[0].estimate
            for frame, base in zip(features, _upscale_bicubic(padded, self.scale), strict=True)
        ]
        return self._stack(frames, clip)

    def ablations(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Functions that restore a clip with a part disabled; see `Network.ablations`."""
        parts = {
            "without refined flow": {"steps_small": 0, "steps_large": 0},
            "without flow refined on the first pass": {"steps_large": 0},
        }
        ablations: dict[str, Callable[[Tensor], Tensor]] = {
            name: partial(self._forward_with, change) for name, change in parts.items()
        }
        return super().ablations() | ablations

    def _forward_with(self, change: dict[str, int], clip: Tensor) -> Tensor:
        kept = {name: getattr(self, name) for name in change}
        try:
            vars(self).update(change)
            return self.forward(clip)
        finally:
            vars(self).update(kept)

    def checkpointed(self) -> list[tuple[nn.Module, str]]:
        """The cell."""
        return [(self.cell, "forward")]

    def paced(self) -> list[tuple[nn.Module, float]]:
        """The first layer that gets each frame, and the cell, which runs twice (times on a CPU)."""
        return [(self.cell.conv_in, 0.1), (self.cell, 0.45)]

    def temporal_parameters(self) -> list[nn.Parameter]:
        """The parameters that only propagation uses."""
        cell = self.cell
        parts = (cell.conv_carried, cell.conv_seen, cell.conv_scan, cell.conv_c)
        return [cell.A_log, *(p for part in parts for p in part.parameters())]

    def memory_bytes(self, time: int, height: int, width: int) -> int:
        """Estimate the peak memory of one clip in float32.

        Args:
            time: Frames.
            height: Of the LR frames.
            width: Of the LR frames.
        """
        c, height, width = self.config, -(-height // self.fold), -(-width // self.fold)
        frame = 3 * self.fold**2 + c.channels + c.width + FOLDED * 3 + FOLDED + c.hidden + 16
        cell = 6 * c.width + 4 * FOLDED + 6 * c.hidden * c.states + 8 * CHANNELS
        return 4 * height * width * (time * frame + cell)


def _upscale_bicubic(clip: Tensor, scale: int) -> list[Tensor]:
    """Upscale each frame by bicubic, (B, 3, 4H, 4W), float32."""
    return [
        F.interpolate(frame.float(), scale_factor=scale, mode="bicubic", align_corners=False)
        for frame in clip.unbind(1)
    ]


def _average_blocks(maps: Tensor, side: int) -> Tensor:
    """The means of blocks of (B, T, C, H, W)."""
    if side == 1:
        return maps
    means: Tensor = F.avg_pool2d(maps.flatten(0, 1), side).unflatten(0, maps.shape[:2])
    return means


def _warp_state(state: CellState, flow: Tensor, width: int) -> CellState:
    """Warp the state onto the next frame, whose width is given; the flow may be on any grid."""
    flow = _upsample_flow(flow.unsqueeze(1), width // flow.shape[-1]).squeeze(1)
    large = torch.cat((state.estimate, F.pixel_shuffle(state.scan, SCALE)), dim=1)
    warped = warp(large, flow, padding="border")
    return CellState(warped[:, :3], F.pixel_unshuffle(warped[:, 3:], SCALE))


def _upsample_flow(flow: Tensor, factor: int) -> Tensor:
    """Upsample a flow, (B, T, 2, H, W), in pixels of its grid, by a factor."""
    fine = F.interpolate(
        flow.flatten(0, 1), scale_factor=factor, mode="bilinear", align_corners=False
    )
    large: Tensor = factor * fine.unflatten(0, flow.shape[:2])
    return large
