"""Every size option keeps the display aspect ratio."""

from fractions import Fraction

import pytest
from clips import make_clip
from hypothesis import given
from hypothesis import strategies as st

from vsrm_cli.media.geometry import OutputShape, output_shape
from vsrm_cli.media.probe import VideoInfo, probe

TURNED = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
UPSIDE_DOWN = (-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30)
PAL_WIDE = Fraction(64, 45)
FOUR = Fraction(4)


def info_of(width, height, *, pixel=None, matrix=None):
    facts = dict.fromkeys(VideoInfo.__slots__)
    facts |= {"width": width, "height": height}
    facts |= {"sample_aspect_ratio": pixel, "display_matrix": matrix}
    return VideoInfo(**facts)


def on_screen(shape, *, turned):
    width = shape.width * (shape.sample_aspect_ratio or 1)
    return (shape.height, width) if turned else (width, shape.height)


@pytest.mark.parametrize(
    ("scale", "size"),
    [("4", (1440, 960)), ("2", (720, 480)), ("3", (1080, 720)), ("3/2", (540, 360))],
)
def test_a_scale_multiplies_both_sides(scale, size):
    shape = output_shape(info_of(360, 240), scale=Fraction(scale))

    assert shape == OutputShape(*size, None)


def test_odd_sizes_are_rounded_to_even():
    assert output_shape(info_of(37, 23), scale=Fraction(3)) == OutputShape(112, 68, None)


def test_a_height_is_the_displayed_height():
    dvd = output_shape(info_of(720, 576, pixel=PAL_WIDE), scale=FOUR, height=1080)
    phone = output_shape(info_of(640, 360, matrix=TURNED), scale=FOUR, height=1280)

    assert dvd == OutputShape(1350, 1080, PAL_WIDE)  # 1920 wide on the screen
    assert phone == OutputShape(1280, 720, None)


@pytest.mark.parametrize(
    ("info", "box", "expected"),
    [
        (info_of(640, 360), (1920, 1080), OutputShape(1920, 1080, None)),
        (info_of(640, 480), (1920, 1080), OutputShape(1440, 1080, None)),
        (info_of(1000, 400), (1920, 1080), OutputShape(1920, 768, None)),
        (info_of(720, 576, pixel=PAL_WIDE), (1920, 1080), OutputShape(1920, 1080, Fraction(1))),
        (info_of(640, 360, matrix=TURNED), (1080, 1920), OutputShape(1920, 1080, None)),
        (info_of(640, 360, matrix=UPSIDE_DOWN), (1920, 1080), OutputShape(1920, 1080, None)),
    ],
)
def test_a_box_is_filled_in_one_direction_with_square_pixels(info, box, expected):
    assert output_shape(info, scale=FOUR, box=box) == expected


@given(
    width=st.integers(64, 4000),
    height=st.integers(64, 4000),
    pixel=st.sampled_from([None, Fraction(1), PAL_WIDE, Fraction(8, 9), Fraction(4, 3)]),
    matrix=st.sampled_from([None, TURNED, UPSIDE_DOWN]),
    wish=st.sampled_from([{"scale": Fraction(3, 2)}, {"height": 1080}, {"box": (1280, 720)}]),
)
def test_the_display_aspect_ratio_is_kept_up_to_rounding(width, height, pixel, matrix, wish):
    info = info_of(width, height, pixel=pixel, matrix=matrix)
    turned = info.is_turned

    shape = output_shape(info, **({"scale": FOUR} | wish))

    before = on_screen(OutputShape(width, height, pixel), turned=turned)
    after = on_screen(shape, turned=turned)
    # Each side may be rounded by one pixel, a pixel may be as wide as 64:45.
    slack = (after[0] + 2) / max(1, after[1] - 2) - (after[0] - 2) / (after[1] + 2)
    assert abs(before[0] / before[1] - after[0] / after[1]) <= slack
    assert shape.width % 2 == shape.height % 2 == 0


def test_the_rotation_of_a_real_file_is_read(tmp_path):
    clip = make_clip(tmp_path / "turned.mp4", prepare=lambda video: video.set_display_rotation(90))

    assert probe(clip).is_turned
    assert not probe(make_clip(tmp_path / "plain.mp4")).is_turned
