"""Fused GPU kernels agree with plain PyTorch; here they run in Triton's interpreter."""

import pytest
import torch
from torch.nn import functional

from vsrm_cli.ops import causal_conv as conv
from vsrm_cli.ops import depthwise_conv as clip_conv
from vsrm_cli.ops import dispatch as selective_scan_choice
from vsrm_cli.ops import warp
from vsrm_cli.ops.causal_conv import causal_conv
from vsrm_cli.ops.depthwise_conv import depthwise_conv
from vsrm_cli.ops.warp import pixel_grid, sample_tokens

pytest.importorskip("triton")

# The interpreter runs float32 as the plain code does; half results are rounded once, the plain
# ones several times on their way.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.fixture
def run_fused(monkeypatch):
    """Call a function so that it takes its fused kernel, without gradients."""

    def run(function, *inputs, **options):
        with monkeypatch.context() as patch, torch.no_grad():
            if torch.cuda.is_available():
                inputs = [x.cuda() for x in inputs]
            else:
                patch.setenv("TRITON_INTERPRET", "1")
            patch.setenv("VSRM_KERNELS", "triton")
            return function(*inputs, **options).cpu()

    return run


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_near(found, expected):
    assert found.dtype == expected.dtype
    scale = expected.abs().max().item()
    atol = TOLERANCE[expected.dtype] * scale
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "backward"])
# A single token; fewer than taps; ends of programs and beyond, in tokens and in channels.
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (1, 32, 64), (2, 33, 65), (1, 70, 96)])
def test_the_fused_convolution_equals_pytorch(shape, reverse, run_fused):
    u, weight, bias = draw(*shape), draw(shape[2], 1, 4, seed=1), draw(shape[2], seed=2)

    y = run_fused(causal_conv, u, weight, bias, reverse=reverse)

    assert_near(y, causal_conv(u, weight, bias, reverse=reverse))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_convolution_in_half_precision_is_rounded_once(dtype, run_fused):
    u, weight, bias = draw(2, 20, 7).to(dtype), draw(7, 1, 3).to(dtype), draw(7).to(dtype)

    y = run_fused(causal_conv, u, weight, bias)

    exact = causal_conv(u.float(), weight.float(), bias.float())
    torch.testing.assert_close(y, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_tokens_of_the_convolution_may_be_a_view(run_fused):
    wide = draw(2, 9, 12)
    weight, bias = draw(6, 1, 2, seed=1), draw(6, seed=2)

    y = run_fused(causal_conv, wide[:, :, 6:], weight, bias)

    assert_near(y, causal_conv(wide[:, :, 6:].contiguous(), weight, bias))


def test_a_convolution_by_hand():
    # 1 * 2 + 3 * 1 = 5 and 1 * 3 + 3 * 2 = 9; the first token has nothing before it.
    tokens, weight = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[[1.0, 2.0]]])

    y = causal_conv(tokens, weight, torch.ones(1))

    sums = torch.tensor([1 + 2 * 1, 1 + 2 * 2 + 1, 1 + 2 * 3 + 2.0])
    torch.testing.assert_close(y[0, :, 0], functional.silu(sums))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
# One pixel; sides of one; several frames, clips and programs, in pixels and in channels.
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1, 1), (1, 3, 1, 5, 2), (2, 1, 4, 3, 3), (2, 3, 3, 5, 70), (1, 5, 2, 4, 8)]
)
def test_the_convolution_of_a_clip_is_the_plain_one(shape, dtype, run_fused):
    channels = shape[-1]
    x, bias = draw(*shape, dtype=dtype), draw(channels, seed=2, dtype=dtype)
    weight = draw(channels, 1, 3, 3, 3, seed=1, dtype=dtype)

    y = run_fused(depthwise_conv, x, weight, bias)

    exact = depthwise_conv(x.float(), weight.float(), bias.float())
    torch.testing.assert_close(y, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_the_clip_of_a_convolution_may_be_a_view(run_fused):
    wide, weight, bias = draw(2, 3, 4, 3, 6), draw(3, 1, 3, 3, 3, seed=1), draw(3, seed=2)
    x = wide.transpose(2, 3)[..., 3:]

    assert_near(run_fused(depthwise_conv, x, weight, bias), depthwise_conv(x, weight, bias))


def places(batch, count, height, width, *, reach):
    """Points around each pixel, some of them far outside."""
    offsets = reach * draw(batch, count, 2, height, width, seed=3)
    return pixel_grid(height, width) + offsets


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5), (1, 70, 5, 9), (1, 8, 1, 7)])
def test_fused_sampling_equals_pytorch(shape, dtype, run_fused):
    batch, _, height, width = shape
    picture, points = draw(*shape, dtype=dtype), places(batch, 4, height, width, reach=3.0)

    tokens = run_fused(sample_tokens, picture, points)

    assert_near(tokens, sample_tokens(picture, points))


def test_points_may_be_sampled_from_a_channels_last_image(run_fused):
    picture = draw(2, 6, 4, 5).contiguous(memory_format=torch.channels_last)
    points = places(2, 2, 4, 5, reach=1.0)

    assert_near(run_fused(sample_tokens, picture, points), sample_tokens(picture, points))


def test_nan_points_do_not_read_out_of_bounds(run_fused):
    picture = torch.ones(1, 3, 4, 4)
    points = torch.full((1, 2, 2, 4, 4), float("nan"))
    points[:, 1] = float("inf")

    assert torch.equal(run_fused(sample_tokens, picture, points), torch.ones(16, 2, 3))


@pytest.mark.parametrize("module", [conv, clip_conv, warp])
def test_with_gradients_pytorch_is_used(module, monkeypatch):
    monkeypatch.setattr(selective_scan_choice, "choose_kernel", lambda *_, **__: "triton")
    leaf = torch.ones(1, 2, 3, requires_grad=True)

    assert not module.uses_fused_kernels(leaf)
    with torch.no_grad():
        assert module.uses_fused_kernels(leaf)


@pytest.mark.parametrize("forced", ["reference", "chunked", "auto"])
def test_on_a_cpu_and_with_another_forced_scan_nothing_is_fused(forced, monkeypatch):
    monkeypatch.setenv("VSRM_KERNELS", forced)

    assert not selective_scan_choice.uses_fused_kernels(torch.ones(1))
