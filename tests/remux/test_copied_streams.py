"""Every stream beside the main video is copied, or reported as dropped before the work."""

import io
from fractions import Fraction

import av
import pytest
from audio_video import audible_range, make_av_clip, rewrite
from av.stream import Disposition
from clips import make_clip, picture
from PIL import Image

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.encode.options import EncodingOptions
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.encode.video_target import VideoTarget
from vsrm_cli.media.geometry import OutputShape

MILLISECONDS = Fraction(1, 1000)
CHAPTERS = [(0, 400, "Opening"), (400, 1000, "Größe")]
LINES = ["plain", "<i>slanted</i> and <b>bold</b>", "two\nlines & a < b", "<u>😀</u>"]
FONT = bytes(range(256))


def cover(kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (40, 40), (200, 10, 10)).save(file, kind)
    return file.getvalue()


def make_rich(path, *, lines=LINES, starts=None, codec="subrip", attachments=(), chapters=CHAPTERS):
    """A second of video with two tracks of subtitles and all that a container can hold."""
    is_mp4 = path.suffix == ".mp4"
    with av.open(str(path), "w") as output:
        output.metadata.update(title="A drawn film", comment="all of it")
        video = output.add_stream("libx264", rate=25, width=48, height=32, pix_fmt="yuv420p")
        texts = [output.add_mux_stream(codec, time_base=MILLISECONDS) for _ in range(2)]
        texts[0].metadata.update(language="spa", title="Words")
        texts[0].disposition = Disposition.forced
        texts[1].metadata.update(language="jpn", title="More words")
        texts[1].disposition = Disposition.default | Disposition.hearing_impaired
        for name, kind, data in attachments:
            output.add_attachment(name, kind, data)
        art = output.add_mux_stream("png", width=40, height=40) if is_mp4 else None
        if art is not None:
            art.disposition = Disposition.attached_pic
        output.set_chapters(
            [
                {
                    "id": i,
                    "start": a,
                    "end": b,
                    "time_base": MILLISECONDS,
                    "metadata": {"title": t} if t else {},
                }
                for i, (a, b, t) in enumerate(chapters, 1)
            ]
        )
        output.start_encoding()
        if art is not None:
            output.mux(_packet(art, cover(), 0, 0))
        for text in texts:
            for index, line in enumerate(lines):
                data = line.encode()
                if codec == "mov_text":
                    data = len(data).to_bytes(2, "big") + data
                begin = 200 * index if starts is None else starts[index]
                output.mux(_packet(text, data, begin, 150))
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(picture(index)).reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path


def _titled(title):
    return {} if title is None else {"title": title}


def _packet(stream, data, begin, duration):
    packet = av.Packet(data)
    packet.pts = packet.dts = begin
    packet.duration, packet.time_base, packet.stream = duration, MILLISECONDS, stream
    return packet


def chapters_of(path):
    with av.open(str(path)) as container:
        return [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"].get("title"))
            for c in container.chapters()
        ]


def lines_of(path, track=0):
    """Begin, duration and ASS text of each subtitle."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[track]
        for packet in container.demux(stream):
            for line in stream.codec_context.decode2(packet) or () if packet.size else ():
                text = line.ass.split(b",", 8)[-1].decode()
                begin = packet.pts * packet.time_base
                found.append((begin, packet.duration * packet.time_base, text))
    return found


def files_of(path):
    with av.open(str(path)) as container:
        return [(s.name, s.mimetype, s.data) for s in container.streams if s.type == "attachment"]


def covers_of(path):
    with av.open(str(path)) as container:
        return [
            bytes(next(container.demux(s)))
            for s in container.streams.video
            if s.disposition & Disposition.attached_pic
        ]


@pytest.mark.parametrize("source", ["in.mkv", "in.mp4"])
@pytest.mark.parametrize("target", ["out.mkv", "out.mp4", "out.mov", "out.nut"])
def test_chapters_keep_their_times_and_names(tmp_path, source, target):
    codec = "subrip" if source == "in.mkv" else "mov_text"
    make_rich(tmp_path / source, codec=codec)

    rewrite(tmp_path / source, tmp_path / target)

    expected = [(a * MILLISECONDS, b * MILLISECONDS, title) for a, b, title in CHAPTERS]
    assert chapters_of(tmp_path / target) == expected


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv"])
def test_chapters_without_a_name_are_kept(tmp_path, target):
    make_rich(tmp_path / "in.mkv", chapters=[(0, 500, None), (500, 900, None)])

    rewrite(tmp_path / "in.mkv", tmp_path / target)

    assert [begin for begin, _, _ in chapters_of(tmp_path / target)] == [0, Fraction(1, 2)]


@pytest.mark.parametrize("target", ["out.mp4", "out.mov"])
def test_a_late_first_chapter_keeps_its_start_in_mp4(tmp_path, target):
    make_rich(tmp_path / "in.mkv", chapters=[(300, 700, "a"), (700, 900, "b")])

    rewrite(tmp_path / "in.mkv", tmp_path / target)

    tenth = Fraction(1, 10)
    assert [(begin, name or None) for begin, _, name in chapters_of(tmp_path / target)] == [
        *((0, None), (3 * tenth, "a"), (7 * tenth, "b"))
    ]


@pytest.mark.parametrize("target", ["out.mkv", "out.mp4"])
def test_a_part_has_the_chapters_inside_it_clipped(tmp_path, target):
    chapters = [(0, 100, "a"), (100, 300, "b"), (300, 700, "c"), (700, 1000, "d")]
    make_rich(tmp_path / "in.mkv", chapters=chapters)

    rewrite(tmp_path / "in.mkv", tmp_path / target, start=Fraction(1, 5), end=Fraction(3, 5))

    tenth = Fraction(1, 10)
    assert chapters_of(tmp_path / target) == [(0, tenth, "b"), (tenth, 4 * tenth, "c")]


def test_fonts_and_cover_art_of_matroska_are_copied(tmp_path):
    attached = [("font.ttf", "font/ttf", FONT), ("ä b.txt", "text/plain", b"words")]
    make_rich(tmp_path / "in.mkv", attachments=[*attached, ("art.png", "image/png", cover())])

    rewrite(tmp_path / "in.mkv", tmp_path / "out.mkv")

    assert files_of(tmp_path / "out.mkv") == attached
    assert covers_of(tmp_path / "out.mkv") == [cover()]


@pytest.mark.parametrize("source", ["in.mkv", "in.mp4"])
@pytest.mark.parametrize("target", ["out.mkv", "out.mp4"])
@pytest.mark.parametrize("start", [None, Fraction(1, 2)], ids=["whole", "part"])
def test_cover_art_is_stored_as_the_container_requires(tmp_path, source, target, start):
    is_mkv = source == "in.mkv"
    make_rich(
        tmp_path / source,
        codec="subrip" if is_mkv else "mov_text",
        attachments=[("art.png", "image/png", cover())] if is_mkv else (),
    )

    rewrite(tmp_path / source, tmp_path / target, start=start)

    assert covers_of(tmp_path / target) == [cover()]


@pytest.mark.parametrize(
    ("source", "codec", "target", "becomes"),
    [
        ("in.mkv", "subrip", "out.mp4", "mov_text"),
        ("in.mkv", "subrip", "out.mov", "mov_text"),
        ("in.mp4", "mov_text", "out.mkv", "subrip"),
        ("in.mkv", "subrip", "out.webm", "webvtt"),
    ],
)
def test_text_subtitles_are_converted_to_the_codec_of_the_container(
    tmp_path, source, codec, target, becomes
):
    lines = [line.replace("<", "") for line in LINES] if codec == "mov_text" else LINES
    make_rich(tmp_path / source, codec=codec, lines=lines)

    writer = rewrite(
        tmp_path / source, tmp_path / target, codec="vp9" if target == "out.webm" else "h264"
    )

    assert _plainly(lines_of(tmp_path / target)) == _plainly(lines_of(tmp_path / source))
    assert len(lines_of(tmp_path / target)) == len(LINES)
    assert writer.warnings == []
    with av.open(str(tmp_path / target)) as container:
        first, second = container.streams.subtitles
        assert (first.codec.canonical_name, second.codec.canonical_name) == (becomes, becomes)
        assert (first.language, second.language) == ("spa", "jpn")
        title = "title" if target in ("out.mkv", "out.webm") else "name"
        if target != "out.mov":  # QuickTime tracks have no titles
            assert (first.metadata[title], second.metadata[title]) == ("Words", "More words")
        if target not in ("out.webm", "out.mov"):  # they know no such flag
            assert first.disposition & Disposition.forced


def _plainly(lines):
    """The lines, with equivalent ends of bold and the like unified."""
    closed = [(a, d, text.replace(r"{\r}", "")) for a, d, text in lines]
    for name in "biu":
        closed = [(a, d, text.replace(rf"{{\{name}0}}", "")) for a, d, text in closed]
    return closed


def test_subtitles_converted_back_and_forth_are_unchanged(tmp_path):
    make_rich(tmp_path / "in.mkv")

    rewrite(tmp_path / "in.mkv", tmp_path / "there.mp4")
    rewrite(tmp_path / "there.mp4", tmp_path / "back.mkv")

    with av.open(str(tmp_path / "back.mkv")) as container:
        stream = container.streams.subtitles[1]
        texts = [bytes(p).decode() for p in container.demux(stream) if p.size]
    assert texts == LINES


def test_subtitle_lines_that_lose_position_or_color_are_counted(tmp_path):
    lines = ["plain", r"{\an8}above", '<font color="#ff0000">red</font>', "while another"]
    make_rich(tmp_path / "in.mkv", lines=lines, starts=[0, 200, 400, 500])

    writer = rewrite(tmp_path / "in.mkv", tmp_path / "out.mp4")

    assert [text for _, _, text in lines_of(tmp_path / "out.mp4")] == [
        *("plain", "above", "red", "while another")
    ]
    assert writer.warnings[0].startswith("the color, position or overlap of 3 lines of stream 1")


@pytest.mark.parametrize("target", ["out.mp4", "out.webm"])
def test_empty_subtitle_lines_are_dropped(tmp_path, target):
    make_rich(tmp_path / "in.mkv", lines=["a", "", " ", r"{\an8}", "<i></i>", "b"])

    rewrite(tmp_path / "in.mkv", tmp_path / target, codec="vp9" if target == "out.webm" else "h264")

    assert [text for _, _, text in lines_of(tmp_path / target)] == ["a", "b"]


def test_simultaneous_subtitle_lines_stay_simultaneous(tmp_path):
    make_rich(tmp_path / "in.mkv", lines=["a", "b", "c"], starts=[200, 200, 200])

    rewrite(tmp_path / "in.mkv", tmp_path / "out.mkv")

    assert [begin for begin, _, _ in lines_of(tmp_path / "out.mkv")] == [Fraction(1, 5)] * 3


def test_dropped_streams_are_reported_before_the_first_frame(tmp_path):
    make_rich(tmp_path / "in.mkv", attachments=[("font.ttf", "font/ttf", FONT)], codec="ass")
    with VideoReader(tmp_path / "in.mkv") as reader:
        info = reader.info
        writer = VideoWriter(
            VideoTarget(
                tmp_path / "out.mp4",
                source=info,
                shape=OutputShape(48, 32, None),
                encoding=EncodingOptions(),
            )
        )
        dropped = list(writer.dropped)
        with pytest.raises(KeyboardInterrupt), writer:
            raise KeyboardInterrupt

    assert dropped == [
        "stream 1 (subtitles, ass, spa): a .mp4 file cannot hold it; an .mkv may",
        "stream 2 (subtitles, ass, jpn): a .mp4 file cannot hold it; an .mkv may",
        "stream 3 (attachment, font.ttf): a .mp4 file cannot hold it; an .mkv may",
    ]


def test_a_second_video_stream_is_copied(tmp_path):
    with av.open(str(tmp_path / "in.mkv"), "w") as output:
        streams = [
            output.add_stream("libx264", rate=25, width=w, height=32, pix_fmt="yuv420p")
            for w in (48, 32)
        ]
        for index in range(10):
            for stream in streams:
                drawn = av.VideoFrame.from_ndarray(picture(index, width=stream.width))
                frame = drawn.reformat(format="yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                output.mux(stream.encode(frame))
        for stream in streams:
            output.mux(stream.encode(None))

    rewrite(tmp_path / "in.mkv", tmp_path / "out.mp4")

    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [float(frame.time) for frame in container.decode(video=1)]
    assert times == pytest.approx([index / 25 for index in range(10)])


def test_transparency_is_reported_as_dropped(tmp_path):
    source = make_clip(tmp_path / "in.mkv", codec="ffv1", pixel_format="yuva420p", times=(0, 512))

    writer = rewrite(source, tmp_path / "out.mkv")

    assert writer.dropped == ("transparency: the network processes only colors",)


def tags_of(path):
    with av.open(str(path)) as container:
        stale = ("major_brand", "minor_version", "compatible_brands", "encoder")
        return {k.lower(): v for k, v in container.metadata.items() if k.lower() not in stale}


def make_tagged(path, tags):
    flags = {"movflags": "use_metadata_tags"} if path.suffix == ".mov" else {}
    with av.open(str(path), "w", container_options=flags) as output:
        output.metadata.update(tags)
        video = output.add_stream("libx264", rate=25, width=48, height=32, pix_fmt="yuv420p")
        frame = av.VideoFrame.from_ndarray(picture(0)).reformat(format="yuv420p")
        frame.pts = 0
        output.mux([*video.encode(frame), *video.encode(None)])
    return path


def test_tags_that_a_container_cannot_store_are_reported(tmp_path):
    tags = {"title": "A film", "artist": "Somebody", "director": "Another", "isbn": "1"}
    source = make_tagged(tmp_path / "in.mkv", tags)

    to_mp4 = rewrite(source, tmp_path / "out.mp4")
    to_mkv = rewrite(source, tmp_path / "out.mkv")

    assert to_mp4.dropped == ("tags DIRECTOR, ISBN: a .mp4 file cannot hold them; an .mkv may",)
    assert tags_of(tmp_path / "out.mp4") == {"title": "A film", "artist": "Somebody"}
    assert to_mkv.dropped == ()
    assert tags_of(tmp_path / "out.mkv") == tags


@pytest.mark.parametrize("target", ["out.mov", "out.mp4", "out.mkv"])
def test_tags_of_a_phone_are_kept(tmp_path, target):
    tags = {"com.apple.quicktime.make": "Apple", "com.apple.quicktime.location": "+1+2/"}
    source = make_tagged(tmp_path / "in.mov", tags)

    writer = rewrite(source, tmp_path / target)

    assert writer.dropped == ()
    assert tags_of(tmp_path / target).items() >= tags.items()


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv"])
def test_only_damaged_audio_packets_are_dropped(tmp_path, target):
    source = make_clip(
        tmp_path / "in.ts", clock=Fraction(1, 90000), times=range(0, 86400, 3600), sound="aac"
    )
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        sizes = [p.size for p in container.demux(audio=0) if p.size]
    headers = [i for i in range(len(data) - 1) if data[i] == 0xFF and data[i + 1] == 0xF1]
    for place in headers[10:13]:  # where frames of AAC begin
        data[place] = data[place + 1] = 0
    source.write_bytes(data)

    writer = rewrite(source, tmp_path / target)

    with av.open(str(tmp_path / target)) as container:
        assert len(sizes) - 8 <= sum(1 for p in container.demux(audio=0) if p.size) < len(sizes)
        assert sum(1 for _ in container.decode(video=0)) >= 0
    assert all("damaged packets of stream 1" in warning for warning in writer.warnings)


@pytest.mark.parametrize("target", ["out.mkv", "out.mp4", "out.nut"])
@pytest.mark.parametrize("rate", [22050, 44100])
def test_audio_hidden_by_an_edit_list_is_not_copied(tmp_path, rate, target):
    whole = make_av_clip(tmp_path / "whole.mov", encoder={"g": "100"}, sound=("aac", rate, "mono"))
    cut = tmp_path / "in.mov"
    with (
        av.open(str(whole)) as source,
        av.open(str(cut), "w", container_options={"avoid_negative_ts": "disabled"}) as output,
    ):
        targets = [output.add_stream_from_template(s) for s in source.streams]
        for packet in source.demux():
            if packet.size:
                packet.pts -= round(Fraction(3, 5) / packet.time_base)
                packet.dts -= round(Fraction(3, 5) / packet.time_base)
                packet.stream = targets[packet.stream.index]
                output.mux(packet)

    rewrite(cut, tmp_path / target)

    shown, begins, ends = audible_range(tmp_path / target)
    # One packet primes the decoder; NUT knows no time before zero and begins with the next one.
    assert -0.1 <= begins - shown <= (0.05 if target == "out.nut" else 0.001)
    assert ends - shown == pytest.approx(0.4, abs=0.05)
