"""What is drawn goes to stderr: a bar on a terminal, lines in a log, nothing when quiet."""

import io
import json
import re
import sys
from contextlib import redirect_stderr
from dataclasses import replace

import pytest

from vsrm_cli.checkpoints.download import DownloadProgress
from vsrm_cli.cli import console
from vsrm_cli.cli.console import BatchPosition, Display
from vsrm_cli.report.html import Table
from vsrm_cli.upscale.job import JobSummary
from vsrm_cli.upscale.pipeline import Progress

PROGRESS = Progress(
    frames_done=120,
    frames_expected=300,
    decode_fps=250.0,
    network_fps=3.21,
    encode_fps=40.0,
    seconds_left=56.2,
)
SUMMARY = JobSummary(
    input="in.mp4",
    output="out.mp4",
    frames_in=120,
    frames_out=120,
    frames_resumed=0,
    truncated=False,
    frames_resized=0,
    frames_reshaped=0,
    width=1280,
    height=720,
    model="vsrm-t",
    model_scale=4,
    model_reason="",
    detail=None,
    device="cpu",
    dtype="fp32",
    decoder="software",
    encoder="libx264",
    window=16,
    tile=None,
    equal=True,
    elapsed_s=38.7,
    fps=3.1,
    kept=(),
    dropped=(),
    assumed=(),
    peak_memory_bytes=123,
    warnings=(),
)


class Terminal(io.StringIO):
    """A stderr that a person looks at."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


@pytest.fixture
def clock(monkeypatch):
    """The time that the display sees, in seconds; a list of one number, to be changed."""
    now = [1000.0]
    monkeypatch.setattr("vsrm_cli.cli.console.time.monotonic", lambda: now[0])
    return now


def show(progress=PROGRESS, *, is_quiet=False):
    with Display(is_quiet=is_quiet) as display:
        display.report(progress)


def test_a_log_gets_one_line_with_frames_rates_and_time(capsys):
    show()

    told = capsys.readouterr()
    assert told.err == ("120 of ~300 frames, decode 250, network 3.2, encode 40 fps, 0:56 left\n")
    assert told.out == ""


def test_a_log_gets_a_line_every_ten_seconds(capsys, clock):
    with Display(is_quiet=False) as display:
        for seconds in range(25):
            clock[0] = 1000.0 + seconds
            display.report(replace(PROGRESS, frames_done=seconds))

    frames = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert frames == ["1", "11", "21"]


def test_a_log_line_after_ten_seconds_reports_no_finished_frame(capsys, clock):
    with Display(is_quiet=False) as display:
        for seconds in range(12):
            clock[0] = 1000.0 + seconds
            display.report(replace(PROGRESS, frames_done=0))

    assert capsys.readouterr().err.startswith("0 of ~300 frames")


def test_without_data_nothing_is_estimated(capsys):
    show(Progress(1, None, 0.0, 0.0, 0.0, None))

    assert capsys.readouterr().err == "1 frames\n"


def test_a_hint_that_proved_too_small_is_dropped(capsys):
    show(replace(PROGRESS, frames_done=301, seconds_left=None))
    show(replace(PROGRESS, frames_computed=301.0, seconds_left=None))

    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith("301 frames, decode") for line in told)


def test_long_times_are_shown_in_hours(capsys):
    show(replace(PROGRESS, seconds_left=3 * 3600 + 4 * 60 + 5))

    assert capsys.readouterr().err.endswith("3:04:05 left\n")


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(terminal):
    with redirect_stderr(terminal):
        show()

    drawn = terminal.getvalue()
    assert "120 of ~300 frames" in drawn
    assert "decode 250, network 3.2, encode 40 fps" in drawn
    assert "0:56 left" in drawn
    assert drawn.endswith("\x1b[2K")


def test_ctrl_c_does_not_break_the_progress_bar(terminal):
    with redirect_stderr(terminal), Display(is_quiet=False) as display:
        display.report(PROGRESS)
        drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())

    lines = re.split(r"[\r\n]+", drawn)
    assert max(map(len, lines)) < 80 - len("^C^C") - 1


def test_the_progress_bar_can_be_cleared_during_the_job(terminal):
    with redirect_stderr(terminal), Display(is_quiet=False) as display:
        display.clear()
        assert terminal.getvalue().endswith("\x1b[2K")
        display.print_note("told")

    assert terminal.getvalue().endswith("\x1b[2Ktold\n")


def test_a_narrow_terminal_leaves_out_the_stages_and_not_the_time(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")

    with redirect_stderr(terminal):
        show()

    drawn = terminal.getvalue()
    assert "120 of ~300 frames" in drawn
    assert "0:56 left" in drawn
    assert "decode" not in drawn


def test_restored_frames_count_as_progress_before_encoding(capsys):
    show(replace(PROGRESS, frames_computed=130.9))

    assert capsys.readouterr().err.startswith("130 of ~300 frames")


def test_one_of_several_jobs_reports_its_number_and_the_total_time(capsys, clock):
    position = BatchPosition("b.mkv", 2, 5, work=300, work_after=900)
    with Display(is_quiet=False, position=position) as display:
        display.report(replace(PROGRESS, frames_done=0))
        clock[0] += 100
        display.report(replace(PROGRESS, frames_done=100))  # a third in 100 seconds

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("2 of 5, b.mkv: 100 of ~300 frames")
    assert line.endswith("0:56 left, 15:56 left in all")


def test_json_lines_are_for_other_programs(capsys, clock):
    position = BatchPosition("b.mkv", 1, 2, work=300, work_after=300)
    with Display(is_quiet=False, mode="json", position=position) as display:
        display.warn("dropped: stream 1")
        display.report(PROGRESS)
        clock[0] += 1
        display.report(replace(PROGRESS, frames_done=220))
        display.print_result(SUMMARY)

    told = capsys.readouterr()
    events = [json.loads(line) for line in told.err.splitlines()]
    assert told.out == ""
    assert [event["event"] for event in events] == ["warning", "progress", "progress", "done"]
    assert events[0]["message"] == "dropped: stream 1"
    assert (events[1]["frames_done"], events[1]["frames_expected"]) == (120, 300)
    assert events[2]["seconds_left_in_all"] == pytest.approx(56.2 + 3)
    assert (events[2]["number"], events[2]["of"]) == (1, 2)


def test_no_color_is_honoured(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    with redirect_stderr(terminal):
        show()

    assert "120 of ~300 frames" in terminal.getvalue()
    assert "\x1b[3" not in terminal.getvalue()


def test_a_dumb_terminal_gets_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")

    with redirect_stderr(terminal):
        show()

    assert "\x1b" not in terminal.getvalue()
    assert terminal.getvalue().count("\n") == 1


def test_quiet_draws_nothing(terminal, capsys):
    for stderr in (terminal, sys.stderr):
        with redirect_stderr(stderr), Display(is_quiet=True) as display:
            display.report(PROGRESS)
            display.print_result(SUMMARY)

    assert terminal.getvalue() == ""
    assert capsys.readouterr().err == ""


def test_the_summary_line_names_the_output_and_the_slowest_stage(capsys):
    with Display(is_quiet=False) as display:
        display.report(PROGRESS)
    capsys.readouterr()

    display.print_result(SUMMARY)

    assert capsys.readouterr().err == (
        "out.mp4: 120 frames, 1280x720, in 0:39, 3.1 fps (slowest stage: network, 3.2), "
        "vsrm-t on cpu\n"
    )


def test_the_summary_line_names_a_scale_other_than_4(capsys):
    with Display(is_quiet=False) as display:
        display.print_result(replace(SUMMARY, model="own", model_scale=2))

    assert capsys.readouterr().err.endswith(", own (x2) on cpu\n")


def test_the_summary_line_explains_the_default_network(capsys):
    with Display(is_quiet=False) as display:
        display.print_result(replace(SUMMARY, model_reason="for clean footage"))

    assert capsys.readouterr().err.endswith(", vsrm-t on cpu (for clean footage)\n")


def test_download_progress_is_in_megabytes(terminal, capsys):
    with redirect_stderr(terminal), Display(is_quiet=False, beginning="downloading gsm") as display:
        display.report_transfer(DownloadProgress("gsm", 1_500_000, 87_900_000))
    with Display(is_quiet=False) as display:
        display.report_transfer(DownloadProgress("gsm", 1_500_000, 87_900_000))

    assert "downloading gsm, 1.5 MB of 87.9 MB" in terminal.getvalue()
    assert capsys.readouterr().err == "downloading gsm, 1.5 MB of 87.9 MB\n"


@pytest.mark.parametrize("is_quiet", [True, False])
def test_warnings_are_printed_even_with_quiet(is_quiet, capsys):
    display = Display(is_quiet=is_quiet)

    display.print_result(replace(SUMMARY, warnings=("the end is missing",)))

    assert capsys.readouterr().err.splitlines()[0] == "warning: the end is missing"


def test_markup_in_messages_is_printed_literally(capsys):
    console.print_error("[red]a :smile:[/red].mp4 " + 50 * "is long " + "\nand has two lines")

    told = capsys.readouterr().err
    assert told.startswith("error: [red]a :smile:[/red].mp4 is long is long")
    assert told.count("\n") == 1


def test_a_table_is_a_result_and_goes_to_stdout_unfolded(capsys):
    table = Table("A [title]", ("clip", "PSNR"), (("bear [red]", "25.42"), ("x" * 90, "9.00")))

    console.show_table(table)

    told = capsys.readouterr()
    assert told.err == ""
    assert "A [title]" in told.out
    assert "bear [red]" in told.out
    assert "x" * 90 in told.out
