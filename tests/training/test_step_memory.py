"""The memory of a step is estimated in advance, and a run that does not fit is refused."""

from dataclasses import replace

import pytest
import torch
from networks import TINY, TINY_GSM, TINY_VSRM, make_network

from vsrm_cli.data.training_batch import ClipShape, TrainingBatch
from vsrm_cli.errors import MemoryShortage
from vsrm_cli.training import step_memory
from vsrm_cli.training.loop import train
from vsrm_cli.training.recipe import Recipe, TrainingStage
from vsrm_cli.training.step_memory import PeakMeter, check_memory
from vsrm_cli.training.trainer import Trainer

SHAPE = ClipShape(frames=4, patch=48, batch=2, photo_share=0.0)
RECIPE = Recipe(TrainingStage.CLIPS, steps=4, shape=SHAPE, lr=1e-3)


def random_sample(shape):
    clips, frames, side = shape.batch, shape.frames, shape.patch
    lr = torch.rand(clips, frames, 3, side, side)
    hr = torch.rand(clips, frames, 3, 4 * side, 4 * side)
    flow = torch.zeros(clips, frames - 1, 2, side, side)
    return TrainingBatch(lr, hr, flow, flow, torch.zeros(clips, dtype=torch.bool))


def estimate(trainer, monkeypatch):
    """The estimated memory of a step, in bytes."""
    monkeypatch.setattr(step_memory, "free_memory_bytes", lambda _: 0)
    found = []
    monkeypatch.setattr(step_memory, "_activation_bytes", spy(step_memory._activation_bytes, found))
    with pytest.raises(MemoryShortage):
        check_memory(trainer, trainer.recipe)
    return found[0]


def spy(function, results):
    def call(*arguments):
        results.append(function(*arguments))
        return results[-1]

    return call


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(TINY, id="compact"),
        pytest.param(TINY_VSRM, id="vsrm", marks=pytest.mark.slow),
        pytest.param(TINY_GSM, id="gsm", marks=pytest.mark.slow),
    ],
)
def test_the_estimate_is_close_to_the_peak_memory_of_a_step(monkeypatch, config, recompute):
    shape = replace(SHAPE, batch=1)
    trainer = Trainer(make_network(config), replace(RECIPE, shape=shape, recompute=recompute))

    estimated = estimate(trainer, monkeypatch)

    with PeakMeter() as meter:
        trainer.run_trial(random_sample(shape))
    assert estimated == pytest.approx(meter.peak, rel=0.25)


def test_a_run_that_does_not_fit_into_memory_is_refused_early_with_suggestions(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(step_memory, "free_memory_bytes", lambda _: 1 << 20)

    with pytest.raises(
        MemoryShortage, match=r"GB are free on cpu; give --recompute .*--accumulate 2"
    ):
        train(make_network(), tmp_path / "no pack is read", tmp_path / "out", RECIPE)

    assert not (tmp_path / "out").exists()


def test_a_trial_step_changes_no_weight(monkeypatch):
    trainer = Trainer(make_network(), RECIPE)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    monkeypatch.setattr(step_memory, "free_memory_bytes", lambda _: 1 << 60)

    check_memory(trainer, RECIPE)

    assert all(
        torch.equal(value, before[name]) for name, value in trainer.network.state_dict().items()
    )
    assert all(parameter.grad is None for parameter in trainer.network.parameters())


def test_a_small_run_needs_no_trial_step(monkeypatch):
    trainer = Trainer(make_network(), replace(RECIPE, shape=replace(SHAPE, frames=3, patch=16)))
    monkeypatch.setattr(trainer, "run_trial", None)

    check_memory(trainer, trainer.recipe)
