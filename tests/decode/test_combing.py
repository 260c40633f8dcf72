"""Combing is detected where a frame shows two moments, and nowhere else."""

import numpy as np
import pytest
from interlacing_rates import drawn
from motion import INTERLACED, PROGRESSIVE, interlaced, progressive, telecined

from vsrm_cli.decode.combing import BlockCounts, find_combing

# Lines that change as combing does: one kind of scroll, tilt, credits, dithering, and noise each.
TRAPS = ["game", "doubled game, two lines", "bricks, tilt", "doubled credits", "dithered, diagonal"]


def blocks_of(frames):
    lumas = [frame.astype(np.int16) for frame in frames]
    seen = (find_combing(*three) for three in zip(lumas, lumas[1:], lumas[2:], strict=False))
    return sum(seen, BlockCounts())


@pytest.mark.parametrize("name", TRAPS)
def test_no_motion_of_a_progressive_clip_is_combing(name):
    blocks = blocks_of(progressive(PROGRESSIVE[name], 8))

    assert blocks.tff + blocks.bff <= 2


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_two_moments_in_a_frame_are_combing_with_their_order(order):
    blocks = blocks_of(interlaced(INTERLACED["box"], 8, order=order))

    assert getattr(blocks, order) > 0.9 * blocks.total
    assert blocks.tff == 0 or blocks.bff == 0


def test_telecined_video_has_combing_in_two_of_five_frames():
    blocks = blocks_of(telecined(INTERLACED["pan"], 12))

    assert blocks.tff == 0.4 * blocks.total
    assert blocks.bff == 0


def test_a_still_image_has_no_combing_and_no_motion():
    blocks = blocks_of(progressive(lambda time: PROGRESSIVE["bricks, tilt"](0), 4))

    assert (blocks.tff, blocks.bff, blocks.progressive) == (0, 0, 0)


@pytest.mark.slow
def test_no_drawn_progressive_clip_and_most_interlaced_ones_are_detected_as_interlaced(
    tmp_path,
):
    found = list(drawn(tmp_path))

    false_alarms = [name for name, order, fields in found if order is None and fields.first]
    interlaced_ones = [(order, fields.first) for _, order, fields in found if order is not None]
    assert false_alarms == []
    assert all(first in (order, None) for order, first in interlaced_ones)
    assert sum(order == first for order, first in interlaced_ones) >= 0.6 * len(interlaced_ones)
