"""The published degradations: BI as in MATLAB and Pillow, BD as in BasicVSR."""

import numpy as np
import pytest
import torch
from networks import draw_randomly
from PIL import Image
from scenes import levels, smooth_picture, to_8_bits

from vsrm_cli.data.degradations import Degradation, blur_and_subsample, degrade, shrink_bicubic

RNG = np.random.default_rng(0)
# MATLAB's bicubic kernel at 1/8, 3/8, ... 15/8 by hand, where imresize samples it to downscale four
# times: 1.5 x^3 - 2.5 x^2 + 1 up to 1, then -0.5 x^3 + 2.5 x^2 - 4 x + 2. In 1/1024, and not yet
# divided by 4, the width to which it is stretched.
RIGHT_HALF = (987, 745, 399, 93, -49, -75, -45, -7)


def imresize_weights(length):
    """What imresize(..., 1/4) does to a line, as a matrix: (length / 4, length)."""
    kernel = np.array([*RIGHT_HALF[::-1], *RIGHT_HALF], float)
    weights = np.zeros((length // 4, length))
    for row in range(length // 4):
        for place, value in enumerate(kernel / kernel.sum(), start=4 * row - 6):
            # Beyond its borders the image is mirrored, the border pixel twice.
            before, after = -1 - place, 2 * length - 1 - place
            inside = before if place < 0 else after if place >= length else place
            weights[row, inside] += value
    return weights


def gaussian_weights(length):
    """BD's Gaussian of twelve weights at 4 n + 1.5, borders repeated: (length / 4, length)."""
    weights = np.zeros((length // 4, length))
    for row in range(length // 4):
        places = np.arange(12) + 4 * row - 4
        values = np.exp(-((places - (4 * row + 1.5)) ** 2) / (2 * 1.6**2))
        for place, value in zip(places.clip(0, length - 1), values / values.sum(), strict=True):
            weights[row, place] += value
    return weights


def by_hand(hr, weights):
    """Downscale (..., H, W) by a function that gives the weights of a line."""
    height, width = hr.shape[-2:]
    return weights(height) @ hr @ weights(width).T


def center_of(picture):
    """The center of mass of a (3, H, W) image, y and x in pixels from its top left corner."""
    light = picture.double().sum(0)
    y, x = (torch.arange(side, dtype=torch.float64) + 0.5 for side in light.shape)
    return (light.sum(1) @ y / light.sum()).item(), (light.sum(0) @ x / light.sum()).item()


# BI


def test_a_downscaled_edge_has_the_values_of_the_kernel():
    # Left 51, right 204. An LR pixel's weights for the right side, by the kernel with a = -0.5
    # at (16 - center + n) / 4, divided by 4: -0.012695 two pixels away, 0.077148 one away.
    hr = torch.full((3, 8, 32), 51 / 255)
    hr[:, :, 16:] = 204 / 255

    lr = shrink_bicubic(hr)

    row = [51, 51, 51 - 2, 51 + 12, 204 - 12, 204 + 2, 204, 204]
    assert levels(lr).tolist() == [[row, row]] * 3


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (36, 52)])
def test_downscaling_agrees_with_pillow(height, width, scale):
    hr = to_8_bits(draw_randomly(3, height, width))

    lr = shrink_bicubic(hr / 255, scale=scale)

    picture = Image.fromarray(hr.permute(1, 2, 0).numpy())
    size = (width // scale, height // scale)
    expected = np.array(picture.resize(size, Image.Resampling.BICUBIC))
    # Pillow rounds twice, once after each direction.
    difference = levels(lr).permute(1, 2, 0).numpy() - expected.astype(np.int64)
    assert np.abs(difference).max() <= 1


def test_a_constant_image_stays_constant():
    hr = torch.full((2, 3, 16, 12), 77 / 255)

    assert torch.equal(levels(shrink_bicubic(hr)), torch.full((2, 3, 4, 3), 77))


def test_downscaled_values_are_8_bit_levels_even_where_the_kernel_overshoots():
    hr = draw_randomly(2, 2, 3, 32, 32).round()

    lr = shrink_bicubic(hr)

    assert lr.shape == (2, 2, 3, 8, 8)
    assert lr.min() >= 0
    assert lr.max() <= 1
    torch.testing.assert_close(lr * 255, levels(lr).float(), rtol=0, atol=1e-4)


def test_bicubic_refuses_sides_that_are_not_multiples_of_four():
    with pytest.raises(ValueError, match="multiples of 4, got 8 x 10"):
        shrink_bicubic(torch.zeros(3, 8, 10))


@pytest.mark.parametrize(("height", "width"), [(24, 24), (36, 52)])
def test_bi_agrees_with_matlab_imresize_away_from_the_border(height, width):
    hr = to_8_bits(draw_randomly(2, 3, height, width))

    lr = degrade(hr / 255, Degradation.BI, RNG)

    # Beyond the border MATLAB sees the mirror image, Pillow and PyTorch nothing: two LR pixels.
    expected = by_hand(hr.numpy(), imresize_weights).round().clip(0, 255)
    difference = np.abs(levels(lr).numpy() - expected)[..., 2:-2, 2:-2]
    assert difference.size
    assert difference.max() <= 1


# BD


@pytest.mark.parametrize(("height", "width"), [(16, 16), (36, 52)])
def test_bd_is_a_gaussian_blur_of_which_every_fourth_pixel_is_taken(height, width):
    hr = to_8_bits(draw_randomly(2, 3, height, width))

    lr = degrade(hr / 255, Degradation.BD, RNG)

    expected = by_hand(hr.numpy(), gaussian_weights)
    assert lr.shape == (2, 3, height // 4, width // 4)
    assert np.abs(levels(lr).numpy() - expected).max() <= 0.51


def test_bd_weights_by_hand():
    # A white line between dark ones: exp(-0.5^2 / 5.12) of 4.0106, the sum of all twelve.
    hr = torch.zeros(3, 16, 16)
    hr[:, :, 6] = 1

    lr = blur_and_subsample(hr)

    # Its distances to the middles 1.5, 5.5, 9.5: 4.5, 0.5, 3.5; 15.5 is out of reach.
    row = [round(255 * np.exp(-(d**2) / 5.12) / 4.0106) for d in (4.5, 0.5, 3.5)] + [0]
    assert levels(lr)[0, 0].tolist() == row == [1, 61, 6, 0]


def test_bi_and_bd_do_not_shift_the_image():
    y, x = np.mgrid[:64, :64] + 0.5
    spot = np.exp(-((y - 29.3) ** 2 + (x - 35.9) ** 2) / (2 * 5.0**2))
    hr = torch.from_numpy(spot).float().expand(3, -1, -1)

    for kind in (Degradation.BI, Degradation.BD):
        y, x = center_of(degrade(hr[None], kind, RNG)[0])
        assert (4 * y, 4 * x) == pytest.approx((29.3, 35.9), abs=0.1)


def test_bd_is_softer_than_bi():
    hr = smooth_picture(64, 64, wavelength=12.0)[None]

    assert degrade(hr, Degradation.BD, RNG).std() < degrade(hr, Degradation.BI, RNG).std()


@pytest.mark.parametrize("kind", Degradation)
def test_degradations_refuse_sides_that_are_not_multiples_of_four(kind):
    with pytest.raises(ValueError, match="multiples of 4, got 8 x 10"):
        degrade(torch.zeros(1, 3, 8, 10), kind, RNG)


def test_bi_and_bd_draw_no_random_numbers():
    hr = draw_randomly(2, 3, 16, 16)
    before = RNG.bit_generator.state

    for kind in (Degradation.BI, Degradation.BD):
        degrade(hr, kind, RNG)

    assert RNG.bit_generator.state == before
