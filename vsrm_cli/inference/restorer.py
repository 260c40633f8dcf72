"""Runs a network over a stream of frames: larger frames come out, one for one, in order.

Frames are read in overlapping windows, and each window in overlapping tiles (see `tiling`). The
results are cross-faded along columns, rows and time. The memory needed depends on the window and
the tile, not on the length of the video: finished frames become integers at once, and only the few
frames over which two windows fade are kept as floats.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import groupby, product
from time import perf_counter
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from vsrm_cli.frame import Frame, Pixels
from vsrm_cli.inference.blending import BlendBuffer, fade_weights
from vsrm_cli.inference.memory import free_cache, free_memory_bytes, is_memory_shortage
from vsrm_cli.inference.tiling import (
    MIN_TILE,
    TILE_OVERLAP,
    TILE_STEP,
    Chunk,
    Chunking,
    choose_batch,
    choose_tile,
    plan_grid,
    read_chunks,
    smaller_tile,
)
from vsrm_cli.inference.window_progress import SECONDS_BETWEEN_REPORTS, WindowProgress

# A window: which of its frames are kept and how they fade, and its frames.
Window = tuple[Chunk, list[Frame]]

# The clip that a CPU is timed with: large enough to be representative, and done in seconds.
SAMPLE_SIZE = (8, 96, 96)


class SupportsRestore(Protocol):
    """What `Restorer` needs of a network, which is on its device and in its precision."""

    @property
    def scale(self) -> int:
        """How many times larger its output is."""
        ...

    def __call__(self, clip: Tensor) -> Tensor:
        """Map (B, T, 3, H, W) in 0..1 to (B, T, 3, scale*H, scale*W), any sizes from 1 on."""
        ...

    def memory_bytes(self, time: int, height: int, width: int) -> int:
        """Estimate the peak working memory for one clip in float32, in bytes."""
        ...


class Restorer:
    """Enlarges one video with a network.

    Attributes:
        network: The network.
        tile: Side of the tiles, in pixels of the source; None for whole frames. An automatic choice
            is made with the first window; running out of memory makes the tile smaller for the rest
            of the video.
        batch: Tiles, or windows of whole frames, in one call of the network; None until chosen.
            Running out of memory makes it smaller first.
        windows: How a shot is divided into windows.
    """

    def __init__(
        self,
        network: SupportsRestore,
        *,
        window: int,
        overlap: int,
        tile: int | Literal["auto"] | None,
        device: torch.device,
        dtype: torch.dtype,
        workers: int = 1,
        batch: int | None = 1,
    ) -> None:
        """Keep the settings.

        Args:
            network: Already on `device`, in `dtype`.
            window: Frames read together, at least 1.
            overlap: Frames shared by neighboring windows, 0 to window // 2.
            tile: Side of a tile in pixels of the source, at least `MIN_TILE`, its overlaps
                included; rounded down to a multiple of `TILE_STEP`. None for whole frames, "auto"
                chooses by the free memory.
            device: Where the network is.
            dtype: Floating-point type of the network's input.
            workers: Tiles restored at the same time, each on its share of the processor. On a CPU
                most layers are too small to keep two cores busy; two tiles keep them busy.
            batch: Tiles, or windows of whole frames, in one call of the network; None chooses by
                the free memory. A small frame alone does not keep a GPU busy.

        Raises:
            ValueError: If window, overlap, tile or batch is out of range, or if there are both
                workers and batches.
        """
        if batch is not None and batch < 1:
            raise ValueError(f"a batch must have at least 1 tile, got {batch}")
        if workers > 1 and batch != 1:
            raise ValueError(f"workers take single tiles, got {workers} and batches of {batch}")
        if isinstance(tile, int) and tile < MIN_TILE:
            raise ValueError(f"a tile must have at least {MIN_TILE} pixels, got {tile}")
        self.tile = tile - tile % TILE_STEP if isinstance(tile, int) else None
        self._tile_is_open = tile == "auto"
        self.batch = batch
        self.windows = plan_windows(window, overlap)
        self.network = network
        self._device = device
        self._dtype = dtype
        self._workers = workers
        self._threads = max(1, torch.get_num_threads() // workers)
        self._pool = ThreadPoolExecutor(workers) if workers > 1 else None
        self._progress: WindowProgress | None = None

    def watch(self, report: Callable[[float], None]) -> None:
        """Report progress while windows are computed, in this thread, until all of them are.

        Args:
            report: Called with the number of frames computed since the last window, as a fraction;
                replaces the one before.
        """
        if self._progress is not None:
            self._progress.stop()
        self._progress = WindowProgress(self.network, report)

    def restore(self, frames: Iterable[Frame], *, begin: int = 0) -> Generator[Frame, None, None]:
        """Enlarge a stream of frames of one size.

        Each shot is restored on its own: no window reaches across a cut. Windows are planned by the
        number of a frame in its shot. So a frame is the same whether the job started at the first
        frame or in the middle of the video; with batches, up to rounding on the device.

        Frames are read when they are needed: at most one window (or one batch of windows) and one
        frame ahead of the output.

        Args:
            frames: The video in presentation order, pixels (3, H, W), all of one size and type.
                The first one is number `windows.margin_start(begin)` of its shot.
            begin: Number of the first frame to yield, counted from the first one of its shot.

        Yields:
            One frame for each input frame from `begin` on, in order: pixels (3, scale*H, scale*W)
            of the same integer type; everything else is unchanged.

        Raises:
            MemoryShortage: If not even the smallest tile fits into memory.
            CheckFailed: If the network's output is not finite.
        """
        try:
            for shot in _shots(frames):
                yield from self._restore_shot(shot, begin=begin)
                begin = 0
        finally:
            if self._progress is not None:
                self._progress.stop()

    def _restore_shot(self, frames: Iterable[Frame], *, begin: int) -> Iterator[Frame]:
        carry_over: Tensor | None = None
        first = self.windows.chunk_before(begin)
        for group in self._grouped(read_chunks(frames, self.windows, first=first)):
            results, carry_over = self._restore_windows(group, carry_over)
            for chunk, clip in group:
                outputs = results.pop(0)
                restored = zip(clip[chunk.kept_slice], outputs, strict=False)
                for number, (source, pixels) in enumerate(restored, chunk.keep_start):
                    is_last = number + 1 == chunk.keep_stop - chunk.fall
                    if number >= begin:
                        yield replace(source, pixels=pixels, ends_window=is_last, tile=self.tile)
                # Frees their memory before the next window.
                del outputs

    def _grouped(self, windows: Iterable[Window]) -> Iterator[list[Window]]:
        """Collect windows of one length, as many as fit into one call of the network."""
        group: list[Window] = []
        for window in windows:
            _, clip = window
            self.choose_tile(len(clip), *clip[0].pixels.shape[1:])
            if group and len(group[0][1]) != len(clip):
                yield group
                group = []
            group.append(window)
            if len(group) >= self._windows_at_once(clip[0]):
                yield group
                group = []
        if group:
            yield group

    def _windows_at_once(self, frame: Frame) -> int:
        """Windows in one call; if frames are divided into tiles, these fill the batch instead."""
        is_whole = self.tile is None or max(frame.pixels.shape[1:]) <= self.tile
        return (self.batch or 1) if is_whole else 1

    def choose_tile(self, frames: int, height: int, width: int) -> None:
        """Choose the tile and the batch, if they are automatic, for a size of windows.

        Raises:
            MemoryShortage: If not even the smallest tile fits into memory.
        """
        if self._tile_is_open:
            self.tile = choose_tile(
                self.network.memory_bytes,
                window=frames,
                height=height,
                width=width,
                free_bytes=free_memory_bytes(self._device),
                must_fit=self._device.type != "cpu",
                at_once=self._workers,
            )
            self._tile_is_open = False
        if self.batch is None:
            side = self.tile or max(height, width)
            self.batch = choose_batch(
                self.network.memory_bytes,
                window=frames,
                height=min(side, height),
                width=min(side, width),
                free_bytes=free_memory_bytes(self._device),
            )

    @torch.inference_mode()
    def seconds_per_pixel(self, height: int, width: int) -> float:
        """Measure how long the network takes for one pixel of frames of a size.

        A GPU computes one tile of a window, which takes little time and keeps it busy. A CPU
        computes a part of that.
        """
        side = self.tile or max(height, width)
        size = (self.windows.size, side, side)
        if self._device.type == "cpu":
            size = SAMPLE_SIZE
        time, *sides = (min(a, b) for a, b in zip(size, (size[0], height, width), strict=True))
        clip = torch.zeros((1, time, 3, *sides), device=self._device, dtype=self._dtype)
        # The first run compiles and allocates; on a CPU two frames are enough for that.
        first = clip[:, :2] if self._device.type == "cpu" else clip
        self.network(first).sum().item()
        began = perf_counter()
        self.network(clip).sum().item()  # `item` waits for the device
        return (perf_counter() - began) / (clip.numel() / 3)

    def memory_bytes(self, height: int, width: int) -> int:
        """Estimate the memory that the network needs for frames of a size, in bytes."""
        side = self.tile or max(height, width)
        tile = (min(side, height), min(side, width))
        at_once = max(self._workers, self.batch or 1)
        return at_once * self.network.memory_bytes(self.windows.size, *tile)

    def _restore_windows(
        self, windows: list[Window], carry_over: Tensor | None
    ) -> tuple[list[list[Pixels]], Tensor | None]:
        """Restore consecutive windows; after running out of memory, with smaller batches and tiles.

        Args:
            windows: All of one length.
            carry_over: The frames that fade out of the window before them, weighted.

        Returns:
            The finished frames of each window, and the carry-over for the window after them.
        """
        finished: list[list[Pixels]] = []
        while len(finished) < len(windows):
            clip = windows[len(finished)][1]
            count = self._windows_at_once(clip[0])
            # It cannot be known in advance whether the memory suffices: estimates err, and other
            # programs need memory as well.
            try:
                part = windows[len(finished) : len(finished) + count]
                frames, carry_over = self._try_windows(part, carry_over)
                finished += frames
                continue
            except RuntimeError as error:
                if not is_memory_shortage(error):
                    raise
            # Outside the handler, since the error's traceback holds the tensors of the attempt.
            free_cache(self._device)
            if self.batch is not None and self.batch > 1:
                self.batch //= 2
            else:
                self.tile = smaller_tile(self.tile, longer_side=max(clip[0].pixels.shape[1:]))
        return finished, carry_over

    @torch.inference_mode()
    def _try_windows(
        self, windows: list[Window], carry_over: Tensor | None
    ) -> tuple[list[list[Pixels]], Tensor | None]:
        """Restore windows in one batch; returns their finished frames and the next carry-over."""
        buffers = []
        for chunk, clip in windows:
            buffer = BlendBuffer(
                clip, chunk, carry_over, scale=self.network.scale, device=self._device
            )
            buffers.append(buffer)
            carry_over = buffer.next_carry_over  # filled line by line, before the next one needs it
        clips = [self._to_tensor(clip) for _, clip in windows]
        grid = plan_grid(*clips[0].shape[-2:], tile=self.tile, overlap=TILE_OVERLAP)
        if self._progress:
            kept = sum(chunk.keep_stop - chunk.fall - chunk.keep_start for chunk, _ in windows)
            self._progress.begin(
                tiles=len(grid.rows) * len(grid.columns) * len(clips),
                frames=len(clips[0]),
                outputs=kept,
            )
        for row in grid.rows:
            self._restore_row(clips, row, grid.columns, buffers)
        return [buffer.complete() for buffer in buffers], carry_over

    def _restore_row(
        self, clips: list[Tensor], row: Chunk, columns: list[Chunk], buffers: list[BlendBuffer]
    ) -> None:
        """Restore one row of tiles of all windows and add it to the blend buffers.

        Args:
            clips: The windows, (T, 3, H, W) each.
            row: The lines to read, and how they fade.
            columns: The tiles of the row.
            buffers: The blend buffer of each window.
        """
        large = row.scaled(self.network.scale)
        row_buffers = [buffer.row_buffer(large) for buffer in buffers]
        places = list(product(columns, range(len(clips))))
        at_once = max(self._workers, self.batch or 1)
        for first in range(0, len(places), at_once):
            group = places[first : first + at_once]
            tiles = [clips[w][:, :, row.start : row.stop, c.start : c.stop] for c, w in group]
            for (column, w), restored in zip(group, self._restore_tiles(tiles), strict=True):
                chunks = (buffers[w].chunk, large, column.scaled(self.network.scale))
                self._add_tile(row_buffers[w], restored, chunks)
            if self._progress:
                self._progress.note_tiles(len(group))
        for buffer, row_buffer in zip(buffers, row_buffers, strict=True):
            buffer.add(row_buffer, large)

    def _restore_tiles(self, tiles: list[Tensor]) -> Iterable[Tensor]:
        """Restore tiles, (T, 3, h, w) each, at the same time: (T, 3, scale*h, scale*w) each."""
        if self._pool is None or len(tiles) == 1:
            # The last tile of a row may be narrower.
            groups = groupby(tiles, key=lambda tile: tile.shape)
            return (large for _, same in groups for large in self.network(torch.stack([*same])))
        futures = [self._pool.submit(self._restore_tile_aside, tile) for tile in tiles]
        while self._progress and wait(futures, SECONDS_BETWEEN_REPORTS).not_done:
            self._progress.report()
        return (future.result() for future in futures)

    def _restore_tile_aside(self, tile: Tensor) -> Tensor:
        """Restore a tile in a thread of its own; both settings are per thread."""
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            return self.network(tile.contiguous()[None])[0]

    def _add_tile(
        self, row_buffer: Tensor, restored: Tensor, chunks: tuple[Chunk, Chunk, Chunk]
    ) -> None:
        """Add the kept columns of a restored tile to its row.

        The chunks are those of time, rows and columns, the last two in pixels of the output.
        """
        time, rows, columns = chunks
        kept = restored[time.kept_slice, :, rows.kept_slice, columns.kept_slice]
        weights = fade_weights(columns, self._device)
        # One frame after another, so that only one is copied at a time.
        for part, buffer in zip(kept, row_buffer, strict=True):
            target = buffer[:, :, columns.keep_start : columns.keep_stop]
            target.addcmul_(part.float(), weights)

    def _to_tensor(self, clip: list[Frame]) -> Tensor:
        """Stack frames to (T, 3, H, W), 0 to 1, on the device, in the network's type."""
        pixels = np.stack([frame.pixels for frame in clip])
        peak = np.iinfo(clip[0].pixels.dtype).max
        if pixels.dtype != np.uint8:  # not every device has unsigned integers of 16 bits
            pixels = pixels.astype(np.int32)
        # Integers are copied to the device, from pinned memory.
        whole = torch.from_numpy(pixels)
        if self._device.type == "cuda":
            whole = whole.pin_memory()
        values = whole.to(self._device, non_blocking=True).float()
        return (values / peak).to(self._dtype)


def plan_windows(window: int, overlap: int) -> Chunking:
    """How a shot is divided into windows of a length and an overlap."""
    # A last window of half the length has enough context, and takes less time.
    return Chunking(window, overlap, shortest=window - window // 2)


def _shots(frames: Iterable[Frame]) -> Iterator[Iterator[Frame]]:
    """Divide a video at its scene cuts; each shot must be consumed before the next."""
    cuts = 0

    def cuts_before(frame: Frame) -> int:
        nonlocal cuts
        cuts += frame.begins_shot
        return cuts

    return (shot for _, shot in groupby(frames, cuts_before))
