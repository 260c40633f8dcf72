"""Speed of the implementations of the selective scan."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vsrm_cli.bench.speed import time_runs
from vsrm_cli.errors import VsrmError
from vsrm_cli.ops.dispatch import ScanKernel, force_kernel, usable_kernels
from vsrm_cli.ops.selective_scan import selective_scan

# Channels and states of the scans of vsrm-t and of the published network.
WIDTHS = ((16, 4), (240, 8))
SHORT, LONG = 4096, 3 * 320 * 180  # the second is three frames of 180p


@dataclass(frozen=True)
class KernelSpeed:
    """Speed of one implementation of the selective scan.

    Attributes:
        kernel: Its name, as in ``VSRM_KERNELS``.
        channels: Number of channels.
        state: States of each.
        length: Steps.
        ms: Median over the runs; None if there is a problem.
        times_reference: Speedup over the reference, if that was timed.
        largest_difference: From the output of the reference, likewise.
        problem: Why it was not measured.
    """

    kernel: str
    channels: int
    state: int
    length: int
    ms: float | None
    times_reference: float | None
    largest_difference: float | None
    problem: str | None


def measure_kernels(
    device: torch.device, *, is_quick: bool, report: Callable[[str], None]
) -> list[KernelSpeed]:
    """Time the implementations of the selective scan against each other.

    Args:
        device: Where.
        is_quick: Whether to skip the long scans.
        report: Called with what is being measured.
    """
    lengths = (SHORT,) if is_quick else (SHORT, LONG)
    rows = []
    for channels, state in WIDTHS:
        for length in lengths:
            report(f"timing scans of {channels} channels, {state} states and {length} steps")
            inputs = _scan_inputs(channels, state, length, device)
            rows += _measure_scan(inputs, device)
    return rows


def _scan_inputs(channels: int, state: int, length: int, device: torch.device) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng).to(device)

    return {
        "u": draw(1, length, channels),  # token-major, as in the networks
        "delta": draw(1, length, channels),
        "A": -draw(channels, state).exp(),
        "B": draw(1, length, state),
        "C": draw(1, length, state),
        "D": draw(channels),
    }


def _measure_scan(inputs: dict[str, Tensor], device: torch.device) -> list[KernelSpeed]:
    _, length, channels = inputs["u"].shape
    rows: list[KernelSpeed] = []
    reference_ms, expected = None, None
    # The reference first: the others are compared with it.
    for kernel in sorted(usable_kernels(device), key=lambda kernel: kernel.name != "reference"):
        ms, y, problem = _try_kernel(kernel, inputs, device)
        if kernel.name == "reference":
            reference_ms, expected = ms, y
        rows.append(
            KernelSpeed(
                kernel=kernel.name,
                channels=channels,
                state=inputs["A"].shape[1],
                length=length,
                ms=ms,
                times_reference=reference_ms / ms if reference_ms and ms else None,
                largest_difference=_difference(y, expected),
                problem=problem,
            )
        )
    return rows


def _difference(y: Tensor | None, expected: Tensor | None) -> float | None:
    return None if y is None or expected is None else float((y - expected).abs().max())


def _try_kernel(
    kernel: ScanKernel, inputs: dict[str, Tensor], device: torch.device
) -> tuple[float | None, Tensor | None, str | None]:
    """Median milliseconds and output of one implementation, or why there are none."""
    if not kernel.is_usable:
        return None, None, kernel.reason
    if kernel.name == "reference" and inputs["u"].shape[1] > SHORT:
        return None, None, "skipped: it takes minutes"
    scan = partial(selective_scan, **inputs, delta_softplus=True, token_major=True)  # type: ignore[arg-type]
    try:
        with force_kernel(kernel.name), torch.inference_mode():
            y = scan()
            times = time_runs(scan, device)
        return statistics.median(times), y, None
    except VsrmError as error:  # it does not support this input
        return None, None, str(error)
