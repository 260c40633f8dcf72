"""Video and audio stay in sync whatever the timestamps of the file."""

from fractions import Fraction
from itertools import pairwise

import av
import pytest
from audio_video import audible_range, count_packets, make_av_clip, rewrite
from clips import index_of

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.media.clock_restarts import clock_restarts

BROADCAST = {"codec": "mpeg2video", "sound": ("mp2", 48000, "stereo")}


def join_files(target, *parts):
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def times_of(path):
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize(("source", "clock"), [("in.ts", 52000.5), ("in.mpg", 700), ("in.mkv", 90)])
def test_a_clock_with_an_arbitrary_start_is_shifted_to_zero(tmp_path, source, clock, target):
    clip = make_av_clip(tmp_path / source, clock=clock, begins=0.3, **BROADCAST)

    rewrite(clip, tmp_path / target)

    shown, begins, ends = audible_range(clip)
    picture, first, last = audible_range(tmp_path / target)
    assert 0 <= picture < 0.5
    assert first - picture == pytest.approx(begins - shown, abs=0.001)
    assert last - picture == pytest.approx(ends - shown, abs=0.001)


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize("source", ["in.ts", "in.vob"])
def test_audio_before_the_first_frame_is_kept_where_the_clock_wraps(tmp_path, source, target):
    wrap = 2**33 / 90000
    clip = make_av_clip(
        tmp_path / source, clock=wrap - 0.5, begins=-0.3, seconds=1.3, frames=25, **BROADCAST
    )

    rewrite(clip, tmp_path / target)

    shown, begins, ends = audible_range(clip)
    picture, first, last = audible_range(tmp_path / target)
    assert shown < 0
    assert first >= 0
    assert first - picture == pytest.approx(begins - shown, abs=0.001)
    assert last - picture == pytest.approx(ends - shown, abs=0.001)


@pytest.mark.parametrize("clock", [0, 3])
def test_files_with_a_clock_from_zero_keep_their_times(tmp_path, clock):
    clip = make_av_clip(tmp_path / "in.mp4", clock=clock, sound=("aac", 48000, "mono"))

    rewrite(clip, tmp_path / "out.mp4")

    assert times_of(tmp_path / "out.mp4") == times_of(clip)


@pytest.mark.parametrize("ending", ["ts", "vob"])
@pytest.mark.parametrize("clocks", [(0, 0, 0), (9000, 20, 9001), (95442, 30, 3)])
def test_video_and_audio_stay_in_sync_across_clock_restarts(tmp_path, ending, clocks):
    # Each part starts with silence, so there are three tones.
    parts = [
        make_av_clip(tmp_path / f"{n}.{ending}", clock=clock, seconds=0.5, begins=0.25, **BROADCAST)
        for n, clock in enumerate(clocks)
    ]
    clip = join_files(tmp_path / f"in.{ending}", *parts)

    rewrite(clip, tmp_path / "out.mkv")

    assert len(clock_restarts(clip)) == 2
    frames = times_of(tmp_path / "out.mkv")
    assert len(frames) == 75
    assert [b - a for a, b in pairwise(frames)] == pytest.approx([0.04] * 74, abs=0.0011)
    assert count_packets(tmp_path / "out.mkv") >= sum(map(count_packets, parts)) - 2
    found = tones(tmp_path / "out.mkv", frames[0])
    shown, begins, _ = audible_range(parts[0])
    expected = [begins - shown + n for n in range(3)]
    assert found == pytest.approx(expected, abs=0.03)


def tones(path, zero):
    """When tones start after silence, in seconds after a time."""
    begins, end = [], -1.0
    with av.open(str(path)) as container:
        for block in container.decode(audio=0):
            if abs(block.to_ndarray()).max() > 1000 and block.time - end > 0.1:
                begins.append(block.time - zero)
            if abs(block.to_ndarray()).max() > 1000:
                end = block.time + block.samples / block.sample_rate
    return begins


def test_a_single_wrong_timestamp_is_not_a_restart(tmp_path):
    with av.open(str(tmp_path / "in.ts"), "w") as output:
        video = output.add_stream("mpeg2video", rate=25, width=64, height=48)
        for index in range(30):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            for packet in video.encode(frame):
                if index == 15:
                    packet.pts -= 10
                    packet.dts -= 10
                try:
                    output.mux(packet)
                except av.ArgumentError:  # the muxer has noticed
                    continue
        output.mux(video.encode(None))

    assert clock_restarts(tmp_path / "in.ts") == ()


def test_part_of_a_file_with_restarts_is_selected_by_continuous_time(tmp_path):
    parts = [make_av_clip(tmp_path / f"{n}.ts", **BROADCAST) for n in range(2)]
    clip = join_files(tmp_path / "in.ts", *parts)

    with VideoReader(clip, start=Fraction(6, 5), end=Fraction(8, 5)) as reader:
        frames = list(reader)

    assert [index_of(frame.pixels) for frame in frames] == list(range(5, 15))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("target", ["out.mkv", "out.mp4"])
def test_frame_times_of_an_avi_with_b_frames_are_correct(tmp_path, codec, target):
    clip = make_av_clip(
        tmp_path / "in.avi",
        codec=codec,
        encoder={"bf": "2", "g": "12"},
        sound=("libmp3lame", 44100, "mono"),
    )

    rewrite(clip, tmp_path / target)

    assert times_of(tmp_path / target) == pytest.approx([n / 25 for n in range(25)], abs=0.0006)
    with VideoReader(tmp_path / target) as reader:
        found = [index_of(frame.pixels) for frame in reader]
    assert found == pytest.approx(list(range(25)), abs=1)
    assert found == sorted(found)
