"""A WebP file shows the frame that it was made of."""

import io

import numpy as np
import pytest
from PIL import Image
from scenes import smooth_picture, to_8_bits

from vsrm_cli.encode.webp import encode_webp


@pytest.mark.parametrize("size", [(1, 1), (31, 47), (120, 160)])
def test_a_webp_shows_its_frame(size):
    frame = to_8_bits(smooth_picture(*size, wavelength=30.0)).numpy()

    seen = np.moveaxis(np.asarray(Image.open(io.BytesIO(encode_webp(frame, quality=90)))), -1, 0)

    assert seen.shape == frame.shape
    assert np.abs(seen.astype(int) - frame).mean() < 4


def test_less_quality_makes_a_smaller_file():
    frame = to_8_bits(smooth_picture(120, 160, wavelength=9.0)).numpy()

    assert len(encode_webp(frame, quality=40)) < len(encode_webp(frame, quality=90))
