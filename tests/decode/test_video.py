"""Every frame of a file comes out once, in order, with its exact time; damage is counted."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import CONSTANT, MP4_CLOCK, VARIABLE, index_of, make_clip, seconds

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.errors import InputError

TS_CLOCK = Fraction(1, 90000)
MILLISECONDS = Fraction(1, 1000)


def read(path, **options):
    with VideoReader(path, **options) as reader:
        return list(reader), reader


def times_of(frames):
    return [frame.time for frame in frames]


def decodable(path):
    """How many frames FFmpeg itself gets out of a file."""
    count = 0
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                count += len(packet.decode())
            except av.FFmpegError:
                continue
    return count


@pytest.mark.parametrize("times", [CONSTANT, VARIABLE], ids=["constant", "variable"])
@pytest.mark.parametrize("b_frames", ["0", "3"], ids=["plain", "reordered"])
def test_every_frame_of_an_mp4_has_its_exact_time(tmp_path, times, b_frames):
    clip = make_clip(tmp_path / "clip.mp4", times=times, encoder={"bf": b_frames})

    frames, reader = read(clip)

    assert times_of(frames) == seconds(times)
    assert [index_of(frame.pixels) for frame in frames] == [i % 25 for i in range(len(times))]
    assert (reader.frames_read, reader.faults.damaged, reader.truncated) == (len(times), 0, False)


@pytest.mark.parametrize(
    ("name", "clock", "times"),
    [
        ("clip.mkv", MILLISECONDS, [0, 40, 41, 90, 300, 1200, 1233]),
        ("clip.ts", TS_CLOCK, [900, 4500, 8103, 20000, 90000]),
        ("clip.mov", Fraction(1001, 30000), list(range(7, 30))),
        ("clip.mp4", MP4_CLOCK, [5000]),
    ],
    ids=["matroska", "transport stream", "ntsc", "one frame"],
)
def test_other_time_bases_are_read_exactly(tmp_path, name, clock, times):
    clip = make_clip(tmp_path / name, clock=clock, times=times, encoder={"bf": "0"})

    frames, reader = read(clip)

    assert times_of(frames) == seconds(times, clock)
    assert not reader.truncated


def test_frames_without_times_get_increasing_ones(tmp_path):
    clip = make_clip(tmp_path / "raw.h264", encoder={"bf": "2"})

    frames, _ = read(clip)

    steps = np.diff(times_of(frames))
    assert len(frames) == len(CONSTANT)
    assert set(steps) == {Fraction(1, 25)}


def test_durations_are_kept(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", times=VARIABLE, encoder={"bf": "0"})

    frames, _ = read(clip)

    assert [f.duration for f in frames[:-1]] == list(np.diff(seconds(VARIABLE)))


@pytest.mark.parametrize(
    ("pixel_format", "kind"),
    [
        *[(name, np.uint8) for name in ("yuv420p", "yuv410p", "gray", "bgr0", "yuva420p")],
        *[(name, np.uint16) for name in ("yuv420p10le", "gray16le", "gbrp12le")],
    ],
)
def test_odd_sizes_and_many_pixel_formats_are_read(tmp_path, pixel_format, kind):
    clip = make_clip(
        tmp_path / "odd.mkv",
        codec="ffv1",
        pixel_format=pixel_format,
        size=(37, 23),
        times=CONSTANT[:3],
    )

    frames, _ = read(clip)

    assert [frame.pixels.shape for frame in frames] == [(3, 23, 37)] * 3
    assert frames[0].pixels.dtype == kind
    assert [index_of(frame.pixels) for frame in frames] == [0, 1, 2]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "fragments.mp4"])
@pytest.mark.parametrize(
    ("start", "end"),
    [("0.5", None), (None, "0.5"), ("0.41", "0.63"), ("0.92", None), ("0", "1000")],
)
def test_a_part_of_a_video_is_exactly_the_frames_inside(tmp_path, name, start, end):
    fragments = {"movflags": "frag_keyframe+empty_moov"} if "fragments" in name else {}
    clip = make_clip(
        tmp_path / name,
        clock=TS_CLOCK,
        times=[1800 + 3600 * i for i in range(24)],
        container=fragments,
    )
    whole, first = read(clip)[0], read(clip)[0][0].time
    limits = {k: Fraction(v) for k, v in (("start", start), ("end", end)) if v is not None}

    frames, reader = read(clip, **limits)

    begin, finish = limits.get("start", 0) + first, limits.get("end", 999) + first
    assert times_of(frames) == [f.time for f in whole if begin <= f.time < finish]
    assert [index_of(f.pixels) for f in frames] == [
        index_of(f.pixels) for f in whole if begin <= f.time < finish
    ]
    assert not reader.truncated


@pytest.mark.parametrize("name", ["clip.mkv", "clip.ts", "clip.mp4", "fragments.mp4", "clip.avi"])
@pytest.mark.parametrize("kept", [0.65, 0.85])
def test_a_truncated_file_gives_every_remaining_frame(tmp_path, name, kept):
    flags = {"clip.mp4": "+faststart", "fragments.mp4": "frag_keyframe+empty_moov"}
    clip = make_clip(
        tmp_path / name,
        clock=Fraction(1, 25) if name.endswith("avi") else TS_CLOCK,
        times=range(60) if name.endswith("avi") else range(0, 60 * 3600, 3600),
        encoder={"bf": "0"},
        container={"movflags": flags[name]} if name in flags else {},
    )
    data = clip.read_bytes()
    clip.write_bytes(data[: int(len(data) * kept)])

    frames, reader = read(clip)

    assert reader.truncated
    assert len(frames) == decodable(clip) > 0


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_a_damaged_middle_costs_only_the_damaged_frames(tmp_path, name):
    clip = make_clip(tmp_path / name, times=range(0, 60 * 512, 512))
    with av.open(str(clip)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size][25:31]
    data = bytearray(clip.read_bytes())
    noise = np.random.default_rng(1)
    for position, size in places:
        data[position + 8 : position + size] = noise.bytes(size - 8)
    clip.write_bytes(data)

    frames, reader = read(clip)

    assert reader.truncated
    assert reader.faults.damaged > 0
    assert len(frames) == decodable(clip) > 50
    assert times_of(frames) == sorted(set(times_of(frames)))
    assert frames[-1].time == 59 * 512 * MP4_CLOCK


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_audio_longer_than_the_video_is_not_a_truncated_video(tmp_path, name):
    clip = make_clip(tmp_path / name, sound="aac", sound_seconds=4)

    _, reader = read(clip)

    assert not reader.truncated


def test_a_subtitle_after_the_last_frame_is_not_a_truncated_video(tmp_path):
    clip = make_clip(tmp_path / "clip.mkv", times=CONSTANT[:5], subtitles="subrip")

    _, reader = read(clip)

    assert not reader.truncated


@pytest.mark.parametrize("deinterlace", [False, True])
def test_frames_that_change_their_size_are_scaled_to_the_first_and_counted(tmp_path, deinterlace):
    parts = [
        make_clip(tmp_path / f"{size[0]}.h264", size=size, times=CONSTANT[:10], encoder={"bf": "0"})
        for size in ((48, 32), (96, 48))
    ]
    (tmp_path / "both.h264").write_bytes(b"".join(part.read_bytes() for part in parts))

    frames, reader = read(tmp_path / "both.h264", deinterlace=deinterlace)

    assert [index_of(frame.pixels) for frame in frames] == [*range(10), *range(10)]
    assert {frame.pixels.shape for frame in frames} == {(3, 32, 48)}
    assert reader.faults.resized == 10


def test_pixels_that_change_their_shape_on_the_way_are_counted(tmp_path):
    parts = []
    for number, pixel in enumerate((Fraction(8, 9), Fraction(32, 27))):

        def shape(video, pixel=pixel):
            video.codec_context.sample_aspect_ratio = pixel

        part = make_clip(
            tmp_path / f"{number}.m2v",
            times=range(12),
            clock=Fraction(1, 25),
            codec="mpeg2video",
            encoder={"bf": "0", "g": "4"},
            prepare=shape,
        )
        parts.append(part.read_bytes())
    clip = tmp_path / "program.m2v"
    clip.write_bytes(b"".join(parts))

    with VideoReader(clip) as reader:
        frames = list(reader)

    assert len(frames) == 24
    assert reader.info.sample_aspect_ratio == Fraction(8, 9)
    assert 11 <= reader.faults.reshaped <= 13  # the decoder is a frame ahead of what it gives


@pytest.mark.parametrize("codec", ["libx264", "ffv1", "libvpx-vp9"])
def test_chroma_is_read_at_the_location_of_the_codec(tmp_path, codec):
    # Red grows by the same from pixel to pixel; its samples lie on the even ones.
    frame = av.VideoFrame(128, 64, "yuv420p")
    for plane, value in zip(frame.planes, (128, 128, np.arange(64) * 2 + 64), strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        rows[:, : plane.width] = value
    lossless = {"libx264": {"qp": "0"}, "ffv1": {}, "libvpx-vp9": {"lossless": "1"}}[codec]
    with av.open(str(tmp_path / "red.mkv"), "w") as output:
        video = output.add_stream(
            codec, rate=25, width=128, height=64, pix_fmt="yuv420p", options=lossless
        )
        video.codec_context.colorspace, video.codec_context.color_range = 1, 2
        frame.pts = 0
        output.mux(video.encode(frame))
        output.mux(video.encode(None))

    frames, _ = read(tmp_path / "red.mkv")

    # BT.709: red = Y + 1.5748 * (V - 128); V is 64 + x at the pixel x.
    x = np.arange(20, 80)
    expected = 128 + 1.5748 * (64 + x - 128)
    assert abs(np.mean(frames[0].pixels[0, 32, 20:80] - expected)) < 0.3


def test_a_wrong_name_fails_before_the_first_frame(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        VideoReader(tmp_path / "nothing.mp4")
