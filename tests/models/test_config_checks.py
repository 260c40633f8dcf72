"""Sizes that no network could have are refused before anything is built of them."""

import time
from dataclasses import replace

import pytest
from networks import TINY_VSRM

from vsrm_cli.models.presets import GSM_FULL


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"channels": -8}, "channels cannot be '-8'"),
        ({"channels": "eight"}, "channels cannot be 'eight'"),
        ({"channels": 8.0}, "channels cannot be"),
        ({"channels": True}, "channels cannot be"),
        ({"channels": 10**9}, "channels cannot be"),
        ({"offset_reach": float("nan")}, "offset_reach cannot be"),
        ({"flow_widths": 8}, "flow_widths cannot be"),
        ({"flow_widths": (8,) * 1000}, "flow_widths cannot be"),
        ({"flow_widths": (8, "x")}, "flow_widths cannot be"),
        ({"s2t_blocks": 4000}, "asks for .* blocks"),
        ({"s2t_blocks": 600, "dambs": 600}, "asks for .* blocks"),
        ({"branches": ("sideways_1",)}, "'sideways'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_impossible_sizes_are_named_at_once(change, reason):
    began = time.monotonic()

    with pytest.raises(ValueError, match=reason):
        replace(TINY_VSRM, **change)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    "change",
    [{"layers": 3}, {"channels": 30, "heads": 2}, {"heads": 5}, {"heads": 0}, {"layers": 4000}],
    ids=str,
)
def test_sizes_that_do_not_divide_are_refused(change):
    with pytest.raises(ValueError, match=r"must be even|asks for .* blocks"):
        replace(GSM_FULL, **change)
