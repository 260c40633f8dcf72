"""Implicit alignment: sample another frame along a flow by attention to the four nearest pixels.

Bilinear interpolation averages the four pixels around a position, which blurs. Here the query comes
from the target pixel, and keys and values come from the four source pixels. Position codes encode
the positions of the four pixels and of the sample.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.ops.warp import pixel_grid

# Ratio of the lowest to the highest frequency of the position codes.
TEMPERATURE = 0.01
TAPS = ((0, 0), (0, 1), (1, 0), (1, 1))  # (row, column)
# Pixels per batch on a CPU: their keys and values fit into the cache.
PIXELS_AT_ONCE = 4096


@dataclass(frozen=True)
class Taps:
    """The four source pixels around each position that a flow points to.

    Attributes:
        index: Source pixels, numbered across the batch, (B * H * W, 4) int32, clamped to the edge.
        weight: Bilinear weights, zero outside the frame, (B * H * W, 4).
        query: The part of the query that comes from the position code, (B * H * W, C).
    """

    index: Tensor
    weight: Tensor
    query: Tensor


class ImplicitAlign(nn.Module):
    """Attention of each target pixel to the four source pixels around the end of its flow.

    Args:
        channels: Channels of the features, C; a multiple of four.
        heads: Heads of the attention; a divisor of C.

    Source: "Enhancing Video Super-Resolution via Implicit Resampling-based Alignment" (arXiv
    2305.00163), section 3.2, in the form of GSMamba (arXiv 2510.00862): windows of 2 x 2, no
    output projection. Keys and values of a pixel are the same in all windows that contain it, so
    they are projected before they are gathered, which is a quarter of the work.
    """

    position_bias: Tensor
    window_idx_offset: Tensor

    def __init__(self, channels: int, heads: int) -> None:
        """Create the projections and the position codes of the four pixels."""
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        taps = torch.tensor(TAPS, device="cpu")  # the first operation on the meta device is slow
        code = position_encoding(taps / (1 + 1e-6), channels)
        # Both buffers are in the published weight files.
        self.register_buffer("position_bias", code[None])
        self.register_buffer("window_idx_offset", taps)

    def taps(self, flow: Tensor) -> Taps:
        """Find the pixels that a flow points to; in float32, except for the query projection.

        Args:
            flow: (B, 2, H, W), pixels, dx first.
        """
        height, width = flow.shape[-2:]
        place = pixel_grid(height, width, device=flow.device) + flow.float()
        base = place.floor()
        x, y = (place - base).flatten(2).unbind(1)  # (B, H * W) each, from 0 to below 1
        left, top = base.flatten(2).unbind(1)
        first = torch.arange(flow.shape[0], device=flow.device)[:, None] * (height * width)
        index, weight = [], []
        for dy, dx in TAPS:
            row, column = top + dy, left + dx
            is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            share = (y if dy else 1 - y) * (x if dx else 1 - x)
            weight.append(share * is_inside)
            pixel = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            index.append(first + pixel.long())
        off = torch.stack((y, x), dim=-1).flatten(0, 1)  # (B * H * W, 2)
        code = position_encoding(off / (2 + 1e-6), self.q.in_features)
        return Taps(
            index=torch.stack(index, dim=-1).flatten(0, 1).int(),
            weight=torch.stack(weight, dim=-1).flatten(0, 1),
            query=self.q(code.to(self.q.weight.dtype)),
        )

    def project_query(self, target: Tensor) -> Tensor:
        """The part of the query that comes from the target pixels, (P, C) to (P, C)."""
        return F.linear(target.to(self.q.weight.dtype), self.q.weight)

    def project_keys_values(self, source: Tensor) -> Tensor:
        """Keys and values of source pixels, concatenated: (P, C) to (P, 2C)."""
        weight = torch.cat((self.k.weight, self.v.weight))
        return F.linear(source.to(weight.dtype), weight)

    def forward(self, query: Tensor, keys_values: Tensor, taps: Taps) -> Tensor:
        """Align a source frame to a target frame.

        Args:
            query: `project_query` of the target pixels, (P, C) with P = B * H * W.
            keys_values: `project_keys_values` of the source pixels, (P, 2C).
            taps: The source pixels of each target pixel.

        Returns:
            (P, C).
        """
        weight, bias = (
            torch.cat((getattr(self.k, name), getattr(self.v, name))) for name in ("weight", "bias")
        )
        # Keys and values of the position codes: one constant for each of the four pixels.
        code = F.linear(self.position_bias[0].to(weight.dtype), weight, bias)  # (4, 2C)
        query = (query + taps.query) * (query.shape[1] // self.heads) ** -0.5
        step = PIXELS_AT_ONCE if query.device.type == "cpu" else len(query)
        parts = [
            self._attend(query[i : i + step], keys_values, taps.index[i : i + step], code)
            for i in range(0, len(query), step)
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _attend(self, query: Tensor, keys_values: Tensor, index: Tensor, code: Tensor) -> Tensor:
        near = keys_values.index_select(0, index.flatten()).view(*index.shape, -1)  # (p, 4, 2C)
        key, value = (near + code).unflatten(-1, (2 * self.heads, -1)).chunk(2, dim=2)
        scores = (query.unflatten(-1, (self.heads, -1))[:, None] * key).sum(-1)
        shares = scores.float().softmax(dim=1).to(value.dtype)[..., None]  # (p, 4, heads, 1)
        mixed: Tensor = (shares * value).sum(1).flatten(1)
        return mixed


def position_encoding(place: Tensor, channels: int) -> Tensor:
    """Sines (even channels) and cosines (odd channels) of a position: first rows, then columns.

    Args:
        place: (..., 2), row first, as a fraction of a period.
        channels: Length of the code; a multiple of four.

    Returns:
        (..., channels), float32.
    """
    half = channels // 2
    channel = torch.arange(half, device=place.device)
    wave = TEMPERATURE ** (2 * (channel // 2) / half)
    angle = (place.float() * (2 * math.pi))[..., None] / wave  # (..., 2, half)
    code = torch.where(channel % 2 == 0, angle.sin(), angle.cos())
    return code.flatten(-2)


def gather_bilinear(pixels: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Bilinear interpolation of token-major pixels.

    Args:
        pixels: (P, C).
        index: Four of them for each result, (R, 4).
        weight: Their weights, (R, 4).

    Returns:
        (R, C).
    """
    return F.embedding_bag(index, pixels, mode="sum", per_sample_weights=weight.to(pixels.dtype))
