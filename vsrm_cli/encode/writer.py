"""What every writer is: video files, image sequences and y4m pipes take frames in the same way.

`tests/encode/test_writer.py` holds every writer to it.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from vsrm_cli.encode.options import EncodingPlan
from vsrm_cli.frame import Frame
from vsrm_cli.media.geometry import Shape


class FrameWriter(Protocol):
    """One output. Leaving its ``with`` statement by an exception leaves nothing under its name."""

    @property
    def plan(self) -> EncodingPlan:
        """How frames are encoded."""

    @property
    def shape(self) -> Shape:
        """Of the frames of the output."""

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the output, or delete it after an exception."""


class DirectWriter(FrameWriter, Protocol):
    """An output that is written frame by frame: a video, or a y4m pipe."""

    def write(self, frame: Frame) -> None:
        """Write one frame; times must rise.

        Raises:
            OutputError: If the frame cannot be written.
        """


class SegmentFile(Protocol):
    """A segment of an output, from which the output is made later: a file, or image files."""

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
