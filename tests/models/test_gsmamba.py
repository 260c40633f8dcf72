"""The network is the authors' one, quirk by quirk; what their code refuses works too."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gsm_reference import MISTAKES, GSMReference
from networks import RELEASED_LIKE, TINY_GSM, count_parameters, draw_randomly, make_network
from safetensors import safe_open
from safetensors.torch import load_file

from vsrm_cli.layers.flow_composition import ComposedFlows
from vsrm_cli.models.gsmamba import GSM, scatter
from vsrm_cli.models.presets import GSM_FULL

DATA = Path(__file__).parents[1] / "data" / "gsm"
# The authors' code in float32 differs from itself in float64 by 3e-6 to 6e-6 in the output and by
# 2e-6 (relative L2) in the features.
OUTPUT, FEATURES = 3e-5, 1e-5
# Two float32 computations of one thing whose sums run in another order.
TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}


class Published:
    """One of the two sets of numbers that the authors' network produced with random weights."""

    def __init__(self, letter):
        with safe_open(DATA / f"{letter}_weights.safetensors", framework="pt") as file:
            words = json.loads(file.metadata()["config"])
        c = words["embed_dims"]
        self.network = GSM(
            replace(
                GSM_FULL,
                channels=c,
                heads=words["num_heads"],
                layers=words["prop_depth"],
                attention_blocks=words["attn_depth"],
                radius=words["pa_frame"],
                rank=-(-c // 16),
            )
        ).eval()
        self.network.requires_grad_(False)
        weights = load_file(DATA / f"{letter}_weights.safetensors")
        missing, unexpected = self.network.load_state_dict(weights, strict=False)
        assert not unexpected
        assert all("spynet" in k or "relative_position_index" in k for k in missing)
        self.numbers = load_file(DATA / f"{letter}_numbers.safetensors")
        self.clip = self.numbers["input"]
        self.flows = self.numbers["flows_backward"], self.numbers["flows_forward"]
        # The flows are given: the weights of the flow network would fill the repository.
        self.network.flows = lambda clip: self.flows

    def distance(self, x, name):
        """Relative L2 at the places that were kept, and the greatest difference."""
        expected = self.numbers[name]
        rng = torch.Generator().manual_seed(sum(name.encode()))
        found = x.flatten()[torch.randint(x.numel(), expected.shape, generator=rng)]
        apart = found - expected
        return (apart.norm() / expected.norm()).item(), apart.abs().max().item()


@pytest.fixture(scope="module", params=["A", "B"])
def published(request):
    return Published(request.param)


def channels_second(frames):
    """T frames (B, H, W, C) to (B, C, T, H, W)."""
    return torch.stack(frames, 1).permute(0, 4, 1, 2, 3)


def test_restores_as_the_authors_network_does(published):
    assert published.distance(published.network(published.clip), "output")[1] < OUTPUT


def test_features_after_each_layer_are_the_authors(published):
    network, seen = published.network, {}
    hooks = [
        layer.stage.attn_blocks.register_forward_hook(
            lambda _, __, frames, n=n: seen.update({f"after_attn_blocks_{n}": frames})
        )
        for n, layer in enumerate(network.prop_layers)
    ]
    hooks += [
        layer.register_forward_hook(
            lambda _, __, frames, n=n: seen.update({f"after_prop_layer_{n}": frames})
        )
        for n, layer in enumerate(network.prop_layers)
    ]
    hooks.append(
        network.norm.register_forward_hook(
            lambda _, __, y: seen.update({"after_norm": list(y.unbind(1))})
        )
    )

    features = network.extract(published.clip)
    network.propagate(features, published.flows)
    for hook in hooks:
        hook.remove()

    seen["after_conv_first"] = list(features.permute(1, 0, 3, 4, 2).unbind(0))
    assert len(seen) == 2 + 2 * len(network.prop_layers)
    for name, frames in seen.items():
        relative, greatest = published.distance(channels_second(frames), name)
        assert relative < FEATURES, name
        assert greatest < 2e-3, name


@pytest.mark.parametrize(
    ("letter", "layer", "anchor"), [("A", 0, 0), ("B", 1, 3)], ids=["at the edge", "reversed"]
)
def test_one_window_step_by_step(letter, layer, anchor):
    published = Published(letter)
    block = published.network.prop_layers[layer].stage.mamba_block
    windows, scans = [], []
    block.register_forward_hook(lambda _, inputs, out: windows.append((inputs, out)))
    block.mamba.register_forward_hook(lambda _, inputs, out: scans.append((inputs[0], out)))

    published.network.propagate(published.network.extract(published.clip), published.flows)

    (clip, aligned, ways_back, wanted), out = windows[anchor]
    tokens, mixed = scans[anchor]
    batch, count, height, width, channels = clip.shape
    sent_back = scatter(mixed.view(aligned.shape), ways_back).view(clip.shape)
    found = {
        "clip_in": clip.permute(0, 4, 1, 2, 3),
        "aligned": aligned.view(batch, height, width, count, channels).permute(0, 4, 3, 1, 2),
        "mamba_in_tokens": tokens,
        "mamba_out_tokens": mixed,
        "scattered": sent_back.permute(0, 4, 1, 2, 3),
    }
    for name, x in found.items():
        assert published.distance(x, f"L{layer}.W{anchor}.{name}")[0] < FEATURES, name
    # Copies past the clip's edge are not written: where they stand, the kept numbers are theirs.
    whole = published.numbers[f"L{layer}.W{anchor}.clip_out"].clone()
    name = f"L{layer}.W{anchor}.clip_out"
    rng = torch.Generator().manual_seed(sum(name.encode()))
    places = torch.randint(clip.numel(), whole.shape, generator=rng)
    frame = places // (height * width) % count
    is_written = (frame >= wanted.start) & (frame < wanted.stop)
    padded = torch.zeros_like(clip)
    padded[:, wanted] = out
    apart = (padded.permute(0, 4, 1, 2, 3).flatten()[places] - whole)[is_written]
    assert is_written.sum() > 2000
    assert apart.norm() / whole[is_written].norm() < FEATURES


def test_has_the_released_networks_parameters():
    with torch.device("meta"):
        network = GSM(GSM_FULL)

    assert count_parameters(network) == 10_455_919
    assert len(network.state_dict()) == 438
    parts = {
        "spynet": 1_440_300,
        "implicit_align": 111_168,
        "prop_layers.0.stage.attn_blocks": 6_015_360 // 4,
        "prop_layers.0.stage.mamba_block.mamba": 1_127_424 // 4,
        "prop_layers.0.stage.mamba_block.mlp": 1_269_504 // 4,
    }
    for name, count in parts.items():
        assert count_parameters(network.get_submodule(name)) == count, name


def test_keys_and_shapes_match_the_released_checkpoint():
    released = json.loads((DATA / "released_keys.json").read_text())
    with torch.device("meta"):
        state = GSM(GSM_FULL).state_dict()

    assert {
        k: [str(v.dtype).removeprefix("torch."), *v.shape] for k, v in state.items()
    } == released


def restless_flows(time, height, width):
    """Flows of a few pixels that differ from pixel to pixel and lead out of the frame."""
    shape = (1, time - 1, 2, height, width)
    return tuple(6 * draw_randomly(*shape, seed=seed) - 3 for seed in (1, 2))


def reference_of(network, **how):
    config = network.config
    return GSMReference(network.state_dict(), heads=config.heads, radius=config.radius, **how)


def make_lively(config=RELEASED_LIKE, seed=0):
    """A network in which no parameter has a value that hides it."""
    network = make_network(config, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, x in network.named_parameters():
            if "spynet" not in name and not name.endswith(("A_log", "A_b_log")):
                x.add_(0.15 * torch.randn(x.shape, generator=rng))
    return network.requires_grad_(False)


@pytest.mark.parametrize(
    ("time", "height", "width"),
    [(5, 19, 12), (4, 16, 8), (2, 9, 21), (3, 7, 33), (7, 10, 10)],
)
def test_equals_the_reference_implementation(time, height, width):
    network = make_lively()
    clip, flows = draw_randomly(1, time, 3, height, width), restless_flows(time, height, width)
    network.flows = lambda clip: flows

    restored = network(clip)

    torch.testing.assert_close(restored, reference_of(network).forward(clip, *flows), **TOLERANCE)


def test_clips_of_a_batch_do_not_affect_each_other():
    network = make_lively()
    clips = draw_randomly(2, 3, 3, 12, 20)

    together = network(clips)

    for clip, restored in zip(clips, together, strict=True):
        torch.testing.assert_close(network(clip[None])[0], restored, **TOLERANCE)


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_every_mistake_in_the_reference_is_detected(mistake):
    network = make_lively(seed=3)
    clip, flows = draw_randomly(1, 5, 3, 19, 12), restless_flows(5, 19, 12)
    network.flows = lambda clip: flows

    wrong = reference_of(network, mistake=mistake).forward(clip, *flows)

    # A mistake that changes the authors' output by 1e-4 of what others do changes this one less.
    least = 1e-5 if mistake == "GELU by tanh" else 2e-3
    assert (network(clip) - wrong).abs().max() > least


@pytest.mark.parametrize(
    ("time", "height", "width"), [(1, 20, 24), (3, 5, 3), (1, 1, 1), (2, 32, 9)]
)
@pytest.mark.parametrize("config", [TINY_GSM, RELEASED_LIKE], ids=["compact", "released"])
def test_restores_clips_that_the_authors_code_refuses(config, time, height, width):
    network = make_network(config).requires_grad_(False)

    restored = network(draw_randomly(1, time, 3, height, width))

    assert restored.shape == (1, time, 3, 4 * height, 4 * width)
    assert torch.isfinite(restored).all()


def test_a_single_frame_is_seen_twice():
    network = make_lively(TINY_GSM)
    frame = draw_randomly(1, 1, 3, 12, 16)

    restored = network(frame)

    torch.testing.assert_close(restored, network(torch.cat((frame, frame), 1))[:, :1], **TOLERANCE)


def test_one_table_of_flows_serves_both_directions_of_time():
    network = make_lively()
    onward, back = restless_flows(4, 9, 12)
    motion = ComposedFlows(network.implicit_align, (onward, back), 2)
    mirrored = ComposedFlows(network.implicit_align, (back.flip(1), onward.flip(1)), 2)

    for target in range(4):
        for source in range(max(0, target - 2), min(4, target + 3)):
            a = motion.between(target, source, is_reversed=True)
            b = mirrored.between(target, source, is_reversed=False)
            assert torch.equal(a.index, b.index)
            assert torch.equal(a.query, b.query)


def test_sample_positions_are_rounded_down_after_adding_the_flow():
    # Pixel 20 minus 3.6e-7 is 20 in float32; the floor of the flow would be one pixel less.
    network = make_lively()
    flow = torch.full((1, 2, 24, 24), -3.6e-7)

    index = network.implicit_align.taps(flow).index

    assert index[20 * 24 + 20, 0] == 20 * 24 + 20


def test_training_reaches_every_parameter():
    network = make_network(TINY_GSM)
    clip = draw_randomly(1, 3, 3, 16, 16)

    network(clip).square().mean().backward()

    for name, x in network.named_parameters():
        assert x.grad is not None, name
        assert torch.isfinite(x.grad).all(), name
        assert x.grad.any() or name.endswith("k.bias"), name  # softmax does not see a constant


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(dtype):
    clip = draw_randomly(1, 3, 3, 16, 24)
    expected = make_lively(TINY_GSM)(clip)
    network = make_lively(TINY_GSM)
    network.set_precision(dtype)

    restored = network(clip.to(dtype)).float()

    assert network.prop_layers[0].stage.mamba_block.mamba.A_b_log.dtype == torch.float32
    error = (restored - expected).square().mean()
    assert error < (2e-2 if dtype == torch.bfloat16 else 2e-3) * expected.square().mean()
