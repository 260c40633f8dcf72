"""Convert text subtitles between the formats of containers.

MP4, Matroska and WebM each have their own text format. Text, line breaks, bold, italic and
underline are converted without loss. Lines that lose other formatting are counted and reported.
"""

from __future__ import annotations

import re
from fractions import Fraction

from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

# Formats of plain text. ASS is not one: it has fonts, positions and animation.
_PLAIN = {"subrip", "srt", "text", "mov_text", "webvtt"}
# The text subtitle codec of each container.
_NATIVE = {
    "mp4": "mov_text",
    "mov": "mov_text",
    "matroska": "subrip",
    "webm": "webvtt",
}

# FFmpeg decodes all text subtitles to ASS lines: eight fields, then the text, with override tags in
# braces. Every text format has an equivalent of these tags.
_FIELDS_BEFORE_TEXT = 8
_PORTABLE_COMMAND = re.compile(rb"\{\\(?:[biu][01]?|r)\}")
_COMMAND = re.compile(rb"\{\\[^}]*\}")


def plain_codec(codec: str, container: str) -> str | None:
    """The codec to which a container's text subtitles can be converted without loss.

    Args:
        codec: FFmpeg's name of the codec in the source.
        container: FFmpeg's name of the output's container.

    Returns:
        FFmpeg's name; None if the source is not plain text or the container has no text codec.
    """
    return _NATIVE.get(container) if codec in _PLAIN else None


class SubtitleConverter:
    """Converts one subtitle stream to another text codec.

    Attributes:
        stream: The output stream.
        lines_changed: Lines that lost a color, a position, or an overlap with another line.
    """

    def __init__(self, source: SubtitleStream, output: OutputContainer, codec: str) -> None:
        """Add the stream to an output whose header is not written yet."""
        self.lines_changed = 0
        self._decoder = source.codec_context
        self._decoder.open(strict=False)  # this reads the styles that the encoder needs
        stream = output.add_stream(codec)
        assert isinstance(stream, SubtitleStream)
        self._encoder = stream.codec_context
        self._encoder.subtitle_header = self._decoder.subtitle_header
        stream.time_base = self._encoder.time_base = source.time_base or Fraction(1, 1000)
        self.stream: Stream = stream
        self._escapes = codec == "webvtt"
        self._shows_one_at_a_time = codec == "mov_text"
        self._shown_until = 0

    def convert(self, packet: Packet[Stream]) -> list[Packet[Stream]]:
        """Convert one packet; an empty list if it has no text."""
        decoded = self._decoder.decode2(packet)
        if decoded is None:
            return []
        texts = [_text(line) for line in decoded if isinstance(line, AssSubtitle)]
        if not any(_COMMAND.sub(b"", text).strip() for text in texts):
            return []  # such lines are common, and muxers drop some of them
        begin, duration = packet.pts or 0, packet.duration or 0
        overlaps = self._shows_one_at_a_time and begin < self._shown_until
        self._shown_until = max(self._shown_until, begin + duration)
        self.lines_changed += overlaps or any(_is_restyled(text) for text in texts)
        joined = rb"\N".join(texts)
        if self._escapes:  # FFmpeg's encoder does not
            joined = joined.replace(b"&", b"&amp;").replace(b"<", b"&lt;")
        line = b"0,0,Default,,0,0,0,," + joined
        converted = self._encoder.encode_subtitle(SubtitleSet.create(line, 0, duration, begin))
        converted.pts, converted.dts = packet.pts, packet.dts
        converted.duration = duration
        converted.time_base = packet.time_base
        converted.stream = packet.stream
        return [converted]


def is_gap(packet: Packet[Stream]) -> bool:
    """Whether a packet is an empty MP4 subtitle, which muxers insert between the others."""
    context = packet.stream.codec_context
    return context is not None and context.name == "mov_text" and bytes(packet)[:2] == b"\0\0"


def _text(line: AssSubtitle) -> bytes:
    return line.ass.split(b",", _FIELDS_BEFORE_TEXT)[-1]


def _is_restyled(text: bytes) -> bool:
    return _COMMAND.search(_PORTABLE_COMMAND.sub(b"", text)) is not None
