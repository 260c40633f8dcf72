"""A photo with synthetic motion moves as its flows say."""

import numpy as np
import pytest
import torch
from networks import draw_randomly
from scenes import smooth_picture, to_8_bits

from vsrm_cli.data import synthetic_motion
from vsrm_cli.data.degradations import shrink_bicubic
from vsrm_cli.data.synthetic_motion import move_camera
from vsrm_cli.data.training_batch import ClipShape
from vsrm_cli.frame import SCALE
from vsrm_cli.ops.warp import warp

MOTION = ClipShape(frames=3, patch=32, batch=1, photo_share=1.0, motion=3.0)
# Bilinear interpolation of waves of 96 HR pixels, of 18 LR pixels where the camera is nearest,
# errs by 0.002 on average, and rounding to 8 bits, twice, by another 0.002.
EXACT = 0.004


def draw_motion(seed):
    """A clip of a smooth photo in motion, downscaled, (T, 3, P, P), and its flows."""
    photo, cover = (
        to_8_bits(smooth_picture(200, 240, wavelength=96.0, phase=phase)) for phase in (0.0, 2.0)
    )
    clip, backward, forward = move_camera(photo, cover, MOTION, np.random.default_rng(seed))
    return shrink_bicubic(clip), backward, forward


def errors(frames, neighbors, flows):
    """Absolute differences between frames and their neighbors along the flow, away from borders."""
    along = warp(neighbors, flows, padding="border")
    return (along - frames).abs()[..., 6:-6, 6:-6]


@pytest.mark.parametrize("layer", ["background", "foreground"])
@pytest.mark.parametrize("seed", range(6))
def test_warping_a_neighbor_along_the_flow_gives_the_frame(seed, layer, monkeypatch):
    # One layer fills the frame, so nothing is hidden.
    filled = float(layer == "foreground")
    monkeypatch.setattr(synthetic_motion, "_ellipse", lambda *_: torch.full((128, 128), filled))

    frames, backward, forward = draw_motion(seed)

    assert errors(frames[:-1], frames[1:], backward).mean() < EXACT
    assert errors(frames[1:], frames[:-1], forward).mean() < EXACT


def test_a_flow_of_the_wrong_sign_or_scale_does_not_match():
    seeds = [seed for seed in range(12) if draw_motion(seed)[1].norm(dim=1).mean() > 1]

    assert len(seeds) >= 3
    for seed in seeds:
        frames, backward, _ = draw_motion(seed)
        right = errors(frames[:-1], frames[1:], backward).median()
        for wrong in (-backward, 0.5 * backward, 2 * backward, backward.flip(1)):
            assert errors(frames[:-1], frames[1:], wrong).median() > 2 * right


@pytest.mark.parametrize("seed", range(6))
def test_with_a_moving_foreground_the_flow_matches_for_most_pixels(seed):
    frames, backward, forward = draw_motion(seed)

    assert errors(frames[:-1], frames[1:], backward).median() < EXACT
    assert errors(frames[1:], frames[:-1], forward).median() < EXACT


def test_the_camera_moves_at_about_the_requested_speed():
    fastest = max(draw_motion(seed)[1].norm(dim=1).median().item() for seed in range(20))

    # Zoom, turn and the slow change of speed come on top.
    assert 1.5 < fastest < 1.5 * MOTION.motion


def test_frames_of_a_photo_have_the_hr_size_and_range():
    photo = to_8_bits(draw_randomly(3, 200, 200))

    clip, _, _ = move_camera(photo, photo, MOTION, np.random.default_rng(1))

    assert clip.shape == (3, 3, SCALE * 32, SCALE * 32)
    assert clip.min() >= 0
    assert clip.max() <= 1


def test_a_photo_as_small_as_the_frame_is_reflected_at_its_borders():
    photo = to_8_bits(smooth_picture(128, 128, wavelength=48.0))

    clip, backward, _ = move_camera(photo, photo, MOTION, np.random.default_rng(2))

    assert clip.isfinite().all()
    assert clip.min() > 0.05  # no black corners
    assert backward.isfinite().all()
