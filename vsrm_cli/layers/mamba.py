"""The Mamba mixer: a selective scan over a sequence of tokens, in one or both directions."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.ops.selective_scan import selective_scan


class SelectiveSSM(nn.Module):
    """One direction: causal convolution, step sizes and weights from the input, scan.

    Args:
        channels: Channels of the tokens, d.
        state: States of each channel, n.
        conv: Length of the causal convolution.
        rank: Width of the bottleneck that the step sizes pass.
        reverse: Whether the scan runs from the last token to the first.
    """

    def __init__(self, channels: int, *, state: int, conv: int, rank: int, reverse: bool) -> None:
        """Make the weights, with Mamba's own initial values (arXiv 2312.00752, section 3.6)."""
        super().__init__()
        self.reverse = reverse
        self.sizes = (rank, state, state)
        self.conv1d = nn.Conv1d(channels, channels, conv, groups=channels)
        self.x_proj = nn.Linear(channels, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(rank, channels)
        self.A_log = nn.Parameter(torch.empty(channels, state))
        self.D = nn.Parameter(torch.empty(channels))
        self.reset_scan()

    def reset_scan(self) -> None:
        """Set what decides over memory: decays 1 to n, steps log-uniform from 1e-3 to 1e-1."""
        reset_scan(self.A_log, self.D, self.dt_proj)

    def forward(self, u: Tensor) -> Tensor:
        """Map tokens (B, L, d) to the same shape.

        The other direction needs no flipped copies: the kernel is flipped and looks ahead, and
        the scan runs backwards. That equals flipping the tokens before and after.
        """
        v = F.silu(self._causal_conv(u))
        rank, state, _ = self.sizes
        dt, B, C = self.x_proj(v).split((rank, state, state), dim=-1)
        # The bias is added inside the scan, in float32.
        dt = F.linear(dt, self.dt_proj.weight)
        y = selective_scan(
            v.transpose(1, 2),
            dt.transpose(1, 2),
            -torch.exp(self.A_log.float()),
            B.transpose(1, 2),
            C.transpose(1, 2),
            D=self.D.float(),
            delta_bias=self.dt_proj.bias.float(),
            delta_softplus=True,
            reverse=self.reverse,
        )
        return y.transpose(1, 2)

    def _causal_conv(self, u: Tensor) -> Tensor:
        """The convolution over tokens, (B, L, d), as a 2-D one over a picture of one row.

        So the channels stay innermost in memory: ten times faster than `nn.Conv1d` on a CPU.
        """
        weight = self.conv1d.weight.unsqueeze(2)  # (d, 1, 1, conv)
        if self.reverse:
            weight = weight.flip(3)
        length, margin = u.shape[1], weight.shape[3] - 1
        row = u.transpose(1, 2).unsqueeze(2)  # (B, d, 1, L), channels last
        v = F.conv2d(row, weight, self.conv1d.bias, padding=(0, margin), groups=weight.shape[0])
        start = margin if self.reverse else 0
        return v.squeeze(2).transpose(1, 2)[:, start : start + length]


class MambaMixer(nn.Module):
    """Gated selective scans: out_proj((sum of the directions) * SiLU(z)).

    Args:
        channels: Channels of the tokens, C.
        expand: Width inside, as a multiple of C.
        state: States of each channel.
        conv: Length of the causal convolution.
        rank: Width of the bottleneck that the step sizes pass.
        bidirectional: Whether a second scan, with weights of its own, runs backwards.

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
        """Make the projections and one or two scans."""
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
        u, z = self.in_proj(x).chunk(2, dim=-1)
        y = self.ssm[0](u)
        for ssm in self.ssm[1:]:
            y = y + ssm(u)
        out: Tensor = self.out_proj(y * F.silu(z))
        return out


def reset_scan(A_log: nn.Parameter, D: nn.Parameter, dt_proj: nn.Linear) -> None:
    """Give the parameters of a selective scan their first values.

    A_log = log(1..n) for each channel, D = 1, dt_proj.weight uniform within rank^-0.5, its bias
    such that the step sizes after softplus are log-uniform from 1e-3 to 1e-1.

    Source: Mamba (arXiv 2312.00752), section 3.6 and the authors' code.
    """
    with torch.no_grad():
        states = torch.arange(1, A_log.shape[1] + 1, dtype=torch.float32, device=A_log.device)
        A_log.copy_(states.log().expand_as(A_log))
        D.fill_(1.0)
        bound = dt_proj.in_features**-0.5
        dt_proj.weight.uniform_(-bound, bound)
        low, high = math.log(1e-3), math.log(1e-1)
        step = torch.empty_like(dt_proj.bias).uniform_(low, high).exp().clamp_min(1e-4)
        dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
