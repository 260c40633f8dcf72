"""Audio that a container cannot hold is transcoded in sync, or dropped."""

import av
import pytest
from audio_video import audible_range, make_av_clip, rewrite

from vsrm_cli.errors import OutputError

STEP = 0.025  # a frame of the encoder, by which sound may begin or end softly


@pytest.mark.parametrize(
    ("sound", "begins", "name", "codec"),
    [
        (("aac", 44100, "stereo"), 0.0, "out.webm", "opus"),
        (("aac", 22050, "mono"), 0.3, "out.webm", "opus"),
        (("ac3", 48000, "5.1(side)"), 0.0, "out.webm", "opus"),
        (("libopus", 48000, "stereo"), 0.2, "out.mov", "aac"),
        (("flac", 48000, "stereo"), 0.0, "out.mov", "aac"),
    ],
)
def test_audio_that_the_container_cannot_hold_is_transcoded_in_sync(
    tmp_path, sound, begins, name, codec
):
    clip = make_av_clip(tmp_path / "clip.mkv", sound=sound, begins=begins)

    writer = rewrite(
        clip, tmp_path / name, codec="vp9" if codec == "opus" else "h264", audio="transcode"
    )

    with av.open(str(tmp_path / name)) as output:
        (stream,) = output.streams.audio
        assert stream.codec_context.codec.canonical_name == codec
        assert stream.codec_context.layout.nb_channels == {"mono": 1, "5.1(side)": 6}.get(
            sound[2], 2
        )
    before, after = audible_range(clip), audible_range(tmp_path / name)
    assert after[1] - after[0] == pytest.approx(before[1] - before[0], abs=STEP)
    assert after[2] - after[0] == pytest.approx(before[2] - before[0], abs=STEP)
    assert any(f"becomes {codec}" in kept for kept in writer.kept)
    assert not writer.warnings


def test_audio_that_the_container_can_hold_is_copied_even_with_transcode(tmp_path):
    clip = make_av_clip(tmp_path / "clip.mp4")

    rewrite(clip, tmp_path / "out.mkv", audio="transcode")

    with av.open(str(clip)) as one, av.open(str(tmp_path / "out.mkv")) as other:
        packets = [[bytes(p) for p in x.demux(audio=0) if p.size] for x in (one, other)]
        assert packets[0] == packets[1]


def test_a_gap_in_transcoded_audio_becomes_silence_of_the_same_length(tmp_path):
    clip = make_av_clip(tmp_path / "clip.mkv", sound=("aac", 48000, "stereo"), frames=50)
    holed = tmp_path / "holed.mkv"
    with av.open(str(clip)) as source, av.open(str(holed), "w") as output:
        targets = {s.index: output.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            is_hole = packet.stream.type == "audio" and 0.5 < (packet.pts or 0) / 1000 < 1.0
            if packet.size and not is_hole:
                packet.stream = targets[packet.stream.index]
                output.mux(packet)

    rewrite(holed, tmp_path / "out.webm", codec="vp9", audio="transcode")

    assert audible_range(tmp_path / "out.webm") == pytest.approx(audible_range(holed), abs=STEP)


def test_transcoded_audio_of_a_part_stays_in_sync(tmp_path):
    clip = make_av_clip(tmp_path / "clip.mkv", sound=("aac", 48000, "stereo"), frames=50)

    rewrite(clip, tmp_path / "out.webm", codec="vp9", audio="transcode", start=1, end=1.5)

    shown, begins, ends = audible_range(tmp_path / "out.webm")
    assert (shown, begins, ends) == pytest.approx((0, 0, 0.5), abs=2 * STEP)


def test_audio_none_drops_audio(tmp_path):
    clip = make_av_clip(tmp_path / "clip.mp4")

    writer = rewrite(clip, tmp_path / "out.webm", codec="vp9", audio="none")

    with av.open(str(tmp_path / "out.webm")) as output:
        assert not output.streams.audio
    assert writer.dropped == ("stream 1 (audio, aac, und): --audio none",)


def test_the_error_for_unsupported_audio_suggests_options(tmp_path):
    clip = make_av_clip(tmp_path / "clip.mp4")

    with pytest.raises(OutputError, match=r"\.mkv, or give --audio transcode or none"):
        rewrite(clip, tmp_path / "out.webm", codec="vp9")
