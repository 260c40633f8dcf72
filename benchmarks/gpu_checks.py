"""Compare every CUDA code path with plain code on the CPU; `gpu.py` runs this."""

from collections.abc import Iterator
from itertools import product

import torch
from gpu_parts import SHIPPED, UNTRAINED, Bench, Part, build, in_type, kernels, scan_inputs
from torch import Tensor

from vsrm_cli.checkpoints.loading import DTYPES
from vsrm_cli.inference.cuda_graphs import record_on_cuda
from vsrm_cli.models.network import Network
from vsrm_cli.ops.causal_conv import causal_conv
from vsrm_cli.ops.depthwise_conv import depthwise_conv
from vsrm_cli.ops.dispatch import usable_kernels
from vsrm_cli.ops.selective_scan import selective_scan
from vsrm_cli.ops.warp import pixel_grid, sample_tokens

# Float32 differs by the order of the operations; half precision rounds results once or twice.
LARGEST_ERROR = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 4e-2}
LEAST_PSNR = {"fp32": 80.0, "fp16": 50.0, "bf16": 40.0}
# By default, PyTorch computes float32 convolutions in TF32, which is as precise as float16.
LEAST_PSNR_IN_TF32 = 50.0


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference, divided by that of the expected tensor, in double precision."""
    expected = expected.double().cpu()
    return float((found.double().cpu() - expected).norm() / expected.norm())


def scans_are_right(bench: Bench) -> Part:
    """Compare outputs and gradients of each implementation with the reference on the CPU."""
    part = Part("The scan against the reference", ("kernel", "type", "tokens", "way", "error"))
    names = [k.name for k in usable_kernels(bench.device) if k.is_usable and k.name != "reference"]
    # Many chunks with a remainder, and a single token.
    for length, reverse in product((bench.size(2049, 64), 1), (False, True)):
        if bench.is_over(part):
            break
        exact = scan_inputs(length, 96, torch.device("cpu"))
        expected, expected_gradients = _with_gradients("reference", exact, reverse=reverse)
        way = "backward" if reverse else "onward"
        for name, dtype in product(names, ("fp32", "fp16", "bf16")):
            with part.record_errors():
                inputs = in_type(scan_inputs(length, 96, bench.device), DTYPES[dtype])
                y, gradients = _with_gradients(name, inputs, reverse=reverse)
                error = max(map(relative_error, [y, *gradients], [expected, *expected_gradients]))
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
    """Compare convolutions and gather with plain code on the CPU."""
    part = Part("Fused kernels against the plain code", ("kernel", "type", "error"))
    rng = torch.Generator().manual_seed(1)
    u, image = torch.randn(2, 777, 96, generator=rng), torch.randn(2, 96, 19, 31, generator=rng)
    weight, bias = torch.randn(96, 1, 4, generator=rng), torch.randn(96, generator=rng)
    points = pixel_grid(19, 31) + 4 * torch.randn(2, 4, 2, 19, 31, generator=rng)
    clip, taps = torch.randn(2, 3, 19, 31, 96, generator=rng), torch.randn(96, 1, 3, 3, 3)
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
            sample_tokens(image.to(bench.device, half), points.to(bench.device)),
            sample_tokens(image, points),
        )
        errors["convolution of a clip"] = relative_error(
            depthwise_conv(*(x.to(bench.device, half) for x in (clip, taps, bias))),
            depthwise_conv(clip, taps, bias),
        )
        for name, error in errors.items():
            part.rows.append((name, dtype, f"{error:.1e}"))
            part.is_right &= error <= LARGEST_ERROR[dtype]
    return part


def networks_are_right(bench: Bench) -> Part:
    """Compare the networks, in each precision and as CUDA graphs, with float32 on the CPU."""
    part = Part("Networks against float32 on the CPU", ("network", "what", "PSNR, dB"))
    sizes = (2, bench.size(4, 2), 3, bench.size(40, 9), bench.size(56, 12))
    clips = torch.rand(sizes, generator=torch.Generator().manual_seed(2))
    for name in SHIPPED + UNTRAINED:
        if bench.is_over(part):
            break
        with part.record_errors():
            with torch.inference_mode():
                expected = build(name, torch.device("cpu"), "fp32")(clips)
            for dtype in LEAST_PSNR:
                with part.record_errors():
                    _compare(part, bench, name, dtype, clips, expected)
        bench.keep(part)
    return part


def _compare(
    part: Part, bench: Bench, name: str, dtype: str, clips: Tensor, expected: Tensor
) -> None:
    network = build(name, bench.device, dtype)
    on_device = clips.to(bench.device, network.clip_dtype)
    for what, restored in _results(network, on_device, bench):
        error = (restored.float().cpu() - expected).square().mean().clamp_min(1e-12)
        psnr = -10 * torch.log10(error).item()
        part.rows.append((name, f"{dtype}, {what}", f"{psnr:.1f}"))
        part.is_right &= psnr >= _least_psnr(bench, dtype, what)


def _least_psnr(bench: Bench, dtype: str, what: str) -> float:
    is_exact = bench.device.type == "cpu" or what == "without TF32"
    return LEAST_PSNR[dtype] if is_exact else min(LEAST_PSNR[dtype], LEAST_PSNR_IN_TF32)


@torch.inference_mode()
def _results(network: Network, clips: Tensor, bench: Bench) -> Iterator[tuple[str, Tensor]]:
    yield "in one batch", network(clips)
    yield "one by one", torch.cat([network(clip[None]) for clip in clips])
    with kernels("chunked"):
        yield "without Triton", network(clips)
    if bench.device.type == "cuda":
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield "without TF32", network(clips)
        yield "as a CUDA graph", record_on_cuda(network, clips)(clips)
