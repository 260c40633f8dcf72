"""Colors round-trip with the matrix and range of the file."""

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from color_bars import BT601, BT709, BT2020, FULL, LIMITED, color_bars, plane_of

from vsrm_cli.media.color import (
    Color,
    FromRgb,
    ToRgb,
    bit_depth,
    color_of,
    has_chroma_location,
    luma_of,
)

RGB, UNSPECIFIED = 0, 2


def flat_frame(values, *, pixel_format="yuv444p", matrix=BT709, color_range=LIMITED):
    frame = VideoFrame(16, 16, pixel_format)
    for index, value in enumerate(values):
        plane_of(frame, index)[:] = value
    frame.colorspace, frame.color_range = matrix, color_range
    return frame


def there_and_back(frame):
    color = color_of(frame)
    pixels = ToRgb(width=frame.width, height=frame.height)(frame, color)
    return FromRgb(color, frame.format.name, width=frame.width, height=frame.height)(pixels)


@pytest.mark.parametrize(
    ("matrix", "color_range", "yuv", "rgb"),
    [
        (BT709, LIMITED, (235, 128, 128), (255, 255, 255)),
        (BT709, LIMITED, (16, 128, 128), (0, 0, 0)),
        (BT709, FULL, (235, 128, 128), (235, 235, 235)),
        (BT601, LIMITED, (81, 90, 240), (255, 0, 0)),
        (BT601, LIMITED, (41, 240, 110), (0, 0, 255)),
        (BT709, LIMITED, (63, 102, 240), (255, 0, 0)),
        (BT601, FULL, (76, 85, 255), (254, 0, 0)),
    ],
)
def test_a_color_computed_by_hand_is_decoded(matrix, color_range, yuv, rgb):
    frame = flat_frame(yuv, matrix=matrix, color_range=color_range)

    pixels = ToRgb(width=16, height=16)(frame, color_of(frame))

    np.testing.assert_allclose(pixels[:, 8, 8].astype(int), rgb, atol=1)


@pytest.mark.parametrize("color_range", [LIMITED, FULL], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [BT709, BT601], ids=["bt709", "bt601"])
def test_color_bars_round_trip_within_one_code_value(matrix, color_range):
    frame = color_bars("yuv444p", matrix, color_range)

    back = there_and_back(frame)

    for index in range(3):
        np.testing.assert_allclose(
            plane_of(back, index).astype(int), plane_of(frame, index).astype(int), atol=1
        )


@pytest.mark.parametrize("color_range", [LIMITED, FULL], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [BT709, BT601], ids=["bt709", "bt601"])
def test_flat_patches_in_420_round_trip_within_one_code_value(matrix, color_range):
    frame = color_bars("yuv420p", matrix, color_range, patch=32)

    back = there_and_back(frame)

    for index, step in enumerate((32, 16, 16)):  # the middle of each patch, away from its edges
        before, after = plane_of(frame, index), plane_of(back, index)
        middle = np.s_[step // 2, step // 2 :: step]
        np.testing.assert_allclose(after[middle].astype(int), before[middle].astype(int), atol=1)


def test_ten_bits_stay_ten_bits():
    ramp = VideoFrame(1024, 16, "yuv444p10le")
    plane_of(ramp, 0)[:] = np.arange(1024).clip(64, 940)
    plane_of(ramp, 1)[:] = plane_of(ramp, 2)[:] = 512
    ramp.colorspace, ramp.color_range = BT709, LIMITED

    pixels = ToRgb(width=1024, height=16)(ramp, color_of(ramp))
    back = FromRgb(color_of(ramp), "yuv444p10le", width=1024, height=16)(pixels)

    assert pixels.dtype == np.uint16
    assert pixels.min() == 0
    assert pixels.max() == 65535
    assert len(np.unique(pixels[1])) == 940 - 64 + 1
    np.testing.assert_allclose(plane_of(back, 0).astype(int), plane_of(ramp, 0), atol=1)


@pytest.mark.parametrize(
    ("width", "height", "matrix"),
    [(720, 576, BT601), (640, 480, BT601), (1280, 720, BT709), (1920, 540, BT709)],
)
def test_without_a_tag_the_matrix_follows_the_size(width, height, matrix):
    color = color_of(VideoFrame(width, height, "yuv420p"))

    assert color.matrix == matrix
    assert not color.full_range
    assert color.guessed


# Reserved, and derived from the primaries.
@pytest.mark.parametrize("matrix", [3, 12])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le"])
def test_an_unsupported_matrix_is_treated_like_a_missing_tag(matrix, pixel_format):
    drawn = VideoFrame.from_ndarray(np.full((48, 64, 3), 180, np.uint8), format="rgb24")
    frame = drawn.reformat(format=pixel_format)
    frame.colorspace = matrix

    luma, pixels = luma_of(frame), ToRgb(width=64, height=48)(frame, color_of(frame))

    assert np.abs(luma.astype(int) - 180).max() <= 2
    assert np.abs(pixels.astype(float) / np.iinfo(pixels.dtype).max * 255 - 180).max() <= 2


def test_a_matrix_tag_is_used_for_any_size():
    frame = VideoFrame(640, 480, "yuv420p")
    frame.colorspace, frame.color_range = BT709, FULL
    frame.color_primaries, frame.color_trc = 9, 16

    color = color_of(frame)

    assert color == Color(BT709, True, primaries=9, transfer=16, guessed=False)


@pytest.mark.parametrize(
    ("pixel_format", "kind"),
    [
        *[(name, np.uint8) for name in ("yuv420p", "yuvj420p", "yuv410p", "yuv411p", "nv12")],
        *[(name, np.uint8) for name in ("yuv422p", "yuyv422", "gray", "ya8", "monob", "pal8")],
        *[(name, np.uint8) for name in ("rgb24", "bgra", "gbrp", "rgb565le", "yuva420p")],
        *[(name, np.uint16) for name in ("yuv420p10le", "yuv444p12le", "gray16le", "p010le")],
        *[(name, np.uint16) for name in ("rgb48le", "gbrp10le", "gbrpf32le", "yuva444p16le")],
    ],
)
def test_any_pixel_format_of_odd_size_is_converted_to_rgb(pixel_format, kind):
    frame = VideoFrame(37, 23, pixel_format)

    pixels = ToRgb(width=37, height=23)(frame, color_of(frame))

    assert pixels.shape == (3, 23, 37)
    assert pixels.dtype == kind


@pytest.mark.parametrize("pixel_format", ["rgb24", "gbrp", "bgr0", "bgra"])
def test_rgb_is_unchanged(pixel_format):
    colors = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    frame = VideoFrame.from_ndarray(colors).reformat(format=pixel_format)

    pixels = ToRgb(width=16, height=16)(frame, color_of(frame))

    np.testing.assert_array_equal(pixels, colors.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("color_range", "white"), [(LIMITED, 235), (FULL, 255), (0, 255)], ids=["limited", "full", "?"]
)
def test_white_of_gray_video_is_white(color_range, white):
    frame = flat_frame([white], pixel_format="gray", color_range=color_range)

    pixels = ToRgb(width=16, height=16)(frame, color_of(frame))

    assert pixels.min() == 255


def test_alpha_is_dropped():
    frame = flat_frame((235, 128, 128, 0), pixel_format="yuva420p")

    pixels = ToRgb(width=16, height=16)(frame, color_of(frame))

    assert pixels.min() == 255


def test_a_frame_of_another_size_is_scaled_to_the_size_of_the_video():
    frame = flat_frame((235, 128, 128))

    pixels = ToRgb(width=24, height=12)(frame, color_of(frame))

    assert pixels.shape == (3, 12, 24)
    assert pixels.min() == 255


def test_rgb_stored_as_yuv_uses_the_matrix_of_the_output_size():
    rgb = Color(RGB, full_range=True)

    assert rgb.fitted("gbrp", width=64, height=64) == rgb
    assert rgb.fitted("yuv420p", width=64, height=64) == Color(BT601, full_range=False)
    assert rgb.fitted("yuv420p", width=1920, height=1080) == Color(BT709, full_range=False)


def test_yuv_keeps_its_matrix_at_any_size():
    color = Color(BT601, full_range=True, primaries=5, transfer=6)

    assert color.fitted("yuv420p", width=1920, height=1080) == color


def test_frames_have_color_tags():
    color = Color(BT709, full_range=False, primaries=1, transfer=1)

    frame = FromRgb(color, "yuv420p", width=16, height=16)(np.zeros((3, 16, 16), np.uint8))

    tags = (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
    assert tags == (BT709, LIMITED, 1, 1)
    assert frame.format.name == av.VideoFormat("yuv420p").name


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_downscaling_keeps_the_mean_and_does_not_alias(kind):
    peak = np.iinfo(kind).max
    stripes = np.zeros((3, 64, 64), kind)
    stripes[:, :, ::2] = peak  # finer than the smaller picture can show

    frame = FromRgb(Color(BT709, full_range=True), "yuv444p", width=32, height=32)(stripes)

    luma = plane_of(frame, 0).astype(int)
    assert luma.shape == (32, 32)
    assert abs(luma.mean() - 127.5) < 1.5
    assert np.ptp(luma[:, 4:-4]) <= 4


def test_resizing_does_not_shift_the_frame():
    ramp = np.repeat(np.arange(0, 256, 2, dtype=np.uint8)[None], 96, axis=0)

    frame = FromRgb(Color(BT709, full_range=True), "yuv444p", width=48, height=36)(
        np.stack([ramp] * 3)
    )

    expected = (np.arange(48) + 0.5) * 128 / 48 * 2 - 1
    row = plane_of(frame, 0)[18].astype(float)
    np.testing.assert_allclose(row[4:-4], expected[4:-4], atol=1)


@pytest.mark.parametrize("color_range", [LIMITED, FULL], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [BT709, BT601, BT2020], ids=["bt709", "bt601", "bt2020"])
@pytest.mark.parametrize("pixel_format", ["yuv444p10le", "yuv444p12le"])
def test_high_bit_depth_color_bars_round_trip(pixel_format, matrix, color_range):
    frame = color_bars(pixel_format, matrix, color_range)

    back = there_and_back(frame)

    # swscale's matrices have 14 bits, which leaves two steps of 4095 to rounding.
    tolerance = 2 if pixel_format == "yuv444p12le" and color_range == FULL else 1
    for index in range(3):
        np.testing.assert_allclose(
            plane_of(back, index).astype(int), plane_of(frame, index).astype(int), atol=tolerance
        )


@pytest.mark.parametrize("color_range", [LIMITED, FULL], ids=["limited", "full"])
@pytest.mark.parametrize("pixel_format", ["yuv444p10le", "yuv444p12le", "yuv420p10le"])
def test_white_and_black_of_high_bit_depth_video_span_the_whole_range(pixel_format, color_range):
    bits = bit_depth(pixel_format)
    unit, peak = 1 << (bits - 8), (1 << bits) - 1
    black, white = (16 * unit, 235 * unit) if color_range == LIMITED else (0, peak)
    for luma, expected in ((black, 0), (white, 65535)):
        values = (luma, 128 * unit, 128 * unit)
        frame = flat_frame(values, pixel_format=pixel_format, color_range=color_range)

        pixels = ToRgb(width=16, height=16)(frame, color_of(frame))

        assert (pixels.min(), pixels.max()) == (expected, expected)
        back = FromRgb(color_of(frame), pixel_format, width=16, height=16)(pixels)
        assert set(plane_of(back, 0).ravel()) == {luma}


@pytest.mark.parametrize("pixel_format", ["gray", "gray10le", "gray12le", "gray16le"])
def test_gray_round_trips_exactly(pixel_format):
    ramp = VideoFrame(256, 16, pixel_format)
    steps = np.linspace(0, (1 << bit_depth(pixel_format)) - 1, 256).round()
    plane_of(ramp, 0)[:] = steps

    pixels = ToRgb(width=256, height=16)(ramp, color_of(ramp))
    back = FromRgb(
        color_of(ramp).fitted(pixel_format, width=256, height=16),
        pixel_format,
        width=256,
        height=16,
    )(pixels)

    tolerance = max(1, (1 << bit_depth(pixel_format)) // 1024)
    np.testing.assert_allclose(plane_of(back, 0)[8].astype(int), steps, atol=tolerance)


def test_chroma_is_written_with_left_location():
    # Red increases from left to right; a chroma sample is at the even pixels.
    red = np.repeat((np.arange(128, dtype=np.uint16) * 400)[None], 64, axis=0)
    rest = np.full((64, 128), 30000, np.uint16)
    whole = FromRgb(Color(BT709, True), "yuv444p10le", width=128, height=64)
    halved = FromRgb(Color(BT709, True), "yuv420p10le", width=128, height=64)

    every = plane_of(whole(np.stack([red, rest, rest])), 2)[32].astype(int)
    even = plane_of(halved(np.stack([red, rest, rest])), 2)[16].astype(int)

    np.testing.assert_allclose(even[4:-4], every[8:-8:2], atol=1)


@pytest.mark.parametrize(
    ("codec", "pixel_format", "told"),
    [
        ("h264", "yuv420p", True),
        ("ffv1", "yuv420p", False),
        ("vp9", "yuv420p10le", False),
        ("ffv1", "yuv422p", False),
        ("ffv1", "yuv444p", True),
        ("ffv1", "gbrp", True),
        ("ffv1", "gray", True),
        ("png", "yuvj420p", True),
    ],
)
def test_codecs_without_a_chroma_location_are_known(codec, pixel_format, told):
    assert has_chroma_location(codec, pixel_format) == told


def test_gray_stored_as_yuv_is_limited_range():
    gray = Color(BT601, full_range=True)

    assert not gray.fitted("yuv420p", width=64, height=64, source_format="gray").full_range
    assert gray.fitted("gray", width=64, height=64, source_format="gray").full_range
    assert gray.fitted("yuv420p", width=64, height=64, source_format="yuv420p").full_range


def packed_frame(pixel_format, number):
    """A frame of equal pixels, each one number."""
    frame = av.VideoFrame(18, 6, pixel_format)
    size = 1 if pixel_format.endswith("8") else 2
    order = "big" if pixel_format.endswith("be") else "little"
    for plane in frame.planes:
        plane.update(number.to_bytes(size, order) * (plane.buffer_size // size))
    return frame


@pytest.mark.parametrize(
    ("pixel_format", "number", "rgb"),
    [
        ("rgb555le", 0b11111_11111_11111, (255, 255, 255)),
        ("rgb555be", 0b10000_00000_11111, (132, 0, 255)),
        ("bgr555le", 0b10000_00000_11111, (255, 0, 132)),
        ("rgb565le", 0b00011_111111_00000, (25, 255, 0)),
        ("bgr565be", 0b00000_000001_11111, (255, 4, 0)),
        ("rgb444le", 0b1111_1000_0001, (255, 136, 17)),
        ("rgb8", 0b111_100_11, (255, 146, 255)),
        ("bgr8", 0b01_000_111, (255, 0, 85)),
    ],
)
def test_packed_rgb_fills_the_whole_range(pixel_format, number, rgb):
    frame = packed_frame(pixel_format, number)

    pixels = ToRgb(width=18, height=6)(frame, color_of(frame))

    assert pixels[:, 3, 5].tolist() == list(rgb)


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_white_of_high_bit_depth_planar_rgb_is_white(bits):
    frame = packed_frame(f"gbrp{bits}le", (1 << bits) - 1)

    pixels = ToRgb(width=18, height=6)(frame, color_of(frame))

    assert pixels.min() == 65535
