"""Encoded frames: same number, size and order, with a loss that follows the quality."""

import numpy as np
import pytest

from vsrm_cli.encode.roundtrip import encode_and_decode

CODECS = ("h264", "hevc", "vp9", "mpeg4", "mpeg2")
# A good, a medium and a bad quality on each encoder's own scale.
QUALITIES = {
    "h264": (15, 25, 35),
    "hevc": (15, 25, 35),
    "vp9": (15, 35, 55),
    "mpeg4": (2, 6, 16),
    "mpeg2": (2, 6, 16),
}


def scene(frames=4, *, height=64, width=96):
    """Gray waves that move, with grain, (T, 3, H, W) uint8."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((x + 2 * t) / 5) + np.cos((y - t) / 7) for t in range(frames)]
    gray = 128 + 40 * np.stack(waves)[:, None] + rng.normal(0, 8, (frames, 1, height, width))
    return gray.clip(0, 255).astype(np.uint8).repeat(3, axis=1)


def error(a, b):
    return np.abs(a.astype(float) - b).mean()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 65), (5, 7)])
def test_frames_of_any_size_round_trip(codec, height, width):
    frames = scene(height=height, width=width)

    coded = encode_and_decode(frames, codec, crf=QUALITIES[codec][0], preset="superfast")

    assert coded.shape == frames.shape
    assert coded.dtype == np.uint8
    assert error(coded, frames) < 12


@pytest.mark.parametrize("codec", CODECS)
def test_frames_are_returned_in_order(codec):
    frames = np.stack([np.full((3, 64, 64), 30 + 20 * n, np.uint8) for n in range(9)])

    coded = encode_and_decode(frames, codec, crf=QUALITIES[codec][0], preset="fast")

    assert coded.mean((1, 2, 3)) == pytest.approx(frames.mean((1, 2, 3)), abs=3)


@pytest.mark.parametrize("codec", CODECS)
def test_a_greater_crf_is_worse(codec):
    frames = scene()

    errors = [
        error(encode_and_decode(frames, codec, crf=crf, preset="fast"), frames)
        for crf in QUALITIES[codec]
    ]

    assert errors == sorted(errors)
    assert errors[2] > 1.3 * errors[0]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("height", "width"), [(64, 96), (112, 64), (48, 40)])
def test_the_same_frames_give_the_same_result_every_time(codec, height, width):
    # Both encoders read beyond their memory in small pictures, where nobody keeps them from it.
    frames = scene(height=height, width=width)
    results = set()

    for size in range(25):
        _ = np.random.default_rng(size).bytes(1000 * size)  # another heap each time
        results.add(encode_and_decode(frames, codec, crf=27.5, preset="fast").tobytes())

    assert len(results) == 1


def test_colors_are_unchanged():
    frames = np.zeros((3, 3, 64, 64), np.uint8)
    frames[:, 0], frames[:, 1], frames[:, 2] = 200, 80, 30

    coded = encode_and_decode(frames, "h264", crf=15, preset="fast")

    assert np.abs(coded.astype(int) - frames).max() <= 3


def test_without_deblocking_h264_has_edges_between_blocks():
    frames = scene(height=64, width=64)
    steps = {}

    for deblocks in (True, False):
        coded = encode_and_decode(frames, "h264", crf=38, preset="fast", deblocks=deblocks).astype(
            float
        )
        across = np.abs(np.diff(coded[:, 1], axis=-1)).mean((0, 1))
        steps[deblocks] = across[7::8].mean() / across.mean()

    assert steps[False] > 1.2 * steps[True]
