"""Options: each value is read without rounding, or refused in one sentence."""

from fractions import Fraction

import pytest

from vsrm_cli.errors import UsageError
from vsrm_cli.upscale.options import UpscaleOptions, read_tile, read_time


def read_options(**changes):
    return UpscaleOptions.read(**({"window": 16} | changes))


def test_an_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match="there is no option 'windows'"):
        UpscaleOptions.read(windows=3)


def test_options_without_values_have_their_defaults():
    assert UpscaleOptions.read() == UpscaleOptions()
    assert UpscaleOptions.read(tile="auto", overlap=None, deinterlace="auto", hwaccel="off") == (
        UpscaleOptions()
    )


def test_a_journal_of_an_earlier_version_names_the_same_options():
    told = UpscaleOptions.read(size="1920x1080", start="1:30", pix_fmt="yuv444p").for_journal()

    assert told == {
        "window": "32",
        "overlap": "8",
        "tile": "auto",
        "device": "auto",
        "dtype": "auto",
        "start": "90",
        "end": None,
        "scale": "4",
        "height": None,
        "box": "(1920, 1080)",
        "deinterlace": "True",
        "fps": "25",
        "segment frames": None,
        "hwaccel": "False",
        "detail": None,
        "codec": "auto",
        "audio": "copy",
        "crf": None,
        "preset": None,
        "pixel format": "yuv444p",
    }


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90", Fraction(90)),
        ("0.1", Fraction(1, 10)),
        (".5", Fraction(1, 2)),
        ("1:30.5", Fraction(181, 2)),
        ("90:00", Fraction(5400)),
        ("01:00:00.04", Fraction(90001, 25)),
        (0.1, Fraction(1, 10)),
        (7, Fraction(7)),
        (Fraction(1, 3), Fraction(1, 3)),
        (None, None),
    ],
)
def test_a_time_is_read_exactly(written, seconds):
    assert read_time(written, name="start") == seconds


@pytest.mark.parametrize(
    "written", ["", "soon", "-1", "1:60", "1:60:00", "1:2:3:4", "1e3", " 5", "٣", "nan"]
)
def test_a_time_of_another_form_is_refused_with_an_example(written):
    with pytest.raises(UsageError, match=r"The start must be .* such as 90\.5 or 1:30\.5"):
        read_time(written, name="start")


@pytest.mark.parametrize("number", [-1, -0.5, float("nan"), float("inf")])
def test_an_invalid_number_of_seconds_is_refused(number):
    with pytest.raises(UsageError, match="The end must be 0 seconds or more"):
        read_time(number, name="end")


@pytest.mark.parametrize(
    ("written", "tile"),
    [("auto", "auto"), ("off", None), (None, None), ("128", 128), (96, 96)],
)
def test_a_tile_is_a_number_or_a_word(written, tile):
    assert read_tile(written) == tile


@pytest.mark.parametrize("written", ["0", "-64", "64.0", "big", "", 0])
def test_any_other_tile_is_refused(written):
    with pytest.raises(UsageError, match="The tile must be auto, off or a number of pixels"):
        read_tile(written)


@pytest.mark.parametrize(("window", "overlap"), [(16, 4), (7, 1), (2, 0), (1, 0), (100, 8)])
def test_a_small_window_has_a_small_overlap_by_default(window, overlap):
    assert read_options(window=window).overlap == overlap


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 0}, "window must be 1 frame or more, not 0"),
        ({"overlap": 9}, "overlap must be 0 to 8, half of the window of 16 frames, not 9"),
        ({"overlap": -1}, "overlap must be 0 to 8"),
        ({"device": "gpu"}, 'device must be auto, cpu, cuda, .* such as cuda:0,cuda:1, not "gpu"'),
        ({"device": "cuda:"}, "device must be"),
        ({"device": "cpu,"}, "device must be"),
        ({"device": "auto,cpu"}, "device must be"),
        ({"dtype": "float16"}, 'dtype must be auto, fp32, fp16, bf16, not "float16"'),
        ({"end": "0"}, r"end \(0\) must come after the start \(0\)"),
        ({"start": 2, "end": "0:02"}, r"end \(0:02\) must come after the start \(2\)"),
    ],
)
def test_an_invalid_value_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        read_options(**changes)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:11", "mps", "cuda:all", "cpu,cpu"])
def test_devices_are_taken_as_written(device):
    assert read_options(device=device).device == device


@pytest.mark.parametrize(
    ("written", "scale"),
    [
        (None, 4),
        ("2", 2),
        ("1.5", Fraction(3, 2)),
        (3, 3),
        (1.1, Fraction(11, 10)),
        ("4/3", Fraction(4, 3)),
    ],
)
def test_a_scale_is_read_exactly(written, scale):
    assert read_options(scale=written).scale == scale


@pytest.mark.parametrize("written", ["0", "0.5", "17", "-2", "big", "1/0", float("nan")])
def test_a_scale_out_of_range_is_refused(written):
    with pytest.raises(UsageError, match="The scale must be a number from 1 to 16"):
        read_options(scale=written)


def test_a_size_is_a_box_of_two_even_sides():
    assert read_options(size="1920x1080").size == (1920, 1080)
    assert read_options(height=720).height == 720


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"size": "1920"}, "must be written such as 1920x1080"),
        ({"size": "1920*1080"}, "must be written such as 1920x1080"),
        ({"size": "1921x1080"}, "width must be an even number of pixels from 16 to 16384"),
        ({"height": 1081}, "height must be an even number"),
        ({"height": 8}, "height must be an even number"),
        ({"height": 720, "scale": 2}, "only one of --scale, --height and --size"),
        ({"height": 720, "size": "1280x720"}, "only one of"),
        ({"deinterlace": "yes"}, 'must be auto, off, tff, bff, not "yes"'),
        ({"detail": 1.5}, "must be a number from 0 to 1, not 1.5"),
        ({"detail": -0.1}, "must be a number from 0 to 1, not -0.1"),
        ({"detail": float("nan")}, "must be a number from 0 to 1, not nan"),
    ],
)
def test_an_invalid_size_is_refused(wish, message):
    with pytest.raises(UsageError, match=message):
        read_options(**wish)


@pytest.mark.parametrize(
    ("given", "is_open"),
    [({}, True), ({"scale": 4}, False), ({"scale": 2}, False), ({"height": 1080}, False)],
)
def test_without_a_size_option_the_scale_of_the_network_is_used(given, is_open):
    assert read_options(**given).is_size_open is is_open
