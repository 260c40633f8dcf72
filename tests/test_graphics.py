"""Screen recordings, cartoons and pixel art are better than with bicubic, without ringing."""

import pytest
import torch
from drawn_graphics import cartoon, clip_of, pixel_art, screen
from torch.nn import functional as F

from vsrm_cli import load_model
from vsrm_cli.checkpoints.catalog import FOR_CLEAN, FOR_COMPRESSED, resolve_detail
from vsrm_cli.evaluation.baselines import upscale_bicubic, upscale_lanczos
from vsrm_cli.evaluation.metrics import psnr_y
from vsrm_cli.evaluation.test_sets import make_lr_clip

SCENES = (screen, cartoon, pixel_art)
# What `upscale` takes for clean footage and for compressed footage.
CASES = [(FOR_CLEAN, "bi"), (FOR_CLEAN, "h264-23"), (FOR_COMPRESSED, "h264-23")]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def case(request):
    """A network, with the detail that `upscale` gives it, and how its input is made."""
    name, degradation = request.param
    detail = resolve_detail(name, None)
    return load_model(name, device="cpu", dtype="fp32", detail=detail), detail, degradation


def ringing(frame, truth):
    """By how many gray levels a frame leaves the range of the truth around, on average."""
    frame, truth = (x[None] * 255 for x in (frame.clamp(0, 1), truth))
    most, least = F.max_pool2d(truth, 9, 1, 4), -F.max_pool2d(-truth, 9, 1, 4)
    return (F.relu(frame - most) + F.relu(least - frame)).mean().item()


@pytest.mark.parametrize("scene", SCENES)
def test_graphics_have_higher_psnr_than_bicubic_and_ring_little_more_than_lanczos(case, scene):
    network, detail, degradation = case
    hr = clip_of(scene)
    lr = make_lr_clip(hr, degradation).float() / 255

    with torch.inference_mode():
        restored = network(lr[None])[0, 1]

    truth = hr[1].float() / 255
    assert psnr_y(restored, truth) > psnr_y(upscale_bicubic(lr[1]), truth)
    # What is trained for looks has stronger edges; large square pixels show it most.
    factor = 1.8 if detail == 1 else 1.5
    assert ringing(restored, truth) < factor * ringing(upscale_lanczos(lr[1]), truth) + 0.5
