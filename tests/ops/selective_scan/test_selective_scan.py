"""The operator and its reference give one answer, gradients included; only their speed differs."""

import time

import pytest
import torch
from scans import FORMS, assert_near, gradients, scan_inputs, tokens_first, with_all_options
from torch.nn import functional

from vsrm_cli.ops import selective_scan as door
from vsrm_cli.ops.selective_scan import chunked, selective_scan
from vsrm_cli.ops.selective_scan.chunked import selective_scan_chunked
from vsrm_cli.ops.selective_scan.reference import selective_scan_reference

# Batch, channels, states, length. A single step; lengths beside and on the compiled loop's
# segments of 64; channels that do not fill its sixteen lanes; many short sequences.
SHAPES = [
    (1, 1, 1, 1),
    (2, 8, 16, 63),
    (1, 16, 4, 64),
    (2, 17, 3, 129),
    (1, 48, 16, 500),
    (70, 17, 3, 4),
]
SHAPE_NAMES = "B{0[0]}-C{0[1]}-N{0[2]}-T{0[3]}".format

FAST = ["chunked", "compiled"]

# The same tests serve a machine with a GPU.
ON_GPU = [
    pytest.param(f"{kernel} on cuda", marks=pytest.mark.gpu)
    for kernel in ("chunked", "triton", "mamba_ssm")
]


def one_number(value):
    return torch.tensor([[[value]]])


@pytest.mark.parametrize("kernel", ["reference", *FAST])
def test_one_step_by_hand(kernel, run_with):
    # h = 0.5 * 3 * 2 = 3, so y = 4 * 3 + 10 * 2 = 32
    inputs = {
        "u": one_number(2.0),
        "delta": one_number(0.5),
        "A": torch.tensor([[-1.0]]),
        "B": one_number(3.0),
        "C": one_number(4.0),
        "D": torch.tensor([10.0]),
    }

    y = run_with(kernel, inputs)

    assert y.item() == 32.0


@pytest.mark.parametrize("kernel", ["reference", *FAST])
def test_two_steps_by_hand(kernel, run_with):
    # h = 1 * 3 * 2 = 6, then exp(-ln 2 * 1) * 6 + ln 2 * 1 * 5; here ln 2 is the second step.
    ln2 = torch.tensor(2.0).log().item()
    inputs = {
        "u": torch.tensor([[[2.0, 5.0]]]),
        "delta": torch.tensor([[[1.0, ln2]]]),
        "A": torch.tensor([[-1.0]]),
        "B": torch.tensor([[[3.0, 1.0]]]),
        "C": torch.tensor([[[1.0, 10.0]]]),
    }

    y = run_with(kernel, inputs)

    torch.testing.assert_close(y, torch.tensor([[[6.0, 10 * (3 + 5 * ln2)]]]))


def test_gate_addition_bias_and_softplus_by_hand(run_with):
    # softplus(1 - 1) = ln 2, h = ln 2 * 3 * 2, y = (4 h + 10 * 2 + 7) * silu(0.5)
    ln2 = torch.tensor(2.0).log().item()
    inputs = {
        "u": one_number(2.0),
        "delta": one_number(1.0),
        "A": torch.tensor([[-1.0]]),
        "B": one_number(3.0),
        "C": one_number(4.0),
        "D": torch.tensor([10.0]),
        "z": one_number(0.5),
        "add": one_number(7.0),
        "delta_bias": torch.tensor([-1.0]),
    }

    y = run_with("reference", inputs, delta_softplus=True)

    gate = 0.5 / (1 + 2.718281828459045**-0.5)
    assert y.item() == pytest.approx((24 * ln2 + 20 + 7) * gate, rel=1e-6)


@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "backward"])
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_NAMES)
@pytest.mark.parametrize("kernel", [*FAST, *ON_GPU])
def test_values_and_gradients_agree_with_the_reference(kernel, shape, reverse, run_with):
    inputs = scan_inputs(*shape)

    expected, slopes = gradients(
        lambda x, **options: run_with("reference", x, **options), inputs, reverse=reverse
    )
    y, found = gradients(
        lambda x, **options: run_with(kernel, x, **options), inputs, reverse=reverse
    )

    assert_near(y, expected)
    for name, slope in slopes.items():
        assert_near(found[name], slope)


@pytest.mark.parametrize(
    ("kernel", "form"),
    [
        *((kernel, form) for kernel in ("auto", "chunked") for form in FORMS),
        ("compiled", "shared"),
        ("compiled", "one group"),
        *(pytest.param(*kernel.values, "shared", marks=pytest.mark.gpu) for kernel in ON_GPU),
    ],
)
def test_all_options_and_forms_agree_with_the_reference(kernel, form, run_with):
    inputs = with_all_options(scan_inputs(2, 6, 3, 70, form=form))

    expected, slopes = gradients(lambda x: run_with("reference", x), inputs)
    y, found = gradients(lambda x: run_with(kernel, x), inputs)

    assert_near(y, expected)
    for name, slope in slopes.items():
        assert_near(found[name], slope)


def test_one_of_the_weights_may_be_constant_and_the_other_not(run_with):
    inputs = scan_inputs(2, 6, 3, 20)
    inputs["C"] = scan_inputs(2, 6, 3, 20, form="constant")["C"]

    assert_near(run_with("auto", inputs), run_with("reference", inputs))


def test_each_group_of_channels_reads_its_own_weights(run_with):
    inputs = scan_inputs(2, 6, 3, 20, form="grouped")

    y = run_with("reference", inputs)

    for group in range(3):
        channels = slice(2 * group, 2 * group + 2)
        alone = {
            **{name: inputs[name][:, channels] for name in ("u", "delta")},
            **{name: inputs[name][channels] for name in ("A", "D")},
            **{name: inputs[name][:, group] for name in ("B", "C")},
        }
        assert_near(y[:, channels], run_with("reference", alone))


@pytest.mark.parametrize("kernel", ["reference", *FAST, *ON_GPU])
def test_reverse_equals_flipping_input_and_output(kernel, run_with):
    inputs = with_all_options(scan_inputs(2, 5, 3, 70))
    turned = {
        name: x.flip(-1) if name in ("u", "delta", "B", "C", "z", "add") else x
        for name, x in inputs.items()
    }

    y = run_with(kernel, inputs, reverse=True)

    assert_near(y, run_with(kernel, turned).flip(-1))


@pytest.mark.parametrize("kernel", ["reference", *FAST])
def test_the_layout_in_memory_changes_nothing(kernel, run_with):
    inputs = scan_inputs(2, 5, 3, 33)
    views = {
        name: x.transpose(1, 2).contiguous().transpose(1, 2) if x.dim() == 3 else x
        for name, x in inputs.items()
    }

    assert views["u"].stride() != inputs["u"].stride()
    # Sums over another layout may run in another order: a last bit may differ.
    torch.testing.assert_close(run_with(kernel, views), run_with(kernel, inputs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kernel", ["reference", "auto"])
def test_token_major_input_is_supported(kernel, form, run_with):
    inputs = with_all_options(scan_inputs(2, 6, 3, 20, form=form))

    expected, slopes = gradients(lambda x: run_with(kernel, x), inputs)
    y, found = gradients(
        lambda x: run_with(kernel, x, token_major=True).transpose(1, 2), tokens_first(inputs)
    )

    assert_near(y, expected)
    for name, slope in tokens_first(slopes).items():
        assert_near(found[name], slope)


def test_token_major_input_is_not_copied(monkeypatch):
    received = {}

    def scan(u, step, A, B, C, *, reverse):
        received.update(u=u, delta=step, B=B, C=C)
        return u

    monkeypatch.setenv("VSRM_KERNELS", "chunked")
    monkeypatch.setattr(door, "selective_scan_chunked", scan)
    inputs = tokens_first(scan_inputs(2, 6, 3, 20))

    selective_scan(**inputs, token_major=True)

    for name, x in received.items():
        assert x.data_ptr() == inputs[name].data_ptr()


@pytest.mark.parametrize("elements", [1, 50, 700, 4000])
@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "backward"])
def test_many_blocks_give_the_result_of_one(elements, reverse, run_with, monkeypatch):
    inputs = scan_inputs(2, 5, 3, 101)
    expected, slopes = gradients(lambda x: run_with("reference", x, reverse=reverse), inputs)

    monkeypatch.setattr(chunked, "BLOCK_ELEMENTS", elements)
    y, found = gradients(lambda x: run_with("chunked", x, reverse=reverse), inputs)

    assert_near(y, expected)
    for name, slope in slopes.items():
        assert_near(found[name], slope)


@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "backward"])
@pytest.mark.parametrize("form", ["shared", "grouped"])
@pytest.mark.parametrize("kernel", ["reference", "chunked"])
def test_gradients_match_finite_differences(kernel, form, reverse, run_with, monkeypatch):
    monkeypatch.setattr(chunked, "BLOCK_ELEMENTS", 24)  # several blocks of several chunks
    inputs = with_all_options(scan_inputs(1, 4, 2, 9, form=form))
    names = [name for name, x in inputs.items() if isinstance(x, torch.Tensor)]
    leaves = [inputs[name].double().requires_grad_() for name in names]

    def scan(*values):
        return run_with(
            kernel, dict(zip(names, values, strict=True)), delta_softplus=True, reverse=reverse
        )

    assert torch.autograd.gradcheck(scan, leaves)


def test_double_precision_stays_double(run_with):
    inputs = {name: x.double() for name, x in scan_inputs(1, 4, 3, 40).items()}

    y = run_with("auto", inputs)

    assert y.dtype == torch.float64
    torch.testing.assert_close(y, run_with("reference", inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_compiled_loop_shares_its_work_among_threads(threads, run_with):
    inputs = scan_inputs(3, 40, 4, 70)
    expected, slopes = gradients(lambda x: run_with("reference", x), inputs)
    before = torch.get_num_threads()

    torch.set_num_threads(threads)
    try:
        y, found = gradients(lambda x: run_with("compiled", x), inputs)
    finally:
        torch.set_num_threads(before)

    assert_near(y, expected)
    for name, slope in slopes.items():
        assert_near(found[name], slope)


def exponentials(run_with, kernel, exponents):
    """Make the scan compute exp(-x): a state of one, and then a step of size x without input."""
    channel = exponents.numel()
    inputs = {
        "u": torch.tensor([1.0, 0.0]).expand(1, channel, 2),
        "delta": torch.stack((torch.ones(channel), exponents), dim=1)[None],
        "A": -torch.ones(channel, 1),
        "B": torch.ones(1, 1, 2),
        "C": torch.ones(1, 1, 2),
    }
    return run_with(kernel, inputs)[0, :, 1]


@pytest.mark.parametrize("kernel", FAST)
def test_the_decay_is_exact_to_a_few_units_of_the_last_digit(kernel, run_with):
    exponents = torch.cat((torch.tensor([0.0, 1e-30, 1e-7]), torch.linspace(0.001, 86, 4001)))

    decays = exponentials(run_with, kernel, exponents)

    expected = torch.exp(-exponents.double())
    # float32 resolves 1.2e-7; a polynomial of degree six adds 1.6e-7 at its ends, and taking 124
    # times the logarithm of two from the largest exponents 2.4e-7.
    torch.testing.assert_close(decays.double(), expected, rtol=5e-7, atol=0)


@pytest.mark.parametrize("kernel", ["reference", *FAST])
def test_a_huge_step_clears_the_state_without_nan(kernel, run_with):
    exponents = torch.tensor([87.0, 88.0, 104.0, 1e4, 1e20, 3e38])

    decays = exponentials(run_with, kernel, exponents)

    assert decays.isfinite().all()
    assert decays.abs().max() < 2e-38


@pytest.mark.parametrize("kernel", [*FAST, *ON_GPU])
def test_huge_steps_have_finite_gradients(kernel, run_with):
    inputs = scan_inputs(1, 4, 3, 70)
    inputs["delta"][:, :, ::3] = 1e4

    expected, slopes = gradients(lambda x: run_with("reference", x), inputs)
    y, found = gradients(lambda x: run_with(kernel, x), inputs)

    assert_near(y, expected)
    for name, slope in slopes.items():
        assert_near(found[name], slope)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kernel", ["reference", *FAST, *ON_GPU])
def test_half_precision_input_is_summed_in_float32_and_comes_back_in_its_type(
    kernel, dtype, run_with
):
    # The state counts its steps. In float16 a count stands still at 2048, in bfloat16 at 256.
    length = 2560
    ones = torch.ones(1, 1, length, dtype=dtype)
    inputs = {"u": ones, "delta": ones, "A": torch.tensor([[-1e-12]]), "B": ones, "C": ones}

    y = run_with(kernel, inputs)

    assert y.dtype == dtype
    assert y[0, 0, [0, 99, -1]].tolist() == [1.0, 100.0, 2560.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gate_and_the_skip_keep_the_type_of_the_input(dtype, run_with):
    inputs = with_all_options(scan_inputs(1, 4, 3, 20))
    half = {
        name: x.to(dtype) if name in ("u", "delta", "B", "C", "z", "add") else x
        for name, x in inputs.items()
    }
    rounded = {name: x.float() if isinstance(x, torch.Tensor) else x for name, x in half.items()}

    y = run_with("auto", half)

    expected = run_with("reference", rounded).to(dtype)
    # Both round one float32 result; it may fall to the other neighbor.
    torch.testing.assert_close(y, expected, rtol=torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("u", (4, 32), r"u must be .*got \(4, 32\)"),
        ("delta", (1, 4, 31), r"delta .*got \(1, 4, 31\) and \(1, 4, 32\)"),
        ("add", (1, 4, 1), r"add .*got \(1, 4, 1\) and \(1, 4, 32\)"),
        ("z", (1, 3, 32), r"z .*got \(1, 3, 32\) and \(1, 4, 32\)"),
        ("A", (5, 16), r"A must be \(4, state\), got \(5, 16\)"),
        ("A", (4,), r"A must be \(4, state\), got \(4,\)"),
        ("B", (1, 16, 31), r"B must be .*length 32; got \(1, 16, 31\)"),
        ("B", (1, 3, 16, 32), r"B must be .*channel 4.*got \(1, 3, 16, 32\)"),
        ("C", (16, 4), r"C must be .*got \(16, 4\)"),
        ("C", (1, 0, 16, 32), r"C must be .*got \(1, 0, 16, 32\)"),
        ("D", (5,), r"D must be \(4,\), got \(5,\)"),
        ("delta_bias", (4, 1), r"delta_bias must be \(4,\), got \(4, 1\)"),
    ],
)
def test_a_tensor_of_another_shape_is_refused(name, shape, message):
    inputs = scan_inputs(1, 4, 16, 32)
    inputs[name] = torch.zeros(shape)

    with pytest.raises(ValueError, match=message):
        selective_scan(**inputs)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("u", (4, 32), r"u must be \(batch, length, channel\), got \(4, 32\)"),
        ("z", (1, 4, 32), r"z .*got \(1, 4, 32\) and \(1, 32, 4\)"),
        ("B", (1, 16, 32), r"B must be \(batch, length, state\).*got \(1, 16, 32\)"),
        ("C", (1, 32, 3, 16), r"C must be .*channel 4.*got \(1, 32, 3, 16\)"),
        ("C", (1, 2, 16, 32), r"C must be .*got \(1, 2, 16, 32\)"),
    ],
)
def test_a_tensor_in_the_other_layout_is_refused(name, shape, message):
    inputs = tokens_first(scan_inputs(1, 4, 16, 32))
    inputs[name] = torch.zeros(shape)

    with pytest.raises(ValueError, match=message):
        selective_scan(**inputs, token_major=True)


def cpu_seconds(scan, *inputs):
    begin = time.process_time()
    scan(*inputs)
    return time.process_time() - begin


@pytest.mark.slow
def test_the_chunked_scan_is_at_least_six_times_as_fast_as_the_loop():
    inputs = scan_inputs(1, 64, 16, 16_384)
    u, delta, B, C = (
        inputs[name].transpose(1, 2).contiguous() for name in ("u", "delta", "B", "C")
    )
    tensors = (u, functional.softplus(delta), inputs["A"], B[:, :, None], C[:, :, None])
    torch.use_deterministic_algorithms(False)  # filling memory with NaN is not what is timed
    threads = torch.get_num_threads()

    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            pairs = [
                (
                    cpu_seconds(selective_scan_reference, *tensors),
                    cpu_seconds(selective_scan_chunked, *tensors),
                )
                for _ in range(9)
            ]
    finally:
        torch.set_num_threads(threads)

    loop, many_at_once = (min(times) for times in zip(*pairs, strict=True))
    assert loop >= 6 * many_at_once
