"""Reads a video file: every frame that can be decoded, in presentation order, each with its time.

Times are exact fractions from the file, never counted up. Damage does not stop the reader: it skips
and counts what cannot be decoded, and reports it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from heapq import heappop, heappush
from itertools import chain
from pathlib import Path
from typing import Self, cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vsrm_cli.decode.deinterlace import FieldOrder, FirstField, apply_filter, detect_field_order
from vsrm_cli.decode.hwaccel import find_decoder
from vsrm_cli.decode.scene_cuts import SceneCutFinder
from vsrm_cli.errors import InputError
from vsrm_cli.frame import Faults, Frame
from vsrm_cli.media.clock_restarts import ContinuousClock, clock_restarts
from vsrm_cli.media.color import ToRgb, color_of
from vsrm_cli.media.containers import open_container, read_packets, video_stream
from vsrm_cli.media.orientation import rotate_upright
from vsrm_cli.media.probe import VideoInfo, probe

# After this many packets in a row without a frame the rest of the file is skipped.
_FAILURES_IN_A_ROW = 1000
# Seconds before --start at which decoding starts, tried one after another: a seek may land too
# late, by an amount that depends on the container.
_SEEK_MARGINS = (0, 5, 30)
# Containers whose headers have a measured duration, not one estimated from the size of the file, so
# that the file can be compared with it.
_STATES_DURATION = {"mov", "matroska", "avi", "flv", "asf"}
# Streams whose packets count for that duration.
_TIMED = {"audio", "video", "subtitle", "data"}


class VideoReader:
    """The frames of one video file; see `FrameReader`. Use it in a ``with`` statement."""

    image_names = ()

    def __init__(
        self,
        path: Path,
        *,
        start: Fraction | None = None,
        end: Fraction | None = None,
        deinterlace: bool | FirstField = False,
        uses_hardware: bool = False,
        turns_upright: bool = False,
    ) -> None:
        """Probe a file; only its first frame is read yet.

        Args:
            path: The video.
            start: Leave out frames shown earlier than this, in seconds after the first frame.
            end: Leave out frames shown at this time or later, in seconds after the first frame.
            deinterlace: Whether to deinterlace if there is combing, one frame for one; or the first
                field, to deinterlace always.
            uses_hardware: Decode in hardware, if it gives the same first frames.
            turns_upright: Rotate frames as players show them; ``info`` describes rotated frames.

        Raises:
            InputError: If the file cannot be read as a video.
        """
        stored = probe(path)
        self.info: VideoInfo = stored.upright() if turns_upright else stored
        self._matrix = stored.display_matrix if turns_upright else None
        self._stored_size = (stored.width, stored.height)
        self._pixel: Fraction | None = None  # its shape, in the first frame
        self.frames_read = 0
        self.faults = Faults()
        self._hardware = find_decoder(path) if uses_hardware else None
        self._deinterlaces = deinterlace
        self._first = None if not start else self.info.start + start
        self._end = None if end is None else self.info.start + end
        self._opened: tuple[InputContainer, VideoStream] | None = None
        self._indexed_packets = 0
        self._clock = _FrameClock(self.info)
        self._continuous = ContinuousClock(self.info.path)
        self._packets_seen = 0
        self._longest_gap = Fraction(0)
        self._reached: Fraction | None = None  # the end of the latest packet, of any stream
        self._is_cut_short = False

    @property
    def decoder(self) -> str:
        """The decoder: "software", or FFmpeg's name of the hardware interface."""
        return self._hardware or "software"

    @cached_property
    def fields(self) -> FieldOrder:
        """Its field order, if it is interlaced; some frames are decoded to find out."""
        if isinstance(self._deinterlaces, str):
            return FieldOrder(first=self._deinterlaces)
        with open_container(self.info.path) as container:
            return detect_field_order(container, video_stream(container, self.info.path))

    @property
    def notices(self) -> list[str]:
        """Warnings about the video, in sentences."""
        notices = []
        path, fields = self.info.path, self.fields
        if fields.first is not None:
            first = {"tff": "top", "bff": "bottom"}[fields.first]
            fate = (
                "each frame is deinterlaced with bwdif"
                if self._deinterlaces
                else "combing is enlarged, because deinterlacing is off"
            )
            notices.append(f"{path} is interlaced, {first} field first: {fate}")
        elif fields.is_doubtful:
            notices.append(
                f"{path} shows some combing, too little to be sure: not deinterlaced; if it is "
                "interlaced, give --deinterlace tff or bff"
            )
        elif fields.is_marked:
            notices.append(
                f"{path} says that it is interlaced, but shows no combing: not deinterlaced; if it "
                "is, give --deinterlace tff or bff"
            )
        return notices

    @property
    def truncated(self) -> bool:
        """Whether the end of the file is missing, or packets were damaged."""
        return self._is_cut_short or self.faults.damaged > 0

    def __enter__(self) -> Self:
        """Return the reader itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in presentation order, times strictly rising.

        Raises:
            InputError: If no frame can be decoded, or none is in the range.
        """
        size = self._stored_size
        to_rgb = ToRgb(width=size[0], height=size[1])
        cuts = SceneCutFinder()
        seen = False
        av_frames = self._timed_frames()
        if not self.info.has_chroma_location:
            av_frames = apply_filter(av_frames, "setparams", chroma_location="left")
        if self._deinterlaces and self.fields.first is not None:
            options = {"mode": "send_frame", "parity": self.fields.first, "deint": "all"}
            av_frames = apply_filter(av_frames, "bwdif", **options)
        for av_frame, time in av_frames:
            seen = True
            if self._first is not None and time < self._first:
                continue
            if self._end is not None and time >= self._end:
                break
            color = color_of(av_frame)
            if color.guessed:
                color = self.info.color
            self.frames_read += 1
            self.faults += Faults(resized=(av_frame.width, av_frame.height) != size)
            duration = av_frame.duration * self.info.time_base if av_frame.duration else None
            pixels = rotate_upright(to_rgb(av_frame, color), self._matrix)
            yield Frame(pixels, time, duration, cuts.begins_shot(pixels))
        else:
            self._check_end()
        if self.frames_read == 0:
            raise InputError(self._why_nothing(seen=seen))

    def _timed_frames(self) -> Iterator[tuple[VideoFrame, Fraction]]:
        if self._first is not None:
            for margin in _SEEK_MARGINS:
                av_frames = self._decode_from(self._first - margin)
                head = next(av_frames, None)
                # After a seek, a frame without a time of its own cannot be placed. And
                # deinterlacing needs the frame before.
                if head is not None and head[0].pts is not None:
                    is_early = head[1] < self._first
                    if is_early or (head[1] == self._first and not self._deinterlaces):
                        return chain([head], av_frames)
        return self._decode(*self._open())

    def _decode_from(self, time: Fraction) -> Iterator[tuple[VideoFrame, Fraction]]:
        if time <= self.info.start or clock_restarts(self.info.path):
            return iter(())
        container, stream = self._open()
        self._pixel = stream.codec_context.sample_aspect_ratio
        depth = stream.codec_context.reorder_depth
        if depth and self.info.has_decoding_times_only:
            return iter(())  # after a seek, frames are missing among those that are reordered
        try:
            container.seek(int(time / self.info.time_base), stream=stream)
        except av.FFmpegError:
            return iter(())
        # Seeking makes some decoders forget how many frames they must hold back.
        stream.codec_context.reorder_depth = depth
        return self._decode(container, stream)

    def _decode(
        self, container: InputContainer, stream: VideoStream
    ) -> Iterator[tuple[VideoFrame, Fraction]]:
        """Decode from the current position to the end, and flush the decoder."""
        failures = 0
        order = _PresentationTimes() if self.info.has_decoding_times_only else None
        for packet in self._packets(container, stream):
            is_damaged = packet is None or packet.is_corrupt
            if order is not None and packet is not None:
                order.expect(packet)
            av_frames: list[VideoFrame] = []
            if packet is not None:
                try:
                    av_frames = stream.decode(packet)
                except av.FFmpegError:
                    is_damaged = True
            if is_damaged or any(av_frame.is_corrupt for av_frame in av_frames):
                self._count_damage(packet)
            failures = 0 if av_frames else failures + is_damaged
            if failures > _FAILURES_IN_A_ROW:
                return
            for av_frame in av_frames:
                if order is not None:
                    av_frame.pts = order.next(stream.codec_context.reorder_depth)
                time = self._clock.time_of(av_frame)
                # PyAV has the pixel aspect ratio of the decoder, not of each frame.
                pixel = stream.codec_context.sample_aspect_ratio
                self._pixel = self._pixel or pixel
                self.faults += Faults(reshaped=pixel is not None and pixel != self._pixel)
                yield self._as_in_software(av_frame), time

    def _as_in_software(self, av_frame: VideoFrame) -> VideoFrame:
        if self._hardware is None:
            return av_frame
        # Hardware has its own formats, with the same values in another order.
        return av_frame.reformat(format=self.info.pixel_format)

    def _packets(
        self, container: InputContainer, stream: VideoStream
    ) -> Iterator[Packet[VideoStream] | None]:
        """Read the packets of the video and the empty one that flushes; None for an error."""
        watched = [s for s in container.streams if s.discard != Discard.all]
        for packet in read_packets(container, watched):
            if packet is None:
                yield None
                continue
            self._continuous.move(packet)
            self._note_progress(packet)
            if packet.stream is stream:
                yield cast("Packet[VideoStream]", packet)

    def _open(self) -> tuple[InputContainer, VideoStream]:
        self.close()
        self._clock = _FrameClock(self.info)
        self._continuous = ContinuousClock(self.info.path)
        self._packets_seen = 0
        self._reached = None
        container = open_container(self.info.path, hardware=self._hardware)
        stream = video_stream(container, self.info.path)
        self._opened = (container, stream)
        self._indexed_packets = len(stream.index_entries)
        # Other streams are read, not decoded, if only the end of the file can be compared.
        needs_all = stream.duration is None
        for other in container.streams:
            if other is not stream and (not needs_all or other.type not in _TIMED):
                other.discard = Discard.all
        return container, stream

    def close(self) -> None:
        """Close the file; leaving the ``with`` statement does so too."""
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    def _count_damage(self, packet: Packet[VideoStream] | None) -> None:
        """Count a damaged packet, unless it is due to seeking into the middle of the video.

        Raises:
            InputError: If hardware decodes, since the hardware may be the cause.
        """
        if self._first is not None and packet is not None and packet.size:
            ticks = packet.pts if packet.pts is not None else packet.dts
            if ticks is not None and ticks * self.info.time_base < self._first:
                return
        if self._hardware is not None:
            raise InputError(
                f"{self.info.path} could not be decoded by {self._hardware} without faults; "
                "give --hwaccel off, which can tell what of the file is damaged."
            )
        self.faults += Faults(damaged=1)

    def _note_progress(self, packet: Packet[Stream]) -> None:
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None:
            return
        reached = (ticks + (packet.duration or 0)) * packet.time_base
        if self._reached is None:
            self._reached = reached
        if packet.stream.type == "video":
            self._packets_seen += 1
            self._longest_gap = max(self._longest_gap, reached - self._reached)
        self._reached = max(self._reached, reached)

    def _check_end(self) -> None:
        """Detect that a file ended earlier than its header says.

        A file that was cut often just ends, without an error. Only clear evidence counts: durations
        are rounded, and the last frame of a variable rate has none.
        """
        if self.info.is_cut_short:
            self._is_cut_short = True
            return
        assert self._opened is not None
        container, stream = self._opened
        if not _STATES_DURATION & set(container.format.name.split(",")):
            return
        if self._first is None and self._packets_seen < self._indexed_packets:
            self._is_cut_short = True
            return
        if stream.duration is not None:
            stated = ((stream.start_time or 0) + stream.duration) * self.info.time_base
        elif container.duration is not None:
            stated = Fraction(container.duration, av.time_base)
        else:
            return
        frame = 1 / self.info.frame_rate if self.info.frame_rate else Fraction(1, 25)
        tolerance = max(Fraction(1, 4), 3 * frame, 2 * self._longest_gap)
        self._is_cut_short = self._reached is None or stated - self._reached > tolerance

    def _why_nothing(self, *, seen: bool) -> str:
        if not seen and self._first is None:
            return (
                f"Not one frame of {self.info.path} could be decoded; the file is damaged, "
                "copy or download it again."
            )
        length = "" if self.info.duration is None else f" of {float(self.info.duration):.3f} s"
        return (
            f"No frame of {self.info.path}{length} is between --start and --end; "
            "choose another --start or --end."
        )


class _PresentationTimes:
    """Presentation times, for files that only have decoding times.

    Both orders have the same set of times, since every decoded frame is shown.
    """

    def __init__(self) -> None:
        self._waiting: list[int] = []

    def expect(self, packet: Packet[VideoStream]) -> None:
        """Add the time of the next decoded frame."""
        ticks = packet.dts if packet.dts is not None else packet.pts
        if packet.size and ticks is not None:
            heappush(self._waiting, ticks)

    def next(self, depth: int) -> int | None:
        """The time of the next frame that is shown.

        Args:
            depth: How many frames the decoder holds back for reordering.
        """
        # Times of lost frames are dropped.
        while len(self._waiting) > depth + 1:
            heappop(self._waiting)
        return heappop(self._waiting) if self._waiting else None


class _FrameClock:
    """Gives every decoded frame a time, even if the file has none."""

    def __init__(self, info: VideoInfo) -> None:
        self._time_base = info.time_base
        self._first = info.start / info.time_base
        frame = 1 / info.frame_rate if info.frame_rate else Fraction(1, 25)
        self._usual_step = max(1, round(frame / info.time_base))
        self._last: int | None = None

    def time_of(self, av_frame: VideoFrame) -> Fraction:
        """The time of the next frame in presentation order, in seconds; always rising."""
        ticks = av_frame.pts if av_frame.pts is not None else av_frame.dts
        step = av_frame.duration or self._usual_step
        if ticks is None:
            ticks = int(self._first) if self._last is None else self._last + step
        elif self._last is not None and ticks <= self._last:
            # A repeated time is corrected by the next frame; a jump back is not.
            ticks = self._last + (1 if self._last - ticks < step else step)
        self._last = ticks
        return ticks * self._time_base
