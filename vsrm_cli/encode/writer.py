"""What every writer is: video files, image sequences and y4m pipes take frames in the same way.

`tests/encode/test_writer.py` holds every writer to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from vsrm_cli.encode.options import EncodingPlan
from vsrm_cli.frame import Frame
from vsrm_cli.media.geometry import OutputShape


class FrameWriter(Protocol):
    """One output. Leaving its ``with`` statement by an exception leaves nothing under its name."""

    @property
    def plan(self) -> EncodingPlan:
        """How frames are encoded."""

    @property
    def shape(self) -> OutputShape:
        """Of the frames of the output."""

    @property
    def shown_shape(self) -> OutputShape:
        """The displayed size of its frames, rotated if the output says so."""

    @property
    def frames_written(self) -> int:
        """Frames in the output so far."""

    @property
    def kept(self) -> Sequence[str]:
        """Streams of the source that are copied, in words."""

    @property
    def dropped(self) -> Sequence[str]:
        """What the output cannot hold of the source, and why, in words."""

    @property
    def warnings(self) -> Sequence[str]:
        """What could not be kept as it was, in sentences; complete when the output is."""

    def __enter__(self) -> Self:
        """Return the writer itself."""

    def __exit__(self, kind: type[BaseException] | None, /, *rest: object) -> None:
        """Complete the output, or delete it after an exception."""


class DirectWriter(FrameWriter, Protocol):
    """An output that is written frame by frame: a video, or a y4m pipe."""

    def write(self, frame: Frame) -> None:
        """Write one frame; times must rise.

        Raises:
            OutputError: If the frame cannot be written.
        """


@dataclass(frozen=True, slots=True)
class Segment:
    """A closed segment of an output.

    Attributes:
        path: Its file; of image files the last one.
        ticks: When its frames are shown, rising, in ticks of the output's clock.
    """

    path: Path
    ticks: Sequence[int]


class SegmentFile(Protocol):
    """A segment while it is written: a file, or image files."""

    @property
    def path(self) -> Path:
        """The file that was written last."""

    @property
    def ticks(self) -> list[int]:
        """When its frames are shown, rising, in ticks of the output's clock."""

    @property
    def end(self) -> int:
        """Until when the last frame is shown."""

    def write(self, frame: Frame) -> None:
        """Write one frame.

        Raises:
            OutputError: If the disk is full.
        """

    def close(self) -> None:
        """Complete the segment."""

    def abandon(self) -> None:
        """Close it unfinished."""


class SegmentedWriter(FrameWriter, Protocol):
    """An output that is joined from segments: a video file, or image files."""

    @property
    def segment_container(self) -> str:
        """FFmpeg's name of the best container of its segments; "png" for image files."""

    @property
    def path(self) -> Path:
        """The output."""

    def open_segment(self, path: Path, container: str) -> SegmentFile:
        """Open a segment.

        Args:
            path: Where to write, without an ending; its name is the number of the first frame.
            container: `segment_container`, or that of other segments of the job.

        Raises:
            OutputError: If the folder cannot be written.
        """

    def join(self, segments: Sequence[Segment], end: int) -> None:
        """Make the output of its segments.

        Args:
            segments: All segments, in order, in one folder.
            end: Until when the last frame is shown, in ticks of the output's clock.

        Raises:
            CheckFailed: If a segment does not hold the frames that it should.
            OutputError: If the output cannot be written, or a segment is missing.
        """
