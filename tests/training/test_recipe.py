"""What decides a run is told by name, and so is what differs between two runs."""

from dataclasses import replace

from vsrm_cli.training.recipe import (
    FINETUNING,
    FINETUNING_ON_GPU,
    PRESETS,
    Precision,
    differences,
    start_recipe,
)


def test_every_value_of_a_recipe_is_a_setting_by_its_name():
    settings = FINETUNING.settings()

    assert settings["stage"] == "clips"
    assert settings["dtype"] == "float32"
    assert settings["frames"] == "5"
    assert settings["lr"] == "0.0001"
    assert "shape" not in settings


def test_equal_settings_do_not_differ():
    assert differences(FINETUNING.settings(), FINETUNING.settings()) == []


def test_what_differs_is_told_with_both_values():
    then = FINETUNING.settings() | {"model": "vsrm-t"}
    now = replace(FINETUNING, lr=0.1, flow_frozen=7).settings()

    assert differences(then, now) == [
        "flow-frozen: 50 then, 7 now",
        "lr: 0.0001 then, 0.1 now",
        "model: vsrm-t then, nothing now",
    ]


def test_a_gpu_is_given_more():
    assert start_recipe(None, on_gpu=True, from_scratch=False) == FINETUNING_ON_GPU
    assert start_recipe(None, on_gpu=False, from_scratch=False) == FINETUNING


def test_new_weights_learn_faster():
    assert start_recipe(None, on_gpu=False, from_scratch=True).lr == 1e-3
    assert start_recipe("reds6", on_gpu=False, from_scratch=True).lr == 2e-4


def test_float16_is_for_gpus():
    assert start_recipe("reds6", on_gpu=True, from_scratch=True) == PRESETS["reds6"]
    assert PRESETS["reds6"].dtype is Precision.FLOAT16
    assert start_recipe("reds6", on_gpu=False, from_scratch=True).dtype is Precision.FLOAT32
