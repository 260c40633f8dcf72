"""A step trains the parameters of its stage, at the scheduled rate, with the right gradients."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from networks import TINY_GSM, TINY_VSRM, make_feature_network, make_network
from scenes import draw_pack

from vsrm_cli.data.dataset import ClipDataset
from vsrm_cli.data.training_batch import ClipShape
from vsrm_cli.layers import window_attention as attention
from vsrm_cli.training.perceptual import stage as perceptual_stage
from vsrm_cli.training.perceptual.stage import PerceptualStage
from vsrm_cli.training.recipe import Precision, Recipe, TrainingStage
from vsrm_cli.training.trainer import Trainer

SHAPE = ClipShape(frames=3, patch=8, batch=2, photo_share=0.5, motion=1.5)
RECIPE = Recipe(TrainingStage.CLIPS, steps=4, shape=SHAPE, lr=1e-3, warmup=2)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return draw_pack(tmp_path_factory.mktemp("packs") / "drawn.safetensors")


def make_batch(pack, shape=SHAPE):
    return ClipDataset(pack, shape, steps=1, seed=3)[0]


def new_trainer(network, recipe):
    """A trainer with the networks that its stage needs."""
    if recipe.stage is not TrainingStage.SHARP:
        return Trainer(network, recipe)
    return Trainer(network, recipe, PerceptualStage(network, recipe, make_feature_network()))


def gradients(recipe, batch, network=None):
    """The loss of a batch, and the gradient of each weight by its name."""
    network = network or make_network()
    losses = new_trainer(network, replace(recipe, clip_norm=None)).compute_gradients(batch)
    named = network.named_parameters()
    return losses.loss, {name: x.grad for name, x in named if x.grad is not None}


def assert_equal_gradients(one, other, **tolerances):
    assert one.keys() == other.keys()
    for name, x in one.items():
        torch.testing.assert_close(x, other[name], **tolerances)


def trained_parts(recipe, pack, steps=2):
    """The parts of a network that change in some steps."""
    network = make_network()
    before = {name: x.clone() for name, x in network.state_dict().items()}
    trainer = new_trainer(network, recipe)
    for step in range(steps):
        trainer.update_weights(
            trainer.compute_gradients(ClipDataset(pack, recipe.shape, steps=steps, seed=0)[step])
        )
    after = network.state_dict()
    return {name.split(".")[0] for name, x in before.items() if not torch.equal(x, after[name])}


@pytest.mark.parametrize(
    ("stage", "trained"),
    [
        (TrainingStage.FLOW, {"spynet"}),
        (TrainingStage.FRAMES, {"conv_first", "features", "cell"}),
        (TrainingStage.CLIPS, {"spynet", "conv_first", "features", "cell"}),
        (TrainingStage.SHARP, {"conv_first", "features", "cell"}),
    ],
)
def test_each_stage_trains_its_part_of_the_network(pack, stage, trained):
    shape = replace(SHAPE, photo_share=1.0)

    assert trained_parts(replace(RECIPE, stage=stage, shape=shape), pack) == trained


@pytest.mark.parametrize(
    ("shares", "trained"),
    [
        ({"flow_lr": 0.0}, {"cell", "conv_first", "features"}),
        ({"trunk_lr": 0.0}, {"cell", "spynet"}),
    ],
)
def test_parts_trained_by_earlier_stages_have_their_own_learning_rate(pack, shares, trained):
    assert trained_parts(replace(RECIPE, **shares), pack) == trained


def test_the_flow_network_is_trained_after_its_frozen_steps(pack):
    recipe = replace(RECIPE, flow_frozen=2)

    assert "spynet" not in trained_parts(recipe, pack, steps=2)
    assert "spynet" in trained_parts(recipe, pack, steps=3)


def test_the_learning_rate_warms_up_and_then_falls_to_a_fiftieth():
    trainer = Trainer(make_network(), replace(RECIPE, steps=6, warmup=3, lr=1.0))
    rates = []
    for step in range(7):
        trainer.step = step
        rates.append(trainer.learning_rate())

    assert rates[:3] == pytest.approx([1 / 3, 2 / 3 * 0.9343, 0.755], abs=1e-3)
    assert rates[3] == pytest.approx(0.51)
    assert rates == [*rates[:2], *sorted(rates[2:], reverse=True)]
    assert rates[6] == pytest.approx(0.02)


def test_the_published_learning_rate_falls_to_1e_7():
    trainer = Trainer(make_network(), replace(RECIPE, steps=6, lr=2e-4, warmup=0, lr_end=5e-4))

    rates = {}
    for step in (0, 6):
        trainer.step = step
        rates[step] = trainer.learning_rate()

    assert rates == pytest.approx({0: 2e-4, 6: 1e-7})


def test_without_a_number_of_steps_the_learning_rate_does_not_fall():
    trainer = Trainer(make_network(), replace(RECIPE, steps=None))
    trainer.step = 1000

    assert trainer.learning_rate() == RECIPE.lr


def test_the_average_follows_faster_in_the_first_steps(pack):
    # After one step it keeps 1/11 of the first weights, or less where the recipe says so.
    start = make_network().state_dict()
    slow, fast = (Trainer(make_network(), replace(RECIPE, ema=ema)) for ema in (0.999, 0.0))

    for trainer in (slow, fast):
        trainer.update_weights(trainer.compute_gradients(make_batch(pack)))

    after, slow_average = slow.network.state_dict(), slow.average.state_dict()
    for name, before in start.items():
        torch.testing.assert_close(slow_average[name], before + (after[name] - before) * 10 / 11)
        torch.testing.assert_close(fast.average.state_dict()[name], after[name])


def test_the_average_reaches_the_decay_of_the_recipe():
    trainer = Trainer(make_network(), replace(RECIPE, ema=0.9))

    late = trainer._average(torch.tensor(0.0), torch.tensor(1.0), 10_000)

    assert late.item() == pytest.approx(0.1)


@pytest.mark.parametrize("stage", list(TrainingStage))
def test_accumulated_gradients_equal_those_of_the_whole_batch(pack, stage):
    batch = make_batch(pack, replace(SHAPE, batch=3))
    recipe = replace(RECIPE, stage=stage)

    loss, whole = gradients(recipe, batch)
    loss_in_parts, in_parts = gradients(replace(recipe, accumulate=3), batch)

    assert loss_in_parts == pytest.approx(loss, rel=1e-5)
    # A feature network has kinks, where rounding changes a gradient a little.
    tolerances = (2e-2, 1e-4) if stage is TrainingStage.SHARP else (1e-3, 1e-6)
    assert_equal_gradients(in_parts, whole, rtol=tolerances[0], atol=tolerances[1])


@pytest.mark.parametrize("config", [None, TINY_VSRM, TINY_GSM], ids=["compact", "vsrm", "gsm"])
def test_gradient_checkpointing_gives_the_same_gradients(pack, config):
    batch = make_batch(pack)
    networks = [make_network(*([config] if config else [])) for _ in range(2)]

    loss, kept = gradients(RECIPE, batch, networks[0])
    loss_again, recomputed = gradients(replace(RECIPE, recompute=True), batch, networks[1])

    assert loss_again == loss
    assert_equal_gradients(recomputed, kept)
    assert "forward" not in vars(networks[1])


@pytest.mark.parametrize("config", [None, TINY_VSRM, TINY_GSM], ids=["compact", "vsrm", "gsm"])
def test_a_network_can_be_trained_after_inference(pack, config):
    # What a network caches for a size must not be an inference tensor, as it once was.
    network, batch = make_network(*([config] if config else [])), make_batch(pack)
    if config:
        attention._mask.cache_clear()
        attention._cached_positions.cache_clear()
    with torch.inference_mode():
        network(batch.lr)

    losses = Trainer(network, RECIPE).compute_gradients(batch)

    assert 0 < losses.loss < 10


def test_gradient_checkpointing_saves_more_than_half_of_the_memory(pack):
    def bytes_kept(recipe):
        trainer, kept = Trainer(make_network(TINY_VSRM), recipe), 0

        def count(x):
            nonlocal kept
            kept += x.numel() * x.element_size()
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            trainer._forward(make_batch(pack, replace(SHAPE, frames=4)))
        return kept

    assert bytes_kept(replace(RECIPE, recompute=True)) < bytes_kept(RECIPE) / 2


def test_a_mirrored_clip_is_the_clip_and_its_reverse(pack):
    batch = make_batch(pack)
    with_reverse = type(batch)(
        **{
            **vars(batch),
            "lr": torch.cat((batch.lr, batch.lr.flip(1)), dim=1),
            "hr": torch.cat((batch.hr, batch.hr.flip(1)), dim=1),
        }
    )

    mirrored = Trainer(make_network(), replace(RECIPE, mirrored=True)).compute_gradients(batch)

    assert mirrored == Trainer(make_network(), RECIPE).compute_gradients(with_reverse)


def test_the_discriminator_and_the_cleaning_head_are_trained_too(pack):
    recipe = replace(RECIPE, stage=TrainingStage.SHARP)
    trainer = new_trainer(make_network(), recipe)
    before = deepcopy(trainer.state_dict()["perceptual"])

    losses = trainer.compute_gradients(make_batch(pack))
    trainer.update_weights(losses)

    after = trainer.state_dict()["perceptual"]
    assert losses.discriminator == pytest.approx(0.69, abs=0.2)
    for part, name in (("head", "weight"), ("discriminator", "first.weight")):
        assert not torch.equal(after[part][name], before[part][name])


def test_the_adversarial_loss_starts_after_the_discriminator_trained_alone(pack, monkeypatch):
    recipe = replace(RECIPE, stage=TrainingStage.SHARP)
    losses = []

    for alone in (5, 0):
        monkeypatch.setattr(perceptual_stage, "STEPS_ALONE", alone)
        trainer = new_trainer(make_network(), recipe)
        trainer.step = 5
        losses.append(trainer.compute_gradients(make_batch(pack)).loss)

    assert losses[1] > losses[0]


def test_a_discriminator_that_is_nearly_always_right_is_not_updated(pack, monkeypatch):
    monkeypatch.setattr(perceptual_stage, "MIN_UPDATE_LOSS", 99.0)
    trainer = new_trainer(make_network(), replace(RECIPE, stage=TrainingStage.SHARP))
    before = trainer.perceptual.discriminator.first.weight.clone()

    trainer.update_weights(trainer.compute_gradients(make_batch(pack)))

    assert torch.equal(trainer.perceptual.discriminator.first.weight, before)


@pytest.mark.parametrize("dtype", [Precision.BFLOAT16, Precision.FLOAT16])
def test_half_precision_losses_are_close_and_weights_stay_float32(pack, dtype):
    batch = make_batch(pack)

    loss, exact = gradients(RECIPE, batch)
    trainer = Trainer(make_network(), replace(RECIPE, dtype=dtype))
    losses = trainer.compute_gradients(batch)
    trainer.update_weights(losses)

    assert losses.loss == pytest.approx(loss, rel=0.05)
    assert losses.loss != loss
    weights = trainer.state_dict()["network"]
    assert {x.dtype for x in weights.values()} == {torch.float32}
    assert all(x.isfinite().all() for x in weights.values())
    assert len(exact) == len(list(trainer.network.parameters()))


def test_a_float16_overflow_skips_the_step_and_halves_the_loss_scale(pack):
    trainer = Trainer(make_network(), replace(RECIPE, dtype=Precision.FLOAT16))
    before = {name: x.clone() for name, x in trainer.network.state_dict().items()}
    state = trainer.state_dict()
    state["scaler"]["scale"] = 2.0**40
    trainer.load_state_dict(state)

    losses = trainer.compute_gradients(make_batch(pack))
    trainer.update_weights(losses)

    assert 0 < losses.loss < 10
    assert trainer.state_dict()["scaler"]["scale"] == 2.0**39
    after = trainer.network.state_dict()
    assert all(torch.equal(x, after[name]) for name, x in before.items())


def test_gradients_are_clipped_to_the_norm(pack):
    def norm(clip_norm):
        network = make_network()
        Trainer(network, replace(RECIPE, clip_norm=clip_norm)).compute_gradients(make_batch(pack))
        grads = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        return torch.cat(grads).norm().item()

    free = norm(None)

    assert norm(free / 4) == pytest.approx(free / 4, rel=1e-4)


def test_an_untrained_network_has_the_loss_of_bicubic(pack):
    losses = Trainer(make_network(randomized=False), RECIPE).compute_gradients(make_batch(pack))

    assert losses.loss == pytest.approx(losses.baseline, rel=1e-4)


# NaN in the features makes points at which a warp reads NaN as well: PyTorch's backward
# pass through them reads any place of the memory.
@pytest.mark.parametrize("parameter", ["cell.conv_last.bias", "conv_first.bias"])
def test_nan_weights_give_a_nan_loss(pack, parameter):
    network = make_network()
    with torch.no_grad():
        network.get_parameter(parameter)[0] = float("nan")

    losses = Trainer(network, RECIPE).compute_gradients(make_batch(pack))

    assert losses.loss != losses.loss


def test_a_restored_trainer_repeats_the_same_step(pack):
    trainer, batch = Trainer(make_network(), RECIPE), make_batch(pack)
    trainer.update_weights(trainer.compute_gradients(batch))
    state = deepcopy(trainer.state_dict())
    states = []

    for _ in range(2):
        trainer.load_state_dict(state)
        trainer.update_weights(trainer.compute_gradients(batch))
        states.append(deepcopy(trainer.state_dict()))

    assert [after["step"] for after in states] == [2, 2]
    assert state["step"] == 1
    for part in ("network", "average"):
        assert all(torch.equal(x, states[1][part][name]) for name, x in states[0][part].items())
