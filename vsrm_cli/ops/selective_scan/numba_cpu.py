"""The selective scan as a loop for CPUs, compiled by Numba (extra ``fast``).

Numba includes its code generator, so users need no compiler. Channels are processed sixteen at a
time, one vector register, and their states stay in the L1 cache for the whole length. The backward
pass restarts from states that the forward pass saves every `SEGMENT` steps.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

LANES = 16
SEGMENT = 64

Array = NDArray[np.float32]

# exp(r) = 1 + r + r^2 (1/2 + r/6 + ...) for |r| <= ln(2) / 2, relative error below 5e-7.
_E2, _E3, _E4, _E5, _E6 = (np.float32(1 / math.factorial(k)) for k in (2, 3, 4, 5, 6))
_ONE = np.float32(1)
_LOG2E = np.float32(1 / math.log(2))
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(math.log(2) - 0.693359375)
_LOWEST = np.float32(-87.0)


@njit(inline="always", fastmath=True)
def _exp(x: Any) -> Any:
    """exp(x) for x <= 0, in operations that the compiler can vectorize."""
    x = max(x, _LOWEST)
    k = np.floor(x * _LOG2E + np.float32(0.5))
    r = x - k * _LN2_HIGH - k * _LN2_LOW
    p = _ONE + r * (_ONE + r * (_E2 + r * (_E3 + r * (_E4 + r * (_E5 + r * _E6)))))
    return p * np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)


# An unsigned index cannot be negative: without that check the compiler can vectorize the load.
_LANES = np.uint64(LANES)


@njit(fastmath=True, nogil=True, cache=True)
def _forward(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    reverse: bool,
    first: np.uint64,
    y: Array,
    kept: Array,
) -> None:
    """Scan sixteen channels from ``first`` on of some batch items.

    All arrays are contiguous: u, delta, y (items, L, D), A (N, D), B, C (items, L, N). ``kept``,
    (items, segments, N, D), receives the state before each segment.
    """
    items, length, states = B.shape
    h = np.empty((states, LANES), np.float32)
    rates = np.empty((states, LANES), np.float32)
    total = np.empty(LANES, np.float32)
    for n in range(states):
        for w in range(_LANES):
            rates[n, w] = A[n, first + w]
    for item in range(items):
        h[:] = 0
        for i in range(length):
            t = length - 1 - i if reverse else i
            if i % SEGMENT == 0:
                for n in range(states):
                    for w in range(_LANES):
                        kept[item, i // SEGMENT, n, first + w] = h[n, w]
            total[:] = 0
            for n in range(states):
                b, c = B[item, t, n], C[item, t, n]
                for w in range(_LANES):
                    step = delta[item, t, first + w]
                    s = _exp(step * rates[n, w]) * h[n, w] + step * u[item, t, first + w] * b
                    h[n, w] = s
                    total[w] += c * s
            for w in range(_LANES):
                y[item, t, first + w] = total[w]


@njit(fastmath=True, nogil=True, cache=True)
def _backward(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    reverse: bool,
    first: np.uint64,
    dy: Array,
    kept: Array,
    du: Array,
    ddelta: Array,
    dA: Array,
    dB: Array,
    dC: Array,
) -> None:
    """Gradients of `_forward`; dA is (N, 16), the others are shaped as there."""
    items, length, states = B.shape
    h = np.empty((SEGMENT + 1, states, LANES), np.float32)
    decay = np.empty((SEGMENT, states, LANES), np.float32)
    rates = np.empty((states, LANES), np.float32)
    carry = np.empty((states, LANES), np.float32)
    inflow = np.empty(LANES, np.float32)
    dstep = np.empty(LANES, np.float32)
    for n in range(states):
        for w in range(_LANES):
            rates[n, w] = A[n, first + w]
    for item in range(items):
        carry[:] = 0
        for segment in range(kept.shape[1] - 1, -1, -1):
            begin = segment * SEGMENT
            steps = min(SEGMENT, length - begin)
            for n in range(states):
                for w in range(_LANES):
                    h[0, n, w] = kept[item, segment, n, first + w]
            for i in range(steps):
                t = length - 1 - begin - i if reverse else begin + i
                for n in range(states):
                    b = B[item, t, n]
                    for w in range(_LANES):
                        step = delta[item, t, first + w]
                        a = _exp(step * rates[n, w])
                        decay[i, n, w] = a
                        h[i + 1, n, w] = a * h[i, n, w] + step * u[item, t, first + w] * b
            for i in range(steps - 1, -1, -1):
                t = length - 1 - begin - i if reverse else begin + i
                inflow[:] = 0
                dstep[:] = 0
                for n in range(states):
                    b, c = B[item, t, n], C[item, t, n]
                    sum_b = np.float32(0)
                    sum_c = np.float32(0)
                    for w in range(_LANES):
                        step, out = delta[item, t, first + w], dy[item, t, first + w]
                        g = out * c + carry[n, w]
                        back = g * decay[i, n, w]
                        dlog = back * h[i, n, w]
                        carry[n, w] = back
                        sum_c += out * h[i + 1, n, w]
                        sum_b += g * step * u[item, t, first + w]
                        inflow[w] += g * b
                        dstep[w] += dlog * rates[n, w]
                        dA[n, w] += dlog * step
                    dB[item, t, n] = sum_b
                    dC[item, t, n] = sum_c
                for w in range(_LANES):
                    du[item, t, first + w] = inflow[w] * delta[item, t, first + w]
                    ddelta[item, t, first + w] = inflow[w] * u[item, t, first + w] + dstep[w]


def selective_scan_compiled(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: bool = False
) -> Tensor:
    """Compute what `selective_scan_reference` computes, for float32 on a CPU.

    Arguments and results are those of the reference, but ``B`` and ``C`` must be shared by all
    channels, (batch, length, 1, state).
    """
    y: Tensor = _Scan.apply(  # type: ignore[no-untyped-call]
        *(x.float() for x in (u, delta, A)), B.squeeze(2).float(), C.squeeze(2).float(), reverse
    )
    return y


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool
    ) -> Tensor:
        ctx.channel, ctx.reverse = u.shape[2], reverse
        u, delta, rates = _widen(u), _widen(delta), _widen(A.t())
        B, C = B.contiguous(), C.contiguous()
        y = torch.empty_like(u)
        batch, length, width = u.shape
        kept = u.new_empty(batch, -(-length // SEGMENT), *rates.shape)

        def run(job: int, first: int, items: slice) -> None:
            _forward(  # type: ignore[call-arg]
                *_numpy(u[items], delta[items], rates, B[items], C[items]),
                reverse,
                np.uint64(first),
                *_numpy(y[items], kept[items]),
            )

        _share(run, _jobs(width, batch))
        ctx.save_for_backward(u, delta, rates, B, C, kept)
        return y[..., : ctx.channel]

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, rates, B, C, kept = ctx.saved_tensors
        dy = _widen(dy)
        du, ddelta = torch.empty_like(u), torch.empty_like(delta)
        batch, _, width = u.shape
        jobs = _jobs(width, batch)
        dA = u.new_zeros(len(jobs), rates.shape[0], LANES)
        dB = u.new_empty(width // LANES, *B.shape)
        dC = torch.empty_like(dB)

        def run(job: int, first: int, items: slice) -> None:
            part = (first // LANES, items)
            _backward(  # type: ignore[call-arg]
                *_numpy(u[items], delta[items], rates, B[items], C[items]),
                ctx.reverse,
                np.uint64(first),
                *_numpy(dy[items], kept[items], du[items], ddelta[items]),
                *_numpy(dA[job], dB[part], dC[part]),
            )

        _share(run, jobs)
        # Jobs are in the order of their channels.
        dA = dA.unflatten(0, (width // LANES, -1)).sum(1).transpose(0, 1).flatten(1)  # (N, D)
        shown = slice(ctx.channel)
        return (
            du[..., shown],
            ddelta[..., shown],
            dA[:, shown].t(),
            dB.sum(0),
            dC.sum(0),
            None,
        )


def _widen(x: Tensor) -> Tensor:
    """Make (..., channel) contiguous, padded with zeros to a multiple of the lanes."""
    missing = -x.shape[-1] % LANES
    return F.pad(x, (0, missing)).contiguous() if missing else x.contiguous()  # a pad by 0 copies


def _numpy(*tensors: Tensor) -> list[Any]:
    return [x.detach().numpy() for x in tensors]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="scan")


def _jobs(width: int, batch: int) -> list[tuple[int, slice]]:
    """Divide the work: first channel and batch items of each job, equally for all channels."""
    pieces = min(batch, torch.get_num_threads())
    edges = [batch * k // pieces for k in range(pieces + 1)]
    return [
        (first, slice(start, stop))
        for first in range(0, width, LANES)
        for start, stop in pairwise(edges)
    ]


def _share(run: Callable[[int, int, slice], None], jobs: list[tuple[int, slice]]) -> None:
    """Run all jobs on as many threads as torch uses."""
    threads = torch.get_num_threads()
    calls = [(job, *where) for job, where in enumerate(jobs)]
    if threads == 1 or len(jobs) == 1:
        for call in calls:
            run(*call)
    else:
        for _ in _pool(threads).map(run, *zip(*calls, strict=True)):
            pass
