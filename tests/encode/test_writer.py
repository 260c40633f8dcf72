"""The contract of `FrameWriter`: what goes into a video, image files or a pipe comes out again."""

import os
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from io import BytesIO

import pytest
from clips import HEIGHT, WIDTH, index_of, make_clip

from vsrm_cli.decode.image_sequence import ImageSequenceReader
from vsrm_cli.decode.video import VideoReader
from vsrm_cli.decode.y4m import Y4mReader
from vsrm_cli.encode.image_sequence import ImageSequenceWriter
from vsrm_cli.encode.options import EncodingOptions
from vsrm_cli.encode.segments import SegmentedVideo
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.encode.video_target import VideoTarget
from vsrm_cli.encode.writer import Segment
from vsrm_cli.encode.y4m import Y4mWriter
from vsrm_cli.errors import OutputError
from vsrm_cli.media.geometry import OutputShape
from vsrm_cli.media.probe import probe

FRAMES, RATE = 6, Fraction(25)
SHAPE = OutputShape(WIDTH, HEIGHT, None)


class Video:
    """A video that is written frame by frame."""

    name = "out.mp4"

    def __init__(self, folder, clip):
        self.path = folder / self.name
        self.info = probe(clip)
        self.writer = self.open(folder)

    def open(self, folder):
        return VideoWriter(self.target())

    def target(self, **options):
        return VideoTarget(
            self.path, source=self.info, shape=SHAPE, encoding=EncodingOptions(), **options
        )

    def write(self, frames):
        for frame in frames:
            self.writer.write(frame)

    def finish(self):
        pass

    def reader(self):
        return VideoReader(self.path)


class Matroska(Video):
    """The same in another container."""

    name = "out.mkv"


class JoinedVideo(Video):
    """A video that is joined from segments."""

    def open(self, folder):
        self.folder, self.segments, self.count = folder / "segments", [], 0
        self.folder.mkdir()
        return self.open_joined()

    def open_joined(self):
        return SegmentedVideo(self.target(folder=self.folder))

    def open_segment(self):
        path = self.folder / f"{self.count:09}"
        return self.writer.open_segment(path, self.writer.segment_container)

    def clock(self):
        return self.writer.target.track.time_base

    def write(self, frames):
        segment = self.open_segment()
        for frame in frames:
            segment.write(frame)
        segment.close()
        self.segments.append(segment)
        self.count += len(frames)

    def finish(self):
        finished = [Segment(segment.path, segment.ticks) for segment in self.segments]
        self.writer.join(finished, self.segments[-1].end)


class Images(JoinedVideo):
    """Image files that get their names together."""

    name = "images"

    def open_joined(self):
        return ImageSequenceWriter(self.path, source=self.info, names=(), shape=SHAPE)

    def clock(self):
        return self.writer.time_base

    def reader(self):
        return ImageSequenceReader(self.path, start=None, end=None, rate=RATE)


class Pipe(Video):
    """A pipe, whose other end is in memory here."""

    name = "none"

    def open(self, folder):
        self.file = BytesIO()
        return Y4mWriter(self.file, source=self.info, shape=SHAPE, pixel_format="yuv444p")

    def reader(self):
        self.file.seek(0)
        return Y4mReader(self.file, start=None, end=None)


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "clip.mp4", times=range(0, FRAMES * 512, 512))


@pytest.fixture
def frames(clip):
    with VideoReader(clip) as reader:
        return list(reader)


ALL = [Video, Matroska, JoinedVideo, Images, Pipe]
NAMED = [Video, Matroska, JoinedVideo, Images]


@pytest.mark.parametrize("kind", ALL)
def test_frames_pass_in_order_at_their_times(tmp_path, clip, frames, kind):
    output = kind(tmp_path, clip)

    with output.writer as writer:
        output.write(frames[:2])
        output.write(frames[2:])
        output.finish()

    assert writer.frames_written == FRAMES
    assert (writer.shape.width, writer.shape.height) == (WIDTH, HEIGHT)
    reader = output.reader()
    found = list(reader)
    reader.close()
    assert [index_of(frame.pixels) for frame in found] == list(range(FRAMES))
    assert [frame.time for frame in found] == [n / RATE for n in range(FRAMES)]
    assert found[0].pixels.shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("kind", NAMED)
def test_an_exception_leaves_no_output(tmp_path, clip, frames, kind, error):
    output = kind(tmp_path, clip)

    def stop_halfway():
        with output.writer:
            output.write(frames[:2])
            raise error

    with pytest.raises(error):
        stop_halfway()

    assert set(os.listdir(tmp_path)) <= {"clip.mp4", "segments"}


@pytest.mark.parametrize("kind", NAMED)
def test_the_output_exists_only_when_it_is_complete(tmp_path, clip, frames, kind):
    output = kind(tmp_path, clip)

    with output.writer:
        output.write(frames)
        assert not output.path.exists()
        output.finish()

    assert output.path.exists()


@pytest.mark.parametrize("kind", [JoinedVideo, Images])
def test_a_segment_has_the_times_of_its_frames(tmp_path, clip, frames, kind):
    output = kind(tmp_path, clip)
    segment = output.open_segment()

    for frame in frames[:3]:
        segment.write(frame)
    segment.close()

    clock = output.clock()
    assert [tick * clock for tick in segment.ticks] == [n / RATE for n in range(3)]
    assert segment.end > segment.ticks[-1]
    assert segment.path.exists()


@pytest.mark.parametrize("kind", ALL)
def test_dropped_content_is_reported_before_the_first_frame(tmp_path, clip, kind):
    output = kind(tmp_path, clip)

    dropped, warnings = "; ".join(output.writer.dropped), list(output.writer.warnings)
    with suppress(RuntimeError), output.writer:
        raise RuntimeError

    assert ("cannot hold them" in dropped) is (kind in (Images, Pipe))
    assert warnings == []


def test_a_pipe_refuses_a_frame_at_another_time(tmp_path, clip, frames):
    output = Pipe(tmp_path, clip)

    output.write(frames[:2])

    late = replace(frames[2], time=frames[2].time + Fraction(1, 10))
    with pytest.raises(OutputError, match="y4m holds no other times"):
        output.write([late])
