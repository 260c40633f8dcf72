"""Loss spikes are told from hard batches and rolled back, a limited number of times."""

import math
from dataclasses import replace

import pytest
import torch
from networks import make_feature_network, make_network
from torch.nn import functional as F

from vsrm_cli.data.training_batch import ClipShape, TrainingBatch
from vsrm_cli.errors import OutputError
from vsrm_cli.training import divergence_guard
from vsrm_cli.training.divergence_guard import MAX_RETURNS, DivergenceGuard
from vsrm_cli.training.perceptual.stage import PerceptualStage
from vsrm_cli.training.recipe import Recipe, TrainingStage
from vsrm_cli.training.trainer import StepLosses, Trainer

SHAPE = ClipShape(frames=2, patch=8, batch=1, photo_share=0.5)
RECIPE = Recipe(TrainingStage.CLIPS, steps=1000, shape=SHAPE, lr=1e-3)


@pytest.fixture
def trainer():
    return Trainer(make_network(), RECIPE)


def do_good_steps(trainer, guard, steps):
    """Pretend that some steps went well, each of which adds 1 to a weight."""
    for _ in range(steps):
        assert guard.accept(StepLosses(0.9, 1.0))
        with torch.no_grad():
            trainer.network.conv_first.bias[0] += 1
        trainer.step += 1
        guard.note_step()


def test_a_nan_or_infinite_loss_is_rejected(trainer):
    guard = DivergenceGuard(trainer)

    assert not guard.accept(StepLosses(math.nan, 0.1))
    assert not guard.accept(StepLosses(math.inf, 0.1))


def test_the_first_finite_loss_is_always_accepted(trainer):
    assert DivergenceGuard(trainer).accept(StepLosses(7.0, 0.1))


def test_a_loss_far_above_the_usual_is_rejected(trainer):
    guard = DivergenceGuard(trainer)
    do_good_steps(trainer, guard, 5)

    assert guard.accept(StepLosses(2.9, 1.0))
    assert not guard.accept(StepLosses(3.1, 1.0))


def test_a_batch_that_is_hard_for_bicubic_too_is_accepted(trainer):
    guard = DivergenceGuard(trainer)
    do_good_steps(trainer, guard, 5)

    # A hundred times the loss, on a batch that is as hard for bicubic.
    assert guard.accept(StepLosses(90.0, 100.0))


def test_a_loss_that_grows_by_a_tenth_each_step_is_detected(trainer):
    guard, loss = DivergenceGuard(trainer), 0.9

    while guard.accept(StepLosses(loss, 1.0)):
        loss *= 1.1

    assert 3 < loss < 15


def test_a_network_may_start_with_a_high_loss(trainer):
    guard = DivergenceGuard(trainer)

    assert all(guard.accept(StepLosses(8.0, 1.0)) for _ in range(10))
    assert not guard.accept(StepLosses(25.0, 1.0))


def test_a_rollback_restores_proven_weights_and_halves_the_learning_rate(trainer):
    before = trainer.network.conv_first.bias[0].item()
    guard = DivergenceGuard(trainer)
    # Copies at 25 and 50; only the first has been followed by 25 good losses.
    do_good_steps(trainer, guard, 60)
    rate = replace(RECIPE, warmup=0).lr

    guard.roll_back()

    assert trainer.step == 25
    assert trainer.network.conv_first.bias[0].item() == pytest.approx(before + 25)
    trainer.step = 100  # past the warmup
    assert trainer.learning_rate() == pytest.approx(rate / 2 * (0.02 + 0.98 * 0.9755), rel=1e-3)


def test_each_rollback_halves_the_learning_rate_again(trainer):
    guard = DivergenceGuard(trainer)

    guard.roll_back()
    guard.roll_back()

    assert trainer.lr_backoff == 0.25


def test_after_too_many_rollbacks_the_run_ends_with_a_suggestion(trainer):
    guard = DivergenceGuard(trainer)
    do_good_steps(trainer, guard, 60)
    for _ in range(MAX_RETURNS):
        guard.roll_back()
        do_good_steps(trainer, guard, 3)

    with pytest.raises(OutputError, match=r"exploded again at step 28.*--lr below 0\.001"):
        guard.roll_back()
    assert trainer.step == 25


def test_old_rollbacks_are_forgotten(trainer, monkeypatch):
    monkeypatch.setattr(divergence_guard, "CALM_STEPS", 30)
    guard = DivergenceGuard(trainer)

    for _ in range(MAX_RETURNS + 2):
        guard.roll_back()
        do_good_steps(trainer, guard, 30)

    assert guard.returns == 0


def test_a_restored_guard_decides_like_the_original(trainer):
    original, restored = DivergenceGuard(trainer), DivergenceGuard(trainer)
    do_good_steps(trainer, original, 10)
    original.returns = 2

    restored.load_state_dict(original.state_dict())

    assert restored.state_dict() == original.state_dict()
    assert not restored.accept(StepLosses(3.1, 1.0))


@pytest.fixture
def adversarial_trainer():
    """A trainer with a discriminator."""
    recipe, network = replace(RECIPE, stage=TrainingStage.SHARP), make_network()
    return Trainer(network, recipe, PerceptualStage(network, recipe, make_feature_network()))


def test_flat_clips_are_no_loss_spike_in_the_sharp_stage(adversarial_trainer):
    guard = DivergenceGuard(adversarial_trainer)
    hr = torch.rand(1, 2, 3, 32, 32)
    still, none = torch.zeros(1, 1, 2, 8, 8), torch.zeros(1, dtype=torch.bool)

    for contrast in (1.0, 1.0, 0.02):
        clip = 0.5 + contrast * (hr - 0.5)
        lr = F.avg_pool2d(clip[0], 4)[None]
        assert guard.accept(
            adversarial_trainer.compute_gradients(TrainingBatch(lr, clip, still, still, none))
        )


def test_a_discriminator_that_wins_for_long_is_rolled_back_with_half_its_rate(adversarial_trainer):
    guard = DivergenceGuard(adversarial_trainer)
    accepted = [
        guard.accept(StepLosses(0.9, 1.0, 0.001)) for _ in range(divergence_guard.STEPS_REMEMBERED)
    ]

    message = guard.roll_back()

    assert accepted == [True] * (divergence_guard.STEPS_REMEMBERED - 1) + [False]
    assert message == (
        "the discriminator won at step 0: back to step 0, with half the discriminator's rate and "
        "other samples"
    )
    assert (adversarial_trainer.lr_backoff, adversarial_trainer.perceptual.lr_backoff) == (1.0, 0.5)
    assert guard.accept(StepLosses(0.9, 1.0, 0.001))  # the discriminator has as long as before


def test_a_diverging_discriminator_halves_both_learning_rates(adversarial_trainer):
    guard = DivergenceGuard(adversarial_trainer)

    assert not guard.accept(StepLosses(0.9, 1.0, math.nan))
    guard.roll_back()

    assert (adversarial_trainer.lr_backoff, adversarial_trainer.perceptual.lr_backoff) == (0.5, 0.5)


def test_a_discriminator_that_keeps_winning_ends_the_run_with_a_suggestion(adversarial_trainer):
    guard = DivergenceGuard(adversarial_trainer)

    def win():
        while guard.accept(StepLosses(0.9, 1.0, 0.001)):
            pass

    for _ in range(MAX_RETURNS):
        win()
        guard.roll_back()
    win()

    with pytest.raises(OutputError, match=r"The discriminator won .* --adversarial-weight"):
        guard.roll_back()
