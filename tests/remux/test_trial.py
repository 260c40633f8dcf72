"""Trial files find out before the work what a container can hold."""

from fractions import Fraction

import av
import pytest
from audio_video import audible_range, count_packets, make_av_clip, rewrite

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.encode.options import EncodingOptions
from vsrm_cli.encode.segments import SegmentedVideo, choose_container
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.encode.video_target import VideoTarget
from vsrm_cli.encode.writer import Segment
from vsrm_cli.errors import OutputError
from vsrm_cli.media.geometry import OutputShape
from vsrm_cli.media.probe import probe
from vsrm_cli.remux.trial import can_hold, read_samples

WINDOWS_MEDIA = {"in.wmv": "asf"}


@pytest.mark.parametrize(
    ("source", "codec"),
    [
        *(("in.wmv", "wmav1"), ("in.wmv", "wmav2"), ("in.avi", "adpcm_ima_wav")),
        *(("in.avi", "adpcm_ms"), ("in.avi", "adpcm_yamaha"), ("in.avi", "pcm_mulaw")),
    ],
)
def test_audio_that_matroska_stores_as_acm_is_copied_completely(tmp_path, source, codec):
    kind = WINDOWS_MEDIA.get(source)
    clip = make_av_clip(tmp_path / source, kind=kind, sound=(codec, 22050, "stereo"))

    writer = rewrite(clip, tmp_path / "out.mkv")

    assert writer.dropped == ()
    assert count_packets(tmp_path / "out.mkv") == count_packets(clip)
    assert audible_range(tmp_path / "out.mkv") == pytest.approx(audible_range(clip), abs=0.001)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.audio[0].codec.canonical_name == codec


@pytest.mark.parametrize(
    ("source", "sound", "target"),
    [
        ("in.avi", ("pcm_s24le", 48000, "stereo"), "out.mp4"),
        ("in.avi", ("pcm_u8", 11025, "mono"), "out.mov"),
        ("in.mkv", ("pcm_s16le", 44100, "stereo"), "out.mp4"),
        ("in.mkv", ("pcm_f32le", 48000, "stereo"), "out.mp4"),
        ("in.mov", ("pcm_s16be", 48000, "5.1"), "out.mp4"),
        ("in.mkv", ("alac", 48000, "5.1"), "out.mov"),
    ],
)
def test_uncompressed_and_lossless_audio_is_kept(tmp_path, source, sound, target):
    clip = make_av_clip(tmp_path / source, codec="mjpeg", sound=sound)

    writer = rewrite(clip, tmp_path / target)

    assert writer.dropped == ()
    assert audible_range(tmp_path / target) == pytest.approx(audible_range(clip), abs=0.001)


@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_f64le"])
@pytest.mark.parametrize("damage", [b"\xff\xff\x7f\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f"])
def test_damaged_float_audio_with_huge_samples_is_copied_without_a_warning(tmp_path, codec, damage):
    clip = make_av_clip(tmp_path / "in.mkv", sound=(codec, 48000, "mono"))
    data = clip.read_bytes()
    with av.open(str(clip)) as container:
        sound = bytes(next(p for p in container.demux(audio=0) if p.size))
    clip.write_bytes(data.replace(sound, sound[:512] + damage * 2 + sound[520:]))

    writer = rewrite(clip, tmp_path / "out.mkv")

    assert writer.dropped == ()
    assert count_packets(tmp_path / "out.mkv") == count_packets(clip)


def test_audio_that_only_another_container_holds_is_refused_and_that_one_suggested(tmp_path):
    clip = make_av_clip(tmp_path / "in.avi", sound=("adpcm_ima_wav", 22050, "stereo"))

    with pytest.raises(OutputError, match=r"adpcm_ima_wav.*name the output \.mkv"):
        VideoWriter(
            VideoTarget(
                tmp_path / "out.mp4",
                source=probe(clip),
                shape=OutputShape(64, 48, None),
                encoding=EncodingOptions(),
            )
        )


def test_a_muxer_that_writes_undecodable_streams_is_detected(tmp_path):
    # NUT stores no size of blocks, without which WMA is not to be decoded.
    clip = make_av_clip(tmp_path / "in.wmv", kind="asf", sound=("wmav2", 44100, "mono"))
    samples = read_samples(clip)

    with av.open(str(clip)) as container:
        sound = container.streams.audio[0]
        held = {
            name: can_hold(name, sound, samples[sound.index])
            for name in ("matroska", "nut", "webm", "mp4")
        }

    assert held == {"matroska": True, "nut": False, "webm": False, "mp4": False}


def timecode_of(path):
    with av.open(str(path)) as container:
        found = {
            value
            for part in (container, *container.streams)
            for name, value in part.metadata.items()
            if name.lower() == "timecode"
        }
    return found.pop() if found else None


@pytest.mark.parametrize("source", ["in.mov", "in.mp4", "in.mkv"])
@pytest.mark.parametrize("target", ["out.mov", "out.mp4", "out.mkv"])
def test_a_timecode_is_copied(tmp_path, source, target):
    clip = make_av_clip(tmp_path / source, rate=30, tags={"timecode": "10:20:30:12"})

    writer = rewrite(clip, tmp_path / target)

    assert writer.dropped == ()
    assert timecode_of(tmp_path / target) == "10:20:30:12"


def test_a_timecode_that_cannot_be_kept_is_reported(tmp_path):
    clip = make_av_clip(tmp_path / "in.mkv", tags={"timecode": "01:00:00;02"})  # no rate drops so

    whole = rewrite(clip, tmp_path / "out.mp4")
    part = rewrite(clip, tmp_path / "part.mkv", start=Fraction(1, 5))

    assert whole.dropped == (
        "timecode 01:00:00;02: a .mp4 file cannot hold it at this frame rate; an .mkv may",
    )
    assert part.dropped == (
        "timecode 01:00:00;02: it is the timecode of the first frame, which is cut off",
    )
    assert timecode_of(tmp_path / "out.mp4") is None
    assert timecode_of(tmp_path / "part.mkv") is None


@pytest.mark.parametrize("codec", ["utvideo", "rawvideo", "magicyuv", "hevc"])
def test_joined_segments_of_any_codec_decode(tmp_path, codec):
    clip = make_av_clip(tmp_path / "in.mp4", frames=5)
    with VideoReader(clip) as reader:
        frames = list(reader)
        writer = SegmentedVideo(
            VideoTarget(
                tmp_path / "out.nut",
                source=reader.info,
                shape=OutputShape(64, 48, None),
                encoding=EncodingOptions(codec),
                folder=tmp_path,
            )
        )

    with writer:
        segment = writer.open_segment(tmp_path / "000", writer.segment_container)
        for frame in frames:
            segment.write(frame)
        segment.close()
        writer.join([Segment(segment.path, segment.ticks)], segment.end)

    with VideoReader(tmp_path / "out.nut") as reader:
        found = list(reader)
    assert [frame.time for frame in found] == [frame.time for frame in frames]
    for before, after in zip(frames, found, strict=True):
        assert abs(before.pixels.mean() - after.pixels.mean()) < 3


def test_an_encoder_whose_output_does_not_decode_is_refused_early(tmp_path):
    clip = make_av_clip(tmp_path / "in.mp4", frames=5)
    target = VideoTarget(
        tmp_path / "out.mov",
        source=probe(clip),
        shape=OutputShape(64, 48, None),
        encoding=EncodingOptions("rawvideo"),
        folder=tmp_path,
    )

    with pytest.raises(OutputError, match=r"rawvideo.*cannot be decoded from a \.mov file"):
        SegmentedVideo(target)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_segments_of_hevc_use_one_container_and_join(tmp_path, frames):
    clip = make_av_clip(tmp_path / "in.mp4", frames=6)
    with VideoReader(clip) as reader:
        read = list(reader)
        writer = SegmentedVideo(
            VideoTarget(
                tmp_path / "out.mkv",
                source=reader.info,
                shape=OutputShape(64, 48, None),
                encoding=EncodingOptions("hevc", preset="ultrafast"),
                folder=tmp_path,
            )
        )

    containers = {choose_container(writer.target) for _ in range(8)}
    with writer:
        segments = []
        for begin in range(0, 6, frames):
            segment = writer.open_segment(tmp_path / f"{begin}", writer.segment_container)
            for frame in read[begin : begin + frames]:
                segment.write(frame)
            segment.close()
            segments.append(Segment(segment.path, segment.ticks))
        writer.join(segments, segment.end)

    assert containers == {"mp4"}
    with VideoReader(tmp_path / "out.mkv") as reader:
        assert [frame.time for frame in reader] == [frame.time for frame in read]
