"""`vsrm finetune`: what it leaves behind, what each exit code means, and where it runs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from networks import make_network
from safetensors import safe_open
from scenes import draw_folder, draw_pack
from stub_network import draw_clip
from typer.testing import CliRunner

from vsrm_cli.checkpoints.loading import save_weights
from vsrm_cli.cli import app as cli

ROOT = Path(__file__).parents[2]
SMALL = ("--clip-frames", "2", "--patch", "8", "--batch", "2", "--device", "cpu")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with a weight file and a clip of pictures."""
    monkeypatch.chdir(tmp_path)
    save_weights(make_network(), tmp_path / "tiny.safetensors", {"name": "tiny"})
    draw_folder(tmp_path / "data" / "waves", frames=5, height=64, width=64)
    return tmp_path


def run(*arguments):
    words = ("finetune", "--data", "data", "--model", "tiny.safetensors", *SMALL, *arguments)
    return CliRunner().invoke(cli.app, list(map(str, words)))


def program(*arguments, code="import sys; from vsrm_cli.__main__ import main; main()", **options):
    """The command as a process of its own."""
    words = ("finetune", "--model", "tiny.safetensors", *SMALL, *arguments)
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_result_is_for_upscale(folder):
    draw_clip("small.mp4", frames=2)

    learned = run("--steps", 2)
    enlarged = CliRunner().invoke(
        cli.app,
        ["upscale", "small.mp4", "-o", "large.mp4", "--model", "runs/data/model.safetensors"],
    )

    assert learned.exit_code == 0
    assert "runs/data: 2 of 2 steps. " in learned.stderr.replace("\\", "/")
    assert re.search(r"alidation loss ((went from|stayed at) )?[\d.]+", learned.stderr)
    assert {path.name for path in (folder / "runs" / "data").iterdir()} >= {
        "model.safetensors",
        "metrics.jsonl",
        "state.pt",
        "report.html",
    }
    assert enlarged.exit_code == 0, enlarged.stderr
    assert "data on cpu" in enlarged.stderr


def test_json_is_one_object_with_the_figures(folder):
    result = run("--steps", 2, "--json", "--quiet", "--out", "run")

    figures = json.loads(result.stdout)
    lines = metrics(folder / "run")
    assert (figures["step"], figures["steps"]) == (2, 2)
    assert figures["val_loss_before"] == lines[0]["val_loss"]
    assert figures["val_loss"] == min(line["val_loss"] for line in lines if "val_loss" in line)
    assert result.stderr == ""


def test_a_finished_run_is_not_repeated_or_overwritten(folder):
    assert run("--steps", 1, "--out", "run").exit_code == 0

    again, on = run("--steps", 1, "--out", "run"), run("--steps", 1, "--out", "run", "--resume")

    assert again.exit_code == 1
    assert "continue that run with --resume, or choose another --out" in again.stderr
    assert on.exit_code == 0


def test_resuming_with_other_options_is_wrong_usage_and_lists_them(folder):
    run("--steps", 1, "--out", "run")

    result = run("--steps", 2, "--out", "run", "--resume", "--degradation", "bd")

    assert result.exit_code == 2
    assert "(degradation: bi then, bd now; steps: 1 then, 2 now)" in result.stderr


@pytest.mark.parametrize("minutes", [0, -1, "nan"])
def test_an_invalid_time_is_wrong_usage(minutes):
    result = run("--time", minutes)

    assert result.exit_code == 2
    assert "must be a number of minutes above 0" in result.stderr


def test_divergence_fails_with_a_suggestion(folder):
    result = run("--steps", 20, "--lr", 50, "--out", "run")

    assert result.exit_code == 1
    assert result.stderr.count("with half the learning rate and other samples") == 3
    assert "Start again with a --lr below 50" in result.stderr
    assert (folder / "run" / "model.safetensors").exists()


def wait_until(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signal")
def test_ctrl_c_saves_the_state_and_the_run_can_be_resumed(folder):
    words = ("--data", "data", "--steps", 100_000, "--out", "run")
    process = program(*words, start_new_session=True)
    written = folder / "run" / "metrics.jsonl"
    wait_until(lambda: written.exists() and written.read_text().count("\n") > 1, process)

    # As a terminal does it: to all processes of the program.
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "finishing this step; press Ctrl-C again to stop now" in told
    step = int(re.search(r"stopped after step (\d+); the same command with --resume", told)[1])
    assert "Traceback" not in told
    saved = torch.load(folder / "run" / "state.pt", weights_only=True)
    assert saved["learner"]["step"] == step
    assert run("--steps", 100_000, "--out", "run", "--resume", "--time", 0.0001).exit_code == 0
    assert metrics(folder / "run")[-1]["step"] == step + 1


WITHOUT_PYAV = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "av":
            raise ModuleNotFoundError("No module named 'av'", name="av")

sys.meta_path.insert(0, Blocker())
from vsrm_cli.__main__ import main
main()
"""


@pytest.mark.slow
def test_from_packs_it_trains_without_pyav(folder):
    (folder / "packs").mkdir()
    draw_pack(folder / "packs" / "drawn.safetensors")

    process = program("--data", "packs", "--steps", 2, "--out", "run", code=WITHOUT_PYAV)
    _, told = process.communicate(timeout=120)

    assert process.returncode == 0, told
    assert metrics(folder / "run")[-1]["step"] == 2


@pytest.mark.slow
def test_the_sharp_stage_runs_from_packs_without_pyav_and_reports_its_weights(folder):
    (folder / "packs").mkdir()
    draw_pack(folder / "packs" / "drawn.safetensors")
    options = ("--stage", "sharp", "--temporal-weight", 2)

    process = program("--data", "packs", "--steps", 2, "--out", "run", *options, code=WITHOUT_PYAV)
    _, told = process.communicate(timeout=300)

    assert process.returncode == 0, told
    last = metrics(folder / "run")[-1]
    assert last["step"] == 2
    assert last["discriminator_loss"] == pytest.approx(0.69, abs=0.3)
    with safe_open(folder / "run" / "model.safetensors", framework="pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
    assert (recipe["stage"], recipe["temporal_weight"]) == ("sharp", "2.0")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["clips", "sharp"])
def test_under_torchrun_two_processes_share_a_run(folder, stage):
    words = [
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "vsrm_cli", "finetune", "--data", "data", "--model", "tiny.safetensors"),
        *(*SMALL, "--steps", "3", "--out", "run", "--stage", stage),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=env, timeout=240, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("run: 3 of 3 steps") == 1
    assert [line["step"] for line in metrics(folder / "run")] == [0, 1, 2, 3]
