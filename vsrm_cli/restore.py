"""A network and a stream of frames give a stream of larger frames, one for one, in order.

Frames are read in overlapping windows, each window in overlapping tiles (see `tiling`), and
what the network makes of them is joined again along columns, rows and time. The memory needed
depends on the window and the tile, never on the length of the video: finished pictures become
integers at once, and only the few frames over which two windows fade are kept as floats.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from time import perf_counter
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from vsrm_cli.errors import CheckFailed
from vsrm_cli.frame import Frame, Pixels
from vsrm_cli.memory import free_cache, free_memory_bytes, is_memory_shortage
from vsrm_cli.tiling import (
    MIN_TILE,
    TILE_OVERLAP,
    Cut,
    Piece,
    choose_tile,
    plan_grid,
    read_pieces,
    smaller_tile,
)

# Frames, lines and columns that a CPU is timed with: seconds of work, and not too small to tell.
SAMPLE_SIZE = (8, 96, 96)


class Network(Protocol):
    """What `Restorer` asks of a network; it is already on its device, in its precision."""

    @property
    def scale(self) -> int:
        """How many times larger its pictures are."""
        ...

    def __call__(self, clip: Tensor) -> Tensor:
        """Map (1, T, 3, H, W) in 0..1 to (1, T, 3, scale*H, scale*W), any T, H, W from 1 on."""
        ...

    def memory_bytes(self, time: int, height: int, width: int) -> int:
        """Estimate the peak working memory for one clip in float32, in bytes."""
        ...


class Restorer:
    """Enlarges one video with a network.

    Attributes:
        tile: Side of the tiles in use, in pixels of the source, or None where pictures are
            taken whole. An automatic choice is made with the first window; every shortage
            of memory makes the tile smaller for the rest of the video.
        windows: How a shot is cut along time.
        is_between_windows: Whether the frame given last was the last of its window: none of what
            comes later can change what was given so far.
    """

    def __init__(
        self,
        network: Network,
        *,
        window: int,
        overlap: int,
        tile: int | Literal["auto"] | None,
        device: torch.device,
        dtype: torch.dtype,
        workers: int = 1,
    ) -> None:
        """Keep the settings.

        Args:
            network: Already on `device`, in `dtype`.
            window: Frames read together, at least 1.
            overlap: Frames shared by neighbouring windows, 0 to window // 2.
            tile: Side of a tile in pixels of the source, at least `MIN_TILE`, its overlaps
                included; None takes pictures whole, "auto" chooses by the free memory.
            device: Where the network is.
            dtype: Floating-point type of what the network is given.
            workers: Tiles restored at the same time, each on its share of the processor. On a
                CPU most layers are too small to keep two cores busy; two tiles keep them busy.

        Raises:
            ValueError: If window, overlap or tile is out of range.
        """
        if isinstance(tile, int) and tile < MIN_TILE:
            raise ValueError(f"a tile must have at least {MIN_TILE} pixels, got {tile}")
        self.tile = None if tile == "auto" else tile
        self._tile_is_open = tile == "auto"
        # A last window of half the length has context enough, and is soon done.
        self.windows = Cut(window, overlap, shortest=window - window // 2)
        self.is_between_windows = False
        self._network = network
        self._device = device
        self._dtype = dtype
        self._workers = workers
        self._threads = max(1, torch.get_num_threads() // workers)
        self._pool = ThreadPoolExecutor(workers) if workers > 1 else None

    def restore(self, frames: Iterable[Frame], *, begin: int = 0) -> Iterator[Frame]:
        """Enlarge a stream of frames of one size.

        Each shot is restored on its own: no window reaches across a cut. Windows are planned by
        the number of a frame in its shot. So a frame comes out the same whether the video was
        begun at its first frame or in its middle.

        Frames are read when they are needed: at most a window and one more are ahead of what
        has been given out.

        Args:
            frames: The video in presentation order, pixels (3, H, W), all of one size and type.
                The first one is number `windows.margin_start(begin)` of its shot.
            begin: Number of the first frame to give, counted from the first one of its shot.

        Yields:
            One frame for each frame read from `begin` on, in order: pixels (3, scale*H, scale*W)
            of the same integer type, all else as it came.

        Raises:
            MemoryShortage: If not even the smallest tile fits into the memory.
            CheckFailed: If the network's output is not finite.
        """
        for shot in _shots(frames):
            yield from self._restore_shot(shot, begin=begin)
            begin = 0

    def _restore_shot(self, frames: Iterable[Frame], *, begin: int) -> Iterator[Frame]:
        tail: Tensor | None = None
        first = self.windows.piece_before(begin)
        for piece, clip in read_pieces(frames, self.windows, first=first):
            self.settle_tile(len(clip), *clip[0].pixels.shape[1:])
            pictures, tail = self._restore_clip(clip, piece, tail)
            restored = zip(clip[piece.kept_slice], pictures, strict=False)
            for number, (source, pixels) in enumerate(restored, piece.keep_start):
                self.is_between_windows = number + 1 == piece.keep_stop - piece.fall
                if number >= begin:
                    yield replace(source, pixels=pixels)
            # Else they would lie in memory beside the pictures of the next window.
            del pictures

    def settle_tile(self, frames: int, height: int, width: int) -> None:
        """Choose the tile, if it was left open, for windows of so many frames of one size.

        Raises:
            MemoryShortage: If not even the smallest tile fits into the memory.
        """
        if not self._tile_is_open:
            return
        self.tile = choose_tile(
            self._network.memory_bytes,
            window=frames,
            height=height,
            width=width,
            free_bytes=free_memory_bytes(self._device),
            must_fit=self._device.type != "cpu",
            at_once=self._workers,
        )
        self._tile_is_open = False

    @torch.inference_mode()
    def seconds_per_pixel(self, height: int, width: int) -> float:
        """Measure how long the network takes for a pixel of pictures of a size.

        A GPU is given one tile of a window, which is soon done, and which it needs to be busy.
        A CPU is given a part of that.
        """
        side = self.tile or max(height, width)
        size = (self.windows.size, side, side)
        if self._device.type == "cpu":
            size = SAMPLE_SIZE
        time, *sides = (min(a, b) for a, b in zip(size, (size[0], height, width), strict=True))
        clip = torch.zeros((1, time, 3, *sides), device=self._device, dtype=self._dtype)
        self._network(clip).sum().item()  # the first run compiles and allocates
        began = perf_counter()
        self._network(clip).sum().item()  # `item` waits for the device
        return (perf_counter() - began) / (clip.numel() / 3)

    def memory_bytes(self, height: int, width: int) -> int:
        """Estimate the memory that the network takes for pictures of a size, in bytes."""
        side = self.tile or max(height, width)
        tile = (min(side, height), min(side, width))
        return self._workers * self._network.memory_bytes(self.windows.size, *tile)

    def _restore_clip(
        self, clip: list[Frame], piece: Piece, tail: Tensor | None
    ) -> tuple[list[Pixels], Tensor]:
        """Restore one window, with ever smaller tiles if the memory asks for it."""
        while True:
            # A shortage cannot be asked for beforehand: estimates err, and other programs
            # take memory meanwhile.
            try:
                return self._try_clip(clip, piece, tail)
            except RuntimeError as error:
                if not is_memory_shortage(error):
                    raise
            # Outside the handler: the error's traceback held the tensors of the attempt.
            free_cache(self._device)
            self.tile = smaller_tile(self.tile, longer_side=max(clip[0].pixels.shape[1:]))

    @torch.inference_mode()
    def _try_clip(
        self, clip: list[Frame], piece: Piece, tail: Tensor | None
    ) -> tuple[list[Pixels], Tensor]:
        """Restore one window: its finished pictures, and the tail for the next window."""
        canvas = _Canvas(clip, piece, tail, scale=self._network.scale, device=self._device)
        values = self._to_tensor(clip)
        height, width = values.shape[-2:]
        grid = plan_grid(height, width, tile=self.tile, overlap=TILE_OVERLAP)
        foot: Tensor | None = None
        for row in grid.rows:
            foot = self._restore_row(values, row, grid.columns, foot=foot, canvas=canvas)
        return canvas.pictures, canvas.next_tail

    def _restore_row(
        self,
        clip: Tensor,
        row: Piece,
        columns: list[Piece],
        *,
        foot: Tensor | None,
        canvas: "_Canvas",
    ) -> Tensor:
        """Restore one row of tiles and put its finished lines on the canvas.

        Args:
            clip: The window, (T, 3, H, W).
            row: The lines to read, and how they fade.
            columns: The tiles of the row.
            foot: Lines that faded out of the row above, weighted, float32.
            canvas: Receives the finished lines.

        Returns:
            The foot for the row below, (kept frames, 3, scale*row.fall, scale*W).
        """
        scale = self._network.scale
        large = row.scaled(scale)
        shape = (canvas.piece.kept, 3, large.kept, scale * clip.shape[-1])
        strip = torch.zeros(shape, device=self._device)
        for first in range(0, len(columns), self._workers):
            group = columns[first : first + self._workers]
            tiles = [clip[:, :, row.start : row.stop, c.start : c.stop] for c in group]
            for column, restored in zip(group, self._restore_tiles(tiles), strict=True):
                self._add_tile(strip, restored, (canvas.piece, large, column.scaled(scale)))
        strip *= _weights(large, self._device)[:, None]
        if foot is not None:
            strip[:, :, : large.rise] += foot
        finished = large.kept - large.fall
        canvas.add(strip[:, :, :finished], top=large.keep_start)
        # A copy, because a view would keep the whole strip in memory beside the next.
        return strip[:, :, finished:].clone()

    def _restore_tiles(self, tiles: list[Tensor]) -> Iterable[Tensor]:
        """Restore tiles, (T, 3, h, w) each, at the same time: (T, 3, scale*h, scale*w) each."""
        if self._pool is None or len(tiles) == 1:
            return map(self._restore_tile, tiles)
        return self._pool.map(self._restore_tile_aside, tiles)

    def _restore_tile_aside(self, tile: Tensor) -> Tensor:
        """Restore a tile in a thread of its own, for which both settings must be made anew."""
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            return self._restore_tile(tile)

    def _restore_tile(self, tile: Tensor) -> Tensor:
        return self._network(tile.contiguous()[None])[0]

    def _add_tile(
        self, strip: Tensor, restored: Tensor, pieces: tuple[Piece, Piece, Piece]
    ) -> None:
        """Add the columns that a restored tile keeps to its row.

        The pieces are those of time, rows and columns, the last two in the larger picture.
        """
        time, rows, columns = pieces
        kept = restored[time.kept_slice, :, rows.kept_slice, columns.kept_slice]
        weights = _weights(columns, self._device)
        # One frame after another, so that only one lies in memory a second time.
        for part, joined in zip(kept, strip, strict=True):
            target = joined[:, :, columns.keep_start : columns.keep_stop]
            target.addcmul_(part.float(), weights)

    def _to_tensor(self, clip: list[Frame]) -> Tensor:
        """Stack frames to (T, 3, H, W), 0 to 1, on the device in the network's type."""
        pixels = np.stack([frame.pixels for frame in clip])
        peak = np.iinfo(clip[0].pixels.dtype).max
        if pixels.dtype != np.uint8:  # not every device has unsigned integers of 16 bits
            pixels = pixels.astype(np.int32)
        # Integers cross over to the device, from memory that it reads by itself.
        whole = torch.from_numpy(pixels)
        if self._device.type == "cuda":
            whole = whole.pin_memory()
        values = whole.to(self._device, non_blocking=True).float()
        return (values / peak).to(self._dtype)


# Most tiles of a picture fade alike. Made anew, each would be a copy that waits for the device.
@lru_cache(maxsize=64)
def _weights(piece: Piece, device: torch.device) -> Tensor:
    """Give the weights of a piece as float32, (piece.kept,)."""
    numerators = torch.tensor(piece.weights(), dtype=torch.float32, device=device)
    return numerators / piece.denominator


def _shots(frames: Iterable[Frame]) -> Iterator[Iterator[Frame]]:
    """Divide a video at its cuts; each shot must be used up before the next is taken."""
    cuts = 0

    def cuts_before(frame: Frame) -> int:
        nonlocal cuts
        cuts += frame.begins_shot
        return cuts

    return (shot for _, shot in groupby(frames, cuts_before))


class _Canvas:
    """The pictures of one window while they are put together, band by band.

    Attributes:
        piece: Which frames of the window are kept, and how they fade.
        pictures: The finished ones, (3, scale*H, scale*W) each.
        next_tail: The frames that fade out, weighted, for the canvas of the next window:
            float32, (piece.fall, 3, scale*H, scale*W).
    """

    def __init__(
        self,
        clip: list[Frame],
        piece: Piece,
        tail: Tensor | None,
        *,
        scale: int,
        device: torch.device,
    ) -> None:
        height, width = (scale * side for side in clip[0].pixels.shape[1:])
        self._dtype = clip[0].pixels.dtype
        self._sources = clip[piece.kept_slice]
        self._tail = tail
        self.piece = piece
        self.pictures: list[Pixels] = [
            np.empty((3, height, width), self._dtype) for _ in range(piece.kept - piece.fall)
        ]
        self.next_tail = torch.empty((piece.fall, 3, height, width), device=device)

    def add(self, band: Tensor, *, top: int) -> None:
        """Finish some lines of all frames, in place.

        Args:
            band: float32, (piece.kept, 3, lines, scale*W); used up.
            top: Where the first of the lines belongs.

        Raises:
            CheckFailed: If a value is not finite.
        """
        rows = slice(top, top + band.shape[-2])
        finished = len(self.pictures)
        for t, weight in enumerate(self.piece.weights()):
            values = band[t].mul_(weight / self.piece.denominator)
            if self._tail is not None and t < self.piece.rise:
                values += self._tail[t, :, rows]
            if not torch.isfinite(values).all():
                raise CheckFailed(
                    f"the network's output for the frame at {float(self._sources[t].time):.3f} s "
                    f"is not finite; try --dtype fp32 or another model"
                )
            if t < finished:
                self.pictures[t][:, rows] = to_pixels(values, self._dtype)
            else:
                self.next_tail[t - finished, :, rows] = values


def to_pixels(values: Tensor, dtype: np.dtype[np.uint8] | np.dtype[np.uint16]) -> Pixels:
    """Round values of 0 to 1, clamping what lies outside, to integers of full range.

    Args:
        values: float32, any shape, on any device.
        dtype: uint8 or uint16.

    Returns:
        The integers, halves rounded up.
    """
    peak = np.iinfo(dtype).max
    rounded = values.clamp(0, 1).mul_(peak).add_(0.5).floor_()
    if dtype == np.uint8:
        return rounded.to(torch.uint8).cpu().numpy()
    # By way of int32: not every device has unsigned integers of 16 bits.
    return rounded.to(torch.int32).cpu().numpy().astype(np.uint16)
