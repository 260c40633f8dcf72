"""Foreign weight files are described, and converted to files with metadata."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from networks import TINY_VSRM, make_network
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vsrm_cli.checkpoints.download import checksum
from vsrm_cli.checkpoints.inspect import convert_weights, describe_weights
from vsrm_cli.checkpoints.loading import load_model, save_weights
from vsrm_cli.errors import OutputError, WeightsError
from vsrm_cli.models.presets import GSM_FULL

KEYS = Path(__file__).parents[1] / "data" / "gsm" / "released_keys.json"


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_weights(make_network(TINY_VSRM), path, {"name": "tiny", "licence": "MIT"})
    return path


def test_a_file_is_described(saved):
    facts = describe_weights(saved)

    assert facts["network"] == "vsrm"
    assert facts["name"] == "tiny"
    assert facts["scale"] == 4
    assert facts["parameters"] == sum(p.numel() for p in make_network(TINY_VSRM).parameters())
    assert facts["tensors"] == len(make_network(TINY_VSRM).state_dict())
    assert facts["bytes"] == saved.stat().st_size
    assert f"sha256:{facts['sha256']}" == checksum(saved, "sha256")
    assert facts["config"] == asdict(TINY_VSRM)
    assert facts["words"] == {"licence": "MIT"}


def test_a_converted_file_has_the_same_weights_and_names_its_source(saved, tmp_path):
    target = tmp_path / "converted.safetensors"

    network = convert_weights(saved, target)

    assert network.config == TINY_VSRM
    before, after = load_file(saved), load_file(target)
    assert before.keys() == after.keys()
    assert all(torch.equal(x, after[name]) for name, x in before.items())
    with safe_open(target, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["licence"] == "MIT"
    assert metadata["source"] == f"tiny.safetensors, {checksum(saved, 'sha256')}"
    assert json.loads(metadata["config"])["channels"] == TINY_VSRM.channels
    assert load_model(target, device="cpu").name == "tiny"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_are_loaded_as_float32(saved, tmp_path, dtype):
    tensors = {name: x.to(dtype) for name, x in load_file(saved).items()}
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, tmp_path / "other.safetensors", metadata=metadata)

    convert_weights(tmp_path / "other.safetensors", tmp_path / "single.safetensors")

    found = load_file(tmp_path / "single.safetensors")
    assert {x.dtype for x in found.values()} == {torch.float32}
    assert all(torch.equal(x, tensors[name].float()) for name, x in found.items())


def test_files_are_not_overwritten_without_overwrite(saved, tmp_path):
    target = tmp_path / "existing.safetensors"
    target.write_text("precious")

    with pytest.raises(OutputError, match="exists; choose another name, or give --overwrite"):
        convert_weights(saved, target)
    assert target.read_text() == "precious"

    convert_weights(saved, target, overwrite=True)
    assert load_model(target, device="cpu").name == "tiny"


def test_a_file_can_be_converted_in_place(saved):
    before = load_file(saved)

    convert_weights(saved, saved, overwrite=True)

    after = load_file(saved)
    assert all(torch.equal(x, after[name]) for name, x in before.items())


@pytest.mark.parametrize(
    ("target", "reason"),
    [("out.pth", "must end in .safetensors"), ("none/out.safetensors", "does not exist; make it")],
)
def test_an_impossible_target_is_refused(saved, tmp_path, target, reason):
    with pytest.raises(OutputError, match=reason):
        convert_weights(saved, tmp_path / target)


def test_a_file_that_does_not_match_leaves_no_output(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "strange.pth")

    with pytest.raises(WeightsError, match="does not say which network"):
        convert_weights(tmp_path / "strange.pth", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["strange.pth"]


@pytest.fixture
def authors(tmp_path):
    """A file like the authors' of GSM: random, in their format, with both kinds of weights."""
    rng = torch.Generator().manual_seed(0)
    keys = json.loads(KEYS.read_text(encoding="utf-8"))

    def draw():
        return {
            name: (torch.randn(shape, generator=rng) * 0.02).to(getattr(torch, kind))
            for name, (kind, *shape) in keys.items()
        }

    weights = {"params": draw(), "params_ema": draw()}
    # Of a third scan, which some copies of Mamba hold and nobody uses.
    block = "prop_layers.0.stage.mamba_block.mamba."
    weights["params"][f"{block}A_s_log"] = torch.ones(384, 16)
    path = tmp_path / "gsmamba_reds_x4.pth"
    torch.save(weights, path)
    return path, weights


@pytest.mark.parametrize("averaged", [False, True])
def test_the_authors_gsm_checkpoint_is_described_converted_and_loaded(authors, tmp_path, averaged):
    path, weights = authors
    target = tmp_path / "gsm.safetensors"

    convert_weights(path, target, averaged=averaged)
    told = describe_weights(target)
    network = load_model(target, device="cpu", dtype="fp32")

    assert (told["network"], told["parameters"], told["tensors"]) == ("gsm", 10_455_919, 438)
    assert told["config"] == asdict(GSM_FULL)
    assert network.config == GSM_FULL
    expected = weights["params_ema" if averaged else "params"]
    assert all(torch.equal(x, expected[name]) for name, x in network.state_dict().items())


def test_the_authors_checkpoint_of_gsm_loads_by_its_path_alone(authors):
    path, weights = authors

    network = load_model(path, device="cpu")

    assert network.config == GSM_FULL
    assert network.name == "gsmamba_reds_x4"
    found = network.state_dict()
    assert torch.equal(found["norm.weight"], weights["params"]["norm.weight"])


def test_a_gsm_checkpoint_of_another_scale_is_refused(authors):
    path, weights = authors
    # One step of enlarging less.
    smaller = {n: x for n, x in weights["params"].items() if not n.startswith("upsample.5.")}
    torch.save(smaller, path)

    with pytest.raises(WeightsError, match=r"GSM checkpoint that enlarges 2 times; .* 4 times"):
        load_model(path, device="cpu")


def test_missing_weights_of_a_gsm_checkpoint_are_reported(authors):
    path, weights = authors
    del weights["params"]["spynet.mean"]
    weights["params"]["norm.weight"] = torch.zeros(7)
    torch.save(weights, path)

    with pytest.raises(WeightsError) as error:
        load_model(path, device="cpu")
    assert "missing spynet.mean" in str(error.value)
    assert "norm.weight is (7,), wanted (192,)" in str(error.value)
