"""What the shell completes exists, and is found without waiting for torch."""

import subprocess
import sys

from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.cli import options
from vsrm_cli.cli.options import CODECS, DEVICES, complete, complete_model
from vsrm_cli.encode.options import EncodingOptions, plan_encoding
from vsrm_cli.upscale.options import UpscaleOptions


def test_every_network_is_completed():
    assert ("auto", *MODELS) == options.MODELS


def test_every_codec_and_device_that_is_completed_is_accepted():
    for codec in CODECS[1:]:
        plan_encoding(EncodingOptions(codec), "yuv420p")
    for device in DEVICES:
        UpscaleOptions(device=device)


def test_values_are_completed_from_their_beginning():
    assert complete("fp16", "fp32", "bf16")("fp") == ["fp16", "fp32"]


def test_weight_files_and_folders_are_completed_and_no_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/model.safetensors", "runs/report.html", "vsrm-mine.pth"):
        (tmp_path / name).write_text("")

    assert complete_model("run") == ["runs/"]
    assert complete_model("runs/") == ["runs/model.safetensors"]
    assert "vsrm-mine.pth" in complete_model("vsrm-")
    assert "vsrm-t-real" in complete_model("vsrm-")


def test_completion_does_not_wait_for_torch():
    code = "import sys, vsrm_cli.cli.app; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
