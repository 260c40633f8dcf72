"""A job's way from frames read to segments on disk, such that it can go on behind each of them.

What a segment shows follows from the input, the numbers of its frames, and the settings, and from
nothing else. So a job that was interrupted begins again behind its last finished segment: it
reads the few frames before it (the margin) once more, for the window that fades into the next.
"""

import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Self

from vsrm_cli.errors import CheckFailed, InputError
from vsrm_cli.frame import Frame
from vsrm_cli.journal import Entry, Journal, Stamp
from vsrm_cli.media.pictures import PictureReader, PictureSegment, PictureWriter, is_sequence
from vsrm_cli.media.reader import VideoReader
from vsrm_cli.media.segments import SegmentWriter
from vsrm_cli.media.writer import VideoWriter
from vsrm_cli.media.y4m import PipeReader
from vsrm_cli.restore import Restorer
from vsrm_cli.tiling import Cut

# The name that stands for standard input, or output.
PIPE = Path("-")
# Work that a segment should hold at most. A crash may come just before it is closed, and the
# first window, by which the speed is judged, may have been a quick one: so it is half a minute
# where a whole one may be lost.
SEGMENT_SECONDS = 30.0
MAX_WINDOWS = 64


@dataclass(frozen=True)
class Sighting:
    """A frame that has been read.

    Attributes:
        number: Its place in the video.
        time: When it is shown, in seconds on the clock of its file.
        begins_shot: Whether it shows another scene than the frame before it.
        stamp: What is remembered of it.
        damaged: Damaged pieces met in the file so far.
    """

    number: int
    time: Fraction
    begins_shot: bool
    stamp: Stamp
    damaged: int


class Source:
    """The frames of a job, from the first or from behind a finished segment.

    Attributes:
        path: The file; or a folder or pattern of pictures; or `PIPE`.
        info: What the file says about itself.
        frames_read: Frames of the job up to the latest one that was read.
        sightings: The frames read lately, in order; whoever needs them takes them away.
    """

    def __init__(
        self,
        path: Path,
        *,
        start: Fraction | None,
        end: Fraction | None,
        deinterlace: bool = False,
        rate: Fraction = Fraction(25),
        uses_hardware: bool = False,
        is_watched: bool = True,
    ) -> None:
        """Look at the input; see the readers for errors and the other arguments.

        Args:
            path: The file; or a folder or pattern of pictures; or `PIPE`.
            start: Where to begin.
            end: Where to stop.
            deinterlace: Whether to make whole frames of interlaced ones.
            rate: Frames per second of pictures.
            uses_hardware: Whether to decode in graphics hardware, where it does that right.
            is_watched: Whether somebody takes the sightings; else they are not kept.
        """
        self.path = path
        self._start = start
        self._end = end
        self._deinterlace = deinterlace
        self._rate = rate
        self._uses_hardware = uses_hardware
        self._reader = self._read_from(start)
        self._damaged_before = 0
        self.info = self._reader.info
        self.frames_read = 0
        self.sightings: deque[Sighting] = deque(maxlen=None if is_watched else 0)

    @property
    def notices(self) -> Sequence[str]:
        """What is uncertain of the video, or must be changed, in sentences."""
        return self._reader.notices

    @property
    def picture_names(self) -> Sequence[str]:
        """Names of the pictures that it reads; none if it reads a video."""
        return self._reader.names if isinstance(self._reader, PictureReader) else ()

    @property
    def decoder(self) -> str:
        """What decodes: "software", or FFmpeg's name of the interface to hardware."""
        return getattr(self._reader, "hardware", None) or "software"

    @property
    def resized_frames(self) -> int:
        """Frames of another size than the first, as far as this run has read them."""
        return self._reader.resized_frames

    @property
    def reshaped_frames(self) -> int:
        """Frames whose pixels have another shape than those of the first, likewise."""
        return self._reader.reshaped_frames

    @property
    def damaged_packets(self) -> int:
        """Damaged pieces met in the file, up to the latest frame."""
        return self._damaged_before + self._reader.damaged_packets

    @property
    def truncated(self) -> bool:
        """Whether the tail of the file is missing, or damage was met on the way."""
        return self._reader.truncated or self.damaged_packets > 0

    def __enter__(self) -> Self:
        """Return the source itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._reader.close()

    def frames(self, *, behind: Entry | None) -> Iterator[Frame]:
        """Read the frames in order.

        Args:
            behind: Begin with the margin of this segment, instead of the first frame. If nothing
                lies behind it, there is nothing to do, and the margin is not given either.

        Raises:
            InputError: If no frame can be read, or not those that were read before.
        """
        if behind is None:
            yield from self._seen(self._reader, first=0)
            return
        margin, rest = self._margin_by_jump(behind) or self._margin_by_count(behind)
        after = next(rest, None)
        if after is None:
            self.frames_read = behind.next
        else:
            first = behind.next - len(margin)
            yield from self._seen(chain(margin, [after], rest), first=first)

    def _seen(self, frames: Iterable[Frame], *, first: int) -> Iterator[Frame]:
        for number, frame in enumerate(frames, first):
            self.frames_read = number + 1
            stamp = stamp_of(frame)
            self.sightings.append(
                Sighting(number, frame.time, frame.begins_shot, stamp, self.damaged_packets)
            )
            yield frame

    def _read_from(self, start: Fraction | None) -> VideoReader | PictureReader | PipeReader:
        if self.path == PIPE:
            return PipeReader(sys.stdin.buffer, start=start, end=self._end)
        if is_sequence(self.path):
            return PictureReader(self.path, start=start, end=self._end, rate=self._rate)
        return VideoReader(
            self.path,
            start=start,
            end=self._end,
            deinterlace=self._deinterlace,
            uses_hardware=self._uses_hardware,
        )

    def _margin_by_jump(self, entry: Entry) -> tuple[list[Frame], Iterator[Frame]] | None:
        """Find the margin by its time; None where jumps into the file lead to other pictures."""
        start = Fraction(entry.margin[0].time) - self.info.start
        self._damaged_before = entry.damaged
        self._reader = self._read_from(start)
        frames = iter(self._reader)
        try:
            margin = list(islice(frames, len(entry.margin)))
        except InputError:
            margin = []
        if [stamp_of(frame) for frame in margin] == entry.margin:
            return margin, frames
        self._reader.close()
        return None

    def _margin_by_count(self, entry: Entry) -> tuple[list[Frame], Iterator[Frame]]:
        """Find the margin by reading from the beginning."""
        self._damaged_before = 0
        self._reader = self._read_from(self._start)
        frames = iter(self._reader)
        first = entry.next - len(entry.margin)
        margin = list(islice(frames, first, entry.next))
        if [stamp_of(frame) for frame in margin] != entry.margin:
            raise InputError(
                f"{self.path} gives other pictures now than when the work began; give --restart "
                "to begin again."
            )
        return margin, frames


@dataclass(frozen=True)
class Restored:
    """A frame on its way to a segment.

    Attributes:
        frame: The frame.
        ends_segment: Whether it is the last of its segment.
        tile: Side of the tiles that it was made of; None for a whole picture.
    """

    frame: Frame
    ends_segment: bool
    tile: int | None


class Segmenter:
    """Decides where segments end: with the first window that fills them up to so many frames.

    That does not depend on when a job was interrupted, so neither does what is encoded.

    Attributes:
        frames: Frames of a segment, at least; None until a window has been measured. That is the
            second one: with the first, much is compiled and allocated.
        is_stopped: Whether the work has ended with a segment because it was asked to.
    """

    def __init__(self, stride: int, *, frames: int | None, first: int) -> None:
        """Prepare for the frames from number `first` on, of windows that give `stride` each."""
        self.frames = frames
        self.is_stopped = False
        self._stride = stride
        self._first = first

    def cut(
        self,
        restored: Iterable[Frame],
        *,
        state: Restorer,
        should_stop: Callable[[], bool],
    ) -> Iterator[Restored]:
        """Pass frames on, each with its place in the segments.

        Args:
            restored: The frames.
            state: What gives them, one after another.
            should_stop: Asked behind each segment; a yes ends the work there.
        """
        first = window = self._first
        began = time.perf_counter()
        for following, frame in enumerate(restored, first + 1):
            is_end = False
            if state.is_between_windows:
                seconds = time.perf_counter() - began
                if self.frames is None and window > self._first:
                    self.frames = self.frames_at(seconds / (following - window))
                if self.frames is None:
                    is_end = seconds > SEGMENT_SECONDS
                else:
                    is_end = following - first >= self.frames
                window, began = following, time.perf_counter()
            yield Restored(frame, is_end, state.tile)
            if is_end:
                first = following
                self.is_stopped = should_stop()
                if self.is_stopped:
                    return

    def frames_at(self, seconds_per_frame: float) -> int:
        """Choose the length of segments by the time that a frame takes.

        Powers of two, so that a little more or less of time seldom makes another choice.
        """
        windows = 1
        while (
            2 * windows * self._stride * seconds_per_frame <= SEGMENT_SECONDS
            and windows < MAX_WINDOWS
        ):
            windows *= 2
        return windows * self._stride


class Recorder:
    """Writes restored frames into segments, and closed segments into the journal.

    Attributes:
        frames_written: Frames of the job in segments, those of earlier runs included.
    """

    def __init__(
        self, journal: Journal, source: Source, output: VideoWriter | PictureWriter, windows: Cut
    ) -> None:
        """Prepare to go on behind the last entry of the journal."""
        self.frames_written = journal.frames_done
        self._journal = journal
        self._source = source
        self._output = output
        self._windows = windows
        self._segment: SegmentWriter | PictureSegment | None = None
        self._seen: list[Sighting] = []
        self._shot = journal.entries[-1].shot if journal.entries else 0
        self._tile: int | None = None

    def write(self, restored: Restored) -> None:
        """Write a frame, and close its segment behind the last one.

        Raises:
            OutputError: If the disk is full.
            CheckFailed: If frames were written at other times than they were read at.
        """
        if self._segment is None:
            path = self._journal.folder / f"{self.frames_written:09}"
            if isinstance(self._output, PictureWriter):
                self._segment = PictureSegment(path, self._output)
            else:
                self._segment = SegmentWriter(path, self._output)
        self._segment.write(restored.frame)
        self.frames_written += 1
        self._tile = restored.tile
        if restored.ends_segment:
            self._close(self._segment)

    def finish(self) -> None:
        """Close the last segment; raises as `write` does."""
        check_counts(read=self._source.frames_read, written=self.frames_written)
        if self._segment is not None:
            self._close(self._segment)

    def abandon(self) -> None:
        """Give up the segment that is not closed."""
        if self._segment is not None:
            self._segment.abandon()

    def _close(self, segment: SegmentWriter | PictureSegment) -> None:
        first = self.frames_written - len(segment.ticks)
        self._look_back()
        margin_start = self._shot + self._windows.margin_start(self.frames_written - self._shot)
        read = [self._output.ticks_of(seen.time) for seen in self._seen if seen.number >= first]
        if read != segment.ticks:
            raise CheckFailed(
                f"The frames {first} to {self.frames_written - 1} were not written at the times "
                "they were read at; this is a bug in vsrm, please report it."
            )
        segment.close()
        self._journal.add(
            Entry(
                file=segment.path.name,
                first=first,
                shot=self._shot,
                ticks=segment.ticks,
                end=segment.end,
                tile=self._tile,
                damaged=self._seen[-1].damaged,
                margin=[seen.stamp for seen in self._seen if seen.number >= margin_start],
            )
        )
        self._segment = None
        # Only the next margin may reach back behind the next segment.
        self._seen = [seen for seen in self._seen if seen.number >= margin_start]

    def _look_back(self) -> None:
        """Collect the sightings of all frames up to the last one written."""
        sightings = self._source.sightings
        while sightings and sightings[0].number < self.frames_written:
            seen = sightings.popleft()
            if seen.begins_shot:
                self._shot = seen.number
            self._seen.append(seen)


def stamp_of(frame: Frame) -> Stamp:
    """Say what is remembered of a frame: enough to know that it was decoded the same again."""
    return Stamp(str(frame.time), zlib.crc32(frame.pixels.data))


def check_counts(*, read: int, written: int) -> None:
    """Compare what went in with what came out.

    Raises:
        CheckFailed: If frames were lost or added on the way.
    """
    if written != read:
        raise CheckFailed(
            f"{read} frames were read, but {written} written, so the result was not kept; "
            "this is a bug in vsrm, please report it."
        )
