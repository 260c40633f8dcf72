"""A job's way from frames read to segments on disk, such that it can go on behind each of them.

What a segment shows follows from the input, the numbers of its frames, and the settings, and from
nothing else. So a job that was interrupted begins again behind its last finished segment: it
reads the few frames before it (the margin) once more, for the window that fades into the next.
"""

import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Self

from vsrm_cli.decode.deinterlace import FirstField
from vsrm_cli.decode.image_sequence import ImageSequenceReader, is_sequence
from vsrm_cli.decode.video import VideoReader
from vsrm_cli.decode.y4m import Y4mReader
from vsrm_cli.errors import InputError
from vsrm_cli.frame import Fingerprint, Frame, FrameRecord
from vsrm_cli.upscale.journal import Choices, Entry, ResumePoint, describe_files

# The name that stands for standard input, or output.
PIPE = Path("-")


class Source:
    """The frames of a job, from the first or from behind a finished segment.

    Attributes:
        path: The file; or a folder or pattern of pictures; or `PIPE`.
        info: What the file says about itself.
        frames_read: Frames of the job up to the latest one that was read.
    """

    def __init__(
        self,
        path: Path,
        *,
        start: Fraction | None,
        end: Fraction | None,
        deinterlace: bool | FirstField = False,
        rate: Fraction = Fraction(25),
        uses_hardware: bool = False,
    ) -> None:
        """Look at the input; see the readers for errors and the other arguments.

        Args:
            path: The file; or a folder or pattern of pictures; or `PIPE`.
            start: Where to begin.
            end: Where to stop.
            deinterlace: Whether to deinterlace where combing is seen; or the first field of all.
            rate: Frames per second of pictures.
            uses_hardware: Whether to decode in graphics hardware, where it does that right.
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

    @property
    def notices(self) -> Sequence[str]:
        """What is uncertain of the video, or must be changed, in sentences."""
        return self._reader.notices

    @property
    def image_names(self) -> Sequence[str]:
        """Names of the pictures that it reads; none if it reads a video."""
        return self._reader.names if isinstance(self._reader, ImageSequenceReader) else ()

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

    def frames(self, *, behind: Entry | ResumePoint | None) -> Iterator[Frame]:
        """Read the frames in order, each with its record.

        Args:
            behind: Begin with the margin of this segment, instead of the first frame. If nothing
                lies behind it, there is nothing to do, and the margin is not given either.

        Raises:
            InputError: If no frame can be read, or not those that were read before.
        """
        if behind is None:
            yield from self._recorded(self._reader, first=0)
            return
        margin, rest = self._margin_by_jump(behind) or self._margin_by_count(behind)
        after = next(rest, None)
        if after is None:
            self.frames_read = behind.next
        else:
            first = behind.next - len(margin)
            yield from self._recorded(chain(margin, [after], rest), first=first)

    def _recorded(self, frames: Iterable[Frame], *, first: int) -> Iterator[Frame]:
        for number, frame in enumerate(frames, first):
            self.frames_read = number + 1
            record = FrameRecord(number, fingerprint_of(frame), self.damaged_packets)
            yield replace(frame, record=record)

    def _read_from(self, start: Fraction | None) -> VideoReader | ImageSequenceReader | Y4mReader:
        if self.path == PIPE:
            return Y4mReader(sys.stdin.buffer, start=start, end=self._end)
        if is_sequence(self.path):
            return ImageSequenceReader(self.path, start=start, end=self._end, rate=self._rate)
        return VideoReader(
            self.path,
            start=start,
            end=self._end,
            deinterlace=self._deinterlace,
            uses_hardware=self._uses_hardware,
        )

    def _margin_by_jump(
        self, entry: Entry | ResumePoint
    ) -> tuple[list[Frame], Iterator[Frame]] | None:
        """Find the margin by its time; None where jumps into the file lead to other pictures."""
        start = Fraction(entry.margin[0].time) - self.info.start
        self._damaged_before = entry.damaged
        self._reader = self._read_from(start)
        frames = iter(self._reader)
        try:
            margin = list(islice(frames, len(entry.margin)))
        except InputError:
            margin = []
        if [fingerprint_of(frame) for frame in margin] == entry.margin:
            return margin, frames
        self._reader.close()
        return None

    def _margin_by_count(self, entry: Entry | ResumePoint) -> tuple[list[Frame], Iterator[Frame]]:
        """Find the margin by reading from the beginning."""
        self._damaged_before = 0
        self._reader = self._read_from(self._start)
        frames = iter(self._reader)
        first = entry.next - len(entry.margin)
        margin = list(islice(frames, first, entry.next))
        if [fingerprint_of(frame) for frame in margin] != entry.margin:
            raise InputError(
                f"{self.path} has other frames now than when the job started; give --restart "
                "to start over."
            )
        return margin, frames


def fingerprint_of(frame: Frame) -> Fingerprint:
    """Say what is remembered of a frame: enough to know that it was decoded the same again."""
    return Fingerprint(str(frame.time), zlib.crc32(frame.pixels.data))


def check_unchanged(path: Path, files: Sequence[Path], content: Choices) -> None:
    """Make sure that an input is still what it was when the work began.

    Args:
        path: As the user gave it.
        files: What it consists of.
        content: What `describe_files` said of them then.

    Raises:
        InputError: If it is not.
    """
    try:
        is_the_same = describe_files(files) == content
    except OSError:
        is_the_same = False
    if not is_the_same:
        raise InputError(
            f"{path} has changed since the work began. Put the old file back and give the same "
            "command to go on, or give --restart to begin again with the new one."
        )
