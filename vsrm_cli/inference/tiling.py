"""Dividing a video into chunks that a network can process, and which part of each is kept.

A line of items (frames, rows or columns) is divided into *chunks* of one size, and neighbors
overlap. Near the end of a chunk the network knows little of what comes after, so the outer part of
an overlap, the *context*, is computed and discarded. Over the inner part, the *ramp*, one chunk
fades out while the next fades in, so that no edge is visible.

    chunk 0   kkkkkkkkkkkkrrrrcc
    chunk 1             ccrrrrkkkkkkrrrrcc               k kept whole, r ramp, c context

The join of two chunks always lies in the last `overlap` items of the earlier one. If little is left
for the last chunk, it starts before its regular place, and has more context. The last window of
frames may be shorter, and the last tile of a row or column is up to 15 pixels smaller.

Time is divided into windows, rows and columns into tiles, by the same rule. Only integers are used
here: no tensors, no files.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from vsrm_cli.errors import MemoryShortage

# Pixels shared by neighboring tiles: 8 at each edge are discarded, where the network sees padding
# instead of the frame, and 16 fade. Users of tile upscalers report seams with 10 pixels of padding,
# and none with 32 (Real-ESRGAN issue 211, GPEN issue 129).
TILE_OVERLAP = 32
# With smaller tiles more than two would overlap on one line; see `tiling.Chunking`.
MIN_TILE = 2 * TILE_OVERLAP
# Tiles start at multiples of this. Compact networks compute flow on grids up to 16 times coarser;
# where these are the same in all tiles and in the whole frame, so is the flow.
TILE_STEP = 16

# Two tiles at once on two cores take two thirds of the time of the whole frame, which is worth up
# to a quarter more pixels.
MAX_WORK_PERCENT = 125

# The part of the free memory that a window may need by its network's estimate, in percent. The rest
# is for blend buffers, for fragmentation, and for other programs.
MEMORY_SHARE_PERCENT = 70

# Maximum number of tiles in a batch, and of pixels in their frames: with a window of these, some
# hundred thousand tokens, all cores of a GPU are busy. Estimated; `benchmarks/gpu.py` measures it.
MAX_BATCH = 4
BATCH_PIXELS = 1 << 18

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A range of items that is processed together, and the part of it that is kept.

    All ranges are half-open and count from the start of the whole line.

    Attributes:
        start: First item that is read.
        stop: One past the last item that is read.
        keep_start: First item that is kept.
        keep_stop: One past the last item that is kept.
        rise: How many kept items at the start fade in; 0 for the first chunk.
        fall: How many kept items at the end fade out; 0 for the last chunk.
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
        """The kept items within those that were read."""
        return slice(self.keep_start - self.start, self.keep_stop - self.start)

    @property
    def denominator(self) -> int:
        """What the values of `weights` are divided by; the weight of an item outside ramps."""
        return max(self.rise, self.fall) + 1

    def weights(self) -> list[int]:
        """The weight of each kept item, as numerators over `denominator`.

        Over a ramp of r items they are 1, 2, .. r when fading in and r, .. 2, 1 when fading out,
        over r + 1: the weights of two chunks sum to one at each item.
        """
        whole = self.kept - self.rise - self.fall
        rising, falling = range(1, self.rise + 1), range(self.fall, 0, -1)
        return [*rising, *[self.denominator] * whole, *falling]

    def scaled(self, scale: int) -> "Chunk":
        """The same chunk in an image that is `scale` times larger."""
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
    """The size of chunks and their overlap.

    With an overlap of at most half a chunk, no item is kept by more than two chunks.

    Attributes:
        size: Items in each chunk, at least 1. A shorter line is one chunk.
        overlap: Items shared by neighbors, 0 to size // 2.
        shortest: Minimum number of items in the last chunk, up to `size`; 0 means `size`.

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
        """Items discarded on each side of a join: about a quarter of the overlap.

        Rounded so that the ramp is never empty: 1 item gives a ramp of 1,
        2 a ramp of 2, 3 a ramp of 1 between single items of context, 4 a ramp of 2.
        """
        return (self.overlap + 1) // 4

    @property
    def ramp(self) -> int:
        """Items over which two neighbors fade into each other."""
        return self.overlap - 2 * self.context

    def count(self, length: int) -> int:
        """Number of chunks of a line of `length` items, at least 1."""
        beyond_the_first = max(0, length - self.size)
        return 1 + -(-beyond_the_first // self.stride)

    def inner_chunk(self, index: int) -> Chunk:
        """Chunk `index`, from 0, of a line that continues after it."""
        stop = index * self.stride + self.size
        return self._chunk(index, stop, keep_stop=stop - self.context, fall=self.ramp)

    def last_chunk(self, index: int, length: int) -> Chunk:
        """Chunk `index`, from 0, as the last of a line of `length` items."""
        return self._chunk(index, length, keep_stop=length, fall=0)

    def chunks(self, length: int) -> list[Chunk]:
        """Divide a line of `length` items, at least 1."""
        last = self.count(length) - 1
        return [*map(self.inner_chunk, range(last)), self.last_chunk(last, length)]

    def chunk_before(self, item: int) -> int:
        """The chunk to start with in order to get everything from `item` on.

        The results for `item` and later ones are then the same as when starting with the first
        chunk: the chunk that fades into that of `item` is included, and no earlier item is read.

        Args:
            item: An item of a line.
        """
        fading = (item - self.context) // self.stride - 1
        shortest = self.shortest or self.size
        return max(0, min(fading, (item + 1 - shortest) // self.stride))

    def margin_start(self, item: int) -> int:
        """The first item that must be read in order to get everything from `item` on."""
        return self.chunk_before(item) * self.stride

    def _chunk(self, index: int, stop: int, *, keep_stop: int, fall: int) -> Chunk:
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
    items: Iterable[Item], chunking: Chunking, *, first: int = 0
) -> Iterator[tuple[Chunk, list[Item]]]:
    """Divide a stream whose length is unknown until it ends.

    A chunk is not the last one if an item after it has arrived, so the stream is read one item
    ahead, and at most `chunking.size` + 1 items are held.

    Args:
        items: The stream, from the start of chunk `first`; items of any type.
        chunking: Size and overlap of the chunks.
        first: The chunk to start with; see `Chunking.chunk_before`.

    Yields:
        Each chunk, as `chunking.chunks` plans it, with its items; nothing for an empty stream.
    """
    held: deque[Item] = deque(maxlen=chunking.size + 1)
    index = first
    start = arrived = first * chunking.stride
    for item in items:
        held.append(item)
        arrived += 1
        chunk = chunking.inner_chunk(index)
        if arrived > chunk.stop:
            yield chunk, list(held)[: chunk.size]
            index += 1
    if arrived > start:
        chunk = chunking.last_chunk(index, arrived)
        yield chunk, list(held)[-chunk.size :]


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles of a frame: every row crossed with every column.

    A tile's weight at a pixel is its row weight times its column weight.

    Attributes:
        rows: Chunks of the height, top to bottom, all of one size; the last may be shorter.
        columns: The same for the width, left to right.
    """

    rows: list[Chunk]
    columns: list[Chunk]

    @property
    def pixels_read(self) -> int:
        """Number of pixels in all tiles, with those in overlaps counted each time."""
        return sum(row.size * column.size for row, column in product(self.rows, self.columns))


def plan_grid(height: int, width: int, *, tile: int | None, overlap: int) -> TileGrid:
    """Divide a frame into overlapping tiles.

    Args:
        height: Of the frame, in pixels, at least 1.
        width: Of the frame, in pixels, at least 1.
        tile: Side of a tile in pixels, its overlaps included; a shorter side of the frame is not
            divided. None for the whole frame.
        overlap: Pixels shared by neighbors, 0 to tile // 2.

    Returns:
        The grid.

    Raises:
        ValueError: If tile or overlap is out of range.
    """
    if tile is None:
        tile, overlap = max(height, width), 0
    chunking = Chunking(tile, overlap)
    return TileGrid(_aligned_chunks(chunking, height), _aligned_chunks(chunking, width))


def _aligned_chunks(chunking: Chunking, length: int) -> list[Chunk]:
    """Divide a line; the last chunk is shortened to start at a multiple of `TILE_STEP`."""
    *inner, last = chunking.chunks(length)
    if inner:
        regular = last.keep_start - chunking.context
        last = replace(last, start=min(regular, last.start + -last.start % TILE_STEP))
    return [*inner, last]


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
    """Choose the tile with the least work of those with which a window fits into memory.

    That is often not the largest one: a tile that is slightly smaller than the frame computes
    nearly all of it twice. The estimate is for float32; at half precision the difference is a
    reserve, because a network may keep parts of itself in float32.

    Args:
        memory_bytes: Estimates the memory for this many frames of a height and a width.
        window: Frames read together.
        height: Of the source, in pixels.
        width: Of the source, in pixels.
        free_bytes: Free memory of the device.
        at_once: Tiles that are restored at the same time. Frames are divided for that even if they
            fit whole, unless the overlaps would cost too much.
        must_fit: Whether to raise if not even the smallest tile fits. A CPU can swap, and the
            estimate may be pessimistic.

    Returns:
        The side of the tile in pixels of the source, or None for whole frames.

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

    def grid(tile: int) -> TileGrid:
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
    """Choose how many tiles make a batch: until a GPU is busy, or its memory full.

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
    """The next tile to try after running out of memory: half the side.

    Args:
        tile: The one that did not fit; None for the whole frame.
        longer_side: Of the frame, in pixels.

    Returns:
        A multiple of `TILE_STEP`, smaller than the last one, at least `MIN_TILE`.

    Raises:
        MemoryShortage: If the last one was already the smallest.
    """
    tried = min(tile or longer_side, longer_side)
    if tried <= MIN_TILE:
        raise MemoryShortage(
            f"the memory is too small even for tiles of {MIN_TILE} pixels; "
            f"close other programs or use a smaller --window"
        )
    half = -(-tried // (2 * TILE_STEP)) * TILE_STEP
    return max(MIN_TILE, half)
