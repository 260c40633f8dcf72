"""Combing is detected whatever the flags say, and each such frame is deinterlaced."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import make_clip
from interlaced_video import make_video, moment
from interlacing_rates import encode, fields_of
from motion import INTERLACED, interlaced, progressive

from vsrm_cli.decode.deinterlace import FieldOrder, sample_frames
from vsrm_cli.decode.video import VideoReader


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_combing_is_detected_in_a_flagged_video(tmp_path, order):
    clip = make_video(tmp_path / "clip.mp4", order, mark=order)

    assert fields_of(clip) == FieldOrder(first=order, is_marked=True)


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_combing_is_detected_in_a_video_without_a_flag(tmp_path, order):
    clip = make_video(tmp_path / "clip.mp4", order)

    assert fields_of(clip) == FieldOrder(first=order, is_marked=False)


def test_an_interlaced_flag_without_combing_is_ignored(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", "progressive", mark="tff")

    assert fields_of(clip) == FieldOrder(first=None, is_marked=True)


@pytest.mark.parametrize("frames", [1, 2, 20])
def test_a_progressive_video_of_any_length_has_no_fields(tmp_path, frames):
    clip = make_video(tmp_path / "clip.mkv", "progressive", frames=frames)

    assert fields_of(clip) == FieldOrder()


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize(
    ("codec", "pixel_format"), [("libx264", "yuv420p"), ("ffv1", "yuv422p10le")]
)
def test_deinterlaced_frames_are_made_of_the_first_field(tmp_path, order, codec, pixel_format):
    clip = make_video(
        tmp_path / "clip.mkv",
        order,
        mark=order if codec == "libx264" else None,
        codec=codec,
        pixel_format=pixel_format,
    )

    with VideoReader(clip) as combed, VideoReader(clip, deinterlace=True) as whole:
        before, after = list(combed), list(whole)

    assert [frame.time for frame in after] == [frame.time for frame in before]
    assert [frame.duration for frame in after] == [frame.duration for frame in before]
    assert after[0].pixels.dtype == before[0].pixels.dtype
    assert _error(before[10], moment(20)) > 12
    assert _error(after[10], moment(20)) < 4


def _error(frame, picture):
    unit = 257 if frame.pixels.dtype == np.uint16 else 1
    return np.sqrt(np.mean((frame.pixels.transpose(1, 2, 0) / unit - picture) ** 2))


def test_a_part_of_an_interlaced_video_is_the_frames_inside(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", "tff", mark="tff")

    with VideoReader(clip, start=Fraction(1, 5), end=Fraction(2, 5), deinterlace=True) as reader:
        frames = list(reader)

    assert [frame.time for frame in frames] == [Fraction(index, 25) for index in range(5, 10)]
    assert _error(frames[2], moment(14)) < 4


def test_a_progressive_video_is_left_as_it_is(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", "progressive", mark="tff")

    with VideoReader(clip) as plain, VideoReader(clip, deinterlace=True) as whole:
        for before, after in zip(plain, whole, strict=True):
            np.testing.assert_array_equal(after.pixels, before.pixels)


@pytest.mark.parametrize(
    "pixel_format", ["gray", "bgr0", "yuva420p", "gray16le", "gbrp12le", "yuv410p", "yuv444p16le"]
)
def test_any_pixel_format_can_be_analyzed_and_deinterlaced(tmp_path, pixel_format):
    clip = make_video(
        tmp_path / "clip.mkv", "tff", codec="ffv1", pixel_format=pixel_format, frames=6
    )

    with VideoReader(clip) as combed, VideoReader(clip, deinterlace=True) as whole:
        before, after = list(combed), list(whole)

    assert [frame.time for frame in after] == [frame.time for frame in before]
    assert {frame.pixels.dtype for frame in after} == {before[0].pixels.dtype}
    assert _error(after[3], moment(6)) < _error(before[3], moment(6)) / 2


@pytest.mark.parametrize("key_frames", [1, 4])
def test_frames_from_all_parts_are_sampled_once(tmp_path, key_frames):
    clip = make_clip(
        tmp_path / "clip.mkv",
        times=range(0, 200 * 512, 512),
        encoder={"g": str(200 // key_frames), "keyint_min": "50"},
    )

    with av.open(str(clip)) as container:
        samples = list(sample_frames(container, container.streams.video[0]))

    times = [frame.time for sample in samples for frame in sample]
    assert len(samples) == 5
    assert len(times) == len(set(times))
    assert max(times) > 6


def test_slight_combing_is_reported_and_not_deinterlaced(tmp_path):
    frames = progressive(INTERLACED["pan"], 40)
    frames[2:8] = interlaced(INTERLACED["pan"], 8, order="tff")[2:]
    clip = encode(tmp_path / "clip.mkv", frames)

    with VideoReader(clip, deinterlace=True) as reader:
        (notice,) = reader.notices

    assert "some combing, too little to be sure: not deinterlaced" in notice
