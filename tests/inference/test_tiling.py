"""Every item has a total weight of one, for any length; some examples are computed by hand."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsrm_cli.inference.tiling import Chunk, Chunking, plan_grid, read_chunks

LENGTHS = st.integers(1, 200)


@st.composite
def cuts(draw):
    size = draw(st.integers(1, 60))
    return Chunking(size, draw(st.integers(0, size // 2)), draw(st.integers(0, size)))


def weight_of_each_item(chunks):
    """Sum the weights, exactly, that the pieces give to each item they keep."""
    total = Counter()
    for chunk in chunks:
        for item, weight in enumerate(chunk.weights(), start=chunk.keep_start):
            total[item] += Fraction(weight, chunk.denominator)
    return total


@given(LENGTHS, cuts())
def test_the_weights_of_every_item_sum_to_one_and_no_item_is_invented(length, chunking):
    total = weight_of_each_item(chunking.chunks(length))

    assert total == dict.fromkeys(range(length), 1)


@given(LENGTHS, cuts())
def test_at_most_two_chunks_keep_an_item(length, chunking):
    keepers = Counter(
        item
        for chunk in chunking.chunks(length)
        for item in range(chunk.keep_start, chunk.keep_stop)
    )

    assert max(keepers.values()) <= 2


@given(LENGTHS, cuts())
def test_chunks_have_one_size_except_the_last_and_keep_only_frames_they_read(length, chunking):
    chunks = chunking.chunks(length)

    assert {chunk.size for chunk in chunks[:-1]} <= {chunking.size}
    assert min(chunking.shortest or chunking.size, length) <= chunks[-1].size <= chunking.size
    for chunk in chunks:
        assert 0 <= chunk.start <= chunk.keep_start < chunk.keep_stop <= chunk.stop <= length
        assert len(chunk.weights()) == chunk.kept
        assert all(0 < weight <= chunk.denominator for weight in chunk.weights())


@given(LENGTHS, cuts())
def test_context_frames_are_dropped_at_both_sides_of_every_join(length, chunking):
    *inner, last = chunking.chunks(length)

    assert all(chunk.stop - chunk.keep_stop == chunking.context for chunk in inner)
    assert all(chunk.keep_start - chunk.start == chunking.context for chunk in inner[1:])
    if inner:
        assert last.keep_start - last.start >= chunking.context


@given(LENGTHS, cuts(), st.integers(2, 4))
def test_weights_sum_to_one_in_the_upscaled_frame(length, chunking, scale):
    large = [chunk.scaled(scale) for chunk in chunking.chunks(length)]

    assert weight_of_each_item(large) == dict.fromkeys(range(scale * length), 1)


@given(LENGTHS, cuts(), st.data())
def test_a_line_started_in_its_middle_has_the_same_chunks(length, chunking, data):
    item = data.draw(st.integers(0, length - 1))
    first = chunking.chunk_before(item)

    read = list(read_chunks(iter(range(first * chunking.stride, length)), chunking, first=first))

    assert [chunk for chunk, _ in read] == chunking.chunks(length)[first:]
    assert all(items == list(range(chunk.start, chunk.stop)) for chunk, items in read)
    # Whatever fades into the item, or into a later one, is among what was read.
    assert all(chunk.keep_stop <= item for chunk in chunking.chunks(length)[:first])


@given(LENGTHS, cuts())
def test_a_stream_of_unknown_length_has_the_same_windows(length, chunking):
    read = list(read_chunks(iter(range(length)), chunking))

    assert [chunk for chunk, _ in read] == chunking.chunks(length)
    assert all(items == list(range(chunk.start, chunk.stop)) for chunk, items in read)


@given(LENGTHS, cuts())
def test_a_stream_is_read_one_item_beyond_the_current_chunk(length, chunking):
    arrived = 0

    def count_arrivals():
        nonlocal arrived
        for item in range(length):
            arrived += 1
            yield item

    for chunk, _ in read_chunks(count_arrivals(), chunking):
        assert arrived == min(chunk.stop + 1, length)


def test_an_empty_stream_gives_no_chunk():
    assert list(read_chunks([], Chunking(8, 2))) == []


def test_three_windows_by_hand():
    # Stride 5; of the overlap of 3, one frame of context, a ramp of one, one of context. The
    # third window would start at 10 and be short, so it starts at 9.
    chunks = Chunking(size=8, overlap=3).chunks(17)

    assert chunks == [
        Chunk(start=0, stop=8, keep_start=0, keep_stop=7, rise=0, fall=1),
        Chunk(start=5, stop=13, keep_start=6, keep_stop=12, rise=1, fall=1),
        Chunk(start=9, stop=17, keep_start=11, keep_stop=17, rise=1, fall=0),
    ]
    assert [chunk.weights() for chunk in chunks] == [
        [2, 2, 2, 2, 2, 2, 1],
        [1, 2, 2, 2, 2, 1],
        [1, 2, 2, 2, 2, 2],
    ]


@pytest.mark.parametrize(
    ("overlap", "context", "ramp"),
    [(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 1, 1), (4, 1, 2), (8, 2, 4), (32, 8, 16)],
)
def test_half_of_an_overlap_fades(overlap, context, ramp):
    chunking = Chunking(64, overlap)

    assert (chunking.context, chunking.ramp) == (context, ramp)


def test_a_line_as_long_as_a_chunk_is_one_chunk_and_one_item_more_makes_two():
    chunking = Chunking(8, 2)

    assert chunking.chunks(8) == [Chunk(0, 8, 0, 8, 0, 0)]
    assert [(chunk.start, chunk.stop) for chunk in chunking.chunks(9)] == [(0, 8), (1, 9)]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (-1, 0), (8, -1), (8, 5), (1, 1)])
def test_a_chunking_by_which_three_chunks_could_overlap_is_refused(size, overlap):
    with pytest.raises(ValueError, match=r"must be .*, got -?\d"):
        Chunking(size, overlap)


@given(LENGTHS, LENGTHS, cuts())
def test_the_tiles_of_a_grid_cover_each_pixel_with_a_weight_of_one(height, width, chunking):
    grid = plan_grid(height, width, tile=chunking.size, overlap=chunking.overlap)

    # A tile's weight is a product, so the sums of rows and columns say it all.
    assert weight_of_each_item(grid.rows) == dict.fromkeys(range(height), 1)
    assert weight_of_each_item(grid.columns) == dict.fromkeys(range(width), 1)


def test_a_frame_smaller_than_a_tile_on_one_side_is_tiled_along_the_other():
    grid = plan_grid(48, 100, tile=64, overlap=16)

    assert [(row.start, row.stop) for row in grid.rows] == [(0, 48)]
    assert [(column.start, column.stop) for column in grid.columns] == [(0, 64), (48, 100)]
    assert grid.pixels_read == 48 * (64 + 52)


@given(st.integers(1, 600), st.integers(4, 20))
def test_tiles_start_at_multiples_of_sixteen(length, steps):
    tile = 16 * steps

    grid = plan_grid(length, length, tile=tile, overlap=32)

    assert all(row.start % 16 == 0 for row in grid.rows)
    assert all(row.size == tile for row in grid.rows[:-1])
    assert grid.rows[-1].size > min(length, tile) - 16


def test_without_tiles_a_frame_is_not_split():
    grid = plan_grid(5, 7, tile=None, overlap=32)

    assert (grid.rows, grid.columns) == ([Chunk(0, 5, 0, 5, 0, 0)], [Chunk(0, 7, 0, 7, 0, 0)])
