"""What every reader is: video files, image sequences and y4m pipes give frames in the same way."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from vsrm_cli.frame import Faults, Frame
from vsrm_cli.media.probe import VideoInfo


class FrameReader(Protocol):
    """The frames of one input, in the order in which they are shown; iterated once.

    `tests/decode/test_reader.py` holds every reader to it.
    """

    @property
    def info(self) -> VideoInfo:
        """What the input says about itself; its frames have this size."""

    @property
    def image_names(self) -> Sequence[str]:
        """Names of the image files; empty for a video."""

    @property
    def decoder(self) -> str:
        """The decoder: "software", or FFmpeg's name of the hardware interface."""

    @property
    def frames_read(self) -> int:
        """Frames yielded so far."""

    @property
    def faults(self) -> Faults:
        """Faults of the input so far."""

    @property
    def truncated(self) -> bool:
        """Whether the end of the input is missing, or a packet was damaged."""

    @property
    def notices(self) -> Sequence[str]:
        """Warnings about the input, in sentences."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames from the start time on and before the end time, times strictly rising.

        Raises:
            InputError: If there is none.
        """

    def close(self) -> None:
        """Close the input."""
