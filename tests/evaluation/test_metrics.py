"""PSNR and SSIM by the rules and in the units of the literature."""

import math

import pytest
import torch
from networks import draw_randomly
from scenes import smooth_picture
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vsrm_cli.evaluation.metrics import gradient_energy, luma, psnr, psnr_y, sharpness, ssim


def even(red, green, blue):
    return torch.tensor([red, green, blue]).view(3, 1, 1).expand(3, 2, 4)


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ((0.0, 0.0, 0.0), 16.0),
        ((1.0, 1.0, 1.0), 235.0),
        ((1.0, 0.0, 0.0), 81.481),
        ((0.0, 1.0, 0.0), 144.553),
        ((0.0, 0.0, 1.0), 40.966),
        ((0.5, 0.5, 0.5), 125.5),
    ],
    ids=["black", "white", "red", "green", "blue", "grey"],
)
def test_the_luma_of_plain_colors(color, expected):
    y = luma(even(*color))

    assert y.shape == (2, 4)
    assert y.dtype == torch.float64
    assert y[0, 0].item() == pytest.approx(expected, abs=1e-9)


def test_luma_takes_whole_clips():
    clip = draw_randomly(2, 3, 3, 4, 5)

    assert torch.equal(luma(clip)[1, 2], luma(clip[1, 2]))


def test_the_psnr_of_a_constant_error_by_hand():
    # One level of grey is 219 / 255 of luma: 20 log10(255 / (5 * 219 / 255))
    restored, hr = even(*[105 / 255] * 3), even(*[100 / 255] * 3)

    assert psnr_y(restored, hr) == pytest.approx(20 * math.log10(255 * 255 / (5 * 219)))


def test_an_error_in_one_pixel_is_averaged_over_the_frame():
    hr = torch.zeros(3, 4, 5)
    restored = hr.clone()
    restored[:, 0, 0] = 1

    assert psnr_y(restored, hr) == pytest.approx(10 * math.log10(20 * 255**2 / 219**2))


def test_equal_images_have_infinite_psnr():
    x = (draw_randomly(3, 4, 5) * 255).round() / 255

    assert psnr_y(x, x) == math.inf


def test_restored_frames_are_rounded_to_8_bits_and_clipped():
    hr = even(1.0, 0.0, 100 / 255)

    assert psnr_y(even(1.7, -0.4, 100.4 / 255), hr) == math.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_measured_in_double_precision(dtype):
    restored, hr = even(0.25, 0.5, 0.75).to(dtype), even(0.5, 0.5, 0.5)

    expected = psnr_y(restored.float(), hr)
    assert psnr_y(restored, hr) == pytest.approx(expected, rel=1e-12)


def noisy(picture, *, seed=1):
    return picture + 0.05 * (draw_randomly(*picture.shape, seed=seed) - 0.5)


PICTURES = {
    "random": (draw_randomly(3, 37, 52), draw_randomly(3, 37, 52, seed=1)),
    "drawn": (
        smooth_picture(64, 81, wavelength=9.0),
        noisy(smooth_picture(64, 81, wavelength=9.0)),
    ),
    "dark": (0.02 * draw_randomly(3, 24, 24), noisy(torch.zeros(3, 24, 24))),
}


def as_skimage_sees(picture, *, on_luma, crop):
    """Grey levels of the rounded picture, (H, W, channels) float64, by scikit-image's luma."""
    height, width = picture.shape[1:]
    levels = (picture.double().clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    levels = levels[crop : height - crop, crop : width - crop]
    return rgb2ycbcr(levels / 255)[..., :1] if on_luma else levels


@pytest.mark.parametrize("crop", [0, 4])
@pytest.mark.parametrize("on_luma", [True, False], ids=["y", "rgb"])
@pytest.mark.parametrize("name", PICTURES)
def test_psnr_and_ssim_agree_with_scikit_image(name, on_luma, crop):
    restored, hr = PICTURES[name]
    a, b = (as_skimage_sees(x, on_luma=on_luma, crop=crop) for x in (restored, hr))

    expected_psnr = peak_signal_noise_ratio(b, a, data_range=255)
    expected_ssim = structural_similarity(
        a,
        b,
        data_range=255,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )

    assert psnr(restored, hr, on_luma=on_luma, crop=crop) == pytest.approx(expected_psnr, abs=1e-4)
    assert ssim(restored, hr, on_luma=on_luma, crop=crop) == pytest.approx(expected_ssim, abs=1e-6)


@pytest.mark.parametrize(
    ("on_luma", "golden_psnr", "golden_ssim"),
    [(True, 34.0120445, 0.895429531), (False, 32.6901232, 0.883649696)],
    ids=["y", "rgb"],
)
def test_the_golden_values_of_a_generated_image(on_luma, golden_psnr, golden_ssim):
    # A ramp and the same ramp with every third column ten levels brighter.
    ramp = torch.arange(40, dtype=torch.float64).expand(3, 30, 40) * 5
    striped = ramp + 10 * (torch.arange(40) % 3 == 0)

    found = (
        psnr(striped / 255, ramp / 255, on_luma=on_luma),
        ssim(striped / 255, ramp / 255, on_luma=on_luma),
    )

    assert found == pytest.approx((golden_psnr, golden_ssim), abs=1e-6)


def test_ssim_of_constant_images_by_hand():
    # Without any variance only the means count: (2ab + C1) / (a^2 + b^2 + C1)
    a, b, c1 = 100.0, 120.0, 2.55**2

    found = ssim(torch.full((3, 16, 16), a / 255), torch.full((3, 16, 16), b / 255), on_luma=False)

    assert found == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-9)


def test_equal_images_have_ssim_1():
    x = draw_randomly(3, 20, 20)

    assert ssim(x, x, on_luma=True) == pytest.approx(1.0, abs=1e-12)


def test_the_cropped_border_is_ignored():
    hr = draw_randomly(3, 24, 30)
    framed = hr.clone()
    framed[:, :4] = framed[:, -4:] = 0
    framed[:, :, :4] = framed[:, :, -4:] = 1

    assert psnr(framed, hr, on_luma=False, crop=4) == math.inf
    assert psnr(framed, hr, on_luma=False, crop=3) < 30
    assert ssim(framed, hr, on_luma=False, crop=4) == pytest.approx(1.0, abs=1e-12)


def test_an_image_smaller_than_the_window_is_refused():
    with pytest.raises(ValueError, match="11 pixels each way, got 12x10"):
        ssim(draw_randomly(3, 10, 12), draw_randomly(3, 10, 12), on_luma=True)


def test_sharpness_is_the_remaining_share_of_the_contrast():
    # Columns of 0 and 255: of 3 differences each is 219 levels of luma; half of them, 110.
    stripes = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(3, 4, 4)
    energy, half = gradient_energy(stripes), gradient_energy(0.25 + stripes / 2)

    assert energy == pytest.approx(219.0**2, rel=1e-4)
    assert sharpness([(half, energy)]) == pytest.approx(0.5, rel=0.01)
    assert sharpness([(energy, 0.0)]) == math.inf
