"""Luma and PSNR in the units of the literature."""

import math

import pytest
import torch
from networks import draw_randomly

from vsrm_cli.training.metrics import luma, psnr_y


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


def test_the_psnr_of_an_even_error_by_hand():
    # One level of grey is 219 / 255 of luma: 20 log10(255 / (5 * 219 / 255))
    restored, sharp = even(*[105 / 255] * 3), even(*[100 / 255] * 3)

    assert psnr_y(restored, sharp) == pytest.approx(20 * math.log10(255 * 255 / (5 * 219)))


def test_an_error_in_one_pixel_is_averaged_over_the_frame():
    sharp = torch.zeros(3, 4, 5)
    restored = sharp.clone()
    restored[:, 0, 0] = 1

    assert psnr_y(restored, sharp) == pytest.approx(10 * math.log10(20 * 255**2 / 219**2))


def test_equal_pictures_have_no_error_at_all():
    x = (draw_randomly(3, 4, 5) * 255).round() / 255

    assert psnr_y(x, x) == math.inf


def test_the_restored_picture_is_rounded_to_8_bits_and_kept_in_range():
    sharp = even(1.0, 0.0, 100 / 255)

    assert psnr_y(even(1.7, -0.4, 100.4 / 255), sharp) == math.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_measured_in_double_precision(dtype):
    restored, sharp = even(0.25, 0.5, 0.75).to(dtype), even(0.5, 0.5, 0.5)

    expected = psnr_y(restored.float(), sharp)
    assert psnr_y(restored, sharp) == pytest.approx(expected, rel=1e-12)
