"""Perceptual losses agree with values by hand."""

import math

import pytest
import torch
from networks import draw_randomly
from torch import nn

from vsrm_cli.evaluation.feature_networks import FeatureNetwork, lpips
from vsrm_cli.training.perceptual.losses import (
    CleaningHead,
    adversarial_loss,
    cleaning_loss,
    color_loss,
    discriminator_loss,
    feature_loss,
    flat_area_loss,
    grid_loss,
    pattern_loss,
    temporal_loss,
    usm_sharpen,
    warmup_weight,
)


def identity_network(heads=None):
    """A feature network of one stage whose features are the frames themselves."""
    stages = [nn.Sequential(nn.Identity())]
    return FeatureNetwork(stages, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), heads=heads)


def colored(*rgb):
    return torch.tensor(rgb).view(1, 3, 1, 1).expand(1, 3, 4, 4)


def test_sharpening_leaves_flat_frames_and_faint_noise_unchanged():
    flat = torch.full((2, 3, 40, 40), 0.5)
    noisy = flat + draw_randomly(2, 3, 40, 40) * 8 / 255

    assert torch.allclose(usm_sharpen(flat), flat, atol=1e-6)
    assert torch.allclose(usm_sharpen(noisy), noisy, atol=1e-6)


def test_sharpening_overshoots_on_both_sides_of_an_edge_and_stays_in_range():
    step = torch.full((1, 3, 64, 64), 0.3)
    step[..., 32:] = 0.7

    hr = usm_sharpen(step)

    # At the step the blurred frame is 0.5: half of the 0.2 between are added, where all
    # around is a step; the mask is blurred, so a little less.
    assert hr[0, 0, 32, 31] < 0.3
    assert hr[0, 0, 32, 32] > 0.7
    assert hr[0, 0, 32, 32].item() == pytest.approx(0.79, abs=0.02)
    assert usm_sharpen(torch.round(step)).max() <= 1


def test_feature_loss_is_relative_to_the_features_of_the_ground_truth():
    # Differences 0.1, 0, 0.2 of features 0.5, 0.25, 0.75: 0.1 of 0.5 on average.
    loss = feature_loss(identity_network(), colored(0.6, 0.25, 0.55), colored(0.5, 0.25, 0.75))

    assert loss.item() == pytest.approx(0.1 / 0.5)


def test_lpips_by_hand():
    # Unit vectors (1, 0, 0) and (0, 1, 0): squared differences 1, 1, 0 by heads 0.5, 0.25, 9.
    network = identity_network(heads=[torch.tensor([0.5, 0.25, 9.0])])

    distance = lpips(network, colored(0.3, 0.0, 0.0), colored(0.0, 0.9, 0.0))

    assert distance.item() == pytest.approx(0.75)
    assert lpips(network, colored(0.3, 0.1, 0.2), colored(0.3, 0.1, 0.2)).item() == 0


def test_only_the_restored_frames_get_a_gradient():
    network = FeatureNetwork([nn.Sequential(nn.Conv2d(3, 2, 3))], mean=(0.5,) * 3, std=(0.5,) * 3)
    restored = draw_randomly(1, 2, 3, 8, 8).requires_grad_()
    hr = draw_randomly(1, 2, 3, 8, 8, seed=3).requires_grad_()

    (feature_loss(network, restored, hr) + lpips(network, restored, hr)).backward()

    assert restored.grad.abs().min() >= 0
    assert restored.grad.abs().sum() > 0
    assert hr.grad is None
    assert all(parameter.grad is None for parameter in network.parameters())


def test_gradients_of_black_frames_are_finite():
    restored = torch.zeros(1, 3, 4, 4, requires_grad=True)

    lpips(identity_network(), restored, torch.zeros(1, 3, 4, 4)).backward()

    assert restored.grad.isfinite().all()


def test_an_undecided_discriminator_has_a_loss_of_log_2():
    undecided = torch.zeros(2, 1, 4, 4)

    assert discriminator_loss(undecided, undecided).item() == pytest.approx(math.log(2))
    assert adversarial_loss(undecided).item() == pytest.approx(math.log(2))


def test_the_discriminator_learns_to_be_right_and_the_network_to_fool_it():
    real, restored = torch.tensor(3.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)

    discriminator_loss(real, restored).backward()

    assert real.grad < 0 < restored.grad  # real frames are to score higher, restored ones lower
    assert adversarial_loss(torch.tensor(3.0)) < adversarial_loss(torch.tensor(-3.0))


def test_the_adversarial_weight_is_zero_at_first_and_then_rises():
    weights = [warmup_weight(0.2, step, start=100, steps=50) for step in (0, 100, 125, 150, 999)]

    assert weights == pytest.approx([0, 0, 0.1, 0.2, 0.2])


def moving_clip(error):
    """A texture that moves by four HR pixels a frame, and a restored clip of it."""
    wide = draw_randomly(1, 3, 16, 32)
    hr = torch.stack([wide[..., 4 * t : 4 * t + 16] for t in range(3)], dim=1)
    moved = torch.stack([error[..., 4 * t : 4 * t + 16] for t in range(3)], dim=1)
    flow = torch.zeros(1, 2, 2, 4, 4)
    flow[:, :, 0] = -1.0  # LR pixels; what is at x lies at x - 4 HR pixels one frame later
    return hr, moved, flow


def test_temporal_loss_ignores_errors_that_move_with_the_scene_and_not_those_that_stay():
    error = 0.2 * draw_randomly(1, 3, 16, 32, seed=5)
    error[..., :9] = 0  # these columns leave the frame
    hr, moving, flow = moving_clip(error)
    still = error[:, None, :, :, :16].expand(1, 3, 3, 16, 16)

    with_scene = temporal_loss(hr + moving, hr, flow)
    staying = temporal_loss(hr + still, hr, flow)

    assert with_scene.item() == pytest.approx(1e-3, rel=0.01)
    assert staying.item() > 0.03


def test_temporal_loss_ignores_an_error_that_is_the_same_in_all_frames():
    hr, _, flow = moving_clip(draw_randomly(1, 3, 16, 32))

    assert temporal_loss(hr + 0.3, hr, flow).item() == pytest.approx(1e-3, rel=0.01)


def test_temporal_loss_of_a_flash_in_one_frame_is_its_size():
    hr, _, flow = moving_clip(draw_randomly(1, 3, 16, 32))
    flash = torch.zeros_like(hr)
    flash[:, 1] = 0.25

    assert temporal_loss(hr + flash, hr, flow).item() == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize(("square", "most"), [(1, 0.05), (2, 0.07)])
def test_pattern_loss_of_an_added_checkerboard_is_half_its_height(square, most):
    hr = torch.full((1, 2, 3, 32, 32), 0.5)
    cells = torch.arange(32) // square % 2
    board = (cells[:, None] ^ cells) * 0.1

    loss = pattern_loss(hr + board, hr).item()

    assert 0.05 - 1e-6 < loss < most + 1e-6
    assert pattern_loss(hr + board, hr + board).item() == 0


def test_pattern_loss_of_soft_frames_and_of_true_edges_is_zero():
    step = torch.where(torch.arange(32) < 15, 0.2, 0.8)
    hr = step.expand(1, 2, 3, 32, 32)
    soft = nn.functional.avg_pool1d(hr.flatten(0, -2), 5, 1, 2).view_as(hr)

    assert pattern_loss(hr, soft).item() == 0
    assert pattern_loss(soft, draw_randomly(1, 2, 3, 32, 32)).item() == 0


def test_flat_area_loss_of_noise_counts_in_flat_areas_and_hardly_in_textures():
    hr = torch.full((1, 2, 3, 32, 64), 0.5)
    hr[..., 32:] = draw_randomly(1, 2, 3, 32, 32)
    flat, textured = hr.clone(), hr.clone()
    flat[..., 4:28] += 0.1
    textured[..., 36:60] += 0.1

    assert flat_area_loss(flat, hr).item() == pytest.approx(0.1 * 24 / 64, rel=0.05)
    assert flat_area_loss(textured, hr).item() < 1e-3


def test_flat_area_loss_has_finite_gradients_where_nothing_differs():
    hr = torch.full((1, 1, 3, 16, 16), 0.5)
    restored = hr.clone().requires_grad_()

    flat_area_loss(restored, hr).backward()

    assert restored.grad.isfinite().all()


def test_color_loss_sees_a_tint_and_neither_brightness_nor_fine_color_noise():
    hr = draw_randomly(1, 2, 3, 32, 32)
    tint = torch.tensor([0.1, 0.0, 0.0]).view(3, 1, 1)
    checks = (torch.arange(32)[:, None] ^ torch.arange(32)) % 2 * 0.2 - 0.1

    assert color_loss(hr + tint, hr).item() == pytest.approx(0.05, rel=0.02)
    assert color_loss(hr + 0.1, hr).item() == pytest.approx(0.001, rel=0.01)
    assert color_loss(hr + 10 * tint * checks, hr).item() == pytest.approx(0.001, rel=0.01)


def test_grid_loss_is_the_height_of_a_pattern_that_repeats_with_the_lr_pixels():
    hr = draw_randomly(1, 2, 3, 32, 32)
    columns = torch.arange(32) % 2 * 0.02

    assert grid_loss(hr + columns, hr).item() == pytest.approx(0.01, rel=0.01)


def test_grid_loss_ignores_a_shift_of_brightness_and_errors_that_do_not_repeat():
    hr = draw_randomly(1, 6, 3, 96, 96)

    assert grid_loss(hr + 0.1, hr).item() == pytest.approx(0, abs=1e-6)
    assert grid_loss(hr + 0.02 * torch.randn_like(hr), hr).item() < 1e-3


def test_an_untrained_cleaning_head_leaves_frames_unchanged():
    head, lr = CleaningHead(5), draw_randomly(1, 2, 3, 4, 4)

    assert torch.equal(head.clean(draw_randomly(1, 2, 5, 4, 4), lr), lr)


def test_cleaning_loss_compares_with_means_of_the_ground_truth():
    hr = draw_randomly(1, 2, 3, 8, 8)
    means = hr.unflatten(-2, (2, 4)).unflatten(-1, (2, 4)).mean((-3, -1))

    assert cleaning_loss(means, hr).item() == pytest.approx(1e-3, rel=1e-3)
    assert cleaning_loss(means + 0.5, hr).item() == pytest.approx(0.5, rel=1e-3)
