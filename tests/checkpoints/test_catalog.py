"""The catalog is correct about each network."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from networks import count_parameters
from safetensors import safe_open

from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.checkpoints.loading import FAMILIES
from vsrm_cli.checkpoints.locate import WeightsPlace, weights_location

ROOT = Path(__file__).parents[2]
ENTRIES = pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS)


@ENTRIES
def test_the_parameters_and_the_scale_are_those_of_the_network(entry):
    with torch.device("meta"):
        network = FAMILIES[entry.network].network(entry.config)

    assert count_parameters(network) == entry.parameters
    assert network.scale == entry.scale
    assert network.family == entry.network


@ENTRIES
def test_an_entry_says_where_its_weights_are_or_how_to_get_some(entry):
    ways = [entry.file, entry.remote, entry.how_to_get]

    assert sum(way is not None for way in ways) == 1
    assert (entry.licence is None) == (entry.how_to_get is not None)
    assert (entry.trained_on is None) == (entry.degradation is None) == (entry.licence is None)


@ENTRIES
def test_remote_files_are_pinned_and_use_https(entry):
    if entry.remote is None:
        return
    kind, _, digest = entry.remote.checksum.partition(":")

    assert urlsplit(entry.remote.url).scheme == "https"
    assert not {"main", "master", "HEAD", "latest"} & set(entry.remote.url.split("/"))
    assert len(digest) == {"git": 40, "sha256": 64}[kind]
    assert entry.remote.name == entry.name


@ENTRIES
def test_bundled_networks_have_the_number_of_parameters_in_the_catalog(entry):
    if entry.file is None:
        return
    where = weights_location(entry)

    assert where.place is WeightsPlace.BUNDLED
    with safe_open(where.path, framework="pt") as file:
        assert file.metadata()["licence"] == entry.licence
    assert entry.file in (ROOT / "weights" / "README.md").read_text(encoding="utf-8")
    # The figures of the catalog stand in the page that it names, however it is typeset.
    page = (ROOT / entry.quality_source).read_text(encoding="utf-8")
    assert all(figure in page for figure in entry.quality.split() if "." in figure)
