"""What clips are cut from: a photo or a row of frames, wherever they lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from vsrm_cli.data.degradations import SCALE

PHOTO_ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
VIDEO_ENDINGS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".264", ".m4v", ".ts"}


@dataclass(frozen=True)
class Skipped:
    """A file that cannot be used.

    Attributes:
        path: Where it lies.
        why: A sentence that names it.
    """

    path: Path
    why: str


@dataclass(frozen=True)
class Run:
    """Frames in a row.

    Attributes:
        sharp: (T, 3, H, W) uint8.
        small: Their small twins, (T, 3, H/4, W/4) uint8, where they came with the footage.
    """

    sharp: Tensor
    small: Tensor | None = None

    @property
    def bytes(self) -> int:
        """How much memory it takes."""
        return self.sharp.nbytes + (0 if self.small is None else self.small.nbytes)


@dataclass(frozen=True)
class Window:
    """A part of pictures, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def times(self, factor: float) -> "Window":
        """The same part of pictures so many times as large."""
        sides = (int(factor * side) for side in (self.top, self.left, self.height, self.width))
        return Window(*sides)

    def of(self, pictures: Tensor) -> Tensor:
        """Cut it out of (..., H, W)."""
        rows = slice(self.top, self.top + self.height)
        return pictures[..., rows, self.left : self.left + self.width]


class Source(Protocol):
    """A photo (of one frame) or a row of frames."""

    @property
    def name(self) -> str:
        """What a user calls it."""

    @property
    def frames(self) -> int:
        """How many there are."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its sharp frames in pixels."""

    @property
    def is_in_memory(self) -> bool:
        """Whether reading it costs nothing."""

    def read(self, first: int, count: int, window: Window) -> Run | None:
        """Read a part of frames in a row.

        Args:
            first: Number of the first.
            count: How many.
            window: In sharp pixels; multiples of four if there are small twins.

        Returns:
            None where frames are damaged, or a cut lies between them.
        """


@dataclass(frozen=True)
class Stored:
    """Frames in memory, (T, 3, H, W) uint8."""

    name: str
    pictures: Tensor

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.pictures)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pictures.shape[-2], self.pictures.shape[-1]

    @property
    def is_in_memory(self) -> bool:
        """It is."""
        return True

    def read(self, first: int, count: int, window: Window) -> Run:
        """The frames as they are, not copied."""
        return Run(window.of(self.pictures[first : first + count]))


@dataclass(frozen=True)
class Pair:
    """Sharp frames and the small twins that came with them, a fourth as large, as many."""

    sharp: Source
    small: Source

    @property
    def name(self) -> str:
        """That of the sharp frames."""
        return self.sharp.name

    @property
    def frames(self) -> int:
        """How many there are."""
        return self.sharp.frames

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the sharp ones in pixels."""
        return self.sharp.size

    @property
    def is_in_memory(self) -> bool:
        """Whether both are."""
        return self.sharp.is_in_memory and self.small.is_in_memory

    def read(self, first: int, count: int, window: Window) -> Run | None:
        """Read the same part of both."""
        sharp = self.sharp.read(first, count, window)
        small = self.small.read(first, count, window.times(1 / SCALE))
        return None if sharp is None or small is None else Run(sharp.sharp, small.sharp)


def whole(source: Source) -> Window:
    """All of the pictures of a source."""
    return Window(0, 0, *source.size)


def to_8_bits(pixels: Tensor) -> Tensor:
    """RGB of 8 or 16 bits as 8 bits."""
    return pixels if pixels.dtype == torch.uint8 else (pixels.float() / 257).round().to(torch.uint8)
