"""Losses agree with values by hand, have gradients everywhere, and overflow in no precision."""

import numpy as np
import pytest
import torch
from networks import draw_randomly

from vsrm_cli.training.losses import (
    charbonnier,
    end_point_error,
    frequency_charbonnier,
    restoration_loss,
)

HALVES = [torch.float16, torch.bfloat16]


def pair(*shape):
    return draw_randomly(*shape, seed=1), draw_randomly(*shape, seed=2)


def test_charbonnier_by_hand():
    # sqrt(0.00075^2 + 0.001^2) = 0.00125 and sqrt(0 + 0.001^2) = 0.001
    loss = charbonnier(torch.tensor([0.00075, 0.2]), torch.tensor([0.0, 0.2]))

    assert loss.item() == pytest.approx(0.001125)


def test_equal_images_have_a_loss_of_epsilon():
    x = draw_randomly(2, 3, 4, 4)

    assert charbonnier(x, x).item() == pytest.approx(1e-3)
    assert frequency_charbonnier(x, x).item() == pytest.approx(2 * 0.02 * 1e-3)


def test_charbonnier_does_not_depend_on_the_patch_size():
    assert charbonnier(torch.ones(1, 8, 8), torch.zeros(1, 8, 8)).item() == pytest.approx(
        charbonnier(torch.ones(4, 32, 16), torch.zeros(4, 32, 16)).item()
    )


def test_the_frequency_loss_of_a_constant_error_by_hand():
    # 0.5 on 4 x 8 pixels: the constant term is 16, the 31 others and all imaginary parts are 0.
    restored, hr = torch.full((1, 4, 8), 0.75), torch.full((1, 4, 8), 0.25)

    loss = frequency_charbonnier(restored, hr, weight=0.1)

    real = ((16**2 + 1e-6) ** 0.5 + 31 * 1e-3) / 32
    assert loss.item() == pytest.approx(0.1 * (real + 1e-3), rel=1e-6)


def test_the_frequency_loss_matches_its_formula():
    restored, hr = pair(2, 3, 6, 5)

    loss = frequency_charbonnier(restored, hr)

    spectra = (np.fft.fft2(x.double().numpy()) for x in (restored, hr))
    a, b = spectra
    parts = [np.sqrt((a.real - b.real) ** 2 + 1e-6), np.sqrt((a.imag - b.imag) ** 2 + 1e-6)]
    assert loss.item() == pytest.approx(sum(0.02 * part.mean() for part in parts), rel=1e-5)


def test_the_restoration_loss_is_the_sum_of_charbonnier_and_frequency_loss():
    restored, hr = pair(1, 2, 3, 8, 8)

    loss = restoration_loss(restored, hr, frequency_weight=0.05)

    expected = charbonnier(restored, hr) + frequency_charbonnier(restored, hr, weight=0.05)
    assert loss.item() == pytest.approx(expected.item())


def test_a_frequency_weight_of_zero_leaves_charbonnier_alone():
    restored, hr = pair(1, 2, 3, 8, 8)

    loss = restoration_loss(restored, hr, frequency_weight=0)

    assert loss.item() == charbonnier(restored, hr).item()


def test_the_default_frequency_weight_is_the_published_one():
    restored, hr = pair(1, 2, 3, 8, 8)

    assert torch.equal(
        restoration_loss(restored, hr), restoration_loss(restored, hr, frequency_weight=0.02)
    )


def test_the_end_point_error_by_hand():
    # One pixel is wrong by (3, 4), the other by nothing.
    flow = torch.tensor([3.0, 0, 4, 0]).view(1, 2, 1, 2)

    loss = end_point_error(flow, torch.zeros(1, 2, 1, 2))

    assert loss.item() == pytest.approx((5 + 1e-2) / 2, rel=1e-5)


@pytest.mark.parametrize("loss", [charbonnier, frequency_charbonnier, restoration_loss])
def test_gradients_match_finite_differences(loss):
    restored, hr = (x.double() for x in pair(1, 2, 3, 4, 5))

    assert torch.autograd.gradcheck(lambda x: loss(x, hr), restored.requires_grad_())


def test_the_gradient_of_the_end_point_error_matches_finite_differences():
    flow, true_flow = (x.double() for x in pair(2, 2, 3, 4))

    assert torch.autograd.gradcheck(lambda x: end_point_error(x, true_flow), flow.requires_grad_())


@pytest.mark.parametrize("loss", [charbonnier, frequency_charbonnier, restoration_loss])
def test_equal_images_have_a_gradient_of_zero(loss):
    x = draw_randomly(1, 3, 4, 4)
    restored = x.clone().requires_grad_()

    loss(restored, x).backward()

    assert restored.grad.abs().max() < 1e-7


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_images_have_finite_losses_for_any_error(dtype):
    # The constant term of white against black, 65,536, is more than float16 holds.
    restored = torch.ones(1, 1, 256, 256, dtype=dtype, requires_grad=True)
    hr = torch.zeros(1, 1, 256, 256)

    loss = restoration_loss(restored, hr)
    loss.backward()

    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1 + 0.02 * (1 + 2e-3), rel=1e-4)
    assert restored.grad.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_losses_of_half_precision_images_are_computed_in_float32(dtype):
    restored, hr = pair(1, 3, 16, 16)
    rounded = restored.to(dtype)

    loss = restoration_loss(rounded, hr)

    assert loss.item() == restoration_loss(rounded.float(), hr).item()


def test_the_spectrum_is_computed_in_float32_under_autocast():
    restored, hr = pair(1, 3, 16, 16)
    expected = restoration_loss(restored, hr).item()

    with torch.autocast("cpu", torch.bfloat16):
        loss = restoration_loss(restored, hr)

    assert loss.item() == expected
