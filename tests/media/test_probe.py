"""Facts come from the frames; files that are not videos are refused with a clear message."""

import os
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import CONSTANT, MP4_CLOCK, make_clip, packets, picture
from PIL import Image

from vsrm_cli.errors import InputError
from vsrm_cli.media.color import Color
from vsrm_cli.media.probe import probe


def make_sound_only(path, *, cover=False):
    with av.open(str(path), "w") as output:
        audio = output.add_stream("libmp3lame", rate=48000, layout="mono")
        if cover:
            art = output.add_stream("png", rate=1, width=48, height=32, pix_fmt="rgb24")
            art.disposition = av.stream.Disposition.attached_pic
            output.start_encoding()
            output.mux(art.encode(av.VideoFrame.from_ndarray(picture(0))))
        for block in range(8):
            silence = np.zeros((1, 1152), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, block * 1152
            frame.time_base = Fraction(1, 48000)
            output.mux(audio.encode(frame))
        output.mux(audio.encode(None))
    return path


def test_a_simple_video_is_probed(tmp_path):
    clip = make_clip(tmp_path / "plain.mp4", sound="aac")

    info = probe(clip)

    assert (info.width, info.height, info.pixel_format, info.bits) == (48, 32, "yuv420p", 8)
    assert (info.frame_rate, info.time_base, info.start) == (25, MP4_CLOCK, 0)
    assert (info.duration, info.expected_frames) == (Fraction(24, 25), 24)
    assert (info.sample_aspect_ratio, info.display_matrix) == (None, None)
    assert not info.is_cut_short


def test_the_start_is_the_time_of_the_first_frame(tmp_path):
    clip = make_clip(tmp_path / "late.mp4", times=[ticks + 12345 for ticks in CONSTANT])

    assert probe(clip).start == 12345 * MP4_CLOCK


def test_color_tags_are_read(tmp_path):
    def tag(video):
        context = video.codec_context
        context.colorspace, context.color_range = 1, 2
        context.color_primaries, context.color_trc = 1, 13

    clip = make_clip(tmp_path / "tagged.mp4", prepare=tag)

    assert probe(clip).color == Color(1, full_range=True, primaries=1, transfer=13)


def test_sample_aspect_ratio_and_display_matrix_are_read(tmp_path):
    def tag(video):
        video.codec_context.sample_aspect_ratio = Fraction(16, 11)
        video.set_display_rotation(90)

    info = probe(make_clip(tmp_path / "turned.mp4", prepare=tag))

    assert info.sample_aspect_ratio == Fraction(16, 11)
    assert info.display_matrix[:6] == (0, -65536, 0, 65536, 0, 0)
    assert (info.width, info.height) == (48, 32)


def test_bit_depth_comes_from_the_frames(tmp_path):
    clip = make_clip(tmp_path / "deep.mkv", codec="ffv1", pixel_format="yuv420p10le")

    assert probe(clip).bits == 10


def test_assumed_color_properties_are_reported(tmp_path):
    def tag(video):
        video.codec_context.colorspace = 1

    untagged = make_clip(tmp_path / "untagged.mkv", codec="ffv1", times=(0,))
    tagged = make_clip(tmp_path / "tagged.mp4", prepare=tag)

    assert probe(untagged).assumed == (
        "matrix BT.601, as the size suggests",
        "chroma samples at the left pixel of two, as in H.264",
    )
    assert probe(tagged).assumed == ()


def test_a_colon_in_a_file_name_is_not_a_protocol(tmp_path, monkeypatch):
    make_clip(tmp_path / "a.mp4").rename(tmp_path / "12:30.mp4")
    monkeypatch.chdir(tmp_path)

    assert probe("12:30.mp4").width == 48


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_a_truncated_file_is_detected(tmp_path, suffix):
    clip = make_clip(tmp_path / f"whole{suffix}")
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(clip.read_bytes()[:-77])

    assert not probe(clip).is_cut_short
    assert probe(cut).is_cut_short


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.mp4 does not exist"):
        probe(tmp_path / "nothing.mp4")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        probe(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.mp4").touch()

    with pytest.raises(InputError, match="is empty"):
        probe(tmp_path / "empty.mp4")


@pytest.mark.parametrize("name", ["letter.mp4", "letter.txt"])
def test_text_is_refused_under_any_name(tmp_path, name):
    (tmp_path / name).write_text("It was a dark and stormy night.\n" * 200)

    with pytest.raises(InputError, match="not a video file"):
        probe(tmp_path / name)


def test_noise_is_refused(tmp_path):
    noise = np.random.default_rng(0).bytes(5000)
    (tmp_path / "noise.mp4").write_bytes(noise)

    with pytest.raises(InputError, match="not a video file"):
        probe(tmp_path / "noise.mp4")


def test_a_file_with_audio_only_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds sound only"):
        probe(make_sound_only(tmp_path / "song.mp3"))


def test_cover_art_is_not_a_video(tmp_path):
    with pytest.raises(InputError, match="cover art but no video"):
        probe(make_sound_only(tmp_path / "song.mp3", cover=True))


def test_an_mp4_without_its_index_is_reported(tmp_path):
    clip = make_clip(tmp_path / "whole.mp4")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])

    with pytest.raises(InputError, match=r"cut short.*index \(moov\)"):
        probe(cut)


def test_a_video_without_a_decodable_frame_is_refused(tmp_path):
    clip = make_clip(tmp_path / "whole.mp4", container={"movflags": "+faststart"})
    data = bytearray(clip.read_bytes())
    pictures = data.index(b"mdat") + 4
    data[pictures:] = os.urandom(len(data) - pictures)
    (tmp_path / "noise.mp4").write_bytes(data)

    with pytest.raises(InputError, match="Not one frame"):
        probe(tmp_path / "noise.mp4")


def test_bytes_after_the_last_box_of_an_mp4_are_not_damage(tmp_path):
    clip = make_clip(tmp_path / "camera.mp4")
    with clip.open("ab") as file:
        file.write(struct.pack(">I4s", 10**6, b"junk"))

    assert not probe(clip).is_cut_short


def test_the_generated_test_clips_are_as_requested(tmp_path):
    clip = make_clip(tmp_path / "full.mp4", sound="aac", subtitles="mov_text")

    assert [len(stream) for stream in packets(clip, "audio")] == [47]
    assert [len(stream) for stream in packets(clip, "subtitle")] == [3]


@pytest.mark.parametrize(
    ("orientation", "matrix"),
    [(1, None), (3, (-65536, 0, 0, 0, -65536)), (6, (0, 65536, 0, -65536, 0))],
)
def test_a_photo_with_an_exif_orientation_is_probed(tmp_path, orientation, matrix):
    photo = Image.new("RGB", (64, 48), (200, 10, 10))
    exif = photo.getexif()
    exif[0x0112] = orientation
    photo.save(tmp_path / "photo.jpg", exif=exif)

    info = probe(tmp_path / "photo.jpg")

    assert (info.width, info.height) == (64, 48)
    assert info.display_matrix == (matrix and (*matrix, 0, 0, 0, 1 << 30))


def make_transparent(path, codec, *, tag):
    """VP8 or VP9 with a second block of alpha for each frame, and its tag."""
    with av.open(str(path), "w") as output:
        video = output.add_stream(codec, rate=25, options={"auto-alt-ref": "0"})
        video.width, video.height, video.pix_fmt = 48, 32, "yuva420p"
        if tag:
            video.metadata["alpha_mode"] = "1"
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(picture(index)).reformat(format="yuva420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
@pytest.mark.parametrize("tag", [True, False], ids=["tag", "no tag"])
def test_vp9_alpha_is_reported_as_dropped(tmp_path, codec, tag):
    clip = make_transparent(tmp_path / "overlay.webm", codec, tag=tag)

    assert probe(clip).dropped == ("transparency: the network processes only colors",)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_as_input_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.mkv")

    with pytest.raises(InputError, match=r"is a pipe or a device, .* name the input -\."):
        probe(tmp_path / "pipe.mkv")


def test_an_animated_webp_is_refused(tmp_path):
    images = [Image.fromarray(picture(n)) for n in range(0, 12, 4)]
    images[0].save(tmp_path / "cat.webp", save_all=True, append_images=images[1:], duration=90)

    with pytest.raises(InputError, match=r"is an animated WebP, .* convert it"):
        probe(tmp_path / "cat.webp")
