"""Sources of clips: a photo or a run of frames, in a file or in memory."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from vsrm_cli.data.crops import CropBox
from vsrm_cli.frame import SCALE


@dataclass(frozen=True)
class SkippedFile:
    """A file that cannot be used.

    Attributes:
        path: The file.
        reason: A sentence that names the file.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class FrameRun:
    """Consecutive frames.

    Attributes:
        hr: (T, 3, H, W) uint8.
        lr: Their LR frames, (T, 3, H/4, W/4) uint8, if the footage has them.
    """

    hr: Tensor
    lr: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return self.hr.nbytes + (0 if self.lr is None else self.lr.nbytes)


class FootageSource(Protocol):
    """A photo (one frame) or a sequence of frames."""

    @property
    def name(self) -> str:
        """Its name for the user."""

    @property
    def frames(self) -> int:
        """Number of frames."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its HR frames in pixels."""

    @property
    def is_in_memory(self) -> bool:
        """Whether its frames are in memory."""

    @property
    def is_lossy(self) -> bool:
        """Whether its frames, of a pair the LR ones, are from lossy compressed video."""

    def read(self, first: int, count: int, box: CropBox) -> FrameRun | None:
        """Read a crop of consecutive frames.

        Args:
            first: Number of the first.
            count: How many.
            box: The crop, in HR pixels; multiples of four if there are LR frames.

        Returns:
            None if a frame is damaged, or a scene cut is among them.
        """


@dataclass(frozen=True)
class StoredFrames:
    """Frames in memory, (T, 3, H, W) uint8."""

    name: str
    pixels: Tensor
    is_in_memory: bool = field(default=True, init=False)
    is_lossy: bool = field(default=False, init=False)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.pixels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def read(self, first: int, count: int, box: CropBox) -> FrameRun:
        """A view of the frames, not a copy."""
        return FrameRun(box.crop(self.pixels[first : first + count]))


@dataclass(frozen=True)
class PairedSource:
    """HR frames and their LR frames, of a fourth of the size."""

    hr: FootageSource
    lr: FootageSource

    @property
    def name(self) -> str:
        """The name of the HR frames."""
        return self.hr.name

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.hr.frames

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the HR frames in pixels."""
        return self.hr.size

    @property
    def is_in_memory(self) -> bool:
        """Whether both are in memory."""
        return self.hr.is_in_memory and self.lr.is_in_memory

    @property
    def is_lossy(self) -> bool:
        """Whether the LR frames are from lossy compressed video."""
        return self.lr.is_lossy

    def read(self, first: int, count: int, box: CropBox) -> FrameRun | None:
        """Read the same crop of both."""
        hr = self.hr.read(first, count, box)
        lr = self.lr.read(first, count, box.scaled(1 / SCALE))
        return None if hr is None or lr is None else FrameRun(hr.hr, lr.hr)
