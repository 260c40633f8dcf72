"""The video of an output: how it is encoded, its clock, and its frames as the encoder takes them.

The file itself and each of its segments announce the same track, so that packets can be copied from
one into the other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from math import lcm

import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vsrm_cli.encode.options import EncodingPlan, stores_pixel_shape
from vsrm_cli.frame import FALLBACK_RATE, Frame
from vsrm_cli.media.color import FromRgb, set_color_tags
from vsrm_cli.media.geometry import OutputShape
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.remux.stream_mapping import CONTAINERS

MAX_TICKS_PER_SECOND = 2**31 - 1
_THREADS = min(16, os.cpu_count() or 1)
# Without a bit rate or a quality these fall back to 200 kbit/s.
_QUANTIZER_CODECS = {"mpeg4", "mpeg2video", "mpeg1video"}
# Frames by which x265 reorders; it does not report this itself.
_X265_REORDERS = 2


class VideoTrack:
    """The video of one output.

    Attributes:
        plan: How it is encoded.
        shape: Of its frames.
        shift: What is subtracted from times of the source, in seconds.
        time_base: Its clock; its times are whole numbers of it, in seconds.
        is_mp4: Whether the output is an MP4 or MOV file.
    """

    def __init__(
        self,
        source: VideoInfo,
        shape: OutputShape,
        plan: EncodingPlan,
        *,
        suffix: str,
        shift: Fraction,
    ) -> None:
        """Choose the colors and the clock.

        Args:
            source: The video that the frames come from.
            shape: Requested size of the frames.
            plan: How they are encoded.
            suffix: Of the output's name, in lower case.
            shift: What is subtracted from times of the source, in seconds.
        """
        self.plan = plan
        self.shape = shape if stores_pixel_shape(plan) else shape.squared()
        self.shift = shift
        self.time_base = _time_base(source.time_base, shift)
        self.is_mp4 = CONTAINERS[suffix] in ("mp4", "mov")
        self._suffix = suffix
        self._rate = source.frame_rate or FALLBACK_RATE
        self._display_matrix = source.display_matrix
        width, height = self.shape.width, self.shape.height
        color = source.color.fitted(
            plan.pixel_format, width=width, height=height, source_format=source.pixel_format
        )
        self._from_rgb = FromRgb(color, plan.pixel_format, width=width, height=height)

    def av_frame(self, frame: Frame) -> VideoFrame:
        """Convert a frame for the encoder, with its time in the output."""
        av_frame = self._from_rgb(frame.pixels)
        av_frame.pts = self.ticks_of(frame.time)
        av_frame.time_base = self.time_base
        return av_frame

    def ticks_of(self, time: Fraction) -> int:
        """A time of the source as a time of the output, in ticks of `time_base`."""
        return round((time - self.shift) / self.time_base)

    def ticks_shown(self, frame: Frame) -> int:
        """How long the last frame is shown; by the frame rate if the source does not say."""
        duration = frame.duration
        if duration is None:
            duration = 1 / self._rate
        return max(1, round(duration / self.time_base))

    def add_encoder(self, container: OutputContainer) -> VideoStream:
        """Add the video to a container, of the output or of a segment, to be encoded."""
        stream = container.add_stream(
            self.plan.encoder,
            rate=self._rate,
            options=self.plan.options,
            width=self.shape.width,
            height=self.shape.height,
            pix_fmt=self.plan.pixel_format,
            time_base=self.time_base,
        )
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.thread_count = _THREADS
        if self.plan.codec in _QUANTIZER_CODECS:
            context.qscale = True
            context.global_quality = 3
        if self.is_mp4 or self._suffix == ".nut":
            # MP4 stores the steps between frames in the order of decoding. Where the steps vary
            # and frames are reordered, the length of the last frame, and of the track, is lost.
            # NUT loses all times when the first frame is to be decoded before time zero.
            context.max_b_frames = 0
        self._describe(stream)
        return stream

    def frames_reordered(self, stream: VideoStream) -> int:
        """By how many frames decoding is ahead of presentation, once the encoder is open."""
        context = stream.codec_context
        is_silent = self.plan.encoder == "libx265" and context.max_b_frames != 0
        return _X265_REORDERS if is_silent else context.reorder_depth

    def correct_decoding_time(
        self, packet: Packet[VideoStream], stream: VideoStream, ticks: Sequence[int], place: int
    ) -> None:
        """Correct the decoding time of a packet of a segment, which x265 may set at random.

        Args:
            packet: As the encoder gave it.
            stream: Of the segment.
            ticks: When the frames of the segment are shown, rising, as far as they are encoded.
            place: How many packets of the segment came before.
        """
        reordered = self.frames_reordered(stream)
        if self.plan.encoder == "libx265" and reordered:
            packet.dts = min(packet.pts or 0, decoding_time(ticks, place, reordered=reordered))

    def add_finished(self, container: OutputContainer, finished: VideoStream) -> VideoStream:
        """Add the video to a container, as a copy of an encoded stream."""
        stream = container.add_stream_from_template(finished, opaque=True)
        stream.codec_context.framerate = self._rate
        stream.time_base = self.time_base
        # Some decoders know the pixel format by the tag only (Ut Video, raw video). NUT has the
        # tags of all containers but MP4.
        if finished.container.format.name == "nut" and not self.is_mp4:
            stream.codec_context.codec_tag = finished.codec_context.codec_tag
        self._describe(stream)
        return stream

    def blank(self, number: int) -> VideoFrame:
        """A gray frame for the encoder, for a trial."""
        gray = np.full((3, self.shape.height, self.shape.width), 128, np.uint8)
        av_frame = self._from_rgb(gray)
        av_frame.pts = number * max(1, round(1 / self._rate / self.time_base))
        av_frame.time_base = self.time_base
        return av_frame

    def _describe(self, stream: VideoStream) -> None:
        """Set what players need to know of a stream, which not every encoder or segment has."""
        context = stream.codec_context
        set_color_tags(context, self._from_rgb.color)
        if self.shape.sample_aspect_ratio is not None:
            context.sample_aspect_ratio = self.shape.sample_aspect_ratio
        if self.is_mp4 and self.plan.codec == "hevc":
            context.codec_tag = "hvc1"  # Apple's players know no other tag
        if self._display_matrix is not None:
            stream.set_display_matrix(_without_offset(self._display_matrix))


def decoding_time(ticks: Sequence[int], place: int, *, reordered: int) -> int:
    """The decoding time of a packet, as many frames ahead as the encoder reorders.

    It is derived because x265 gives random times to videos that are shorter than that.

    Args:
        ticks: When the frames are shown, rising.
        place: How many packets came before.
        reordered: By how many frames decoding is ahead of presentation.
    """
    place -= reordered
    return ticks[place] if place >= 0 else ticks[0] + place


def _time_base(source: Fraction, shift: Fraction) -> Fraction:
    """The coarsest clock in which all shifted times of the source are whole numbers."""
    if shift % source == 0:
        return source
    ticks = lcm(source.denominator, shift.denominator)
    return Fraction(1, ticks) if ticks <= MAX_TICKS_PER_SECOND else source


def _without_offset(display_matrix: tuple[int, ...]) -> tuple[int, ...]:
    """The rotation alone; the offset that MP4 adds is in pixels of the source."""
    return (*display_matrix[:6], 0, 0, display_matrix[8])
