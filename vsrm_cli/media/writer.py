"""Frames become a file: each at the time it came with, with the sound and subtitles it had.

An output appears under its name only when it is complete. Until then it grows in a hidden file
beside it, and every wish that cannot be fulfilled is refused before the first frame.
"""

from __future__ import annotations

import os
from array import array
from fractions import Fraction
from math import lcm
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vsrm_cli.errors import OutputError
from vsrm_cli.frame import Frame
from vsrm_cli.media.color import FromRgb
from vsrm_cli.media.encoding import Encoding, EncodingPlan, plan_encoding
from vsrm_cli.media.geometry import Shape
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.media.proof import prove
from vsrm_cli.media.streams import CONTAINERS, CopiedStreams, supported_codecs

__all__ = ["Encoding", "VideoWriter"]

# Without a rate or a quality these fall back to a rate made for postage stamps.
_QUANTIZER_CODECS = {"mpeg4", "mpeg2video", "mpeg1video"}
_MAX_TICKS_PER_SECOND = 2**31 - 1
_MPEG4_TICKS_PER_SECOND = 65535
# Frames that x265 may decode ahead of their turn; it does not say so itself.
_X265_REORDERS = 2
_THREADS = min(16, os.cpu_count() or 1)


class VideoWriter:
    """One output file. Use it in a ``with`` statement and write frames in rising order of time.

    Leaving the statement normally completes the file under its name; leaving it by an exception
    deletes what was written.

    Attributes:
        frames_written: Frames taken so far.
        shape: Of the pictures of the output.
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
    ) -> None:
        """Check everything, and write the header.

        Args:
            path: The output; the end of its name says which container it is.
            source: The video that the frames come from, whose sound and subtitles are copied.
            shape: Of the pictures of the output.
            encoding: The codec and its settings.
            start: Seconds after the first frame of the source at which the output begins; all
                times become earlier by as much.
            end: Seconds after the first frame of the source at which the output ends.
            overwrite: Replace an existing file, when the new one is complete.

        Raises:
            UsageError: If a setting of the encoding can never work.
            OutputError: If the output cannot be written as asked.
        """
        plan = plan_encoding(encoding, source.pixel_format)
        _check_destination(path, source.path, overwrite=overwrite)
        self.frames_written = 0
        self._path = path
        self._part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
        # Containers begin at zero: what would begin earlier is moved there, all streams alike.
        self._shift = (start or Fraction(0)) + min(Fraction(0), source.start)
        self._time_base = _time_base(source.time_base, self._shift)
        if plan.codec == "mpeg4" and self._time_base.denominator > _MPEG4_TICKS_PER_SECOND:
            raise OutputError(
                f"MPEG-4 Part 2 counts at most {_MPEG4_TICKS_PER_SECOND} ticks per second, too few "
                "for the times of this video; choose another --codec, such as h264."
            )
        self._times = array("q")
        self._durations: dict[int, int] = {}
        self._last_duration = 1
        self._waiting: list[Packet[VideoStream]] = []
        self._packets_written = 0
        self.shape = shape
        width, height = shape.width, shape.height
        color = source.color.fitted(plan.pixel_format, width=width, height=height)
        self._from_rgb = FromRgb(color, plan.pixel_format, width=width, height=height)
        self._source = source
        self._copies = CopiedStreams(
            source.path,
            suffix=path.suffix.lower(),
            first=None if not start else source.start + start,
            end=None if end is None else source.start + end,
            shift=self._shift,
        )
        try:
            self._check_container(encoding, plan)
            self._container, self._stream = self._open(plan)
            context = self._stream.codec_context
            self._frames_reordered = context.reorder_depth
            if plan.encoder == "libx265" and context.max_b_frames != 0:
                self._frames_reordered = _X265_REORDERS
        except BaseException:
            self._copies.close()
            raise

    @property
    def kept(self) -> tuple[str, ...]:
        """What of the source goes along beside its main video, in words."""
        return tuple(self._copies.kept)

    @property
    def dropped(self) -> tuple[str, ...]:
        """What of the source the output cannot hold, and why, in words."""
        return tuple(self._copies.dropped)

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
        """Complete the file and prove it, or delete it after an exception."""
        if kind is not None:
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
            frame: Of the shape of the output, and resampled to its size if it is another; its
                time is kept, less the start.

        Raises:
            OutputError: If the disk is full, or the encoder fails.
            ValueError: If the time is not later than the last one.
        """
        ticks = round((frame.time - self._shift) / self._time_base)
        if self._times:
            if ticks <= self._times[-1]:
                raise ValueError(f"times of frames must rise, got {frame.time} too late")
            # A frame is shown until the next one is, whatever it says of itself.
            self._durations[self._times[-1]] = ticks - self._times[-1]
        self._times.append(ticks)
        self._last_duration = self._ticks_shown(frame)
        picture = self._from_rgb(frame.pixels)
        picture.pts = ticks
        picture.time_base = self._time_base
        try:
            # Sound and picture are written in step, by time. Otherwise they would lie far apart
            # in the file, and packets would pile up in memory.
            self._copies.copy_until(frame.time, self._container)
            self._mux(self._stream.encode(picture))
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error
        self.frames_written += 1

    def _ticks_shown(self, frame: Frame) -> int:
        """How long the last frame is shown; guessed where the source does not say."""
        duration = frame.duration
        if duration is None:
            duration = 1 / self._source.frame_rate if self._source.frame_rate else Fraction(1, 25)
        return max(1, round(duration / self._time_base))

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        """Write packets of which it is known how long they are shown; the others wait."""
        self._waiting += packets
        # Encoders do not all pass durations on, and MP4 needs that of the last frame.
        while self._waiting and self._waiting[0].pts in self._durations:
            packet = self._waiting.pop(0)
            packet.duration = self._durations.pop(packet.pts or 0)
            packet.dts = min(packet.pts or 0, self._next_decoding_time())
            self._container.mux(packet)

    def _next_decoding_time(self) -> int:
        """When the next packet is decoded: as many frames ahead as the encoder reorders.

        Derived here, because x265 gives random times to videos that are shorter than that.
        """
        place = self._packets_written - self._frames_reordered
        self._packets_written += 1
        return self._times[place] if place >= 0 else self._times[0] + place

    def _check_container(self, encoding: Encoding, plan: EncodingPlan) -> None:
        suffix = self._path.suffix.lower()
        if plan.encoder not in supported_codecs(suffix):
            raise OutputError(
                f"A {suffix} file cannot hold {encoding.codec} video; "
                "name the output .mkv instead, or choose another --codec."
            )
        self._copies.check(plan.encoder)

    def _open(self, plan: EncodingPlan) -> tuple[OutputContainer, VideoStream]:
        """Open the part file, announce all streams, and write the header."""
        try:
            # Opened here, so that the file is surely closed when it must be deleted.
            file = self._part.open("wb")
        except OSError as error:
            raise OutputError(
                f"No file can be written into {self._path.absolute().parent} ({error.strerror}); "
                "choose another folder."
            ) from error
        name = CONTAINERS[self._path.suffix.lower()]
        container = av.open(file, "w", format=name, container_options=self._options(name))
        try:
            stream = self._add_video(container, plan)
            self._copies.add_to(container, stream)
            container.start_encoding()
        except (av.FFmpegError, OSError, ValueError) as error:
            file.close()
            self._part.unlink()
            raise OutputError(
                f"The encoder {plan.encoder} or the container {self._path.suffix} refuses this "
                f"video ({_reason(error)}); try other settings, or name the output .mkv."
            ) from error
        return container, stream

    def _options(self, name: str) -> dict[str, str]:
        if name in ("mp4", "mov"):
            # They tell when streams begin in ticks of one clock; its usual 1000 would round.
            ticks = lcm(self._time_base.denominator, self._copies.ticks_per_second)
            if ticks > _MAX_TICKS_PER_SECOND:
                ticks = self._time_base.denominator
            return {"movie_timescale": str(ticks)}
        # "default" flags stay as they were, and sound that begins a little early, to prime its
        # decoder, does not move all streams.
        return {"default_mode": "passthrough", "avoid_negative_ts": "disabled"}

    def _add_video(self, container: OutputContainer, plan: EncodingPlan) -> VideoStream:
        stream = container.add_stream(
            plan.encoder,
            rate=self._source.frame_rate or 25,
            options=plan.options,
            width=self.shape.width,
            height=self.shape.height,
            pix_fmt=plan.pixel_format,
            time_base=self._time_base,
        )
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.thread_count = _THREADS
        is_mp4 = container.format.name in ("mp4", "mov")
        color = self._from_rgb.color
        context.colorspace = color.matrix
        context.color_range = color.range
        context.color_primaries = color.primaries
        context.color_trc = color.transfer
        if is_mp4 or container.format.name == "nut":
            # MP4 stores the steps between frames in the order of decoding. Where the steps vary
            # and frames are reordered, the length of the last frame, and of the track, is lost.
            # NUT loses all times when the first frame is to be decoded before time zero.
            context.max_b_frames = 0
        if self.shape.sample_aspect_ratio is not None:
            context.sample_aspect_ratio = self.shape.sample_aspect_ratio
        if is_mp4 and plan.codec == "hevc":
            context.codec_tag = "hvc1"  # Apple's players know no other tag
        if plan.codec in _QUANTIZER_CODECS:
            context.qscale = True
            context.global_quality = 3
        if self._source.display_matrix is not None:
            stream.set_display_matrix(_without_offset(self._source.display_matrix))
        return stream

    def _finish(self) -> None:
        if self.frames_written == 0:
            raise OutputError(f"There was no frame to write into {self._path}.")
        try:
            self._durations[self._times[-1]] = self._last_duration
            self._mux(self._stream.encode(None))
            self._copies.copy_until(None, self._container)
            self._close()
            prove(
                self._part,
                self._copies.promise(self._times, self._time_base, self._last_duration),
            )
            os.replace(self._part, self._path)
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _discard(self) -> None:
        try:
            self._close()
        except (av.FFmpegError, OSError):
            pass  # what cannot be completed is deleted anyway
        finally:
            self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        self._copies.close()
        try:
            self._container.close()
        finally:
            self._container.file.file.close()

    def _failure(self, error: Exception) -> OutputError:
        return OutputError(
            f"{self._path} could not be written ({_reason(error)}); "
            "make sure that the disk is not full."
        )


def _check_destination(path: Path, source: Path, *, overwrite: bool) -> None:
    if path.suffix.lower() not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        raise OutputError(
            f"{path.name} does not end in the name of a container that keeps the times of frames; "
            f"name the output with one of {known}."
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"The folder {folder} does not exist; make it, or choose another one.")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file.")
    if path.exists():
        if path.samefile(source):
            raise OutputError(f"{path} is the input itself; choose another name for the output.")
        if not overwrite:
            raise OutputError(f"{path} exists; choose another name, or give --overwrite.")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"No file can be written into {folder}; choose another folder.")


def _time_base(source: Fraction, shift: Fraction) -> Fraction:
    """The coarsest clock in which all times of the source, shifted, are whole numbers."""
    if shift % source == 0:
        return source
    ticks = lcm(source.denominator, shift.denominator)
    return Fraction(1, ticks) if ticks <= _MAX_TICKS_PER_SECOND else source


def _without_offset(display_matrix: tuple[int, ...]) -> tuple[int, ...]:
    """The turn alone; the offset that MP4 adds to it is in pixels of the smaller picture."""
    return (*display_matrix[:6], 0, 0, display_matrix[8])


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
