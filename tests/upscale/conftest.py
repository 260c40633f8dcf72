"""What several files of tests share."""

import pytest
from films import SMALL, draw_film
from networks import make_network

from vsrm_cli.checkpoints.loading import save_weights
from vsrm_cli.upscale.job import upscale_video


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    """A clip of variable rate with cuts, sound and subtitles, weights, and the plain result."""
    folder = tmp_path_factory.mktemp("film")
    weights = folder / "tiny.safetensors"
    save_weights(make_network(), weights, {})
    clip = draw_film(folder / "small.mkv")
    upscale_video(clip, folder / "whole.mkv", model=weights, device="cpu", **SMALL)
    return folder
