"""`vsrm doctor` reports what works, what is missing and what is broken."""

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from vsrm_cli import doctor
from vsrm_cli.checkpoints import catalog
from vsrm_cli.cli import app as cli
from vsrm_cli.doctor import CheckStatus, list_devices, run_checks
from vsrm_cli.encode import encoders as codecs
from vsrm_cli.errors import VsrmError


@pytest.fixture(autouse=True)
def little(monkeypatch):
    """Hardware encoders are opened once in these tests, and one codec is tried."""
    monkeypatch.setattr(doctor, "CODECS", ("h264",))
    monkeypatch.setattr(doctor, "hardware_encoders", list)


def found(topic, name):
    return next(f for f in run_checks() if f.topic == topic and f.name == name)


def test_a_healthy_machine_has_no_broken_finding():
    findings = list(run_checks())

    assert [f for f in findings if f.state is CheckStatus.BROKEN] == []
    topics = {f.topic for f in findings}
    assert {"versions", "devices", "scan on cpu", "networks on cpu", "codecs", "disk"} <= topics


def test_without_a_gpu_only_the_cpu_is_listed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    assert [str(device) for device in list_devices()] == ["cpu"]


def test_a_kernel_with_wrong_results_is_reported_as_broken(monkeypatch):
    right = doctor.selective_scan

    def wrong(*args, **kwargs):
        forced = doctor.os.environ["VSRM_KERNELS"]
        return right(*args, **kwargs) + (0.01 if forced == "chunked" else 0.0)

    monkeypatch.setattr(doctor, "selective_scan", wrong)

    assert found("scan on cpu", "chunked").state is CheckStatus.BROKEN
    assert found("scan on cpu", "reference").state is CheckStatus.GOOD


def test_vsrm_kernels_is_restored(monkeypatch):
    monkeypatch.setenv("VSRM_KERNELS", "chunked")

    list(run_checks())

    assert doctor.os.environ["VSRM_KERNELS"] == "chunked"


def test_a_damaged_weight_file_is_broken(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise VsrmError("vsrm-t.safetensors is not a readable safetensors file.")

    monkeypatch.setattr(doctor, "load_model", fail)

    finding = found("networks on cpu", "vsrm-t")

    assert finding.state is CheckStatus.BROKEN
    assert "not a readable" in finding.detail


def test_a_network_without_bundled_weights_is_skipped(monkeypatch):
    entry = replace(catalog.MODELS["vsrm-t"], name="elsewhere", file=None)
    monkeypatch.setitem(catalog.MODELS, "elsewhere", entry)

    assert all("elsewhere" not in finding.name for finding in run_checks())


@pytest.mark.parametrize("codec", ["h264", "hevc", "ffv1"])
def test_a_working_codec_is_reported(codec):
    assert codecs.measure_coding_error(codec) < doctor.CODING_ERROR


def test_a_codec_that_loses_a_frame_is_reported(monkeypatch):
    monkeypatch.setattr(codecs.av, "open", _forgetful(codecs.av.open))

    with pytest.raises(VsrmError, match="of 5 frames, 4 came back"):
        codecs.measure_coding_error("ffv1")


def _forgetful(right):
    class Reader:
        def __init__(self, *args):
            self.container = right(*args)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.container.close()

        def decode(self, **kwargs):
            return list(self.container.decode(**kwargs))[1:]

    def open_(file, mode, **kwargs):
        return Reader(file, mode) if mode == "r" else right(file, mode, **kwargs)

    return open_


def test_every_hardware_encoder_is_named_with_whether_it_can_be_opened():
    encoders = codecs.hardware_encoders()

    assert all(any(e.name.endswith(end) for end in codecs.MAKERS) for e in encoders)
    assert all(isinstance(e.is_usable, bool) for e in encoders)


def test_the_command_prints_a_line_for_each_and_exits_with_0():
    result = CliRunner().invoke(cli.app, ["doctor"])

    assert result.exit_code == 0
    assert "scan on cpu" in result.stdout
    assert "+  reference" in result.stdout


def test_something_broken_makes_the_command_exit_with_1(monkeypatch):
    monkeypatch.setattr(doctor, "CODING_ERROR", -1.0)

    result = CliRunner().invoke(cli.app, ["doctor", "--json"])

    assert result.exit_code == 1
    findings = json.loads(result.stdout)
    assert [f["name"] for f in findings if f["state"] == "broken"] == ["h264"]
    assert "is broken" in result.stderr


def test_fused_kernels_are_compared_with_pytorch(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # else they need a GPU

    findings = list(doctor._fused(torch.device("cpu")))

    assert [(f.name, f.state) for f in findings] == [
        ("convolution", CheckStatus.GOOD),
        ("clip convolution", CheckStatus.GOOD),
        ("gather", CheckStatus.GOOD),
    ]


def test_fused_kernels_are_not_reported_where_none_runs():
    assert list(doctor._fused(torch.device("cpu"))) == []
