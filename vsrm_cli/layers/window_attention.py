"""Attention inside shifted windows of a clip."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import ceil, prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.layers.blocks import GEGLU

WINDOW = (2, 8, 8)  # the largest window: frames, rows, columns
# Added to the scores of tokens that are neighbors only because of the cyclic shift. Finite, as in
# the published network, but large enough to vanish in the softmax.
FOREIGN = -100.0

Triple = tuple[int, int, int]


class WindowAttention(nn.Module):
    """Self-attention among the tokens of a window, with a learned relative position bias.

    Args:
        channels: Channels of the tokens, C.
        heads: Parts into which they are divided; a divisor of C.

    Source: Swin Transformer (arXiv 2103.14030), equation 4, over three axes.
    """

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int) -> None:
        """Create the projections and the bias table."""
        super().__init__()
        self.heads = heads
        places = prod(2 * size - 1 for size in WINDOW)
        self.relative_position_bias_table = nn.Parameter(torch.empty(places, heads))
        # Published weight files have it; the index in use is computed for each window size.
        self.register_buffer("relative_position_index", relative_position_index(WINDOW, WINDOW))
        self.qkv_self = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, window: Triple, shift: Triple) -> Tensor:
        """Attend within the windows of as many frames as a window has.

        Args:
            x: (B, t, H, W, C), already padded and rolled; H and W multiples of the window's.
            window: Size of the windows, at most that of the table.
            shift: By how much the tokens were rolled. In time, by how much these windows wrap
                around: zero except for the last ones.

        Returns:
            Shaped like ``x``.
        """
        batch, time, height, width, channels = x.shape
        rows, columns = height // window[1], width // window[2]
        cut = (batch, time, rows, window[1], columns, window[2], 3, self.heads, -1)
        qkv = self.qkv_self(x).view(cut)
        q, k, v = qkv.permute(6, 0, 2, 4, 7, 1, 3, 5, 8).flatten(5, 7).unbind(0)
        # each (B, rows, columns, heads, tokens, C / heads)
        out = torch.empty_like(q)
        bias = self._bias(window)
        for part, mask in group_windows(rows, columns, window, shift, x.device):
            scores = bias + mask.to(bias.dtype)
            attended = F.scaled_dot_product_attention(
                q[part].flatten(0, 2), k[part].flatten(0, 2), v[part].flatten(0, 2), scores
            )
            out[part] = attended.view_as(q[part])
        out = out.unflatten(4, window).permute(0, 4, 1, 5, 2, 6, 3, 7)
        result: Tensor = self.proj(out.reshape(batch, time, height, width, channels))
        return result

    def _bias(self, window: Triple) -> Tensor:
        """The position bias of each pair of tokens, (1, heads, tokens, tokens)."""
        index = _cached_positions(window, WINDOW, self.relative_position_bias_table.device)
        scores = self.relative_position_bias_table[index.flatten()]
        return scores.view(*index.shape, self.heads).permute(2, 0, 1)[None]


class AttentionBlock(nn.Module):
    """Attention inside windows and a gated feed-forward layer, each on normalized tokens, residual.

    Args:
        channels: Channels of the tokens, C.
        heads: Heads of the attention.
        hidden: Channels between the feed-forward layers.
        is_shifted: Whether the windows are shifted by half a window in rows, columns and frames.

    Source: Video Swin Transformer (arXiv 2106.13230), section 3, without masking of the padding:
    its keys and values are zero, and it takes part in the softmax.
    """

    def __init__(self, channels: int, heads: int, hidden: int, *, is_shifted: bool) -> None:
        """Make the attention and the feed-forward layer."""
        super().__init__()
        self.is_shifted = is_shifted
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = GEGLU(channels, hidden)

    def forward(self, frames: list[Tensor]) -> list[Tensor]:
        """Map T frames (B, H, W, C) to as many.

        Only the frames of one window are computed at a time, to save memory.
        """
        size = (len(frames), *frames[0].shape[1:3])
        window, shift = fit_windows(size, WINDOW, is_shifted=self.is_shifted)
        padded = window[0] * ceil(size[0] / window[0])
        results = list(frames)
        for start in range(0, padded, window[0]):
            places = [(start + shift[0] + i) % padded for i in range(window[0])]
            wraps = shift[0] if start + window[0] == padded else 0
            row = self._row(frames, places, window, (wraps, *shift[1:]))
            for place, frame in zip(places, row, strict=True):
                if place < len(frames):
                    results[place] = frame
        return results

    def _row(
        self, frames: list[Tensor], places: list[int], window: Triple, shift: Triple
    ) -> list[Tensor]:
        """The windows of some frames, padded with zero frames after normalization."""
        real = torch.stack([frames[place] for place in places if place < len(frames)], dim=1)
        normal = self.norm1(real).to(self.attn.proj.weight.dtype)
        missing = [i for i, place in enumerate(places) if place >= len(frames)]
        for i in missing:
            normal = torch.cat(
                (normal[:, :i], torch.zeros_like(normal[:, :1]), normal[:, i:]), dim=1
            )
        attended = self._attend(normal, window, shift)
        kept = [i for i in range(len(places)) if i not in missing]
        if missing:  # a list as an index would be copied to the device, which waits for it
            real = real + torch.stack([attended[:, i] for i in kept], dim=1)
        else:
            real = real + attended
        real = real + self.mlp(self.norm2(real).to(attended.dtype))
        whole = dict(zip(kept, real.unbind(1), strict=True))
        return [whole.get(i, frames[0]) for i in range(len(places))]

    def _attend(self, x: Tensor, window: Triple, shift: Triple) -> Tensor:
        """Pad rows and columns at their end, roll, attend, and undo both."""
        height, width = x.shape[2:4]
        x = F.pad(x, (0, 0, 0, -width % window[2], 0, -height % window[1]))
        if shift[1] or shift[2]:
            x = torch.roll(x, (-shift[1], -shift[2]), dims=(2, 3))
        x = self.attn(x, window, shift)
        if shift[1] or shift[2]:
            x = torch.roll(x, (shift[1], shift[2]), dims=(2, 3))
        return x[:, :, :height, :width]


def fit_windows(size: Triple, window: Triple, *, is_shifted: bool) -> tuple[Triple, Triple]:
    """Window and shift for a clip: an axis no longer than a window has one window and no shift.

    Args:
        size: Frames, rows, columns of the clip.
        window: Largest window.
        is_shifted: Whether windows are shifted by half a window.
    """
    fitted = tuple(min(n, w) for n, w in zip(size, window, strict=True))
    shift = tuple(w // 2 if is_shifted and n > w else 0 for n, w in zip(size, window, strict=True))
    return (fitted[0], fitted[1], fitted[2]), (shift[0], shift[1], shift[2])


def relative_position_index(window: Triple, table: Triple) -> Tensor:
    """Row of the bias table for each pair of tokens of a window, (tokens, tokens) int64.

    Args:
        window: The window; tokens are in the order of frames, rows, columns.
        table: The window for which the table was made.
    """
    axes = torch.meshgrid(*(torch.arange(n, device="cpu") for n in window), indexing="ij")
    places = torch.stack([axis.flatten() for axis in axes])  # (3, tokens)
    apart = places[:, :, None] - places[:, None, :]
    t, y, x = (apart[axis] + table[axis] - 1 for axis in range(3))
    return (t * (2 * table[1] - 1) + y) * (2 * table[2] - 1) + x


def group_windows(
    rows: int, columns: int, window: Triple, shift: Triple, device: torch.device
) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
    """Divide windows into groups that share a mask.

    Only the last windows along a shifted axis need one.

    Args:
        rows: Number of windows vertically.
        columns: Number of windows horizontally.
        window: Size of the windows.
        shift: By how much the tokens were rolled.
        device: Of the masks.

    Yields:
        Slices of (B, rows, columns), and the mask, (tokens, tokens), zero or `FOREIGN`.
    """
    for last_row, last_column in product(*([False, True] if s else [False] for s in shift[1:])):
        part = (
            slice(None),
            _part(rows, is_shifted=bool(shift[1]), is_last=last_row),
            _part(columns, is_shifted=bool(shift[2]), is_last=last_column),
        )
        wraps = (shift[0], shift[1] * last_row, shift[2] * last_column)
        yield part, _mask(window, wraps, device)


def _part(count: int, *, is_shifted: bool, is_last: bool) -> slice:
    if not is_shifted:
        return slice(None)
    return slice(count - 1, None) if is_last else slice(0, count - 1)


# Cached tensors must work in training, even if they are made in inference mode.
@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _cached_positions(window: Triple, table: Triple, device: torch.device) -> Tensor:
    return relative_position_index(window, table).to(device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _mask(window: Triple, wraps: Triple, device: torch.device) -> Tensor:
    """Mask pairs of tokens of which only one was rolled around the edge."""
    sides = torch.zeros(window, dtype=torch.int64)
    for axis, (length, wrapped) in enumerate(zip(window, wraps, strict=True)):
        is_wrapped = (torch.arange(length) >= length - wrapped).long() << axis
        sides += is_wrapped.view([-1 if i == axis else 1 for i in range(3)])
    flat = sides.flatten()
    return torch.where(flat[:, None] == flat[None, :], 0.0, FOREIGN).to(device)
