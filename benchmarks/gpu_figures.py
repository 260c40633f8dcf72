"""Time operators, networks and whole jobs on a GPU; `gpu.py` runs this."""

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import torch
from gpu_parts import SHIPPED, UNTRAINED, Bench, Part, build, in_type, kernels, scan_inputs
from torch import Tensor

from vsrm_cli.inference.cuda_graphs import record_on_cuda
from vsrm_cli.models.network import Network
from vsrm_cli.ops.causal_conv import causal_conv
from vsrm_cli.ops.depthwise_conv import depthwise_conv
from vsrm_cli.ops.dispatch import usable_kernels
from vsrm_cli.ops.selective_scan import selective_scan
from vsrm_cli.ops.warp import pixel_grid, sample_tokens

# The goals at 320 x 180 in fp16, in milliseconds per frame.
GOALS_MS = {"vsrm": 40.0, "gsm": 25.0, "vsrm-t": 4.0}


def operators(bench: Bench) -> Part:
    """Time the scan and the fused kernels in fp16, and compare their bandwidth with a copy."""
    headers = ("what", "kernel", "ms", "GB/s", "of a copy")
    part = Part("Operators in fp16, forward", headers)
    length, channels = bench.size(57_600, 256), 384
    source = torch.empty(bench.size(1 << 30, 1 << 20), dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / bench.milliseconds(lambda: target.copy_(source)) / 1e6
    part.rows.append(("copy", "", "", f"{copy:.0f}", ""))
    inputs = in_type(scan_inputs(length, channels, bench.device), torch.float16)
    del inputs["add"]
    moved = sum(inputs[name].nbytes for name in ("u", "delta", "z", "B", "C", "u"))
    height, width = bench.size(180, 9), bench.size(320, 12)
    image = torch.randn(1, 120, height, width, device=bench.device, dtype=torch.float16)
    moves_by = torch.randn(1, 4, 2, height, width, device=bench.device)
    points = pixel_grid(height, width, device=bench.device) + moves_by
    weight, bias = torch.randn(channels, 1, 4), torch.randn(channels)
    conv = [x.to(bench.device, torch.float16) for x in (weight, bias)]
    clip = torch.randn(1, 3, height, width, 200, device=bench.device, dtype=torch.float16)
    taps, shifts = torch.randn(200, 1, 3, 3, 3).to(clip), torch.randn(200).to(clip)
    names = [k.name for k in usable_kernels(bench.device) if k.is_usable and k.name != "reference"]
    work: list[tuple[str, int, Callable[[], Tensor]]] = [
        (
            f"scan ({length}, {channels}), 16 states",
            moved,
            lambda: selective_scan(**inputs, delta_softplus=True, token_major=True),
        ),
        (
            "convolution, same tokens",
            2 * inputs["u"].nbytes,
            lambda: causal_conv(inputs["u"], *conv),
        ),
        ("gather, 120 channels", 9 * image.nbytes, lambda: sample_tokens(image, points)),
        (
            "convolution of a clip, 200 channels",
            2 * clip.nbytes,
            lambda: depthwise_conv(clip, taps, shifts),
        ),
    ]
    with torch.inference_mode():
        for (what, moves, run), name in product(work, names):
            if name == "mamba_ssm" and not what.startswith("scan"):
                continue
            if bench.is_over(part):
                break
            with part.record_errors():
                with kernels(name):
                    ms = bench.milliseconds(run)
                rate = moves / ms / 1e6
                part.rows.append((what, name, f"{ms:.3f}", f"{rate:.0f}", f"{rate / copy:.0%}"))
    return part


def compact_networks(bench: Bench) -> Part:
    """Time a frame of 320 x 180, as a CUDA graph and in batches too, with peak memory."""
    return _networks(bench, "Compact networks", SHIPPED)


def large_networks(bench: Bench) -> Part:
    """Time the networks that take seconds for a window; they come last, so they delay no others."""
    return _networks(bench, "Large networks", (*UNTRAINED, "vsrm-ablation"))


def _networks(bench: Bench, what: str, names: tuple[str, ...]) -> Part:
    headers = ("network", "type", "batch", "ms/frame", "as a graph", "GiB", "goal, ms")
    part = Part(f"{what}, windows of 16 frames of 320 x 180", headers)
    kinds = (("fp16", 1), ("fp16", 2), ("fp16", 4), ("bf16", 1), ("fp32", 1))
    work = product(kinds, names) if not bench.is_rehearsal else product(kinds[:1], names[:1])
    for (dtype, batch), name in work:
        if bench.is_over(part):
            break
        with part.record_errors():
            network = build(name, bench.device, dtype)
            shape = (batch, bench.size(16, 2), 3, bench.size(180, 9), bench.size(320, 12))
            clip = torch.rand(shape, device=bench.device).to(network.clip_dtype)
            goal = GOALS_MS.get(name, "") if (dtype, batch) == ("fp16", 1) else ""
            part.rows.append((name, dtype, batch, *_time_network(bench, network, clip), goal))
        bench.keep(part)
    return part


@torch.inference_mode()
def _time_network(bench: Bench, network: Network, clip: Tensor) -> tuple[str, str, str]:
    frames = clip.shape[0] * clip.shape[1]
    if bench.device.type != "cuda":
        return f"{bench.milliseconds(lambda: network(clip)) / frames:.2f}", "", ""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(bench.device)
    try:
        plain = bench.milliseconds(lambda: network(clip)) / frames
    except torch.OutOfMemoryError:
        return "no room", "", ""
    peak = torch.cuda.max_memory_allocated(bench.device) / 2**30
    if plain * frames > 2000:  # launching its kernels, which a graph saves, takes much less
        return f"{plain:.2f}", "", f"{peak:.2f}"
    try:
        replay = record_on_cuda(network, clip)
        replayed = f"{bench.milliseconds(lambda: replay(clip)) / frames:.2f}"
    except RuntimeError as error:  # also when memory runs out
        replayed = str(error).splitlines()[0][:60]
    return f"{plain:.2f}", replayed, f"{peak:.2f}"


def hot_spots(bench: Bench) -> Part:
    """Profile a window: the kernels that take most of the time."""
    part = Part("Where the time goes, fp16", ("network", "kernel", "calls", "ms", "share"))
    for name in ("vsrm-t", "vsrm", "gsm")[: bench.size(3, 1)]:
        if bench.is_over(part):
            break
        with part.record_errors():
            part.rows += _hot_spots_of(name, bench)
        bench.keep(part)
    return part


def _hot_spots_of(name: str, bench: Bench) -> list[tuple[object, ...]]:
    on_gpu = bench.device.type == "cuda"
    activity = torch.profiler.ProfilerActivity
    network = build(name, bench.device, "fp32" if bench.is_rehearsal else "fp16")
    shape = (1, bench.size(4, 2), 3, bench.size(180, 9), bench.size(320, 12))
    clip = torch.rand(shape, device=bench.device).to(network.clip_dtype)
    with torch.inference_mode():
        network(clip)
        bench.wait()
        activities = [activity.CUDA if on_gpu else activity.CPU]
        with torch.profiler.profile(activities=activities) as profile:
            network(clip)
            bench.wait()
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda e: getattr(e, key), reverse=True)
    total = sum(getattr(event, key) for event in events) or 1
    spent = ((event, getattr(event, key)) for event in events[:12])
    return [(name, e.key[:60], e.count, f"{us / 1000:.2f}", f"{us / total:.0%}") for e, us in spent]


def from_file_to_file(bench: Bench) -> Part:
    """Upscale a whole file, if PyAV is installed: how close this is to the network alone."""
    headers = ("asked", "decoder", "encoder", "frames", "fps", "decode", "network", "encode")
    part = Part("From file to file, vsrm-t, frames of 192 x 108", headers)
    if find_spec("av") is None:
        part.title += ": not measured, PyAV is not installed"
        return part
    from vsrm_cli.upscale.job import upscale_video

    sample = Path(__file__).parents[1] / "tests" / "data" / "sample.mp4"
    # The first call also compiles and loads. Missing hardware is replaced by software.
    runs: dict[str, dict[str, object]] = {
        "first call": {},
        "again": {},
        "hardware decoder": {"hwaccel": "auto"},
        "hardware for both": {"codec": "h264_nvenc", "hwaccel": "auto"},
    }
    for name, options in runs.items():
        if bench.is_over(part):
            break
        with part.record_errors(), tempfile.TemporaryDirectory() as folder:
            progress: list[object] = []
            summary = upscale_video(
                sample,
                Path(folder) / "large.mp4",
                device=str(bench.device),
                end="0.2" if bench.is_rehearsal else None,
                report=progress.append,
                **options,
            )
            stages = ("decode_fps", "network_fps", "encode_fps")
            rates = [f"{getattr(progress[-1], stage):.1f}" for stage in stages]
            facts = (summary.decoder, summary.encoder, summary.frames_out)
            part.rows.append((name, *facts, f"{summary.fps:.1f}", *rates))
        bench.keep(part)
    return part
