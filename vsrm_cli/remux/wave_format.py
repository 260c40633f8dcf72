"""Sound in Matroska under the number that it has in WAV files, such as WMA and ADPCM.

Matroska has names of its own for common codecs. All others may go by the name ``A_MS/ACM``, with
the format chunk of a WAV file (WAVEFORMATEX) to say which one it is. FFmpeg writes that, but PyAV
asks FFmpeg's list of the common ones first and refuses. So the stream is announced as MP3, whose
packets and private data the muxer passes on as they are, and its name is corrected in the
finished file.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import IO

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Stream

# The element CodecID (0x86) with its size; strings may be padded with zeros.
_ANNOUNCED = b"\x86\x89A_MPEG/L3"
_MEANT = b"\x86\x89A_MS/ACM\0"
# The element BitDepth and its size. The muxer takes the depth of decoded MP3.
_BIT_DEPTH = b"\x62\x64\x81"
# Where a WAVEFORMATEX has that number.
_DEPTH_IN_DESCRIPTION = 14
# The list of the streams is in this many of the first bytes of a file; attachments follow it.
_HEADER_BYTES = 1 << 20

# Matroska protects its headers by checksums, which would be wrong after the correction.
MUXER_OPTIONS = {"write_crc32": "0"}


@cache
def _known_to_matroska() -> set[str]:
    with av.open(BytesIO(), "w", format="matroska") as container:
        return container.supported_codecs


def has_wave_format(container: str, stream: Stream) -> bool:
    """Whether a stream goes into a container, by FFmpeg's name, by its number in WAV files."""
    return (
        container == "matroska"
        and isinstance(stream, AudioStream)
        and stream.codec_context is not None
        and stream.codec_context.name not in _known_to_matroska()
    )


def wave_format(stream: AudioStream) -> bytes | None:
    """Give the format chunk with which a WAV file describes a stream; None if it cannot."""
    file = BytesIO()
    try:
        with av.open(file, "w", format="wav") as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return None
    data = file.getvalue()
    place = data.index(b"fmt ")
    size = int.from_bytes(data[place + 4 : place + 8], "little")
    return data[place + 8 : place + 8 + size]


def add_by_wave_format(output: OutputContainer, stream: AudioStream) -> AudioStream:
    """Announce a copy of a stream to a Matroska file that has no header yet.

    Raises:
        ValueError: If WAV files have no number for it.
    """
    description = wave_format(stream)
    if description is None:
        raise ValueError(f"WAV files have no number for {stream.codec_context.name}")
    with av.open(BytesIO(), "w", format="mp3") as other:
        target = output.add_stream_from_template(other.add_stream("libmp3lame"), opaque=True)
    assert isinstance(target, AudioStream)
    target.time_base = stream.time_base
    target.codec_context.sample_rate = stream.codec_context.sample_rate
    target.codec_context.layout = stream.codec_context.layout
    target.codec_context.extradata = description
    return target


def correct_names(file: IO[bytes], descriptions: list[bytes]) -> None:
    """Give the streams added by `add_by_wave_format` their names, in a finished file.

    Args:
        file: Open for reading and writing; written with `MUXER_OPTIONS`.
        descriptions: The `wave_format` of each such stream, in order.
    """
    file.seek(0)
    header = bytearray(file.read(_HEADER_BYTES))
    place = 0
    for description in descriptions:
        place = header.index(description, place)
        name = header.rindex(_ANNOUNCED, 0, place)
        header[name : name + len(_MEANT)] = _MEANT
        depth = header.find(_BIT_DEPTH, name, place)
        if depth >= 0:
            header[depth + len(_BIT_DEPTH)] = description[_DEPTH_IN_DESCRIPTION]
        place += len(description)
    file.seek(0)
    file.write(header)
