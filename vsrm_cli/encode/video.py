"""Writes a video file: each frame at its time, with the sound and subtitles of the source.

An output appears under its name only when it is complete; until then it is a hidden file beside it.
Options that cannot work are refused before the first frame. The video is encoded here, or joined
from segments (see `segments`).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vsrm_cli.encode.encoders import MAKERS, start_encoding
from vsrm_cli.encode.video_target import VideoTarget, error_text
from vsrm_cli.encode.video_track import decoding_time
from vsrm_cli.errors import OutputError
from vsrm_cli.files import flush_and_rename
from vsrm_cli.frame import Frame
from vsrm_cli.remux.verify import verify_file


@dataclass(frozen=True)
class EncodedVideo:
    """A video that is copied from segments.

    Attributes:
        stream: A stream of the segments.
        times: When each frame is shown, rising, in ticks of the output's clock.
        end: Until when the last one is shown.
        frames_reordered: By how many frames decoding is ahead of presentation.
    """

    stream: VideoStream
    times: Sequence[int]
    end: int
    frames_reordered: int


class VideoWriter:
    """One output file; see `DirectWriter`.

    Leaving its ``with`` statement normally completes the file under its name; leaving it by an
    exception deletes what was written.

    Attributes:
        path: The file.
    """

    def __init__(self, target: VideoTarget, *, encoded: EncodedVideo | None = None) -> None:
        """Open the file and write the header.

        Args:
            target: The file.
            encoded: The video that `copy` will write; by default `write` encodes frames.

        Raises:
            OutputError: If the output cannot be written with these options.
        """
        self.path, self.plan = target.path, target.plan
        self.shape, self.shown_shape = target.track.shape, target.shown_shape
        self.frames_written = 0
        self._target, self._track = target, target.track
        self._times = array("q")
        self._durations: dict[int, int] = {}
        self._last_duration = 1
        if encoded is not None:
            self._times.extend(encoded.times)
            steps = pairwise([*encoded.times, encoded.end])
            self._durations = {tick: after - tick for tick, after in steps}
            self._last_duration = self._durations[encoded.times[-1]]
        self._waiting: list[Packet[VideoStream]] = []
        self._packets_written = 0
        self._copies = target.open_copies()
        try:
            self._container, self._stream = self._open(encoded)
        except BaseException:
            self._copies.close()
            raise
        stated = self._track.frames_reordered(self._stream)
        self._frames_reordered = encoded.frames_reordered if encoded else stated
        self.kept = tuple(self._copies.kept)
        self.dropped = (*self._copies.dropped, *target.lost)

    @property
    def warnings(self) -> list[str]:
        """What could not be kept as it was, in sentences; complete when the file is."""
        return self._copies.warnings

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, /, *rest: object) -> None:
        """Complete and verify the file, or delete it after an exception."""
        if kind is not None:
            self.discard()
            return
        try:
            self._complete()
        except BaseException:
            self.discard()
            raise

    def write(self, frame: Frame) -> None:
        """Encode one frame.

        Args:
            frame: Resampled to the size of the output if needed; its time is kept, less the start.

        Raises:
            OutputError: If the disk is full, or the encoder fails.
            ValueError: If the time is not later than the last one.
        """
        ticks = self._track.ticks_of(frame.time)
        if self._times and ticks <= self._times[-1]:
            raise ValueError(f"times of frames must rise, got {frame.time} too late")
        av_frame = self._track.av_frame(frame)
        self._times.append(ticks)
        # A frame is shown until the next one, whatever its own duration is.
        for before, after in pairwise(self._times[-2:]):
            self._durations[before] = after - before
        self._last_duration = self._track.ticks_shown(frame)
        try:
            # Sound and video are interleaved by time. Otherwise they would be far apart in the
            # file, and packets would pile up in memory.
            self._copies.copy_until(frame.time, self._container)
            self._mux(self._stream.encode(av_frame))
        except (av.FFmpegError, OSError) as error:
            raise self._target.failure(error) from error
        self.frames_written += 1

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        """Write packets whose duration is known; the others wait."""
        self._waiting += packets
        # Not all encoders pass durations on, and MP4 needs that of the last frame.
        while self._waiting and self._waiting[0].pts in self._durations:
            packet = self._waiting.pop(0)
            packet.duration = self._durations.pop(packet.pts or 0)
            # Segments are encoded apart; their decoding times run backwards at some joints.
            place, reordered = self._packets_written, self._frames_reordered
            decoded_at = decoding_time(self._times, place, reordered=reordered)
            packet.dts = min(packet.pts or 0, decoded_at)
            self._packets_written += 1
            self._container.mux(packet)

    def copy(self, packet: Packet[VideoStream]) -> None:
        """Write an encoded packet, its time in ticks, and the sound up to that time.

        Raises:
            OutputError: If the disk is full.
        """
        packet.stream = self._stream
        packet.time_base = self._track.time_base
        assert packet.pts is not None
        try:
            time = packet.pts * self._track.time_base + self._track.shift
            self._copies.copy_until(time, self._container)
            self._mux([packet])
        except (av.FFmpegError, OSError) as error:
            raise self._target.failure(error) from error
        self.frames_written += 1

    def _open(self, encoded: EncodedVideo | None) -> tuple[OutputContainer, VideoStream]:
        """Open the part file, announce all streams, and write the header."""
        try:
            # Opened here, so that the file is closed when it must be deleted. By its whole
            # path: to move the index, FFmpeg opens it again, and takes "a:b" for a protocol.
            file = self._target.part.absolute().open("wb")
        except OSError as error:
            raise OutputError(
                f"No file can be written into {self.path.absolute().parent} ({error.strerror}); "
                "choose another folder."
            ) from error
        name, options = self._target.container, self._target.muxer_options(self._copies)
        container = av.open(file, "w", format=name, container_options=options)
        try:
            if encoded is None:
                stream = self._track.add_encoder(container)
            else:
                stream = self._track.add_finished(container, encoded.stream)
            self._copies.add_to(container, stream)
            start_encoding(container)
        except (av.FFmpegError, OSError, ValueError) as error:
            file.close()
            self._target.part.unlink()
            if self.plan.encoder.endswith(tuple(MAKERS)):
                raise OutputError(
                    f"The hardware encoder {self.plan.encoder} cannot be opened here "
                    f"({error_text(error)}); `vsrm doctor` lists those that can. --hwaccel auto "
                    "takes software instead."
                ) from error
            raise OutputError(
                f"The encoder {self.plan.encoder} or the container {self.path.suffix} refuses "
                f"this video ({error_text(error)}); try other settings, or name the output .mkv."
            ) from error
        return container, stream

    def _complete(self) -> None:
        """Finish and verify the file, and give it its name.

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
            self._copies.correct(self._target.part)
            expected = self._copies.expected(
                self._times, self._track.time_base, self._last_duration
            )
            verify_file(self._target.part, expected)
            flush_and_rename(self._target.part, self.path)
        except OSError as error:
            raise self._target.failure(error) from error

    def discard(self) -> None:
        """Close the file and delete it."""
        try:
            self._close()
        except (av.FFmpegError, OSError):
            pass  # what cannot be completed is deleted anyway
        finally:
            self._target.part.unlink(missing_ok=True)

    def _close(self) -> None:
        self._copies.close()
        try:
            self._container.close()
        finally:
            self._container.file.file.close()
