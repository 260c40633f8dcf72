"""The prototype converts colors as the program does: within a level of 255, both ways."""

import importlib.util
import sys
from pathlib import Path

import pytest

from vsrm_cli.media.color import BT709, BT2020, SMPTE170M, Color

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "yuv.py"


@pytest.fixture(scope="module")
def yuv():
    spec = importlib.util.spec_from_file_location("yuv_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("is_full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [SMPTE170M, BT709, BT2020], ids=["601", "709", "2020"])
@pytest.mark.parametrize("form", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_both_ways_agree_with_the_scaler(form, matrix, is_full, yuv):
    found = yuv.compare(form, Color(matrix, is_full), height=48, width=64)

    # Both round to whole values, now and then to different sides.
    greatest = 1.0 if form.endswith("p") else 0.3
    assert found.greatest_to_rgb <= greatest
    assert found.greatest_from_rgb <= greatest
    assert found.mean_to_rgb < 0.02
    assert found.mean_from_rgb < 0.35
