"""The frames of a job, from the start or from a resume point.

The content of a segment depends only on the input, the numbers of its frames, and the settings. So
an interrupted job resumes after its last finished segment: it reads the few frames before that
point (the margin) again, for the window that fades into the next one.
"""

import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Self

from vsrm_cli.decode.deinterlace import FirstField
from vsrm_cli.decode.image_sequence import ImageSequenceReader, is_sequence
from vsrm_cli.decode.reader import FrameReader
from vsrm_cli.decode.video import VideoReader
from vsrm_cli.decode.y4m import Y4mReader
from vsrm_cli.errors import InputError
from vsrm_cli.frame import Faults, Fingerprint, Frame, FrameRecord
from vsrm_cli.upscale.entries import BEGINNING, ResumePoint
from vsrm_cli.upscale.journal import JobIdentity, describe_files
from vsrm_cli.upscale.options import DEFAULT_RATE

# The name of standard input or standard output.
PIPE = Path("-")


class ResumableReader:
    """The frames of a job, from the first one or from a resume point.

    Attributes:
        path: The file; or a folder or pattern of images; or `PIPE`.
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
        rate: Fraction = DEFAULT_RATE,
        uses_hardware: bool = False,
    ) -> None:
        """Open the input; see the readers for errors.

        Args:
            path: The file; or a folder or pattern of images; or `PIPE`.
            start: Start time.
            end: End time.
            deinterlace: Whether to deinterlace if there is combing; or the first field.
            rate: Frames per second of an image sequence.
            uses_hardware: Whether to decode in hardware, if that gives identical frames.
        """
        self.path = path
        self._start = start
        self._end = end
        self._deinterlace = deinterlace
        self._rate = rate
        self._uses_hardware = uses_hardware
        self._reader = self._read_from(start)
        self._faults_before = Faults()
        self.info = self._reader.info
        self.frames_read = 0

    @property
    def notices(self) -> Sequence[str]:
        """Warnings about the input, in sentences."""
        return self._reader.notices

    @property
    def image_names(self) -> Sequence[str]:
        """Names of the images; empty for a video."""
        return self._reader.image_names

    @property
    def decoder(self) -> str:
        """The decoder: "software", or FFmpeg's name of the hardware interface."""
        return self._reader.decoder

    @property
    def faults(self) -> Faults:
        """Faults of the input from the first frame of the job to the latest one."""
        return self._faults_before + self._reader.faults

    @property
    def truncated(self) -> bool:
        """Whether the end of the file is missing, or packets were damaged."""
        return self._reader.truncated or self.faults.damaged > 0

    def __enter__(self) -> Self:
        """Return the source itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self._reader.close()

    def frames(self, *, after: ResumePoint = BEGINNING) -> Iterator[Frame]:
        """Read the frames in order, each with its record.

        Args:
            after: Start with the margin of this point. If no frame follows it, nothing is yielded.

        Raises:
            InputError: If no frame can be read, or the margin has changed.
        """
        if after == BEGINNING:
            yield from self._recorded(self._reader, first=0)
            return
        margin, rest = self._margin_by_jump(after) or self._margin_by_count(after)
        # The reader has counted those of the margin again.
        self._faults_before = after.faults - self._reader.faults
        following = next(rest, None)
        if following is None:
            self.frames_read = after.next
        else:
            first = after.next - len(margin)
            yield from self._recorded(chain(margin, [following], rest), first=first)

    def _recorded(self, frames: Iterable[Frame], *, first: int) -> Iterator[Frame]:
        for number, frame in enumerate(frames, first):
            self.frames_read = number + 1
            record = FrameRecord(number, compute_fingerprint(frame), self.faults)
            yield replace(frame, record=record)

    def _read_from(self, start: Fraction | None) -> FrameReader:
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

    def _margin_by_jump(self, point: ResumePoint) -> tuple[list[Frame], Iterator[Frame]] | None:
        """Find the margin by seeking; None if that gives other frames."""
        start = Fraction(point.margin[0].time) - self.info.start
        self._reader = self._read_from(start)
        frames = iter(self._reader)
        try:
            margin = list(islice(frames, len(point.margin)))
        except InputError:
            margin = []
        if [compute_fingerprint(frame) for frame in margin] == point.margin:
            return margin, frames
        self._reader.close()
        return None

    def _margin_by_count(self, point: ResumePoint) -> tuple[list[Frame], Iterator[Frame]]:
        """Find the margin by reading from the beginning."""
        self._reader = self._read_from(self._start)
        frames = iter(self._reader)
        first = point.next - len(point.margin)
        margin = list(islice(frames, first, point.next))
        if [compute_fingerprint(frame) for frame in margin] != point.margin:
            raise InputError(
                f"{self.path} has other frames now than when the job started; give --restart "
                "to start over."
            )
        return margin, frames


def compute_fingerprint(frame: Frame) -> Fingerprint:
    """The fingerprint of a frame, by which it is recognized when it is decoded again."""
    return Fingerprint(str(frame.time), zlib.crc32(frame.pixels.data))


def check_unchanged(path: Path, files: Sequence[Path], content: JobIdentity) -> None:
    """Make sure that the input has not changed since the job started.

    Args:
        path: As the user gave it.
        files: The files of the input.
        content: What `describe_files` returned for them at the start.

    Raises:
        InputError: If it has.
    """
    try:
        is_the_same = describe_files(files) == content
    except OSError:
        is_the_same = False
    if not is_the_same:
        raise InputError(
            f"{path} has changed since the job started. Put the old file back and run the same "
            "command to resume, or give --restart to start over with the new one."
        )
