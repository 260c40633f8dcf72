"""Restored frames become segments on disk, and closed segments entries of the journal."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

from vsrm_cli.encode.image_sequence import ImageSegment, ImageSequenceWriter
from vsrm_cli.encode.segments import Segment, SegmentWriter, join
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.errors import CheckFailed
from vsrm_cli.frame import Fingerprint, Frame
from vsrm_cli.inference.tiling import Chunking
from vsrm_cli.upscale.journal import Entry, Journal, ResumePoint
from vsrm_cli.upscale.open_media import Collected

# Work that a segment should hold at most. A crash may come just before it is closed, and the
# first window, by which the speed is judged, may have been a quick one: so it is half a minute
# where a whole one may be lost.
SEGMENT_SECONDS = 30.0
MAX_WINDOWS = 64
# Windows of a segment on several devices, where the user does not say: known before any speed is,
# and each segment reads one window twice.
PLANNED_WINDOWS = 16


@dataclass(frozen=True)
class Restored:
    """A frame on its way to a segment.

    Attributes:
        frame: The frame.
        ends_segment: Whether it is the last of its segment.
    """

    frame: Frame
    ends_segment: bool


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
        should_stop: Callable[[], bool],
    ) -> Iterator[Restored]:
        """Pass frames on, each with its place in the segments.

        Args:
            restored: The frames.
            should_stop: Asked behind each segment; a yes ends the work there.
        """
        first = window = self._first
        began = time.perf_counter()
        for following, frame in enumerate(restored, first + 1):
            is_end = False
            if frame.ends_window:
                seconds = time.perf_counter() - began
                if self.frames is None and window > self._first:
                    self.frames = self.frames_at(seconds / (following - window))
                if self.frames is None:
                    is_end = seconds > SEGMENT_SECONDS
                else:
                    is_end = following - first >= self.frames
                window, began = following, time.perf_counter()
            yield Restored(frame, is_end)
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


@dataclass(frozen=True)
class PlannedSegment:
    """A segment before it is made: all that a device must know to make it.

    Attributes:
        first: Number of its first frame.
        stop: One past the number of its last frame.
        read_stop: One past the last frame that must be read for it.
        behind: Where it begins; None for the first frame of the video.
        ahead: Where what follows it begins.
    """

    first: int
    stop: int
    read_stop: int
    behind: ResumePoint | None
    ahead: ResumePoint


def plan_segments(
    frames: Iterable[Frame], windows: Chunking, *, length: int, behind: Entry | None
) -> list[PlannedSegment]:
    """Say where all segments of a video end, as `Segmenter` would while they are made.

    Args:
        frames: Of the video, with their records; from the margin of ``behind`` on.
        windows: How a shot is cut along time.
        length: Frames of a segment, at least.
        behind: The segment behind which to begin; None for the first frame.
    """
    first = behind.next if behind else 0
    shots = [behind.shot if behind else 0]
    stamps: dict[int, Fingerprint] = {}
    damaged: dict[int, int] = {}
    total = first
    for frame in frames:
        record = frame.record
        assert record is not None
        stamps[record.number], damaged[record.number] = record.stamp, record.damaged
        total = record.number + 1
        if frame.begins_shot and record.number >= first:
            shots.append(record.number)
    place = None if behind is None else _resume_point(behind)
    segments = []
    for stop, read_stop, shot in _ends(shots, total, windows):
        if stop <= first or (stop - first < length and stop < total):
            continue
        margin = range(shot + windows.margin_start(stop - shot), stop)
        ahead = ResumePoint(stop, shot, damaged[stop - 1], [stamps[n] for n in margin])
        segments.append(PlannedSegment(first, stop, read_stop, place, ahead))
        first, place = stop, ahead
    return segments


def _resume_point(entry: Entry) -> ResumePoint:
    return ResumePoint(entry.next, entry.shot, entry.damaged, entry.margin)


def _ends(shots: Sequence[int], total: int, windows: Chunking) -> Iterator[tuple[int, int, int]]:
    """Where each window's frames end, up to where it must be read, and the start of its shot."""
    for shot, end in pairwise(chain(shots, [total])):
        for chunk in windows.chunks(end - shot):
            # A window is known not to be the last of its shot by the frame behind it.
            yield shot + chunk.keep_stop - chunk.fall, min(shot + chunk.stop + 1, total), shot


class Recorder:
    """Writes restored frames into segments, and closed segments into the journal.

    Attributes:
        frames_written: Frames of the job in segments, those of earlier runs included.
    """

    def __init__(
        self,
        output: VideoWriter | ImageSequenceWriter,
        windows: Chunking,
        *,
        folder: Path,
        behind: Entry | ResumePoint | None,
        add: Callable[[Entry], None],
    ) -> None:
        """Prepare to write.

        Args:
            output: What the segments are pieces of.
            windows: How a shot is cut along time.
            folder: Where the segments go.
            behind: Go on behind this segment; None begins with the first frame.
            add: Given the entry of each segment when it is closed.
        """
        self.frames_written = behind.next if behind else 0
        self._output = output
        self._windows = windows
        self._folder = folder
        self._add = add
        self._segment: SegmentWriter | ImageSegment | None = None
        self._shot = behind.shot if behind else 0
        self._tile: int | None = None
        self._damaged = 0
        margin = behind.margin if behind else []
        # The frames written lately, by number: with the last of them a resumed job begins.
        self._stamps = dict(enumerate(margin, self.frames_written - len(margin)))

    def write(self, restored: Restored) -> None:
        """Write a frame, and close its segment behind the last one.

        Raises:
            OutputError: If the disk is full.
            CheckFailed: If it is not the frame that was read next, at the time it was read at.
        """
        frame = restored.frame
        record = frame.record
        assert record is not None
        if (record.number, record.stamp.time) != (self.frames_written, str(frame.time)):
            raise CheckFailed(
                f"The frame {record.number}, read at {record.stamp.time} s, came back as the frame "
                f"{self.frames_written} at {frame.time} s; this is a bug in vsrm, please report it."
            )
        if self._segment is None:
            path = self._folder / f"{self.frames_written:09}"
            if isinstance(self._output, ImageSequenceWriter):
                self._segment = ImageSegment(path, self._output)
            else:
                self._segment = SegmentWriter(path, self._output)
        self._segment.write(frame)
        self.frames_written += 1
        self._stamps[record.number] = record.stamp
        if frame.begins_shot:
            self._shot = record.number
        self._tile, self._damaged = frame.tile, record.damaged
        if restored.ends_segment:
            self._close(self._segment)

    def finish(self, *, frames_read: int) -> None:
        """Close the last segment, if so many frames were read; raises as `write` does."""
        check_counts(read=frames_read, written=self.frames_written)
        if self._segment is not None:
            self._close(self._segment)

    def abandon(self) -> None:
        """Give up the segment that is not closed."""
        if self._segment is not None:
            self._segment.abandon()

    def _close(self, segment: SegmentWriter | ImageSegment) -> None:
        first = self.frames_written - len(segment.ticks)
        margin_start = self._shot + self._windows.margin_start(self.frames_written - self._shot)
        # Only the next margin may reach back behind the next segment.
        self._stamps = {n: stamp for n, stamp in self._stamps.items() if n >= margin_start}
        segment.close()
        self._add(
            Entry(
                file=segment.path.name,
                first=first,
                shot=self._shot,
                ticks=segment.ticks,
                end=segment.end,
                tile=self._tile,
                damaged=self._damaged,
                margin=list(self._stamps.values()),
            )
        )
        self._segment = None


def keep_container(output: VideoWriter | ImageSequenceWriter, entries: Iterable[Entry]) -> None:
    """Write further segments into the container of those that are finished.

    The choice is a trial, and x265 gives videos of two frames random times of decoding: so one
    container may be refused now and taken the next time.
    """
    if isinstance(output, VideoWriter):
        for entry in entries:
            output.segment_container = Path(entry.file).suffix.removeprefix(".")


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


def join_segments(output: Collected, journal: Journal) -> None:
    """Make the output of what the finished segments hold."""
    if isinstance(output, ImageSequenceWriter):
        output.collect(journal.folder, journal.frames_done)
    else:
        segments = [Segment(journal.folder / e.file, e.ticks) for e in journal.entries]
        join(segments, journal.entries[-1].end, output)
