"""The selective scan as fused Triton kernels.

The sequence is divided into chunks, so that one long sequence fills a whole GPU:

1. Each chunk runs from a state of zero, and stores its last state and the sum of its step sizes.
2. The decay over a chunk is exp(A * sum), so a short scan over the chunks gives their initial
   states.
3. All chunks run again from their initial states and write their outputs.

The backward pass keeps the initial states of the chunks and recomputes the rest. It stores the
state and its gradient at every `TILE`-th token and works in registers inside a tile, so its memory
is proportional to tokens x channels.
"""

import math
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.ops.selective_scan.triton_kernels import (
    carry,
    run_states,
    write_gradients,
    write_outputs,
)

# Tokens of a chunk. More make step 2 shorter, fewer fill the GPU with shorter sequences.
CHUNK = 256
# Tokens whose gradients are computed together in registers; 16 need too many of them.
TILE = 8
# Tokens that are loaded together, so that the latencies of their loads overlap.
GROUP = 4
# Channels of a program, two for each lane. B and C are loaded once for all of them.
BLOCK = 64


def selective_scan_triton(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    add: Tensor | None,
    *,
    delta_softplus: bool,
    reverse: bool,
) -> Tensor:
    """Compute the whole operator; arguments as in `selective_scan`, token-major.

    ``B`` and ``C`` must be shared by all channels: (batch, length, state), or with an axis of
    size 1 before the states. Any strides are allowed; the result has those of ``u``.
    """
    B, C = (x if x.dim() == 3 else x.squeeze(2) for x in (B, C))
    y: Tensor = _Scan.apply(  # type: ignore[no-untyped-call]
        u, delta, A, B, C, D, z, delta_bias, add, delta_softplus, reverse
    )
    return y


class _Passes:
    """The passes over the tokens that forward and backward share."""

    def __init__(
        self, delta: Tensor, A: Tensor, bias: Tensor | None, softplus: bool, reverse: bool
    ) -> None:
        self.batch, self.length, self.channels = delta.shape
        self.states = A.shape[1]
        self.blocks = triton.cdiv(self.channels, BLOCK)
        self.width = self.blocks * BLOCK
        self.chunks = triton.cdiv(self.length, CHUNK)
        self.tiles = triton.cdiv(self.length, TILE)
        N = triton.next_power_of_2(self.states)
        # exp(step * A) = 2^(step * rate); (N, width), like the states.
        self.rates = F.pad(self.widen(A.t() / math.log(2)), (0, 0, 0, N - self.states))
        self.bias = self.widen(bias)
        self.delta = delta
        self.sizes = {"channels": self.channels, "states": self.states, "pairs": self.width // 2}
        # Explicit, because Triton warns if fused multiply-add is left unspecified.
        self.options = {"N": N, "BLOCK": BLOCK, "num_warps": 1, "enable_fp_fusion": True}
        self.kind = {"SOFTPLUS": softplus, "REVERSE": reverse}

    def widen(self, x: Tensor | None) -> Any:
        """Pad (..., channel) to whole programs, in float32."""
        return None if x is None else F.pad(x.float(), (0, self.width - self.channels)).contiguous()

    def empty(self, pieces: int, *shape: int) -> Tensor:
        """An uninitialized array, (batch, pieces, *shape), float32."""
        return self.rates.new_empty(self.batch, pieces, *shape)

    def starts(
        self, value: Tensor, gate: Tensor | None, weights: Tensor, *, adjoint: bool
    ) -> Tensor:
        """The initial state of each chunk; with ``adjoint``, the gradient of its last state."""
        if self.chunks == 1:
            return self.rates.new_zeros(self.batch, 1, *self.rates.shape)
        ends = self.empty(self.chunks, *self.rates.shape)
        totals = self.empty(self.chunks, self.width)
        self._run(value, gate, weights, (None, ends, totals, None), adjoint)
        starts = torch.empty_like(ends)
        carry[(self.batch * self.rates.shape[0] * self.blocks,)](
            *(ends, totals, self.rates, starts, self.chunks, self.width // 2),
            ADJOINT=adjoint,
            GROUP=4 * GROUP,
            **self.options,
        )
        return starts

    def tile_starts(
        self, value: Tensor, gate: Tensor | None, weights: Tensor, starts: Tensor, *, adjoint: bool
    ) -> Tensor:
        """The same as `starts`, for each tile."""
        kept = self.empty(self.tiles, *self.rates.shape)
        self._run(value, gate, weights, (starts, None, None, kept), adjoint)
        return kept

    def _run(
        self,
        value: Tensor,
        gate: Tensor | None,
        weights: Tensor,
        places: tuple[Tensor | None, ...],
        adjoint: bool,
    ) -> None:
        run_states[(self.batch * self.chunks * self.blocks,)](
            *_strided(value, gate, self.delta, weights),
            *(self.bias, self.rates, *places, self.length, self.chunks),
            ADJOINT=adjoint,
            CHUNK=CHUNK,
            TILE=TILE,
            GROUP=GROUP,
            **self.sizes,
            **self.kind,
            **self.options,
        )


def _ungated(dy: Tensor, z: Tensor | None) -> Tensor:
    """The gradient before the gate."""
    return dy if z is None else dy.float() * F.silu(z.float())


def _strided(*tensors: Tensor | None) -> list[Any]:
    """Each tensor and, after it, its strides."""
    return [item for x in tensors for item in ((None, None) if x is None else (x, x.stride()))]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        bias: Tensor | None,
        add: Tensor | None,
        softplus: bool,
        reverse: bool,
    ) -> Tensor:
        passes = _Passes(delta, A, bias, softplus, reverse)
        y = torch.empty_like(u)
        with torch.cuda.device_of(u):
            starts = passes.starts(u, None, B, adjoint=False)
            write_outputs[(passes.batch * passes.chunks * passes.blocks,)](
                *_strided(u, z, add, delta, B, C, y),
                *(passes.bias, passes.rates, passes.widen(D), starts),
                *(passes.length, passes.chunks),
                CHUNK=CHUNK,
                GROUP=GROUP,
                **passes.sizes,
                **passes.kind,
                **passes.options,
            )
        ctx.save_for_backward(u, delta, A, B, C, D, z, bias, add, starts)
        ctx.kind = (softplus, reverse)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, D, z, bias, add, starts = ctx.saved_tensors
        passes = _Passes(delta, A, bias, *ctx.kind)
        du, ddelta = torch.empty_like(u), torch.empty_like(delta)
        dz = None if z is None else torch.empty_like(z)
        # One entry for each block of channels; they are summed below.
        dB = passes.empty(passes.blocks, passes.length, passes.states)
        dC = torch.empty_like(dB)
        dD, dbias = (passes.empty(passes.tiles, passes.width) for _ in range(2))
        with torch.cuda.device_of(u):
            before = passes.tile_starts(u, None, B, starts, adjoint=False)
            starts = passes.starts(dy, z, C, adjoint=True)
            after = passes.tile_starts(dy, z, C, starts, adjoint=True)
            write_gradients[(passes.batch * passes.tiles * passes.blocks,)](
                *_strided(u, z, add, delta, B, C, dy, du, dz, ddelta),
                # Each state before a tile is read once, then overwritten by its part of dA.
                *(dB, dC, before, dD, dbias, passes.bias, passes.rates, passes.widen(D)),
                *(before, after, passes.length, passes.tiles),
                TILE=TILE,
                **passes.sizes,
                **passes.kind,
                **passes.options,
            )
        real = slice(passes.channels)
        dA = before.sum((0, 1))[: passes.states, real].t()
        return (
            du,
            ddelta,
            dA.to(A.dtype),
            dB.sum(1).to(B.dtype),
            dC.sum(1).to(C.dtype),
            None if D is None else dD.sum((0, 1))[real].to(D.dtype),
            dz,
            None if bias is None else dbias.sum((0, 1))[real].to(bias.dtype),
            None if add is None else _ungated(dy, z).to(add.dtype),
            None,
            None,
        )
