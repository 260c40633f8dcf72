"""LPIPS and VMAF are measured where they are installed, and left out where they are not."""

import sys
from types import SimpleNamespace

import pytest
import torch

from vsrm_cli.errors import VsrmError
from vsrm_cli.evaluation import perceptual

# Stands in for ffmpeg: knows one filter, checks what it is given, and writes a log.
FAKE_FFMPEG = """#!{python}
import json, os, sys
if "-filters" in sys.argv:
    print(" .. libvmaf           VV->V      Calculate the VMAF between two video streams.")
else:
    sizes = [os.path.getsize(name) for name in ("restored", "sharp")]
    same = open("restored", "rb").read() == open("sharp", "rb").read()
    assert sizes == [2 * 3 * 8 * 12] * 2 and "12x8" in sys.argv
    with open("vmaf.json", "w") as log:
        json.dump({{"pooled_metrics": {{"vmaf": {{"mean": 100.0 if same else 50.0}}}}}}, log)
"""


@pytest.fixture(autouse=True)
def _forget():
    perceptual._has_vmaf.cache_clear()
    yield
    perceptual._has_vmaf.cache_clear()


def test_without_ffmpeg_there_is_no_vmaf(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert perceptual.find_vmaf() is None


@pytest.mark.skipif(sys.platform == "win32", reason="a script cannot stand in for a program there")
def test_an_ffmpeg_with_libvmaf_is_given_both_clips(monkeypatch, tmp_path):
    program = tmp_path / "ffmpeg"
    program.write_text(FAKE_FFMPEG.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    clip = torch.zeros(2, 3, 8, 12, dtype=torch.uint8)

    measure = perceptual.find_vmaf()

    assert measure(clip, clip) == 100
    assert measure(clip, clip + 1) == 50


def test_without_its_package_there_is_no_lpips(monkeypatch):
    monkeypatch.setattr(perceptual, "find_spec", lambda _: None)

    assert perceptual.find_lpips(torch.device("cpu")) is None


class FakeLpips(torch.nn.Module):
    def __init__(self, net, verbose):
        super().__init__()
        assert (net, verbose) == ("alex", False)

    def forward(self, a, b):
        assert a.shape == (1, 3, 8, 12)
        return (a - b).abs().mean()


def test_lpips_is_given_pictures_between_minus_one_and_one(monkeypatch):
    monkeypatch.setattr(perceptual, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=FakeLpips))
    black = torch.zeros(3, 8, 12, dtype=torch.uint8)

    measure = perceptual.find_lpips(torch.device("cpu"))

    assert measure(black, black) == 0
    assert measure(black, black + 255) == pytest.approx(2)


def test_an_lpips_that_does_not_work_is_told(monkeypatch):
    def refuse(net, verbose):
        raise OSError("no connection")

    monkeypatch.setattr(perceptual, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=refuse))

    with pytest.raises(VsrmError, match=r"LPIPS .* cannot be measured here \(no connection\)"):
        perceptual.find_lpips(torch.device("cpu"))
