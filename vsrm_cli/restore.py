"""A network and a stream of frames give a stream of larger frames, one for one, in order.

Frames are read in overlapping windows, each window in overlapping tiles (see `tiling`), and
what the network makes of them is joined again along columns, rows and time. The memory needed
depends on the window and the tile, never on the length of the video: finished pictures become
integers at once, and only the few frames over which two windows fade are kept as floats.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from vsrm_cli.errors import CheckFailed, MemoryShortage
from vsrm_cli.frame import Frame, Pixels
from vsrm_cli.memory import free_cache, free_memory_bytes, is_memory_shortage
from vsrm_cli.tiling import Cut, Grid, Piece, plan_grid, read_pieces

# Pixels shared by neighbouring tiles: 8 at each edge are thrown away, where a network sees
# invented pixels instead of the picture, and 16 fade. Users of tile upscalers report seams
# with 10 pixels of padding, and none with 32 (Real-ESRGAN issue 211, GPEN issue 129).
TILE_OVERLAP = 32
# With smaller tiles more than two would meet on one line; see `tiling.Cut`.
MIN_TILE = 2 * TILE_OVERLAP
TILE_STEP = 16

# Two tiles at once on two cores take two thirds of the time of the whole picture, so a quarter
# more pixels is a price worth paying for it.
MAX_WORK_PERCENT = 125

# The part of the free memory that a window may fill by its network's estimate, in percent.
# The rest is for the pictures being joined, for fragmentation, and for other programs.
MEMORY_SHARE_PERCENT = 70


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
        windows: How the video is cut along time.
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
        self._network = network
        self._device = device
        self._dtype = dtype
        self._workers = workers
        self._threads = max(1, torch.get_num_threads() // workers)
        self._pool = ThreadPoolExecutor(workers) if workers > 1 else None

    def restore(self, frames: Iterable[Frame], *, begin: int = 0) -> Iterator[Frame]:
        """Enlarge a stream of frames of one size.

        Windows are planned by the number of a frame in the whole video. So a frame comes out
        the same whether the video was begun at its first frame or in its middle.

        Frames are read when they are needed: at most a window and one more are ahead of what
        has been given out.

        Args:
            frames: The video in presentation order, pixels (3, H, W), all of one size and type.
                Its first one is number `margin_start(begin)`.
            begin: Number of the first frame to give.

        Yields:
            One frame for each frame read from `begin` on, in order: pixels (3, scale*H, scale*W)
            of the same integer type, all else as it came.

        Raises:
            MemoryShortage: If not even the smallest tile fits into the memory.
            CheckFailed: If the network's output is not finite.
        """
        tail: Tensor | None = None
        first = self.windows.piece_before(begin)
        for piece, clip in read_pieces(frames, self.windows, first=first):
            if self._tile_is_open:
                self._choose_tile(clip)
            pictures, tail = self._restore_clip(clip, piece, tail)
            restored = zip(clip[piece.kept_slice], pictures, strict=False)
            for number, (source, pixels) in enumerate(restored, piece.keep_start):
                if number >= begin:
                    yield replace(source, pixels=pixels)
            # Else they would lie in memory beside the pictures of the next window.
            del pictures

    def margin_start(self, begin: int) -> int:
        """Say from which frame on a video must be read for its frames from `begin` on."""
        return self.windows.piece_before(begin) * self.windows.stride

    def _choose_tile(self, clip: list[Frame]) -> None:
        height, width = clip[0].pixels.shape[1:]
        self.tile = choose_tile(
            self._network,
            window=len(clip),
            height=height,
            width=width,
            free_bytes=free_memory_bytes(self._device),
            must_fit=self._device.type != "cpu",
            at_once=self._workers,
        )
        self._tile_is_open = False

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
        strip *= self._weights(large)[:, None]
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
        weights = self._weights(columns)
        # One frame after another, so that only one lies in memory a second time.
        for part, joined in zip(kept, strip, strict=True):
            target = joined[:, :, columns.keep_start : columns.keep_stop]
            target.addcmul_(part.float(), weights)

    def _weights(self, piece: Piece) -> Tensor:
        """Give the weights of a piece as float32, (piece.kept,)."""
        numerators = torch.tensor(piece.weights(), dtype=torch.float32, device=self._device)
        return numerators / piece.denominator

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


def choose_tile(
    network: Network,
    *,
    window: int,
    height: int,
    width: int,
    free_bytes: int,
    must_fit: bool = True,
    at_once: int = 1,
) -> int | None:
    """Choose the tile with which a window fits into the memory at the least work.

    That is often not the largest tile that fits: one that is a little smaller than the
    picture reads nearly all of it twice. The estimate is for float32; at half precision the
    difference is left as a reserve, because a network may keep parts of itself in float32.

    Args:
        network: Estimates its own memory.
        window: Frames read together.
        height: Of the source, in pixels.
        width: Of the source, in pixels.
        free_bytes: Free memory of the device.
        at_once: Tiles that are restored at the same time. Pictures are cut for that even where
            they fit whole, unless the overlaps would cost most of what it gains.
        must_fit: Whether to give up if not even the smallest tile fits. A CPU can swap: there
            a slow run, or a pessimistic estimate, is better than none.

    Returns:
        The side of the tile in pixels of the source, or None to take pictures whole.

    Raises:
        MemoryShortage: If not even the smallest tile fits.
    """
    budget = free_bytes * MEMORY_SHARE_PERCENT // 100
    largest = (max(height, width) - 1) // TILE_STEP * TILE_STEP
    fitting = [
        tile
        for tile in range(largest, MIN_TILE - 1, -TILE_STEP)
        if at_once * network.memory_bytes(window, min(tile, height), min(tile, width)) <= budget
    ]

    def grid(tile: int) -> Grid:
        return plan_grid(height, width, tile=tile, overlap=TILE_OVERLAP)

    def work(tile: int) -> int:
        return grid(tile).pixels_read

    if network.memory_bytes(window, height, width) <= budget:
        shared = [tile for tile in fitting if len(grid(tile).columns) % at_once == 0]
        best = min(shared, key=work) if shared and at_once > 1 else None
        gains = best is not None and 100 * work(best) <= MAX_WORK_PERCENT * height * width
        return best if gains else None
    if fitting:
        return min(fitting, key=work)
    if must_fit:
        raise MemoryShortage(
            f"{window} frames of {width}x{height} pixels do not fit into the "
            f"{free_bytes / 2**30:.1f} GiB of free memory, not even in tiles of {MIN_TILE} pixels; "
            f"close other programs or use a smaller --window"
        )
    return MIN_TILE


def smaller_tile(tile: int | None, *, longer_side: int) -> int:
    """Give the next tile to try after a shortage of memory: half the side.

    Args:
        tile: The one that did not fit; None for the whole picture.
        longer_side: Of the picture, in pixels.

    Returns:
        A multiple of `TILE_STEP`, smaller than what was tried, at least `MIN_TILE`.

    Raises:
        MemoryShortage: If what was tried is already as small as a tile can be.
    """
    tried = min(tile or longer_side, longer_side)
    if tried <= MIN_TILE:
        raise MemoryShortage(
            f"the memory is too small even for tiles of {MIN_TILE} pixels; "
            f"close other programs or use a smaller --window"
        )
    half = -(-tried // (2 * TILE_STEP)) * TILE_STEP
    return max(MIN_TILE, half)
