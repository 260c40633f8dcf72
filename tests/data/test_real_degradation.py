"""Real-world degradation: drawn once per clip, steady in time, decided by its seed."""

from itertools import permutations

import numpy as np
import pytest
import torch
from networks import draw_randomly
from scenes import smooth_picture

from vsrm_cli.data.degradations import Degradation, degrade
from vsrm_cli.data.real_degradation import (
    Blur,
    Compression,
    InterlacingArtifacts,
    Noise,
    Resize,
    Sharpening,
    degrade_real,
    draw_steps,
)

SIZE = (16, 24)


def still(frames=4, *, height=64, width=96):
    """A clip in which nothing moves."""
    return smooth_picture(height, width, wavelength=14.0).expand(frames, -1, -1, -1)


def draws(count=2000):
    return [draw_steps(np.random.default_rng(seed)) for seed in range(count)]


def seeds_where(condition, count):
    """The first seeds whose steps satisfy a condition."""
    found = (s for s in range(1000) if condition(draw_steps(np.random.default_rng(s))))
    return [next(found) for _ in range(count)]


def has(kind):
    return lambda steps: any(isinstance(step, kind) for step in steps)


def test_two_fifths_of_the_clips_are_only_downscaled_and_compressed_by_h264():
    kinds = [tuple(type(step) for step in steps) for steps in draws()]
    downloads = [Resize, Compression], [Resize, Blur, Compression]
    plain = [steps for steps in draws() if [*map(type, steps)] in downloads]

    assert 0.32 < len(plain) / len(kinds) < 0.42
    assert 0.2 < kinds.count((Resize, Compression)) / len(kinds) < 0.3
    assert sum(steps[-1].codec == "h264" for steps in plain) > 0.95 * len(plain)
    assert 0.08 < kinds.count((Resize,)) / len(kinds) < 0.15


def test_most_crf_values_are_medium_like_those_of_real_files():
    crfs = [
        step.crf
        for steps in draws()
        for step in steps
        if isinstance(step, Compression) and step.codec == "h264"
    ]

    assert min(crfs) >= 15
    assert max(crfs) <= 35
    assert sum(19 <= crf <= 31 for crf in crfs) > 0.7 * len(crfs)


def test_every_order_and_every_codec_occurs():
    orders = {tuple(type(step).__name__ for step in steps) for steps in draws()}
    codecs = {s.codec for steps in draws() for s in steps if isinstance(s, Compression)}

    for early, late in permutations(("Blur", "Noise", "Resize"), 2):
        assert any({early, late} <= {*o} and o.index(early) < o.index(late) for o in orders)
    assert any({"Compression", "Noise"} <= {*o} and o[-1] == "Noise" for o in orders)
    assert any(o == ("Resize", "Compression", "Resize", "Compression") for o in orders)
    assert any({"InterlacingArtifacts", "Compression"} <= {*o} for o in orders)
    assert codecs == {"h264", "hevc", "vp9", "mpeg4", "mpeg2"}


def test_few_clips_lack_the_deblocking_filter_and_all_of_them_are_h264():
    unfiltered = [
        step
        for steps in draws()
        for step in steps
        if isinstance(step, Compression) and not step.deblocks
    ]

    assert 0.01 < len(unfiltered) / 2000 < 0.06
    assert {step.codec for step in unfiltered} == {"h264"}


def test_sharpening_adds_halos_at_edges_and_leaves_flat_areas_unchanged():
    step = torch.full((1, 3, 16, 32), 0.3)
    step[..., 16:] = 0.7

    hr = Sharpening(amount=1.0, radius=1.0).apply(step, (16, 32), np.random.default_rng(0))

    # Half of a step of 0.4 lies within half a radius: 0.4 * 0.3 on either side.
    assert hr[0, 0, 8, 15] < 0.22
    assert hr[0, 0, 8, 16] > 0.78
    assert hr[0, 0, 8, 3].item() == pytest.approx(0.3, abs=1e-3)


def test_interlacing_artifacts_are_rows_of_the_next_frame():
    clip = torch.stack([torch.full((3, 4, 4), 0.1 * (t + 1)) for t in range(3)])

    combs = InterlacingArtifacts(blends=False).apply(clip, (4, 4), np.random.default_rng(0))
    ghosts = InterlacingArtifacts(blends=True).apply(clip, (4, 4), np.random.default_rng(0))

    assert combs[0, 0, :, 0].tolist() == pytest.approx([0.1, 0.2, 0.1, 0.2])
    assert ghosts[0, 0, 1:3, 0].tolist() == pytest.approx([0.15, 0.15])
    assert torch.equal(combs[2], clip[2])


@pytest.mark.parametrize("seed", range(12))
def test_degraded_frames_have_the_size_and_the_range_of_lr_frames(seed):
    hr = draw_randomly(3, 3, 64, 96).round()

    lr = degrade(hr, Degradation.REAL, np.random.default_rng(seed))

    assert lr.shape == (3, 3, *SIZE)
    assert lr.min() >= 0
    assert lr.max() <= 1
    torch.testing.assert_close(lr * 255, (lr * 255).round(), rtol=0, atol=1e-4)


def test_the_seed_decides_the_frames():
    hr = draw_randomly(4, 3, 64, 96)
    seeds = sorted({*seeds_where(has(Compression), 4), *seeds_where(has(Noise), 2)})

    first, again = (
        [degrade_real(hr, SIZE, np.random.default_rng(s)) for s in seeds] for _ in range(2)
    )

    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(first[0], other) for other in first[1:])


def test_a_still_clip_without_noise_and_compression_stays_still():
    def blurs_only(steps):
        return has(Blur)(steps) and not has((Noise, Compression))(steps)

    for seed in seeds_where(blurs_only, 3):
        lr = degrade_real(still(), SIZE, np.random.default_rng(seed))
        assert torch.equal(lr, lr[:1].expand_as(lr))


def test_a_still_clip_without_noise_flickers_only_by_compression():
    for seed in seeds_where(lambda steps: not has(Noise)(steps) and has(Compression)(steps), 6):
        lr = degrade_real(still(), SIZE, np.random.default_rng(seed))
        assert (lr[1:] - lr[:-1]).abs().mean() < 2 / 255


def test_noise_differs_in_each_frame_and_keeps_its_strength():
    noise = Noise(10.0, follows_light=False, is_gray=False)
    gray = torch.full((6, 3, 64, 64), 0.5)

    noise_values = (noise.apply(gray, SIZE, np.random.default_rng(0)) - gray) * 255

    # Of 12288 numbers the standard deviation is known to within 0.6 percent.
    assert all(frame.std().item() == pytest.approx(10, rel=0.03) for frame in noise_values)
    assert not torch.equal(noise_values[0], noise_values[1])
    assert abs(np.corrcoef(noise_values[:2].flatten(1))[0, 1]) < 0.05


def test_shot_noise_grows_with_the_brightness():
    noise = Noise(10.0, follows_light=True, is_gray=True)
    steps = torch.tensor([0.0, 0.125, 0.5]).repeat_interleave(64).expand(2, 3, 64, 192)

    noise_values = (noise.apply(steps, SIZE, np.random.default_rng(0)) - steps) * 255

    dark, dim, medium = (part.std().item() for part in noise_values.split(64, dim=-1))
    assert dark == 0
    assert dim == pytest.approx(5, rel=0.05)
    assert medium == pytest.approx(10, rel=0.05)
    assert torch.equal(noise_values[:, 0], noise_values[:, 2])


@pytest.mark.parametrize("angle", [0.0, np.pi / 2])
def test_blur_is_a_gaussian_of_the_given_length_and_width(angle):
    spike = torch.zeros(1, 3, 64, 64)
    spike[..., 32, 32] = 1
    blur = Blur(length=0.8, width=0.4, angle=angle)  # of 16 LR pixels, here 64

    spot = blur.apply(spike, (16, 16), np.random.default_rng(0))[0, 0].double()

    place = torch.arange(64, dtype=torch.float64) - 32
    x, y = (float((spot.sum(d) @ place**2 / spot.sum()).sqrt()) for d in (0, 1))
    assert spot.sum().item() == pytest.approx(1, abs=1e-4)
    assert (x, y) == pytest.approx((3.2, 1.6) if angle == 0 else (1.6, 3.2), rel=0.02)


def test_blur_leaves_constant_borders_unchanged():
    plain = torch.full((2, 3, 20, 12), 0.3)

    blurred = Blur(0.8, 0.8, 0.0).apply(plain, (5, 3), np.random.default_rng(0))

    torch.testing.assert_close(blurred, plain)


@pytest.mark.parametrize("name", ["area", "bilinear", "bicubic"])
def test_each_resize_filter_gives_its_size_without_shifting_the_image(name):
    ramp = torch.linspace(0, 1, 96).expand(1, 3, 64, 96)

    lr = Resize(name, 0.5).apply(ramp, SIZE, np.random.default_rng(0))

    assert lr.shape == (1, 3, 8, 12)
    middle = lr[0, 0, 0, 3:-3]
    expected = torch.linspace(3.5 / 95, 91.5 / 95, 12)[3:-3]
    torch.testing.assert_close(middle, expected, rtol=0, atol=2e-3)


def test_frames_encoded_before_the_clip_are_not_returned():
    clip = torch.stack([torch.full((3, 32, 32), 0.2 + 0.1 * n) for n in range(5)])

    for lead in (0, 3, 9):
        coded = Compression("h264", 15.0, "veryfast", lead).apply(clip, (32, 32), None)
        assert coded.mean((1, 2, 3)).tolist() == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6], abs=0.02)


def test_a_single_frame_can_be_compressed():
    coded = Compression("hevc", 20.0, "superfast", 3).apply(still(1), (64, 96), None)

    assert coded.shape == (1, 3, 64, 96)
