"""Compare the speed of the implementations of the selective scan.

    python benchmarks/scan.py

On the CPU it times the recurrence alone: one thread, processor time, the best of interleaved runs,
16,384 tokens of 64 channels with 16 states. On a CUDA device it times the whole operator in half
precision, with 57,600 tokens of 384 channels: the median by CUDA events, and the memory bandwidth
(u, delta, z, B and C read, y written) compared with that of a copy.
"""

import os
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.ops.dispatch import usable_kernels
from vsrm_cli.ops.selective_scan import selective_scan

Run = Callable[[], object]


def main() -> None:
    """Measure and print."""
    console = Console()
    console.print(_on_cpu())
    if torch.cuda.is_available():
        console.print(_on_gpu(torch.device("cuda")))


def _inputs(
    length: int, channel: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Inputs of a scan in a Mamba block, token-major."""
    torch.manual_seed(0)
    state = 16

    def draw(*shape: int) -> Tensor:
        return torch.randn(1, length, *shape, device=device).to(dtype)

    return {
        "u": draw(channel),
        "delta": draw(channel),
        "A": -torch.rand(channel, state, device=device) * state,
        "B": draw(state),
        "C": draw(state),
        "D": torch.ones(channel, device=device),
        "z": draw(channel),
        "delta_bias": torch.full((channel,), -4.0, device=device),
    }


def _forward(kernel: str, inputs: dict[str, Tensor]) -> Run:
    def run() -> None:
        os.environ["VSRM_KERNELS"] = kernel
        with torch.no_grad():
            selective_scan(**inputs, delta_softplus="z" in inputs, token_major=True)

    return run


def _both(kernel: str, inputs: dict[str, Tensor]) -> Run:
    leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}

    def run() -> None:
        os.environ["VSRM_KERNELS"] = kernel
        y = selective_scan(**leaves, delta_softplus="z" in inputs, token_major=True)
        torch.autograd.grad(y, list(leaves.values()), torch.ones_like(y))

    return run


def _on_cpu() -> Table:
    torch.set_num_threads(1)
    device = torch.device("cpu")
    kernels = [kernel.name for kernel in usable_kernels(device) if kernel.is_usable]
    inputs = _inputs(16_384, 64, device, torch.float32)
    inputs = {name: inputs[name] for name in ("u", "delta", "A", "B", "C")}
    inputs["delta"] = F.softplus(inputs["delta"])
    forward = _processor_ms({kernel: _forward(kernel, inputs) for kernel in kernels}, rounds=7)
    both = _processor_ms({kernel: _both(kernel, inputs) for kernel in kernels}, rounds=3)
    table = Table("CPU, one thread", "forward", "", "and backward", "")
    for kernel in kernels:
        table.add_row(
            kernel,
            f"{forward[kernel]:.1f} ms",
            f"x{forward['reference'] / forward[kernel]:.1f}",
            f"{both[kernel]:.1f} ms",
            f"x{both['reference'] / both[kernel]:.1f}",
        )
    return table


def _processor_ms(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """The lowest processor time of each; interleaved, so that other load affects all of them."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.process_time()
            run()
            found[name].append(time.process_time() - begin)
    return {name: 1000 * min(times) for name, times in found.items()}


def _on_gpu(device: torch.device) -> Table:
    usable = [kernel.name for kernel in usable_kernels(device) if kernel.is_usable]
    inputs = _inputs(57_600, 384, device, torch.float16)
    moved = sum(inputs[name].nbytes for name in ("u", "delta", "z", "B", "C", "u"))
    source, target = torch.empty(2, 1 << 28, dtype=torch.uint8, device=device)
    copied_ms = _event_ms(lambda: target.copy_(source))
    table = Table(
        torch.cuda.get_device_name(device), "forward", "GB/s", "of a copy", "and backward"
    )
    for kernel in usable:
        if kernel == "reference":
            continue  # it would take minutes
        forward = _event_ms(_forward(kernel, inputs))
        share = (moved / forward) / (2 * source.nbytes / copied_ms)
        table.add_row(
            kernel,
            f"{forward:.3f} ms",
            f"{moved / forward / 1e6:.0f}",
            f"{share:.0%}",
            f"{_event_ms(_both(kernel, inputs)):.3f} ms",
        )
    return table


def _event_ms(run: Run, rounds: int = 20) -> float:
    """The median time on the device, after a warm-up."""
    times = []
    for index in range(rounds + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        if index >= 3:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


if __name__ == "__main__":
    main()
