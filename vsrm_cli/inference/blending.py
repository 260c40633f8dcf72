"""The pictures of one window while they are put together from tiles, line by line.

What a tile gives is weighted where it fades into the next one, and so is what a frame gives where
windows fade. Lines that no other tile will change become integers at once.
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
    """The pictures of one window while they are put together, band by band.

    Attributes:
        piece: Which frames of the window are kept, and how they fade.
        next_tail: The frames that fade out, weighted, for the canvas of the next window:
            float32, (piece.fall, 3, scale*H, scale*W).
    """

    def __init__(
        self,
        clip: list[Frame],
        piece: Chunk,
        tail: Tensor | None,
        *,
        scale: int,
        device: torch.device,
    ) -> None:
        """Make room for the pictures.

        Args:
            clip: The window as it was read.
            piece: Which of its frames are kept, and how they fade.
            tail: What faded out of the window before, weighted; None for the first one.
            scale: How many times larger the pictures become.
            device: Where they are put together.
        """
        height, width = (scale * side for side in clip[0].pixels.shape[1:])
        self._dtype = clip[0].pixels.dtype
        self._sources = clip[piece.kept_slice]
        self._tail = tail
        self.piece = piece
        self._pictures = [
            _new_picture(height, width, self._dtype, device) for _ in range(piece.kept - piece.fall)
        ]
        self._is_finite = torch.ones(piece.kept, dtype=torch.bool, device=device)
        self.next_tail = torch.empty((piece.fall, 3, height, width), device=device)
        self._foot: Tensor | None = None  # lines that fade out of the row above, weighted

    def strip(self, rows: Chunk) -> Tensor:
        """Give room for the lines that a row of tiles keeps: zeros, float32."""
        size = (self.piece.kept, 3, rows.kept, self.next_tail.shape[-1])
        return self.next_tail.new_zeros(size)

    def add(self, strip: Tensor, rows: Chunk) -> None:
        """Join a row of tiles to the row above it, and finish what no other row will change.

        Args:
            strip: Of `strip`, with the tiles in it; used up.
            rows: The lines that it holds, in the larger picture.
        """
        strip *= weights_of(rows, strip.device)[:, None]
        if self._foot is not None:
            strip[:, :, : rows.rise] += self._foot
        finished = rows.kept - rows.fall
        self._finish(strip[:, :, :finished], top=rows.keep_start)
        # A copy, because a view would keep the whole strip in memory beside the next.
        self._foot = strip[:, :, finished:].clone()

    def _finish(self, band: Tensor, *, top: int) -> None:
        """Finish some lines of all frames, in place.

        Args:
            band: float32, (piece.kept, 3, lines, scale*W); used up.
            top: Where the first of the lines belongs.
        """
        rows = slice(top, top + band.shape[-2])
        finished = len(self._pictures)
        for t, weight in enumerate(self.piece.weights()):
            values = band[t].mul_(weight / self.piece.denominator)
            if self._tail is not None and t < self.piece.rise:
                values += self._tail[t, :, rows]
            self._is_finite[t] &= torch.isfinite(values).all()
            if t < finished:
                write_pixels(values, self._pictures[t][:, rows])
            else:
                self.next_tail[t - finished, :, rows] = values

    def complete(self) -> list[Pixels]:
        """Wait for the device, once for the whole window, and give the finished pictures.

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
        return self._pictures


def _new_picture(
    height: int, width: int, dtype: np.dtype[np.uint8] | np.dtype[np.uint16], device: torch.device
) -> Pixels:
    """Room for a picture; for a CUDA device such that it writes there by itself."""
    if device.type == "cuda" and dtype == np.uint8:
        room = torch.empty((3, height, width), dtype=torch.uint8, pin_memory=True)
        return cast(Pixels, room.numpy())
    return np.empty((3, height, width), dtype)


def write_pixels(values: Tensor, target: Pixels) -> None:
    """Write what `to_pixels` gives; from CUDA it may arrive later, see `BlendBuffer.complete`.

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
    """Round values of 0 to 1, clamping what lies outside, to integers of full range.

    Args:
        values: float32, any shape, on any device.
        dtype: uint8 or uint16.

    Returns:
        The integers, halves rounded up.
    """
    rounded = _rounded(values, np.iinfo(dtype).max)
    if dtype == np.uint8:
        return rounded.to(torch.uint8).cpu().numpy()
    # By way of int32: not every device has unsigned integers of 16 bits.
    return rounded.to(torch.int32).cpu().numpy().astype(np.uint16)


def _rounded(values: Tensor, peak: int) -> Tensor:
    return values.clamp(0, 1).mul_(peak).add_(0.5).floor_()


# Most tiles of a picture fade alike. Made anew, each would be a copy that waits for the device.
@lru_cache(maxsize=64)
def weights_of(piece: Chunk, device: torch.device) -> Tensor:
    """Give the weights of a piece as float32, (piece.kept,)."""
    numerators = torch.tensor(piece.weights(), dtype=torch.float32, device=device)
    return numerators / piece.denominator
