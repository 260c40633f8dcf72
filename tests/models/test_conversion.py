"""What a strange file holds can be told, and kept in a file that says what it is."""

import json
from dataclasses import asdict

import pytest
import torch
from networks import TINY, make_network
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vsrm_cli.errors import OutputError, WeightsError
from vsrm_cli.intake.downloads import checksum
from vsrm_cli.models.conversion import convert_weights, describe_weights
from vsrm_cli.models.weights import load_model, save_weights


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_weights(make_network(), path, {"name": "tiny", "licence": "MIT"})
    return path


def test_a_file_is_described(saved):
    facts = describe_weights(saved)

    assert facts["network"] == "vsrm"
    assert facts["name"] == "tiny"
    assert facts["scale"] == 4
    assert facts["parameters"] == sum(p.numel() for p in make_network().parameters())
    assert facts["tensors"] == len(make_network().state_dict())
    assert facts["bytes"] == saved.stat().st_size
    assert f"sha256:{facts['sha256']}" == checksum(saved, "sha256")
    assert facts["config"] == asdict(TINY)
    assert facts["words"] == {"licence": "MIT"}


def test_a_converted_file_holds_the_same_and_says_where_it_is_from(saved, tmp_path):
    target = tmp_path / "converted.safetensors"

    network = convert_weights(saved, target)

    assert network.config == TINY
    before, after = load_file(saved), load_file(target)
    assert before.keys() == after.keys()
    assert all(torch.equal(x, after[name]) for name, x in before.items())
    with safe_open(target, framework="pt") as file:
        words = file.metadata()
    assert words["licence"] == "MIT"
    assert words["source"] == f"tiny.safetensors, {checksum(saved, 'sha256')}"
    assert json.loads(words["config"])["channels"] == TINY.channels
    assert load_model(target, device="cpu").name == "tiny"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_come_in_single(saved, tmp_path, dtype):
    tensors = {name: x.to(dtype) for name, x in load_file(saved).items()}
    with safe_open(saved, framework="pt") as file:
        words = file.metadata()
    save_file(tensors, tmp_path / "other.safetensors", metadata=words)

    convert_weights(tmp_path / "other.safetensors", tmp_path / "single.safetensors")

    found = load_file(tmp_path / "single.safetensors")
    assert {x.dtype for x in found.values()} == {torch.float32}
    assert all(torch.equal(x, tensors[name].float()) for name, x in found.items())


def test_nothing_is_overwritten_unasked(saved, tmp_path):
    target = tmp_path / "existing.safetensors"
    target.write_text("precious")

    with pytest.raises(OutputError, match="exists; --overwrite"):
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
def test_a_target_that_cannot_be_is_told(saved, tmp_path, target, reason):
    with pytest.raises(OutputError, match=reason):
        convert_weights(saved, tmp_path / target)


def test_a_file_that_does_not_fit_leaves_nothing(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "strange.pth")

    with pytest.raises(WeightsError, match="does not say which network"):
        convert_weights(tmp_path / "strange.pth", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["strange.pth"]
