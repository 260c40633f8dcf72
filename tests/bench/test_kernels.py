"""The implementations of the scan are timed on the same input, and their answers compared."""

import os

import pytest
import torch

from vsrm_cli.bench import kernels
from vsrm_cli.errors import VsrmError
from vsrm_cli.ops.dispatch import ScanKernel


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(kernels, "SHORT", 96)
    monkeypatch.setattr(kernels, "LONG", 128)
    monkeypatch.setattr(kernels, "WIDTHS", ((4, 2),))
    monkeypatch.setenv("VSRM_KERNELS", "chunked")
    return kernels.measure_kernels(torch.device("cpu"), is_quick=False, report=lambda _: None)


def test_all_kernels_agree_with_the_reference(rows):
    short = {row.kernel: row for row in rows if row.length == 96}

    assert {"reference", "chunked"} <= set(short)
    assert short["reference"].times_reference == 1
    for row in short.values():
        assert row.problem or row.largest_difference < 1e-4


def test_the_reference_skips_long_scans(rows):
    (long,) = (row for row in rows if row.length == 128 and row.kernel == "reference")

    assert (long.ms, long.problem) == (None, "skipped: it takes minutes")


def test_the_kernel_setting_of_the_user_is_restored(rows):
    assert os.environ["VSRM_KERNELS"] == "chunked"


def test_unavailable_kernels_give_a_reason(monkeypatch):
    def refuse(*_, **__):
        raise VsrmError("it cannot do this")

    missing = ScanKernel("absent", "it is not installed")
    monkeypatch.setattr(kernels, "selective_scan", refuse)
    monkeypatch.setattr(kernels, "usable_kernels", lambda _: [missing, ScanKernel("reference", "")])
    monkeypatch.setattr(kernels, "WIDTHS", ((4, 2),))
    monkeypatch.delenv("VSRM_KERNELS", raising=False)

    rows = kernels.measure_kernels(torch.device("cpu"), is_quick=True, report=lambda _: None)

    assert {row.kernel: row.problem for row in rows} == {
        "reference": "it cannot do this",
        "absent": "it is not installed",
    }
    assert {row.ms for row in rows} == {None}
    assert "VSRM_KERNELS" not in os.environ
