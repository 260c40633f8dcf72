"""Chapters, attachments, cover art and tags.

Containers store them in different ways, or not at all: cover art is an attachment in Matroska, and
a stream of one image in MP4.
"""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from math import lcm
from typing import TYPE_CHECKING

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

if TYPE_CHECKING:  # in PyAV 18 only the stubs have this name
    from av.container.core import Chapter

# Tags about the source file and its encoder that do not apply to the output.
_STALE = (
    *("major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id"),
    *("software", "duration", "bps", "number_of_", "_statistics", "alpha_mode"),
)
# QuickTime supports only one of the two ISO 639-2 codes of these languages.
_MOV_LANGUAGES = {
    **{"fre": "fra", "deu": "ger", "nld": "dut", "swe": "sve", "ell": "gre", "isl": "ice"},
    **{"zho": "chi", "fas": "iri", "sqi": "alb", "rum": "ron", "cze": "ces", "slo": "slk"},
    **{"mkd": "mac", "hye": "arm", "kat": "geo", "bod": "tib", "mya": "bur", "msa": "may"},
    **{"cym": "wel", "eus": "baq"},
}
_TIMECODE = "timecode"
_NANOSECOND = Fraction(1, 10**9)
_COVER_FILES = {
    "mjpeg": ("cover.jpg", "image/jpeg"),
    "png": ("cover.png", "image/png"),
    "bmp": ("cover.bmp", "image/bmp"),
}


def is_cover(stream: Stream) -> bool:
    """Whether a stream is cover art."""
    return stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)


def keeps_cover(container: str, cover: Stream, codec: str) -> bool:
    """Whether a container, by FFmpeg's name, can store cover art of a format."""
    if container == "mp4":  # it needs the size, which a damaged image does not have
        return codec in _COVER_FILES and isinstance(cover, VideoStream) and cover.width > 0
    return container == "matroska" and codec in _COVER_FILES


def keeps_attachments(container: str) -> bool:
    """Whether a container, by FFmpeg's name, can store attachments, such as fonts."""
    return container == "matroska"


def tags_to_copy(tags: dict[str, str]) -> dict[str, str]:
    """The tags that still apply after encoding."""
    kept = {k: v for k, v in tags.items() if not k.lower().startswith(_STALE)}
    # FFmpeg writes the title of an MP4 stream from "title", and reads it as "name".
    if "name" in kept:
        kept.setdefault("title", kept.pop("name"))
    return kept


def stream_tags(container: str, tags: dict[str, str]) -> dict[str, str]:
    """The tags of a stream that still apply, with the language code of a container."""
    kept = tags_to_copy(tags)
    if container == "mov" and kept.get("language") in _MOV_LANGUAGES:
        kept["language"] = _MOV_LANGUAGES[kept["language"]]
    return kept


def muxer_options(container: str, tags: dict[str, str]) -> dict[str, str]:
    """Muxer options that a container, by FFmpeg's name, needs for global tags.

    MP4 has a list of standard tags that every player supports, and a newer one of arbitrary names,
    which Apple cameras use and fewer players read. Only one of the two can be written.
    """
    is_apples = any(name.startswith("com.apple.") for name in tags)
    return {"movflags": "use_metadata_tags"} if container in ("mp4", "mov") and is_apples else {}


def find_lost_tags(container: str, tags: dict[str, str]) -> list[str]:
    """Names of the tags that a container does not keep, found by a trial file in memory."""
    if container not in ("mp4", "mov"):
        return []
    with av.open(_tagged(container, tags), "r", metadata_errors="replace") as trial:
        kept = {name.lower() for name in trial.metadata}
    # These containers store a timecode as a track; see `keeps_timecode`.
    return sorted(name for name in tags if name.lower() not in {*kept, _TIMECODE})


def timecode_of(*tags: dict[str, str]) -> str | None:
    """The timecode of the first frame, from the first of these dicts that has one."""
    found = (v for several in tags for k, v in several.items() if k.lower() == _TIMECODE)
    return next(found, None)


def remove_timecode(tags: dict[str, str]) -> dict[str, str]:
    """All tags except the timecode."""
    return {k: v for k, v in tags.items() if k.lower() != _TIMECODE}


def keeps_timecode(container: str, timecode: str, rate: Fraction) -> bool:
    """Whether a container keeps a timecode at a frame rate, found by a trial file in memory."""
    try:
        file = _tagged(container, {_TIMECODE: timecode}, rate)
    except (av.FFmpegError, ValueError):
        return False
    with av.open(file, "r", metadata_errors="replace") as trial:
        return timecode_of(trial.metadata, *(s.metadata for s in trial.streams)) == timecode


def _tagged(container: str, tags: dict[str, str], rate: Fraction = Fraction(25)) -> BytesIO:
    """A file of one frame with tags."""
    file = BytesIO()
    options = muxer_options(container, tags)
    with av.open(file, "w", format=container, container_options=options) as trial:
        trial.metadata.update(tags)
        codec = "libvpx" if container == "webm" else "mpeg4"
        stream = trial.add_stream(codec, rate=rate, width=16, height=16, pix_fmt="yuv420p")
        assert isinstance(stream, VideoStream)
        frame = VideoFrame(16, 16, "yuv420p")
        frame.pts = 0
        trial.mux([*stream.encode(frame), *stream.encode(None)])
    file.seek(0)
    return file


def add_attachment(output: OutputContainer, source: AttachmentStream) -> None:
    """Copy an attachment to an output whose header is not written yet."""
    name = source.name or f"attachment-{source.index}"
    attached = output.add_attachment(
        name, source.mimetype or "application/octet-stream", source.data
    )
    others = {k: v for k, v in source.metadata.items() if k not in ("filename", "mimetype")}
    attached.metadata.update(tags_to_copy(others))


def add_cover(output: OutputContainer, source: VideoStream, image: bytes) -> Packet[Stream] | None:
    """Add cover art to an output whose header is not written yet.

    Args:
        output: An MP4 or Matroska file.
        source: The cover's stream in the source.
        image: The image file.

    Returns:
        The packet to mux after the header, if any.
    """
    if output.format.name == "matroska":
        name, kind = _COVER_FILES[source.codec_context.name]
        output.add_attachment(
            source.metadata.get("filename", name), source.metadata.get("mimetype", kind), image
        )
        return None
    target = output.add_stream_from_template(source, opaque=True)
    target.disposition = Disposition.attached_pic
    target.metadata.update(tags_to_copy(source.metadata))
    packet: Packet[Stream] = Packet(image)
    packet.stream = target
    packet.pts = packet.dts = 0
    packet.is_keyframe = True
    return packet


def read_cover(container: InputContainer, stream: VideoStream) -> bytes:
    """Read the image file of cover art; it comes before all other packets."""
    packet = next(container.demux(stream), None)
    return b"" if packet is None else bytes(packet)


def shift_chapters(
    chapters: list[Chapter], *, first: Fraction | None, end: Fraction | None, shift: Fraction
) -> list[Chapter]:
    """The chapters of a part of a video, on the clock of the output.

    Args:
        chapters: Of the source.
        first: Where the part begins, in seconds on the clock of the source.
        end: Where it ends, on the same clock.
        shift: Seconds to subtract from every time.

    Returns:
        The chapters that overlap the part, clipped to it.
    """
    kept: list[Chapter] = []
    for chapter in chapters:
        clock = chapter["time_base"] or _NANOSECOND
        begins, ends = chapter["start"] * clock, chapter["end"] * clock
        if first is not None:
            begins = max(begins, first)
        if end is not None:
            ends = min(ends, end)
        if ends < begins or (ends == begins and chapter["start"] != chapter["end"]):
            continue
        begins, ends = max(Fraction(0), begins - shift), max(Fraction(0), ends - shift)
        clock = _clock_for(clock, begins, ends)
        moved: Chapter = {
            "id": chapter["id"],
            "start": round(begins / clock),
            "end": round(ends / clock),
            "time_base": clock,
            "metadata": chapter["metadata"],
        }
        kept.append(moved)
    return kept


def adapt_chapters_to_mp4(chapters: list[Chapter]) -> list[Chapter]:
    """Adapt chapters to MP4: sorted, the first at zero, and each with a title.

    The muxer moves the first chapter to zero, and drops chapters without a title.
    """
    ordered = sorted(chapters, key=lambda c: c["start"] * (c["time_base"] or _NANOSECOND))
    if ordered and ordered[0]["start"] > 0:
        first = ordered[0]
        head: Chapter = {**first, "id": first["id"] - 1, "start": 0, "end": first["start"]}
        ordered.insert(0, {**head, "metadata": {}})
    return [{**c, "metadata": {"title": "", **c["metadata"]}} for c in ordered]


def _clock_for(clock: Fraction, *times: Fraction) -> Fraction:
    """A time base in which all times are integers, or nearly."""
    ticks = lcm(clock.denominator, *(time.denominator for time in times))
    return Fraction(1, ticks) if ticks <= _NANOSECOND.denominator else _NANOSECOND
