"""LPIPS, VMAF and CVVDP are measured if they are installed, and left out otherwise."""

import sys
from types import SimpleNamespace

import pytest
import torch
from networks import draw_randomly, make_feature_network

from vsrm_cli.errors import VsrmError
from vsrm_cli.evaluation import feature_networks, perceptual

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


def test_without_their_packages_there_is_no_lpips_and_no_cvvdp(monkeypatch):
    for module in (perceptual, feature_networks):
        monkeypatch.setattr(module, "find_spec", lambda _: None)

    assert perceptual.find_lpips(torch.device("cpu")) is None
    assert perceptual.find_cvvdp(torch.device("cpu")) is None


def test_lpips_of_8_bit_frames_is_that_of_the_network(monkeypatch):
    monkeypatch.setattr(perceptual, "has_lpips_weights", lambda: True)
    monkeypatch.setattr(perceptual, "load_alexnet", make_feature_network)
    one, other = ((draw_randomly(3, 32, 32, seed=s) * 255).round() for s in (1, 2))

    measure = perceptual.find_lpips(torch.device("cpu"))

    network = make_feature_network()
    expected = feature_networks.lpips(network, one[None] / 255, other[None] / 255).item()
    assert measure(one.byte(), other.byte()) == pytest.approx(expected)
    assert measure(one.byte(), one.byte()) == 0


class FakeCvvdp:
    def __init__(self, display_name, device, quiet):
        assert (display_name, quiet) == ("standard_fhd", True)

    def predict(self, test, reference, dim_order, frames_per_second):
        assert test.shape == (2, 3, 8, 12)
        assert (dim_order, frames_per_second) == ("FCHW", 25)
        return 10 - (test - reference).abs().mean(), {}


def test_cvvdp_is_given_clips_between_0_and_1(monkeypatch):
    monkeypatch.setattr(perceptual, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "pycvvdp", SimpleNamespace(cvvdp=FakeCvvdp))
    black = torch.zeros(2, 3, 8, 12, dtype=torch.uint8)

    measure = perceptual.find_cvvdp(torch.device("cpu"))

    assert measure(black, black) == 10
    assert measure(black, black + 255) == pytest.approx(9)


def test_a_failing_cvvdp_is_reported(monkeypatch):
    monkeypatch.setattr(perceptual, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "pycvvdp", None)

    with pytest.raises(VsrmError, match=r"cvvdp is installed but cannot measure here"):
        perceptual.find_cvvdp(torch.device("cpu"))
