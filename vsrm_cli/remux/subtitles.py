"""Subtitles made of plain text: from the format of one container to that of another.

MP4, Matroska and WebM each have a format of their own for the same thing: some words and how
long they are shown. Between these the words, line breaks, and bold, italic and underlined type
pass without loss. What else a line may say about its looks is counted, so that it can be told.
"""

from __future__ import annotations

import re
from fractions import Fraction

from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

# Formats of words and little else. ASS is not among them: it sets type and moves it about.
_PLAIN = {"subrip", "srt", "text", "mov_text", "webvtt"}
# What each container calls plain text.
_NATIVE = {
    "mp4": "mov_text",
    "mov": "mov_text",
    "matroska": "subrip",
    "webm": "webvtt",
}

# FFmpeg decodes all text to the lines of an ASS script: eight fields, then the text, with
# commands in braces. These commands have a counterpart in every plain format.
_FIELDS_BEFORE_TEXT = 8
_PORTABLE_COMMAND = re.compile(rb"\{\\(?:[biu][01]?|r)\}")
_COMMAND = re.compile(rb"\{\\[^}]*\}")


def plain_codec(codec: str, container: str) -> str | None:
    """The format into which a container takes subtitles of the format ``codec``, without loss.

    Args:
        codec: FFmpeg's name of the format of the source.
        container: FFmpeg's name of the container of the output.

    Returns:
        FFmpeg's name, or None where the source is more than plain text or the container takes
        no plain text.
    """
    return _NATIVE.get(container) if codec in _PLAIN else None


class SubtitleConverter:
    """Rewrites the packets of one subtitle stream in another plain format.

    Attributes:
        stream: The stream of the output that the packets go to.
        lines_changed: Lines that lost a color, a place on the screen, or the time that they
            shared with another line.
    """

    def __init__(self, source: SubtitleStream, output: OutputContainer, codec: str) -> None:
        """Announce the new stream to an output that has no header yet."""
        self.lines_changed = 0
        self._decoder = source.codec_context
        self._decoder.open(strict=False)  # only then it knows the styles that the encoder needs
        stream = output.add_stream(codec)
        assert isinstance(stream, SubtitleStream)
        self._encoder = stream.codec_context
        self._encoder.subtitle_header = self._decoder.subtitle_header
        stream.time_base = self._encoder.time_base = source.time_base or Fraction(1, 1000)
        self.stream: Stream = stream
        self._escapes = codec == "webvtt"
        self._takes_turns = codec == "mov_text"
        self._shown_until = 0

    def convert(self, packet: Packet[Stream]) -> list[Packet[Stream]]:
        """Rewrite one packet, at the same time; nothing where it holds no words."""
        decoded = self._decoder.decode2(packet)
        if decoded is None:
            return []
        texts = [_text(line) for line in decoded if isinstance(line, AssSubtitle)]
        if not any(_COMMAND.sub(b"", text).strip() for text in texts):
            return []  # such lines are common, and muxers drop some of them
        begin, duration = packet.pts or 0, packet.duration or 0
        overlaps = self._takes_turns and begin < self._shown_until
        self._shown_until = max(self._shown_until, begin + duration)
        self.lines_changed += overlaps or any(_is_restyled(text) for text in texts)
        joined = rb"\N".join(texts)
        if self._escapes:  # FFmpeg's encoder leaves that out
            joined = joined.replace(b"&", b"&amp;").replace(b"<", b"&lt;")
        line = b"0,0,Default,,0,0,0,," + joined
        converted = self._encoder.encode_subtitle(SubtitleSet.create(line, 0, duration, begin))
        converted.pts, converted.dts = packet.pts, packet.dts
        converted.duration = duration
        converted.time_base = packet.time_base
        converted.stream = packet.stream
        return [converted]


def is_gap(packet: Packet[Stream]) -> bool:
    """Whether a packet is an empty MP4 subtitle; muxers put their own between the others."""
    context = packet.stream.codec_context
    return context is not None and context.name == "mov_text" and bytes(packet)[:2] == b"\0\0"


def _text(line: AssSubtitle) -> bytes:
    return line.ass.split(b",", _FIELDS_BEFORE_TEXT)[-1]


def _is_restyled(text: bytes) -> bool:
    return _COMMAND.search(_PORTABLE_COMMAND.sub(b"", text)) is not None
