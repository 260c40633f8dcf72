"""Deformable cross-Mamba alignment of a neighboring frame's features to the current frame."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.layers.mamba import reset_scan
from vsrm_cli.ops.selective_scan import selective_scan
from vsrm_cli.ops.warp import pixel_grid, sample_points, sample_tokens

# Pixels aligned at a time: on a CPU, their (pixels, channel, state) arrays fit into the cache; on a
# GPU, they take some hundred megabytes each.
PIXELS_AT_ONCE, PIXELS_AT_ONCE_ON_GPU = 8192, 1 << 16
# The four lattice points around a position that the flow points to, (dx, dy).
LATTICE = ((0, 0), (1, 0), (0, 1), (1, 1))


class DCA(nn.Module):
    """Deformable cross-Mamba alignment.

    For each target pixel the flow points to a position p in the other frame. The four lattice
    points around p, each shifted by a learned offset, are sampled; a Mamba recurrence runs over
    these four tokens, and its last state is read out with weights from the target pixel: values
    from one frame, queries from the other.

    Args:
        channels: Channels of the features, C.
        state: States of each channel.
        rank: Width of the bottleneck that the step sizes pass.
        reach: Maximum learned offset in pixels.

    Source: VSRM (arXiv 2506.22762), DCA. The flow, the window around p, the offsets, the sampling,
    and that B, input and step size come from the other frame and C from the target, are from the
    paper. The number of points, the read-out of the last state, the skip with bilinear weights and
    the position code are our choices. So is adding the warped neighbor to the output: through two
    gates and two projections with small initial weights, neighbors would have almost no effect at
    the start of training.
    """

    def __init__(self, channels: int, *, state: int, rank: int, reach: float) -> None:
        """Make the weights; the offsets start at zero."""
        super().__init__()
        points = len(LATTICE)
        self.reach, self.sizes = reach, (rank, state)
        self.offset = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.Conv2d(channels, channels, 1),
            nn.GELU(),
            nn.Conv2d(channels, 2 * points, 1),
        )
        self.norm_r = nn.LayerNorm(channels)
        self.norm_q = nn.LayerNorm(channels)
        self.in_r = nn.Linear(channels, channels)
        self.in_q = nn.Linear(channels, 2 * channels)
        self.conv1d = nn.Conv1d(channels, channels, 3, padding=1, groups=channels)
        self.x_proj = nn.Linear(channels, sum(self.sizes), bias=False)
        self.c_proj = nn.Linear(channels, state, bias=False)
        self.dt_proj = nn.Linear(rank, channels)
        self.A_log = nn.Parameter(torch.empty(channels, state))
        self.D = nn.Parameter(torch.empty(channels))
        self.out_proj = nn.Linear(channels, channels)
        self.reset_scan()

    def reset_scan(self) -> None:
        """Initialize the scan and the last offset layer."""
        reset_scan(self.A_log, self.D, self.dt_proj)
        last = self.offset[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, ref: Tensor, tgt: Tensor, flow: Tensor) -> Tensor:
        """Align ``ref`` to ``tgt``.

        Args:
            ref: Features of the other frame, (B, C, H, W).
            tgt: Features of the current frame, (B, C, H, W).
            flow: Where each pixel of ``tgt`` lies in ``ref``, (B, 2, H, W), pixels, dx first.

        Returns:
            (B, C, H, W).
        """
        batch, channels, height, width = ref.shape
        flow = flow.float()
        place = pixel_grid(height, width, device=ref.device) + flow  # (B, 2, H, W)
        warped = sample_points(ref, place)
        eps = self.reach * torch.tanh(self.offset(warped).float())  # (B, 2k, H, W)
        eps = eps.unflatten(1, (len(LATTICE), 2))  # (B, k, 2, H, W)
        lattice = lattice_points(ref.device).view(1, len(LATTICE), 2, 1, 1)
        delta = (place.floor() - place)[:, None] + lattice + eps  # (B, k, 2, H, W)
        out = self._in_portions(
            sample_tokens(ref, place[:, None] + delta),
            delta.permute(0, 3, 4, 1, 2).reshape(-1, len(LATTICE), 2),
            tgt.permute(0, 2, 3, 1).reshape(-1, channels),
        )
        return out.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def _in_portions(self, values: Tensor, delta: Tensor, target: Tensor) -> Tensor:
        step = PIXELS_AT_ONCE if target.device.type == "cpu" else PIXELS_AT_ONCE_ON_GPU
        parts = (x.split(step) for x in (values, delta, target))
        return torch.cat([self._cross_mamba(*part) for part in zip(*parts, strict=True)])

    def _cross_mamba(self, values: Tensor, delta: Tensor, target: Tensor) -> Tensor:
        """Run over the k tokens of each pixel: values (P, k, C), delta (P, k, 2), target (P, C)."""
        tokens = self.norm_r(values + encode_offsets(delta, values.shape[-1]).to(values.dtype))
        u = F.silu(self._over_tokens(self.in_r(tokens)))  # (P, k, C)
        query, gate = self.in_q(self.norm_q(target)).chunk(2, dim=-1)
        read = self.c_proj(F.silu(query))  # (P, n)
        dt, B = self.x_proj(u).split(self.sizes, dim=-1)
        states = selective_scan(
            u,
            F.linear(dt, self.dt_proj.weight),
            -torch.exp(self.A_log.float()),
            B,
            read[:, None].expand(-1, u.shape[1], -1),
            delta_bias=self.dt_proj.bias.float(),
            delta_softplus=True,
            token_major=True,
        )
        y = states[:, -1].float()  # only the last state has seen all tokens
        weights = bilinear_weights(delta)[..., None]
        skip = (weights * u.float()).sum(1)
        y = (y + self.D.float() * skip).to(gate.dtype)
        warped = (weights.to(values.dtype) * values).sum(1)
        out: Tensor = warped + self.out_proj(y * F.silu(gate))
        return out

    def _over_tokens(self, x: Tensor) -> Tensor:
        """The depthwise convolution over the four tokens, (P, k, C), as three products."""
        before, here, behind = self.conv1d.weight.squeeze(1).to(x.dtype).unbind(-1)  # (C,) each
        y = torch.addcmul(self.conv1d.bias.to(x.dtype), x, here)  # type: ignore[union-attr]
        y = torch.addcmul(y, F.pad(x[:, :-1], (0, 0, 1, 0)), before)
        return torch.addcmul(y, F.pad(x[:, 1:], (0, 0, 0, 1)), behind)


def lattice_points(device: torch.device) -> Tensor:
    """`LATTICE` as (k, 2) float32, computed on the device: a copy would synchronize with it."""
    point = torch.arange(len(LATTICE), device=device)
    return torch.stack((point % 2, point // 2), dim=-1).float()


def encode_offsets(delta: Tensor, channels: int) -> Tensor:
    """Encode the position of a sampled point relative to the end of the flow.

    Args:
        delta: (..., 2), pixels, x first.
        channels: Length of the code; a multiple of four.

    Returns:
        (..., channels): for x, then for y, sines, then cosines, with wavelengths from 2 pixels
        (the finest on the lattice) to 32.
    """
    octaves = torch.linspace(0, 4, channels // 4, device=delta.device)
    angles = delta[..., None] * (math.pi * torch.exp2(-octaves))  # (..., 2, channels / 4)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def bilinear_weights(delta: Tensor) -> Tensor:
    """Weights of bilinear interpolation for points at ``delta``, (..., k, 2); they sum to one."""
    weights = (1 - delta.abs()).clamp_min(0).prod(-1) + 1e-4
    return weights / weights.sum(-1, keepdim=True)
