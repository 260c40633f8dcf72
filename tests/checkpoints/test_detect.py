"""The network of a file without metadata is detected from its keys and shapes."""

import json
import re
from pathlib import Path

import pytest

from vsrm_cli.checkpoints.detect import GSM_UNUSED, gsm_settings, guess_architecture, is_gsm

# Every key of the released Gather-Scatter Mamba configuration, with its type and shape.
FILE = Path(__file__).parents[1] / "data" / "gsm" / "released_keys.json"
RELEASED = {
    "embed_dims": 192,
    "num_heads": 8,
    "prop_depth": 4,
    "attn_depth": 4,
    "pa_frame": 2,
    "upscale": 4,
}


@pytest.fixture
def shapes():
    keys = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: tuple(shape) for name, (_, *shape) in keys.items()}


def metadata(**sizes):
    return {"config": json.dumps(sizes)}


def test_the_released_checkpoint_is_detected_by_its_shapes(shapes):
    assert len(shapes) == 438
    assert is_gsm(shapes)
    assert gsm_settings(shapes, {}) == RELEASED


def test_settings_that_no_shape_reveals_come_from_metadata(shapes):
    told = metadata(embed_dims=192, num_heads=8, prop_depth=4, attn_depth=4, pa_frame=3)

    assert gsm_settings(shapes, told) == {**RELEASED, "pa_frame": 3}


def test_other_sizes_are_detected_from_the_shapes(shapes):
    # One attention block and one propagation layer less, twice as large only.
    smaller = {
        name: shape
        for name, shape in shapes.items()
        if ".blocks.3." not in name and "prop_layers.3." not in name and "upsample.5." not in name
    }

    assert gsm_settings(smaller, {}) == {**RELEASED, "prop_depth": 3, "attn_depth": 3, "upscale": 2}


def test_scale_3_is_detected_from_the_pixel_shuffle(shapes):
    del shapes["upsample.5.weight"]
    shapes["upsample.0.weight"] = (9 * 64, 64, 1, 3, 3)

    assert gsm_settings(shapes, {})["upscale"] == 3


def test_a_huge_layer_index_counts_as_one_layer(shapes):
    shapes["prop_layers.999999999.stage.x"] = (1,)

    assert gsm_settings(shapes, {})["prop_depth"] == 5


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"config": "no json"}, "Expecting value"),
        ({"config": "[4]"}, "not a table"),
        (metadata(pa_frame="two"), "not a table of integers"),
        (metadata(pa_frame=True), "not a table of integers"),
        (metadata(embed_dims=144), "says embed_dims 144, its tensors 192"),
        (metadata(upscale=2), "says upscale 2, its tensors 4"),
    ],
)
def test_metadata_that_contradict_the_tensors_are_refused(shapes, told, reason):
    with pytest.raises(ValueError, match=reason):
        gsm_settings(shapes, told)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("prop_layers.0.stage.attn_blocks.blocks.0.attn.relative_position_bias_table", (675,)),
        ("conv_first.weight", ()),
        ("upsample.0.weight", (256,)),
        ("upsample.0.weight", (256, 0, 1, 3, 3)),
    ],
)
def test_impossible_shapes_are_refused(shapes, name, shape):
    shapes[name] = shape

    with pytest.raises(ValueError, match="not their shapes"):
        gsm_settings(shapes, {})


@pytest.mark.parametrize("name", ["implicit_align.q.weight", "conv_first.weight"])
def test_a_file_without_one_of_its_keys_is_another_network(shapes, name):
    del shapes[name]

    assert not is_gsm(shapes)


@pytest.mark.parametrize(
    "name",
    ["A_s_log", "D_s", "conv1d_s.weight", "conv1d_s.bias", "x_proj_s.weight", "dt_proj_s.bias"],
)
def test_the_unused_third_scan_of_some_checkpoints_is_accepted(shapes, name):
    block = "prop_layers.0.stage.mamba_block.mamba."

    assert GSM_UNUSED.fullmatch(block + name)
    assert not any(GSM_UNUSED.fullmatch(key) for key in shapes)


@pytest.mark.parametrize(
    ("key", "called"),
    [
        ("body.0.rdb1.conv1.weight", "ESRGAN"),
        ("basic_module.0.basic_module.0.weight", "SpyNet"),
        ("cell.conv_in.weight", "this project without its configuration"),
        ("align.A_log", "this project without its configuration"),
        ("deform_align.backward_1.weight", r"BasicVSR\+\+"),
        ("layers.0.residual_group.blocks.0.norm1.weight", "SwinIR"),
        ("something.else", "no known network"),
    ],
)
def test_known_architectures_are_guessed_from_keys(key, called):
    assert re.search(called, guess_architecture({key: (1,)}))
