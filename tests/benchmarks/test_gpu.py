"""The script for a GPU works as far as a machine without one can tell."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def gpu():
    paths = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    module = importlib.import_module("gpu")
    sys.path[:] = paths
    return module


@pytest.mark.slow
def test_a_rehearsal_checks_and_measures_everything(gpu, tmp_path):
    code = gpu.main(["--rehearse", "--out", str(tmp_path)])

    parts = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["parts"]
    assert code == 0
    assert len(parts) == len(gpu.CHECKS) + len(gpu.FIGURES)
    assert all(part["rows"] and part["is_right"] for part in parts)
    assert "WRONG" not in (tmp_path / "gpu.md").read_text(encoding="utf-8")


def test_a_wrong_result_is_reported_with_exit_code_1(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "CHECKS", {gpu.fused_kernels_are_right: 10})
    monkeypatch.setattr(gpu, "FIGURES", {})
    checks = sys.modules[gpu.fused_kernels_are_right.__module__]
    monkeypatch.setattr(checks, "LARGEST_ERROR", {"fp32": -1.0, "fp16": 1.0, "bf16": 1.0})

    code = gpu.main(["--rehearse", "--out", str(tmp_path)])

    assert code == 1
    assert "plain code **WRONG**" in (tmp_path / "gpu.md").read_text(encoding="utf-8")


def test_an_error_in_one_part_is_reported_and_the_others_run(gpu, tmp_path, monkeypatch):
    def broken(bench):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(gpu, "CHECKS", {broken: 10, gpu.fused_kernels_are_right: 10})

    code = gpu.main(["--rehearse", "--parts", "checks", "--out", str(tmp_path)])

    first, second = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["parts"]
    assert code == 1
    assert "no kernel image is available" in first["errors"][0]
    assert second["rows"]
    assert second["is_right"]


def test_a_part_past_its_time_limit_starts_no_further_row(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "FIGURES", {gpu.hot_spots: -1})

    code = gpu.main(["--rehearse", "--parts", "figures", "--out", str(tmp_path)])

    (part,) = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["parts"]
    assert code == 0
    assert part["title"].endswith("; the time was up")
    assert not part["rows"]


def test_no_part_starts_after_the_time_limit(gpu, tmp_path):
    gpu.main(["--rehearse", "--minutes", "-1", "--out", str(tmp_path)])

    parts = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["parts"]
    assert all(part["title"].endswith("left out, the time was up") for part in parts)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_only_a_rehearsal_runs(gpu, tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path)])

    assert "--rehearse does it in small on the CPU" in capsys.readouterr().err
