"""The job of `vsrm doctor`: check this machine, and whether results are correct.

Small inputs are computed and compared with the reference: each implementation of the scan on each
device, the bundled weights in each precision, encoding and decoding. Missing optional parts are
reported, but are not errors.
"""

import enum
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.checkpoints.loading import load_model
from vsrm_cli.encode.encoders import hardware_decoders, hardware_encoders, measure_coding_error
from vsrm_cli.errors import VsrmError
from vsrm_cli.inference.memory import free_memory_bytes
from vsrm_cli.ops.causal_conv import causal_conv
from vsrm_cli.ops.depthwise_conv import depthwise_conv
from vsrm_cli.ops.dispatch import force_kernel, usable_kernels
from vsrm_cli.ops.selective_scan import selective_scan
from vsrm_cli.ops.warp import sample_tokens
from vsrm_cli.upscale.distributed.cluster import Cluster, check_versions
from vsrm_cli.upscale.distributed.ray_driver import find_versions

PACKAGES = ("vsrm", "torch", "av", "numpy", "numba", "triton", "mamba-ssm", "huggingface-hub")
# Difference of two float32 scans of 1,000 tokens with another order of sums.
SCAN_ERROR = 1e-4
# Below this PSNR (dB), a difference may be visible.
LEAST_PSNR = {"fp32": 80.0, "fp16": 50.0, "bf16": 40.0}
CODECS = ("h264", "hevc", "av1", "ffv1")
# Levels of 255, on a smooth gradient at the default quality.
CODING_ERROR = 3.0
# Enough for a short video and its segments.
LEAST_DISK_BYTES = 1 << 30


class CheckStatus(enum.StrEnum):
    """The status of a check."""

    GOOD = "good"
    ABSENT = "absent"
    BROKEN = "broken"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        topic: Group of the check.
        name: What was checked.
        state: Whether it works, is absent, or is broken.
        detail: The version, the error, or the reason.
    """

    topic: str
    name: str
    state: CheckStatus
    detail: str


def run_checks() -> Iterator[CheckResult]:
    """Run all checks.

    Yields:
        The result of each check, as soon as it is known.
    """
    yield from _versions()
    for device in list_devices():
        yield from _device(device)
        yield from _kernels(device)
        yield from _fused(device)
        yield from _networks(device)
    yield from _codecs()
    yield _disk(Path.cwd())


def run_cluster_checks(address: str) -> Iterator[CheckResult]:
    """Check the nodes of a Ray cluster; see `vsrm_cli.upscale.distributed.cluster`.

    Yields:
        A result for each node: broken if it is not compatible with this machine.

    Raises:
        VsrmError: If Ray is not installed, or the cluster cannot be reached.
    """
    with Cluster(address) as cluster:
        mine = find_versions()()
        for node in cluster.nodes:
            model = f" ({node.gpu_model})" if node.gpu_model else ""
            versions = ", ".join(f"{name} {number}" for name, number in node.versions.items())
            detail = f"{node.cpus} CPUs, {node.gpus} GPUs{model}, {versions or 'no answer'}"
            try:
                check_versions(node.versions, mine, "It")
                yield CheckResult(str(cluster), node.name, CheckStatus.GOOD, detail)
            except VsrmError as error:
                yield CheckResult(str(cluster), node.name, CheckStatus.BROKEN, f"{detail}. {error}")
        if not cluster.nodes:
            yield CheckResult(str(cluster), "nodes", CheckStatus.BROKEN, "none lends CPUs or GPUs")


def list_devices() -> list[torch.device]:
    """All devices on which a network can run, the CPU first."""
    found = [torch.device("cpu")]
    found += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append(torch.device("mps"))
    found += [torch.device("xpu", index) for index in range(torch.xpu.device_count())]
    return found


def _versions() -> Iterator[CheckResult]:
    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield CheckResult("versions", "python", CheckStatus.GOOD, system)
    for package in PACKAGES:
        try:
            yield CheckResult("versions", package, CheckStatus.GOOD, version(package))
        except PackageNotFoundError:
            yield CheckResult(
                "versions", package, CheckStatus.ABSENT, "not installed; it is optional"
            )


def _device(device: torch.device) -> Iterator[CheckResult]:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about = f"{properties.name}, compute capability {properties.major}.{properties.minor}, "
    elif device.type == "cpu":
        about = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, "
    elif device.type == "xpu":
        about = f"{torch.xpu.get_device_name(device)}, vsrm was never tested on one, "
    else:
        about = ""
    free = free_memory_bytes(device) / 2**30
    yield CheckResult("devices", str(device), CheckStatus.GOOD, f"{about}{free:.1f} GiB free")


def _kernels(device: torch.device) -> Iterator[CheckResult]:
    """Each implementation of the scan against the reference on the CPU."""
    expected = _scan("reference", torch.device("cpu"))
    for kernel in usable_kernels(device):
        topic = f"scan on {device}"
        if not kernel.is_usable:
            yield CheckResult(topic, kernel.name, CheckStatus.ABSENT, kernel.reason)
            continue
        error = (_scan(kernel.name, device) - expected).abs().max().item()
        state = CheckStatus.GOOD if error <= SCAN_ERROR else CheckStatus.BROKEN
        yield CheckResult(topic, kernel.name, state, f"largest error {error:.1e}")


def _fused(device: torch.device) -> Iterator[CheckResult]:
    """The fused kernels, where they are used, against PyTorch."""
    if not any(kernel.name == "triton" and kernel.is_usable for kernel in usable_kernels(device)):
        return
    kernels = {"convolution": _convolve, "clip convolution": _convolve_clip, "gather": _gather}
    for name, compute in kernels.items():
        with force_kernel("reference"):
            expected = compute(torch.device("cpu"))
        with force_kernel("triton"):
            error = (compute(device) - expected).abs().max().item()
        state = CheckStatus.GOOD if error <= SCAN_ERROR else CheckStatus.BROKEN
        yield CheckResult(f"fused kernels on {device}", name, state, f"largest error {error:.1e}")


def _convolve(device: torch.device) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    sizes = ((1, 300, 40), (40, 1, 4), (40,))
    inputs = [torch.randn(*size, generator=rng).to(device) for size in sizes]
    return causal_conv(*inputs, reverse=True).cpu()


def _convolve_clip(device: torch.device) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    sizes = ((1, 3, 9, 11, 40), (40, 1, 3, 3, 3), (40,))
    return depthwise_conv(*(torch.randn(*size, generator=rng).to(device) for size in sizes)).cpu()


def _gather(device: torch.device) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    image = torch.randn(1, 40, 9, 11, generator=rng)
    points = 12 * torch.rand(1, 4, 2, 9, 11, generator=rng) - 1
    return sample_tokens(image.to(device), points.to(device)).cpu()


def _scan(kernel: str, device: torch.device) -> Tensor:
    rng = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng).to(device)

    with force_kernel(kernel):
        y = selective_scan(
            draw(1, 1000, 32),
            draw(1, 1000, 32),
            -draw(32, 8).exp(),
            draw(1, 1000, 8),
            draw(1, 1000, 8),
            D=draw(32),
            z=draw(1, 1000, 32),
            delta_bias=draw(32) - 2,
            delta_softplus=True,
            token_major=True,
        )
    return y.float().cpu()


def _networks(device: torch.device) -> Iterator[CheckResult]:
    """Each bundled network, in each precision, against float32 on the CPU."""
    clip = torch.rand(1, 3, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    for name in (name for name, entry in MODELS.items() if entry.file is not None):
        try:
            expected = _restore(name, torch.device("cpu"), "fp32", clip)
            for dtype, least in LEAST_PSNR.items():
                error = (_restore(name, device, dtype, clip) - expected).square().mean()
                psnr = -10 * torch.log10(error.clamp_min(1e-12)).item()
                state = CheckStatus.GOOD if psnr >= least else CheckStatus.BROKEN
                detail = f"{psnr:.0f} dB from float32"
                yield CheckResult(f"networks on {device}", f"{name} {dtype}", state, detail)
        except VsrmError as error:
            yield CheckResult(f"networks on {device}", name, CheckStatus.BROKEN, str(error))


def _restore(name: str, device: torch.device, dtype: str, clip: Tensor) -> Tensor:
    network = load_model(name, device=str(device), dtype=dtype)
    # By default PyTorch computes float32 convolutions in TF32, which would look like an error.
    exactly = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.inference_mode(), exactly:
        restored: Tensor = network(clip.to(network.device, network.clip_dtype))
    return restored.float().clamp(0, 1).cpu()


def _codecs() -> Iterator[CheckResult]:
    for codec in CODECS:
        try:
            error = measure_coding_error(codec)
        except VsrmError as failure:
            yield CheckResult("codecs", codec, CheckStatus.BROKEN, str(failure))
        else:
            state = CheckStatus.GOOD if error <= CODING_ERROR else CheckStatus.BROKEN
            detail = f"frames decode, error {error:.1f} of 255 levels"
            yield CheckResult("codecs", codec, state, detail)
    for encoder in hardware_encoders():
        state = CheckStatus.GOOD if encoder.is_usable else CheckStatus.ABSENT
        detail = "can be opened" if encoder.is_usable else f"no {encoder.maker} driver for it here"
        yield CheckResult("hardware encoders", encoder.name, state, detail)
    for name in hardware_decoders():
        detail = "supported by FFmpeg; --hwaccel auto tries it on each video"
        yield CheckResult("hardware decoders", name, CheckStatus.ABSENT, detail)


def _disk(folder: Path) -> CheckResult:
    free = shutil.disk_usage(folder).free
    state = CheckStatus.GOOD if free >= LEAST_DISK_BYTES else CheckStatus.BROKEN
    return CheckResult("disk", str(folder), state, f"{free / 2**30:.1f} GiB free")
