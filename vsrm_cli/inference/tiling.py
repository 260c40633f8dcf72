"""Cutting a video into pieces that a network can take, and knowing which part of each to keep.

A line of things (frames, rows or columns) is cut into *pieces* of one size, and neighbors
overlap. Near the end of a piece the network has seen little of what lies beyond, so the outer
part of an overlap, the *context*, is read and thrown away. Over the inner part, the *ramp*,
one piece fades out while the next fades in, so that no edge is seen where they meet.

    piece 0   kkkkkkkkkkkkrrrrcc
    piece 1             ccrrrrkkkkkkrrrrcc               k kept whole, r ramp, c context

The join of two pieces always lies in the last `overlap` items of the earlier one. Where little
is left for the last piece, it starts earlier than its turn, and what it reads before the join
is more context. Tiles are all of one size; windows of frames may end with a shorter one.

Frames are cut along time (windows), pictures along rows and columns (tiles), by the same rule.
Only integers live here: no tensor, no file. Every rule can be checked with a pencil.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

from vsrm_cli.errors import MemoryShortage

# Pixels shared by neighboring tiles: 8 at each edge are thrown away, where a network sees
# invented pixels instead of the picture, and 16 fade. Users of tile upscalers report seams
# with 10 pixels of padding, and none with 32 (Real-ESRGAN issue 211, GPEN issue 129).
TILE_OVERLAP = 32
# With smaller tiles more than two would meet on one line; see `tiling.Chunking`.
MIN_TILE = 2 * TILE_OVERLAP
TILE_STEP = 16

# Two tiles at once on two cores take two thirds of the time of the whole picture, so a quarter
# more pixels is a price worth paying for it.
MAX_WORK_PERCENT = 125

# The part of the free memory that a window may fill by its network's estimate, in percent.
# The rest is for the pictures being joined, for fragmentation, and for other programs.
MEMORY_SHARE_PERCENT = 70

# So many tiles are restored together at most, and so many pixels of each frame: what a window of
# them gives a GPU to do at a time, some hundred thousand tokens, is enough for all its cores.
# Reckoned, not measured: `benchmarks/gpu.py` measures it.
MAX_BATCH = 4
BATCH_PIXELS = 1 << 18

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch that is read together, and the part of it that is kept.

    All ranges are half-open and count from the start of the whole line.

    Attributes:
        start: First item that is read.
        stop: One past the last item that is read.
        keep_start: First item that is kept.
        keep_stop: One past the last item that is kept.
        rise: How many kept items at the head fade in; 0 for the first piece.
        fall: How many kept items at the tail fade out; 0 for the last piece.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int
    rise: int
    fall: int

    @property
    def size(self) -> int:
        """Number of items read."""
        return self.stop - self.start

    @property
    def kept(self) -> int:
        """Number of items kept."""
        return self.keep_stop - self.keep_start

    @property
    def kept_slice(self) -> slice:
        """Where the kept items lie among those that were read."""
        return slice(self.keep_start - self.start, self.keep_stop - self.start)

    @property
    def denominator(self) -> int:
        """What the numbers of `weights` are divided by; the weight of an item kept whole."""
        return max(self.rise, self.fall) + 1

    def weights(self) -> list[int]:
        """Give the weight of each kept item, as numerators over `denominator`.

        Over a ramp of r items they are 1, 2, .. r on the way in and r, .. 2, 1 on the way
        out, over r + 1: the weights of the two pieces that meet on an item sum to one.
        """
        whole = self.kept - self.rise - self.fall
        rising, falling = range(1, self.rise + 1), range(self.fall, 0, -1)
        return [*rising, *[self.denominator] * whole, *falling]

    def scaled(self, scale: int) -> "Chunk":
        """Give the same piece in a picture that is `scale` times larger."""
        return Chunk(
            start=self.start * scale,
            stop=self.stop * scale,
            keep_start=self.keep_start * scale,
            keep_stop=self.keep_stop * scale,
            rise=self.rise * scale,
            fall=self.fall * scale,
        )


@dataclass(frozen=True, slots=True)
class Chunking:
    """A rule for cutting: the size of the pieces and how many items neighbors share.

    With an overlap of at most half a piece, no item is kept by more than two pieces.

    Attributes:
        size: Items in each piece, at least 1. A shorter line is one piece.
        overlap: Items shared by neighbors, 0 to size // 2.
        shortest: Items in the last piece at least, at most `size`; 0 means `size`.

    Raises:
        ValueError: If size or overlap is out of range.
    """

    size: int
    overlap: int
    shortest: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.size < 1:
            raise ValueError(f"the size of a piece must be at least 1, got {self.size}")
        if not 0 <= self.overlap <= self.size // 2:
            raise ValueError(
                f"the overlap must be 0 to {self.size // 2} (half of a piece of {self.size}), "
                f"got {self.overlap}"
            )
        if not 0 <= self.shortest <= self.size:
            raise ValueError(f"the last piece must have 0 to {self.size}, got {self.shortest}")

    @property
    def stride(self) -> int:
        """Distance between the starts of neighbors."""
        return self.size - self.overlap

    @property
    def context(self) -> int:
        """Items thrown away on each side of a join: about a quarter of the overlap.

        Rounded so that an overlap never leaves a ramp of nothing: 1 item gives a ramp of 1,
        2 a ramp of 2, 3 a ramp of 1 between single items of context, 4 a ramp of 2.
        """
        return (self.overlap + 1) // 4

    @property
    def ramp(self) -> int:
        """Items over which two neighbors fade into each other."""
        return self.overlap - 2 * self.context

    def count(self, length: int) -> int:
        """Say how many pieces a line of `length` items, at least 1, is cut into."""
        beyond_the_first = max(0, length - self.size)
        return 1 + -(-beyond_the_first // self.stride)

    def inner_piece(self, index: int) -> Chunk:
        """Give piece `index`, counted from 0, of a line that goes on beyond it."""
        stop = index * self.stride + self.size
        return self._piece(index, stop, keep_stop=stop - self.context, fall=self.ramp)

    def last_piece(self, index: int, length: int) -> Chunk:
        """Give piece `index`, counted from 0, as the last of a line of `length` items."""
        return self._piece(index, length, keep_stop=length, fall=0)

    def pieces(self, length: int) -> list[Chunk]:
        """Cut a line of `length` items, at least 1."""
        last = self.count(length) - 1
        return [*map(self.inner_piece, range(last)), self.last_piece(last, length)]

    def piece_before(self, item: int) -> int:
        """Say with which piece to begin in order to get everything from `item` on.

        What the pieces from there on give for `item` and later ones is the same as if one had
        begun with the first: the piece that fades into the one of `item` is among them, and
        nothing is read that lies before its turn.

        Args:
            item: One of a line that goes on at least so far.
        """
        fading = (item - self.context) // self.stride - 1
        shortest = self.shortest or self.size
        return max(0, min(fading, (item + 1 - shortest) // self.stride))

    def margin_start(self, item: int) -> int:
        """Say from which item on a line must be read in order to get everything from `item` on."""
        return self.piece_before(item) * self.stride

    def _piece(self, index: int, stop: int, *, keep_stop: int, fall: int) -> Chunk:
        turn = index * self.stride
        return Chunk(
            start=max(0, min(turn, stop - (self.shortest or self.size))),
            stop=stop,
            keep_start=turn + self.context if index else 0,
            keep_stop=keep_stop,
            rise=self.ramp if index else 0,
            fall=fall,
        )


def read_chunks(
    items: Iterable[Item], cut: Chunking, *, first: int = 0
) -> Iterator[tuple[Chunk, list[Item]]]:
    """Cut a stream whose length is unknown until it ends.

    A piece is known to be an inner one when an item beyond it has come, so the stream is read
    one item further than the piece at hand, and `cut.size` + 1 items are held at most.

    Args:
        items: The stream, from the turn of piece `first` on; what the items are does not matter.
        cut: Size and overlap of the pieces.
        first: The piece to begin with; see `Chunking.piece_before`.

    Yields:
        Each piece, as `cut.pieces` would plan it, with the items that it reads. An empty
        stream gives none.
    """
    held: deque[Item] = deque(maxlen=cut.size + 1)
    index = first
    start = arrived = first * cut.stride
    for item in items:
        held.append(item)
        arrived += 1
        piece = cut.inner_piece(index)
        if arrived > piece.stop:
            yield piece, list(held)[: piece.size]
            index += 1
    if arrived > start:
        piece = cut.last_piece(index, arrived)
        yield piece, list(held)[-piece.size :]


@dataclass(frozen=True, slots=True)
class Grid:
    """The tiles of a picture: every row piece crossed with every column piece.

    A tile's weight at a pixel is its row weight times its column weight.

    Attributes:
        rows: Pieces of the height, top to bottom, all of one size.
        columns: Pieces of the width, left to right, all of one size.
    """

    rows: list[Chunk]
    columns: list[Chunk]

    @property
    def pixels_read(self) -> int:
        """Number of pixels in all tiles, those in overlaps counted each time they are read."""
        return sum(row.size * column.size for row, column in product(self.rows, self.columns))


def plan_grid(height: int, width: int, *, tile: int | None, overlap: int) -> Grid:
    """Cut a picture into overlapping tiles of one size.

    Args:
        height: Of the picture, in pixels, at least 1.
        width: Of the picture, in pixels, at least 1.
        tile: Side of a tile in pixels, its overlaps included; a side of the picture that is
            shorter is not cut. None leaves the picture whole.
        overlap: Pixels shared by neighbors, 0 to tile // 2.

    Returns:
        The grid.

    Raises:
        ValueError: If tile or overlap is out of range.
    """
    cut = Chunking(max(height, width), 0) if tile is None else Chunking(tile, overlap)
    return Grid(cut.pieces(height), cut.pieces(width))


def choose_tile(
    memory_bytes: Callable[[int, int, int], int],
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
        memory_bytes: Estimates the memory for so many frames of a height and a width.
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
        if at_once * memory_bytes(window, min(tile, height), min(tile, width)) <= budget
    ]

    def grid(tile: int) -> Grid:
        return plan_grid(height, width, tile=tile, overlap=TILE_OVERLAP)

    def work(tile: int) -> int:
        return grid(tile).pixels_read

    if memory_bytes(window, height, width) <= budget:
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


def choose_batch(
    memory_bytes: Callable[[int, int, int], int],
    *,
    window: int,
    height: int,
    width: int,
    free_bytes: int,
) -> int:
    """Choose how many tiles are restored together: until a GPU is busy, or its memory full.

    Args:
        memory_bytes: As for `choose_tile`.
        window: Frames read together.
        height: Of a tile, in pixels of the source.
        width: Of a tile.
        free_bytes: Free memory of the device.

    Returns:
        From 1 to `MAX_BATCH`.
    """
    budget = free_bytes * MEMORY_SHARE_PERCENT // 100
    fitting = budget // memory_bytes(window, height, width)
    return max(1, min(MAX_BATCH, BATCH_PIXELS // (height * width), fitting))


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
