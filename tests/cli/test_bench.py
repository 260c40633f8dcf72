"""`vsrm bench`: results on stdout, everything else on stderr, and what each exit code means."""

import json
import re
from pathlib import Path

import pytest
import torch
from networks import make_network
from scenes import draw_folder
from stub_network import draw_clip, load_nearest
from typer.testing import CliRunner

from vsrm_cli.bench import kernels, speed
from vsrm_cli.cli import app as cli
from vsrm_cli.evaluation import quality as measure
from vsrm_cli.upscale import job as upscale


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder; the network repeats pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kernels, "SHORT", 64)
    monkeypatch.setattr(speed, "SECONDS_OF_RUNS", 0.1)
    for module in (speed, upscale):
        monkeypatch.setattr(module, "load_model", load_nearest)
    monkeypatch.setattr(upscale, "weights_checksum", lambda *_, **__: "none")
    monkeypatch.setattr(upscale, "network_scale", lambda *_, **__: 4)
    monkeypatch.setattr("vsrm_cli.upscale.plan.network_scale", lambda *_, **__: 4)
    monkeypatch.setattr(
        measure,
        "load_model",
        lambda name, **_: load_nearest(name) if name == "any" else make_network(),
    )
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli.app, ["bench", "--cpu", *map(str, arguments)])


def test_by_default_networks_are_timed(folder):
    result = run("--model", "any", "--quick")

    assert result.exit_code == 0
    assert "Networks alone" in result.stdout
    assert "nearest" in result.stdout
    timing, minute = result.stderr.splitlines()
    assert timing == "timing nearest in fp32 on 3 frames of 180p"
    assert minute.startswith("one minute of 480p at 24 frames per second takes here")


def test_json_is_one_object_with_all_that_was_measured(folder):
    draw_folder(folder / "set" / "waves")
    draw_clip("small.mp4")

    result = run(
        *("--model", "any", "--json", "--quiet", "--quick", "--speed", "--kernels"),
        *("--end-to-end", "small.mp4", "--quality", "set"),
    )

    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    figures = json.loads(result.stdout)
    assert None not in (figures[part] for part in ("speed", "kernels", "end_to_end", "quality"))
    assert figures["settings"]["models"] == ["any"]


def test_quality_prints_each_clip_and_the_means(folder):
    draw_folder(folder / "set" / "waves")

    result = run("--model", "any", "--quality", "set")

    assert result.exit_code == 0
    assert "PSNR-Y of each clip, dB" in result.stdout
    assert "nearest, frames" in result.stdout
    assert "along the flow of vsrm-compact " in result.stderr


def test_quality_without_a_model_measures_those_that_take_the_same_clips(folder, monkeypatch):
    draw_folder(folder / "set" / "waves")
    asked = []

    def load(name, **_):
        asked.append(name)
        network = load_nearest(name)
        network.name = name
        return network

    monkeypatch.setattr(measure, "load_model", load)

    result = run("--quality", "set", "--quick")

    assert result.exit_code == 0, result.stderr
    assert asked == ["vsrm-t", "vsrm-t-real", "vsrm-t-sharp"]


def test_a_broken_clip_is_named_and_makes_the_exit_code_1(folder):
    draw_folder(folder / "set" / "waves")
    draw_folder(folder / "set" / "torn")
    (folder / "set" / "torn" / "001.png").write_bytes(b"not a picture")

    result = run("--model", "any", "--quality", "set", "--quick")

    assert result.exit_code == 1
    assert "waves" in result.stdout
    assert re.search(r"^error: .*001\.png", result.stderr, re.M)


def test_a_page_is_written(folder):
    draw_folder(folder / "set" / "waves")

    result = run("--model", "any", "--quality", "set", "--quick", "--html", "page.html")

    page = Path("page.html").read_text(encoding="utf-8")
    assert result.exit_code == 0
    assert page.startswith("<!doctype html>")
    assert "Gain over bicubic" in page
    assert sorted(p.name for p in folder.iterdir()) == ["page.html", "set"]


def test_a_slower_result_fails_past_the_tolerance(folder):
    old = json.loads(run("--model", "any", "--quick", "--json").stdout)
    for name, factor in (("same", 1.0), ("faster", 0.001)):
        copied = json.loads(json.dumps(old))
        copied["speed"][0]["ms_per_frame"] *= factor
        Path(f"{name}.json").write_text(json.dumps(copied))

    fine = run("--model", "any", "--quick", "--compare", "same.json", "--tolerance", "50")
    worse = run("--model", "any", "--quick", "--compare", "faster.json", "--tolerance", "50")

    assert fine.exit_code == 0
    assert "Against the older result" in fine.stdout
    assert worse.exit_code == 1
    assert "times what it was" in worse.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--quality", "empty"], 1, "holds no clip"),
        (["--quality", "nowhere"], 1, "nowhere does not exist"),
        (["--degradation", "jpeg"], 2, "bi, bd, or a codec and its quality such"),
        (["--ablate"], 2, "--ablate needs clips to measure on"),
        (["--on", "u"], 2, 'auto, y, rgb, not "u"'),
        (["--size", "1080p"], 2, "1080p"),
        (["--window", "0"], 2, "window must be 1 frame or more"),
        (["--html", "empty"], 1, "empty is a folder"),
        (["--html", "mine.html"], 1, r"mine\.html exists.*--overwrite"),
        (["--html", "nowhere/page.html"], 1, "nowhere does not exist"),
        (["--compare", "mine.html"], 1, r"mine\.html is not JSON"),
        (["--end-to-end", "missing.mp4"], 1, r"missing\.mp4 does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_input_gives_one_sentence(folder, arguments, exit_code, message):
    Path("empty").mkdir()
    Path("mine.html").write_text("precious")

    result = run("--model", "any", "--quiet", *arguments)

    assert re.fullmatch(f"error: .*{message}.*\n", result.stderr)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert Path("mine.html").read_text() == "precious"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_asking_for_one_gets_one_sentence():
    result = CliRunner().invoke(cli.app, ["bench", "--gpu"])

    assert re.fullmatch("error: There is no CUDA device here.*\n", result.stderr)
    assert result.exit_code == 1


def test_the_help_shows_an_example():
    result = CliRunner().invoke(cli.app, ["bench", "--help"], env={"COLUMNS": "120"})

    assert "Example: vsrm bench --quick" in result.stdout
