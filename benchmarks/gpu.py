"""Hold the GPU's code against the plain code, then measure everything that is owed to a GPU.

    python benchmarks/gpu.py --out FOLDER

One call of less than four minutes on one CUDA device. It needs PyTorch with Triton, and nothing of
this project but the checkout; PyAV only for the way from file to file. FOLDER receives
``gpu.json`` and ``gpu.md``, complete after each row that takes long, so that a call that is cut off
leaves what it found. What raises is noted, and the rest goes on. Exit code 1 tells that something
computed there is not what it should be: then no figure below it is worth anything. ``--rehearse``
does all of it in small on the CPU; ``--parts`` does some of it.
"""

import argparse
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, where it is not installed

from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.checkpoints.loading import DTYPES, FAMILIES, load_model
from vsrm_cli.inference.cuda_graphs import record_on_cuda
from vsrm_cli.models.network import Network
from vsrm_cli.ops.causal_conv import causal_conv
from vsrm_cli.ops.dispatch import usable_kernels
from vsrm_cli.ops.selective_scan import selective_scan
from vsrm_cli.ops.warp import pixel_grid, sample_tokens

# Two float32 computations in another order; half results are rounded once or twice.
LARGEST_ERROR = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 4e-2}
LEAST_PSNR = {"fp32": 80.0, "fp16": 50.0, "bf16": 40.0}
# PyTorch computes convolutions of float32 in TF32 unless told not to; that has float16's digits.
LEAST_PSNR_IN_TF32 = 50.0
# The goals of the issue, at 320 x 180 in fp16, in milliseconds per frame.
GOALS_MS = {"vsrm": 40.0, "gsm": 25.0, "vsrm-t": 4.0}
SHIPPED = ("vsrm-t", "vsrm-t-real", "vsrm-t-sharp", "vsrm-t-x2")
# These have no weights here: their values have no meaning, but they run the scan.
UNTRAINED = ("vsrm", "gsm")


@dataclass
class Part:
    """One table of the report.

    Attributes:
        title: What it tells.
        headers: Of its columns.
        rows: Values, in words or numbers.
        is_right: Whether everything in it is as it should be.
        seconds: How long it took.
        errors: The last lines of what was raised in it.
    """

    title: str
    headers: tuple[str, ...]
    rows: list[tuple[object, ...]] = field(default_factory=list)
    is_right: bool = True
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Go on after an error, and note it: it must not hide what else there is to know."""
        try:
            yield
        except Exception:
            self.is_right = False
            self.errors.append("\n".join(traceback.format_exc().strip().splitlines()[-6:]))


@dataclass(frozen=True)
class Bench:
    """Where and how large to measure.

    Attributes:
        device: The device.
        is_rehearsal: Whether everything is small, and the device a CPU.
        deadline: Until when to begin another row, by `time.perf_counter`.
        keep: Called with a part that is not complete yet, so that nothing of it is lost.
    """

    device: torch.device
    is_rehearsal: bool
    deadline: float
    keep: Callable[[Part], None]

    def size(self, real: int, small: int) -> int:
        """A size of the work."""
        return small if self.is_rehearsal else real

    def is_over(self, part: Part) -> bool:
        """Whether no more rows may be begun; the part's title says so then."""
        if time.perf_counter() <= self.deadline:
            return False
        part.title += "; the time was up"
        return True

    def milliseconds(self, run: Callable[[], object], *, seconds: float = 0.7) -> float:
        """The median time of a computation, after a few times that warm up.

        What is short is done again and again before the clock is read: else the start of a kernel
        would be timed, and not the kernel.
        """
        run()
        once = self._time(run, 1)
        if self.is_rehearsal or once > 2000:
            return once
        repeats = max(1, round(20 / once))
        times: list[float] = []
        while len(times) < 3 or (len(times) < 20 and repeats * sum(times) < 1000 * seconds):
            times.append(self._time(run, repeats))
        return statistics.median(times)

    def _time(self, run: Callable[[], object], repeats: int) -> float:
        self.wait()
        began = time.perf_counter()
        for _ in range(repeats):
            run()
        self.wait()
        return 1000 * (time.perf_counter() - began) / repeats

    def wait(self) -> None:
        """Wait until the device has done all that was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@contextmanager
def kernels(name: str) -> Iterator[None]:
    """Force one implementation of the scan, and what goes with it."""
    before = os.environ.get("VSRM_KERNELS", "auto")
    os.environ["VSRM_KERNELS"] = name
    try:
        yield
    finally:
        os.environ["VSRM_KERNELS"] = before


def scan_inputs(length: int, channels: int, device: torch.device) -> dict[str, Tensor]:
    """What a Mamba block gives to its scan, tokens first, float32; the same on each device."""
    rng = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng).to(device)

    return {
        "u": draw(1, length, channels),
        "delta": draw(1, length, channels),
        "A": -16 * torch.rand(channels, 16, generator=rng).to(device),
        "B": draw(1, length, 16),
        "C": draw(1, length, 16),
        "D": draw(channels),
        "z": draw(1, length, channels),
        "delta_bias": draw(channels) - 4,
        "add": draw(1, length, channels),
    }


def in_type(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The same with everything that varies over the tokens in another type."""
    return {name: x.to(dtype) if x.dim() == 3 else x for name, x in inputs.items()}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over that of what was expected, both in double precision."""
    expected = expected.double().cpu()
    return float((found.double().cpu() - expected).norm() / expected.norm())


def scans_are_right(bench: Bench) -> Part:
    """Each implementation, outputs and gradients, against the reference on the CPU."""
    part = Part("The scan against the reference", ("kernel", "type", "tokens", "way", "error"))
    names = [k.name for k in usable_kernels(bench.device) if k.is_usable and k.name != "reference"]
    # Many chunks with a rest, and a single token; each type and direction is compiled anew.
    for length, reverse in product((bench.size(2049, 64), 1), (False, True)):
        if bench.is_over(part):
            break
        exact = scan_inputs(length, 96, torch.device("cpu"))
        expected, slopes = _with_gradients("reference", exact, reverse=reverse)
        way = "backward" if reverse else "onward"
        for name, dtype in product(names, ("fp32", "fp16", "bf16")):
            with part.noting():
                inputs = in_type(scan_inputs(length, 96, bench.device), DTYPES[dtype])
                y, found = _with_gradients(name, inputs, reverse=reverse)
                error = max(map(relative_error, [y, *found], [expected, *slopes]))
                part.rows.append((name, dtype, length, way, f"{error:.1e}"))
                part.is_right &= error <= LARGEST_ERROR[dtype]
        bench.keep(part)
    return part


def _with_gradients(
    name: str, inputs: dict[str, Tensor], *, reverse: bool
) -> tuple[Tensor, list[Tensor]]:
    leaves = {key: x.clone().requires_grad_() for key, x in inputs.items()}
    with kernels(name):
        y = selective_scan(**leaves, delta_softplus=True, reverse=reverse, token_major=True)
        return y.detach(), list(torch.autograd.grad(y.float().sum(), list(leaves.values())))


def fused_kernels_are_right(bench: Bench) -> Part:
    """Convolution and gather against the plain code on the CPU."""
    part = Part("Fused kernels against the plain code", ("kernel", "type", "error"))
    rng = torch.Generator().manual_seed(1)
    u, picture = torch.randn(2, 777, 96, generator=rng), torch.randn(2, 96, 19, 31, generator=rng)
    weight, bias = torch.randn(96, 1, 4, generator=rng), torch.randn(96, generator=rng)
    points = pixel_grid(19, 31) + 4 * torch.randn(2, 4, 2, 19, 31, generator=rng)
    for dtype in ("fp32", "fp16", "bf16"):
        half = DTYPES[dtype]
        moved = [x.to(bench.device, half) for x in (u, weight, bias)]
        errors = {
            f"convolution {way}": relative_error(
                causal_conv(*moved, reverse=way == "backward"),
                causal_conv(u, weight, bias, reverse=way == "backward"),
            )
            for way in ("onward", "backward")
        }
        errors["gather"] = relative_error(
            sample_tokens(picture.to(bench.device, half), points.to(bench.device)),
            sample_tokens(picture, points),
        )
        for name, error in errors.items():
            part.rows.append((name, dtype, f"{error:.1e}"))
            part.is_right &= error <= LARGEST_ERROR[dtype]
    return part


def networks_are_right(bench: Bench) -> Part:
    """The networks in each precision against float32 on the CPU; batches and graphs."""
    part = Part("Networks against float32 on the CPU", ("network", "what", "PSNR, dB"))
    sizes = (2, bench.size(4, 2), 3, bench.size(40, 9), bench.size(56, 12))
    clips = torch.rand(sizes, generator=torch.Generator().manual_seed(2))
    for name in SHIPPED + UNTRAINED:
        if bench.is_over(part):
            break
        with torch.inference_mode():
            expected = build(name, torch.device("cpu"), "fp32")(clips)
        for dtype in LEAST_PSNR:
            with part.noting():
                network = build(name, bench.device, dtype)
                given = clips.to(bench.device, network.dtype)
                for what, restored in _ways(network, given, bench):
                    error = (restored.float().cpu() - expected).square().mean().clamp_min(1e-12)
                    psnr = -10 * torch.log10(error).item()
                    part.rows.append((name, f"{dtype}, {what}", f"{psnr:.1f}"))
                    part.is_right &= psnr >= _least_psnr(bench, dtype, what)
        bench.keep(part)
    return part


def _least_psnr(bench: Bench, dtype: str, what: str) -> float:
    is_exact = bench.device.type == "cpu" or what == "without TF32"
    return LEAST_PSNR[dtype] if is_exact else min(LEAST_PSNR[dtype], LEAST_PSNR_IN_TF32)


@torch.inference_mode()
def _ways(network: Network, clips: Tensor, bench: Bench) -> Iterator[tuple[str, Tensor]]:
    yield "in one batch", network(clips)
    yield "one by one", torch.cat([network(clip[None]) for clip in clips])
    with kernels("chunked"):
        yield "without Triton", network(clips)
    if bench.device.type == "cuda":
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield "without TF32", network(clips)
        yield "as a CUDA graph", record_on_cuda(network, clips)(clips)


def operators(bench: Bench) -> Part:
    """The scan and the fused kernels in fp16, beside a copy of as many bytes."""
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
    picture = torch.randn(1, 120, height, width, device=bench.device, dtype=torch.float16)
    moves_by = torch.randn(1, 4, 2, height, width, device=bench.device)
    points = pixel_grid(height, width, device=bench.device) + moves_by
    weight, bias = torch.randn(channels, 1, 4), torch.randn(channels)
    conv = [x.to(bench.device, torch.float16) for x in (weight, bias)]
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
        ("gather, 120 channels", 9 * picture.nbytes, lambda: sample_tokens(picture, points)),
    ]
    with torch.inference_mode():
        for (what, moves, run), name in product(work, names):
            if name == "mamba_ssm" and not what.startswith("scan"):
                continue
            if bench.is_over(part):
                break
            with part.noting():
                with kernels(name):
                    ms = bench.milliseconds(run)
                rate = moves / ms / 1e6
                part.rows.append((what, name, f"{ms:.3f}", f"{rate:.0f}", f"{rate / copy:.0%}"))
    return part


def build(name: str, device: torch.device, dtype: str) -> Network:
    """A network of the catalog; without weights here, one with values of no meaning."""
    entry = MODELS[name]
    if entry.file is not None:
        return load_model(name, device=str(device), dtype=dtype)
    torch.manual_seed(0)
    network: Network = FAMILIES[entry.network].network(entry.config)
    network.eval().requires_grad_(False).to(device)
    network.set_precision(DTYPES[dtype])
    return network


def networks(bench: Bench) -> Part:
    """Milliseconds per frame of 320 x 180, computed, replayed and in batches; peak memory."""
    headers = ("network", "type", "batch", "ms/frame", "as a graph", "GiB", "goal, ms")
    part = Part("Networks, windows of 16 frames of 320 x 180", headers)
    # What there is a goal for comes first: the time may not be enough for all.
    names = ("vsrm-t", "vsrm", "gsm", "vsrm-t-real", "vsrm-t-sharp", "vsrm-t-x2", "vsrm-ablation")
    kinds = (("fp16", 1), ("fp16", 2), ("fp16", 4), ("bf16", 1), ("fp32", 1))
    work = product(kinds, names) if not bench.is_rehearsal else product(kinds[:2], names[:1])
    for (dtype, batch), name in work:
        if bench.is_over(part):
            break
        with part.noting():
            network = build(name, bench.device, dtype)
            shape = (batch, bench.size(16, 2), 3, bench.size(180, 9), bench.size(320, 12))
            clip = torch.rand(shape, device=bench.device).to(network.dtype)
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
    try:
        replay = record_on_cuda(network, clip)
        replayed = f"{bench.milliseconds(lambda: replay(clip)) / frames:.2f}"
    except RuntimeError as error:  # also for want of room
        replayed = str(error).splitlines()[0][:60]
    return f"{plain:.2f}", replayed, f"{peak:.2f}"


def hot_spots(bench: Bench) -> Part:
    """Where the time goes: the kernels that take most of a window."""
    part = Part("Where the time goes, fp16", ("network", "kernel", "calls", "ms", "share"))
    for name in ("vsrm-t", "vsrm", "gsm")[: bench.size(3, 1)]:
        if bench.is_over(part):
            break
        with part.noting():
            part.rows += _hot_spots_of(name, bench)
        bench.keep(part)
    return part


def _hot_spots_of(name: str, bench: Bench) -> list[tuple[object, ...]]:
    on_gpu = bench.device.type == "cuda"
    activity = torch.profiler.ProfilerActivity
    network = build(name, bench.device, "fp32" if bench.is_rehearsal else "fp16")
    shape = (1, bench.size(4, 2), 3, bench.size(180, 9), bench.size(320, 12))
    clip = torch.rand(shape, device=bench.device).to(network.dtype)
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
    """The whole way, if PyAV is here: how near it comes to the speed of the network alone."""
    headers = ("asked", "decoder", "encoder", "frames", "fps", "decode", "network", "encode")
    part = Part("From file to file, vsrm-t, frames of 192 x 108", headers)
    if find_spec("av") is None:
        part.title += ": not measured, PyAV is not installed"
        return part
    import tempfile

    from vsrm_cli.upscale.job import upscale_video

    sample = Path(__file__).parents[1] / "tests" / "data" / "sample.mp4"
    # The first call also compiles and loads. Hardware that is not there is replaced by software.
    ways: dict[str, dict[str, object]] = {
        "first call": {},
        "again": {},
        "hardware decoder": {"hwaccel": "auto"},
        "hardware for both": {"codec": "h264_nvenc", "hwaccel": "auto"},
    }
    for way, given in ways.items():
        if bench.is_over(part):
            break
        with part.noting(), tempfile.TemporaryDirectory() as folder:
            progress: list[object] = []
            summary = upscale_video(
                sample,
                Path(folder) / "large.mp4",
                device=str(bench.device),
                end="0.2" if bench.is_rehearsal else None,
                report=progress.append,
                **given,
            )
            names = ("decode_fps", "network_fps", "encode_fps")
            rates = [f"{getattr(progress[-1], name):.1f}" for name in names]
            means = (summary.decoder, summary.encoder, summary.frames_out)
            part.rows.append((way, *means, f"{summary.fps:.1f}", *rates))
        bench.keep(part)
    return part


# Each with the seconds after which it begins no further row.
CHECKS = {scans_are_right: 40, fused_kernels_are_right: 10, networks_are_right: 40}
FIGURES = {networks: 55, operators: 15, from_file_to_file: 30, hot_spots: 30}


def main(arguments: list[str] | None = None) -> int:
    """Check, measure and write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--minutes", type=float, default=3.4, help="begin nothing after so many")
    parts_of = {"checks": CHECKS, "figures": FIGURES, "all": CHECKS | FIGURES}
    parser.add_argument("--parts", choices=parts_of, default="all")
    options = parser.parse_args(arguments)
    if not options.rehearse and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --rehearse does it in small on the CPU")
    options.out.mkdir(parents=True, exist_ok=True)
    parts: list[Part] = []
    bench = Bench(
        device=torch.device("cpu" if options.rehearse else "cuda"),
        is_rehearsal=options.rehearse,
        deadline=time.perf_counter() + 60 * options.minutes,
        keep=lambda part: write(options.out, bench, [*parts, part]),
    )
    for work, seconds in parts_of[options.parts].items():
        started = time.perf_counter()
        part = Part(work.__name__, ())
        if started > bench.deadline:
            part.title += ": left out, the time was up"
        else:
            with part.noting():
                part = work(replace(bench, deadline=min(bench.deadline, started + seconds)))
        part.seconds = round(time.perf_counter() - started, 1)
        parts.append(part)
        write(options.out, bench, parts)
    sys.stdout.write((options.out / "gpu.md").read_text(encoding="utf-8"))
    return 0 if all(part.is_right for part in parts) else 1


def write(folder: Path, bench: Bench, parts: list[Part]) -> None:
    """Write what is known so far as JSON and as Markdown."""
    device = "CPU (a rehearsal: no figure here means anything)"
    if not bench.is_rehearsal:
        device = torch.cuda.get_device_name(bench.device)
    machine = {"device": device, "torch": torch.__version__, "cuda": torch.version.cuda}
    facts = {**machine, "parts": [asdict(part) for part in parts]}
    (folder / "gpu.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    lines = [f"# {device}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}", ""]
    for part in parts:
        validation = "" if part.is_right else " **WRONG**"
        lines += [f"## {part.title}{validation} ({part.seconds:.0f} s)", ""]
        if part.rows:
            rows = (part.headers, ("---",) * len(part.headers), *part.rows)
            lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
            lines.append("")
        for error in part.errors:
            lines += ["```", error, "```", ""]
    (folder / "gpu.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
