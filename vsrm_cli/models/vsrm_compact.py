"""VSRM for a CPU: recurrent propagation with a selective scan along the motion, on the large grid.

What the paper's network does with 17 million weights is done here with one. Its parts are those
of VSRM (arXiv 2506.22762) where they pay, and where they did not, something smaller stands in
their place (`vsrm bench --quality --ablate` measures what each of them adds):

- Flow between neighbors, sharpened by Lucas-Kanade steps (`layers.flow_refinement`): once on the
  LR frames, and once more on what the first pass made of them, where it is far more precise.
- One cell visits all frames, backward and then forward. It carries its last estimate of the large
  frame and a hidden state, warped at the precision of the large grid and folded to the small one.
- The hidden state is the temporal scan (T2S), carried on from frame to frame along the motion:
  h = exp(-delta A) warp(h) + delta B x, y = C h.

With `CompactConfig.fold` 2 the same network enlarges two times: blocks of 2 x 2 pixels become
channels of a grid with half the sides, and four times that grid is twice the input. It costs about
a quarter. Only the bicubic frame and the samples of neighbors are taken at the input's own grid.
(pixel_unshuffle in front is what RealESRGAN_x2plus does: Wang et al., "Real-ESRGAN", 2021, 3.)

Spatial scans (S2T) in the middle of the cell were trained along and added nothing that could be
measured, at a tenth of the time; a convolution of the same size in place of the temporal scan is as
good at this size. `weights/README.md` has the figures.
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
from vsrm_cli.layers.flow_refinement import luma, refine_clip_flow
from vsrm_cli.layers.spynet import SpyNet
from vsrm_cli.layers.subpixel import CHANNELS, subpixel_samples
from vsrm_cli.models.config_checks import check_blocks, check_sizes
from vsrm_cli.models.network import Network
from vsrm_cli.ops.warp import warp

# Brings corrections of a hundredth of full scale to the size of features.
GAIN = 10.0
# Mean error of a warped estimate, of 1, from which on it is hardly trusted.
MAX_DIFFERENCE = 0.04
# Lucas-Kanade steps on the LR frames, and on the estimates of the first pass: more add nothing.
STEPS_SMALL, STEPS_LARGE = 2, 2
# Channels of an estimate, folded to the small grid.
FOLDED = 3 * SCALE**2


@dataclass(frozen=True)
class CompactConfig:
    """The size of a compact network.

    Attributes:
        channels: Features of each pixel of a frame by itself.
        feature_blocks: Residual blocks that make them.
        width: Channels of the cell.
        blocks: Residual blocks of the cell.
        hidden: Hidden channels on the small grid; a multiple of SCALE^2 / states.
        states: States of each hidden channel.
        neighbors: Frames on each side whose samples the cell is shown (`layers.subpixel`).
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
        """Refuse what no network could be built from, with a ValueError."""
        check_sizes(self)
        check_blocks(self.feature_blocks + self.blocks)
        if self.fold not in (1, 2):
            raise ValueError(f"fold can be 1 or 2, not {self.fold}")
        if self.hidden * self.states % SCALE**2:
            raise ValueError(
                f"hidden x states must be a multiple of {SCALE**2}, "
                f"not {self.hidden} x {self.states}"
            )


class Carried(NamedTuple):
    """What a pass carries from one frame to the next; H x W is the network's grid.

    Attributes:
        estimate: The large frame, (B, 3, 4H, 4W), float32.
        state: States of the hidden channels, folded, (B, states * hidden, H, W), float32.
    """

    estimate: Tensor
    state: Tensor


class Seen(NamedTuple):
    """What one pass tells the next one about a frame.

    Attributes:
        correction: Of the bicubic frame, folded and amplified, (B, 48, H, W).
        read_out: Of the hidden state, (B, hidden, H, W).
    """

    correction: Tensor
    read_out: Tensor


class Cell(nn.Module):
    """One frame of a pass: what is known of it, and what was carried to it, become an estimate.

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
        """Set what decides over memory: slow and fast decays, steps log-uniform from 0.1 to 1."""
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
        self, known: Tensor, base: Tensor, aligned: Carried | None, seen: Seen | None
    ) -> tuple[Carried, Seen]:
        """Make one frame.

        Args:
            known: Of `conv_in`: what its features and its neighbors' samples say, (B, C, H, W).
            base: The bicubic frame, (B, 3, 4H, 4W), float32.
            aligned: What was carried from the frame before, warped onto this one.
            seen: What an earlier pass says of this frame.

        Returns:
            What is carried to the next frame, and what a later pass sees of this one.
        """
        x = known
        read = self.conv_c(known).float().unsqueeze(2).unbind(1)  # C: n times (B, 1, H, W)
        states: list[Tensor] = []
        if aligned is not None:
            states = list(aligned.state.chunk(self.states, dim=1))  # n times (B, hidden, H, W)
            seen_before = torch.cat((_compared(aligned.estimate, base), _dot(states, read)), dim=1)
            x = x + self.conv_carried(channels_last(seen_before.to(x.dtype)))
        if seen is not None:
            x = x + self.conv_seen(channels_last(torch.cat(seen, dim=1)))
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
        read_out = _dot(states, read).to(x.dtype)
        return Carried(estimate, torch.cat(states, dim=1)), Seen(GAIN * correction, read_out)


def _dot(states: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The sum of products, (B, hidden, H, W): what a scan reads out of its states."""
    total = states[0] * weights[0]
    for state, weight in zip(states[1:], weights[1:], strict=True):
        total = torch.addcmul(total, state, weight)
    return total


def _compared(estimate: Tensor, base: Tensor) -> Tensor:
    """How a warped estimate differs from the bicubic frame, and how far it is trusted.

    Returns:
        (B, 49, H, W), folded: the difference, amplified where it is small; the trust, 0 to 1.
    """
    difference = estimate - base
    error = F.avg_pool2d(difference, SCALE).square().mean(1, keepdim=True)
    error = F.avg_pool2d(error, 3, stride=1, padding=1, count_include_pad=False)
    trust = torch.exp(error * (-0.5 / MAX_DIFFERENCE**2))
    return torch.cat((F.pixel_unshuffle(difference, SCALE) * (GAIN * trust), trust), dim=1)


class VSRMCompact(Network):
    """The whole network: (B, T, 3, H, W) in 0 to 1 gives (B, T, 3, scale H, scale W).

    What the methods without an underscore take and give is on the input's grid. Inside, H x W is
    the network's own, whose pixels are blocks of `CompactConfig.fold` squared.

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
        """Flows between neighbors, as `Network.flows` gives them, refined on the frames' luma."""
        small = _averaged(self._padded(clip), self.fold)
        backward, forward = super().flows(small)
        light = luma(small.float())
        early, late = light[:, :-1], light[:, 1:]
        flows = (
            refine_clip_flow(early, late, backward, steps=self.steps_small),
            refine_clip_flow(late, early, forward, steps=self.steps_small),
        )
        if self.fold == 1:
            return flows
        height, width = clip.shape[-2:]
        backward, forward = (_enlarged(flow, self.fold)[..., :height, :width] for flow in flows)
        return backward, forward

    def extract(self, clip: Tensor) -> Tensor:
        """Features of each frame by itself, on the network's grid; see `Network.extract`."""
        blocks = F.pixel_unshuffle(self._padded(clip).flatten(0, 1), self.fold)
        features = self.features(self.conv_first(channels_last(blocks)))
        frames: Tensor = features.unflatten(0, clip.shape[:2])
        return frames

    def forward(self, clip: Tensor) -> Tensor:
        """Restore a clip; see `Network.forward`."""
        return self._stacked(self._passes(clip, self.flows(clip))[-1], clip)

    def passes(self, clip: Tensor, flows: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Restore a clip, backward and then forward; see `Network.passes`."""
        return tuple(self._stacked(frames, clip) for frames in self._passes(clip, flows))

    def _padded(self, maps: Tensor) -> Tensor:
        """Maps, (B, T, C, H, W), whose last row and column are repeated to whole blocks."""
        height, width = maps.shape[-2:]
        right, below = -width % self.fold, -height % self.fold
        if not right and not below:
            return maps
        padded = F.pad(maps.flatten(0, 1), (0, right, 0, below), mode="replicate")
        blocks: Tensor = padded.unflatten(0, maps.shape[:2])
        return blocks

    def _stacked(self, frames: list[Tensor], clip: Tensor) -> Tensor:
        """The frames of a pass as a clip: of the size and type that the input asks for."""
        height, width = (self.scale * side for side in clip.shape[-2:])
        return torch.stack(frames, dim=1)[..., :height, :width].to(clip.dtype)

    def _passes(
        self, clip: Tensor, flows: tuple[Tensor, Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The estimates of both passes, (B, 3, 4H, 4W) float32 for each frame."""
        clip, flows = self._padded(clip), (self._padded(flows[0]), self._padded(flows[1]))
        known, bases = self._known(clip, flows), _bases(clip, self.scale)
        nothing: list[Seen | None] = [None] * len(known)
        backward, forward = (_averaged(flow, self.fold) / self.fold for flow in flows)
        first, seen = self._pass(known, bases, nothing, backward, backward=True)
        if len(first) > 1:
            halves = torch.stack([luma(F.avg_pool2d(x.detach(), 2)) for x in first], dim=1)
            doubled = _enlarged(forward, 2)
            forward = refine_clip_flow(
                halves[:, 1:], halves[:, :-1], doubled, steps=self.steps_large
            )
        second, _ = self._pass(known, bases, list(seen), forward, backward=False)
        return first, second

    def _pass(
        self,
        known: list[Tensor],
        bases: list[Tensor],
        seen: list[Seen | None],
        flows: Tensor,
        *,
        backward: bool,
    ) -> tuple[list[Tensor], list[Seen]]:
        """Visit all frames one way; ``flows`` lead from each frame to the one visited before."""
        count = len(known)
        estimates, seen_here = [known[0]] * count, [Seen(known[0], known[0])] * count
        carried: Carried | None = None
        for t in range(count - 1, -1, -1) if backward else range(count):
            if carried is not None:
                flow = flows[:, t if backward else t - 1]
                carried = _aligned(carried, flow, bases[t].shape[-1])
            carried, seen_here[t] = self.cell(known[t], bases[t], carried, seen[t])
            estimates[t] = carried.estimate
        return estimates, seen_here

    def _known(self, clip: Tensor, flows: tuple[Tensor, Tensor]) -> list[Tensor]:
        """What each frame's own features and its neighbors' samples say, (B, C, H, W) each."""
        features = self.extract(clip)
        known = []
        for t in range(clip.shape[1]):
            samples = self._samples(clip, flows, t)
            both = torch.cat((features[:, t], samples.to(features.dtype)), dim=1)
            known.append(self.cell.conv_in(channels_last(both)))
        return known

    def _samples(self, clip: Tensor, flows: tuple[Tensor, Tensor], t: int) -> Tensor:
        """The samples of a frame's neighbors, in 4 x 4 places of each pixel of the network's."""
        samples = subpixel_samples(clip, flows, t, self.config.neighbors, side=self.scale)
        if self.fold == 1:
            return samples
        return F.pixel_unshuffle(F.pixel_shuffle(samples, self.scale), SCALE)

    def frames(self, clip: Tensor, flows: tuple[Tensor, Tensor]) -> Tensor:
        """Restore a clip without propagation; see `Network.frames`."""
        padded = self._padded(clip)
        known = self._known(padded, (self._padded(flows[0]), self._padded(flows[1])))
        frames = [
            self.cell(known_here, base, None, None)[0].estimate
            for known_here, base in zip(known, _bases(padded, self.scale), strict=True)
        ]
        return self._stacked(frames, clip)

    def ablations(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Ways to restore a clip with a part left out; see `Network.ablations`."""
        parts = {
            "without refined flow": {"steps_small": 0, "steps_large": 0},
            "without flow refined on the first pass": {"steps_large": 0},
        }
        ablations: dict[str, Callable[[Tensor], Tensor]] = {
            name: partial(self._changed, change) for name, change in parts.items()
        }
        return super().ablations() | ablations

    def _changed(self, change: dict[str, int], clip: Tensor) -> Tensor:
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
        """What looks at each frame first, and the cell, which visits it twice (times on a CPU)."""
        return [(self.cell.conv_in, 0.1), (self.cell, 0.45)]

    def temporal_parameters(self) -> list[nn.Parameter]:
        """The weights that only propagation uses."""
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


def _bases(clip: Tensor, scale: int) -> list[Tensor]:
    """The bicubic enlargement of each frame, (B, 3, 4H, 4W) float32."""
    return [
        F.interpolate(frame.float(), scale_factor=scale, mode="bicubic", align_corners=False)
        for frame in clip.unbind(1)
    ]


def _averaged(maps: Tensor, side: int) -> Tensor:
    """The means of blocks, of maps (B, T, C, H, W)."""
    if side == 1:
        return maps
    means: Tensor = F.avg_pool2d(maps.flatten(0, 1), side).unflatten(0, maps.shape[:2])
    return means


def _aligned(carried: Carried, flow: Tensor, width: int) -> Carried:
    """Warp what is carried onto the next frame, along a flow on any grid, to that of the frame."""
    flow = _enlarged(flow.unsqueeze(1), width // flow.shape[-1]).squeeze(1)
    large = torch.cat((carried.estimate, F.pixel_shuffle(carried.state, SCALE)), dim=1)
    warped = warp(large, flow, padding="border")
    return Carried(warped[:, :3], F.pixel_unshuffle(warped[:, 3:], SCALE))


def _enlarged(flow: Tensor, factor: int) -> Tensor:
    """A flow, (B, T, 2, H, W), on a grid finer by a factor, in its pixels."""
    fine = F.interpolate(
        flow.flatten(0, 1), scale_factor=factor, mode="bilinear", align_corners=False
    )
    large: Tensor = factor * fine.unflatten(0, flow.shape[:2])
    return large
