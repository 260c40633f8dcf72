"""Writes a video file: each frame at its time, with the sound and subtitles of the source.

An output appears under its name only when it is complete; until then it is a hidden file beside it.
Options that cannot work are refused before the first frame. The video is encoded here, or joined
from segments (see `segments`).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import lcm
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.packet import Packet
from av.video.stream import VideoStream

from vsrm_cli.encode.encoders import MAKERS, start_encoding
from vsrm_cli.encode.options import (
    Encoding,
    EncodingPlan,
    check_limits,
    choose_codec,
    encoding_losses,
    plan_encoding,
)
from vsrm_cli.encode.video_track import MAX_TICKS_PER_SECOND, VideoTrack
from vsrm_cli.errors import OutputError
from vsrm_cli.files import check_output_path, part_path, publish
from vsrm_cli.frame import Frame
from vsrm_cli.media.geometry import Shape
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.remux.copied_streams import CopiedStreams
from vsrm_cli.remux.metadata import tag_options
from vsrm_cli.remux.stream_mapping import (
    CONTAINERS,
    Audio,
    check_container_name,
    supported_codecs,
)
from vsrm_cli.remux.verify import verify_file

__all__ = ["Encoding", "VideoWriter"]

# Frames by which x265 reorders; it does not report this itself.
_X265_REORDERS = 2


class VideoWriter:
    """One output file. Use it in a ``with`` statement and write frames in order of time.

    Leaving the statement normally completes the file under its name; leaving it by an exception
    deletes what was written.

    Attributes:
        frames_written: Frames written so far.
        shape: Of the frames of the output.
        path: The file.
        plan: How its video is encoded.
        track: Its video, as it is encoded.
        time_base: The clock of the video; its times are whole numbers of it, in seconds.
        part: Where the file grows until it is complete.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: VideoInfo,
        shape: Shape,
        encoding: Encoding,
        start: Fraction | None = None,
        end: Fraction | None = None,
        overwrite: bool = False,
        folder: Path | None = None,
        audio: Audio = "copy",
    ) -> None:
        """Check everything, and write the header.

        Args:
            path: The output; its ending chooses the container.
            source: The video that the frames come from, whose sound and subtitles are copied.
            shape: Of the frames of the output.
            encoding: The codec and its settings.
            start: Seconds after the first frame of the source at which the output begins; all times
                are shifted by as much.
            end: Seconds after the first frame of the source at which the output ends.
            overwrite: Replace an existing file, when the new one is complete.
            folder: Folder of the segments, on the disk of the output. The file is only tried now,
                and made of them by `SegmentedVideo.join`.
            audio: How the sound of the source is handled.

        Raises:
            UsageError: If a setting of the encoding can never work.
            OutputError: If the output cannot be written with these options.
        """
        size = (shape.width, shape.height)
        encoding = choose_codec(encoding, path.suffix, bits=source.bits, size=size)
        plan = plan_encoding(encoding, source.pixel_format, hdr=source.hdr)
        check_container_name(path)
        check_output_path(path, inputs=[source.path], overwrite=overwrite)
        self.frames_written = 0
        self._is_complete = False
        self.plan = plan
        self.path = path
        self.part = part_path(path, folder)
        # Outputs begin near zero; all streams are shifted alike.
        shift = (start or Fraction(0)) + source.origin
        self.track = VideoTrack(source, shape, plan, suffix=path.suffix.lower(), shift=shift)
        self.time_base, self.shape = self.track.time_base, self.track.shape
        check_limits(plan, size=size, time_base=self.time_base)
        self._times = array("q")
        self._durations: dict[int, int] = {}
        self._last_duration = 1
        self._waiting: list[Packet[VideoStream]] = []
        self._packets_written = 0
        self._pixel = shape.sample_aspect_ratio
        self._source = source
        self._range = (start, end)
        self._audio = audio
        self._copies = self._new_copies()
        try:
            self._check_container(encoding, plan)
            self._open(None)
        except BaseException:
            self._copies.close()
            raise
        self._is_only_tried = folder is not None
        if self._is_only_tried:
            self._discard()

    @property
    def shown_shape(self) -> Shape:
        """The displayed size of the frames: containers but .nut store the rotation."""
        is_rotated = self.path.suffix.lower() != ".nut"
        return self.shape.upright(self._source) if is_rotated else self.shape

    @property
    def kept(self) -> tuple[str, ...]:
        """The streams of the source that are copied, in words."""
        return tuple(self._copies.kept)

    @property
    def dropped(self) -> tuple[str, ...]:
        """What the output cannot hold of the source, and why, in words."""
        lost = encoding_losses(self._source, self.plan, self._pixel)
        if self._source.display_matrix is not None and self.path.suffix.lower() == ".nut":
            lost.append("the rotation: a .nut file cannot hold it; an .mkv may")
        return (*self._copies.dropped, *lost)

    @property
    def warnings(self) -> list[str]:
        """What could not be kept as it was, in sentences; complete when the file is."""
        return self._copies.warnings

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete and verify the file, or delete it after an exception."""
        if kind is not None or self._is_only_tried:
            self._discard()
            return
        try:
            self._finish()
        except BaseException:
            self._discard()
            raise

    def write(self, frame: Frame) -> None:
        """Encode one frame.

        Args:
            frame: Resampled to the size of the output if needed; its time is kept, less the start.

        Raises:
            OutputError: If the disk is full, or the encoder fails.
            ValueError: If the time is not later than the last one.
        """
        ticks = self.track.ticks_of(frame.time)
        if self._times and ticks <= self._times[-1]:
            raise ValueError(f"times of frames must rise, got {frame.time} too late")
        av_frame = self.track.av_frame(frame)
        self._times.append(ticks)
        # A frame is shown until the next one, whatever its own duration is.
        for before, after in pairwise(self._times[-2:]):
            self._durations[before] = after - before
        self._last_duration = self.track.ticks_shown(frame)
        try:
            # Sound and video are interleaved by time. Otherwise they would be far apart in the
            # file, and packets would pile up in memory.
            self._copies.copy_until(frame.time, self._container)
            self._mux(self._stream.encode(av_frame))
        except (av.FFmpegError, OSError) as error:
            raise self.failure(error) from error
        self.frames_written += 1

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        """Write packets whose duration is known; the others wait."""
        self._waiting += packets
        # Not all encoders pass durations on, and MP4 needs that of the last frame.
        while self._waiting and self._waiting[0].pts in self._durations:
            packet = self._waiting.pop(0)
            packet.duration = self._durations.pop(packet.pts or 0)
            packet.dts = min(packet.pts or 0, self._next_decoding_time())
            self._container.mux(packet)

    def open_for(
        self, finished: VideoStream, times: Sequence[int], *, end: int, frames_reordered: int
    ) -> None:
        """Write the header of an output whose video is copied.

        Args:
            finished: A stream of the segments.
            times: When each frame is shown, rising, in ticks of `time_base`.
            end: Until when the last one is shown.
            frames_reordered: By how many frames decoding is ahead of presentation.

        Raises:
            OutputError: If the container refuses it.
        """
        self._copies = self._new_copies()
        self._times = array("q", times)
        self._durations = {tick: after - tick for tick, after in pairwise([*times, end])}
        self._last_duration = self._durations[times[-1]]
        try:
            self._open(finished)
        except BaseException:
            self._copies.close()
            raise
        self._frames_reordered = frames_reordered
        self._is_only_tried = False

    def copy(self, packet: Packet[VideoStream]) -> None:
        """Write an encoded packet, its time in ticks of `time_base`, and the sound up to that time.

        Raises:
            OutputError: If the disk is full.
        """
        packet.stream = self._stream
        packet.time_base = self.time_base
        assert packet.pts is not None
        try:
            self._copies.copy_until(packet.pts * self.time_base + self.track.shift, self._container)
            self._mux([packet])
        except (av.FFmpegError, OSError) as error:
            raise self.failure(error) from error
        self.frames_written += 1

    def _next_decoding_time(self) -> int:
        """The decoding time of the next packet: as many frames ahead as the encoder reorders.

        Derived here, because x265 gives random times to videos that are shorter than that, and
        those of segments, encoded apart, run backwards at some joints.
        """
        place = self._packets_written - self._frames_reordered
        self._packets_written += 1
        return self._times[place] if place >= 0 else self._times[0] + place

    def correct_decoding_time(
        self, packet: Packet[VideoStream], ticks: Sequence[int], place: int
    ) -> None:
        """Correct the decoding time of a packet of a segment, which x265 may set at random.

        Args:
            packet: As the encoder gave it.
            ticks: When the frames of the segment are shown, rising, as far as they are encoded.
            place: How many packets of the segment came before.
        """
        if self.plan.encoder == "libx265" and self._frames_reordered:
            place -= self._frames_reordered
            packet.dts = min(packet.pts or 0, ticks[place] if place >= 0 else ticks[0] + place)

    def _new_copies(self) -> CopiedStreams:
        start, end = self._range
        return CopiedStreams(
            self._source.path,
            suffix=self.path.suffix.lower(),
            first=None if not start else self._source.start + start,
            end=None if end is None else self._source.start + end,
            shift=self.track.shift,
            audio=self._audio,
        )

    def _check_container(self, encoding: Encoding, plan: EncodingPlan) -> None:
        suffix = self.path.suffix.lower()
        if plan.encoder not in supported_codecs(suffix):
            others = [name for name in CONTAINERS if plan.encoder in supported_codecs(name)]
            way_out = f"use {', '.join(others)}, or " if others else ""
            raise OutputError(
                f"A {suffix} file cannot hold {encoding.codec} video here; {way_out}choose another "
                "--codec."
            )
        self._copies.check(plan.encoder)

    def _open(self, finished: VideoStream | None) -> None:
        """Open the part file, announce all streams, and write the header.

        The video is encoded, unless it is copied from a finished stream.
        """
        try:
            # Opened here, so that the file is closed when it must be deleted. By its whole
            # path: to move the index, FFmpeg opens it again, and takes "a:b" for a protocol.
            file = self.part.absolute().open("wb")
        except OSError as error:
            raise OutputError(
                f"No file can be written into {self.path.absolute().parent} ({error.strerror}); "
                "choose another folder."
            ) from error
        name = CONTAINERS[self.path.suffix.lower()]
        container = av.open(file, "w", format=name, container_options=self._options(name))
        try:
            if finished is None:
                stream = self.track.add_encoder(container)
            else:
                stream = self.track.add_finished(container, finished)
            self._copies.add_to(container, stream)
            start_encoding(container)
        except (av.FFmpegError, OSError, ValueError) as error:
            file.close()
            self.part.unlink()
            if self.plan.encoder.endswith(tuple(MAKERS)):
                raise OutputError(
                    f"The hardware encoder {self.plan.encoder} cannot be opened here "
                    f"({_reason(error)}); `vsrm doctor` lists those that can. --hwaccel auto takes "
                    "software instead."
                ) from error
            raise OutputError(
                f"The encoder {self.plan.encoder} or the container {self.path.suffix} refuses "
                f"this video ({_reason(error)}); try other settings, or name the output .mkv."
            ) from error
        self._container, self._stream = container, stream
        self._frames_reordered = stream.codec_context.reorder_depth
        if self.plan.encoder == "libx265" and stream.codec_context.max_b_frames != 0:
            self._frames_reordered = _X265_REORDERS

    def _options(self, name: str) -> dict[str, str]:
        if name in ("mp4", "mov"):
            # The start of streams is in ticks of one clock, whose usual 1000 would round.
            ticks = lcm(self.time_base.denominator, self._copies.ticks_per_second)
            if ticks > MAX_TICKS_PER_SECOND:  # then as fine as it can be
                ticks = MAX_TICKS_PER_SECOND - MAX_TICKS_PER_SECOND % self.time_base.denominator
            options = tag_options(name, self._copies.tags)
            # With the index at the front, browsers play the file while it loads.
            flags = "+".join(filter(None, ("faststart", options.get("movflags"))))
            return options | {"movie_timescale": str(ticks), "movflags": flags}
        # "default" flags stay as they were, and sound that begins a little early, to prime its
        # decoder, does not move all streams.
        options = {"default_mode": "passthrough", "avoid_negative_ts": "disabled"}
        return options | self._copies.muxer_options

    def complete(self) -> None:
        """Finish the file; leaving the ``with`` statement then gives it its name.

        Raises:
            OutputError: If there is no frame in it, or the disk is full.
        """
        if self.frames_written == 0:
            raise OutputError(f"There was no frame to write to {self.path}.")
        try:
            self._durations[self._times[-1]] = self._last_duration
            if self._stream.codec_context.is_encoder:
                self._mux(self._stream.encode(None))
            self._copies.copy_until(None, self._container)
            self._close()
            self._copies.correct(self.part)
            expected = self._copies.expected(self._times, self.time_base, self._last_duration)
            verify_file(self.part, expected)
        except (av.FFmpegError, OSError) as error:
            raise self.failure(error) from error
        self._is_complete = True

    def _finish(self) -> None:
        if not self._is_complete:
            self.complete()
        try:
            publish(self.part, self.path)
        except OSError as error:
            raise self.failure(error) from error

    def _discard(self) -> None:
        try:
            self._close()
        except (av.FFmpegError, OSError):
            pass  # what cannot be completed is deleted anyway
        finally:
            self.part.unlink(missing_ok=True)

    def _close(self) -> None:
        self._copies.close()
        try:
            self._container.close()
        finally:
            self._container.file.file.close()

    def failure(self, error: Exception) -> OutputError:
        """The error for a fault of the disk or the encoder."""
        advice = "make sure that the disk is not full"
        if isinstance(error, (av.InvalidDataError, av.ArgumentError)):
            advice = "a copied stream may be damaged; try another container"
        elif isinstance(error, (MemoryError, av.ExternalError)):
            advice = "the encoder may lack memory, close other programs or try another --codec"
        return OutputError(f"{self.path} could not be written ({_reason(error)}); {advice}.")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
