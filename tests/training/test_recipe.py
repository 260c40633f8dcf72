"""A recipe as named settings, the differences of two of them, and the defaults of a run."""

from dataclasses import replace

from vsrm_cli.training.recipe import (
    FINETUNING,
    FINETUNING_ON_GPU,
    PRESETS,
    Precision,
    default_recipe,
    list_differences,
)


def test_each_field_of_a_recipe_is_a_named_setting():
    settings = FINETUNING.settings()

    assert settings["stage"] == "clips"
    assert settings["dtype"] == "float32"
    assert settings["frames"] == "5"
    assert settings["lr"] == "0.0001"
    assert "shape" not in settings


def test_equal_settings_have_no_differences():
    assert list_differences(FINETUNING.settings(), FINETUNING.settings()) == []


def test_differences_are_listed_with_both_values():
    then = FINETUNING.settings() | {"model": "vsrm-t"}
    now = replace(FINETUNING, lr=0.1, flow_frozen=7).settings()

    assert list_differences(then, now) == [
        "flow-frozen: 50 then, 7 now",
        "lr: 0.0001 then, 0.1 now",
        "model: vsrm-t then, nothing now",
    ]


def test_a_gpu_gets_the_larger_recipe():
    assert default_recipe(None, on_gpu=True, from_scratch=False) == FINETUNING_ON_GPU
    assert default_recipe(None, on_gpu=False, from_scratch=False) == FINETUNING


def test_training_from_scratch_has_a_higher_learning_rate():
    assert default_recipe(None, on_gpu=False, from_scratch=True).lr == 1e-3
    assert default_recipe("reds6", on_gpu=False, from_scratch=True).lr == 2e-4


def test_a_preset_uses_float16_on_gpus_only():
    assert default_recipe("reds6", on_gpu=True, from_scratch=True) == PRESETS["reds6"]
    assert PRESETS["reds6"].dtype is Precision.FLOAT16
    assert default_recipe("reds6", on_gpu=False, from_scratch=True).dtype is Precision.FLOAT32
