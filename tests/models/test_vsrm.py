"""The network matches its specification, detail by detail."""

from dataclasses import replace

import pytest
import torch
from networks import (
    PAPER_LIKE,
    TINY_VSRM,
    count_parameters,
    draw_clip,
    draw_randomly,
    make_network,
    randomize_zeros,
)
from scenes import smooth_picture
from torch import nn
from torch.nn import functional

from vsrm_cli.models.presets import VSRM_ABLATION, VSRM_FULL
from vsrm_cli.models.vsrm import (
    DAMB,
    VSRM,
    Branch,
    MambaBlock,
    temporal_first,
    temporal_first_undo,
)

# Two float32 computations of one thing whose sums run in another order.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def on_the_meta_device(config):
    with torch.device("meta"):
        return VSRM(config)


def block_input(time=3, height=4, width=5):
    return draw_randomly(2, time, height, width, TINY_VSRM.channels) * 2 - 1


# Sizes


@pytest.mark.parametrize(
    ("config", "published", "computed"),
    [(VSRM_FULL, 17.1e6, 17_147_375), (VSRM_ABLATION, 8.61e6, 8_613_135)],
    ids=["vsrm", "vsrm-ablation"],
)
def test_the_published_networks_have_their_size(config, published, computed):
    parameters = count_parameters(on_the_meta_device(config))

    assert parameters == computed
    assert parameters == pytest.approx(published, rel=0.01)


def test_the_parts_of_the_ablation_network_have_the_sizes_of_the_specification():
    network = on_the_meta_device(VSRM_ABLATION)
    damb = network.branches["backward_1"].dambs[0]

    assert {name: count_parameters(part) for name, part in network.named_children()} == {
        "spynet": 1_440_300,
        "conv_first": 3_360,
        "align": 80_768,
        "branches": 4 * 1_671_360,
        "upsampler": 403_267,
    }
    assert count_parameters(damb.s2t[0]) == 193_960
    assert count_parameters(damb.t2s) == 182_680
    assert count_parameters(damb.conv) == 388_920


# Orders of tokens


def test_the_temporal_order_takes_all_frames_of_a_pixel_first():
    ids = torch.arange(12).view(1, 3, 2, 2, 1)  # t * 4 + h * 2 + w

    tokens = temporal_first(ids)

    assert tokens.flatten().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


@pytest.mark.parametrize(("time", "height", "width"), [(3, 2, 2), (3, 4, 5), (2, 1, 7), (1, 1, 1)])
def test_undoing_the_temporal_order_gives_back_every_token(time, height, width):
    x = draw_randomly(2, time, height, width, 3)

    assert torch.equal(temporal_first_undo(temporal_first(x), time, height, width), x)


class Listener(nn.Module):
    """Stands in for a mixer: keeps the tokens, gives their positions in the row."""

    def forward(self, tokens):
        self.heard = tokens
        row = torch.arange(tokens.shape[1], dtype=tokens.dtype)
        return row.view(1, -1, 1).expand_as(tokens).contiguous()


def listen(*, temporal):
    """What order a block of (1, 3, 2, 2, C) reads, and where it puts the row of results."""
    block = MambaBlock(TINY_VSRM, temporal=temporal).requires_grad_(False)
    block.mixer, block.norm1, block.ffn = Listener(), nn.Identity(), nn.Identity()
    nn.init.zeros_(block.norm2.weight)  # so that nothing is added after the mixer
    ids = torch.arange(12.0).view(1, 3, 2, 2, 1).expand(-1, -1, -1, -1, TINY_VSRM.channels)
    added = block(ids) - ids
    return block.mixer.heard[0, :, 0].tolist(), added[0, ..., 0].flatten().tolist()


def test_the_spatial_block_reads_frame_by_frame_in_raster_order():
    read, put = listen(temporal=False)

    assert read == list(range(12))
    assert put == list(range(12))


def test_the_temporal_block_reads_pixel_by_pixel_and_puts_each_result_in_its_place():
    read, put = listen(temporal=True)

    assert read == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert put == [read.index(token) for token in range(12)]


def test_spatial_blocks_have_two_directions_and_the_temporal_block_one():
    damb = DAMB(TINY_VSRM)

    assert [[scan.reverse for scan in block.mixer.ssm] for block in damb.s2t] == [[False, True]]
    assert [scan.reverse for scan in damb.t2s.mixer.ssm] == [False]


def test_a_block_normalizes_before_and_adds_after_each_of_its_layers():
    block, x = MambaBlock(TINY_VSRM, temporal=False).requires_grad_(False), block_input()

    y = block(x)

    half = x + block.mixer(block.norm1(x).flatten(1, 3)).view_as(x)
    torch.testing.assert_close(y, half + block.ffn(block.norm2(half)), **TOLERANCE)


# Blocks of a branch


def test_the_middle_frame_alone_equals_that_of_the_whole_block():
    damb, x = DAMB(replace(TINY_VSRM, s2t_blocks=2)).requires_grad_(False), block_input()

    torch.testing.assert_close(damb.center(x), damb(x)[:, 1], **TOLERANCE)


def test_a_branch_adds_its_correction_to_the_middle_frame():
    branch = Branch(replace(TINY_VSRM, dambs=2)).requires_grad_(False)
    randomize_zeros(branch)
    stack = draw_randomly(2, 3, TINY_VSRM.channels, 4, 5)

    y = branch(stack)

    x = stack.movedim(2, -1)
    center = branch.norm(branch.dambs[1](branch.dambs[0](x))[:, 1])
    expected = stack[:, 1] + branch.conv_after(center.movedim(-1, 1))
    torch.testing.assert_close(y, expected, **TOLERANCE)


def test_an_untrained_branch_gives_the_middle_frame():
    stack = draw_randomly(2, 3, TINY_VSRM.channels, 4, 5)

    assert torch.equal(Branch(TINY_VSRM)(stack), stack[:, 1])


# Directions of flow


class Search(nn.Module):
    """Finds the one integer shift, in x, that explains a whole picture: a flow network by trial."""

    def forward(self, ref, supp):
        inner = slice(8, -8)
        errors = {
            dx: (supp.roll(-dx, dims=3) - ref)[..., inner].abs().mean().item()
            for dx in range(-6, 7)
        }
        dx = min(errors, key=errors.get)
        flow = torch.tensor([float(dx), 0.0]).view(1, 2, 1, 1)
        return flow.expand(ref.shape[0], 2, *ref.shape[2:]).contiguous()


class Recorder(nn.Module):
    """Stands in for the alignment: keeps what it was given, moves nothing."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, ref, tgt, flow):
        self.calls.append((ref, tgt, flow))
        return ref


def moving_scene():
    """Four frames of a scene that moves three pixels to the right in each."""
    return torch.stack([smooth_picture(12, 40, shift=(3.0 * t, 0.0)) for t in range(4)])[None]


def test_the_forward_flow_of_a_scene_that_moves_right_points_left():
    network = make_network(TINY_VSRM)
    network.spynet = Search()

    backward, forward = network.flows(moving_scene())

    assert backward.shape == forward.shape == (1, 3, 2, 12, 40)
    assert (forward[:, :, 0] == -3).all()
    assert (backward[:, :, 0] == 3).all()
    assert not forward[:, :, 1].any()
    assert not backward[:, :, 1].any()


def test_a_backward_branch_follows_the_flow_to_later_frames_and_a_forward_branch_to_earlier():
    network = make_network(TINY_VSRM)
    network.spynet, network.align = Search(), Recorder()

    network(moving_scene())

    flows = [flow[0, 0, 6, 20].item() for _, _, flow in network.align.calls]
    # In each branch of four frames: one neighbor for the second frame, two for the later ones.
    assert flows == [3, 3, 6, 3, 6, -3, -3, -6, -3, -6]


class StepRecorder(nn.Module):
    """Stands in for a branch: keeps its stacks, and marks its results by adding 100."""

    def __init__(self):
        super().__init__()
        self.stacks = []

    def forward(self, stack):
        self.stacks.append(stack)
        return stack[:, 1] + 100


def propagate(flows, *, frames=4, backward=False):
    """Let frames of the values 1, 2, ... pass a branch of stand-ins: stacks, calls, results."""
    height, width = flows.shape[-2:]
    network, branch = make_network(TINY_VSRM), StepRecorder()
    network.align = Recorder()
    features = [torch.full((1, 2, height, width), t + 1.0) for t in range(frames)]
    results = network._propagate(branch, features, flows, backward=backward)
    return branch.stacks, network.align.calls, results


def values(tensors):
    """The value of each tensor that has but one."""
    found = [x.unique().tolist() for x in tensors]
    assert all(len(x) == 1 for x in found)
    return [x[0] for x in found]


def values_of_stacks(stacks):
    return [values(stack[0]) for stack in stacks]


def numbered_flows(count, height=2, width=40):
    """Flows between neighbors: the n-th goes n + 1 hundredths of a pixel to the right."""
    flows = torch.zeros(1, count, 2, height, width)
    for n in range(count):
        flows[:, n, 0] = (n + 1) / 100
    return flows


def test_a_backward_branch_uses_the_results_of_the_two_frames_after():
    stacks, calls, results = propagate(numbered_flows(3), backward=True)

    # The frame of value 4 comes first; the second one has no second neighbor.
    assert values_of_stacks(stacks) == [[4, 4, 4], [104, 3, 0], [103, 2, 104], [102, 1, 103]]
    assert [values(pair[:2]) for pair in calls] == [
        [104, 3],
        [103, 2],
        [104, 2],
        [102, 1],
        [103, 1],
    ]
    assert values(results) == [101, 102, 103, 104]


def test_a_forward_branch_uses_the_results_of_the_two_frames_before():
    stacks, calls, results = propagate(numbered_flows(3), backward=False)

    assert values_of_stacks(stacks) == [[1, 1, 1], [101, 2, 0], [102, 3, 101], [103, 4, 102]]
    assert [values(pair[:2]) for pair in calls] == [
        [101, 2],
        [102, 3],
        [101, 3],
        [103, 4],
        [102, 4],
    ]
    assert values(results) == [101, 102, 103, 104]


@pytest.mark.parametrize(
    ("backward", "hundredths"),
    # Flow n lies between frames n and n + 1; to a frame two steps away lead two of them.
    [(True, [3, 2, 5, 1, 3]), (False, [1, 2, 3, 3, 5])],
    ids=["backward", "forward"],
)
def test_constant_flows_add_up_to_the_frame_two_steps_away(backward, hundredths):
    _, calls, _ = propagate(numbered_flows(3), backward=backward)

    found = [flow[0, 0, 0, 10].item() * 100 for _, _, flow in calls]

    assert found == pytest.approx(hundredths, abs=1e-3)


def test_a_varying_older_flow_is_read_where_the_newer_one_points():
    # Forward at the third frame: the newer flow goes 2 right, the older one 0.1 x down.
    flows = torch.zeros(1, 2, 2, 3, 12)
    flows[:, 1, 0] = 2.0
    flows[:, 0, 1] = 0.1 * torch.arange(12.0)

    _, calls, _ = propagate(flows, frames=3)

    second_order = calls[2][2][0]
    torch.testing.assert_close(second_order[0, :, :10], torch.full((3, 10), 2.0))
    expected = 0.1 * (torch.arange(10.0) + 2)
    torch.testing.assert_close(second_order[1, 0, :10], expected, **TOLERANCE)


def test_where_the_newer_flow_leaves_the_frame_the_older_one_adds_nothing():
    flows = torch.zeros(1, 2, 2, 3, 12)
    flows[:, :, 0] = 2.0

    _, calls, _ = propagate(flows, frames=3)

    assert calls[2][2][0, 0, 1].tolist() == pytest.approx([4.0] * 10 + [2.0] * 2, abs=1e-4)


def test_the_second_frame_has_no_second_neighbor_at_all():
    network, branch = (
        make_network(TINY_VSRM),
        StepRecorder(),
    )  # with its real alignment, which adds biases
    features = [draw_randomly(1, TINY_VSRM.channels, 4, 5, seed=t) for t in range(2)]

    network._propagate(branch, features, torch.zeros(1, 1, 2, 4, 5), backward=True)

    assert not branch.stacks[1][:, 2].any()
    assert branch.stacks[1][:, 0].any()


# The whole network


@pytest.mark.parametrize("config", [TINY_VSRM, PAPER_LIKE], ids=["tiny", "as published"])
@pytest.mark.parametrize(
    ("time", "height", "width"), [(1, 1, 1), (2, 1, 6), (3, 5, 7), (4, 9, 3), (1, 8, 8)]
)
def test_any_length_and_size_is_upscaled_four_times(config, time, height, width):
    network = make_network(config).requires_grad_(False)

    large = network(draw_clip(time, height, width))

    assert large.shape == (1, time, 3, 4 * height, 4 * width)
    assert large.isfinite().all()


def test_a_single_frame_needs_no_flow():
    network = make_network(TINY_VSRM).requires_grad_(False)
    network.spynet = network.align = None

    assert network(draw_clip(1, 5, 7)).shape == (1, 1, 3, 20, 28)


def test_clips_of_a_batch_do_not_affect_each_other():
    network, pair = make_network(TINY_VSRM).requires_grad_(False), draw_clip(3, 5, 7, batch=2)

    together = network(pair)

    torch.testing.assert_close(together[:1], network(pair[:1]), **TOLERANCE)
    torch.testing.assert_close(together[1:], network(pair[1:]), **TOLERANCE)


def test_every_frame_depends_on_every_other():
    network, frames = make_network(TINY_VSRM).requires_grad_(False), draw_clip(4, 6, 6)
    before = network(frames)

    for t in range(4):
        changed = frames.clone()
        changed[:, t] = 1 - changed[:, t]
        seen = (network(changed) - before).abs().amax(dim=(0, 2, 3, 4))
        assert (seen > 0).all()


def test_the_network_corrects_a_bilinear_frame():
    network, frames = make_network(TINY_VSRM).requires_grad_(False), draw_clip(2, 5, 7)
    for weight in network.upsampler.conv_last.parameters():
        weight.zero_()

    large = network(frames)

    base = functional.interpolate(frames[0], scale_factor=4, mode="bilinear", align_corners=False)
    torch.testing.assert_close(large[0], base)


def still(frames):
    """The flows of a clip in which nothing moves."""
    batch, time, _, height, width = frames.shape
    return (torch.zeros(batch, time - 1, 2, height, width),) * 2


def test_untrained_branches_do_not_use_other_frames():
    network, frames = (
        make_network(TINY_VSRM, randomized=False).requires_grad_(False),
        draw_clip(3, 5, 7, batch=2),
    )

    large = network.frames(frames, network.flows(frames))

    torch.testing.assert_close(large, network(frames), **TOLERANCE)


def test_the_same_clip_gives_the_same_bits():
    network, frames = make_network(TINY_VSRM).requires_grad_(False), draw_clip(3, 9, 7)

    assert torch.equal(network(frames), network(frames))


def test_double_precision_agrees_with_single():
    network, frames = make_network(TINY_VSRM).requires_grad_(False), draw_clip(3, 5, 7)
    single = network(frames)

    double = network.double()(frames.double())

    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-3, atol=1e-4)


def test_the_memory_estimate_grows_with_the_clip_and_holds_at_least_its_frames():
    network = on_the_meta_device(VSRM_ABLATION)

    one, more_frames, larger = (
        network.memory_bytes(*size) for size in [(1, 90, 160), (16, 90, 160), (1, 180, 320)]
    )

    assert one >= 4 * 3 * 17 * 90 * 160
    assert one < more_frames < 16 * one
    assert larger == 4 * one


# Learning


def missing_gradients(network, frames):
    """Names of weights whose gradient is missing, not finite, or zero everywhere."""
    network(frames).square().mean().backward()
    return {
        name
        for name, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.isfinite().all() or not weight.grad.any()
    }


@pytest.mark.parametrize("config", [TINY_VSRM, PAPER_LIKE], ids=["tiny", "as published"])
def test_every_weight_gets_a_gradient_from_a_clip(config):
    network = make_network(config).train()

    assert missing_gradients(network, draw_clip(3, 6, 6)) == set()


def test_single_frames_train_only_the_stem_and_the_upsampler():
    network, frames = make_network(TINY_VSRM).train(), draw_clip(2, 6, 6)

    network.frames(frames, still(frames)).square().mean().backward()

    learning = {name.split(".")[0] for name, w in network.named_parameters() if w.grad is not None}
    assert learning == {"conv_first", "upsampler"}


@pytest.mark.slow
def test_the_published_network_runs_forward_and_backward_on_a_small_clip():
    network, frames = make_network(VSRM_FULL).train(), draw_clip(2, 8, 8)

    assert missing_gradients(network, frames) == set()
    assert network(frames).shape == (1, 2, 3, 32, 32)
