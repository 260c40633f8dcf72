"""Sources of clips: a photo or a run of frames, in a file or in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from vsrm_cli.frame import SCALE

PHOTO_ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
VIDEO_ENDINGS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".264", ".m4v", ".ts"}


@dataclass(frozen=True)
class Skipped:
    """A file that cannot be used.

    Attributes:
        path: The file.
        why: The reason, in a sentence that names the file.
    """

    path: Path
    why: str


@dataclass(frozen=True)
class Run:
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


@dataclass(frozen=True)
class Window:
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def times(self, factor: float) -> "Window":
        """The same rectangle of frames enlarged by a factor."""
        sides = (int(factor * side) for side in (self.top, self.left, self.height, self.width))
        return Window(*sides)

    def of(self, frames: Tensor) -> Tensor:
        """Crop frames, (..., H, W)."""
        rows = slice(self.top, self.top + self.height)
        return frames[..., rows, self.left : self.left + self.width]


class Source(Protocol):
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

    def read(self, first: int, count: int, window: Window) -> Run | None:
        """Read a crop of consecutive frames.

        Args:
            first: Number of the first.
            count: How many.
            window: The crop, in HR pixels; multiples of four if there are LR frames.

        Returns:
            None if a frame is damaged, or a scene cut is among them.
        """


@dataclass(frozen=True)
class Stored:
    """Frames in memory, (T, 3, H, W) uint8."""

    name: str
    pixels: Tensor

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.pixels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    @property
    def is_in_memory(self) -> bool:
        """True."""
        return True

    def read(self, first: int, count: int, window: Window) -> Run:
        """A view of the frames, not a copy."""
        return Run(window.of(self.pixels[first : first + count]))


@dataclass(frozen=True)
class Pair:
    """HR frames and their LR frames, of a fourth of the size."""

    hr: Source
    lr: Source

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

    def read(self, first: int, count: int, window: Window) -> Run | None:
        """Read the same crop of both."""
        hr = self.hr.read(first, count, window)
        lr = self.lr.read(first, count, window.times(1 / SCALE))
        return None if hr is None or lr is None else Run(hr.hr, lr.hr)


def whole(source: Source) -> Window:
    """The whole frame of a source."""
    return Window(0, 0, *source.size)


def to_8_bits(pixels: Tensor) -> Tensor:
    """RGB of 8 or 16 bits as 8 bits."""
    return pixels if pixels.dtype == torch.uint8 else (pixels.float() / 257).round().to(torch.uint8)
