"""A job reads its frames from the first one or from a resume point, of a video or of images."""

import io
import sys
from dataclasses import replace
from fractions import Fraction

import pytest
from clips import HEIGHT, WIDTH, index_of, make_clip, picture
from PIL import Image

from vsrm_cli.errors import InputError
from vsrm_cli.frame import Faults
from vsrm_cli.upscale.entries import BEGINNING, ResumePoint
from vsrm_cli.upscale.resumable_reader import PIPE, ResumableReader, compute_fingerprint

FRAMES = 9


def draw_video(folder):
    return make_clip(folder / "in.mp4", times=range(0, FRAMES * 512, 512))


def draw_images(folder):
    (folder / "in").mkdir()
    for number in range(FRAMES):
        Image.fromarray(picture(number)).save(folder / "in" / f"{number}.png")
    return folder / "in"


@pytest.fixture(params=[draw_video, draw_images], ids=["video", "images"])
def path(request, tmp_path):
    return request.param(tmp_path)


def read(path, *, after=BEGINNING):
    with ResumableReader(path, start=None, end=None) as source:
        return list(source.frames(after=after)), source


def resume_point(frames, *, following, margin):
    prints = [compute_fingerprint(frame) for frame in frames[following - margin : following]]
    return ResumePoint(following, 0, prints)


def test_each_frame_is_recorded_by_number_and_fingerprint(path):
    frames, source = read(path)

    assert [frame.record.number for frame in frames] == list(range(FRAMES))
    assert [frame.record.fingerprint for frame in frames] == [
        compute_fingerprint(frame) for frame in frames
    ]
    assert {frame.record.faults for frame in frames} == {Faults()}
    assert source.frames_read == FRAMES


def test_a_pipe_is_recorded_likewise(monkeypatch):
    plane = b"FRAME\n" + bytes(3 * WIDTH * HEIGHT)
    stream = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip C444\n".encode() + 3 * plane
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stream)))

    frames, _ = read(PIPE)

    assert [frame.record.number for frame in frames] == [0, 1, 2]


@pytest.mark.parametrize(("following", "margin"), [(5, 3), (5, 1), (8, 4)])
def test_a_resumed_job_gets_the_margin_and_all_that_follows(path, following, margin):
    whole, _ = read(path)

    frames, source = read(path, after=resume_point(whole, following=following, margin=margin))

    assert [index_of(frame.pixels) for frame in frames] == list(range(FRAMES))[following - margin :]
    assert [frame.record for frame in frames] == [
        frame.record for frame in whole[following - margin :]
    ]
    assert source.frames_read == FRAMES


def test_nothing_is_read_after_the_last_frame(path):
    whole, _ = read(path)

    frames, source = read(path, after=resume_point(whole, following=FRAMES, margin=2))

    assert frames == []
    assert source.frames_read == FRAMES


def test_other_frames_than_before_are_refused(path):
    whole, _ = read(path)
    point = resume_point(whole, following=5, margin=2)
    changed = [replace(point.margin[0], checksum=1), point.margin[1]]

    with pytest.raises(InputError, match="give --restart to start over"):
        read(path, after=ResumePoint(5, 0, changed))


def test_a_part_is_counted_from_its_own_first_frame(path):
    with ResumableReader(path, start=Fraction(2, 25), end=Fraction(6, 25)) as source:
        frames = list(source.frames())

    assert [index_of(frame.pixels) for frame in frames] == [2, 3, 4, 5]
    assert [frame.record.number for frame in frames] == [0, 1, 2, 3]
