"""Untrusted files are read safely: no code runs, and no small file takes much memory."""

import io
import json
import os
import pickle
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from vsrm_cli.checkpoints.safe_reader import read_checkpoint, sanitize
from vsrm_cli.errors import WeightsError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.index": torch.arange(4)}
AVERAGE = {name: x + 1 for name, x in WEIGHTS.items()}


class Command:
    """What a pickle of it does when it is loaded the careless way."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "strange.pth"


def refuse(path, reason):
    with pytest.raises(WeightsError, match=reason) as error:
        read_checkpoint(path)
    text = str(error.value)
    assert path.name in text
    assert len(text) < 500
    assert "\n" not in text
    assert text.isprintable()


def same(checkpoint, expected):
    assert checkpoint.tensors.keys() == expected.keys()
    assert all(torch.equal(x, expected[name]) for name, x in checkpoint.tensors.items())


def rezip(path, *, compression=zipfile.ZIP_STORED, change=None):
    """Write a zip archive again, compressed or with other content."""
    with zipfile.ZipFile(path) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, change(name, data) if change else data)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w},
        lambda w: {"params": w, "params_ema": AVERAGE},
        lambda w: {"params": w, "iteration": 600_000},
        lambda w: {"params_ema": w},
        lambda w: {"model": {f"module.{name}": x for name, x in w.items()}, "epoch": 3},
        lambda w: {"state_dict": {"params": {f"_orig_mod.module.{n}": x for n, x in w.items()}}},
        lambda w: {name: torch.nn.Parameter(x, requires_grad=False) for name, x in w.items()},
    ],
    ids=["bare", "state", "both", "plain", "average", "module", "nested", "parameters"],
)
def test_wrappers_of_training_frameworks_are_removed(path, wrap):
    torch.save(wrap(WEIGHTS), path)

    same(read_checkpoint(path), WEIGHTS)


def test_averaged_weights_are_taken_on_request(path):
    torch.save({"params": WEIGHTS, "params_ema": AVERAGE}, path)

    same(read_checkpoint(path, averaged=True), AVERAGE)


def test_safetensors_metadata_are_read(tmp_path):
    path = tmp_path / "ours.anything"
    save_file(WEIGHTS, path, metadata={"licence": "MIT"})

    checkpoint = read_checkpoint(path)

    same(checkpoint, WEIGHTS)
    assert checkpoint.metadata == {"licence": "MIT"}
    assert checkpoint.shapes == {"a.weight": (2, 3), "a.index": (4,)}


@pytest.mark.parametrize("form", ["zip", "bare", "among weights"])
def test_a_pickle_that_would_run_a_command_is_refused_and_nothing_runs(tmp_path, path, form):
    proof = tmp_path / "it ran"
    content = (
        {"params": WEIGHTS, "x": Command(proof)} if form == "among weights" else Command(proof)
    )
    if form == "bare":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)

    refuse(path, "bare pickle" if form == "bare" else r"asks to call \w+\.system")

    assert not proof.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_a_file_cut_short_is_refused(path, form, share):
    if form == "pth":
        torch.save({"a": torch.zeros(5000)}, path)
    else:
        save_file({"a": torch.zeros(5000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])

    refuse(path, "damaged or cut short|not a readable")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(path):
    torch.save({"a": torch.zeros(5_000_000)}, path)
    rezip(path, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000

    refuse(path, "would unpack to 2[0-9]{7}")


def test_entries_that_share_their_bytes_do_not_multiply_them(path):
    torch.save({"a": torch.zeros(5000)}, path)
    rezip(path)
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    entries, start = struct.unpack("<10xH4xI", data[end : end + 20])
    directory = 30 * data[start:end]
    counts = (30 * entries, 30 * entries, len(directory), start)
    last = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, *counts, 0)
    path.write_bytes(data[:start] + directory + last)

    refuse(path, "would unpack to")


def test_a_tensor_larger_than_its_file_is_refused(path):
    torch.save({"a": torch.zeros(1).expand(100_000, 100_000)}, path)

    refuse(path, r"claims the shape \(100000, 100000\)")


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"a": [1, 2]},
        [],
    ],
    ids=["shape", "size", "backwards", "type", "no table", "list"],
)
def test_a_wrong_safetensors_header_is_refused(tmp_path, header):
    path = tmp_path / "strange.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))

    refuse(path, "not a readable safetensors")


def test_a_header_longer_than_its_file_is_refused(tmp_path):
    path = tmp_path / "strange.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")

    refuse(path, "not a readable safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_nan_and_infinite_weights_are_refused(path, form, value):
    tensors = {"good": torch.ones(3), "bad": torch.tensor([1.0, value])}
    if form == "pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)

    refuse(path, "holds NaN or infinite values in bad")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "holds no weights"),
        ({}, "holds no weights"),
        (torch.ones(3), "holds no weights"),
        ({"a": torch.ones(3), "epoch": 3}, "epoch, which is not a tensor"),
        ({1: torch.ones(3)}, "1, which is not a tensor"),
        ({"a": torch.ones(3, dtype=torch.complex64)}, "a as torch.complex64"),
        ({"a": torch.ones(3).to_sparse()}, "sparse"),
        ({"a": torch.ones(3, device="meta")}, "a as|not a readable"),
    ],
    ids=["list", "nothing", "tensor", "number", "name", "complex", "sparse", "meta"],
)
def test_values_other_than_dense_tensors_are_refused(path, content, reason):
    torch.save(content, path)

    refuse(path, reason)


@pytest.mark.filterwarnings("default")  # PyTorch's own, about TorchScript
def test_a_program_is_no_weight_file(path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("model/constants.pkl", b"\x80\x02).")
        archive.writestr("model/code/__torch__.py", "print('hello')")
    path.write_bytes(buffer.getvalue())

    refuse(path, "not a readable PyTorch file")


def test_a_zip_archive_of_something_else_is_refused(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "Dear Sir or Madam")

    refuse(path, "not a readable PyTorch file")


def test_damage_inside_the_pickle_is_refused(path):
    torch.save(WEIGHTS, path)
    rezip(path, change=lambda name, data: data[:20] if name.endswith("data.pkl") else data)

    refuse(path, "not a readable PyTorch file")


def test_a_file_without_read_permission_is_reported(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        read_checkpoint(tmp_path / "missing.pth")


def test_names_are_shown_short_and_without_control_characters(path):
    torch.save({"\x1b[2J" + 300 * "a": "text"}, path)

    refuse(path, r"\\x1b\[2Ja+\.\.\., which is not a tensor")
    assert sanitize("conv.weight") == "conv.weight"


def test_a_header_whose_length_looks_like_a_pickle_is_read(path):
    for filler in range(256):
        save_file({"a": torch.ones(3)}, path, metadata={"filler": "x" * filler})
        if path.read_bytes()[0] == 0x80:
            break

    assert path.read_bytes()[0] == 0x80
    assert torch.equal(read_checkpoint(path).tensors["a"], torch.ones(3))
