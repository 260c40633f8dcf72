"""The GPU's kernels, run on the CPU by Triton's interpreter: the numbers, not the speed.

The interpreter takes milliseconds for each token, so shapes are small, and so are the pieces into
which the kernels cut their work; `test_selective_scan.py` runs them whole where there is a GPU.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scans import (
    assert_near,
    gradients,
    in_float32,
    in_type,
    scan_inputs,
    tokens_first,
    with_all_options,
)

pytest.importorskip("triton")

from vsrm_cli.ops.selective_scan import triton_gpu as kernels

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU")

# Batch, channels, states, length; chunks have eight tokens here and programs eight channels. A
# single step; less than a tile; the end of a chunk, and one step after it; several of everything.
SHAPES = [(1, 1, 1, 1), (2, 3, 3, 3), (1, 8, 2, 8), (1, 4, 5, 9), (1, 9, 2, 5), (2, 3, 2, 18)]
SHAPE_NAMES = "B{0[0]}-C{0[1]}-N{0[2]}-T{0[3]}".format


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    for name, size in {"CHUNK": 8, "TILE": 4, "GROUP": 2, "BLOCK": 8}.items():
        monkeypatch.setattr(kernels, name, size)


def assert_agrees(run_with, inputs, **options):
    expected, slopes = gradients(lambda x: run_with("reference", x, **options), inputs)
    y, found = gradients(lambda x: run_with("triton", x, **options), inputs)

    assert_near(y, expected)
    for name, slope in slopes.items():
        assert_near(found[name], slope)


@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "backward"])
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_NAMES)
def test_values_and_gradients_agree_with_the_reference(shape, reverse, run_with):
    inputs = tokens_first(with_all_options(scan_inputs(*shape)))

    assert_agrees(run_with, inputs, reverse=reverse, token_major=True)


@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "backward"])
def test_states_are_carried_over_many_chunks(reverse, run_with, monkeypatch):
    for name, size in {"CHUNK": 2, "TILE": 2, "GROUP": 1}.items():
        monkeypatch.setattr(kernels, name, size)
    inputs = scan_inputs(1, 2, 2, 17)
    inputs["delta"] *= 0.1  # the first token is still felt at the end

    assert_agrees(run_with, inputs, reverse=reverse)


@pytest.mark.parametrize("left_out", ["D", "z", "add", "delta_bias", "delta_softplus"])
def test_each_option_may_be_left_out(left_out, run_with):
    inputs = with_all_options(scan_inputs(1, 3, 2, 10))
    del inputs[left_out]
    if left_out == "delta_softplus":
        inputs["delta"] = inputs["delta"].exp()
        inputs["delta_bias"] = inputs["delta_bias"].abs()

    assert_agrees(run_with, inputs)


def test_all_optional_arguments_may_be_omitted(run_with):
    inputs = scan_inputs(1, 3, 2, 10, form="one group")
    del inputs["D"]

    assert_agrees(run_with, inputs)


def test_the_result_has_the_memory_layout_of_the_input(run_with):
    inputs = scan_inputs(2, 3, 2, 5)
    first = tokens_first(inputs)

    y = run_with("triton", inputs)
    turned = run_with("triton", first, token_major=True)

    assert y.stride() == inputs["u"].stride()
    assert turned.stride() == first["u"].stride()
    torch.testing.assert_close(turned.transpose(1, 2), y, rtol=0, atol=0)


def test_tokens_may_be_views_with_gaps_and_repetitions(run_with):
    inputs = tokens_first(scan_inputs(1, 4, 2, 9))
    wide = torch.randn(1, 9, 10, generator=torch.Generator().manual_seed(1))
    inputs.update(u=inputs["u"][:, :1].expand(1, 9, 4), B=wide[..., 3:5], C=wide[..., 5:9:2])

    assert_agrees(run_with, inputs, token_major=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once_at_the_end(dtype, run_with):
    inputs = in_type(with_all_options(scan_inputs(1, 4, 3, 12)), dtype)

    expected, slopes = gradients(lambda x: run_with("reference", x), in_float32(inputs))
    y, found = gradients(lambda x: run_with("triton", x), inputs)

    assert_near(y, expected.to(dtype))
    for name, slope in slopes.items():
        assert found[name].dtype == inputs[name].dtype
        # The weights of the sum are rounded as well.
        assert_near(found[name].to(dtype), slope.to(dtype))


def test_the_softplus_keeps_its_digits_where_steps_are_tiny(run_with):
    raw = torch.tensor([-80.0, -30.0, -17.0, -9.0, -3.0, -0.1, 0.0, 0.1, 3.0, 30.0])
    ones = torch.ones(1, 1, 10)
    inputs = {
        "u": ones,
        "delta": raw[None, None],
        "A": torch.tensor([[-1e30]]),  # forgets all, so that each output is one step
        "B": ones,
        "C": ones,
        "delta_softplus": True,
    }

    y = run_with("triton", inputs)[0, 0].double()

    expected = torch.log1p(raw.double().exp())
    # float32 resolves 6e-8, and so much of the exponent is an error of exp as well.
    assert ((y - expected).abs() <= 6e-8 * (4 + raw.abs()) * expected).all()


def test_huge_steps_clear_the_state_with_finite_gradients(run_with):
    inputs = scan_inputs(1, 3, 2, 12)
    inputs["delta"][:, :, ::3] = 1e4
    inputs["delta"][:, :, 1::3] = 1e30

    assert_agrees(run_with, inputs)


def test_no_tensor_of_tokens_times_channels_times_states_is_made(run_with, monkeypatch):
    monkeypatch.setattr(kernels, "TILE", 8)
    batch, channel, state, length = 1, 8, 16, 16
    inputs = tokens_first(with_all_options(scan_inputs(batch, channel, state, length)))
    kept = []
    pack = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x)

    with pack, LargestTensor() as made:
        leaves = {
            name: x.requires_grad_() if isinstance(x, torch.Tensor) else x
            for name, x in inputs.items()
        }
        run_with("triton", leaves, token_major=True).sum().backward()

    tokens = batch * length * channel
    assert max(x.numel() for x in kept) <= tokens * state / 8
    assert made.numel <= tokens * state / 8


class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Sees every tensor that is made, and remembers the size of the largest."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.untyped_storage().nbytes() // 4)
        return result


@pytest.mark.slow
def test_the_kernels_compile_for_gpus_without_one():
    script = Path(__file__).with_name("compile_kernels.py")

    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    forward = ["run_states", "carry", "write_outputs"]
    backward = ["run_states", "run_states", "carry", "run_states", "write_gradients"]
    assert run.stdout.split() == [*2 * (forward + backward), "convolve", "gather"]
