"""The blend buffer: frames of a window are put together from tiles, row by row.

Tiles are weighted where they fade into the next one, and frames where windows fade. Lines that no
other tile will change become integers at once.
"""

from functools import lru_cache
from typing import cast

import numpy as np
import torch
from torch import Tensor

from vsrm_cli.errors import CheckFailed
from vsrm_cli.frame import Frame, Pixels
from vsrm_cli.inference.tiling import Chunk


class BlendBuffer:
    """The output frames of one window while they are put together.

    Attributes:
        chunk: Which frames of the window are kept, and how they fade.
        next_carry_over: The frames that fade out, weighted, for the buffer of the next window:
            float32, (chunk.fall, 3, scale*H, scale*W).
    """

    def __init__(
        self,
        clip: list[Frame],
        chunk: Chunk,
        carry_over: Tensor | None,
        *,
        scale: int,
        device: torch.device,
    ) -> None:
        """Allocate the frames.

        Args:
            clip: The input frames of the window.
            chunk: Which of its frames are kept, and how they fade.
            carry_over: The frames that fade out of the window before, weighted; None for the first.
            scale: How many times larger the output is.
            device: Where they are put together.
        """
        height, width = (scale * side for side in clip[0].pixels.shape[1:])
        self._dtype = clip[0].pixels.dtype
        self._sources = clip[chunk.kept_slice]
        self._carry_over = carry_over
        self.chunk = chunk
        self._frames = [
            _new_frame(height, width, self._dtype, device) for _ in range(chunk.kept - chunk.fall)
        ]
        self._is_finite = torch.ones(chunk.kept, dtype=torch.bool, device=device)
        self.next_carry_over = torch.empty((chunk.fall, 3, height, width), device=device)
        self._rows_above: Tensor | None = None  # lines that fade out of the row above, weighted

    def row_buffer(self, rows: Chunk) -> Tensor:
        """A buffer of zeros for the lines that a row of tiles keeps, float32."""
        size = (self.chunk.kept, 3, rows.kept, self.next_carry_over.shape[-1])
        return self.next_carry_over.new_zeros(size)

    def add(self, row_buffer: Tensor, rows: Chunk) -> None:
        """Blend a row of tiles with the row above it, and finish lines that are complete.

        Args:
            row_buffer: From `row_buffer`, with the tiles added; overwritten.
            rows: Its lines, in pixels of the output.
        """
        row_buffer *= fade_weights(rows, row_buffer.device)[:, None]
        if self._rows_above is not None:
            row_buffer[:, :, : rows.rise] += self._rows_above
        finished = rows.kept - rows.fall
        self._finish(row_buffer[:, :, :finished], top=rows.keep_start)
        # A copy, because a view would keep the whole row buffer in memory.
        self._rows_above = row_buffer[:, :, finished:].clone()

    def _finish(self, band: Tensor, *, top: int) -> None:
        """Finish some lines of all frames, in place.

        Args:
            band: float32, (chunk.kept, 3, lines, scale*W); overwritten.
            top: Number of the first line.
        """
        rows = slice(top, top + band.shape[-2])
        finished = len(self._frames)
        for t, weight in enumerate(self.chunk.weights()):
            values = band[t].mul_(weight / self.chunk.denominator)
            if self._carry_over is not None and t < self.chunk.rise:
                values += self._carry_over[t, :, rows]
            self._is_finite[t] &= torch.isfinite(values).all()
            if t < finished:
                write_pixels(values, self._frames[t][:, rows])
            else:
                self.next_carry_over[t - finished, :, rows] = values

    def complete(self) -> list[Pixels]:
        """Wait for the device, once for the whole window, and return the finished frames.

        Returns:
            (3, scale*H, scale*W) each.

        Raises:
            CheckFailed: If a value is not finite.
        """
        for source, is_finite in zip(self._sources, self._is_finite.tolist(), strict=True):
            if not is_finite:
                raise CheckFailed(
                    f"the network's output for the frame at {float(source.time):.3f} s "
                    f"is not finite; try --dtype fp32 or another model"
                )
        return self._frames


def _new_frame(
    height: int, width: int, dtype: np.dtype[np.uint8] | np.dtype[np.uint16], device: torch.device
) -> Pixels:
    """An empty frame; in pinned memory for a CUDA device, which writes into it directly."""
    if device.type == "cuda" and dtype == np.uint8:
        room = torch.empty((3, height, width), dtype=torch.uint8, pin_memory=True)
        return cast(Pixels, room.numpy())
    return np.empty((3, height, width), dtype)


def write_pixels(values: Tensor, target: Pixels) -> None:
    """Write the result of `to_pixels`; from CUDA asynchronously, see `BlendBuffer.complete`.

    Args:
        values: float32, on any device.
        target: Shaped like them, uint8 or uint16.
    """
    if target.dtype == np.uint8:
        rounded = _rounded(values, 255).to(torch.uint8)
        is_later = values.is_cuda and target.flags.c_contiguous
        torch.from_numpy(target).copy_(rounded, non_blocking=is_later)
    else:
        target[...] = to_pixels(values, target.dtype)


def to_pixels(values: Tensor, dtype: np.dtype[np.uint8] | np.dtype[np.uint16]) -> Pixels:
    """Round values of 0 to 1 to integers of full range; values outside are clamped.

    Args:
        values: float32, any shape, on any device.
        dtype: uint8 or uint16.

    Returns:
        The integers, halves rounded up.
    """
    rounded = _rounded(values, np.iinfo(dtype).max)
    if dtype == np.uint8:
        return rounded.to(torch.uint8).cpu().numpy()
    # Through int32: not every device has unsigned integers of 16 bits.
    return rounded.to(torch.int32).cpu().numpy().astype(np.uint16)


def _rounded(values: Tensor, peak: int) -> Tensor:
    return values.clamp(0, 1).mul_(peak).add_(0.5).floor_()


# Most tiles fade alike. Without the cache, each would be a copy that waits for the device.
@lru_cache(maxsize=64)
def fade_weights(chunk: Chunk, device: torch.device) -> Tensor:
    """The weights of a chunk as float32, (chunk.kept,)."""
    numerators = torch.tensor(chunk.weights(), dtype=torch.float32, device=device)
    return numerators / chunk.denominator
