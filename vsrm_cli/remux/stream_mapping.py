"""The list of what is on board: what becomes of each stream of a file in another container.

Each container holds some kinds of streams and not others, and the muxers know best. What cannot
go is known here before any work begins, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer
from av.stream import AttachmentStream, DataStream, Stream

from vsrm_cli.errors import OutputError
from vsrm_cli.media.containers import video_stream
from vsrm_cli.remux import metadata as extras
from vsrm_cli.remux.sound import sound_codec
from vsrm_cli.remux.subtitles import plain_codec
from vsrm_cli.remux.trial import Sample, can_hold

# The containers that keep times and colors, by the end of the file's name.
CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".nut": "nut",
}
# Where to look for one that can hold everything.
ROOMY = (".mkv", ".mp4", ".mov", ".nut")

# What is done with sound: it is copied; encoded where the container cannot hold it; left out.
Audio = Literal["copy", "transcode", "none"]

Kind = Literal["video", "sound", "subtitles", "cover picture", "attachment", "data"]
_KINDS: dict[str, Kind] = {
    "video": "video",
    "audio": "sound",
    "subtitle": "subtitles",
    "attachment": "attachment",
}


def check_container_name(path: Path) -> None:
    """Make sure that a name ends in that of a container that can be written.

    Raises:
        OutputError: If it does not; says which there are.
    """
    if path.suffix.lower() not in CONTAINERS:
        raise OutputError(
            f"{path.name} has no ending of a container that keeps the times of frames; "
            f"name the output with one of {', '.join(CONTAINERS)}."
        )


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What becomes of one stream of the source.

    Attributes:
        index: Its number in the source.
        kind: What it is.
        codec: FFmpeg's name of its format; of an attachment, the name of the file.
        language: Its language tag, where it has one.
        becomes: Its format in the output; None where it cannot go.
        reason: Why it cannot go.
    """

    index: int
    kind: Kind
    codec: str
    language: str | None
    becomes: str | None
    reason: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether it goes into the output."""
        return self.becomes is not None

    @property
    def is_copied(self) -> bool:
        """Whether its packets are copied; covers and attachments have none."""
        return self.is_kept and self.kind in ("video", "sound", "subtitles")

    @property
    def is_converted(self) -> bool:
        """Whether it is rewritten in another format."""
        return self.is_kept and self.becomes != self.codec

    @property
    def name(self) -> str:
        """What to call it: its number, kind, format and language."""
        details = ", ".join(filter(None, (self.kind, self.codec, self.language)))
        return f"stream {self.index} ({details})"

    def __str__(self) -> str:
        """Name the stream, and say what happens to it if it is not just copied."""
        fate = f" becomes {self.becomes}" if self.is_converted else ""
        return self.name + fate + (self.reason and f": {self.reason}")


@cache
def supported_codecs(suffix: str) -> set[str]:
    """Names of all codecs that the container of this file name ending can hold."""
    with av.open(f"name{suffix}", "w", format=CONTAINERS[suffix]) as container:
        return container.supported_codecs


def plan_streams(
    container: InputContainer,
    path: Path,
    suffix: str,
    samples: Mapping[int, Sample],
    audio: Audio = "copy",
) -> list[StreamPlan]:
    """Say what becomes of every stream but the main video.

    Args:
        container: The source.
        path: Its name, for messages.
        suffix: The end of the output's name, one of `CONTAINERS`.
        samples: The first packets of each stream, by its number.
        audio: What is done with sound.

    Returns:
        A plan for each stream, in their order. The tracks in which MP4 keeps the names of its
        chapters and the timecode of its frames are left out: both are copied as such.
    """
    main = video_stream(container, path)
    has_chapters = bool(container.chapters())
    return [
        _plan(stream, suffix, samples[stream.index], audio)
        for stream in container.streams
        if stream is not main
        and not (has_chapters and _holds_chapters(stream))
        and not _holds_timecode(stream)
    ]


def _plan(stream: Stream, suffix: str, sample: Sample, audio: Audio) -> StreamPlan:
    container = CONTAINERS[suffix]
    kind = "cover picture" if extras.is_cover(stream) else _KINDS.get(stream.type, "data")
    codec = _codec_name(stream)
    becomes: str | None = None
    if kind == "sound" and audio == "none":
        return StreamPlan(stream.index, kind, codec, stream.language, None, "--audio none")
    if kind == "attachment":
        becomes = codec if extras.keeps_attachments(container) else None
    elif kind == "cover picture":
        becomes = codec if extras.keeps_cover(container, stream, codec) else None
    elif kind != "data" and stream.codec_context is not None:
        becomes = codec if can_hold(container, stream, sample) else None
        if becomes is None and kind == "subtitles":
            becomes = plain_codec(codec, container)
        if becomes is None and kind == "sound" and audio == "transcode" and sample.sound:
            becomes = sound_codec(container)
    reason = "" if becomes is not None else _why_not(kind, suffix)
    return StreamPlan(stream.index, kind, codec, stream.language, becomes, reason)


def _why_not(kind: Kind, suffix: str) -> str:
    if kind == "data":
        return "data streams cannot be copied"
    return f"a {suffix} file cannot hold it" + ("" if suffix == ".mkv" else "; an .mkv may")


def _codec_name(stream: Stream) -> str:
    if isinstance(stream, AttachmentStream):
        return stream.name or "file"
    if stream.codec_context is None:
        return (isinstance(stream, DataStream) and stream.name) or "unknown"
    return stream.codec_context.codec.canonical_name


def _holds_timecode(stream: Stream) -> bool:
    """Whether a stream is the one in which MP4 keeps the timecode of its frames."""
    return stream.type == "data" and extras.timecode_of(stream.metadata) is not None


def _holds_chapters(stream: Stream) -> bool:
    """Whether a stream is the one in which MP4 keeps the names of chapters."""
    return stream.type == "data" and stream.name == "bin_data"
