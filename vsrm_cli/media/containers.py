"""Open files, select the video stream, and detect truncated files."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from os import fspath
from pathlib import Path

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from vsrm_cli.errors import InputError

_FAULTS_IN_A_ROW = 1000


def open_container(path: Path, *, hardware: str | None = None) -> InputContainer:
    """Open a file for reading.

    Args:
        path: The file.
        hardware: FFmpeg's name of a hardware device type for decoding; None for software.

    Raises:
        InputError: If it is missing, a folder, empty, or of no known format.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; check the spelling.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name one video file.")
    if not path.is_file():
        raise InputError(
            f"{path} is a pipe or a device, and a video must be read more than once; save it to a "
            "file, or pipe it in as YUV4MPEG2 and name the input -."
        )
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes); copy or download it again.")
        # An absolute path, because FFmpeg reads the part before a colon as a protocol.
        container = av.open(
            fspath(path.absolute()),
            metadata_errors="replace",
            hwaccel=None if hardware is None else HWAccel(hardware, allow_software_fallback=True),
        )
    except av.FFmpegError as error:
        raise InputError(_why_unreadable(path, error)) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if container.format.name == "tty":  # FFmpeg renders plain text as video
        container.close()
        raise InputError(_not_a_video(path))
    return container


def allows_restarts(container: InputContainer) -> bool:
    """Whether timestamps may restart in the format of a file."""
    flags = Flags(container.format.flags)
    return Flags.ts_discont in flags


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The main video stream of a file, not its cover art.

    Raises:
        InputError: If there is none, or no decoder for it.
    """
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not streams:
        found = "sound only" if container.streams.audio else "no video stream"
        if container.streams.video:
            found = "cover art but no video stream"
        raise InputError(f"{path} holds {found}; name a file with a video stream.")
    best = container.streams.best("video")
    stream = next((s for s in streams if s is best), streams[0])
    if stream.codec_context is None:
        raise InputError(
            f"{path} holds video of a kind that cannot be decoded here; "
            "convert it to H.264 with another program first."
        )
    # Slice threads only, and a fixed number of them: decoding is never the bottleneck, and
    # automatic thread counts have deadlocked beside PyTorch (PyAV issue 1962).
    stream.thread_type = av.codec.context.ThreadType.SLICE
    stream.thread_count = 2
    return stream


def read_packets(
    container: InputContainer, streams: Sequence[Stream]
) -> Iterator[Packet[Stream] | None]:
    """Read the packets of some streams, past damage: None for each packet that cannot be read.

    After a thousand of them in a row the rest of the file is skipped.
    """
    faults = 0
    packets = container.demux(streams)
    while faults <= _FAULTS_IN_A_ROW:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            # The generator has ended, but the container is positioned after the error.
            faults += 1
            packets = container.demux(streams)
            yield None
            continue
        if packet is None:
            return
        faults = 0
        yield packet


def is_animated_webp(path: Path) -> bool:
    """Whether a file is a WebP (RIFF) with the animation flag in its extended header."""
    with path.open("rb") as file:
        head = file.read(21)
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20] & 2)


def _not_a_video(path: Path) -> str:
    return f"{path} is not a video file; name a video file."


def _why_unreadable(path: Path, error: av.FFmpegError) -> str:
    if isinstance(error, PermissionError):
        return f"{path} may not be read: {error.strerror}; change its permissions."
    kinds = [kind for kind, _ in _mp4_boxes(path)]
    if kinds and kinds[0] == b"ftyp" and b"moov" not in kinds:
        return (
            f"{path} is cut short: it is an MP4 file without its index (moov), which is stored at "
            "the end; copy or download it again, or repair it with another program."
        )
    if isinstance(error, av.error.EOFError):
        return f"{path} is cut short; copy or download it again."
    if isinstance(error, av.error.InvalidDataError):
        return _not_a_video(path)
    return f"{path} cannot be opened as a video: {error.strerror}."


def is_cut_short(path: Path, format_names: str) -> bool:
    """Whether a file is smaller than its own top-level structure says.

    Many demuxers do not report the end of a truncated file as an error.
    """
    size = path.stat().st_size
    formats = format_names.split(",")
    if "mov" in formats:
        boxes = list(_mp4_boxes(path))
        is_known = boxes[-1][0] in (b"moov", b"moof", b"mdat")  # some cameras append other things
        return is_known and sum(box for _, box in boxes) > size
    if "matroska" in formats:
        return (_matroska_end(path) or 0) > size
    if "mpegts" in formats:  # packets of 188 bytes, on some discs with 4 bytes before each
        return size % 188 != 0 and size % 192 != 0
    return False


def _mp4_boxes(path: Path) -> Iterator[tuple[bytes, int]]:
    """Kind and size in bytes of each box at the top level of an MP4 file."""
    end = path.stat().st_size
    with path.open("rb") as file:
        position = 0
        while position + 8 <= end:
            file.seek(position)
            size, kind = struct.unpack(">I4s", file.read(8))
            if size == 1:
                size = int.from_bytes(file.read(8), "big")
            yield kind, size
            if size < 8:  # 0: up to the end of the file; anything else: not a box
                return
            position += size


def _matroska_end(path: Path) -> int | None:
    """Where the segment of a Matroska file ends, in bytes; None if unknown."""
    position = 0
    with path.open("rb") as file:
        while head := file.read(12):
            # An identifier of four bytes, then a size; the leading zero bits of its first byte
            # encode the length of the size.
            width = 9 - head[4].bit_length() if len(head) == 12 else 9
            if width > 8:
                return None
            marker = 1 << 7 * width
            size = int.from_bytes(head[4 : 4 + width], "big") - marker
            position += 4 + width + size
            if head[:4] == b"\x18\x53\x80\x67":
                return None if size == marker - 1 else position
            file.seek(position)
    return None
