"""Probe a file: its video stream, from the headers and the first frame.

Size, color and start time come from the first frame that decodes, because headers may be wrong.
Counts, rates and durations come from headers and are hints: good for a progress bar and for
noticing a truncated file, never for computing a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vsrm_cli.errors import InputError
from vsrm_cli.media.color import (
    BT709,
    Color,
    bit_depth,
    color_model,
    color_of,
    has_alpha,
    has_chroma_location,
)
from vsrm_cli.media.containers import (
    allows_restarts,
    is_animated_webp,
    is_cut_short,
    open_container,
    video_stream,
)
from vsrm_cli.media.dolby_vision import DolbyVision, find_dolby_vision
from vsrm_cli.media.hdr import DOLBY_VISION, HdrMetadata, dropped_side_data, hdr_metadata_of
from vsrm_cli.media.orientation import exif_matrix, is_quarter_turn, rotation_matrix

# Packets searched for the first frame or timestamp of a damaged file.
_MAX_PACKETS = 1000
# Enough packets to contain a B-frame, if the stream has any.
_PACKETS_TO_FIND_REORDERING = 64
# Seconds; a file that starts later than this has the clock of a live stream.
_MAX_START = 10
# Intermediate codecs for editing: lossy, but visually lossless.
_INTERMEDIATE_CODECS = {"prores", "dnxhd", "cfhd"}
_DOLBY_VISION_CODECS = {"hevc", "h264", "av1"}
NO_ALPHA = "transparency: the network processes only colors"
# BlockAddID of alpha in Matroska.
_ALPHA_BLOCK = (1).to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """One video stream of one file.

    Attributes:
        path: The file.
        codec: FFmpeg's name of it, such as ``h264``.
        is_lossy: Whether the codec leaves visible artifacts; false for lossless and intermediate
            codecs.
        width: Of the stored frames, in pixels; before any rotation.
        height: Of the stored frames, in pixels.
        pixel_format: FFmpeg's name, such as ``yuv420p``.
        bits: Per component.
        color: How to interpret pixel values.
        has_chroma_location: Whether the location of chroma samples is known.
        frame_rate: Average frames per second; a hint.
        time_base: Every time of the stream is a multiple of this, in seconds.
        start: When the first frame is shown, in seconds on the clock of the file. The user's
            0:00.
        duration: Of the stream, in seconds; a hint.
        expected_frames: A hint.
        sample_aspect_ratio: Width of a pixel over its height, where the file says so.
        display_matrix: How players rotate the frames, FFmpeg's nine numbers.
        hdr: Static HDR metadata of the first frame, if any.
        dropped: Names of side data and other content that cannot be copied.
        is_cut_short: The file is smaller than its own structure says.
        has_decoding_times_only: Whether the file has no presentation times, though its codec
            reorders frames.
        origin: The time on the clock of the file, in seconds, that becomes zero in the output. It
            is not zero if streams start before zero, or in broadcasts and live streams.
    """

    path: Path
    codec: str
    is_lossy: bool
    width: int
    height: int
    pixel_format: str
    bits: int
    color: Color
    has_chroma_location: bool
    frame_rate: Fraction | None
    time_base: Fraction
    start: Fraction
    duration: Fraction | None
    expected_frames: int | None
    sample_aspect_ratio: Fraction | None
    display_matrix: tuple[int, ...] | None
    hdr: HdrMetadata | None
    dropped: tuple[str, ...]
    is_cut_short: bool
    has_decoding_times_only: bool = False
    origin: Fraction = Fraction(0)

    @property
    def is_turned(self) -> bool:
        """Whether players rotate the video by 90 degrees, which swaps width and height."""
        return is_quarter_turn(self.display_matrix)

    def upright(self) -> VideoInfo:
        """The same video with its frames rotated as players do."""
        width, height, pixel = self.width, self.height, self.sample_aspect_ratio
        if self.is_turned:
            width, height, pixel = height, width, None if pixel is None else 1 / pixel
        return replace(
            self, width=width, height=height, sample_aspect_ratio=pixel, display_matrix=None
        )

    @property
    def assumed(self) -> tuple[str, ...]:
        """Describe the color properties that are assumed because the file does not signal them."""
        assumed = []
        if self.color.guessed:
            matrix = "BT.709" if self.color.matrix == BT709 else "BT.601"
            assumed.append(f"matrix {matrix}, as the size suggests")
        if not self.has_chroma_location:
            assumed.append("chroma samples at the left pixel of two, as in H.264")
        return tuple(assumed)


def probe(path: str | PathLike[str]) -> VideoInfo:
    """Read the headers of a video file, and decode its first frame.

    Raises:
        InputError: If there is no such file, or no video in it that can be decoded.
    """
    path = Path(path)
    with open_container(path) as container:
        stream = video_stream(container, path)
        time_base = stream.time_base or Fraction(1, 1000)
        frame, packet = _first_frame(container, stream, path)
        side_data = _side_data(frame)
        dolby = None
        if stream.codec.canonical_name in _DOLBY_VISION_CODECS:
            dolby = find_dolby_vision(path, side_data)
        _check_colors(path, frame, dolby)
        ticks = frame.pts if frame.pts is not None else frame.dts
        first_packet = _decoding_time_if_all(path, stream, container.format.name)
        start = (first_packet if first_packet is not None else ticks or 0) * time_base
        duration = _duration(container, stream, time_base)
        frame_rate = stream.average_rate or stream.guessed_rate
        expected = stream.frames or None
        if expected is None and duration is not None and frame_rate is not None:
            expected = round(duration * frame_rate)
        return VideoInfo(
            path=path,
            codec=stream.codec.canonical_name,
            is_lossy=is_lossy(stream),
            width=frame.width,
            height=frame.height,
            pixel_format=frame.format.name,
            bits=bit_depth(frame.format.name),
            color=color_of(frame),
            has_chroma_location=has_chroma_location(stream.codec.canonical_name, frame.format.name),
            frame_rate=frame_rate,
            time_base=time_base,
            start=start,
            duration=duration,
            expected_frames=expected,
            sample_aspect_ratio=stream.sample_aspect_ratio or None,
            display_matrix=_display_matrix(path, frame, side_data),
            hdr=hdr_metadata_of(side_data),
            dropped=_dropped(stream, frame, packet, side_data, dolby),
            is_cut_short=is_cut_short(path, container.format.name),
            has_decoding_times_only=first_packet is not None,
            origin=_origin(path, container, start, time_base),
        )


def is_lossy(stream: VideoStream) -> bool:
    """Whether the codec of a stream leaves visible artifacts; see `VideoInfo`."""
    return stream.codec.lossy and stream.codec.canonical_name not in _INTERMEDIATE_CODECS


def _first_frame(
    container: InputContainer, stream: VideoStream, path: Path
) -> tuple[VideoFrame, Packet[VideoStream]]:
    """The first frame that decodes, and its packet."""
    reason = "it holds no packets"
    packets = container.demux(stream)
    for _ in range(_MAX_PACKETS):
        try:
            packet = next(packets, None)
            if packet is None:
                break
            for frame in stream.decode(packet):
                return frame, packet
        except av.FFmpegError as error:
            reason = error.strerror or "unknown error"
            packets = container.demux(stream)
    if is_animated_webp(path):
        raise InputError(
            f"{path} is an animated WebP, which cannot be decoded here; convert it to GIF, APNG or "
            "a video with another program first."
        )
    raise InputError(
        f"Not one frame of {path} could be decoded ({reason}); the file is damaged or encrypted, "
        "copy or download it again."
    )


def _decoding_time_if_all(path: Path, stream: VideoStream, format_name: str) -> int | None:
    """The decoding time of the first frame, if the file has no presentation times; else None.

    AVI and some other old files number frames in decoding order. FFmpeg returns that as pts, so the
    decoder returns reordered frames with decreasing times.
    """
    if stream.codec_context.reorder_depth == 0 and format_name != "avi":
        return None
    first = latest = shown = None
    with open_container(path) as container:
        stream = video_stream(container, path)
        for packet in islice(container.demux(stream), _PACKETS_TO_FIND_REORDERING):
            if not packet.size:
                continue
            first = packet.dts if first is None else first
            if first is None or format_name == "avi":
                return first
            if packet.pts is not None and packet.pts < (latest or packet.pts):
                return None  # the usual case: presentation times, in another order
            latest = packet.pts
            try:
                frames = stream.decode(packet)
            except av.FFmpegError:
                continue
            for frame in frames:
                if frame.pts is not None and shown is not None and frame.pts < shown:
                    return first
                shown = frame.pts
    return None


def _origin(path: Path, container: InputContainer, start: Fraction, clock: Fraction) -> Fraction:
    """The time on the clock of the video that becomes zero in the output."""
    if Flags.no_timestamps in Flags(container.format.flags):
        return start  # a raw video stream: its times are FFmpeg's guess
    is_broadcast = allows_restarts(container)
    if not is_broadcast and start < _MAX_START:
        return min(Fraction(0), start)
    earliest = min([start, *_audio_starts(path)])
    if not is_broadcast and earliest < _MAX_START:
        return Fraction(0)
    # If a clock is about to wrap, FFmpeg gives all streams negative times. Otherwise, packets
    # before zero are decoder priming.
    return (earliest if start < 0 else max(Fraction(0), earliest)) // clock * clock


def _audio_starts(path: Path) -> Iterator[Fraction]:
    """The time of the first packet of each audio stream, in seconds."""
    with open_container(path) as container:
        remaining = {stream.index for stream in container.streams.audio}
        packets = container.demux()
        for _ in range(_MAX_PACKETS if remaining else 0):
            with suppress(av.FFmpegError):
                packet = next(packets, None)
                if packet is None or not remaining:
                    return
                if packet.stream.index in remaining and packet.pts is not None:
                    remaining.remove(packet.stream.index)
                    yield packet.pts * packet.time_base


def _duration(
    container: InputContainer, stream: VideoStream, time_base: Fraction
) -> Fraction | None:
    if stream.duration:
        return stream.duration * time_base
    if container.duration:
        return Fraction(container.duration, av.time_base)
    return None


def _check_colors(path: Path, frame: VideoFrame, dolby: DolbyVision | None) -> None:
    """Check that frames can be converted to RGB.

    Raises:
        InputError: If the color model is not YCbCr, RGB or gray.
    """
    model = color_model(frame)
    if dolby is not None and not dolby.has_base:
        model = f"Dolby Vision profile {dolby.profile} (IPT-PQ-C2)"
    if model is not None:
        raise InputError(
            f"The colors of {path} are stored as {model}, not as YCbCr, and would come out wrong; "
            "convert it to HDR10 or BT.709 with another program first."
        )


def _dropped(
    stream: VideoStream,
    frame: VideoFrame,
    packet: Packet[VideoStream],
    side_data: dict[Type, bytes],
    dolby: DolbyVision | None,
) -> tuple[str, ...]:
    names = list(dropped_side_data(side_data))
    if dolby is not None and DOLBY_VISION not in names:
        names.append(DOLBY_VISION)
    if has_alpha(frame.format.name) or _has_vpx_alpha(stream, packet):
        names.append(NO_ALPHA)
    return tuple(names)


def _has_vpx_alpha(stream: VideoStream, packet: Packet[VideoStream]) -> bool:
    """Whether VP8 or VP9 stores alpha in a second block, which the decoder here does not read."""
    if stream.codec.canonical_name not in ("vp8", "vp9"):
        return False
    tags = {name.lower(): value for name, value in stream.metadata.items()}
    return tags.get("alpha_mode") == "1" or any(
        data.data_type == "matroska_block_additional" and bytes(data)[:8] == _ALPHA_BLOCK
        for data in packet.iter_sidedata()
    )


def _side_data(frame: VideoFrame) -> dict[Type, bytes]:
    """The side data of a frame, by type."""
    try:
        kinds = cast(SideDataContainer, frame.side_data)
    except ValueError:
        # PyAV 18 cannot list side data of a frame with an unknown type, such as the EXIF data of a
        # photo.
        return {}
    return {side_data.type: bytes(side_data) for side_data in kinds}


def _display_matrix(
    path: Path, frame: VideoFrame, side_data: dict[Type, bytes]
) -> tuple[int, ...] | None:
    if Type.DISPLAYMATRIX in side_data:
        return struct.unpack("=9i", side_data[Type.DISPLAYMATRIX])
    if side_data:
        return None
    # If side data cannot be listed, PyAV still gives the angle, counterclockwise.
    return exif_matrix(path) or (rotation_matrix(frame.rotation) if frame.rotation else None)
