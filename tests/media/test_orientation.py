"""Pixels are rotated as players and photo viewers show them."""

import numpy as np
import pytest
from clips import make_clip, picture
from PIL import Image, ImageOps

from vsrm_cli.decode.image_sequence import read_image
from vsrm_cli.decode.video import VideoReader
from vsrm_cli.media.orientation import exif_matrix

RNG = np.random.default_rng(2)


def make_photo(path, orientation):
    """A photo of blocks that every rotation and flip changes."""
    blocks = RNG.integers(0, 256, (4, 6, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    photo = Image.fromarray(blocks)
    exif = photo.getexif()
    exif[0x0112] = orientation
    photo.save(path, exif=exif.tobytes(), **({"quality": 95} if path.suffix == ".jpg" else {}))
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_a_photo_is_upright_as_in_a_viewer(tmp_path, ending, orientation):
    photo = make_photo(tmp_path / f"photo.{ending}", orientation)
    with Image.open(photo) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))

    pixels = read_image(photo).transpose(1, 2, 0)

    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 6


def test_a_photo_without_a_valid_orientation_tag_is_unchanged(tmp_path):
    Image.fromarray(picture(1)).save(tmp_path / "plain.jpg")
    cut = make_photo(tmp_path / "cut.png", 6)
    cut.write_bytes(cut.read_bytes()[:60])

    assert exif_matrix(tmp_path / "plain.jpg") is None
    assert exif_matrix(cut) is None


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_rotated_video_is_read_upright_on_request(tmp_path, turn):
    clip = make_clip(tmp_path / "phone.mp4", prepare=lambda video: video.set_display_rotation(turn))

    with VideoReader(clip) as stored, VideoReader(clip, turns_upright=True) as upright:
        before, after = next(iter(stored)), next(iter(upright))

    np.testing.assert_array_equal(after.pixels, np.rot90(before.pixels, turn // 90, (1, 2)))
    assert (upright.info.width, upright.info.height) == after.pixels.shape[:0:-1]
    assert upright.info.display_matrix is None
