"""What lies beside picture and sound: chapters, attached files, cover pictures, names and dates.

None of it has a place on the time line but the chapters. Each container keeps it in its own
way, or not at all: what Matroska attaches as a file, MP4 holds as a stream of one picture.
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

# Facts about the old file and its encoder that are not true of the new one.
_STALE = (
    *("major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id"),
    *("software", "duration", "bps", "number_of_", "_statistics", "alpha_mode"),
)
# QuickTime knows some languages by another of their codes (ISO 639-2) only.
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
    """Whether a stream is one still picture that stands for the whole file."""
    return stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)


def keeps_cover(container: str, cover: Stream, codec: str) -> bool:
    """Whether a container, by FFmpeg's name, keeps a cover picture of a format."""
    if container == "mp4":  # it asks for the size, which a damaged picture does not tell
        return codec in _COVER_FILES and isinstance(cover, VideoStream) and cover.width > 0
    return container == "matroska" and codec in _COVER_FILES


def keeps_attachments(container: str) -> bool:
    """Whether a container, by FFmpeg's name, keeps attached files, such as fonts."""
    return container == "matroska"


def lasting(metadata: dict[str, str]) -> dict[str, str]:
    """The metadata that stay true when a video is encoded anew."""
    kept = {k: v for k, v in metadata.items() if not k.lower().startswith(_STALE)}
    # FFmpeg writes the title of an MP4 stream from "title", and reads it as "name".
    if "name" in kept:
        kept.setdefault("title", kept.pop("name"))
    return kept


def stream_tags(container: str, tags: dict[str, str]) -> dict[str, str]:
    """The tags of a stream that stay true, with its language in the words of a container."""
    kept = lasting(tags)
    if container == "mov" and kept.get("language") in _MOV_LANGUAGES:
        kept["language"] = _MOV_LANGUAGES[kept["language"]]
    return kept


def tag_options(container: str, tags: dict[str, str]) -> dict[str, str]:
    """Options with which a container, by FFmpeg's name, keeps the tags of a whole file.

    MP4 has a list of tags that every player knows, and a newer one of any names, which cameras
    by Apple use and fewer players read. Only one of the two can be written.
    """
    is_apples = any(name.startswith("com.apple.") for name in tags)
    return {"movflags": "use_metadata_tags"} if container in ("mp4", "mov") and is_apples else {}


def lost_tags(container: str, tags: dict[str, str]) -> list[str]:
    """Names of the tags that a container does not keep, found by a trial in memory."""
    if container not in ("mp4", "mov"):
        return []
    with av.open(_tagged(container, tags), "r", metadata_errors="replace") as trial:
        kept = {name.lower() for name in trial.metadata}
    # Of a timecode, these containers make a track; see `keeps_timecode`.
    return sorted(name for name in tags if name.lower() not in {*kept, _TIMECODE})


def timecode_of(*tags: dict[str, str]) -> str | None:
    """The timecode of the first frame, which is in the first of these tags that name one."""
    found = (v for several in tags for k, v in several.items() if k.lower() == _TIMECODE)
    return next(found, None)


def without_timecode(tags: dict[str, str]) -> dict[str, str]:
    """The other tags."""
    return {k: v for k, v in tags.items() if k.lower() != _TIMECODE}


def keeps_timecode(container: str, timecode: str, rate: Fraction) -> bool:
    """Whether a container keeps a timecode at a frame rate, found by a trial in memory."""
    try:
        file = _tagged(container, {_TIMECODE: timecode}, rate)
    except (av.FFmpegError, ValueError):
        return False
    with av.open(file, "r", metadata_errors="replace") as trial:
        return timecode_of(trial.metadata, *(s.metadata for s in trial.streams)) == timecode


def _tagged(container: str, tags: dict[str, str], rate: Fraction = Fraction(25)) -> BytesIO:
    """A file of one frame with tags."""
    file = BytesIO()
    options = tag_options(container, tags)
    with av.open(file, "w", format=container, container_options=options) as trial:
        trial.metadata.update(tags)
        codec = "libvpx" if container == "webm" else "mpeg4"
        stream = trial.add_stream(codec, rate=rate, width=16, height=16, pix_fmt="yuv420p")
        assert isinstance(stream, VideoStream)
        picture = VideoFrame(16, 16, "yuv420p")
        picture.pts = 0
        trial.mux([*stream.encode(picture), *stream.encode(None)])
    file.seek(0)
    return file


def add_attachment(output: OutputContainer, source: AttachmentStream) -> None:
    """Attach a copy of an attached file to an output that has no header yet."""
    name = source.name or f"attachment-{source.index}"
    attached = output.add_attachment(
        name, source.mimetype or "application/octet-stream", source.data
    )
    others = {k: v for k, v in source.metadata.items() if k not in ("filename", "mimetype")}
    attached.metadata.update(lasting(others))


def add_cover(
    output: OutputContainer, source: VideoStream, picture: bytes
) -> Packet[Stream] | None:
    """Give an output that has no header yet a cover picture, in the way of its container.

    Args:
        output: An MP4 or Matroska file.
        source: The stream that holds the cover in the source.
        picture: The file of the picture itself.

    Returns:
        What must be muxed when the header is written, if anything.
    """
    if output.format.name == "matroska":
        name, kind = _COVER_FILES[source.codec_context.name]
        output.add_attachment(
            source.metadata.get("filename", name), source.metadata.get("mimetype", kind), picture
        )
        return None
    target = output.add_stream_from_template(source, opaque=True)
    target.disposition = Disposition.attached_pic
    target.metadata.update(lasting(source.metadata))
    packet: Packet[Stream] = Packet(picture)
    packet.stream = target
    packet.pts = packet.dts = 0
    packet.is_keyframe = True
    return packet


def read_cover(container: InputContainer, stream: VideoStream) -> bytes:
    """Read the file of a cover picture; it stands before all other packets."""
    packet = next(container.demux(stream), None)
    return b"" if packet is None else bytes(packet)


def shifted_chapters(
    chapters: list[Chapter], *, first: Fraction | None, end: Fraction | None, shift: Fraction
) -> list[Chapter]:
    """The chapters of a part of a video, on the clock of the output.

    Args:
        chapters: Those of the source.
        first: Where the part begins, in seconds on the clock of the source.
        end: Where it ends, on the same clock.
        shift: Seconds to take off every time.

    Returns:
        Those that lie at least partly inside, cut where the part is.
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


def led_in(chapters: list[Chapter]) -> list[Chapter]:
    """Chapters as MP4 can hold them: in order, each with a title, and from the beginning on.

    Its list begins at zero, whatever a muxer is given: what begins later would be moved there, and
    what has no title be left out.
    """
    ordered = sorted(chapters, key=lambda c: c["start"] * (c["time_base"] or _NANOSECOND))
    if ordered and ordered[0]["start"] > 0:
        first = ordered[0]
        head: Chapter = {**first, "id": first["id"] - 1, "start": 0, "end": first["start"]}
        ordered.insert(0, {**head, "metadata": {}})
    return [{**c, "metadata": {"title": "", **c["metadata"]}} for c in ordered]


def _clock_for(clock: Fraction, *times: Fraction) -> Fraction:
    """A clock in which all times are whole numbers, or nearly."""
    ticks = lcm(clock.denominator, *(time.denominator for time in times))
    return Fraction(1, ticks) if ticks <= _NANOSECOND.denominator else _NANOSECOND
