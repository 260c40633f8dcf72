"""Speed of networks alone, on random frames in memory, which cost the same as real ones.

Decoding and encoding are measured by `end_to_end`.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from vsrm_cli.bench.flops import count_flops
from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.checkpoints.loading import DTYPES, FAMILIES, fastest_dtype, load_model
from vsrm_cli.errors import UsageError, VsrmError
from vsrm_cli.inference.memory import (
    PeakMemory,
    free_cache,
    free_memory_bytes,
    is_memory_shortage,
)
from vsrm_cli.inference.tiling import MEMORY_SHARE_PERCENT, MIN_TILE, TILE_STEP
from vsrm_cli.models.network import Network
from vsrm_cli.upscale.devices import DTYPE_NAMES

SIZES = {
    "180p": (320, 180),
    "270p": (480, 270),
    "360p": (640, 360),
    "480p": (854, 480),
    "540p": (960, 540),
}

# Timed runs after the warm-up run: more if they are short, fewer if they take too long.
USUAL_RUNS, MOST_RUNS = 3, 20
SECONDS_OF_RUNS, SECONDS_OF_PATIENCE = 5.0, 20.0

LARGEST_TILE = 4096


@dataclass(frozen=True)
class NetworkSpeed:
    """Speed of a network for frames of one size.

    Attributes:
        model: Its name.
        dtype: fp32, fp16 or bf16.
        size: A name of `SIZES`.
        width: Of the LR frames, in pixels.
        height: Of the LR frames, in pixels.
        frames: Frames per window.
        runs: Number of timed runs.
        ms_per_frame: Median over the runs; None, like all that follow, if there is a problem.
        ms_lowest: Of the fastest run.
        ms_highest: Of the slowest run.
        fps: Frames per second at the median.
        peak_memory_bytes: On CUDA, peak memory of the tensors; elsewhere, of the process, where the
            system reports it.
        parameters: Number of weights.
        macs_per_frame: Multiply-adds: half of the FLOPs.
        largest_tile: Side in pixels of the largest square tile that fits into free memory by the
            network's estimate; None if not even the smallest does.
        problem: Why it was not measured.
    """

    model: str
    dtype: str
    size: str
    width: int
    height: int
    frames: int
    runs: int
    ms_per_frame: float | None
    ms_lowest: float | None
    ms_highest: float | None
    fps: float | None
    peak_memory_bytes: int | None
    parameters: int
    macs_per_frame: int
    largest_tile: int | None
    problem: str | None


def choose_device(*, gpu: bool | None) -> torch.device:
    """Choose the device.

    Args:
        gpu: True for CUDA, False for the CPU, None for the best device.

    Raises:
        VsrmError: If there is no CUDA device for ``gpu``.
    """
    has_cuda = torch.cuda.is_available()
    if gpu and not has_cuda:
        raise VsrmError("There is no CUDA device here that --gpu could measure; try --cpu.")
    return torch.device("cuda" if has_cuda and gpu is not False else "cpu")


def measure_speed(
    models: Sequence[str],
    *,
    dtypes: Sequence[str],
    sizes: Sequence[str],
    device: torch.device,
    window: int,
    report: Callable[[str], None],
) -> list[NetworkSpeed]:
    """Time networks.

    Args:
        models: Names, or weight files.
        dtypes: "auto", "fp32", "fp16" or "bf16".
        sizes: Names of `SIZES`.
        device: Where.
        window: Frames per window.
        report: Called with what is being measured.

    Raises:
        UsageError: If a size or a dtype does not exist.
        VsrmError: If a network cannot be loaded.
    """
    for size in sizes:
        if size not in SIZES:
            raise UsageError(f'The size must be one of {", ".join(SIZES)}, not "{size}".')
    for dtype in dtypes:
        if dtype not in ("auto", *DTYPES):
            raise UsageError(f'The dtype must be auto, {", ".join(DTYPES)}, not "{dtype}".')
    rows = []
    for model in models:
        for dtype in dtypes:
            network = _load_or_build(model, device=device, dtype=dtype)
            for size in sizes:
                name = DTYPE_NAMES[network.dtype]
                report(f"timing {network.name} in {name} on {window} frames of {size}")
                rows.append(_measure_size(network, size, window=window))
    return rows


def _load_or_build(model: str, *, device: torch.device, dtype: str) -> Network:
    """Load a network, with random weights if there are none: it is as fast with them."""
    entry = MODELS.get(model)
    if entry is None or entry.file is not None or entry.remote is not None:
        return load_model(model, device=str(device), dtype=dtype)
    network: Network = FAMILIES[entry.network].network(entry.config)
    network.eval().requires_grad_(False).to(device)
    network.set_precision(DTYPES[fastest_dtype(device) if dtype == "auto" else dtype])
    network.name = f"{model} (untrained)"
    return network


def _measure_size(network: Network, size: str, *, window: int) -> NetworkSpeed:
    width, height = SIZES[size]
    device, dtype = network.device, network.dtype
    times, peak, problem = _try_size(network, (1, window, 3, height, width))
    median = statistics.median(times) / window if times else None
    return NetworkSpeed(
        model=network.name,
        dtype=DTYPE_NAMES[dtype],
        size=size,
        width=width,
        height=height,
        frames=window,
        runs=len(times),
        ms_per_frame=median,
        ms_lowest=min(times) / window if times else None,
        ms_highest=max(times) / window if times else None,
        fps=1000 / median if median else None,
        peak_memory_bytes=peak,
        parameters=sum(weight.numel() for weight in network.parameters()),
        macs_per_frame=count_flops(network, (1, window, 3, height, width)) // 2 // window,
        largest_tile=find_largest_tile(
            network, window=window, free_bytes=free_memory_bytes(device)
        ),
        problem=problem,
    )


def _try_size(
    network: Network, shape: tuple[int, ...]
) -> tuple[list[float], int | None, str | None]:
    """Milliseconds of each run and the peak memory, or the problem."""
    device = network.device
    needed, free = network.memory_bytes(shape[1], shape[3], shape[4]), free_memory_bytes(device)
    shortage = f"not enough memory: needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free"
    # On a CPU the estimate decides: it would swap, or the system would kill the process.
    if device.type == "cpu" and needed > free:
        return [], None, shortage
    try:
        with torch.inference_mode():
            clip = torch.rand(shape, device=device).to(network.clip_dtype)
            memory = PeakMemory(device)
            times = time_runs(lambda: network(clip), device)
            return times, memory.read_bytes(), None
    except RuntimeError as error:
        if not is_memory_shortage(error):
            raise
    free_cache(device)  # outside the handler, whose traceback held the tensors
    return [], None, shortage


def time_runs(run: Callable[[], object], device: torch.device) -> list[float]:
    """Time a computation repeatedly after a warm-up run.

    Returns:
        Milliseconds of each run; on CUDA by CUDA events.
    """
    run()
    times: list[float] = []
    while _has_time_for_another(len(times), sum(times) / 1000):
        times.append(_time_on_cuda(run) if device.type == "cuda" else _time_here(run))
    return times


def _has_time_for_another(runs: int, seconds: float) -> bool:
    if runs == 0:
        return True
    patience = SECONDS_OF_PATIENCE if runs < USUAL_RUNS else SECONDS_OF_RUNS
    return runs < MOST_RUNS and seconds < patience


def _time_on_cuda(run: Callable[[], object]) -> float:
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    run()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended))


def _time_here(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - began)


def find_largest_tile(network: Network, *, window: int, free_bytes: int) -> int | None:
    """The side of the largest square tile that fits, in pixels; None if none does."""
    budget = free_bytes * MEMORY_SHARE_PERCENT // 100
    sides = range(LARGEST_TILE, MIN_TILE - 1, -TILE_STEP)
    return next((s for s in sides if network.memory_bytes(window, s, s) <= budget), None)
