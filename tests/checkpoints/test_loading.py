"""Loading a weight file gives the network that was saved, or a clear error."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from networks import TINY_VSRM, draw_randomly, make_network
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vsrm_cli.checkpoints import catalog
from vsrm_cli.checkpoints import loading as weights
from vsrm_cli.checkpoints.catalog import DetailPair, resolve_detail
from vsrm_cli.checkpoints.loading import load_model, read_weights, save_weights
from vsrm_cli.errors import UsageError, VsrmError, WeightsError

# What a half precision keeps of one value, times what a network adds up of it.
TOLERANCES = {"fp16": 2e-2, "bf16": 1e-1}
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture
def saved(tmp_path):
    """The file of a tiny network."""
    path = tmp_path / "tiny.safetensors"
    save_weights(make_network(TINY_VSRM), path, {"name": "tiny", "licence": "MIT"})
    return path


def words_of(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def rewrite(path, *, tensors=None, metadata=None):
    """Save a weight file again with other tensors or other words."""
    held = load_file(path)
    save_file(held if tensors is None else tensors(held), path, metadata=metadata or words_of(path))


def folder(path):
    return sorted(file.name for file in path.iterdir())


def test_saved_weights_are_loaded(saved):
    clip = draw_randomly(1, 2, 3, 5, 7)
    expected = make_network(TINY_VSRM)(clip).detach()

    network = load_model(saved, device="cpu", dtype="fp32")

    # Weights may come back in another layout, which changes the order of sums.
    torch.testing.assert_close(network(clip), expected, rtol=1e-5, atol=1e-5)
    assert network.config == TINY_VSRM
    assert network.name == "tiny"
    assert network.scale == 4


def test_loading_does_not_import_the_compiler(saved):
    script = f"""
import sys
from vsrm_cli.checkpoints.loading import read_weights
read_weights(__import__("pathlib").Path({str(saved)!r}))
print("torch._dynamo" in sys.modules)
"""

    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert told.stdout == "False\n"


def test_every_tensor_comes_back_bit_for_bit(saved):
    network = read_weights(saved)

    expected = make_network(TINY_VSRM).state_dict()
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(x, expected[name]) for name, x in network.state_dict().items())


def test_a_loaded_network_is_in_eval_mode_without_gradients(saved):
    network = load_model(str(saved))

    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())
    assert not any(weight.is_meta for weight in network.parameters())


def test_a_file_without_a_name_is_named_after_its_path(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_weights(make_network(TINY_VSRM), path, {})

    assert load_model(path, device="cpu").name == "mine"


def test_the_metadata_of_a_file_describe_its_network(saved):
    metadata = words_of(saved)

    assert metadata["network"] == "vsrm"
    assert json.loads(metadata["config"]) == json.loads(json.dumps(asdict(TINY_VSRM)))
    assert metadata["scale"] == "4"
    assert metadata["licence"] == "MIT"


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_gives_nearly_the_same_image_in_its_dtype(saved, dtype):
    clip = draw_randomly(1, 3, 3, 8, 8)
    expected = load_model(saved, device="cpu", dtype="fp32")(clip)

    large = load_model(saved, device="cpu", dtype=dtype)(clip.to(TYPES[dtype]))

    assert large.dtype == TYPES[dtype]
    torch.testing.assert_close(large.float(), expected, rtol=0, atol=TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_keeps_scan_and_flow_weights_in_float32(saved, dtype):
    expected = make_network(TINY_VSRM).state_dict()

    network = load_model(saved, device="cpu", dtype=dtype)

    found = dict(network.named_parameters())
    kept = [
        name
        for name in found
        if name.endswith((".A_log", ".D", "dt_proj.bias")) or name.startswith("spynet.")
    ]
    assert len(kept) == 3 * 7 + 2 * 2 * 2  # seven scans, two flow levels of two convolutions
    for name in kept:
        assert torch.equal(found[name], expected[name])
    assert found["conv_first.weight"].dtype == TYPES[dtype]
    assert found["branches.forward_1.conv_after.weight"].dtype == TYPES[dtype]


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"amx_bf16": True}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_on_a_cpu_the_default_dtype_is_the_fastest(saved, monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)

    network = load_model(saved, device="cpu")

    assert network.dtype == TYPES[dtype]


def test_on_a_cpu_without_known_capabilities_the_default_dtype_is_fp32(saved, monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")

    assert load_model(saved, device="cpu").dtype == torch.float32


@pytest.mark.parametrize("content", [b"", b"these are words, no weights\n" * 9], ids=["0", "text"])
def test_a_file_that_is_not_safetensors_is_reported(tmp_path, content):
    path = tmp_path / "false.safetensors"
    path.write_bytes(content)

    with pytest.raises(WeightsError, match=r"false\.safetensors is not a readable safetensors"):
        load_model(path, device="cpu")


def test_a_truncated_file_is_reported(saved):
    saved.write_bytes(saved.read_bytes()[:-100])

    with pytest.raises(WeightsError, match=r"tiny\.safetensors is not a readable safetensors"):
        load_model(saved, device="cpu")


def test_unknown_safetensors_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)

    with pytest.raises(WeightsError, match="does not say which network"):
        load_model(path, device="cpu")


@pytest.mark.parametrize(
    "config",
    [
        "no json",
        "[]",
        '{"channels": 8}',
        json.dumps({**asdict(TINY_VSRM), "width": 3}),
        json.dumps({**asdict(TINY_VSRM), "channels": -8}),
        json.dumps({**asdict(TINY_VSRM), "channels": "eight"}),
    ],
    ids=["text", "list", "too little", "too much", "negative", "words"],
)
def test_an_invalid_configuration_is_reported(saved, config):
    rewrite(saved, metadata={**words_of(saved), "config": config})

    with pytest.raises(WeightsError, match="configuration that cannot be built"):
        load_model(saved, device="cpu")


def test_missing_unexpected_and_wrongly_shaped_weights_are_all_reported(saved):
    def spoil(tensors):
        tensors.pop("conv_first.bias")
        tensors["conv_last.bias"] = torch.zeros(3)
        tensors["align.D"] = torch.zeros(5)
        return tensors

    rewrite(saved, tensors=spoil)

    with pytest.raises(WeightsError) as error:
        load_model(saved, device="cpu")
    assert "missing conv_first.bias" in str(error.value)
    assert "unexpected conv_last.bias" in str(error.value)
    assert "align.D is (5,), wanted (8,)" in str(error.value)


def test_a_long_list_of_faults_is_shortened(saved):
    rewrite(saved, tensors=lambda tensors: {f"module2.{n}": x for n, x in tensors.items()})
    count = len(load_file(saved))

    with pytest.raises(WeightsError) as error:
        load_model(saved, device="cpu")
    text = str(error.value)
    assert text.count("missing ") == text.count("unexpected ") == 10 + 1 - 1
    assert f"and {count - 10} more missing; " in text
    assert f"and {count - 10} more unexpected." in text


def test_another_scale_is_refused(saved):
    rewrite(saved, metadata={**words_of(saved), "scale": "2"})

    with pytest.raises(WeightsError, match="says that it enlarges 2 times, but"):
        load_model(saved, device="cpu")


@pytest.mark.parametrize(
    ("metadata", "key", "reason"),
    [
        (
            {"network": "edvr", "config": "{}"},
            "a",
            "for a network 'edvr'; the networks here are vsrm",
        ),
        ({}, "body.0.rdb1.conv1.weight", "it looks like RRDBNet"),
    ],
    ids=["named", "nameless"],
)
def test_another_architecture_is_named_in_the_error(tmp_path, metadata, key, reason):
    path = tmp_path / "other.safetensors"
    save_file({key: torch.zeros(3)}, path, metadata=metadata)

    with pytest.raises(WeightsError, match=reason):
        load_model(path, device="cpu")


def test_integer_tensors_are_refused(saved):
    rewrite(saved, tensors=lambda tensors: {n: x.to(torch.int64) for n, x in tensors.items()})

    with pytest.raises(
        WeightsError, match=r"conv_first.weight is torch.int64, wanted torch.float32"
    ):
        load_model(saved, device="cpu")


def test_a_pytorch_file_without_metadata_is_refused(tmp_path):
    torch.save(make_network(TINY_VSRM).state_dict(), tmp_path / "mine.pth")

    with pytest.raises(WeightsError, match="does not say which network"):
        load_model(tmp_path / "mine.pth", device="cpu")


def test_a_file_for_another_size_is_reported(saved):
    wider = json.dumps(asdict(replace(TINY_VSRM, ffn=7)))
    rewrite(saved, metadata={**words_of(saved), "config": wider})

    with pytest.raises(WeightsError, match="does not fit its own configuration"):
        load_model(saved, device="cpu")


@pytest.mark.parametrize("device", ["tpu", "graphics", "cuda:x", ""])
def test_an_unknown_device_is_a_usage_error(saved, device):
    with pytest.raises(UsageError, match="auto, cpu, cuda, mps or xpu"):
        load_model(saved, device=device)


@pytest.mark.parametrize(("device", "count"), [("cuda", 0), ("cuda:1", 1), ("cuda:7", 2)])
def test_a_missing_device_is_reported(saved, device, count, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    with pytest.raises(VsrmError, match=f"no device {device}; .*cpu") as error:
        load_model(saved, device=device)
    assert error.value.exit_code == 1


@pytest.mark.parametrize("dtype", ["fp8", "float32", ""])
def test_an_unknown_dtype_is_a_usage_error(saved, dtype):
    with pytest.raises(UsageError, match="fp32, fp16, bf16") as error:
        load_model(saved, dtype=dtype)
    assert error.value.exit_code == 2


def test_saving_leaves_no_other_file(tmp_path):
    save_weights(make_network(TINY_VSRM), tmp_path / "tiny.safetensors", {})

    assert folder(tmp_path) == ["tiny.safetensors"]


def test_saving_that_fails_halfway_keeps_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def full_disk(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(weights, "save_file", full_disk)

    with pytest.raises(OSError, match="no space"):
        save_weights(make_network(TINY_VSRM, seed=1), saved, {})
    assert saved.read_bytes() == before
    assert [name for name in folder(saved.parent) if not name.startswith(".")] == [saved.name]


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Two catalog names, soft and sharp, of two tiny networks."""
    for seed, name in enumerate(("soft", "sharp")):
        save_weights(make_network(seed=seed), tmp_path / f"{name}.safetensors", {"name": name})
    monkeypatch.setattr(catalog, "PAIRS", (DetailPair("soft", "sharp"),))
    monkeypatch.setattr(
        weights, "locate", lambda name, report=None: tmp_path / f"{name}.safetensors"
    )


@pytest.mark.parametrize("name", ["soft", "sharp"])
def test_detail_blends_the_weights_of_a_pair_by_either_name(pair, name):
    ends = [load_model(end, device="cpu", dtype="fp32").state_dict() for end in ("soft", "sharp")]

    mixed = load_model(name, device="cpu", dtype="fp32", detail=0.25)

    assert mixed.name == "soft"
    for key, x in mixed.state_dict().items():
        torch.testing.assert_close(x, ends[0][key] + 0.25 * (ends[1][key] - ends[0][key]))


@pytest.mark.parametrize(("detail", "name"), [(0.0, "soft"), (1.0, "sharp"), (None, "soft")])
def test_the_ends_of_a_pair_are_its_files_bit_for_bit(pair, detail, name):
    end = load_model(name, device="cpu").state_dict()

    network = load_model("soft", device="cpu", detail=detail)

    assert network.name == name
    assert all(torch.equal(x, end[key]) for key, x in network.state_dict().items())


def test_each_detail_has_a_checksum_of_its_own(pair):
    checksums = {weights.weights_checksum("soft", detail=d) for d in (None, 0.0, 0.25, 0.5, 1.0)}

    assert len(checksums) == 4  # none is 0
    assert weights.weights_checksum("sharp") in checksums


def test_detail_without_a_second_weight_file_is_refused_with_a_suggestion(pair, saved):
    with pytest.raises(UsageError, match=r"no second weight file for --detail; .* --model soft"):
        load_model(saved, detail=0.5)


def test_networks_of_different_sizes_cannot_be_blended(pair, tmp_path):
    other = make_network(replace(TINY_VSRM, channels=12))
    save_weights(other, tmp_path / "sharp.safetensors", {"name": "sharp"})

    with pytest.raises(WeightsError, match="soft and sharp differ in size"):
        load_model("soft", device="cpu", detail=0.5)


def test_a_network_of_a_pair_has_the_detail_of_its_file_unless_one_is_given(pair):
    assert resolve_detail("soft", None) == 0
    assert resolve_detail("sharp", None) == 1
    assert resolve_detail("sharp", 0.75) == 0.75
    assert resolve_detail("gsm-t", None) is None
