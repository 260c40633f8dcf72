"""What a file says about itself, and how far it can be trusted.

Sizes, colors and times are taken from the first frame that decodes, because headers may be
wrong. Counts, rates and durations come from headers and are hints: good for a progress bar and
for noticing that a file was cut short, never for computing a time.
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
    bits_of,
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
from vsrm_cli.media.hdr import DOLBY_VISION, HdrMetadata, hdr_metadata_of, left_behind
from vsrm_cli.media.orientation import exif_matrix, is_quarter_turn, matrix_of_turn

# A broken beginning is searched for its first good frame no further than this.
_PACKETS_BEFORE_GIVING_UP = 1000
# B-frames are among so many frames, if there are any.
_PACKETS_TO_KNOW_THE_ORDER = 64
# Seconds after which no film waits for its first frame: such a file has the clock of a live stream.
_LONGEST_WAIT = 10
# Codecs between camera and cutting room: they lose something, but nothing that is seen.
_FOR_EDITING = {"prores", "dnxhd", "cfhd"}
_DOLBY_VISION_CODECS = {"hevc", "h264", "av1"}
NO_ALPHA = "transparency: the network knows only colors"
# The identifier of alpha among the additions to a block of Matroska.
_ALPHA_BLOCK = (1).to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """One video stream of one file.

    Attributes:
        path: The file.
        codec: FFmpeg's name of it, such as ``h264``.
        is_lossy: Whether the codec leaves traces that a network had better know of: not where it
            keeps every pixel, nor where it is made for editing and spends as much as that needs.
        width: Of the stored picture, in pixels; a rotation tag does not swap the two.
        height: Of the stored picture, in pixels.
        pixel_format: FFmpeg's name, such as ``yuv420p``.
        bits: Per component.
        color: How pixel values are to be read.
        has_chroma_location: Whether the frames say where chroma samples lie.
        frame_rate: Average frames per second; a hint.
        time_base: Every time of the stream is a multiple of this, in seconds.
        start: When the first frame is shown, in seconds on the clock of the file. The user's
            0:00.
        duration: Of the stream, in seconds; a hint.
        expected_frames: A hint.
        sample_aspect_ratio: Width of a pixel over its height, where the file says so.
        display_matrix: How players turn the picture, FFmpeg's nine numbers.
        light: HDR figures, where the first frame has them.
        left_behind: What else travels with the first frame and cannot be copied, in words.
        is_cut_short: The file ends before its own structure says that it does.
        has_decoding_times_only: Whether the file says when a frame is decoded, but not when it is
            shown, though its codec changes the order.
        origin: What the clock of an output should show as zero, in seconds on the clock of the
            file. It differs from zero where streams begin before zero, and on the clocks of
            broadcasts and live streams, which begin anywhere.
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
    light: HdrMetadata | None
    left_behind: tuple[str, ...]
    is_cut_short: bool
    has_decoding_times_only: bool = False
    origin: Fraction = Fraction(0)

    @property
    def is_turned(self) -> bool:
        """Whether players turn the picture by a quarter, so that width and height change places."""
        return is_quarter_turn(self.display_matrix)

    def upright(self) -> VideoInfo:
        """The same video, its frames turned as players show them."""
        width, height, pixel = self.width, self.height, self.sample_aspect_ratio
        if self.is_turned:
            width, height, pixel = height, width, None if pixel is None else 1 / pixel
        return replace(
            self, width=width, height=height, sample_aspect_ratio=pixel, display_matrix=None
        )

    @property
    def assumed(self) -> tuple[str, ...]:
        """What the file leaves open of its colors, and how they are read, in words."""
        assumed = []
        if self.color.guessed:
            matrix = "BT.709" if self.color.matrix == BT709 else "BT.601"
            assumed.append(f"matrix {matrix}, as the size suggests")
        if not self.has_chroma_location:
            assumed.append("color samples beside the left one of two pixels, as in H.264")
        return tuple(assumed)


def probe(path: str | PathLike[str]) -> VideoInfo:
    """Read what a file says about its video, and decode its first frame.

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
            bits=bits_of(frame.format.name),
            color=color_of(frame),
            has_chroma_location=has_chroma_location(stream.codec.canonical_name, frame.format.name),
            frame_rate=frame_rate,
            time_base=time_base,
            start=start,
            duration=duration,
            expected_frames=expected,
            sample_aspect_ratio=stream.sample_aspect_ratio or None,
            display_matrix=_display_matrix(path, frame, side_data),
            light=hdr_metadata_of(side_data),
            left_behind=_left_behind(stream, frame, packet, side_data, dolby),
            is_cut_short=is_cut_short(path, container.format.name),
            has_decoding_times_only=first_packet is not None,
            origin=_origin(path, container, start, time_base),
        )


def is_lossy(stream: VideoStream) -> bool:
    """Whether the codec of a stream leaves traces that are seen; see `VideoInfo`."""
    return stream.codec.lossy and stream.codec.canonical_name not in _FOR_EDITING


def _first_frame(
    container: InputContainer, stream: VideoStream, path: Path
) -> tuple[VideoFrame, Packet[VideoStream]]:
    """The first frame that decodes, and the packet that gave it."""
    reason = "it holds no packets"
    packets = container.demux(stream)
    for _ in range(_PACKETS_BEFORE_GIVING_UP):
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
    """When the first frame is decoded, if the file does not say when frames are shown.

    AVI counts frames as they are decoded. FFmpeg passes that on as if it were the order of
    showing, and so it does with other old files. A decoder that changes the order then gives
    frames whose times fall.
    """
    if stream.codec_context.reorder_depth == 0 and format_name != "avi":
        return None
    first = latest = shown = None
    with open_container(path) as container:
        stream = video_stream(container, path)
        for packet in islice(container.demux(stream), _PACKETS_TO_KNOW_THE_ORDER):
            if not packet.size:
                continue
            first = packet.dts if first is None else first
            if first is None or format_name == "avi":
                return first
            if packet.pts is not None and packet.pts < (latest or packet.pts):
                return None  # the usual case: times of showing, in another order
            latest = packet.pts
            try:
                pictures = stream.decode(packet)
            except av.FFmpegError:
                continue
            for picture in pictures:
                if picture.pts is not None and shown is not None and picture.pts < shown:
                    return first
                shown = picture.pts
    return None


def _origin(path: Path, container: InputContainer, start: Fraction, clock: Fraction) -> Fraction:
    """What should become zero; a time on the clock of the video."""
    if Flags.no_timestamps in Flags(container.format.flags):
        return start  # a bare video stream: its times are FFmpeg's guess
    is_broadcast = allows_restarts(container)
    if not is_broadcast and start < _LONGEST_WAIT:
        return min(Fraction(0), start)
    earliest = min([start, *_first_times_of_sound(path)])
    if not is_broadcast and earliest < _LONGEST_WAIT:
        return Fraction(0)
    # Where a clock wraps soon, FFmpeg gives all streams times below zero. Otherwise, what lies
    # there only primes a decoder.
    return (earliest if start < 0 else max(Fraction(0), earliest)) // clock * clock


def _first_times_of_sound(path: Path) -> Iterator[Fraction]:
    """When each stream of sound begins, in seconds, as its first packet says."""
    with open_container(path) as container:
        silent = {stream.index for stream in container.streams.audio}
        packets = container.demux()
        for _ in range(_PACKETS_BEFORE_GIVING_UP if silent else 0):
            with suppress(av.FFmpegError):
                packet = next(packets, None)
                if packet is None or not silent:
                    return
                if packet.stream.index in silent and packet.pts is not None:
                    silent.remove(packet.stream.index)
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
    """Refuse what can be decoded, but not be read as RGB.

    Raises:
        InputError: If the picture is neither YCbCr nor RGB nor gray.
    """
    model = color_model(frame)
    if dolby is not None and not dolby.has_base:
        model = f"Dolby Vision profile {dolby.profile} (IPT-PQ-C2)"
    if model is not None:
        raise InputError(
            f"The colors of {path} are stored as {model}, not as YCbCr, and would come out wrong; "
            "convert it to HDR10 or BT.709 with another program first."
        )


def _left_behind(
    stream: VideoStream,
    frame: VideoFrame,
    packet: Packet[VideoStream],
    side_data: dict[Type, bytes],
    dolby: DolbyVision | None,
) -> tuple[str, ...]:
    names = list(left_behind(side_data))
    if dolby is not None and DOLBY_VISION not in names:
        names.append(DOLBY_VISION)
    if has_alpha(frame.format.name) or _has_alpha_beside(stream, packet):
        names.append(NO_ALPHA)
    return tuple(names)


def _has_alpha_beside(stream: VideoStream, packet: Packet[VideoStream]) -> bool:
    """Whether each block of VP8 or VP9 has a second one with alpha, which no decoder here reads."""
    if stream.codec.canonical_name not in ("vp8", "vp9"):
        return False
    tags = {name.lower(): value for name, value in stream.metadata.items()}
    return tags.get("alpha_mode") == "1" or any(
        data.data_type == "matroska_block_additional" and bytes(data)[:8] == _ALPHA_BLOCK
        for data in packet.iter_sidedata()
    )


def _side_data(frame: VideoFrame) -> dict[Type, bytes]:
    """What travels with a frame, by its kind."""
    try:
        kinds = cast(SideDataContainer, frame.side_data)
    except ValueError:
        # PyAV 18 cannot list side data when one is of a kind that it does not know, such as the
        # EXIF data of a photo.
        return {}
    return {side_data.type: bytes(side_data) for side_data in kinds}


def _display_matrix(
    path: Path, frame: VideoFrame, side_data: dict[Type, bytes]
) -> tuple[int, ...] | None:
    if Type.DISPLAYMATRIX in side_data:
        return struct.unpack("=9i", side_data[Type.DISPLAYMATRIX])
    if side_data:
        return None
    # Where side data cannot be listed, PyAV still tells the angle, against the clock.
    return exif_matrix(path) or (matrix_of_turn(frame.rotation) if frame.rotation else None)
