"""Store audio codecs such as WMA and ADPCM in Matroska with the codec ID A_MS/ACM.

Matroska has codec IDs of its own for common codecs. Others use ``A_MS/ACM`` with the format chunk
of a WAV file (WAVEFORMATEX) as private data. FFmpeg supports that, but PyAV refuses codecs that are
not in FFmpeg's list of common ones. So the stream is added as MP3, whose packets and private data
the muxer does not change, and its codec ID is corrected in the finished file.
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
_WRITTEN_ID = b"\x86\x89A_MPEG/L3"
_CORRECT_ID = b"\x86\x89A_MS/ACM\0"
# The element BitDepth and its size. The muxer writes the depth of decoded MP3.
_BIT_DEPTH = b"\x62\x64\x81"
# The offset of the bit depth in a WAVEFORMATEX.
_BIT_DEPTH_OFFSET = 14
# The track list is in this many of the first bytes of a file; attachments follow it.
_HEADER_BYTES = 1 << 20

# Without checksums, which the correction would make wrong.
MUXER_OPTIONS = {"write_crc32": "0"}


@cache
def supported_codecs(container: str) -> set[str]:
    """Names of the codecs that FFmpeg lists for a container, by FFmpeg's name."""
    with av.open(BytesIO(), "w", format=container) as output:
        return output.supported_codecs


def has_wave_format(container: str, stream: Stream) -> bool:
    """Whether a container, by FFmpeg's name, needs A_MS/ACM for a stream."""
    return (
        container == "matroska"
        and isinstance(stream, AudioStream)
        and stream.codec_context is not None
        and stream.codec_context.name not in supported_codecs(container)
    )


def wave_format(stream: AudioStream) -> bytes | None:
    """The WAV format chunk of a stream; None if WAV does not support its codec."""
    file = BytesIO()
    try:
        with av.open(file, "w", format="wav") as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return None
    data = file.getvalue()
    offset = data.index(b"fmt ")
    size = int.from_bytes(data[offset + 4 : offset + 8], "little")
    return data[offset + 8 : offset + 8 + size]


def add_by_wave_format(output: OutputContainer, stream: AudioStream) -> AudioStream:
    """Add a copy of a stream to a Matroska file whose header is not written yet.

    Raises:
        ValueError: If WAV does not support its codec.
    """
    description = wave_format(stream)
    if description is None:
        raise ValueError(f"WAV does not support {stream.codec_context.name}")
    with av.open(BytesIO(), "w", format="mp3") as other:
        target = output.add_stream_from_template(other.add_stream("libmp3lame"), opaque=True)
    assert isinstance(target, AudioStream)
    target.time_base = stream.time_base
    target.codec_context.sample_rate = stream.codec_context.sample_rate
    target.codec_context.layout = stream.codec_context.layout
    target.codec_context.extradata = description
    return target


def correct_codec_ids(file: IO[bytes], formats: list[bytes]) -> None:
    """Correct the codec IDs of streams from `add_by_wave_format` in a finished file.

    Args:
        file: Open for reading and writing; written with `MUXER_OPTIONS`.
        formats: The `wave_format` of each such stream, in order.
    """
    file.seek(0)
    header = bytearray(file.read(_HEADER_BYTES))
    offset = 0
    for data in formats:
        offset = header.index(data, offset)
        codec_id = header.rindex(_WRITTEN_ID, 0, offset)
        header[codec_id : codec_id + len(_CORRECT_ID)] = _CORRECT_ID
        depth = header.find(_BIT_DEPTH, codec_id, offset)
        if depth >= 0:
            header[depth + len(_BIT_DEPTH)] = data[_BIT_DEPTH_OFFSET]
        offset += len(data)
    file.seek(0)
    file.write(header)
