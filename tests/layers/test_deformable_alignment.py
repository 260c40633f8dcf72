"""The alignment samples where the flow points, and encodes the distance of each sample."""

import math

import pytest
import torch
from networks import count_parameters, draw_randomly, randomize_zeros
from scenes import constant_flow
from torch.nn import functional

from vsrm_cli.layers import deformable_alignment as alignment
from vsrm_cli.layers.deformable_alignment import DCA, LATTICE, bilinear_weights, encode_offsets
from vsrm_cli.ops.warp import pixel_grid, sample_tokens, warp

CHANNELS = 8


def make_dca(*, randomized=False, reach=2.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dca = DCA(CHANNELS, state=3, rank=2, reach=reach)
        if randomized:
            randomize_zeros(dca)
            dca.offset[-1].bias.data.uniform_(-1, 1)
    return dca.eval().requires_grad_(False)


def features(height, width, *, batch=1, seed=0):
    return draw_randomly(batch, CHANNELS, height, width, seed=seed) * 2 - 1


def without_recurrence(dca):
    """Let the recurrence add nothing."""
    dca.out_proj.weight.zero_()
    dca.out_proj.bias.zero_()
    return dca


@pytest.fixture
def sampled(monkeypatch):
    """The points at which the alignment reads the tokens of its recurrence."""
    seen = []

    def spy(picture, points):
        seen.append(points)
        return sample_tokens(picture, points)

    monkeypatch.setattr(alignment, "sample_tokens", spy)
    return seen


def test_the_published_module_has_its_size():
    with torch.device("meta"):
        dca = DCA(120, state=8, rank=8, reach=2.0)

    assert count_parameters(dca) == 80_768
    assert count_parameters(dca.offset) == 1_200 + 14_520 + 968


@pytest.mark.parametrize(("dx", "dy"), [(3.0, -1.0), (0.0, 0.0), (-2.25, 0.5)])
def test_untrained_it_reads_the_four_pixels_around_the_place_the_flow_points_to(dx, dy, sampled):
    flow = constant_flow(dx, dy, 5, 6)

    make_dca()(features(5, 6), features(5, 6, seed=1), flow)

    (points,) = sampled  # (B, k, 2, H, W)
    corner = pixel_grid(5, 6) + torch.tensor([math.floor(dx), math.floor(dy)]).view(2, 1, 1)
    for j, (right, down) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        expected = corner + torch.tensor([right, down]).view(2, 1, 1)
        torch.testing.assert_close(points[0, j], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("reach", [0.5, 2.0])
def test_learned_offsets_stay_within_their_reach(reach, sampled):
    dca, flow = make_dca(reach=reach), constant_flow(0.25, 0.25, 4, 5)
    dca.offset[-1].bias.copy_(torch.tensor([100.0, -100.0] * 4))  # all to the right and up

    dca(features(4, 5), features(4, 5, seed=1), flow)

    (points,) = sampled
    for j, (right, down) in enumerate(LATTICE):
        expected = pixel_grid(4, 5) + torch.tensor([right + reach, down - reach]).view(2, 1, 1)
        torch.testing.assert_close(points[0, j], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dx", "dy"), [(3, -1), (-2, 2), (0, 1)])
def test_a_shifted_frame_comes_back_onto_the_current_one(dx, dy):
    dca, target = without_recurrence(make_dca()), features(9, 11)
    moved = target.roll((dy, dx), dims=(2, 3))

    aligned = dca(moved, target, constant_flow(float(dx), float(dy), 9, 11))

    # The tent keeps a ten-thousandth of weight for each point.
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(aligned[inner], target[inner], rtol=0, atol=2e-3)


def test_the_recurrence_is_added_to_a_bilinear_warp():
    dca, ref = without_recurrence(make_dca()), features(6, 7)
    flow = constant_flow(0.3, -0.6, 6, 7)

    aligned = dca(ref, features(6, 7, seed=1), flow)

    torch.testing.assert_close(aligned, warp(ref, flow, padding="border"), rtol=0, atol=2e-3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (6, 1), (7, 9)])
@pytest.mark.parametrize("batch", [1, 2])
def test_any_size_keeps_its_shape(batch, height, width):
    dca = make_dca(randomized=True)
    ref, tgt = features(height, width, batch=batch), features(height, width, batch=batch, seed=1)
    flow = 4 * draw_randomly(batch, 2, height, width) - 2

    aligned = dca(ref, tgt, flow)

    assert aligned.shape == (batch, CHANNELS, height, width)
    assert aligned.isfinite().all()


@pytest.mark.parametrize("pixels", [1, 7, 63, 64, 1000])
def test_portions_of_any_size_give_the_same_result(pixels, monkeypatch):
    dca = make_dca(randomized=True)
    ref, tgt = features(8, 8, batch=2), features(8, 8, batch=2, seed=1)
    flow = 4 * draw_randomly(2, 2, 8, 8) - 2
    whole = dca(ref, tgt, flow)

    monkeypatch.setattr(alignment, "PIXELS_AT_ONCE", pixels)

    torch.testing.assert_close(dca(ref, tgt, flow), whole, rtol=1e-5, atol=1e-6)


def test_the_recurrence_over_the_four_values_corrects_their_bilinear_mean():
    dca = make_dca(randomized=True)
    values, target = draw_randomly(5, 4, CHANNELS) * 2 - 1, draw_randomly(5, CHANNELS, seed=1)
    delta = 4 * draw_randomly(5, 4, 2, seed=2) - 2

    out = dca._cross_mamba(values, delta, target)

    tokens = dca.norm_r(values + encode_offsets(delta, CHANNELS))
    u = functional.silu(dca.conv1d(dca.in_r(tokens).transpose(1, 2))).transpose(1, 2)
    query, gate = dca.in_q(dca.norm_q(target)).chunk(2, dim=-1)
    state = torch.zeros(5, CHANNELS, 3)
    for j in range(4):
        low, B = dca.x_proj(u[:, j]).split((2, 3), dim=-1)
        step = functional.softplus(dca.dt_proj(low))[..., None]
        state = torch.exp(-step * dca.A_log.exp()) * state + step * B[:, None] * u[:, j, :, None]
    y = (state * dca.c_proj(functional.silu(query))[:, None]).sum(-1)
    weights = bilinear_weights(delta)[..., None]
    y = y + dca.D * (weights * u).sum(1)
    expected = (weights * values).sum(1) + dca.out_proj(y * functional.silu(gate))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-6)


def test_the_same_values_read_a_quarter_pixel_apart_give_another_answer():
    dca = make_dca(randomized=True)
    dca.offset[-1].weight.zero_()
    dca.offset[-1].bias.zero_()
    even, tgt = torch.ones(1, CHANNELS, 4, 4), features(4, 4)

    near = dca(even, tgt, constant_flow(0.25, 0.0, 4, 4))
    far = dca(even, tgt, constant_flow(0.5, 0.0, 4, 4))

    assert (near - far).abs().max() > 1e-4


def test_the_flow_learns_through_the_alignment():
    dca = make_dca(randomized=True)
    flow = constant_flow(0.3, 0.4, 5, 6).clone().requires_grad_()

    dca(features(5, 6), features(5, 6, seed=1), flow).square().sum().backward()

    assert flow.grad.isfinite().all()
    assert (flow.grad.abs().amax(dim=(0, 2, 3)) > 1e-4).all()


def test_tent_weights_by_hand():
    # 0.25 to the right and 0.5 down of the first point.
    delta = torch.tensor([[-0.25, -0.5], [0.75, -0.5], [-0.25, 0.5], [0.75, 0.5]])

    weights = bilinear_weights(delta)

    # Each point keeps a ten-thousandth more than its share.
    assert weights.tolist() == pytest.approx([0.375, 0.125, 0.375, 0.125], abs=2e-4)
    assert weights.sum().item() == pytest.approx(1)


def test_tent_weights_of_points_far_away_are_equal():
    weights = bilinear_weights(torch.full((3, 4, 2), 2.5))

    torch.testing.assert_close(weights, torch.full((3, 4), 0.25))


def test_the_position_code_by_hand():
    # Channels of x first: sines, then cosines, of half a turn and of a 32nd of a turn a pixel.
    code = encode_offsets(torch.tensor([0.5, 0.0]), 8)

    fine, coarse = math.pi / 2, math.pi / 32
    expected = [math.sin(fine), math.sin(coarse), math.cos(fine), math.cos(coarse), 0, 0, 1, 1]
    assert code.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_position_code_differs_for_places_a_sixteenth_of_a_pixel_apart():
    line = torch.arange(-48, 49) / 16  # as far as lattice and offsets go
    places = torch.cartesian_prod(line, line)

    codes = encode_offsets(places, 32)

    distances = torch.cdist(codes, codes).fill_diagonal_(math.inf)
    assert distances.min() > 0.05
