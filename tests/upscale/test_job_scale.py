"""Networks that enlarge two times: the size of the output, and what the user is told."""

import io
import sys

import pytest
from stub_network import HEIGHT, WIDTH, X2_ENTRY, NearestNeighbor, read_clip

from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.checkpoints.loading import save_weights
from vsrm_cli.models.presets import VSRM_T_X2
from vsrm_cli.models.vsrm_compact import VSRMCompact
from vsrm_cli.upscale import job
from vsrm_cli.upscale.job import upscale_video


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    """A stand-in that enlarges two times, whatever is asked for."""
    monkeypatch.setitem(MODELS, X2_ENTRY.name, X2_ENTRY)
    monkeypatch.setattr(job, "load_model", lambda *_, **__: NearestNeighbor(2).eval())


def test_a_named_network_decides_over_the_size_that_is_left_open(clip, tmp_path):
    summary = upscale_video(clip, tmp_path / "large.mp4", model="vsrm-t-x2")

    assert (summary.width, summary.height) == (2 * WIDTH, 2 * HEIGHT)
    assert summary.as_dict()["model_scale"] == 2
    assert read_clip(tmp_path / "large.mp4")[2] == (2 * WIDTH, 2 * HEIGHT)


def test_a_weight_file_decides_over_the_size_too(clip, tmp_path):
    weights = tmp_path / "own.safetensors"
    save_weights(VSRMCompact(VSRM_T_X2), weights, {})

    summary = upscale_video(clip, tmp_path / "large.mp4", model=weights)

    assert (summary.width, summary.height) == (2 * WIDTH, 2 * HEIGHT)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"scale": 4}, (4 * WIDTH, 4 * HEIGHT)),
        ({"scale": 1.5}, (72, 48)),
        ({"height": HEIGHT}, (WIDTH, HEIGHT)),
        ({"height": 90}, (136, 90)),
    ],
)
def test_another_size_is_resampled_from_scale_2_and_a_larger_one_is_reported(
    clip, tmp_path, options, size
):
    told = []

    summary = upscale_video(
        clip, tmp_path / "large.mp4", model="vsrm-t-x2", warn=told.append, **options
    )

    warnings = [text for text in told if "enlarges 2 times" in text]
    assert (summary.width, summary.height) == size
    assert len(warnings) == (size[1] > 2 * HEIGHT)
    assert summary.frames_out == 10


def test_a_y4m_header_has_the_output_size_before_the_first_frame(clip, monkeypatch):
    class Standard:
        buffer = io.BytesIO()

    monkeypatch.setattr(sys, "stdout", Standard)

    summary = upscale_video(clip, "-", model="vsrm-t-x2")

    header = Standard.buffer.getvalue().split(b"\n")[0]
    assert f"W{2 * WIDTH} H{2 * HEIGHT}".encode() in header
    assert summary.frames_out == 10
