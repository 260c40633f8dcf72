"""Lucas-Kanade steps find the remaining shift, and keep the flow of flat areas."""

import math

import pytest
import torch
from networks import draw_randomly

from vsrm_cli.layers.flow_refinement import refine_flow
from vsrm_cli.ops.warp import warp


def shifted_pair(dx, dy, *, height=48, width=64):
    """A textured frame, (1, 1, H, W), and the same scene moved by a fraction of a pixel."""
    return texture(height, width), texture(height, width, dx, dy)


def texture(height, width, dx=0.0, dy=0.0):
    """Waves of 7 to 24 pixels in all directions, sampled exactly at any shift: (1, 1, H, W)."""
    rng = torch.Generator().manual_seed(3)
    y = torch.arange(height).view(-1, 1) - dy
    x = torch.arange(width).view(1, -1) - dx
    picture = torch.zeros(height, width)
    for length in torch.linspace(7, 24, 24):
        angle, phase = 2 * math.pi * torch.rand(2, generator=rng)
        way = (x * angle.cos() + y * angle.sin()) / length
        picture += torch.sin(2 * math.pi * way + phase) / 24
    return (picture + 0.5)[None, None]


@pytest.mark.parametrize(
    ("dx", "dy"), [(0.0, 0.0), (0.3, 0.0), (0.0, -0.45), (0.7, 0.6), (-1.2, 0.9)]
)
def test_a_translation_is_recovered_within_the_precision_of_the_kernel(dx, dy):
    here, there = shifted_pair(dx, dy)

    flow = refine_flow(here, there, torch.zeros(1, 2, 48, 64), steps=6)

    inner = flow[..., 8:-8, 8:-8]
    expected = torch.tensor([dx, dy]).view(1, 2, 1, 1).expand_as(inner)
    assert (inner - expected).abs().mean() < 0.04


def test_the_first_guess_may_be_far_away():
    here, there = shifted_pair(7.4, -3.2)
    guess = torch.tensor([7.0, -3.0]).view(1, 2, 1, 1).expand(1, 2, 48, 64)

    flow = refine_flow(here, there, guess, steps=6)

    inner = flow[..., 12:-12, 12:-12]
    assert (inner - torch.tensor([7.4, -3.2]).view(1, 2, 1, 1)).abs().mean() < 0.04


def test_a_step_never_leaves_the_frames_further_apart():
    here, there = draw_randomly(1, 3, 24, 32), draw_randomly(1, 3, 24, 32, seed=1)
    guess = 4 * draw_randomly(1, 2, 24, 32, seed=2) - 2

    def distance(flow):
        return (here - warp(there, flow, padding="border", mode="bicubic")).square().mean()

    assert distance(refine_flow(here, there, guess, steps=3)) <= distance(guess) + 1e-6


def test_flat_frames_keep_their_flow():
    flat = torch.full((1, 3, 16, 16), 0.5)
    guess = torch.full((1, 2, 16, 16), 1.25)

    flow = refine_flow(flat, flat, guess, steps=3)

    torch.testing.assert_close(flow, guess, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 1), (5, 3), (13, 21)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_any_size_and_precision_gives_finite_float32(height, width, dtype):
    frames = [draw_randomly(2, 1, height, width, seed=seed).to(dtype) for seed in (0, 1)]

    flow = refine_flow(*frames, torch.zeros(2, 2, height, width, dtype=dtype), steps=2)

    assert flow.shape == (2, 2, height, width)
    assert flow.dtype == torch.float32
    assert flow.isfinite().all()


def test_without_steps_the_flow_is_unchanged():
    guess = draw_randomly(1, 2, 8, 8)

    assert torch.equal(
        refine_flow(*shifted_pair(0.5, 0.5, height=8, width=8), guess, steps=0), guess
    )
