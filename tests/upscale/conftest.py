"""Fixtures of the jobs of `vsrm upscale`."""

import pytest
from multi_shot_video import SMALL, draw_multi_shot_video
from networks import make_network
from stub_network import draw_clip

from vsrm_cli.checkpoints.loading import save_weights
from vsrm_cli.upscale.job import upscale_video


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """A clip of variable rate with cuts, sound and subtitles, weights, and the plain result."""
    folder = tmp_path_factory.mktemp("example")
    weights = folder / "tiny.safetensors"
    save_weights(make_network(), weights, {})
    clip = draw_multi_shot_video(folder / "small.mkv")
    upscale_video(clip, folder / "whole.mkv", model=weights, device="cpu", **SMALL)
    return folder


@pytest.fixture
def clip(tmp_path):
    return draw_clip(tmp_path / "small.mp4")
