"""A run can be stopped anywhere and resumes as if it had not been; its files are never partial."""

import errno
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import PAPER_LIKE, TINY, make_feature_network, make_network
from safetensors import safe_open
from safetensors.torch import load_file
from scenes import add_lr_frames, draw_pack
from torch import distributed, multiprocessing

from vsrm_cli.checkpoints.loading import load_model
from vsrm_cli.data.dataset import ClipDataset
from vsrm_cli.data.packs import load_pack
from vsrm_cli.data.training_batch import ClipShape
from vsrm_cli.errors import InputError, Interrupted, OutputError, UsageError
from vsrm_cli.training import loop
from vsrm_cli.training.perceptual import stage as perceptual_stage
from vsrm_cli.training.recipe import Recipe, TrainingStage
from vsrm_cli.training.run_dir import METRICS_FILE, REPORT_FILE, STATE_FILE, WEIGHTS_FILE
from vsrm_cli.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
SHAPE = ClipShape(frames=3, patch=8, batch=2, photo_share=0.5, motion=1.5)
RECIPE = Recipe(TrainingStage.CLIPS, steps=4, shape=SHAPE, lr=1e-3, warmup=2)
# Where the stage makes no difference.
CHEAP = replace(RECIPE, stage=TrainingStage.FRAMES)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return draw_pack(tmp_path_factory.mktemp("packs") / "drawn.safetensors")


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums are shared among threads in no fixed order; with one thread runs repeat bit for bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def metrics(out):
    return [json.loads(line) for line in (out / METRICS_FILE).read_text().splitlines()]


def train(pack, out, recipe=RECIPE, *, network=None, clips=True, **options):
    """Run the loop on a new network; returns its reports."""
    reports = []
    validation = add_lr_frames(load_pack(pack)[1]) if clips else None
    options = {"every": 1, "workers": 0, "validations": 2, "validation": validation, **options}
    if recipe.stage is TrainingStage.SHARP:
        options["features"] = make_feature_network()
    loop.train(network or make_network(), pack, out, recipe, report=reports.append, **options)
    return reports


def state(out):
    return torch.load(out / STATE_FILE, weights_only=True)


def assert_equal_runs(a, b):
    """Every weight and moment is the same bit for bit, and so is what was measured."""
    one, other = state(a)["learner"], state(b)["learner"]
    assert one["step"] == other["step"]
    for part in ("network", "average"):
        assert one[part].keys() == other[part].keys()
        assert all(torch.equal(x, other[part][name]) for name, x in one[part].items())
    for key, moments in one["optimizer"]["state"].items():
        theirs = other["optimizer"]["state"][key]
        assert all(torch.equal(x, theirs[n]) for n, x in moments.items())
    for part in ("head", "discriminator"):
        for name, x in one.get("perceptual", {}).get(part, {}).items():
            assert torch.equal(x, other["perceptual"][part][name])
    weights, others = load_file(a / WEIGHTS_FILE), load_file(b / WEIGHTS_FILE)
    assert all(torch.equal(x, others[name]) for name, x in weights.items())
    assert metrics(a) == metrics(b)


def loss_on_other_samples(network, recipe, pack):
    """The loss that the run minimizes, on samples that it does not see."""
    shape = replace(recipe.shape, batch=6)
    return Trainer(network, recipe).compute_loss(ClipDataset(pack, shape, steps=1, seed=99)[0])


@pytest.mark.parametrize("stage", [TrainingStage.FRAMES, TrainingStage.CLIPS])
def test_training_lowers_the_loss(pack, tmp_path, stage):
    network, shape = make_network(randomized=False), replace(SHAPE, frames=2)
    recipe = Recipe(stage, steps=40, shape=shape, lr=5e-3, warmup=3, ema=0.9)
    before = loss_on_other_samples(make_network(randomized=False), recipe, pack)

    train(pack, tmp_path / "run", recipe, network=network, clips=False)

    # An untrained network is bicubic, which is good on smooth pictures: a few percent are much.
    average = load_model(tmp_path / "run" / WEIGHTS_FILE, device="cpu").requires_grad_(True)
    assert loss_on_other_samples(network, recipe, pack) < 0.97 * before
    assert loss_on_other_samples(average, recipe, pack) < 0.97 * before


def test_the_flow_stage_lowers_the_end_point_error(tmp_path):
    network, pack = make_network(), draw_pack(tmp_path / "pack.safetensors", side=96)
    shape = ClipShape(frames=2, patch=16, batch=4, photo_share=1.0, motion=1.0)
    recipe = Recipe(TrainingStage.FLOW, steps=30, shape=shape, lr=1e-2, warmup=3, ema=0.9)
    before = loss_on_other_samples(make_network(), recipe, pack)

    train(pack, tmp_path / "run", recipe, network=network, clips=False)

    assert loss_on_other_samples(network, recipe, pack) < 0.75 * before


@pytest.mark.parametrize("stage", list(TrainingStage))
def test_a_run_stopped_after_each_step_equals_an_uninterrupted_one(
    pack, tmp_path, stage, monkeypatch
):
    monkeypatch.setattr(perceptual_stage, "STEPS_ALONE", 0)
    shape = replace(SHAPE, photo_share=1.0 if stage is TrainingStage.FLOW else 0.5)
    recipe = replace(RECIPE, stage=stage, shape=shape, flow_frozen=2)
    train(pack, tmp_path / "whole", recipe, every=3)

    for step in range(1, 5):
        # From the second on a network of other values: those of the folder must replace them.
        network, is_last = make_network(seed=0 if step == 1 else step), step == 4
        options = {"network": network, "every": 3, "resume": step > 1}
        if is_last:
            train(pack, tmp_path / "pieces", recipe, **options)
        else:
            with pytest.raises(Interrupted, match=f"after step {step}; .* --resume continues"):
                train(pack, tmp_path / "pieces", recipe, should_stop=lambda: True, **options)

    assert_equal_runs(tmp_path / "pieces", tmp_path / "whole")


def test_a_run_ended_by_its_time_limit_can_be_resumed(pack, tmp_path):
    train(pack, tmp_path / "whole", CHEAP, clips=False)

    reports = train(pack, tmp_path / "run", CHEAP, clips=False, minutes=0)
    train(pack, tmp_path / "run", CHEAP, clips=False, resume=True)

    assert [report.step for report in reports] == [1]
    assert (tmp_path / "run" / REPORT_FILE).exists()
    assert_equal_runs(tmp_path / "run", tmp_path / "whole")


def test_without_a_number_of_steps_as_many_as_fit_into_the_time_are_planned(pack, tmp_path):
    began = time.monotonic()

    reports = train(pack, tmp_path / "run", replace(CHEAP, steps=None), minutes=4 / 60)

    steps = reports[-1].steps
    assert reports[0].steps is None
    assert steps > 8
    # It ends with its schedule, or when the time is up: the machine may have become slower.
    assert reports[-1].step <= steps
    assert time.monotonic() - began < 4 + 6
    assert metrics(tmp_path / "run")[-1]["step"] == reports[-1].step
    assert "val_loss" in metrics(tmp_path / "run")[-1]


@pytest.mark.slow
def test_a_run_past_its_time_limit_can_be_resumed_with_another(pack, tmp_path):
    recipe = replace(CHEAP, steps=None)
    first = train(pack, tmp_path / "run", recipe, minutes=2 / 60)

    again = train(pack, tmp_path / "run", recipe, minutes=2 / 60, resume=True)
    idle = train(pack, tmp_path / "run", recipe, resume=True)

    assert again[0].step == first[-1].step + 1
    assert again[-1].step > first[-1].step + 1
    assert metrics(tmp_path / "run")[-1]["step"] == again[-1].step
    assert idle == []


def test_a_run_without_steps_and_without_a_time_limit_is_refused(pack, tmp_path):
    with pytest.raises(ValueError, match="without steps needs minutes"):
        train(pack, tmp_path / "run", replace(CHEAP, steps=None))


KILLED = """
import sys, torch
torch.set_num_threads(1)
sys.path[:0] = [{root!r}, {tests!r}, {here!r}]
from pathlib import Path
from test_loop import CHEAP, RECIPE, train
from vsrm_cli.training import time_budget as clock
clock.SECONDS_BETWEEN_SAVES = 0.0
if __name__ == "__main__":
    out = Path({out!r})
    train(Path({pack!r}), out, RECIPE.__class__(**{{**vars(RECIPE), "steps": 12}}), workers=1,
          every=5, resume=(out / "state.pt").exists())
"""


def run_until_killed(pack, out, *, after_step):
    """Start a run in a process of its own, and kill it after this step."""
    code = KILLED.format(
        root=str(ROOT),
        tests=str(ROOT / "tests"),
        here=str(Path(__file__).parent),
        out=str(out),
        pack=str(pack),
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if after_step is not None and state(out)["learner"]["step"] >= after_step:
                    os.killpg(process.pid, signal.SIGKILL)
            except FileNotFoundError:
                pass
            time.sleep(0.01)
        assert process.wait(timeout=1) == (0 if after_step is None else -signal.SIGKILL)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_killed_three_times_equals_an_uninterrupted_one(pack, tmp_path):
    train(pack, tmp_path / "whole", replace(RECIPE, steps=12), every=5)

    for step in (0, 3, 7):
        run_until_killed(pack, tmp_path / "killed", after_step=step)
    run_until_killed(pack, tmp_path / "killed", after_step=None)

    assert_equal_runs(tmp_path / "killed", tmp_path / "whole")


def test_metrics_after_the_last_checkpoint_are_replaced_on_resume(pack, tmp_path):
    train(pack, tmp_path / "whole", CHEAP)
    with pytest.raises(Interrupted):
        train(pack, tmp_path / "run", CHEAP, should_stop=lambda: True)
    with (tmp_path / "run" / METRICS_FILE).open("a") as file:
        file.write('{"step": 2, "loss": 1.0, "lr": 1.0}\n{"step": 3, "lo')

    train(pack, tmp_path / "run", CHEAP, resume=True)

    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(pack, tmp_path):
    train(pack, tmp_path / "run", CHEAP)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    reports = train(pack, tmp_path / "run", CHEAP, network=make_network(seed=9), resume=True)

    assert reports == []
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_an_existing_run_is_not_overwritten(pack, tmp_path):
    train(pack, tmp_path / "run", CHEAP)
    before = (tmp_path / "run" / STATE_FILE).read_bytes()

    with pytest.raises(OutputError, match=r"state\.pt exists.*--resume.*another --out"):
        train(pack, tmp_path / "run", CHEAP)
    assert (tmp_path / "run" / STATE_FILE).read_bytes() == before


def test_resuming_without_a_checkpoint_is_refused(pack, tmp_path):
    with pytest.raises(InputError, match=r"holds no state\.pt.*start without --resume"):
        train(pack, tmp_path / "run", CHEAP, resume=True)


def test_a_damaged_checkpoint_is_reported(pack, tmp_path):
    train(pack, tmp_path / "run", CHEAP)
    (tmp_path / "run" / STATE_FILE).write_bytes(b"PK\x03\x04 not really")

    with pytest.raises(InputError, match=r"state\.pt cannot be read"):
        train(pack, tmp_path / "run", CHEAP, resume=True)


def test_resuming_with_other_settings_is_refused_and_lists_them(pack, tmp_path):
    train(pack, tmp_path / "run", CHEAP, settings={"data": "holidays"}, minutes=0)

    other = replace(CHEAP, lr=2e-3, shape=replace(SHAPE, photo_share=0.25))
    with pytest.raises(UsageError) as refusal:
        train(pack, tmp_path / "run", other, settings={"data": "work"}, resume=True)

    assert (
        "(data: holidays then, work now; lr: 0.001 then, 0.002 now; "
        "photo-share: 0.5 then, 0.25 now)" in str(refusal.value)
    )
    assert refusal.value.exit_code == 2
    assert state(tmp_path / "run")["learner"]["step"] == 1


def test_a_run_of_version_0_1_can_be_resumed(tmp_path):
    """The archive holds a pack and a run that version 0.1 made and stopped after two steps."""
    shutil.unpack_archive(Path(__file__).parent / "data" / "run_of_0_1.zip", tmp_path)
    before = metrics(tmp_path / "run")
    narrow = replace(
        PAPER_LIKE,
        channels=4,
        expand=1,
        dambs=1,
        branches=("backward_1", "forward_1"),
        flow_levels=2,
        flow_widths=(4,),
        flow_kernel=3,
        upsampler_width=4,
    )

    loop.train(
        make_network(narrow, seed=1),
        tmp_path / "pack.safetensors",
        tmp_path / "run",
        replace(RECIPE, shape=replace(SHAPE, patch=8)),
        resume=True,
        every=1,
        validations=1,
        workers=0,
    )

    after = metrics(tmp_path / "run")
    assert after[: len(before)] == before
    assert [line["step"] for line in after] == [0, 1, 2, 3, 4]
    # The loss continues where it was.
    assert after[3]["loss"] == pytest.approx(before[2]["loss"], rel=0.5)


def test_the_weight_file_loads_and_has_the_averaged_weights(pack, tmp_path):
    train(pack, tmp_path / "run", clips=False, metadata={"name": "mine", "licence": "MIT"})

    loaded = load_model(tmp_path / "run" / WEIGHTS_FILE, device="cpu", dtype="fp32")

    assert loaded.name == "mine"
    assert loaded.config == TINY
    average = state(tmp_path / "run")["learner"]["average"]
    assert all(torch.equal(x, average[name]) for name, x in loaded.state_dict().items())
    start = make_network().state_dict()
    assert not all(torch.equal(x, start[name]) for name, x in loaded.state_dict().items())


def test_the_only_weight_file_has_the_recipe_in_its_metadata(pack, tmp_path):
    train(pack, tmp_path / "run", CHEAP, metadata={"licence": "MIT"}, settings={"data": "holidays"})

    (weights,) = (tmp_path / "run").rglob("*.safetensors")
    with safe_open(weights, framework="pt") as file:
        metadata = file.metadata()
    recipe = json.loads(metadata["recipe"])
    assert metadata["licence"] == "MIT"
    assert (recipe["stage"], recipe["frames"], recipe["data"]) == ("frames", "3", "holidays")


def test_a_checkpoint_has_little_more_than_16_bytes_per_parameter(pack, tmp_path):
    # Weights, their average and two moments of each: 16 bytes a parameter, and little else.
    parameters = sum(p.numel() for p in make_network().parameters())

    train(pack, tmp_path / "run", CHEAP, clips=False)

    assert (tmp_path / "run" / STATE_FILE).stat().st_size < 16 * parameters + 100_000


def test_metrics_have_step_loss_learning_rate_and_validations(pack, tmp_path):
    reports = train(pack, tmp_path / "run", CHEAP)

    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    validated = [set(line) == {"step", "loss", "lr", "val_loss", "val_psnr_y"} for line in lines]
    assert validated == [True, False, True, False, True]
    assert all({"step", "loss", "lr"} <= set(line) for line in lines)
    assert [report.line for report in reports] == lines[1:]
    assert 5 < lines[0]["val_psnr_y"] < 80


def test_without_validation_clips_there_is_no_validation(pack, tmp_path):
    train(pack, tmp_path / "run", CHEAP, clips=False)

    assert all(set(line) == {"step", "loss", "lr"} for line in metrics(tmp_path / "run"))


def test_a_line_of_metrics_has_the_mean_loss_since_the_last_one(pack, tmp_path):
    train(pack, tmp_path / "singly", CHEAP, clips=False)
    train(pack, tmp_path / "threes", CHEAP, clips=False, every=3, validations=1)

    singly = [line["loss"] for line in metrics(tmp_path / "singly")]
    _, first, second = metrics(tmp_path / "threes")
    assert first["loss"] == pytest.approx(sum(singly[1:4]) / 3)
    assert second["loss"] == pytest.approx(singly[4])


def test_progress_has_step_speed_and_time_left(pack, tmp_path):
    reports = train(pack, tmp_path / "run", replace(CHEAP, steps=6), clips=False)

    assert [(r.step, r.steps) for r in reports] == [(n, 6) for n in range(1, 7)]
    assert reports[-1].steps_per_second > 0
    assert reports[-1].seconds_left == 0
    assert all(r.rollback is None for r in reports)


def test_weights_worse_than_the_initial_ones_are_not_kept(pack, tmp_path):
    network = make_network(randomized=False)  # as good as bicubic
    start = {name: x.clone() for name, x in network.state_dict().items()}

    recipe = replace(CHEAP, lr=0.05, warmup=0, ema=0.0, steps=1)
    train(pack, tmp_path / "run", recipe, network=network)

    first, *_, last = [line["val_loss"] for line in metrics(tmp_path / "run") if "val_loss" in line]
    assert last > first
    kept = load_file(tmp_path / "run" / WEIGHTS_FILE)
    assert all(torch.equal(x, kept[name]) for name, x in start.items())
    assert "did better than those it began with" in (tmp_path / "run" / REPORT_FILE).read_text()


def test_divergence_ends_the_run_and_keeps_the_best_weights(pack, tmp_path):
    reports = []

    with pytest.raises(OutputError, match="Start again with a --lr below 30") as failure:
        loop.train(
            make_network(),
            pack,
            tmp_path / "run",
            replace(RECIPE, lr=30.0),
            validation=add_lr_frames(load_pack(pack)[1]),
            report=reports.append,
            workers=0,
        )

    assert failure.value.exit_code == 1
    rollbacks = [report.rollback for report in reports if report.rollback]
    assert len(rollbacks) == 3
    assert "back to step 0, with half the learning rate and other samples" in rollbacks[0]
    start, kept = make_network().state_dict(), load_file(tmp_path / "run" / WEIGHTS_FILE)
    assert all(torch.equal(x, kept[name]) for name, x in start.items())
    left = state(tmp_path / "run")["learner"]
    assert left["step"] == 0
    assert all(torch.equal(x, start[name]) for name, x in left["network"].items())
    assert (tmp_path / "run" / REPORT_FILE).exists()


def test_after_a_rollback_training_continues_with_other_samples(pack, tmp_path, monkeypatch):
    drawn, spikes = [], iter([None, None, loop.math.nan])
    original_compute = Trainer.compute_gradients

    def compute_and_note(self, batch):
        drawn.append(batch.hr)
        losses = original_compute(self, batch)
        spike = next(spikes, None)
        return losses if spike is None else replace(losses, loss=spike)

    monkeypatch.setattr(Trainer, "compute_gradients", compute_and_note)

    reports = train(pack, tmp_path / "run", CHEAP, clips=False)

    # The third step fails: back to the start, and four more with samples of their own.
    assert [report.step for report in reports] == [1, 2, 0, 1, 2, 3, 4]
    assert len({tuple(hr.flatten()[:50].tolist()) for hr in drawn}) == 7
    assert [line["step"] for line in metrics(tmp_path / "run")] == [0, 1, 2, 3, 4]


def fill_the_disk(monkeypatch, name):
    """Let writing a file of this name fail as on a full disk, at the last moment."""
    original_replace = os.replace

    def fail(source, target):
        if Path(target).name == name:  # what was written so far is the part file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original_replace(source, target)

    monkeypatch.setattr(os, "replace", fail)


@pytest.mark.parametrize("name", [STATE_FILE, WEIGHTS_FILE])
def test_a_full_disk_keeps_the_last_checkpoint(pack, tmp_path, monkeypatch, name):
    out = tmp_path / "run"
    train(pack, tmp_path / "whole", CHEAP, clips=False)
    train(pack, out, CHEAP, clips=False, minutes=0)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    with monkeypatch.context() as patch:
        fill_the_disk(patch, name)
        with pytest.raises(OutputError, match=rf"{name} could not be written \(No space left"):
            train(pack, out, CHEAP, clips=False, resume=True)

    assert (out / name).read_bytes() == before[name]
    assert [path for path in out.iterdir() if "part" in path.name] == []
    train(pack, out, CHEAP, clips=False, resume=True)
    assert_equal_runs(out, tmp_path / "whole")


def test_a_batch_that_processes_cannot_divide_is_refused(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "process_count", lambda: 4)

    with pytest.raises(UsageError, match="4 processes cannot share a batch of 2 clips evenly"):
        train(pack, tmp_path / "run", CHEAP)


def test_a_forked_worker_frees_no_object_of_its_parent(pack, tmp_path, monkeypatch):
    """A decoder that it freed would wait for threads that only the parent has, forever."""
    freed_by = tmp_path / "freed"

    class Decoder:
        def __init__(self):
            self.itself = self

        def __del__(self):
            with freed_by.open("a") as log:
                log.write(f"{os.getpid()}\n")

    monkeypatch.setattr(loop, "_set_up_worker", lambda _: gc.collect())
    gc.disable()
    try:
        Decoder()
        train(pack, tmp_path / "run", replace(CHEAP, steps=1), workers=1)
    finally:
        gc.enable()

    gc.collect()
    assert freed_by.read_text().split() == [str(os.getpid())]


def test_the_sharp_stage_needs_a_feature_network(pack, tmp_path):
    with pytest.raises(ValueError, match="needs a feature network"):
        loop.train(
            make_network(), pack, tmp_path / "run", replace(RECIPE, stage=TrainingStage.SHARP)
        )


def _train_in_one_process(rank, folder, pack, recipe):
    """Train in one of two processes."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2
    )
    try:
        train(pack, folder / "shared", recipe, minutes=0)
    finally:
        distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("stage", [TrainingStage.CLIPS, TrainingStage.SHARP])
def test_two_processes_train_like_one_with_the_whole_batch(pack, tmp_path, stage):
    recipe = replace(RECIPE, stage=stage, clip_norm=None, shape=replace(SHAPE, batch=4))

    multiprocessing.spawn(_train_in_one_process, args=(tmp_path, pack, recipe), nprocs=2)
    train(pack, tmp_path / "alone", recipe, minutes=0)

    shared, alone = (state(tmp_path / run)["learner"] for run in ("shared", "alone"))
    assert shared["step"] == alone["step"] == 1
    assert len(metrics(tmp_path / "shared")) == 2  # one of them writes
    for key, moments in alone["optimizer"]["state"].items():
        # After one step Adam's mean is a tenth of the gradient. Means of two halves and of the
        # whole: the same sums in another order.
        torch.testing.assert_close(
            shared["optimizer"]["state"][key]["exp_avg"], moments["exp_avg"], rtol=1e-3, atol=1e-7
        )
    for key, moments in alone.get("perceptual", {"optimizer": {"state": {}}})["optimizer"][
        "state"
    ].items():
        theirs = shared["perceptual"]["optimizer"]["state"][key]["exp_avg"]
        torch.testing.assert_close(theirs, moments["exp_avg"], rtol=1e-3, atol=1e-7)
