"""Screen recordings, cartoons and pixel art come out closer to the truth, and nothing rings."""

import pytest
import torch
from graphics import cartoon, clip_of, pixel_art, screen
from torch.nn import functional as F

from vsrm_cli import load_model
from vsrm_cli.checkpoints.catalog import MODELS, settle_detail
from vsrm_cli.evaluation.baselines import upscale_bicubic, upscale_lanczos
from vsrm_cli.evaluation.metrics import psnr_y
from vsrm_cli.evaluation.test_sets import degrade

SHIPPED = [name for name, entry in MODELS.items() if entry.file is not None]
SCENES = (screen, cartoon, pixel_art)


@pytest.fixture(scope="module", params=SHIPPED)
def network(request):
    """A shipped network, with the detail that `upscale` gives it."""
    detail = settle_detail(request.param, None, is_default=True)
    return load_model(request.param, device="cpu", dtype="fp32", detail=detail)


def ringing(frame, truth):
    """By how many gray levels a frame leaves the range of the truth around, on average."""
    frame, truth = (x[None] * 255 for x in (frame.clamp(0, 1), truth))
    most, least = F.max_pool2d(truth, 9, 1, 4), -F.max_pool2d(-truth, 9, 1, 4)
    return (F.relu(frame - most) + F.relu(least - frame)).mean().item()


@pytest.mark.parametrize("degradation", ["bi", "h264-23"])
@pytest.mark.parametrize("scene", SCENES)
def test_graphics_come_closer_to_the_truth_than_by_bicubic_and_ring_little_more_than_by_lanczos(
    network, scene, degradation
):
    sharp = clip_of(scene)
    small = degrade(sharp, degradation).float() / 255

    with torch.inference_mode():
        restored = network(small[None])[0, 1]

    truth = sharp[1].float() / 255
    assert psnr_y(restored, truth) > psnr_y(upscale_bicubic(small[1]), truth)
    most = 1.5 * ringing(upscale_lanczos(small[1]), truth) + 0.5
    assert ringing(restored, truth) < most
