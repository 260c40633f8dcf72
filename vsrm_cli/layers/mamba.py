"""The Mamba mixer: a selective scan over a sequence of tokens, in one or both directions."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.ops.causal_conv import causal_conv
from vsrm_cli.ops.selective_scan import selective_scan


class SelectiveSSM(nn.Module):
    """One direction of Mamba: causal convolution, input-dependent step sizes, B and C, and scan.

    Args:
        channels: Channels of the tokens, d.
        state: States of each channel, n.
        conv: Length of the causal convolution.
        rank: Width of the bottleneck of the step sizes.
        reverse: Whether the scan runs from the last token to the first.
    """

    def __init__(self, channels: int, *, state: int, conv: int, rank: int, reverse: bool) -> None:
        """Create the weights, initialized as in Mamba (arXiv 2312.00752, section 3.6)."""
        super().__init__()
        self.reverse = reverse
        self.conv1d = nn.Conv1d(channels, channels, conv, groups=channels)
        self.x_proj = nn.Linear(channels, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, channels)
        self.A_log = nn.Parameter(torch.empty(channels, state))
        self.D = nn.Parameter(torch.empty(channels))
        self.reset_scan()

    def reset_scan(self) -> None:
        """Initialize decays to 1..n and steps log-uniformly from 1e-3 to 1e-1."""
        reset_scan(self.A_log, self.D, self.dt_proj)

    def forward(self, u: Tensor, *, add: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        """Map tokens (B, L, d) to the same shape; see `scan_tokens`."""
        weights = (self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        return scan_tokens(u, *weights, add=add, z=z, reverse=self.reverse)


class MambaMixer(nn.Module):
    """Gated selective scans: out_proj((sum of the directions) * SiLU(z)).

    Args:
        channels: Channels of the tokens, C.
        expand: Inner width, as a multiple of C.
        state: States of each channel.
        conv: Length of the causal convolution.
        rank: Width of the bottleneck of the step sizes.
        bidirectional: Whether a second scan, with its own weights, runs backward.

    Source: VSRM (arXiv 2506.22762), the mixers of the S2T (both directions) and T2S (forward)
    blocks; the directions are added, not averaged.
    """

    def __init__(
        self,
        channels: int,
        *,
        expand: int,
        state: int,
        conv: int,
        rank: int,
        bidirectional: bool,
    ) -> None:
        """Create the projections and one or two scans."""
        super().__init__()
        inner = expand * channels
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.ssm = nn.ModuleList(
            SelectiveSSM(inner, state=state, conv=conv, rank=rank, reverse=reverse)
            for reverse in ((False, True) if bidirectional else (False,))
        )
        self.out_proj = nn.Linear(inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, L, C) to the same shape."""
        u, z = project_twice(x, self.in_proj)
        y = None
        for ssm in self.ssm:
            y = ssm(u, add=y, z=z if ssm is self.ssm[-1] else None)
        out: Tensor = self.out_proj(y)
        return out


class BiMamba(nn.Module):
    """Mamba in both directions: out_proj((forward + backward scan) * SiLU(z)).

    Equivalent to a bidirectional `MambaMixer`, but with the parameter names of published weights
    ("Vision Mamba", arXiv 2401.09417, ``bimamba_type="v2"``): those of the second direction end in
    ``_b``.

    Args:
        channels: Channels of the tokens, C.
        expand: Inner width, as a multiple of C.
        state: States of each channel.
        conv: Length of the causal convolutions.
        rank: Width of the bottleneck of the step sizes.
    """

    def __init__(self, channels: int, *, expand: int, state: int, conv: int, rank: int) -> None:
        """Create the projections and the weights of two scans."""
        super().__init__()
        inner = expand * channels
        parts = rank + 2 * state
        self.A_log = nn.Parameter(torch.empty(inner, state))
        self.D = nn.Parameter(torch.empty(inner))
        self.A_b_log = nn.Parameter(torch.empty(inner, state))
        self.D_b = nn.Parameter(torch.empty(inner))
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, conv, groups=inner)
        self.x_proj = nn.Linear(inner, parts, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.conv1d_b = nn.Conv1d(inner, inner, conv, groups=inner)
        self.x_proj_b = nn.Linear(inner, parts, bias=False)
        self.dt_proj_b = nn.Linear(rank, inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        self.reset_scan()

    def reset_scan(self) -> None:
        """Initialize the scans of both directions, as `SelectiveSSM` does."""
        reset_scan(self.A_log, self.D, self.dt_proj)
        reset_scan(self.A_b_log, self.D_b, self.dt_proj_b)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, L, C) to the same shape."""
        u, z = project_twice(x, self.in_proj)
        forward = (self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        backward = (self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b)
        y = scan_tokens(u, *forward)
        out: Tensor = self.out_proj(scan_tokens(u, *backward, add=y, z=z, reverse=True))
        return out


def project_twice(x: Tensor, proj: nn.Linear) -> tuple[Tensor, Tensor]:
    """Both halves of a projection without bias, each contiguous, which avoids copies later."""
    first, second = proj.weight.chunk(2)
    return F.linear(x, first), F.linear(x, second)


def scan_tokens(
    u: Tensor,
    conv1d: nn.Conv1d,
    x_proj: nn.Linear,
    dt_proj: nn.Linear,
    A_log: Tensor,
    D: Tensor,
    *,
    add: Tensor | None = None,
    z: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """One direction of Mamba: causal convolution, SiLU, input-dependent parameters, scan.

    The reverse direction flips the convolution kernel and runs the scan backward. This equals
    flipping the tokens before and after, without copies. The direction that is computed last gets
    the result of the other one and the gate, so the scan adds and gates while it writes.

    Args:
        u: Tokens, (B, L, d).
        conv1d: Depthwise, over tokens; the last tap multiplies the current one.
        x_proj: Computes the bottleneck of the step sizes, B and C, in this order.
        dt_proj: From the bottleneck to step sizes; its bias is added inside the scan, in float32.
        A_log: Logarithm of the decay rates, (d, N).
        D: Weights of the skip, (d,).
        add: Added to the result, (B, L, d).
        z: Gate of the sum, (B, L, d), through SiLU.
        reverse: From the last token to the first.

    Returns:
        (B, L, d).

    Source: Mamba (arXiv 2312.00752), section 3.4 and algorithm 2.
    """
    v = causal_conv(u, conv1d.weight, cast("Tensor", conv1d.bias), reverse=reverse)
    state = A_log.shape[1]
    dt, B, C = x_proj(v).split((dt_proj.in_features, state, state), dim=-1)
    dt = F.linear(dt, dt_proj.weight)
    return selective_scan(
        v,
        dt,
        -torch.exp(A_log.float()),
        B,
        C,
        D=D.float(),
        z=z,
        delta_bias=dt_proj.bias.float(),
        delta_softplus=True,
        reverse=reverse,
        add=add,
        token_major=True,
    )


def reset_scan(A_log: nn.Parameter, D: nn.Parameter, dt_proj: nn.Linear) -> None:
    """Initialize the parameters of a selective scan.

    A_log = log(1..n) for each channel, D = 1, dt_proj.weight uniform within rank^-0.5, its bias
    such that the step sizes after softplus are log-uniform from 1e-3 to 1e-1.

    Source: Mamba (arXiv 2312.00752), section 3.6 and the authors' code.
    """
    if A_log.is_meta:  # has no values until a file is loaded
        return
    with torch.no_grad():
        states = torch.arange(1, A_log.shape[1] + 1, dtype=torch.float32, device=A_log.device)
        A_log.copy_(states.log().expand_as(A_log))
        D.fill_(1.0)
        bound = dt_proj.in_features**-0.5
        dt_proj.weight.uniform_(-bound, bound)
        low, high = math.log(1e-3), math.log(1e-1)
        step = torch.empty_like(dt_proj.bias).uniform_(low, high).exp().clamp_min(1e-4)
        dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
