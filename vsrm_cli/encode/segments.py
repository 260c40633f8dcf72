"""Segments of an output's video, each a closed file, and how they are joined to the output.

Each segment is encoded by an encoder of its own, so it begins with a key frame and refers to
nothing outside. Its file keeps times exactly. The join copies the packets unchanged; only their
durations and decoding times are recomputed for the whole video.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Self

import av
from av.packet import Packet
from av.video.stream import VideoStream

from vsrm_cli.encode.encoders import start_encoding
from vsrm_cli.encode.video import EncodedVideo, VideoWriter
from vsrm_cli.encode.video_target import VideoTarget
from vsrm_cli.encode.writer import Segment
from vsrm_cli.errors import CheckFailed, OutputError
from vsrm_cli.frame import Frame
from vsrm_cli.media.containers import open_container, video_stream

# Containers that keep times exactly, best supported ones first.
_CONTAINERS = ("mp4", "mov", "nut")
_FRAMES_TRIED = 2
# Limited range and dithering change gray by less; a wrong pixel format changes it by more.
_GRAY_TOLERANCE = 40


class SegmentedVideo:
    """A video file that is joined from segments, with the sound and subtitles of the source.

    Leaving the statement after `join` completes the file under its name; an exception, or leaving
    it earlier, leaves no file.

    Attributes:
        target: The file.
        segment_container: FFmpeg's name of the container of its segments, chosen by a trial.

    For the others see `SegmentedWriter`.
    """

    def __init__(self, target: VideoTarget) -> None:
        """Try to open the file, and to encode a segment.

        Raises:
            OutputError: If the output cannot be written with these options.
        """
        trial = VideoWriter(target)
        trial.discard()
        self.target = target
        self.path, self.plan, self.shape = trial.path, trial.plan, trial.shape
        self.kept, self.dropped = trial.kept, trial.dropped
        self.shown_shape = trial.shown_shape
        self.segment_container = choose_container(target)
        self._file: VideoWriter | None = None

    @property
    def frames_written(self) -> int:
        """Frames that have been joined."""
        return self._file.frames_written if self._file else 0

    @property
    def warnings(self) -> list[str]:
        """What could not be kept as it was, in sentences; complete when the file is."""
        return self._file.warnings if self._file else []

    def __enter__(self) -> Self:
        """Return the output itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, /, *rest: object) -> None:
        """Complete and verify the file, or delete it after an exception."""
        if self._file is not None:
            self._file.__exit__(kind, *rest)

    def open_segment(self, path: Path, container: str) -> SegmentWriter:
        """Open a segment; see `SegmentedWriter.open_segment`."""
        return SegmentWriter(path, self.target, container)

    def join(self, segments: Sequence[Segment], end: int) -> None:
        """Join segments to the output; see `SegmentedWriter.join`."""
        if missing := [segment.path for segment in segments if not segment.path.exists()]:
            raise OutputError(f"The segment {missing[0]} is missing; run the same command again.")
        clock = self.target.track.time_base
        reordered = max(_reordering(segment, clock) for segment in segments)
        times = [tick for segment in segments for tick in segment.ticks]
        for stream, packet in _packets(segments, clock):
            if self._file is None:
                encoded = EncodedVideo(stream, times, end, reordered)
                self._file = VideoWriter(self.target, encoded=encoded)
            self._file.copy(packet)


class SegmentWriter:
    """One segment while it is written; see `SegmentFile`."""

    def __init__(self, path: Path, target: VideoTarget, container: str) -> None:
        """Open the file and write its header.

        Args:
            path: Where to write, without the ending.
            target: The output of the segment.
            container: FFmpeg's name of the container of the segment.

        Raises:
            OutputError: If the folder cannot be written.
        """
        self.path = path.with_suffix(f".{container}")
        self.ticks: list[int] = []
        self.end = 0
        self._target = target
        self._packets_written = 0
        options = {"avoid_negative_ts": "disabled"}
        if container != "nut":
            options["movie_timescale"] = str(target.track.time_base.denominator)
        try:
            self._file = self.path.open("wb")
            self._container = av.open(self._file, "w", format=container, container_options=options)
            self._stream = target.track.add_encoder(self._container)
            start_encoding(self._container)
        except (av.FFmpegError, OSError) as error:
            raise target.failure(error) from error

    def write(self, frame: Frame) -> None:
        """Encode one frame; see `VideoWriter.write`."""
        av_frame = self._target.track.av_frame(frame)
        assert av_frame.pts is not None
        if self.ticks and av_frame.pts <= self.ticks[-1]:
            raise ValueError(f"times of frames must rise, got {frame.time} too late")
        self.ticks.append(av_frame.pts)
        self.end = av_frame.pts + self._target.track.ticks_shown(frame)
        try:
            self._mux(self._stream.encode(av_frame))
        except (av.FFmpegError, OSError) as error:
            raise self._target.failure(error) from error

    def close(self) -> None:
        """Complete the file, and wait until it is on the disk.

        Raises:
            OutputError: If the disk is full.
        """
        try:
            self._mux(self._stream.encode(None))
            self._container.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except (av.FFmpegError, OSError) as error:
            raise self._target.failure(error) from error

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            self._target.track.correct_decoding_time(
                packet, self._stream, self.ticks, self._packets_written
            )
            self._packets_written += 1
            self._container.mux(packet)

    def abandon(self) -> None:
        """Close the file as it is, unfinished."""
        # An unfinished segment is discarded anyway. On a full disk, both calls fail.
        with suppress(av.FFmpegError, OSError):
            self._container.close()
        with suppress(OSError):
            self._file.close()


def _packets(
    segments: Sequence[Segment], clock: Fraction
) -> Iterator[tuple[VideoStream, Packet[VideoStream]]]:
    """Read the packets of all segments, with presentation times in ticks of the output's clock.

    Raises:
        CheckFailed: If one decoder cannot decode all segments.
    """
    extradata: bytes | None = None
    for number, segment in enumerate(segments):
        with open_container(segment.path) as container:
            stream = video_stream(container, segment.path)
            if number == 0:
                extradata = stream.codec_context.extradata
            if stream.codec_context.extradata != extradata:
                raise CheckFailed(_broken(segment, "is encoded in another way than the others"))
            packets = (packet for packet in container.demux(stream) if packet.size)
            for place, packet in enumerate(packets):
                if place == 0 and not packet.is_keyframe:
                    raise CheckFailed(_broken(segment, "does not begin with a key frame"))
                packet.pts = _ticks(packet, clock)
                yield stream, packet


def _reordering(segment: Segment, clock: Fraction) -> int:
    """By how many frames decoding is ahead of presentation in a segment.

    Raises:
        CheckFailed: If the segment holds other frames than it should.
    """
    with open_container(segment.path) as container:
        stream = video_stream(container, segment.path)
        # Times only: packets would keep their data in memory.
        found = [_ticks(packet, clock) for packet in container.demux(stream) if packet.size]
    if sorted(found) != list(segment.ticks):
        raise CheckFailed(_broken(segment, "does not hold the frames that were written into it"))
    places = {tick: place for place, tick in enumerate(segment.ticks)}
    return max(number - places[tick] for number, tick in enumerate(found))


def _ticks(packet: Packet[VideoStream], clock: Fraction) -> int:
    """The presentation time of a packet, in ticks of the output; -1 if between two."""
    assert packet.pts is not None
    ticks = packet.pts * packet.time_base / clock
    return int(ticks) if ticks.denominator == 1 else -1


def _broken(segment: Segment, what: str) -> str:
    return f"The segment {segment.path} {what}; give --restart to start over."


def choose_container(target: VideoTarget) -> str:
    """Choose the container of the segments of an output, by a trial in memory.

    Some frames are encoded into it, copied into a file like the output, and decoded from both.

    Returns:
        FFmpeg's name of the container.

    Raises:
        OutputError: If no container works: the output cannot hold such video.
    """
    container = next((name for name in _CONTAINERS if _gives_back(name, target)), None)
    if container is None:
        raise OutputError(
            f"{target.plan.encoder} video ({target.plan.pixel_format}) cannot be decoded from a "
            f"{target.path.suffix} file; choose another --codec, --pix-fmt or container."
        )
    return container


def _gives_back(container: str, target: VideoTarget) -> bool:
    segment, copy = BytesIO(), BytesIO()
    options = {"avoid_negative_ts": "disabled"}
    try:
        with av.open(segment, "w", format=container, container_options=options) as trial:
            stream = target.track.add_encoder(trial)
            start_encoding(trial)
            blanks = [target.track.blank(number) for number in range(_FRAMES_TRIED)]
            ticks = [blank.pts or 0 for blank in blanks]
            packets = [packet for blank in (*blanks, None) for packet in stream.encode(blank)]
            for place, packet in enumerate(packets):
                target.track.correct_decoding_time(packet, stream, ticks, place)
                trial.mux(packet)
        segment.seek(0)
        with (
            av.open(segment, "r") as source,
            av.open(copy, "w", format=target.container, container_options=options) as trial,
        ):
            video = target.track.add_finished(trial, source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.size:
                    packet.stream, packet.dts = video, packet.pts  # as few have no other order
                    trial.mux(packet)
        return _is_blank(segment) and _is_blank(copy)
    except (av.FFmpegError, ValueError, IndexError):
        return False


def _is_blank(file: BytesIO) -> bool:
    """Whether a file decodes to the frames of the trial."""
    file.seek(0)
    with av.open(file, "r") as container:
        grays = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    return len(grays) == _FRAMES_TRIED and all(abs(g - 128) < _GRAY_TOLERANCE for g in grays)
