"""The selective scan, many steps at once, in plain PyTorch.

The sequence is split into blocks that fit into the CPU's cache, and each block into chunks of a few
steps. All chunks of a block advance together, one step at a time: first to find the state at the
end of each chunk, then again from the correct initial states. That is twice the multiplications of
a simple loop in a hundredth of its calls.

No array of (length, channel, state) is saved for the backward pass: it saves the state at the start
of each block and recomputes the rest.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Elements of one (block, state, channel) array, 1 MiB: larger blocks leave the cache, smaller
# ones cost more calls.
BLOCK_ELEMENTS = 262_144
# On a GPU the calls dominate; the two arrays of 128 MiB are a small part of its memory.
GPU_BLOCK_ELEMENTS = 1 << 25

# Most states decay to zero within a chunk. Exponents are clamped to -80 (2e-35), since exp is so
# slow for denormals and zeros that it took a third of the scan.
MIN_EXPONENT = -80.0


def selective_scan_chunked(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: bool = False
) -> Tensor:
    """Compute what `selective_scan_reference` computes, with the same arguments and results."""
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    # The state axis goes before the channels: there are few states, and vector instructions
    # need long innermost rows. As a view, A alone took a quarter of the time.
    A, B, C = A.t().contiguous(), B.transpose(-1, -2), C.transpose(-1, -2)
    y: Tensor = _Scan.apply(  # type: ignore[no-untyped-call]
        *(x.to(dtype) for x in (u, delta, A, B, C)), reverse
    )
    return y


def _blocks(u: Tensor, states: int) -> tuple[list[slice], int]:
    """Split the length into blocks of whole chunks (the last one may end early).

    A block of n chunks of m steps costs n + 2m rounds of calls, so n and m are kept similar.

    Returns:
        The blocks, and the number of steps in a chunk.
    """
    batch, length, channel = u.shape
    elements = BLOCK_ELEMENTS if u.device.type == "cpu" else GPU_BLOCK_ELEMENTS
    steps = max(1, min(length, elements // (batch * channel * states)))
    chunk = max(1, round(math.sqrt(steps)))
    steps = max(1, steps // chunk) * chunk
    blocks = [slice(start, min(start + steps, length)) for start in range(0, length, steps)]
    return blocks, chunk


def _fold(x: Tensor, chunk: int, reverse: bool) -> Tensor:
    """(batch, steps, ...) to (chunk, chunks, batch, ...), padded with zeros at the end of time.

    Padding does not change states, since delta is zero, and its output is dropped.
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


class _Rows:
    """An array, and views along its first axis, made once instead of for each block."""

    def __init__(self, whole: Tensor) -> None:
        self.whole = whole
        self.rows = whole.unbind()


class _Workspace:
    """Named buffers that all blocks reuse.

    Page faults of new memory took as long as the arithmetic.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._arrays: dict[str, _Rows] = {}

    def take(self, name: str, *shape: int) -> _Rows:
        """The buffer of this name; its values are undefined."""
        found = self._arrays.get(name)
        if found is None or found.whole.shape != shape:
            found = self._arrays[name] = _Rows(self._like.new_empty(shape))
        return found


def _advance(
    decays: Sequence[Tensor],
    adds: Sequence[Tensor],
    span: _Rows,
    state: Tensor,
    buffers: _Workspace,
    *,
    order: int = 1,
) -> Tensor:
    """Run h = decay * h + add over all chunks of a block; ``adds`` become the states.

    Args:
        decays: For each step, (chunks, batch, state, channel).
        adds: Likewise; overwritten with h after the step.
        span: Product of the decays of each chunk.
        state: State before the first chunk, (batch, state, channel).
        buffers: Buffers for the states at the edges of chunks.
        order: 1 for chunks in order, -1 for chunks from the last to the first.

    Returns:
        The states after each chunk.
    """
    entry = buffers.take("entry", *span.whole.shape)  # state before each chunk
    entries = entry.rows[::order]
    entries[0].copy_(state)
    if len(span.rows) > 1:
        alone = buffers.take("alone", *span.whole.shape)  # each chunk from zero
        end = alone.whole.copy_(adds[0])
        for more, keep in zip(adds[1:], decays[1:], strict=True):
            torch.addcmul(more, keep, end, out=end)
        for before, after, last, total in zip(
            entries, entries[1:], alone.rows[::order], span.rows[::order], strict=False
        ):
            torch.addcmul(last, total, before, out=after)
    h = entry.whole
    for more, keep in zip(adds, decays, strict=True):
        h = more.addcmul_(keep, h)
    return h


def _block_states(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, state: Tensor, buffers: _Workspace
) -> tuple[_Rows, _Rows, Tensor]:
    """Decays and states of a folded block, (chunk, chunks, batch, state, channel), and its end.

    Arguments are folded: u and delta (chunk, chunks, batch, channel), B has a state axis before it.
    """
    shape = (*delta.shape[:-1], *A.shape)
    decay, h = buffers.take("decay", *shape), buffers.take("h", *shape)
    torch.mul(delta[..., None, :], A, out=decay.whole).exp_()
    torch.mul((delta * u)[..., None, :], B, out=h.whole)
    span = buffers.take("span", *shape[1:])
    torch.mul(delta.sum(0)[..., None, :], A, out=span.whole).clamp_(min=MIN_EXPONENT).exp_()
    ends = _advance(decay.rows, h.rows, span, state, buffers)
    return decay, h, ends[-1].clone()


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
        starts, buffers = [], _Workspace(u)
        blocks, chunk = _blocks(u, A.shape[0])
        for block in _ordered(blocks, reverse):
            starts.append(state)
            fu, fdelta, fB, fC = (_fold(x[:, block], chunk, reverse) for x in (u, delta, B, C))
            _, h, state = _block_states(fu, fdelta, A, fB, state, buffers)
            y[:, block] = _unfold(_contract(h.whole, fC), block.stop - block.start, reverse)
        ctx.save_for_backward(u, delta, A, B, C, *starts)
        ctx.reverse = reverse
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, *starts = ctx.saved_tensors
        reverse: bool = ctx.reverse
        du, ddelta, dB, dC = (torch.empty_like(x) for x in (u, delta, B, C))
        dA = torch.zeros_like(A)
        buffers = _Workspace(u)
        after = torch.zeros_like(starts[0])  # gradient that arrives at the end of a block
        blocks, chunk = _blocks(u, A.shape[0])
        blocks = _ordered(blocks, not reverse)
        for block, start in zip(blocks, reversed(starts), strict=True):
            fu, fdelta, fB, fC, fdy = (
                _fold(x[:, block], chunk, reverse) for x in (u, delta, B, C, dy)
            )
            decay, states, _ = _block_states(fu, fdelta, A, fB, start, buffers)
            dh, after = _state_gradient(fdy, fC, fdelta, A, decay, after, buffers)
            h = states.whole
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
    """Blocks in the order of the recurrence."""
    return blocks[::-1] if reverse else blocks


def _state_gradient(
    dy: Tensor,
    C: Tensor,
    delta: Tensor,
    A: Tensor,
    decay: _Rows,
    after: Tensor,
    buffers: _Workspace,
) -> tuple[Tensor, Tensor]:
    """Run dh[t] = dy[t] C[t] + decay[t+1] dh[t+1] through a block, from its end.

    Args:
        dy: Folded, (chunk, chunks, batch, channel).
        C: Folded, with a state axis before the channels.
        delta: Folded like ``dy``.
        A: (state, channel).
        decay: (chunk, chunks, batch, state, channel).
        after: decay[t+1] dh[t+1] of the step after the block, (batch, state, channel).
        buffers: Buffers to use.

    Returns:
        dh, shaped like ``decay``, and the ``after`` of the block before.
    """
    shape = decay.whole.shape
    dh = buffers.take("dh", *shape)
    torch.mul(dy[..., None, :], C, out=dh.whole)
    # Backward in time, a step uses the decay of the step after it, and chunks run from the last to
    # the first.
    next_decay = torch.ones(shape[1:], dtype=A.dtype, device=A.device)
    next_decay[:-1] = decay.rows[0][1:]
    span = buffers.take("span", *shape[1:])
    torch.mul((delta.sum(0) - delta[0])[..., None, :], A, out=span.whole)
    span.whole.clamp_(min=MIN_EXPONENT).exp_().mul_(next_decay)
    decays = (next_decay, *decay.rows[:0:-1])
    _advance(decays, dh.rows[::-1], span, after, buffers, order=-1)
    return dh.whole, dh.whole[0, 0] * decay.whole[0, 0]
