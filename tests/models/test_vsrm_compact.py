"""The compact network: what it carries from frame to frame, and that each part of it can learn."""

from dataclasses import replace

import pytest
import torch
from networks import TINY, count_parameters, draw_clip, make_network
from scenes import smooth_picture
from torch.nn import functional

from vsrm_cli.models.presets import VSRM_T
from vsrm_cli.models.vsrm_compact import Cell, CellState, VSRMCompact

# Two float32 computations of one thing whose sums run in another order.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def moving_scene(time=4, height=16, width=24):
    """A scene that moves by a pixel and a half to the right in each frame."""
    return torch.stack([smooth_picture(height, width, shift=(1.5 * t, 0.0)) for t in range(time)])[
        None
    ]


def test_the_bundled_network_has_at_most_a_million_parameters():
    with torch.device("meta"):
        network = VSRMCompact(VSRM_T)

    assert count_parameters(network) <= 1_000_000


@pytest.mark.parametrize(
    ("time", "height", "width"), [(1, 1, 1), (2, 1, 6), (3, 5, 7), (4, 9, 3), (1, 8, 8)]
)
def test_any_length_and_size_is_upscaled_four_times(time, height, width):
    network = make_network(TINY).requires_grad_(False)

    large = network(draw_clip(time, height, width))

    assert large.shape == (1, time, 3, 4 * height, 4 * width)
    assert large.isfinite().all()


def test_untrained_it_gives_the_bicubic_frame():
    network, frames = make_network(TINY, randomized=False).requires_grad_(False), draw_clip(3, 6, 8)

    large = network(frames)

    base = functional.interpolate(frames[0], scale_factor=4, mode="bicubic", align_corners=False)
    torch.testing.assert_close(large[0], base)


def test_clips_of_a_batch_do_not_affect_each_other():
    network, pair = make_network(TINY).requires_grad_(False), draw_clip(3, 5, 7, batch=2)

    together = network(pair)

    torch.testing.assert_close(together[:1], network(pair[:1]), **TOLERANCE)
    torch.testing.assert_close(together[1:], network(pair[1:]), **TOLERANCE)


def test_every_frame_depends_on_every_other():
    network, frames = make_network(TINY).requires_grad_(False), draw_clip(5, 6, 6)
    before = network(frames)

    for t in range(5):
        changed = frames.clone()
        changed[:, t] = 1 - changed[:, t]
        seen = (network(changed) - before).abs().amax(dim=(0, 2, 3, 4))
        assert (seen > 0).all()


def test_a_single_frame_is_restored_without_propagation():
    network, frame = make_network(TINY).requires_grad_(False), draw_clip(1, 6, 8)

    first = network.passes(frame, network.flows(frame))[0]

    torch.testing.assert_close(first, network.frames(frame, network.flows(frame)), **TOLERANCE)


def test_the_previous_estimate_is_warped_along_the_flow():
    network = make_network(TINY).requires_grad_(False)
    seen = []
    cell_forward = network.cell.forward

    def listening(known, base, aligned, told):
        seen.append((base, aligned))
        return cell_forward(known, base, aligned, told)

    network.cell.forward = listening
    for weight in network.cell.conv_last.parameters():
        weight.zero_()  # so that each estimate is the bicubic frame
    frames = moving_scene()
    truth = torch.zeros(1, 3, 2, 16, 24)
    truth[:, :, 0] = 1.5  # backward: the scene lies further right in the frame after it

    network.passes(frames, (truth, -truth))

    base, aligned = seen[1]  # the second frame of the backward pass
    inside = (..., slice(8, -8), slice(8, -16))
    assert (aligned.estimate - base)[inside].abs().mean() < 0.01
    not_moved = seen[0][0]
    assert (not_moved - base)[inside].abs().mean() > 0.02


def test_one_step_of_the_temporal_scan_by_hand():
    cell = Cell(TINY).requires_grad_(False)
    for parameter in cell.parameters():
        parameter.zero_()
    # h = exp(-delta A) h + delta B u with u = 2, delta = softplus(0) = ln 2, A = 1 and 0.5, B = 3
    u, _, write = cell.conv_scan.bias.split((cell.hidden, cell.hidden, cell.states))
    u.fill_(2.0)
    write.fill_(3.0)
    cell.A_log[1] = torch.tensor(0.5).log()
    cell.conv_c.bias.copy_(torch.tensor([1.0, 10.0]))
    state = torch.full((1, cell.states * cell.hidden, 2, 2), 4.0)
    base = torch.full((1, 3, 8, 8), 0.5)

    after, features = cell(torch.zeros(1, 8, 2, 2), base, CellState(base, state), None)

    ln2 = torch.tensor(2.0).log()
    fast, slow = 0.5 * 4 + ln2 * 6, 0.5**0.5 * 4 + ln2 * 6
    torch.testing.assert_close(after.scan[0, 0, 0, 0], fast)
    torch.testing.assert_close(after.scan[0, -1, 0, 0], slow)
    torch.testing.assert_close(features.scan_output[0, 0, 0, 0], fast + 10 * slow)


def test_a_single_frame_needs_no_flow():
    network = make_network(TINY).requires_grad_(False)
    network.spynet = None

    assert network(draw_clip(1, 5, 7)).shape == (1, 1, 3, 20, 28)


@pytest.mark.parametrize("kind", ["flat", "noise", "cut"])
def test_clips_without_matching_frames_stay_finite(kind):
    network = make_network(TINY).requires_grad_(False)
    frames = torch.full((1, 4, 3, 12, 16), 0.3) if kind == "flat" else draw_clip(4, 12, 16)
    if kind == "cut":
        frames = torch.cat((torch.zeros_like(frames), torch.ones_like(frames)), dim=1)

    assert network(frames).isfinite().all()


def test_half_precision_agrees_with_single():
    network, frames = make_network(TINY).requires_grad_(False), draw_clip(3, 12, 16)
    single = network(frames)

    network.set_precision(torch.bfloat16)
    half = network(frames.bfloat16())

    assert half.dtype == torch.bfloat16
    assert (half.float() - single).abs().mean() < 0.02


def test_every_weight_gets_a_gradient_from_a_clip():
    network = make_network(TINY).train()
    frames = draw_clip(4, 8, 8)

    first, second = network.passes(frames, network.flows(frames))
    (first.square().mean() + second.square().mean()).backward()

    missing = {
        name
        for name, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.isfinite().all() or not weight.grad.any()
    }
    assert missing == set()


def test_single_frames_train_everything_but_propagation_and_flow():
    network, frames = make_network(TINY).train(), draw_clip(2, 8, 8)

    network.frames(frames, (torch.zeros(1, 1, 2, 8, 8),) * 2).square().mean().backward()

    temporal = {id(parameter) for parameter in network.temporal_parameters()}
    for name, weight in network.named_parameters():
        learns = weight.grad is not None and bool(weight.grad.any())
        assert learns == (id(weight) not in temporal and not name.startswith("spynet.")), name


def test_the_memory_estimate_grows_with_the_clip():
    with torch.device("meta"):
        network = VSRMCompact(VSRM_T)

    one, more_frames, larger = (
        network.memory_bytes(*size) for size in [(1, 90, 160), (16, 90, 160), (1, 180, 320)]
    )

    assert one >= 4 * 3 * 17 * 90 * 160
    assert one < more_frames < 16 * one
    assert larger == 4 * one


def test_states_that_do_not_fold_are_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        replace(TINY, hidden=3)


FOLDED_TINY = replace(TINY, fold=2)


@pytest.mark.parametrize(
    ("time", "height", "width"), [(1, 1, 1), (2, 1, 6), (3, 5, 7), (2, 8, 9), (1, 8, 8)]
)
def test_with_fold_2_any_length_and_size_is_upscaled_two_times(time, height, width):
    network = make_network(FOLDED_TINY).requires_grad_(False)
    frames = draw_clip(time, height, width)

    large, flows = network(frames), network.flows(frames)

    assert network.scale == 2
    assert large.shape == (1, time, 3, 2 * height, 2 * width)
    assert large.isfinite().all()
    assert flows[0].shape == flows[1].shape == (1, time - 1, 2, height, width)
    assert network.frames(frames, flows).shape == large.shape


def test_a_fold_of_one_has_the_keys_and_the_configuration_of_earlier_files():
    four, two = make_network(TINY), make_network(FOLDED_TINY)
    shapes = {key: value.shape for key, value in four.state_dict().items()}

    differing = [key for key, x in two.state_dict().items() if x.shape != shapes[key]]

    assert TINY.fold == 1
    assert two.state_dict().keys() == shapes.keys()
    assert differing == ["conv_first.weight"]


def test_untrained_and_folded_it_gives_the_bicubic_frame_of_the_input_itself():
    network = make_network(FOLDED_TINY, randomized=False).requires_grad_(False)
    frames = draw_clip(3, 5, 8)

    large = network(frames)

    base = functional.interpolate(frames[0], scale_factor=2, mode="bicubic", align_corners=False)
    inside = (..., slice(0, 8), slice(0, 16))  # the last row is repeated before it is enlarged
    torch.testing.assert_close(large[0][inside], base[inside])


def test_flows_of_a_folded_network_are_in_pixels_of_the_input():
    network = make_network(FOLDED_TINY, randomized=False).requires_grad_(False)
    truth = torch.full((1, 1, 2, 4, 4), 1.5)
    network.spynet.forward = lambda here, there: truth[0].expand(len(here), -1, -1, -1)
    network.steps_small = 0

    backward, forward = network.flows(draw_clip(2, 8, 8))

    assert torch.equal(backward, torch.full((1, 1, 2, 8, 8), 3.0))
    assert torch.equal(forward, backward)


def test_samples_of_a_folded_network_lie_in_the_places_of_its_output():
    # One pixel of the neighbor is brighter.
    network = make_network(FOLDED_TINY).requires_grad_(False)
    frames = torch.full((1, 2, 3, 4, 6), 0.5)
    frames[:, 1, :, 1, 2] += 0.01
    still = torch.zeros(1, 1, 2, 4, 6)

    samples = network._samples(frames, (still, still), 0)

    places = functional.pixel_shuffle(samples, 4)[0, 0]  # red, on the grid of the output
    assert samples.shape == (1, 64, 2, 3)
    assert places.nonzero().tolist() == [[y, x] for y in (2, 3) for x in (4, 5)]


def test_an_unknown_fold_is_refused():
    with pytest.raises(ValueError, match="fold can be 1 or 2, not 3"):
        replace(TINY, fold=3)
