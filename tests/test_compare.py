"""Two videos side by side: frame n with frame n, at its time, or a clear error."""

import re
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import CONSTANT, MP4_CLOCK, VARIABLE, make_clip, packets, seconds
from html_images import decode_png, images_of
from typer.testing import CliRunner

from vsrm_cli.cli import app as cli
from vsrm_cli.compare import compare_videos
from vsrm_cli.encode.options import EncodingOptions
from vsrm_cli.errors import InputError, OutputError, UsageError

EXACT = EncodingOptions(codec="ffv1", pixel_format="bgr0")
EXACT_CLIP = {"codec": "ffv1", "pixel_format": "bgr0"}


def read(path):
    """Times and pixels, (T, H, W, 3) uint8, of a video."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    times = [frame.pts * frame.time_base for frame in frames]
    return times, np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


@pytest.fixture
def pair(tmp_path):
    """Two equal videos of 64 x 96 pixels, stored exactly."""
    return [
        make_clip(tmp_path / f"{name}.mkv", size=(64, 96), clock=MP4_CLOCK, **EXACT_CLIP)
        for name in ("one", "two")
    ]


def test_side_by_side_has_both_videos_frame_by_frame(pair, tmp_path):
    output = tmp_path / "both.mkv"

    made = compare_videos(*pair, output, encoding=EXACT)

    times, frames = read(output)
    source_times, source = read(pair[0])
    assert (made.frames, made.width, made.height, made.enlarged) == (24, 64, 96, None)
    assert times == source_times
    assert frames.shape == (24, 96, 128, 3)
    above_the_label = slice(0, 80)
    assert (frames[:, above_the_label, :64] == source[:, above_the_label]).all()
    assert (frames[:, above_the_label, 64:] == source[:, above_the_label]).all()
    assert (frames[:, 80:, :64] != source[:, 80:]).any()


def test_irregular_times_and_audio_come_from_the_first_video(tmp_path):
    first = make_clip(tmp_path / "one.mp4", times=VARIABLE, sound="aac", size=(64, 48))
    second = make_clip(tmp_path / "two.mp4", times=range(0, 14 * 512, 512), size=(64, 48))
    output = tmp_path / "both.mp4"

    compare_videos(first, second, output)

    assert read(output)[0] == seconds(VARIABLE)
    assert packets(output, "audio") == packets(first, "audio")


def test_the_line_of_a_wipe_moves_across_the_frame(pair, tmp_path):
    output = tmp_path / "wipe.mkv"

    compare_videos(*pair, output, mode="wipe", encoding=EXACT)

    _, frames = read(output)
    white = (frames[:, 10] == 255).all(axis=-1)
    edges = [int(row.argmax()) for row in white[1:]]
    assert edges == sorted(edges)
    assert edges[-1] > 20
    assert white[1:].any(axis=1).all()


def test_the_difference_of_equal_videos_is_black(pair, tmp_path):
    output = tmp_path / "difference.mkv"

    compare_videos(*pair, output, mode="difference", encoding=EXACT)

    assert (read(output)[1][:, :80] == 0).all()


@pytest.mark.parametrize("scale", [2, 4])
def test_a_smaller_source_is_upscaled_by_bicubic(tmp_path, scale):
    small = make_clip(tmp_path / "small.mkv", size=(32, 24), **EXACT_CLIP)
    large = make_clip(tmp_path / "large.mkv", size=(32 * scale, 24 * scale), **EXACT_CLIP)
    output = tmp_path / "both.mkv"

    made = compare_videos(small, large, output, encoding=EXACT)

    _, frames = read(output)
    assert made.enlarged == str(small)
    assert frames.shape[1:] == (24 * scale, 2 * 32 * scale, 3)
    # Green and blue are even in a drawn picture, and stay so when it is enlarged.
    _, source = read(small)
    assert (frames[:, 10, 20, 1:] == source[:, 10 // scale, 20 // scale, 1:]).all()


def test_a_video_of_a_phone_is_compared_upright(tmp_path):
    stored = make_clip(tmp_path / "a.mp4", prepare=lambda video: video.set_display_rotation(90))
    upright = make_clip(tmp_path / "b.mp4", size=(32, 48))

    result = compare_videos(stored, upright, tmp_path / "both.mkv")

    assert (result.width, result.height) == (32, 48)
    with av.open(str(tmp_path / "both.mkv")) as both:
        frame = next(both.decode(video=0))
    assert (frame.width, frame.height, frame.rotation) == (64, 48, 0)


def test_an_odd_size_is_made_even(tmp_path):
    clips = [make_clip(tmp_path / f"{n}.mkv", size=(33, 25), **EXACT_CLIP) for n in ("one", "two")]
    output = tmp_path / "wipe.mp4"

    compare_videos(*clips, output, mode="wipe")

    assert read(output)[1].shape[1:] == (26, 34, 3)


def test_videos_of_different_depth_can_be_compared(tmp_path):
    eight = make_clip(tmp_path / "eight.mkv", size=(64, 48))
    ten = make_clip(tmp_path / "ten.mkv", size=(64, 48), pixel_format="yuv420p10le")
    output = tmp_path / "difference.mkv"

    compare_videos(eight, ten, output, mode="difference")

    assert read(output)[1][:, :30].mean() < 30


@pytest.mark.parametrize("shorter", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("name", ["both.mkv", "both.html"])
def test_a_different_number_of_frames_is_an_error_and_leaves_no_output(tmp_path, shorter, name):
    times = [CONSTANT, CONSTANT]
    times[shorter] = CONSTANT[:20]
    clips = [
        make_clip(tmp_path / f"{n}.mkv", times=t, size=(64, 48))
        for n, t in zip(("one", "two"), times, strict=True)
    ]

    with pytest.raises(InputError, match=r"has 20 frames, .* has more"):
        compare_videos(*clips, tmp_path / name)

    assert sorted(tmp_path.iterdir()) == sorted(clips)


def test_mismatched_sizes_are_reported(tmp_path):
    clips = [
        make_clip(tmp_path / "one.mkv", size=(64, 48)),
        make_clip(tmp_path / "two.mkv", size=(192, 144)),
    ]

    with pytest.raises(InputError, match=r"64x48 pixels and .* of 192x144.* one is 2 or 4 times"):
        compare_videos(*clips, tmp_path / "both.mkv")


def test_existing_files_are_not_replaced(pair, tmp_path):
    (tmp_path / "mine.mkv").write_text("precious")

    for output in (tmp_path / "mine.mkv", pair[0], pair[1]):
        with pytest.raises(OutputError):
            compare_videos(*pair, output)
    with pytest.raises(OutputError, match="is the input itself"):
        compare_videos(*pair, pair[1], overwrite=True)

    assert (tmp_path / "mine.mkv").read_text() == "precious"
    compare_videos(*pair, tmp_path / "mine.mkv", overwrite=True)
    assert len(read(tmp_path / "mine.mkv")[0]) == 24


def test_an_unknown_mode_is_wrong_usage(pair, tmp_path):
    with pytest.raises(UsageError, match='side, wipe, difference, not "flip"'):
        compare_videos(*pair, tmp_path / "both.mkv", mode="flip")


def test_a_page_shows_frames_of_both_exactly(pair, tmp_path):
    output = tmp_path / "both.html"

    made = compare_videos(*pair, output, labels=("before", "after"))

    page = output.read_text(encoding="utf-8")
    _, source = read(pair[0])
    pictures = images_of(page)
    assert made.frames == 24
    assert re.findall(r"<b>frame (\d+), at", page) == ["0", "6", "12", "17", "23"]
    assert len(pictures) == 10
    assert (pictures[0] == np.moveaxis(source[0], -1, 0)).all()
    assert (pictures[1] == np.moveaxis(source[0], -1, 0)).all()
    assert re.findall(r'alt="(before|after), frame 1"', page) == ["before", "after"] * 5


def test_an_image_is_cropped_to_the_largest_difference(tmp_path):
    clips = {n: tmp_path / f"{n}.mkv" for n in ("one", "two")}
    for name, path in clips.items():
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", 25, width=900, height=400, pix_fmt="bgr0")
            for number in range(3):
                drawn = np.full((400, 900, 3), 60 + number, np.uint8)
                if (name, number) == ("two", 1):  # in one frame, at the right edge, a white spot
                    drawn[100:120, 870:890] = 255
                container.mux(stream.encode(av.VideoFrame.from_ndarray(drawn)))
            container.mux(stream.encode())
    output = tmp_path / "both.png"

    compare_videos(*clips.values(), output)

    still = decode_png(output.read_bytes())
    left, gap, right = np.split(still, [400, 408], axis=2)
    assert still.shape == (3, 360, 808)
    assert (gap == 255).all()
    above_the_label = slice(0, 330)
    assert (left[:, above_the_label] == 61).all()
    assert (right[:, above_the_label] == 255).sum() == 3 * 20 * 20


def test_three_videos_stand_side_by_side_and_on_one_page(pair, tmp_path):
    small = make_clip(tmp_path / "small.mkv", size=(16, 24), **EXACT_CLIP)
    video, page = tmp_path / "all.mkv", tmp_path / "all.html"

    made = compare_videos(small, *pair[:1], video, third=pair[1], encoding=EXACT)
    compare_videos(small, *pair[:1], page, third=pair[1])

    frames = read(video)[1]
    assert made.enlarged == str(small)
    assert frames.shape == (24, 96, 192, 3)
    assert (frames[:, :80, 64:128] == frames[:, :80, 128:]).all()
    assert len(images_of(page.read_text(encoding="utf-8"))) == 15
    with pytest.raises(UsageError, match='"wipe" is for two videos'):
        compare_videos(small, *pair[:1], tmp_path / "b.mkv", third=pair[1], mode="wipe")


@pytest.mark.parametrize("sound", [None, "aac"])
def test_a_part_is_compared_with_the_same_part_of_the_source(tmp_path, sound):
    source = make_clip(
        tmp_path / "source.mp4", size=(64, 48), times=range(0, 512 * 40, 512), sound=sound
    )
    part = make_clip(tmp_path / "part.mp4", size=(64, 48), times=CONSTANT[:8])
    output = tmp_path / "both.mkv"

    made = compare_videos(source, part, output, start=Fraction(10, 25), encoding=EXACT)

    times, frames = read(output)
    assert made.frames == 8
    assert times == [Fraction(n, 25) for n in range(8)]
    assert (frames[:, 10, 64:].mean() - frames[:, 10, :64].mean()) == pytest.approx(-80, abs=4)
    if sound:
        (found,) = packets(output, "audio")
        assert found[-1][0] < Fraction(9, 25)


def test_the_error_for_a_part_without_start_suggests_start(tmp_path):
    source = make_clip(tmp_path / "source.mp4", size=(64, 48))
    part = make_clip(tmp_path / "part.mp4", size=(64, 48), times=CONSTANT[:8])

    with pytest.raises(InputError, match="name the longer one first and give --start"):
        compare_videos(source, part, tmp_path / "both.mkv")


def test_the_command_reports_its_output(pair, tmp_path):
    output = tmp_path / "both.mkv"

    result = CliRunner().invoke(cli.app, ["compare", *map(str, pair), "-o", str(output)])

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines()[-1] == f"{output}: 24 frames of 64x96"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["one.mkv", "missing.mkv", "-o", "both.mkv"], 1, r"missing\.mkv does not exist"),
        (["one.mkv", "two.mkv", "-o", "both.txt"], 1, r"both\.txt"),
        (["one.mkv", "two.mkv", "-o", "both.mkv", "--mode", "flip"], 2, "flip"),
        (["one.mkv", "two.mkv", "-o", "both.mkv", "--crf", "99"], 2, "crf .*99"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_input_gives_one_sentence(
    pair, tmp_path, monkeypatch, arguments, exit_code, message
):
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(cli.app, ["compare", *arguments])

    assert re.fullmatch(f"error: .*{message}.*\n", result.stderr)
    assert (result.exit_code, result.stdout) == (exit_code, "")
