"""Written videos have every frame at its time, and unchanged audio and subtitles."""

import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from clips import CONSTANT, MP4_CLOCK, VARIABLE, index_of, make_clip, packets, seconds

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.encode.options import EncodingOptions, check_limits, choose_codec, plan_encoding
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.encode.video_target import VideoTarget
from vsrm_cli.errors import OutputError, UsageError
from vsrm_cli.media.geometry import OutputShape
from vsrm_cli.media.probe import probe

HALF_A_MILLISECOND = Fraction(1, 2000)
LATE = [ticks + 12345 for ticks in CONSTANT]


def enlarge(source, target, *, scale=2, start=None, end=None, overwrite=False, **encoding):
    """Copy a video with pixels repeated, as a job would; give back the frames that were read."""
    with VideoReader(source, start=start, end=end) as reader:
        info = reader.info
        with VideoWriter(
            VideoTarget(
                target,
                source=info,
                shape=OutputShape(
                    info.width * scale, info.height * scale, info.sample_aspect_ratio
                ),
                encoding=EncodingOptions(**encoding),
                start=start,
                end=end,
                overwrite=overwrite,
            )
        ) as writer:
            frames = list(reader)
            for frame in frames:
                larger = frame.pixels.repeat(scale, axis=1).repeat(scale, axis=2)
                writer.write(replace(frame, pixels=larger))
    assert writer.frames_written == len(frames)
    return frames


def open_writer(source, target, *, overwrite=False, **encoding):
    info = probe(source)
    return VideoWriter(
        VideoTarget(
            target,
            source=info,
            shape=OutputShape(info.width, info.height, info.sample_aspect_ratio),
            encoding=EncodingOptions(**encoding),
            overwrite=overwrite,
        )
    )


def read(path):
    with VideoReader(path) as reader:
        return list(reader)


def times_of(frames):
    return [frame.time for frame in frames]


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "clip.mp4")


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("times", [CONSTANT, VARIABLE, LATE], ids=["constant", "variable", "late"])
def test_times_and_durations_are_exact_in_mp4(tmp_path, suffix, times, codec):
    source = make_clip(tmp_path / "source.mp4", times=times, encoder={"bf": "0"})

    before = enlarge(source, tmp_path / f"out{suffix}", codec=codec)
    after = read(tmp_path / f"out{suffix}")

    assert times_of(after) == seconds(times)
    assert [f.duration for f in after] == [f.duration for f in before]
    assert [index_of(f.pixels) for f in after] == [index_of(f.pixels) for f in before]


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9", "ffv1", "mpeg4"])
def test_times_are_exact_in_nut_with_any_codec(tmp_path, codec):
    source = make_clip(tmp_path / "source.mp4", times=VARIABLE)

    enlarge(source, tmp_path / "out.nut", codec=codec)

    assert times_of(read(tmp_path / "out.nut")) == seconds(VARIABLE)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9", "ffv1", "mpeg4"])
@pytest.mark.parametrize("times", [CONSTANT, VARIABLE], ids=["constant", "variable"])
def test_times_in_matroska_are_the_nearest_millisecond(tmp_path, times, codec):
    source = make_clip(tmp_path / "source.mp4", times=times)

    enlarge(source, tmp_path / "out.mkv", codec=codec)
    after = read(tmp_path / "out.mkv")

    assert len(after) == len(times)
    for time, expected in zip(times_of(after), seconds(times), strict=True):
        assert abs(time - expected) <= HALF_A_MILLISECOND


@pytest.mark.parametrize(
    ("name", "clock"),
    [("a.mkv", Fraction(1, 1000)), ("a.ts", Fraction(1, 90000)), ("a.avi", Fraction(1, 25))],
)
def test_times_of_other_containers_reach_mp4_exactly(tmp_path, name, clock):
    step = Fraction(1, 25) / clock
    source = make_clip(tmp_path / name, clock=clock, times=[int(i * step) for i in range(1, 20)])

    before = enlarge(source, tmp_path / "out.mp4")

    zero = before[0].time if name == "a.ts" else 0  # it has the clock of its sender
    expected = [time - zero for time in times_of(before)]
    assert times_of(read(tmp_path / "out.mp4")) == expected


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".nut"])
@pytest.mark.parametrize("b_frames", ["0", "3"], ids=["plain", "reordered"])
def test_frames_that_an_edit_list_hides_stay_hidden(tmp_path, suffix, b_frames):
    # What is encoded with a time below zero, MP4 stores, and hides by its edit list.
    hidden = [ticks - 5 * 512 for ticks in CONSTANT]
    source = make_clip(tmp_path / "source.mp4", times=hidden, sound="aac", encoder={"bf": b_frames})

    before = enlarge(source, tmp_path / f"out{suffix}")

    after = read(tmp_path / f"out{suffix}")
    shown = [ticks for ticks in hidden if ticks >= 0]
    assert times_of(before) == seconds(shown)
    assert [index_of(f.pixels) for f in after] == [index_of(f.pixels) for f in before]
    assert times_of(after) == seconds(shown)
    if suffix == ".mp4":
        assert packets(tmp_path / "out.mp4", "audio") == packets(source, "audio")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".nut"])
def test_a_video_that_begins_before_zero_is_moved_there_with_its_sound(tmp_path, suffix):
    source = make_clip(
        tmp_path / "source.ts",
        clock=Fraction(1, 90000),
        times=[-18000 + 3600 * i for i in range(20)],
        sound="aac",
        encoder={"bf": "0"},
        container={"avoid_negative_ts": "disabled"},
    )
    assert probe(source).start == Fraction(-1, 5)

    before = enlarge(source, tmp_path / f"out{suffix}")

    fifth = Fraction(1, 5)
    assert times_of(read(tmp_path / f"out{suffix}")) == [f.time + fifth for f in before]
    old, new = packets(source, "audio")[0], packets(tmp_path / f"out{suffix}", "audio")[0]
    assert len(new) == len(old)
    for (moved, _), (time, _) in zip(new, old, strict=True):
        assert abs(moved - fifth - time) <= HALF_A_MILLISECOND


@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_a_frame_is_shown_until_the_next_one_whatever_the_source_says(tmp_path, codec):
    clock = Fraction(1, 1000)
    source = make_clip(
        tmp_path / "source.mkv", clock=clock, times=[0, 40, 300, 340], encoder={"bf": "0"}
    )

    enlarge(source, tmp_path / "out.mkv", codec=codec)
    enlarge(source, tmp_path / "out.mp4")

    for name in ("out.mkv", "out.mp4"):
        frames = read(tmp_path / name)
        assert [f.duration for f in frames[:3]] == [40 * clock, 260 * clock, 40 * clock]


def test_audio_and_subtitles_of_an_mp4_are_copied_completely(tmp_path):
    source = make_clip(tmp_path / "source.mp4", times=LATE, sound="aac", subtitles="mov_text")

    enlarge(source, tmp_path / "out.mp4")

    assert packets(tmp_path / "out.mp4", "audio") == packets(source, "audio")
    assert packets(tmp_path / "out.mp4", "subtitle") == packets(source, "subtitle")


@pytest.mark.parametrize("sound", ["aac", "flac", "pcm_s16le", "libopus"])
def test_audio_and_subtitles_of_a_matroska_are_copied_completely(tmp_path, sound):
    clock = Fraction(1, 1000)
    times = [i * 40 for i in range(24)]
    source = make_clip(
        tmp_path / "source.mkv", clock=clock, times=times, sound=sound, subtitles="subrip"
    )

    enlarge(source, tmp_path / "out.mkv")

    assert packets(tmp_path / "out.mkv", "audio") == packets(source, "audio")
    assert packets(tmp_path / "out.mkv", "subtitle") == packets(source, "subtitle")
    assert times_of(read(tmp_path / "out.mkv")) == seconds(times, clock)


def test_audio_shifts_less_than_a_millisecond_from_mp4_to_matroska(tmp_path):
    source = make_clip(tmp_path / "source.mp4", sound="aac")

    enlarge(source, tmp_path / "out.mkv")

    before, after = packets(source, "audio")[0], packets(tmp_path / "out.mkv", "audio")[0]
    assert [data for _, data in after] == [data for _, data in before]
    assert max(abs(a[0] - b[0]) for a, b in zip(after, before, strict=True)) < Fraction(1, 1000)
    assert times_of(read(tmp_path / "out.mkv")) == seconds(CONSTANT)


@pytest.mark.parametrize(
    ("suffix", "subtitles", "title"), [(".mp4", "mov_text", "name"), (".mkv", "subrip", "title")]
)
def test_language_title_and_disposition_are_kept(tmp_path, suffix, subtitles, title):
    def name(video):
        video.metadata.update(language="fra", title="Pictures")

    source = make_clip(tmp_path / f"source{suffix}", sound="aac", subtitles=subtitles, prepare=name)

    enlarge(source, tmp_path / f"out{suffix}")

    with av.open(str(tmp_path / f"out{suffix}")) as container, av.open(str(source)) as original:
        video, audio, text = container.streams
        assert container.metadata["title"] == "A drawn film"
        assert (video.language, video.metadata[title]) == ("fra", "Pictures")
        assert (audio.language, audio.metadata[title]) == ("deu", "A tone")
        assert (text.language, text.metadata[title]) == ("spa", "Words")
        assert [s.disposition for s in container.streams] == [
            s.disposition for s in original.streams
        ]
        assert text.disposition & Disposition.forced


@pytest.mark.parametrize(("suffix", "subtitles"), [(".mp4", "mov_text"), (".mkv", "subrip")])
def test_a_part_begins_at_zero_with_its_sound_and_subtitles(tmp_path, suffix, subtitles):
    source = make_clip(tmp_path / f"source{suffix}", sound="aac", subtitles=subtitles)
    start, end = Fraction(3, 10), Fraction(13, 20)

    before = enlarge(source, tmp_path / f"out{suffix}", start=start, end=end)

    assert times_of(read(tmp_path / f"out{suffix}")) == [f.time - start for f in before]
    for kind, count in (("audio", 16), ("subtitle", 1)):
        inside = [p for p in packets(source, kind)[0] if start <= p[0] < end]
        (copied,) = packets(tmp_path / f"out{suffix}", kind)
        assert len(inside) == count
        assert [data for _, data in copied] == [data for _, data in inside]
        for (time, _), (expected, _) in zip(copied, inside, strict=True):
            assert abs(time + start - expected) <= HALF_A_MILLISECOND


def test_a_start_between_two_ticks_is_subtracted_exactly(tmp_path):
    clock = Fraction(1001, 30000)
    source = make_clip(tmp_path / "source.mov", clock=clock, times=range(30))

    before = enlarge(source, tmp_path / "out.mp4", start=Fraction(1, 2))

    after = times_of(read(tmp_path / "out.mp4"))
    assert after == [f.time - Fraction(1, 2) for f in before]
    assert after[0] == 15 * clock - Fraction(1, 2)


def test_ffv1_keeps_odd_sizes_and_every_value(tmp_path):
    source = make_clip(
        tmp_path / "source.mkv", codec="ffv1", pixel_format="bgr0", size=(37, 23), times=(0, 512)
    )

    before = enlarge(source, tmp_path / "out.mkv", scale=1, codec="ffv1")

    for old, new in zip(before, read(tmp_path / "out.mkv"), strict=True):
        np.testing.assert_array_equal(new.pixels, old.pixels)


@pytest.mark.parametrize(
    ("source_format", "codec", "stored"),
    [
        ("yuv420p", "h264", "yuv420p"),
        ("yuv444p", "h264", "yuv420p"),
        ("yuva420p", "h264", "yuv420p"),
        ("gray", "hevc", "yuv420p"),
        ("yuv420p10le", "h264", "yuv420p10le"),
        ("yuv444p12le", "hevc", "yuv420p12le"),
        ("yuv422p12le", "av1", "yuv420p10le"),
        ("yuv410p", "ffv1", "yuv410p"),
        ("yuva420p", "ffv1", "yuv420p"),
        ("gray16le", "ffv1", "gray16le"),
        ("gbrp12le", "ffv1", "gbrp12le"),
        ("yuv420p", "prores", "yuv422p10le"),
    ],
)
def test_the_depth_of_the_source_is_kept(tmp_path, source_format, codec, stored):
    source = make_clip(
        tmp_path / "source.mkv", codec="ffv1", pixel_format=source_format, times=(0, 512)
    )

    enlarge(source, tmp_path / "out.mkv", codec=codec)

    info = probe(tmp_path / "out.mkv")
    assert (info.pixel_format, info.width, info.height) == (stored, 96, 64)


def test_a_pixel_format_can_be_chosen(tmp_path, clip):
    enlarge(clip, tmp_path / "out.mp4", pixel_format="yuv444p")

    assert probe(tmp_path / "out.mp4").pixel_format == "yuv444p"


@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (6, 1, 6, 6), (9, 1, 9, 16), (1, 2, 1, 13)])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("out.mp4", "h264"), ("out.mov", "hevc"), ("out.mkv", "av1"), ("out.mkv", "ffv1")],
)
def test_color_tags_are_those_of_the_source(tmp_path, tags, name, codec):
    def tag(video):
        context = video.codec_context
        context.colorspace, context.color_range = tags[:2]
        context.color_primaries, context.color_trc = tags[2:]

    source = make_clip(tmp_path / "source.mp4", times=(0, 512), prepare=tag)

    before = enlarge(source, tmp_path / name, codec=codec)

    assert probe(tmp_path / name).color == probe(source).color
    assert not probe(source).color.guessed
    after = read(tmp_path / name)
    assert abs(after[0].pixels.mean((1, 2)) - before[0].pixels.mean((1, 2))).max() < 2


def test_an_assumed_matrix_is_tagged(tmp_path, clip):
    enlarge(clip, tmp_path / "out.mp4", scale=32)

    color = probe(tmp_path / "out.mp4").color
    assert probe(clip).color.guessed
    assert (color.matrix, color.full_range, color.guessed) == (6, False, False)


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
def test_sample_aspect_ratio_and_rotation_are_kept(tmp_path, name):
    def tag(video):
        video.codec_context.sample_aspect_ratio = Fraction(16, 11)
        video.set_display_rotation(90)

    source = make_clip(tmp_path / "source.mp4", prepare=tag)

    enlarge(source, tmp_path / name)

    info = probe(tmp_path / name)
    assert info.sample_aspect_ratio == Fraction(16, 11)
    assert info.display_matrix[:6] == (0, -65536, 0, 65536, 0, 0)


def test_a_rotation_that_the_container_cannot_hold_is_named(tmp_path):
    source = make_clip(tmp_path / "phone.mp4", prepare=lambda video: video.set_display_rotation(90))

    with open_writer(source, tmp_path / "out.nut") as to_nut:
        for frame in read(source):
            to_nut.write(frame)

    assert "the rotation: a .nut file cannot hold it; an .mkv may" in to_nut.dropped


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4", "av1", "vp9"])
def test_pixels_that_are_not_square_look_the_same_with_any_codec(tmp_path, name, codec):
    def tag(video):
        video.codec_context.sample_aspect_ratio = Fraction(16, 11)

    source = make_clip(tmp_path / "source.mp4", times=CONSTANT[:3], prepare=tag)

    enlarge(source, tmp_path / name, codec=codec)

    info = probe(tmp_path / name)
    wide = info.width * (info.sample_aspect_ratio or 1)
    assert info.height == 64
    assert abs(wide - 96 * Fraction(16, 11)) <= 1


def test_pixels_made_square_are_reported(tmp_path):
    def tag(video):
        video.codec_context.sample_aspect_ratio = Fraction(16, 11)

    source = make_clip(tmp_path / "source.mp4", times=CONSTANT[:3], prepare=tag)

    writer = open_writer(source, tmp_path / "out.mkv", codec="ffv1")
    writer.__exit__(KeyboardInterrupt, None, None)

    assert writer.dropped == (
        "the shape of pixels, 16:11: ffv1 cannot store it, so they are made square",
    )
    assert (writer.shape.width, writer.shape.height) == (70, 32)


@pytest.mark.parametrize(
    ("codec", "lost"),
    [("vp9", ("bit depth: 10 bits become 8 in libvpx-vp9",)), ("hevc", ())],
)
def test_a_lost_bit_depth_is_reported(tmp_path, codec, lost):
    source = make_clip(
        tmp_path / "source.mkv", size=(96, 64), codec="ffv1", pixel_format="yuv420p10le"
    )

    writer = open_writer(source, tmp_path / "out.mkv", codec=codec)
    writer.__exit__(KeyboardInterrupt, None, None)

    assert tuple(note.split(";")[0] for note in writer.dropped) == lost


def test_hevc_in_mp4_has_the_tag_that_every_player_knows(tmp_path, clip):
    enlarge(clip, tmp_path / "out.mp4", codec="hevc")

    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


@pytest.mark.parametrize(
    "codec", ["h264", *(pytest.param(name, marks=pytest.mark.slow) for name in ("hevc", "av1"))]
)
def test_encoders_print_nothing(tmp_path, codec):
    clip = make_clip(tmp_path / "clip.mp4", size=(96, 64))
    # SVT-AV1 reads the variable that silences it once in a process, and here it is set for all.
    variables = {name: value for name, value in os.environ.items() if name != "SVT_LOG"}
    variables["PYTHONPATH"] = os.pathsep.join(sys.path)
    call = f"rewrite(Path({str(clip)!r}), Path({str(tmp_path / 'out.mkv')!r}), codec={codec!r})"

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from pathlib import Path; from audio_video import rewrite; {call}",
        ],
        env=variables,
        capture_output=True,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_crf_and_preset_reach_the_encoder(tmp_path, clip):
    enlarge(clip, tmp_path / "fine.mkv", scale=4, crf=0, preset="ultrafast")
    enlarge(clip, tmp_path / "coarse.mkv", scale=4, crf=51, preset="ultrafast")

    assert (tmp_path / "fine.mkv").stat().st_size > (tmp_path / "coarse.mkv").stat().st_size


def test_vp9_and_opus_make_a_webm(tmp_path):
    source = make_clip(tmp_path / "source.mkv", sound="libopus")

    enlarge(source, tmp_path / "out.webm", codec="vp9")

    assert len(read(tmp_path / "out.webm")) == len(CONSTANT)
    assert packets(tmp_path / "out.webm", "audio") == packets(source, "audio")


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ({"codec": "h266x"}, "no video encoder named 'h266x'"),
        ({"codec": "aac"}, "no video encoder named 'aac'"),
        ({"crf": 52}, "crf of 52 is out of range for h264.*0.*51"),
        ({"crf": -1}, "crf of -1"),
        ({"codec": "av1", "crf": 64}, "from 0 .best. to 63"),
        ({"codec": "ffv1", "crf": 20}, "ffv1 has no crf"),
        ({"preset": "warp"}, "no preset 'warp'; choose one of ultrafast"),
        ({"codec": "av1", "preset": "medium"}, "no preset 'medium'"),
        ({"codec": "ffv1", "preset": "fast"}, "ffv1 has no presets"),
        ({"pixel_format": "yuv421p"}, "no pixel format 'yuv421p'"),
        ({"pixel_format": "pal8"}, "h264 cannot store pal8"),
    ],
)
def test_an_invalid_setting_is_wrong_usage(tmp_path, clip, encoding, message):
    with pytest.raises(UsageError, match=message):
        open_writer(clip, tmp_path / "out.mp4", **encoding)

    assert os.listdir(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize(
    ("name", "encoding", "message"),
    [
        ("out.gif", {}, "has no suffix of a container"),
        ("out", {}, "has no suffix of a container"),
        ("nowhere/out.mp4", {}, "nowhere does not exist"),
        ("out.webm", {"codec": "h264"}, "webm file cannot hold h264 video"),
        (
            "out.mkv",
            {"codec": "png"},
            r"mkv file cannot hold png video here; use \.mp4, .*\.nut, or",
        ),
        ("out.mov", {"codec": "ffv1"}, "mov file cannot hold ffv1 video"),
        ("out.mov", {"codec": "av1"}, "refuses this video"),
        ("out.mp4", {"codec": "h264_nvenc"}, "hardware encoder h264_nvenc .*--hwaccel auto"),
        ("clip.mp4", {}, "is the input itself"),
        ("clip.mp4", {"overwrite": True}, "is the input itself"),
    ],
)
def test_an_output_that_cannot_be_made_is_refused_at_once(tmp_path, clip, name, encoding, message):
    with pytest.raises(OutputError, match=message):
        open_writer(clip, tmp_path / name, **encoding)

    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_audio_that_another_container_can_hold_is_not_dropped(tmp_path):
    path = make_clip(tmp_path / "a.mp4", sound="flac")

    with pytest.raises(OutputError, match=r"\.mov.*stream 1 \(audio, flac, deu\).*\.mkv, or give"):
        open_writer(path, tmp_path / "out.mov")

    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_frame_too_small_for_x265_is_refused(tmp_path, clip):
    with pytest.raises(OutputError, match="x265 cannot encode frames as small as 48x32"):
        open_writer(clip, tmp_path / "out.mp4", codec="hevc")


def test_an_existing_output_is_kept_without_overwrite(tmp_path, clip):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")

    with pytest.raises(OutputError, match=r"exists.*--overwrite"):
        enlarge(clip, target)
    assert target.read_bytes() == b"precious"

    enlarge(clip, target, overwrite=True)
    assert len(read(target)) == len(CONSTANT)


def test_the_output_appears_only_when_it_is_complete(tmp_path, clip):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")

    with open_writer(clip, target, overwrite=True) as writer:
        for frame in read(clip):
            writer.write(frame)
        during = sorted(os.listdir(tmp_path))
        assert target.read_bytes() == b"precious"

    assert during == [f".out.{os.getpid()}.part.mp4", "clip.mp4", "out.mp4"]
    assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "out.mp4"]


def test_an_output_without_frames_is_refused(tmp_path, clip):
    with pytest.raises(OutputError, match="no frame"), open_writer(clip, tmp_path / "out.mp4"):
        pass

    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_frames_out_of_order_are_refused(tmp_path, clip):
    first, second = read(clip)[:2]

    with open_writer(clip, tmp_path / "out.mp4") as writer:
        writer.write(second)
        with pytest.raises(ValueError, match="times of frames must rise"):
            writer.write(first)

    assert times_of(read(tmp_path / "out.mp4")) == [512 * MP4_CLOCK]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_part_far_inside_a_long_video_is_found_by_seeking(tmp_path, suffix):
    clock, start = Fraction(1, 1000), Fraction(12)
    source = make_clip(
        tmp_path / f"long{suffix}",
        clock=clock,
        times=range(0, 15_000, 100),
        sound="aac",
        sound_seconds=15,
    )

    enlarge(source, tmp_path / f"out{suffix}", scale=1, start=start)

    expected = [(time - start, data) for time, data in packets(source, "audio")[0] if time >= start]
    assert times_of(read(tmp_path / f"out{suffix}")) == seconds(range(0, 3000, 100), clock)
    assert packets(tmp_path / f"out{suffix}", "audio") == [expected]


@pytest.mark.parametrize(
    ("name", "bits", "size", "codec"),
    [
        ("a.mp4", 8, (640, 480), "h264"),
        ("a.mp4", 10, (640, 480), "hevc"),
        ("a.MKV", 12, (640, 480), "hevc"),
        ("a.mkv", 10, (48, 32), "h264"),
        ("a.nut", 10, (640, 480), "h264"),
        ("a.webm", 8, (640, 480), "av1"),
        ("a.webm", 10, (48, 32), "vp9"),
    ],
)
def test_the_default_codec_fits_the_container_and_common_players(name, bits, size, codec):
    chosen = choose_codec(EncodingOptions("auto", crf=20), Path(name).suffix, bits=bits, size=size)

    assert chosen == EncodingOptions(codec, crf=20)


@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
def test_the_index_of_an_mp4_file_comes_before_its_frames(tmp_path, clip, name):
    enlarge(clip, tmp_path / name)

    content = (tmp_path / name).read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")


@pytest.mark.parametrize(
    ("codec", "size"), [("h264", (30720, 17280)), ("h264", (16640, 480)), ("av1", (480, 8768))]
)
def test_frames_too_large_for_an_encoder_are_refused_with_a_size_that_fits(codec, size):
    plan = plan_encoding(EncodingOptions(codec), "yuv420p")

    with pytest.raises(OutputError, match=f"as large as {size[0]}x{size[1]}; give --height 2160"):
        check_limits(plan, size=size, time_base=Fraction(1, 25))
