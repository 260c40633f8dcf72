"""A model argument becomes a local file, or an error that says what to do."""

from dataclasses import replace

import pytest
from networks import make_network

from vsrm_cli.checkpoints import locate as module
from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.checkpoints.download import RemoteFile, cache_path
from vsrm_cli.checkpoints.loading import load_model, save_weights
from vsrm_cli.checkpoints.locate import WeightsPlace, locate, weights_location
from vsrm_cli.errors import WeightsError

# Nobody listens there.
REMOTE = RemoteFile(
    name="far",
    url="http://127.0.0.1:9/far.pth",
    size=5,
    is_size_exact=True,
    checksum="git:b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0",  # of "hello"
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VSRM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def far(monkeypatch):
    """A network of the catalog whose weights are in the network."""
    entry = replace(MODELS["vsrm"], name="far", remote=REMOTE)
    monkeypatch.setitem(module.MODELS, "far", entry)
    return entry


@pytest.mark.parametrize("package", [".", "vsrm_cli"], ids=["installed", "in a clone"])
def test_a_name_of_the_catalog_finds_its_bundled_file(tmp_path, monkeypatch, package):
    (tmp_path / "weights").mkdir()
    save_weights(make_network(), tmp_path / "weights" / "vsrm-t.safetensors", {"name": "boxed"})
    monkeypatch.setattr(module, "files", lambda _: tmp_path / package)

    assert load_model("vsrm-t", device="cpu").name == "boxed"
    assert weights_location(MODELS["vsrm-t"]).place is WeightsPlace.BUNDLED


def test_a_missing_bundled_file_suggests_reinstalling(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "files", lambda _: tmp_path / "vsrm_cli")

    with pytest.raises(WeightsError, match=r"vsrm-t\.safetensors is missing.*reinstall"):
        locate("vsrm-t")


@pytest.mark.parametrize(
    ("typed", "meant"), [("vsrm-x", "vsrm-t"), ("VSRM-T", "vsrm-t"), ("vsrm_ablation", "ablation")]
)
def test_an_unknown_name_suggests_the_nearest_ones(typed, meant):
    with pytest.raises(WeightsError, match=rf"no model '{typed}'; .*nearest.*{meant}.*vsrm models"):
        locate(typed)


def test_an_unknown_name_without_similar_ones_lists_all():
    with pytest.raises(WeightsError, match="no model 'waifu'; the models are vsrm-t, "):
        locate("waifu")


@pytest.mark.parametrize("name", ["vsrm", "vsrm-ablation"])
def test_a_network_without_weights_says_how_to_train_it(name):
    with pytest.raises(WeightsError, match=rf"'{name}' has no public weights.*Train it.*vsrm-t"):
        locate(name)
    assert weights_location(MODELS[name]).place is WeightsPlace.NOWHERE


@pytest.mark.parametrize("name", ["none.safetensors", "none.pth", "some/where"])
def test_a_missing_path_is_reported(tmp_path, name):
    with pytest.raises(WeightsError, match="no weight file"):
        locate(tmp_path / name)


def test_a_folder_is_no_weight_file(tmp_path):
    with pytest.raises(WeightsError, match="is a folder"):
        locate(tmp_path)


def test_a_file_has_priority_over_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").write_bytes(b"weights")

    assert locate("runs/mine").read_bytes() == b"weights"


def test_without_a_connection_the_error_suggests_a_command(far):
    with pytest.raises(
        WeightsError, match=r"127\.0\.0\.1 cannot be reached.*'vsrm models pull far'"
    ):
        locate("far")
    assert weights_location(far) == module.WeightsLocation(WeightsPlace.REMOTE, None, 5)


def test_cached_files_need_no_connection(far):
    path = cache_path(REMOTE)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"hello")

    assert locate("far") == path
    assert weights_location(far) == module.WeightsLocation(WeightsPlace.CACHE, path, 5)


def test_damaged_cached_files_are_ignored(far):
    path = cache_path(REMOTE)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"hellO")

    assert weights_location(far).place is WeightsPlace.REMOTE
    with pytest.raises(WeightsError, match="cannot be reached"):
        locate("far")
