"""A run teaches what its stage says, can be stopped anywhere, and goes on as if it had not been."""

import json
from dataclasses import replace

import pytest
import torch
from networks import TINY, make_network
from safetensors.torch import load_file
from scenes import draw_pack
from torch import distributed, multiprocessing

from vsrm_cli import finetune as loop
from vsrm_cli.errors import InputError, OutputError
from vsrm_cli.finetune import METRICS_FILE, STATE_FILE, WEIGHTS_FILE, Recipe, Stage, finetune
from vsrm_cli.models.weights import load_model
from vsrm_cli.training.data import Clips
from vsrm_cli.training.sample import ClipShape

SHAPE = ClipShape(frames=3, patch=8, batch=2, photo_share=0.5, motion=1.5)
RECIPE = Recipe(Stage.CLIPS, steps=4, shape=SHAPE, lr=1e-3, warmup=2)
# Where the stage makes no difference.
CHEAP = replace(RECIPE, stage=Stage.FRAMES)


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


def learn(pack, out, recipe=RECIPE, *, network=None, **options):
    """Run the loop on a network of its own; returns what it reported."""
    told = []
    finetune(network or make_network(), pack, out, recipe, report=told.append, every=1, **options)
    return told


def state(out):
    return torch.load(out / STATE_FILE, weights_only=True)


def assert_equal_states(a, b):
    assert a["step"] == b["step"]
    for part in ("network", "average"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(x, b[part][name]) for name, x in a[part].items())
    for key, moments in a["optimizer"]["state"].items():
        assert all(torch.equal(x, b["optimizer"]["state"][key][n]) for n, x in moments.items())


def flow_of(weights):
    return {name: x for name, x in weights.items() if name.startswith("spynet.")}


def moved(before, after):
    """Which parts of a network changed."""
    return {name.split(".")[0] for name, x in before.items() if not torch.equal(x, after[name])}


def loss_on_other_samples(network, recipe, pack, folder):
    """What the run minimizes, on samples that it does not draw."""
    run = loop._Run(network, recipe, folder / "no state")
    shape = replace(recipe.shape, batch=6)
    with torch.no_grad():
        return run._loss(Clips(pack, shape, steps=1, seed=99)[0]).item()


@pytest.mark.parametrize("stage", [Stage.FRAMES, Stage.CLIPS])
def test_a_few_steps_lower_the_loss(pack, tmp_path, stage):
    network, shape = make_network(awake=False), replace(SHAPE, frames=2)
    recipe = Recipe(stage, steps=40, shape=shape, lr=5e-3, warmup=3, ema=0.9)
    before = loss_on_other_samples(network, recipe, pack, tmp_path)

    average = finetune(network, pack, tmp_path, recipe)

    # An untrained network is bicubic, which is good on smooth pictures: a twentieth is much.
    assert loss_on_other_samples(network, recipe, pack, tmp_path) < 0.97 * before
    assert loss_on_other_samples(average, recipe, pack, tmp_path) < 0.97 * before


def test_the_flow_stage_lowers_the_end_point_error(tmp_path):
    network, pack = make_network(), draw_pack(tmp_path / "pack.safetensors", side=96)
    shape = ClipShape(frames=2, patch=16, batch=4, photo_share=1.0, motion=1.0)
    recipe = Recipe(Stage.FLOW, steps=30, shape=shape, lr=1e-2, warmup=3, ema=0.9)
    before = loss_on_other_samples(network, recipe, pack, tmp_path)

    average = finetune(network, pack, tmp_path, recipe)

    assert loss_on_other_samples(network, recipe, pack, tmp_path) < 0.75 * before
    assert loss_on_other_samples(average, recipe, pack, tmp_path) < 0.75 * before


@pytest.mark.parametrize(
    ("stage", "learning"),
    [
        (Stage.FLOW, {"spynet"}),
        (Stage.FRAMES, {"conv_first", "features", "upsampler"}),
        (Stage.CLIPS, {"spynet", "conv_first", "features", "align", "branches", "upsampler"}),
    ],
)
def test_each_stage_moves_its_own_part_of_the_network(pack, tmp_path, stage, learning):
    network = make_network()
    before = {name: x.clone() for name, x in network.state_dict().items()}
    recipe = replace(RECIPE, stage=stage, steps=2, shape=replace(SHAPE, photo_share=1.0))

    learn(pack, tmp_path, recipe, network=network)

    assert moved(before, network.state_dict()) == learning


def test_a_frozen_flow_stays_where_it_is_and_moves_once_it_is_free(pack, tmp_path):
    network = make_network()
    before = {name: x.clone() for name, x in flow_of(network.state_dict()).items()}
    recipe = replace(RECIPE, steps=3, flow_frozen=2)

    for step in (1, 2):
        learn(pack, tmp_path, recipe, network=network, minutes=0)
        assert state(tmp_path)["step"] == step
        assert moved(before, flow_of(network.state_dict())) == set()
    learn(pack, tmp_path, recipe, network=network)

    assert moved(before, flow_of(network.state_dict())) == {"spynet"}


@pytest.mark.parametrize(
    ("shares", "learning"),
    [
        ({"flow_lr": 0.0}, {"align", "branches", "conv_first", "features", "upsampler"}),
        ({"trunk_lr": 0.0}, {"align", "branches", "spynet"}),
    ],
)
def test_what_earlier_stages_taught_has_its_own_share_of_the_rate(pack, tmp_path, shares, learning):
    network = make_network()
    before = {name: x.clone() for name, x in network.state_dict().items()}

    learn(pack, tmp_path, replace(RECIPE, steps=2, **shares), network=network)

    assert moved(before, network.state_dict()) == learning


@pytest.mark.parametrize("stage", list(Stage))
def test_a_run_stopped_after_each_step_ends_as_one_that_ran_through(pack, tmp_path, stage):
    shape = replace(SHAPE, photo_share=1.0 if stage is Stage.FLOW else 0.5)
    recipe = replace(RECIPE, stage=stage, shape=shape, flow_frozen=2)
    learn(pack, tmp_path / "whole", recipe)

    for step in range(1, 5):
        # From the second on a network of other values: those of the folder must replace them.
        network = make_network(seed=0 if step == 1 else step)
        learn(pack, tmp_path / "pieces", recipe, network=network, minutes=0)
        assert state(tmp_path / "pieces")["step"] == step

    assert_equal_states(state(tmp_path / "pieces"), state(tmp_path / "whole"))
    whole, pieces = (load_file(tmp_path / run / WEIGHTS_FILE) for run in ("whole", "pieces"))
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(x, pieces[name]) for name, x in whole.items())
    assert metrics(tmp_path / "pieces") == metrics(tmp_path / "whole")


def test_a_finished_run_has_nothing_more_to_do(pack, tmp_path):
    learn(pack, tmp_path, CHEAP)
    before = (tmp_path / WEIGHTS_FILE).read_bytes()

    told = learn(pack, tmp_path, CHEAP, network=make_network(seed=9))

    assert told == []
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == before


def test_another_recipe_in_the_same_folder_is_refused(pack, tmp_path):
    learn(pack, tmp_path, CHEAP, minutes=0)

    with pytest.raises(InputError, match=r"state\.pt is of another recipe.*choose another folder"):
        learn(pack, tmp_path, replace(CHEAP, lr=2e-3))
    assert state(tmp_path)["step"] == 1


def test_the_weight_file_loads_and_holds_the_average(pack, tmp_path):
    network = make_network()
    average = finetune(network, pack, tmp_path, RECIPE, words={"name": "mine", "licence": "MIT"})

    loaded = load_model(tmp_path / WEIGHTS_FILE, device="cpu")

    assert loaded.name == "mine"
    assert loaded.config == TINY
    for name, x in loaded.state_dict().items():
        assert torch.equal(x, average.state_dict()[name])
    assert moved(network.state_dict(), loaded.state_dict()) != set()


def test_the_weight_file_tells_its_recipe(pack, tmp_path):
    network = make_network()
    words = {}

    def keep(network, path, described):
        words.update(described)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_weights", keep)
        finetune(network, pack, tmp_path, RECIPE, words={"licence": "MIT"}, minutes=0)

    recipe = json.loads(words["recipe"])
    assert words["licence"] == "MIT"
    assert recipe["stage"] == "clips"
    assert recipe["shape"] == {
        "frames": 3,
        "patch": 8,
        "batch": 2,
        "photo_share": 0.5,
        "motion": 1.5,
    }


def test_the_average_follows_slowly_and_soon_at_first(pack, tmp_path):
    # After one step it keeps 1/11 of the first weights, or less where the recipe says so.
    start = make_network().state_dict()

    learn(pack, tmp_path / "slow", replace(CHEAP, ema=0.999), minutes=0)
    learn(pack, tmp_path / "fast", replace(CHEAP, ema=0.0), minutes=0)

    slow, fast = state(tmp_path / "slow"), state(tmp_path / "fast")
    for name, before in start.items():
        after = slow["network"][name]
        torch.testing.assert_close(slow["average"][name], before + (after - before) * 10 / 11)
        torch.testing.assert_close(fast["average"][name], after)


def test_the_rate_rises_and_then_falls_to_a_fiftieth(pack, tmp_path):
    recipe = replace(CHEAP, steps=6, warmup=3, lr=1.0)

    run = loop._Run(make_network(), recipe, tmp_path / STATE_FILE)
    rates = []
    for step in range(7):
        run.step = step
        rates.append(run.rate())

    assert rates[:3] == pytest.approx([1 / 3, 2 / 3 * 0.9343, 0.755], abs=1e-3)
    assert rates[3] == pytest.approx(0.51)
    assert rates == [*rates[:2], *sorted(rates[2:], reverse=True)]
    assert rates[6] == pytest.approx(0.02)


def test_metrics_and_reports_tell_each_step(pack, tmp_path):
    told = learn(pack, tmp_path, CHEAP)

    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == [r.step for r in told] == [1, 2, 3, 4]
    assert [line["loss"] for line in lines] == [r.loss for r in told]
    assert all(set(line) == {"step", "loss", "lr"} for line in lines)
    assert told[-1].seconds > told[0].seconds > 0


def test_a_report_gives_the_mean_loss_since_the_last_one(pack, tmp_path):
    singly = [r.loss for r in learn(pack, tmp_path / "singly", CHEAP)]
    told = []

    finetune(make_network(), pack, tmp_path / "pairs", CHEAP, report=told.append, every=3)

    assert [r.step for r in told] == [3, 4]
    assert told[0].loss == pytest.approx(sum(singly[:3]) / 3)
    assert told[1].loss == pytest.approx(singly[3])


def test_at_the_end_the_average_is_validated_together_and_alone(pack, tmp_path):
    told = learn(pack, tmp_path, CHEAP, validation=pack)

    assert [r.scores is not None for r in told] == [False, False, False, True]
    (score,) = told[-1].scores
    last = metrics(tmp_path)[-1]
    assert last["val_psnr_y"] == score.together
    assert last["val_psnr_y_alone"] == score.alone
    assert 5 < score.bicubic < 80


def test_validation_now_and_then_leaves_frames_alone_out(pack, tmp_path):
    told = learn(pack, tmp_path, CHEAP, validation=pack, validate_minutes=0.0)

    assert all(r.scores is not None for r in told)
    assert [r.scores[0].alone is None for r in told] == [True, True, True, False]


def test_bfloat16_computes_and_keeps_the_weights_in_single_precision(pack, tmp_path):
    recipe = replace(RECIPE, steps=2, half=True)

    losses = [r.loss for r in learn(pack, tmp_path / "half", recipe)]

    whole = [r.loss for r in learn(pack, tmp_path / "whole", replace(recipe, half=False))]
    assert losses == pytest.approx(whole, rel=0.05)
    assert losses != whole
    assert {x.dtype for x in state(tmp_path / "half")["network"].values()} == {torch.float32}


# NaN in the features makes points at which the alignment reads NaN as well: PyTorch's backward
# pass through them reads any place of the memory.
@pytest.mark.parametrize("spoiled_weight", ["upsampler.conv_last.bias", "conv_first.bias"])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(
    pack, tmp_path, spoiled_weight
):
    learn(pack, tmp_path, minutes=0)
    before = state(tmp_path)
    spoiled = state(tmp_path)
    spoiled["network"][spoiled_weight][0] = float("nan")
    torch.save(spoiled, tmp_path / STATE_FILE)

    with pytest.raises(OutputError, match="not a number any more at step 1; start again"):
        learn(pack, tmp_path)
    assert state(tmp_path)["step"] == before["step"]


def test_a_batch_without_any_known_flow_teaches_no_flow_and_stops_nothing(pack, tmp_path):
    # With a share of 0.9 one batch of two in a hundred is made of videos alone.
    shape = replace(SHAPE, photo_share=0.0)

    told = learn(pack, tmp_path, replace(RECIPE, stage=Stage.FLOW, steps=2, shape=shape))

    assert [r.step for r in told] == [1, 2]


def test_steps_are_kept_within_the_norm(pack, tmp_path):
    def first_moment(out, clip_norm):
        learn(pack, out, replace(RECIPE, clip_norm=clip_norm), minutes=0)
        moments = state(out)["optimizer"]["state"].values()
        # After one step Adam's mean is a tenth of the gradient.
        return torch.cat([m["exp_avg"].flatten() for m in moments]).norm().item() * 10

    free = first_moment(tmp_path / "free", 1e9)

    assert first_moment(tmp_path / "kept", free / 4) == pytest.approx(free / 4, rel=1e-4)


def _train_a_share(rank, folder, pack, recipe):
    """What each of two processes does."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    try:
        finetune(make_network(), pack, folder / "shared", recipe, minutes=0, every=1)
    finally:
        distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_step_as_one_with_the_batch_of_both(pack, tmp_path):
    recipe = replace(RECIPE, clip_norm=1e9)
    both = replace(recipe, shape=replace(SHAPE, batch=2 * SHAPE.batch))

    multiprocessing.spawn(_train_a_share, args=(tmp_path, pack, recipe), nprocs=2)
    learn(pack, tmp_path / "alone", both, minutes=0)

    shared, alone = state(tmp_path / "shared"), state(tmp_path / "alone")
    assert shared["step"] == alone["step"] == 1
    assert len(metrics(tmp_path / "shared")) == 1  # one of them writes
    for key, moments in alone["optimizer"]["state"].items():
        # Means of two halves and of the whole: the same sums in another order.
        torch.testing.assert_close(
            shared["optimizer"]["state"][key]["exp_avg"], moments["exp_avg"], rtol=1e-3, atol=1e-7
        )
