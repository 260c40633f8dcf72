"""Photos and clips of a pack are loaded as they were stored; detail and downscaling."""

import numpy as np
import pytest
import torch
from networks import draw_randomly
from PIL import Image
from safetensors.torch import save_file
from scenes import to_8_bits

from vsrm_cli.data.crops import measure_detail, shrink
from vsrm_cli.data.packs import load_pack


def test_photos_and_clips_are_loaded_by_name(tmp_path):
    photo, clip = to_8_bits(draw_randomly(3, 5, 7)), to_8_bits(draw_randomly(2, 3, 5, 7))
    save_file({"clip.0": clip, "photo.0": photo, "photo.1": photo + 1}, tmp_path / "pack")

    photos, clips = load_pack(tmp_path / "pack")

    assert list(photos) == ["0", "1"]
    assert list(clips) == ["0"]
    assert torch.equal(photos["1"], photo + 1)
    assert torch.equal(clips["0"], clip)


def test_names_may_contain_dots(tmp_path):
    save_file({"clip.city.2": torch.zeros(1, 3, 4, 4, dtype=torch.uint8)}, tmp_path / "pack")

    assert list(load_pack(tmp_path / "pack")[1]) == ["city.2"]


def test_the_detail_of_stripes_by_hand():
    # Columns 0, 10, 0, 10: ten levels from each to the next, none from row to row.
    stripes = torch.tensor([0, 10, 0, 10], dtype=torch.uint8).expand(3, 5, 4)

    assert measure_detail(stripes) == 10
    assert measure_detail(stripes.transpose(1, 2)) == 10
    assert measure_detail(torch.full((3, 4, 4), 200)) == 0


def test_downscaling_agrees_with_pillow():
    images = to_8_bits(draw_randomly(2, 3, 30, 40))

    lr = shrink(images, 0.5)

    assert lr.shape == (2, 3, 15, 20)
    assert lr.dtype == torch.uint8
    for image, found in zip(images, lr, strict=True):
        expected = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(
            (20, 15), Image.Resampling.BICUBIC
        )
        # Pillow rounds twice, once after each direction.
        difference = found.permute(1, 2, 0).numpy().astype(int) - np.array(expected, dtype=int)
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(("factor", "size"), [(0.4, (12, 16)), (0.9, (27, 36))])
def test_any_factor_gives_the_expected_size(factor, size):
    assert shrink(to_8_bits(draw_randomly(3, 30, 40)), factor).shape == (3, *size)
