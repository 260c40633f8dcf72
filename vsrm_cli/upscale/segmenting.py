"""Restored frames become segments on disk, and closed segments become journal entries."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

from vsrm_cli.encode.writer import Segment, SegmentedWriter, SegmentFile
from vsrm_cli.errors import CheckFailed
from vsrm_cli.frame import Frame, FrameRecord
from vsrm_cli.inference.tiling import Chunking
from vsrm_cli.upscale.entries import BEGINNING, JournalEntry, ResumePoint
from vsrm_cli.upscale.journal import Journal
from vsrm_cli.upscale.options import UpscaleOptions

# Maximum work in a segment. A crash may happen just before it is closed, and the window by which
# the speed is measured may have been a fast one: so it is half a minute, and at most a minute is
# lost.
SEGMENT_SECONDS = 30.0
MAX_WINDOWS = 64
# Default windows of a segment on several devices: needed before any speed is known, and a
# segment that does not continue the one before computes one window twice.
PLANNED_WINDOWS = 16


@dataclass(frozen=True)
class RestoredFrame:
    """A frame on its way to a segment.

    Attributes:
        frame: The frame.
        ends_segment: Whether it is the last of its segment.
    """

    frame: Frame
    ends_segment: bool


class Segmenter:
    """Decides where segments end: with the first window that reaches the number of frames.

    This does not depend on when a job was interrupted, so neither does the encoded output.

    Attributes:
        frames: Minimum frames of a segment; None until a window has been measured, which is the
            second one: the first includes compiling and allocating.
        is_stopped: Whether the job was stopped after a segment.
    """

    def __init__(self, stride: int, *, frames: int | None, first: int) -> None:
        """Prepare for frames from number `first` on, of windows with a stride."""
        self.frames = frames
        self.is_stopped = False
        self._stride = stride
        self._first = first

    def cut(
        self,
        restored: Iterable[Frame],
        *,
        should_stop: Callable[[], bool],
    ) -> Iterator[RestoredFrame]:
        """Mark the last frame of each segment.

        Args:
            restored: The frames.
            should_stop: Called after each segment; if true, no more frames follow.
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
            yield RestoredFrame(frame, is_end)
            if is_end:
                first = following
                self.is_stopped = should_stop()
                if self.is_stopped:
                    return

    def frames_at(self, seconds_per_frame: float) -> int:
        """Choose the length of segments by the time of a frame.

        Powers of two, so that small differences in time rarely change the choice.
        """
        windows = 1
        while (
            2 * windows * self._stride * seconds_per_frame <= SEGMENT_SECONDS
            and windows < MAX_WINDOWS
        ):
            windows *= 2
        return windows * self._stride


def segment_frames(journal: Journal, options: UpscaleOptions) -> int | None:
    """Minimum frames of a segment, if known: of the interrupted job, else of the options."""
    return (journal.settings and journal.settings.segment_frames) or options.segment_frames


@dataclass(frozen=True)
class PlannedSegment:
    """A planned segment: all that a device needs to make it.

    Attributes:
        first: Number of its first frame.
        stop: One past the number of its last frame.
        read_stop: One past the last frame that must be read for it.
        after: The resume point before it.
        resume_point: Its end.
    """

    first: int
    stop: int
    read_stop: int
    after: ResumePoint
    resume_point: ResumePoint


def plan_segments(
    frames: Iterable[Frame], windows: Chunking, *, length: int, after: ResumePoint = BEGINNING
) -> list[PlannedSegment]:
    """Plan all segments of a video; they end where `Segmenter` would end them.

    Args:
        frames: Of the video, with their records, from the margin of ``after``.
        windows: How a shot is divided into windows.
        length: Minimum frames of a segment.
        after: Where to start.
    """
    first = total = after.next
    shots = [after.shot]
    records: dict[int, FrameRecord] = {}
    for frame in frames:
        record = frame.record
        assert record is not None
        records[record.number] = record
        total = record.number + 1
        if frame.begins_shot and record.number >= first:
            shots.append(record.number)
    segments = []
    for stop, read_stop, shot in _ends(shots, total, windows):
        if stop <= first or (stop - first < length and stop < total):
            continue
        margin = range(shot + windows.margin_start(stop - shot), stop)
        prints = [records[number].fingerprint for number in margin]
        point = ResumePoint(stop, shot, prints, records[stop - 1].faults)
        segments.append(PlannedSegment(first, stop, read_stop, after, point))
        first, after = stop, point
    return segments


def _ends(shots: Sequence[int], total: int, windows: Chunking) -> Iterator[tuple[int, int, int]]:
    """For each window: the end of its frames, up to where it is read, and the start of its shot."""
    for shot, end in pairwise(chain(shots, [total])):
        for chunk in windows.chunks(end - shot):
            # The frame after a window shows that it is not the last of its shot.
            yield shot + chunk.keep_stop - chunk.fall, min(shot + chunk.stop + 1, total), shot


class SegmentRecorder:
    """Writes restored frames into segments, and closed segments into the journal.

    Attributes:
        frames_written: Frames of the job in segments, those of earlier runs included.
    """

    def __init__(
        self,
        output: SegmentedWriter,
        windows: Chunking,
        container: str,
        *,
        folder: Path,
        after: ResumePoint = BEGINNING,
        add: Callable[[JournalEntry], None],
    ) -> None:
        """Prepare to write.

        Args:
            output: The output of the segments.
            windows: How a shot is divided into windows.
            container: Of the segments, see `segment_container`.
            folder: Where the segments go.
            after: Where to continue.
            add: Called with the entry of each segment when it is closed.
        """
        self.frames_written = after.next
        self._output = output
        self._windows = windows
        self._folder = folder
        self._container = container
        self._add = add
        self._segment: SegmentFile | None = None
        self._shot = after.shot
        self._tile: int | None = None
        self._faults = after.faults
        # Fingerprints of the latest frames by number; a resumed job starts with the last of them.
        self._prints = dict(enumerate(after.margin, after.next - len(after.margin)))

    def write(self, restored: RestoredFrame) -> None:
        """Write a frame, and close its segment after the last one.

        Raises:
            OutputError: If the disk is full.
            CheckFailed: If its number or time is not that of the next frame.
        """
        frame = restored.frame
        record = frame.record
        assert record is not None
        if (record.number, record.fingerprint.time) != (self.frames_written, str(frame.time)):
            raise CheckFailed(
                f"Frame {record.number}, read at {record.fingerprint.time} s, came back as frame "
                f"{self.frames_written} at {frame.time} s; this is a bug in vsrm, please report it."
            )
        if self._segment is None:
            path = self._folder / f"{self.frames_written:09}"
            self._segment = self._output.open_segment(path, self._container)
        self._segment.write(frame)
        self.frames_written += 1
        self._prints[record.number] = record.fingerprint
        if frame.begins_shot:
            self._shot = record.number
        self._tile, self._faults = frame.tile, record.faults
        if restored.ends_segment:
            self._close(self._segment)

    def finish(self, *, frames_read: int) -> None:
        """Close the last segment, and check the number of frames; raises as `write` does."""
        check_counts(read=frames_read, written=self.frames_written)
        if self._segment is not None:
            self._close(self._segment)

    def abandon(self) -> None:
        """Discard the segment that is not closed."""
        if self._segment is not None:
            self._segment.abandon()

    def _close(self, segment: SegmentFile) -> None:
        following = self.frames_written
        margin_start = self._shot + self._windows.margin_start(following - self._shot)
        # Only the next margin may start before the next segment.
        self._prints = {n: mark for n, mark in self._prints.items() if n >= margin_start}
        segment.close()
        point = ResumePoint(following, self._shot, list(self._prints.values()), self._faults)
        self._add(JournalEntry(segment.path.name, segment.ticks, segment.end, self._tile, point))
        self._segment = None


def segment_container(output: SegmentedWriter, journal: Journal) -> str:
    """The container of segments: that of the finished ones, else the best one.

    The container is chosen by a trial, and x265 gives videos of two frames random decoding times:
    the same container may fail in one trial and pass in the next.
    """
    finished = [*journal.entries, *journal.after_gap.values()]
    return Path(finished[0].file).suffix.removeprefix(".") if finished else output.segment_container


def check_counts(*, read: int, written: int) -> None:
    """Compare the numbers of frames read and written.

    Raises:
        CheckFailed: If frames were lost or added.
    """
    if written != read:
        raise CheckFailed(
            f"{read} frames were read, but {written} written, so the result was not kept; "
            "this is a bug in vsrm, please report it."
        )


def join_segments(output: SegmentedWriter, journal: Journal) -> None:
    """Join the finished segments to the output."""
    segments = [Segment(journal.folder / entry.file, entry.ticks) for entry in journal.entries]
    output.join(segments, journal.entries[-1].end)
