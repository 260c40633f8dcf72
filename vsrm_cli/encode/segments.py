"""Segments of an output's video, each a closed file, and how they are joined to the output.

Each segment is encoded by an encoder of its own, so it begins with a key frame and refers to
nothing outside. Its file keeps times exactly. The join copies the packets unchanged; only their
durations and decoding times are recomputed for the whole video.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import av
from av.packet import Packet
from av.video.stream import VideoStream

from vsrm_cli.encode.encoders import start_encoding
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.encode.writer import Segment
from vsrm_cli.errors import CheckFailed, OutputError
from vsrm_cli.frame import Frame
from vsrm_cli.media.containers import open_container, video_stream
from vsrm_cli.remux.stream_mapping import CONTAINERS

# Containers that keep times exactly, best supported ones first.
_CONTAINERS = ("mp4", "mov", "nut")
_FRAMES_TRIED = 2
# Limited range and dithering change gray by less; a wrong pixel format changes it by more.
_GRAY_TOLERANCE = 40


class SegmentWriter:
    """One segment while it is written.

    Attributes:
        path: The file.
        ticks: When its frames are shown so far, in ticks of the output's clock.
        end: Until when the last of them is shown.
    """

    def __init__(self, path: Path, output: SegmentedVideo) -> None:
        """Open the file and write its header.

        Args:
            path: Where to write, without the ending, which is chosen by the codec.
            output: The output of the segment.

        Raises:
            OutputError: If the folder cannot be written.
        """
        container = output.segment_container or output.choose_container()
        self.path = path.with_suffix(f".{container}")
        self.ticks: list[int] = []
        self.end = 0
        self._output = output
        self._packets_written = 0
        options = {"avoid_negative_ts": "disabled"}
        if container != "nut":
            options["movie_timescale"] = str(output.time_base.denominator)
        try:
            self._file = self.path.open("wb")
            self._container = av.open(self._file, "w", format=container, container_options=options)
            self._stream = output.track.add_encoder(self._container)
            start_encoding(self._container)
        except (av.FFmpegError, OSError) as error:
            raise output.failure(error) from error

    def write(self, frame: Frame) -> None:
        """Encode one frame; see `VideoWriter.write`."""
        av_frame = self._output.track.av_frame(frame)
        assert av_frame.pts is not None
        if self.ticks and av_frame.pts <= self.ticks[-1]:
            raise ValueError(f"times of frames must rise, got {frame.time} too late")
        self.ticks.append(av_frame.pts)
        self.end = av_frame.pts + self._output.track.ticks_shown(frame)
        try:
            self._mux(self._stream.encode(av_frame))
        except (av.FFmpegError, OSError) as error:
            raise self._output.failure(error) from error

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
            raise self._output.failure(error) from error

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            self._output.correct_decoding_time(packet, self.ticks, self._packets_written)
            self._packets_written += 1
            self._container.mux(packet)

    def abandon(self) -> None:
        """Close the file as it is, unfinished."""
        # An unfinished segment is discarded anyway. On a full disk, both calls fail.
        with suppress(av.FFmpegError, OSError):
            self._container.close()
        with suppress(OSError):
            self._file.close()


class SegmentedVideo(VideoWriter):
    """A video file that is joined from segments, with the sound and subtitles of the source.

    Attributes:
        segment_container: FFmpeg's name of the container of its segments, when it is known.
    """

    segment_container: str | None = None

    def choose_container(self) -> str:
        """Choose the container of the segments, by a trial in memory.

        Some frames are encoded into it, copied into a file like the output, and decoded from both.

        Returns:
            FFmpeg's name of the container, which is also set in the output.

        Raises:
            OutputError: If no container works: the output cannot hold such video.
        """
        self.segment_container = next((c for c in _CONTAINERS if _gives_back(c, self)), None)
        if self.segment_container is None:
            raise OutputError(
                f"{self.plan.encoder} video ({self.plan.pixel_format}) cannot be decoded from a "
                f"{self.path.suffix} file; choose another --codec, --pix-fmt or container."
            )
        return self.segment_container

    def open_segment(self, path: Path) -> SegmentWriter:
        """Open a segment; see `SegmentedWriter.open_segment`."""
        return SegmentWriter(path, self)

    def join(self, segments: Sequence[Segment], end: int) -> None:
        """Join segments to the output; see `SegmentedWriter.join`.

        Leaving the ``with`` statement then completes the file.
        """
        if missing := [segment.path for segment in segments if not segment.path.exists()]:
            raise OutputError(f"The segment {missing[0]} is missing; run the same command again.")
        reordered = max(_reordering(segment, self) for segment in segments)
        times = [tick for segment in segments for tick in segment.ticks]
        for number, (stream, packet) in enumerate(_packets(segments, self)):
            if number == 0:
                self.open_for(stream, times, end=end, frames_reordered=reordered)
            self.copy(packet)


def _packets(
    segments: Sequence[Segment], output: SegmentedVideo
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
                packet.pts = _ticks(packet, output)
                yield stream, packet


def _reordering(segment: Segment, output: SegmentedVideo) -> int:
    """By how many frames decoding is ahead of presentation in a segment.

    Raises:
        CheckFailed: If the segment holds other frames than it should.
    """
    with open_container(segment.path) as container:
        stream = video_stream(container, segment.path)
        # Times only: packets would keep their data in memory.
        found = [_ticks(packet, output) for packet in container.demux(stream) if packet.size]
    if sorted(found) != list(segment.ticks):
        raise CheckFailed(_broken(segment, "does not hold the frames that were written into it"))
    places = {tick: place for place, tick in enumerate(segment.ticks)}
    return max(number - places[tick] for number, tick in enumerate(found))


def _ticks(packet: Packet[VideoStream], output: SegmentedVideo) -> int:
    """The presentation time of a packet, in ticks of the output; -1 if between two."""
    assert packet.pts is not None
    ticks = packet.pts * packet.time_base / output.time_base
    return int(ticks) if ticks.denominator == 1 else -1


def _broken(segment: Segment, what: str) -> str:
    return f"The segment {segment.path} {what}; give --restart to start over."


def _gives_back(container: str, output: SegmentedVideo) -> bool:
    segment, copy = BytesIO(), BytesIO()
    options = {"avoid_negative_ts": "disabled"}
    try:
        with av.open(segment, "w", format=container, container_options=options) as trial:
            stream = output.track.add_encoder(trial)
            start_encoding(trial)
            blanks = [output.track.blank(number) for number in range(_FRAMES_TRIED)]
            ticks = [blank.pts or 0 for blank in blanks]
            packets = [packet for blank in (*blanks, None) for packet in stream.encode(blank)]
            for place, packet in enumerate(packets):
                output.correct_decoding_time(packet, ticks, place)
                trial.mux(packet)
        segment.seek(0)
        name = CONTAINERS[output.path.suffix.lower()]
        with (
            av.open(segment, "r") as source,
            av.open(copy, "w", format=name, container_options=options) as trial,
        ):
            target = output.track.add_finished(trial, source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.size:
                    packet.stream, packet.dts = target, packet.pts  # as few have no other order
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
