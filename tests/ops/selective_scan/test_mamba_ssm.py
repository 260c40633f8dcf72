"""What the scan hands to mamba-ssm and takes back, with the plain scan in mamba-ssm's place."""

import sys
from types import ModuleType

import pytest
import torch
from scans import FORMS, assert_near, gradients, in_float32, in_type, scan_inputs, with_all_options

from vsrm_cli.ops import dispatch as choice
from vsrm_cli.ops import selective_scan as door

DENSE = "vsrm_cli.ops.selective_scan.mamba_ssm"


def as_mamba_ssm(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """mamba-ssm's function, as particular about its input as its CUDA extension."""
    for x in (u, delta, B, C, z):
        assert x is None or x.dim() == 2 or (x.dtype == u.dtype and x.is_contiguous())
    for x in (A, D, delta_bias):
        assert x is None or x.dtype == torch.float32
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VSRM_KERNELS", "reference")
        return door.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)


@pytest.fixture
def run_with(run_with, monkeypatch):
    """The implementation `mamba_ssm` runs, on the CPU."""
    interface = ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = as_mamba_ssm
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    monkeypatch.delitem(sys.modules, DENSE, raising=False)
    monkeypatch.setattr(choice, "_missing", lambda *_: "")

    def run(kernel, inputs, **options):
        if kernel == "reference":
            return run_with(kernel, inputs, **options)
        monkeypatch.setenv("VSRM_KERNELS", kernel)
        return door.selective_scan(**inputs, **options)

    yield run
    sys.modules.pop(DENSE, None)


@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "backward"])
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_agree_with_the_reference(form, reverse, run_with):
    inputs = with_all_options(scan_inputs(2, 6, 3, 9, form=form))

    expected, slopes = gradients(lambda x: run_with("reference", x, reverse=reverse), inputs)
    y, found = gradients(lambda x: run_with("mamba_ssm", x, reverse=reverse), inputs)

    assert_near(y, expected)
    for name, slope in slopes.items():
        assert_near(found[name], slope)


def test_without_an_addition_the_gate_is_passed_to_mamba_ssm(run_with):
    inputs = with_all_options(scan_inputs(2, 6, 3, 9))
    del inputs["add"]

    assert_near(run_with("mamba_ssm", inputs), run_with("reference", inputs))


def test_tokens_of_different_types_are_brought_to_the_wider_one(run_with):
    inputs = in_type(with_all_options(scan_inputs(1, 4, 3, 9)), torch.float16)
    inputs["delta"] = inputs["delta"].float()

    y = run_with("mamba_ssm", inputs)

    assert y.dtype == torch.float16
    assert_near(y, run_with("reference", in_float32(inputs)).half())
