"""The contract of `FrameReader`: a video, an image sequence and a pipe are read in the same way."""

from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
from clips import HEIGHT, WIDTH, index_of, make_clip, picture
from PIL import Image

from vsrm_cli.decode.image_sequence import ImageSequenceReader
from vsrm_cli.decode.video import VideoReader
from vsrm_cli.decode.y4m import Y4mReader
from vsrm_cli.errors import InputError
from vsrm_cli.frame import Faults

FRAMES, RATE = 7, Fraction(25)


def open_video(folder, start, end):
    ticks = range(0, FRAMES * 512, 512)
    return VideoReader(make_clip(folder / "in.mp4", times=ticks), start=start, end=end)


def open_images(folder, start, end):
    for number in range(FRAMES):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    return ImageSequenceReader(folder, start=start, end=end, rate=RATE)


def open_pipe(folder, start, end):
    planes = [b"FRAME\n" + gray_of(number) + 2 * gray_of(None) for number in range(FRAMES)]
    header = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip C444 XCOLORRANGE=FULL\n".encode()
    return Y4mReader(BytesIO(header + b"".join(planes)), start=start, end=end)


def gray_of(number):
    """A plane with the number of a frame in its brightness; of no number, one without color."""
    value = 128 if number is None else int(picture(number)[0, 0, 2])
    return np.full((HEIGHT, WIDTH), value, np.uint8).tobytes()


@pytest.fixture(params=[open_video, open_images, open_pipe], ids=["video", "images", "pipe"])
def open_reader(request, tmp_path):
    opened = []

    def open_part(start=None, end=None):
        opened.append(request.param(tmp_path, start, end))
        return opened[-1]

    yield open_part
    for reader in opened:
        reader.close()


def test_each_frame_is_read_once_in_order_in_the_announced_size(open_reader):
    reader = open_reader()

    frames = list(reader)

    assert [index_of(frame.pixels) for frame in frames] == list(range(FRAMES))
    assert {frame.pixels.shape for frame in frames} == {(3, reader.info.height, reader.info.width)}
    assert {frame.pixels.dtype for frame in frames} == {np.dtype(np.uint8)}
    assert reader.frames_read == FRAMES


def test_times_are_exact_and_start_at_the_announced_time(open_reader):
    reader = open_reader()

    frames = list(reader)

    assert [frame.time - reader.info.start for frame in frames] == [n / RATE for n in range(FRAMES)]
    assert {frame.duration for frame in frames} == {1 / RATE}


def test_frames_of_one_shot_have_no_scene_cut_and_no_record_yet(open_reader):
    frames = list(open_reader())

    assert not any(frame.begins_shot for frame in frames)
    assert {frame.record for frame in frames} == {None}


@pytest.mark.parametrize(
    ("start", "end", "kept"),
    [("0.08", None, [2, 3, 4, 5, 6]), (None, "0.08", [0, 1]), ("0.05", "0.13", [2, 3])],
)
def test_a_part_is_exactly_the_frames_inside_at_their_times(open_reader, start, end, kept):
    reader = open_reader(*(None if x is None else Fraction(x) for x in (start, end)))

    frames = list(reader)

    assert [index_of(frame.pixels) for frame in frames] == kept
    assert [frame.time - reader.info.start for frame in frames] == [n / RATE for n in kept]
    assert reader.frames_read == len(kept)


def test_a_part_without_frames_is_refused_with_a_suggestion(open_reader):
    with pytest.raises(InputError, match="--start and --end; choose another --start"):
        list(open_reader(start=Fraction(5)))


def test_an_intact_input_has_no_errors(open_reader):
    reader = open_reader()

    list(reader)

    assert not reader.truncated
    assert reader.faults == Faults()
    assert list(reader.notices) == []
    assert reader.decoder == "software"
