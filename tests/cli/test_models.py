"""`vsrm models`: which networks are available, where, and how to get the others."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from http_host import serve
from networks import make_network
from typer.testing import CliRunner

from vsrm_cli.checkpoints import catalog
from vsrm_cli.checkpoints import download as downloads
from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.checkpoints.download import RemoteFile
from vsrm_cli.checkpoints.loading import load_model, save_weights
from vsrm_cli.cli import app as cli


@pytest.fixture(autouse=True)
def narrow(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("VSRM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def tiny(tmp_path):
    """The weight file of a tiny network."""
    path = tmp_path / "tiny.safetensors"
    save_weights(make_network(), path, {"name": "tiny", "licence": "MIT", "note": "\x1b[2Jboo"})
    return path


@pytest.fixture
def far(tiny, monkeypatch):
    """A name whose weights have to be fetched, and the host that has them."""
    content = tiny.read_bytes()
    with serve(content) as host:
        remote = RemoteFile(
            name="far",
            url=host.url,
            size=len(content),
            is_size_exact=True,
            checksum=f"sha256:{hashlib.sha256(content).hexdigest()}",
        )
        entry = replace(MODELS["gsm"], name="far", remote=remote)
        monkeypatch.setitem(catalog.MODELS, "far", entry)
        yield host


def run(*arguments):
    return CliRunner().invoke(cli.app, ["models", *map(str, arguments)])


def test_the_list_fits_a_narrow_terminal_and_names_every_network():
    result = run()

    lines = result.stdout.splitlines()
    heads = [line for line in lines if line and not line.startswith(" ")]
    assert result.exit_code == 0
    assert max(map(len, lines)) <= 80
    assert [head.split()[0] for head in heads] == list(MODELS)
    assert re.fullmatch(
        r"vsrm-t +0\.92 M parameters  x4  MIT  included, 3\.7 MB", heads[0].rstrip()
    )
    assert any(
        head.startswith("gsm ") and "download at first use, about 88.0 MB" in head for head in heads
    )
    assert any(head.startswith("vsrm ") and head.endswith("no weights") for head in heads)
    told = " ".join(result.stdout.split())
    assert "REDS, by its authors" in told
    assert "28.47 dB PSNR-Y on 11 clips, bicubic 25.77 (weights/README.md)" in told
    assert "Train it (docs/training.md)" in told


def test_the_list_is_available_as_json():
    listed = {model["name"]: model for model in json.loads(run("--json").stdout)}

    assert listed.keys() == MODELS.keys()
    assert listed["vsrm-t"]["place"] == "in the box"
    assert Path(listed["vsrm-t"]["file"]).is_file()
    assert listed["gsm"]["checksum"] == "git:81a5e5a58de914ea786abfa26add6f08d372a381"
    assert listed["vsrm"] == {
        "name": "vsrm",
        "network": "vsrm",
        "scale": 4,
        "parameters": 17_147_375,
        "about": MODELS["vsrm"].about,
        "trained_on": None,
        "degradation": None,
        "licence": None,
        "quality": MODELS["vsrm"].quality,
        "quality_source": "arXiv 2506.22762",
        "how_to_get": MODELS["vsrm"].how_to_get,
        "place": "none",
        "file": None,
        "bytes": None,
        "url": None,
        "checksum": None,
        "detail_pair": None,
    }


def test_a_network_is_downloaded_once_and_then_loaded_offline(far):
    pulled = run("pull", "far")
    again = run("pull", "far", "--quiet")
    far.statuses = 20 * [500]
    network = load_model("far", device="cpu")

    assert pulled.exit_code == again.exit_code == 0
    assert "downloading far, " in pulled.stderr
    assert pulled.stderr.splitlines()[-1].startswith("far is ready: ")
    assert (again.stdout, again.stderr) == ("", "")
    assert len(far.requests) == 1
    assert network.name == "tiny"
    listed = next(line for line in run().stdout.splitlines() if line.startswith("far"))
    assert "downloaded" in listed


def test_a_failed_download_is_reported_in_one_line(far):
    far.content = b"x" * len(far.content)

    result = run("pull", "far")

    assert result.exit_code == 1
    assert re.search(r"^error: 127\.0\.0\.1 sent another file", result.stderr, re.M)


def test_bundled_weights_need_no_download():
    result = run("pull", "vsrm-t")

    assert result.exit_code == 0
    assert "vsrm-t is ready: " in result.stderr


def test_a_file_is_shown_with_its_sizes_metadata_and_checksum(tiny):
    shown = run("show", tiny)
    facts = json.loads(run("show", tiny, "--json").stdout)

    digest = hashlib.sha256(tiny.read_bytes()).hexdigest()
    assert shown.exit_code == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for word in ("tiny", digest, "feature_blocks", "licence", f"{facts['parameters']:,}"):
        assert word in shown.stdout
    assert "\x1b" not in shown.stdout
    assert facts["sha256"] == digest
    assert facts["config"]["channels"] == 4
    assert facts["words"]["licence"] == "MIT"


def test_a_name_is_shown_with_what_the_catalog_knows():
    here, far = (json.loads(run("show", name, "--json").stdout) for name in ("vsrm-t", "gsm"))

    assert here["sha256"].startswith("d886422bef")
    assert here["tensors"] == 85
    assert here["quality_source"] == "weights/README.md"
    assert far["place"] == "to be fetched"
    assert far["config"]["channels"] == 192
    assert "sha256" not in far
    assert "88,000,000" in run("show", "gsm").stdout


def test_a_file_is_converted_and_none_is_overwritten_without_overwrite(tiny, tmp_path):
    target = tmp_path / "out.safetensors"

    first, second = run("convert", tiny, target), run("convert", tiny, target)
    third = run("convert", tiny, target, "--overwrite", "--ema")

    assert [result.exit_code for result in (first, second, third)] == [0, 1, 0]
    assert "out.safetensors: a vsrm-compact network, ready for --model" in first.stderr
    assert re.fullmatch(r"error: .* exists; choose .* --overwrite\.\n", second.stderr)


@pytest.mark.parametrize("command", ["pull", "show"])
def test_an_unknown_name_gets_one_line(command):
    result = run(command, "vsrm-z")

    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"error: There is no model 'vsrm-z'; the nearest .*\n", result.stderr)


def test_a_hostile_file_gets_one_line(tmp_path):
    class Command:
        def __reduce__(self):
            return print, ("it ran",)

    torch.save(Command(), tmp_path / "strange.pth")

    result = run("show", tmp_path / "strange.pth")

    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"error: .*strange\.pth was refused: it asks to call .*\n", result.stderr)
    assert "it ran" not in result.output


def test_a_bug_is_reported_as_one_with_its_place(monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("vsrm_cli.checkpoints.inspect.describe", fail)

    result = run("show", "vsrm-t")

    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == (
        "error: ZeroDivisionError: by zero (this is a bug in vsrm: please report it)"
    )


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_out_of_memory_is_not_a_bug(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("vsrm_cli.checkpoints.inspect.describe", fail)

    result = run("show", "vsrm-t")

    assert result.exit_code == 1
    assert result.stderr.startswith("error: There is not enough memory; close other programs")
    assert "bug" not in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_on_stdout_is_not_a_bug():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vsrm_cli", "models", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert done.returncode == 1
    assert done.stderr.startswith("error: The output could not be written (No space left")
    assert len(done.stderr.splitlines()) == 1


def test_an_interrupted_download_says_how_to_resume(far, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(downloads, "_receive_all", interrupt)

    result = run("pull", "far")

    assert result.exit_code == 130
    assert "run the same command to resume" in result.stderr
