"""Missing content and wrong times in a finished file are detected."""

import os
from dataclasses import replace
from fractions import Fraction

import av
import pytest
from clips import CONSTANT, MP4_CLOCK, VARIABLE, make_clip

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.encode import video as writer
from vsrm_cli.encode.options import EncodingOptions
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.encode.video_target import VideoTarget
from vsrm_cli.errors import CheckFailed
from vsrm_cli.media.geometry import OutputShape
from vsrm_cli.media.probe import probe
from vsrm_cli.remux.verify import ExpectedOutput, ExpectedStream, verify_file

AUDIO = ExpectedStream("sound", 47, Fraction(-1024, 48000), Fraction(47104, 48000))
SUBTITLES = ExpectedStream("subtitles", 3, Fraction(1, 10), Fraction(9, 10))


def expected_of(times=CONSTANT, **others):
    return ExpectedOutput(times, MP4_CLOCK, 512, streams={1: AUDIO, 2: SUBTITLES}, **others)


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "clip.mp4", sound="aac", subtitles="mov_text")


def test_a_file_that_holds_everything_passes(clip):
    verify_file(clip, expected_of())


@pytest.mark.parametrize("name", ["clip.mkv", "clip.webm"])
def test_rounding_to_milliseconds_is_accepted_in_matroska(tmp_path, name):
    codec = "libvpx-vp9" if name == "clip.webm" else "libx264"
    clip = make_clip(tmp_path / name, times=VARIABLE, codec=codec)

    verify_file(clip, ExpectedOutput(VARIABLE, MP4_CLOCK, 512))


@pytest.mark.parametrize(
    ("expected", "finding"),
    [
        (expected_of((*CONSTANT, 99999)), "24 frames instead of 25"),
        (expected_of(CONSTANT[:-1]), "24 frames instead of 23"),
        (expected_of((*CONSTANT[:-1], 11777)), r"shown at 0\.920000 s, not at 0\.920078"),
        (replace(expected_of(), last_duration=500), "seconds of the last frame"),
        (expected_of(attachments=1), "0 attachments instead of 1"),
        (expected_of(covers=1), "0 cover images instead of 1"),
        (expected_of(chapters=2), "0 chapters instead of 2"),
        (
            replace(expected_of(), streams={1: replace(AUDIO, packets=48)}),
            "47 packets of sound instead of 48",
        ),
        (
            replace(expected_of(), streams={1: replace(AUDIO, begin=Fraction(0))}),
            r"sound begins at -0\.021333 s, not at 0\.000000",
        ),
        (
            replace(expected_of(), streams={2: replace(SUBTITLES, packets=4)}),
            "3 packets of subtitles instead of 4",
        ),
    ],
)
def test_every_difference_from_the_expected_file_is_reported(clip, expected, finding):
    with pytest.raises(CheckFailed, match=finding):
        verify_file(clip, expected)


def test_the_end_of_audio_with_regrouped_packets_is_verified(tmp_path):
    clip = make_clip(tmp_path / "clip.mov", sound="pcm_s16le")
    tone = ExpectedStream("sound", 99, Fraction(0), Fraction(47104, 48000))

    verify_file(clip, replace(expected_of(), streams={1: tone}))
    with pytest.raises(CheckFailed, match=r"sound ends at 0\.9\d+ s, not at 2\.000000"):
        verify_file(clip, replace(expected_of(), streams={1: replace(tone, end=Fraction(2))}))


def test_a_stream_without_packets_may_have_no_track(clip):
    nothing = replace(SUBTITLES, packets=0)

    verify_file(clip, replace(expected_of(), streams={1: AUDIO, 2: nothing, 3: SUBTITLES}))
    with pytest.raises(CheckFailed, match="0 packets of subtitles instead of 3"):
        verify_file(clip, replace(expected_of(), streams={3: SUBTITLES}))


def test_a_file_that_fails_verification_is_not_kept(tmp_path, clip, monkeypatch):
    honest = writer.verify_file

    def prove_more(path, expected):
        honest(path, expected)
        honest(path, replace(expected, times=[*expected.times, 10**6]))

    monkeypatch.setattr(writer, "verify_file", prove_more)
    info = probe(clip)

    def copy():
        with (
            VideoReader(clip) as frames,
            VideoWriter(
                VideoTarget(
                    tmp_path / "out.mp4",
                    source=info,
                    shape=OutputShape(48, 32, None),
                    encoding=EncodingOptions(),
                )
            ) as output,
        ):
            for frame in frames:
                output.write(frame)

    with pytest.raises(CheckFailed, match="24 frames instead of 25"):
        copy()

    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_a_stream_that_ends_too_early_is_reported(clip):
    whole = replace(AUDIO, latest=AUDIO.end - Fraction(1024, 48000), is_decodable=True)

    verify_file(clip, replace(expected_of(), streams={1: whole, 2: SUBTITLES}))
    with pytest.raises(CheckFailed, match=r"last packet of sound begins at 0\.96\d+ s, not at 2\."):
        verify_file(
            clip,
            replace(expected_of(), streams={1: replace(whole, latest=Fraction(2)), 2: SUBTITLES}),
        )


def test_a_stream_that_cannot_be_decoded_is_reported(clip):
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        for packet in container.demux(audio=0):
            if packet.size:
                data[packet.pos : packet.pos + packet.size] = b"\xaa" * packet.size
    clip.write_bytes(data)
    sound = replace(AUDIO, is_decodable=True)

    with pytest.raises(CheckFailed, match="sound cannot be decoded"):
        verify_file(clip, replace(expected_of(), streams={1: sound, 2: SUBTITLES}))
