"""The video of an output: how it is encoded, its clock, and its frames as the encoder takes them.

The file itself and each of its segments announce the same track, so that packets can be copied from
one into the other.
"""

from __future__ import annotations

from fractions import Fraction
from math import lcm

import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vsrm_cli.encode.options import EncodingPlan, add_video, stores_pixel_shape, tag
from vsrm_cli.frame import Frame
from vsrm_cli.media.color import FromRgb
from vsrm_cli.media.geometry import Shape
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.remux.stream_mapping import CONTAINERS

MAX_TICKS_PER_SECOND = 2**31 - 1


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
        self, source: VideoInfo, shape: Shape, plan: EncodingPlan, *, suffix: str, shift: Fraction
    ) -> None:
        """Choose the colors and the clock.

        Args:
            source: The video that the frames come from.
            shape: Of the frames, as asked for.
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
        self._rate = source.frame_rate or Fraction(25)
        self._display_matrix = source.display_matrix
        width, height = self.shape.width, self.shape.height
        color = source.color.fitted(
            plan.pixel_format, width=width, height=height, source_format=source.pixel_format
        )
        self._from_rgb = FromRgb(color, plan.pixel_format, width=width, height=height)

    def picture(self, frame: Frame) -> VideoFrame:
        """Convert a frame to what the encoder takes; its time is that of the output."""
        picture = self._from_rgb(frame.pixels)
        picture.pts = self.ticks_of(frame.time)
        picture.time_base = self.time_base
        return picture

    def ticks_of(self, time: Fraction) -> int:
        """When the output shows what the source shows at a time, in ticks of `time_base`."""
        return round((time - self.shift) / self.time_base)

    def ticks_shown(self, frame: Frame) -> int:
        """How long the last frame is shown; guessed by the rate where the source does not say."""
        duration = frame.duration
        if duration is None:
            duration = 1 / self._rate
        return max(1, round(duration / self.time_base))

    def add_encoder(self, container: OutputContainer) -> VideoStream:
        """Announce the video to a container: this output's, or that of a segment of it."""
        stream = add_video(
            container,
            self.plan,
            self._from_rgb.color,
            size=(self.shape.width, self.shape.height),
            rate=self._rate,
            time_base=self.time_base,
        )
        if self.is_mp4 or self._suffix == ".nut":
            # MP4 stores the steps between frames in the order of decoding. Where the steps vary
            # and frames are reordered, the length of the last frame, and of the track, is lost.
            # NUT loses all times when the first frame is to be decoded before time zero.
            stream.codec_context.max_b_frames = 0
        self._describe(stream)
        return stream

    def add_finished(self, container: OutputContainer, finished: VideoStream) -> VideoStream:
        """Announce the video to a container, as a copy of a stream that is encoded."""
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
        """A gray frame, as the encoder takes it, to try it with."""
        gray = np.full((3, self.shape.height, self.shape.width), 128, np.uint8)
        picture = self._from_rgb(gray)
        picture.pts = number * max(1, round(1 / self._rate / self.time_base))
        picture.time_base = self.time_base
        return picture

    def _describe(self, stream: VideoStream) -> None:
        """Say of a stream what players must know, and not every encoder or segment tells."""
        context = stream.codec_context
        tag(context, self._from_rgb.color)
        if self.shape.sample_aspect_ratio is not None:
            context.sample_aspect_ratio = self.shape.sample_aspect_ratio
        if self.is_mp4 and self.plan.codec == "hevc":
            context.codec_tag = "hvc1"  # Apple's players know no other tag
        if self._display_matrix is not None:
            stream.set_display_matrix(_without_offset(self._display_matrix))


def _time_base(source: Fraction, shift: Fraction) -> Fraction:
    """The coarsest clock in which all times of the source, shifted, are whole numbers."""
    if shift % source == 0:
        return source
    ticks = lcm(source.denominator, shift.denominator)
    return Fraction(1, ticks) if ticks <= MAX_TICKS_PER_SECOND else source


def _without_offset(display_matrix: tuple[int, ...]) -> tuple[int, ...]:
    """The turn alone; the offset that MP4 adds to it is in pixels of the smaller picture."""
    return (*display_matrix[:6], 0, 0, display_matrix[8])
