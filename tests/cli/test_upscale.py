"""The command line: exit codes, messages, and no leftover files."""

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
from stub_network import draw_clip, names_in, read_clip
from typer.testing import CliRunner

from vsrm_cli import __version__
from vsrm_cli.checkpoints.loading import load_model
from vsrm_cli.cli import app as cli
from vsrm_cli.errors import Interrupted, VsrmError
from vsrm_cli.upscale import job as upscale
from vsrm_cli.upscale.devices import MAX_WORKERS

pytestmark = pytest.mark.usefixtures("stub_network")

HERE = Path(__file__).parents[1]
SMALL = ("--window", "6", "--overlap", "1", "--segment-frames", "1")

# Runs the installed command, but with a stub network; `slow` makes it wait.
PROGRAM = """
import sys, time
import stub_network
from vsrm_cli.upscale import job as upscale
from vsrm_cli.__main__ import main

class Slow(stub_network.NearestNeighbor):
    def forward(self, clip):
        print("computing", file=sys.stderr, flush=True)
        time.sleep(60)

slow = "slow" in sys.argv[1]
upscale.load_model = lambda *_, **__: Slow() if slow else stub_network.NearestNeighbor()
sys.argv = ["vsrm", *sys.argv[2:]]
main()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with one clip in it."""
    monkeypatch.chdir(tmp_path)
    draw_clip("small.mp4")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli.app, ["upscale", *map(str, arguments)])


def start_program(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_finished_video_is_reported_in_one_line_on_stderr(folder):
    result = run("small.mp4", "-o", "large.mp4")

    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("large.mp4: 10 frames, 192x128, ")
    assert result.stderr.rstrip().endswith(
        "nearest with detail 1 on cpu (for compressed footage: the input is h264)"
    )
    assert len(read_clip("large.mp4")[0]) == 10
    assert names_in(folder) == ["large.mp4", "small.mp4"]


def test_progress_goes_to_a_log_in_plain_lines(folder):
    result = run("small.mp4", "-o", "large.mp4")

    first, *_ = result.stderr.splitlines()
    assert " of ~10 frames" in first
    assert "\x1b" not in result.stderr


def test_quiet_prints_nothing(folder):
    result = run("small.mp4", "-o", "large.mp4", "--quiet")

    assert (result.exit_code, result.output) == (0, "")


def test_json_prints_one_object_on_stdout(folder):
    result = run("small.mp4", "-o", "large.mp4", "--json", "--tile", "off", "--window", "5")

    facts = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    for measured in ("elapsed_s", "fps", "peak_memory_bytes"):
        assert facts.pop(measured) > 0
    assert facts == {
        "input": "small.mp4",
        "output": "large.mp4",
        "frames_in": 10,
        "frames_out": 10,
        "frames_resumed": 0,
        "truncated": False,
        "frames_resized": 0,
        "frames_reshaped": 0,
        "width": 192,
        "height": 128,
        "model": "nearest",
        "model_scale": 4,
        "model_reason": "for compressed footage: the input is h264",
        "detail": 1.0,
        "device": "cpu",
        "dtype": "fp32",
        "decoder": "software",
        "encoder": "libx264",
        "window": 5,
        "tile": None,
        "equal": True,
        "kept": [],
        "dropped": [],
        "assumed": ["matrix BT.601, as the size suggests"],
    }


def test_without_hardware_software_is_used_with_a_warning(folder, monkeypatch):
    monkeypatch.setattr("vsrm_cli.encode.encoders._can_be_opened", lambda _: False)
    monkeypatch.setattr("vsrm_cli.decode.hwaccel.hwdevices_available", list)

    result = run(
        *("small.mp4", "-o", "large.mp4", "--json"),
        *("--hwaccel", "auto", "--codec", "h264_nvenc", "--preset", "p5"),
    )

    facts = json.loads(result.stdout)
    assert (facts["decoder"], facts["encoder"]) == ("software", "libx264")
    assert "no hardware for h264_nvenc: encoded as h264 in software" in result.stderr


def test_a_wrong_hwaccel_is_wrong_usage(folder):
    result = run("small.mp4", "-o", "large.mp4", "--hwaccel", "nvdec")

    assert result.exit_code == 2
    assert 'The hwaccel must be auto or off, not "nvdec".' in result.stderr


def test_a_dry_run_prints_the_plan_and_writes_nothing(folder):
    result = run("small.mp4", "-o", "large.mp4", "--dry-run", "--window", "5", "--tile", "64")

    told = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert result.exit_code == 0
    assert told["input"] == "small.mp4 (48x32, yuv420p)"
    assert told["output"] == "large.mp4 (192x128, yuv420p, libx264)"
    assert told["frames"] == "about 10"
    assert (
        told["network"]
        == "nearest with detail 1 on cpu in fp32 (for compressed footage: the input is h264)"
    )
    assert told["color"].startswith("BT.601, limited range (assumed")
    assert re.fullmatch(r"about 0:0\d \(estimate\)", told["time"])
    assert names_in(folder) == ["small.mp4"]


def test_a_dry_run_in_json_reports_the_remaining_work(folder):
    upscale_one_segment("small.mp4", "large.mp4")
    kept = names_in(folder / ".large.mp4.vsrm")

    result = run("small.mp4", "-o", "large.mp4", "--dry-run", "--json", *SMALL)

    plan = json.loads(result.stdout)
    assert (plan["frames"], plan["frames_resumed"]) == (10, 5)
    assert (plan["window"], plan["overlap"], plan["tiles"]) == (6, 1, 1)
    assert plan["disk_bytes"] > plan["file_bytes"] > 0
    tiles_at_once = min(MAX_WORKERS, torch.get_num_threads())
    assert plan["memory_bytes"] == tiles_at_once * 4 * 6 * 3 * 17 * 32 * 48
    assert names_in(folder / ".large.mp4.vsrm") == kept


def test_a_dry_run_with_restart_deletes_nothing(folder):
    upscale_one_segment("small.mp4", "large.mp4")
    kept = names_in(folder / ".large.mp4.vsrm")

    result = run("small.mp4", "-o", "large.mp4", "--dry-run", "--json", "--restart")

    assert json.loads(result.stdout)["frames_resumed"] == 0
    assert names_in(folder / ".large.mp4.vsrm") == kept


def upscale_one_segment(source, output):
    settings = {"window": 6, "overlap": 1, "segment_frames": 1}
    with pytest.raises(Interrupted):
        upscale.upscale_video(source, output, should_stop=lambda: True, **settings)


def test_errors_go_to_stderr_even_with_json(folder):
    result = run("missing.mp4", "-o", "large.mp4", "--json")

    assert result.exit_code == 1
    assert result.stdout == ""


def test_start_and_end_choose_a_part(folder):
    result = run("small.mp4", "-o", "part.mp4", "--start", "0:00:00.2", "--end", ".32", "--json")

    assert json.loads(result.stdout)["frames_out"] == 3


def test_a_damaged_video_gives_a_warning_and_exit_code_0(folder):
    damaged = Path(draw_clip("damaged.mkv", frames=40))
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size * 2 // 3])

    result = run("damaged.mkv", "-o", "large.mkv", "--json", "--quiet")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["truncated"] is True
    assert result.stderr.startswith("warning: damaged.mkv is damaged or its end is missing")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["missing.mp4", "-o", "large.mp4"], 1, r"missing\.mp4 does not exist"),
        ([".", "-o", "large.mp4"], 1, "There are no image files"),
        (["text.mp4", "-o", "large.mp4"], 1, r"text\.mp4 is not a video"),
        (["empty.mp4", "-o", "large.mp4"], 1, r"empty\.mp4 is empty"),
        (["small.mp4", "-o", "existing.mp4"], 1, r"existing\.mp4 .*--overwrite"),
        (["small.mp4", "-o", "nowhere/large.mp4"], 1, "nowhere"),
        (["small.mp4", "-o", "small.mp4"], 1, r"small\.mp4"),
        (["small.mp4", "-o", "./small.mp4", "--overwrite"], 1, r"small\.mp4"),
        (["small.mp4", "-o", "large.txt"], 1, r"\.txt"),
        (["small.mp4", "-o", "large.webm", "--codec", "h264"], 1, "webm"),
        (["small.mp4", "-o", "large.mp4", "--codec", "h265x"], 2, "h265x"),
        (["small.mp4", "-o", "large.mp4", "--crf", "99"], 2, "crf .*99"),
        (["small.mp4", "-o", "large.mp4", "--dtype", "int8"], 2, 'dtype .*"int8"'),
        (["small.mp4", "-o", "large.mp4", "--device", "gpu"], 2, 'device .*"gpu"'),
        (["small.mp4", "-o", "large.mp4", "--tile", "8"], 2, "tile .* 64 .*8"),
        (["small.mp4", "-o", "large.mp4", "--overlap", "17"], 2, "overlap .* 0 to 16"),
        (["small.mp4", "-o", "large.mp4", "--start", "soon"], 2, 'start .*"soon"'),
        (["small.mp4", "-o", "large.mp4", "--start", "9:00"], 1, "No frame of small.mp4"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_sentence_and_leaves_nothing(folder, arguments, exit_code, message):
    Path("existing.mp4").write_text("precious")
    Path("empty.mp4").touch()
    Path("text.mp4").write_text("This is a letter, not a video.\n" * 20)
    names_before = names_in(folder)

    result = run(*arguments)

    assert result.stdout == ""
    assert re.fullmatch(f"error: .*{message}.*\n", result.stderr)
    assert result.exit_code == exit_code
    assert names_in(folder) == names_before
    assert Path("existing.mp4").read_text() == "precious"


def fail_with(error):
    def load(*_, **__):
        raise error

    return load


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(
            ["--device", "cuda"],
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here"),
        ),
        ["--device", "cuda:99"],
        ["--model", "nosuch"],
    ],
    ids=" ".join,
)
def test_a_missing_device_or_network_is_reported_in_one_sentence(folder, monkeypatch, asked):
    monkeypatch.setattr(upscale, "load_model", load_model)

    result = run("small.mp4", "-o", "large.mp4", *asked)

    assert re.fullmatch(f"error: .*{asked[1]}.*\n", result.stderr)
    assert (result.exit_code, result.stdout) == (1, "")
    assert names_in(folder) == ["small.mp4"]


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_a_failure_shows_a_traceback_only_for_debugging(folder, monkeypatch, debug):
    monkeypatch.setattr(upscale, "load_model", fail_with(VsrmError("No such model.")))

    result = run("small.mp4", "-o", "large.mp4", *debug)

    assert result.exit_code == 1
    assert result.stderr.endswith("error: No such model.\n")
    assert ("Traceback" in result.stderr) is bool(debug)


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_a_bug_is_reported_as_one(folder, monkeypatch, debug):
    monkeypatch.setattr(upscale, "load_model", fail_with(ZeroDivisionError("by zero")))

    result = run("small.mp4", "-o", "large.mp4", *debug)

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(
        "error: ZeroDivisionError: by zero (this is a bug"
    )
    assert ("Traceback" in result.stderr) is bool(debug)
    assert ("--debug" in result.stderr.splitlines()[-1]) is not bool(debug)
    assert names_in(folder) == ["small.mp4"]


def test_a_failed_check_has_exit_code_3(folder, monkeypatch):
    monkeypatch.setattr(
        upscale.Restorer, "restore", lambda self, frames, **_: iter(list(frames)[:0])
    )

    result = run("small.mp4", "-o", "large.mp4")

    assert result.exit_code == 3
    assert "10 frames were read, but 0 written" in result.stderr
    assert names_in(folder) == ["small.mp4"]


def test_without_a_command_the_help_is_printed():
    result = CliRunner().invoke(cli.app, [])

    assert result.exit_code == 0
    assert "upscale" in result.stdout


def test_the_help_shows_an_example_and_the_defaults():
    result = CliRunner().invoke(cli.app, ["upscale", "--help"], env={"COLUMNS": "120"})

    text = " ".join(result.stdout.split())
    assert text.index("vsrm upscale small.mp4 -o large.mp4") < text.index("--output")
    for default in ("32", "auto", "(25)", "(start of the input)"):
        assert f"[default: {default}]" in text


def test_the_version_is_printed():
    result = CliRunner().invoke(cli.app, ["--version"])

    assert (result.exit_code, result.stdout) == (0, f"vsrm {__version__}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["upscale"], "Missing argument 'INPUT...'"),
        (["upscale", "small.mp4", "-o", "large.mp4", "--colour"], "No such option: --colour"),
        (["upscale", "small.mp4", "-o", "large.mp4", "--window", "few"], "'--window'"),
        (["enlarge"], "No such command 'enlarge'"),
    ],
)
def test_an_invalid_command_line_gets_one_line(capsys, words, message):
    exit_code = cli.run(words)

    told = capsys.readouterr()
    assert exit_code == 2
    assert told.out == ""
    assert re.fullmatch(rf"error: .*{message}.* \(see vsrm .*--help\)\n", told.err)


def test_the_help_does_not_wait_for_torch():
    code = "import sys, vsrm_cli.__main__; print({'torch', 'av', 'numpy'} & set(sys.modules))"

    program = start_program("-c", code)
    stdout, _ = program.communicate(timeout=30)

    assert stdout == "set()\n"


def test_the_installed_command_exits_with_the_code_of_its_failure(folder):
    program = start_program("-c", PROGRAM, "fast", "upscale", "missing.mp4", "-o", "large.mp4")
    stdout, stderr = program.communicate(timeout=30)

    assert (program.returncode, stdout) == (1, "")
    assert stderr.startswith("error: missing.mp4 does not exist")


def test_a_closed_stdout_is_not_an_error():
    program = start_program("-m", "vsrm_cli", "--help")
    program.stdout.close()
    stderr = program.stderr.read()
    program.wait(timeout=30)

    assert stderr == ""
    program.stderr.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl-C to one process")
def test_a_second_ctrl_c_ends_the_program_at_once_and_leaves_nothing(folder):
    program = start_program("-c", PROGRAM, "slow", "upscale", "small.mp4", "-o", "large.mp4")
    while program.stderr.readline() != "computing\n":
        assert program.poll() is None
    names_while_computing = names_in(folder)
    began = time.monotonic()

    program.send_signal(signal.SIGINT)
    assert program.stderr.readline().startswith("finishing this segment; press Ctrl-C again")
    program.send_signal(signal.SIGINT)
    stdout, stderr = program.communicate(timeout=30)

    assert program.returncode == 130
    assert time.monotonic() - began < 10
    assert (stdout, stderr) == ("", "interrupted: nothing was written\n")
    assert names_while_computing == [".large.mp4.vsrm", "small.mp4"]
    assert names_in(folder) == ["small.mp4"]
