"""Stream mapping: decide before the work which streams are copied, converted or dropped, and why.

What a container can hold is found by trial files, not by a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from av.container import InputContainer
from av.stream import AttachmentStream, DataStream, Stream

from vsrm_cli.errors import OutputError
from vsrm_cli.media.containers import video_stream
from vsrm_cli.remux import metadata
from vsrm_cli.remux.audio import audio_codec
from vsrm_cli.remux.subtitles import plain_codec
from vsrm_cli.remux.trial import StreamSample, can_hold

# The containers that keep frame times and colors, by file name suffix.
CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".nut": "nut",
}
# Containers to suggest, in order, where one cannot hold all audio.
ALTERNATIVES = (".mkv", ".mp4", ".mov", ".nut")

# Copy audio; transcode what the container cannot hold; or drop it.
Audio = Literal["copy", "transcode", "none"]

Kind = Literal["video", "audio", "subtitles", "cover art", "attachment", "data"]
_KINDS: dict[str, Kind] = {
    "video": "video",
    "audio": "audio",
    "subtitle": "subtitles",
    "attachment": "attachment",
}


def check_container_name(path: Path) -> None:
    """Check that the suffix of an output is that of a supported container.

    Raises:
        OutputError: If it is not; lists the supported ones.
    """
    if path.suffix.lower() not in CONTAINERS:
        raise OutputError(
            f"{path.name} has no suffix of a container that keeps the times of frames; "
            f"name the output with one of {', '.join(CONTAINERS)}."
        )


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What happens to one stream of the source.

    Attributes:
        index: In the source.
        kind: Its type.
        codec: FFmpeg's name of its codec; for an attachment, its file name.
        language: Its language tag, if any.
        becomes: Its codec in the output; None if it is dropped.
        reason: Why it is dropped.
    """

    index: int
    kind: Kind
    codec: str
    language: str | None
    becomes: str | None
    reason: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether the output contains it."""
        return self.becomes is not None

    @property
    def is_copied(self) -> bool:
        """Whether its packets are copied or converted; not for cover art and attachments."""
        return self.is_kept and self.kind in ("video", "audio", "subtitles")

    @property
    def is_converted(self) -> bool:
        """Whether it is converted to another codec."""
        return self.is_kept and self.becomes != self.codec

    @property
    def name(self) -> str:
        """Its index, kind, codec and language, for messages."""
        details = ", ".join(filter(None, (self.kind, self.codec, self.language)))
        return f"stream {self.index} ({details})"

    def __str__(self) -> str:
        """Name the stream, and say what happens to it if it is not just copied."""
        conversion = f" becomes {self.becomes}" if self.is_converted else ""
        return self.name + conversion + (self.reason and f": {self.reason}")


def plan_streams(
    container: InputContainer,
    path: Path,
    suffix: str,
    samples: Mapping[int, StreamSample],
    audio: Audio = "copy",
) -> list[StreamPlan]:
    """Plan what happens to every stream except the main video.

    Args:
        container: The source.
        path: Its name, for messages.
        suffix: Of the output's file name, one of `CONTAINERS`.
        samples: The first packets of each stream, by index.
        audio: Whether audio is copied, transcoded or dropped.

    Returns:
        A plan for each stream, in their order, without the chapter and timecode tracks of MP4, as
        chapters and timecode are copied as metadata.
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


def _plan(stream: Stream, suffix: str, sample: StreamSample, audio: Audio) -> StreamPlan:
    container = CONTAINERS[suffix]
    kind = "cover art" if metadata.is_cover(stream) else _KINDS.get(stream.type, "data")
    codec = _codec_name(stream)
    becomes: str | None = None
    if kind == "audio" and audio == "none":
        return StreamPlan(stream.index, kind, codec, stream.language, None, "--audio none")
    if kind == "attachment":
        becomes = codec if metadata.keeps_attachments(container) else None
    elif kind == "cover art":
        becomes = codec if metadata.keeps_cover(container, stream, codec) else None
    elif kind != "data" and stream.codec_context is not None:
        becomes = codec if can_hold(container, stream, sample) else None
        if becomes is None and kind == "subtitles":
            becomes = plain_codec(codec, container)
        if becomes is None and kind == "audio" and audio == "transcode" and sample.audio:
            becomes = audio_codec(container)
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
    """Whether a stream is the timecode track of MP4."""
    return stream.type == "data" and metadata.timecode_of(stream.metadata) is not None


def _holds_chapters(stream: Stream) -> bool:
    """Whether a stream is the chapter track of MP4."""
    return stream.type == "data" and stream.name == "bin_data"
