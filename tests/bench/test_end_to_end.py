"""A whole video is timed, and its slowest stage is named."""

import pytest
import torch
from stub_network import draw_clip, load_nearest

from vsrm_cli.bench.end_to_end import measure_pipeline
from vsrm_cli.errors import InputError
from vsrm_cli.upscale import job as upscale


@pytest.fixture(autouse=True)
def network(monkeypatch):
    monkeypatch.setattr(upscale, "load_model", load_nearest)
    monkeypatch.setattr(upscale, "weights_checksum", lambda *_, **__: "none")
    monkeypatch.setattr(upscale, "network_scale", lambda *_, **__: 4)
    monkeypatch.setattr("vsrm_cli.upscale.plan.network_scale", lambda *_, **__: 4)


def measure(video):
    return measure_pipeline(
        video, ["any"], dtype="auto", device=torch.device("cpu"), report=lambda _: None
    )


def test_the_slowest_stage_is_named_and_no_file_is_left(tmp_path):
    video = draw_clip(tmp_path / "small.mp4", frames=12)

    (row,) = measure(video)

    rates = {"decode": row.decode_fps, "network": row.network_fps, "encode": row.encode_fps}
    assert (row.frames, row.width, row.height, row.model) == (12, 192, 128, "nearest")
    assert row.slowest == min(rates, key=rates.get)
    assert min(rates.values()) > 0
    assert list(tmp_path.iterdir()) == [video]


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        measure(tmp_path / "missing.mp4")
