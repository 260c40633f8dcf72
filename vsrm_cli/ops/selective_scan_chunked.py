"""The selective scan, many steps at once, in plain PyTorch.

The sequence is cut into blocks that stay in the processor's cache, and each block into chunks
of a few steps. All chunks of a block advance together, one step at a time, first to find the
state that each one hands to the next, then again from the right states. That is twice the
multiplications of the plain loop, in a hundredth of its calls.

Nothing of size (length, channel, state) is kept for the backward pass: it holds the state at
the start of each block and computes the rest again.
"""

import math
from typing import Any

import torch
from torch import Tensor

# Elements of one (block, state, channel) array, 1 MiB: larger blocks leave the cache, smaller
# ones cost more calls.
BLOCK_ELEMENTS = 262_144


def selective_scan_chunked(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: bool = False
) -> Tensor:
    """Compute what `selective_scan_reference` computes, with the same arguments and results."""
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    # The state axis goes before the channels: there are few states, and vector instructions
    # want long innermost rows. Left as a view, A alone took a quarter of the time.
    A, B, C = A.t().contiguous(), B.transpose(-1, -2), C.transpose(-1, -2)
    y: Tensor = _Scan.apply(  # type: ignore[no-untyped-call]
        *(x.to(dtype) for x in (u, delta, A, B, C)), reverse
    )
    return y


def _blocks(u: Tensor, states: int) -> tuple[list[slice], int]:
    """Cut the length into blocks of whole chunks (the last one may end early).

    A block of n chunks of m steps costs n + 2m rounds of calls, so n and m are kept alike.

    Returns:
        The blocks, and the steps of a chunk.
    """
    batch, length, channel = u.shape
    steps = max(1, min(length, BLOCK_ELEMENTS // (batch * channel * states)))
    chunk = max(1, round(math.sqrt(steps)))
    steps = max(1, steps // chunk) * chunk
    blocks = [slice(start, min(start + steps, length)) for start in range(0, length, steps)]
    return blocks, chunk


def _fold(x: Tensor, chunk: int, reverse: bool) -> Tensor:
    """(batch, steps, ...) to (chunk, chunks, batch, ...), padded with zeros at the end of time.

    A step of zeros changes nothing: delta = 0 keeps the state, and its output is thrown away.
    """
    if reverse:
        x = x.flip(1)
    batch, steps = x.shape[:2]
    chunks = -(-steps // chunk)
    if steps % chunk:
        x = torch.cat((x, x.new_zeros(batch, chunks * chunk - steps, *x.shape[2:])), dim=1)
    folded: Tensor = x.unflatten(1, (chunks, chunk))
    return folded.transpose(0, 2)


def _unfold(x: Tensor, steps: int, reverse: bool) -> Tensor:
    """The inverse of `_fold`."""
    x = x.transpose(0, 2).flatten(1, 2)[:, :steps]
    return x.flip(1) if reverse else x


def _advance(decay: "_Rows", add: "_Rows", span: Tensor, state: Tensor) -> Tensor:
    """Run h = decay * h + add over all chunks of a block; ``add`` is replaced by the states.

    Args:
        decay: (chunk, chunks, batch, state, channel).
        add: Shaped like ``decay``; overwritten with h after each step.
        span: Product of the decays of each chunk, (chunks, batch, state, channel).
        state: State before the block, (batch, state, channel).

    Returns:
        The state after the block.
    """
    entry = torch.empty_like(span)  # state before each chunk
    entry[0] = state
    if span.shape[0] > 1:
        alone = add.rows[0].clone()  # each chunk from zero
        for more, keep in zip(add.rows[1:], decay.rows[1:], strict=True):
            torch.addcmul(more, keep, alone, out=alone)
        rows = entry.unbind()
        for before, after, end, total in zip(
            rows, rows[1:], alone.unbind(), span.unbind(), strict=False
        ):
            torch.addcmul(end, total, before, out=after)
    for more, keep in zip(add.rows, decay.rows, strict=True):
        entry = torch.addcmul(more, keep, entry, out=more)
    return entry[-1].clone()


class _Rows:
    """An array, and views of all that lies along its first axis: made once, not in each block."""

    def __init__(self, whole: Tensor) -> None:
        self.whole = whole
        self.rows = whole.unbind()


class _Room:
    """Memory for the decays and states of one block after another.

    Fresh memory is handed out by the system page by page, which took as long as the arithmetic.
    """

    def __init__(self) -> None:
        self._arrays: tuple[_Rows, _Rows] | None = None

    def take(self, delta: Tensor, states: int) -> tuple[_Rows, _Rows]:
        """Two arrays of delta's shape with a state axis before the channels; values undefined."""
        shape = (*delta.shape[:-1], states, delta.shape[-1])
        if self._arrays is None or self._arrays[0].whole.shape != shape:
            self._arrays = _Rows(delta.new_empty(shape)), _Rows(delta.new_empty(shape))
        return self._arrays


def _block_states(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, state: Tensor, room: _Room
) -> tuple[Tensor, Tensor, Tensor]:
    """Decays and states of a folded block, (chunk, chunks, batch, state, channel), and its end.

    Arguments are folded: u and delta (chunk, chunks, batch, channel), B has a state axis before it.
    """
    decay, h = room.take(delta, A.shape[0])
    torch.mul(delta[..., None, :], A, out=decay.whole).exp_()
    torch.mul((delta * u)[..., None, :], B, out=h.whole)
    span = (delta.sum(0)[..., None, :] * A).exp_()
    return decay.whole, h.whole, _advance(decay, h, span, state)


def _contract(x: Tensor, weights: Tensor) -> Tensor:
    """Sum of x * weights over the states: (..., state, channel) to (..., channel)."""
    if weights.shape[-1] == 1:
        return torch.matmul(weights.transpose(-1, -2), x).squeeze(-2)
    return (x * weights).sum(-2)


def _gather(x: Tensor, y: Tensor, channels: int) -> Tensor:
    """Gradient of weights shared by channels: sum of y * x over the channels, where shared.

    Args:
        x: (..., state, channel).
        y: (..., channel).
        channels: Size of the weights' channel axis: 1 where they are shared.
    """
    if channels == 1:
        return torch.matmul(x, y[..., None])
    return y[..., None, :] * x


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool
    ) -> Tensor:
        y = torch.empty_like(u, memory_format=torch.contiguous_format)
        state = u.new_zeros(u.shape[0], *A.shape)
        starts, room = [], _Room()
        blocks, chunk = _blocks(u, A.shape[0])
        for block in _ordered(blocks, reverse):
            starts.append(state)
            fu, fdelta, fB, fC = (_fold(x[:, block], chunk, reverse) for x in (u, delta, B, C))
            _, h, state = _block_states(fu, fdelta, A, fB, state, room)
            y[:, block] = _unfold(_contract(h, fC), block.stop - block.start, reverse)
        ctx.save_for_backward(u, delta, A, B, C, *starts)
        ctx.reverse = reverse
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, *starts = ctx.saved_tensors
        reverse: bool = ctx.reverse
        du, ddelta, dB, dC = (torch.empty_like(x) for x in (u, delta, B, C))
        dA = torch.zeros_like(A)
        room = _Room()
        after = torch.zeros_like(starts[0])  # gradient that arrives at the end of a block
        blocks, chunk = _blocks(u, A.shape[0])
        blocks = _ordered(blocks, not reverse)
        for block, start in zip(blocks, reversed(starts), strict=True):
            fu, fdelta, fB, fC, fdy = (
                _fold(x[:, block], chunk, reverse) for x in (u, delta, B, C, dy)
            )
            decay, h, _ = _block_states(fu, fdelta, A, fB, start, room)
            dh, after = _state_gradient(fdy, fC, fdelta, A, decay, after)
            put = [
                (dC, _gather(h, fdy, C.shape[3])),
                (dB, _gather(dh, fdelta * fu, B.shape[3])),
            ]
            inflow = _contract(dh, fB)
            # decay * h[t-1] is h[t] minus what was added at t.
            dlog = dh.mul_(h.sub_((fdelta * fu)[..., None, :] * fB))
            put += [(du, inflow * fdelta), (ddelta, inflow * fu + (dlog * A).sum(-2))]
            dA += (dlog * fdelta[..., None, :]).sum((0, 1, 2))
            for target, value in put:
                target[:, block] = _unfold(value, block.stop - block.start, reverse)
        return du, ddelta, dA, dB, dC, None


def _ordered(blocks: list[slice], reverse: bool) -> list[slice]:
    """Blocks in the order in which the recurrence passes them."""
    return blocks[::-1] if reverse else blocks


def _state_gradient(
    dy: Tensor, C: Tensor, delta: Tensor, A: Tensor, decay: Tensor, after: Tensor
) -> tuple[Tensor, Tensor]:
    """Run dh[t] = dy[t] C[t] + decay[t+1] dh[t+1] through a block, from its end.

    Args:
        dy: Folded, (chunk, chunks, batch, channel).
        C: Folded, with a state axis before the channels.
        delta: Folded like ``dy``.
        A: (state, channel).
        decay: (chunk, chunks, batch, state, channel).
        after: decay[t+1] dh[t+1] of the step after the block, (batch, state, channel).

    Returns:
        dh, shaped like ``decay``, and the ``after`` of the block before.
    """
    dh = dy[..., None, :] * C
    dh[-1, -1] += after
    # Backwards in time the decay of a step is that of the step behind it.
    shifted = torch.empty_like(decay)
    shifted[:-1] = decay[1:]
    shifted[-1, :-1] = decay[0, 1:]
    shifted[-1, -1] = 1.0
    span = torch.exp((delta.sum(0) - delta[0])[..., None, :] * A)
    span[:-1] *= decay[0, 1:]
    flipped = dh.flip(0, 1)
    _advance(_Rows(shifted.flip(0, 1)), _Rows(flipped), span.flip(0), torch.zeros_like(after))
    dh = flipped.flip(0, 1)
    return dh, dh[0, 0] * decay[0, 0]
