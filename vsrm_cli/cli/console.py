"""Terminal output: a progress bar, a line when the job is done, tables.

Progress and messages go to stderr. Stdout is for results, so that it can be piped.
The bar is for a terminal; a log file gets a plain line every few seconds instead.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from vsrm_cli.cli.formatting import (
    bar_length,
    format_megabytes,
    frames_computed,
    frames_line,
    stages_line,
    step_rate,
    summary_line,
    time_left,
)
from vsrm_cli.report.units import format_duration
from vsrm_cli.upscale.pipeline import Progress

if TYPE_CHECKING:  # they import numpy and torch, and `vsrm --help` should not wait for those
    from vsrm_cli.checkpoints.download import DownloadProgress
    from vsrm_cli.doctor import CheckResult
    from vsrm_cli.report.html import Table as TableOfWords
    from vsrm_cli.training.loop import TrainingProgress, TrainingResult
    from vsrm_cli.upscale.summary import JobSummary

# Often enough to see progress in a log, seldom enough to read the log.
SECONDS_BETWEEN_LINES = 10.0
# Often enough for a bar that another program draws.
SECONDS_BETWEEN_OBJECTS = 0.2
# How progress is shown: a bar or lines, always lines, or JSON.
PROGRESS = ("auto", "plain", "json")
# In fewer columns there is no room for the speeds of all stages.
WIDTH_OF_STAGES = 72
# How the list of networks says where weights are; `--json` keeps the keys.
PLACES = {
    "in the box": "included",
    "cached": "downloaded",
    "to be fetched": "download at first use",
    "none": "no weights",
}
CHECK_SIGNS = {"good": ("+", "green"), "absent": ("-", "dim"), "broken": ("!", "bold red")}

# For tables in a file or another program: wide enough that nothing wraps.
WIDTH_OF_FILES = 200


@dataclass(frozen=True)
class BatchPosition:
    """Where a job stands among several.

    Attributes:
        name: Of its input.
        number: Its number, from 1 on.
        of: How many jobs there are.
        work: How much there is to do in it, in any unit; 0 if unknown.
        work_after: Work of all jobs after it.
    """

    name: str
    number: int
    of: int
    work: int
    work_after: int


class Display:
    """Shows one job: use it as a context manager and pass `report` to the job."""

    def __init__(
        self,
        *,
        is_quiet: bool,
        beginning: str = "loading",
        mode: str = "auto",
        position: BatchPosition | None = None,
    ) -> None:
        """Prepare a display that shows everything, or only warnings.

        Args:
            is_quiet: Whether to show only warnings.
            beginning: What the bar shows until the job reports.
            mode: One of `PROGRESS`.
            position: Of the job among several.
        """
        self._mode = mode
        self._position = position
        self._first: tuple[float, float] | None = None  # time and frames of the first report
        self._is_quiet = is_quiet
        self._stderr = _stderr()
        self._latest: Progress | None = None
        self._began = time.monotonic()
        self._line_is_due_at = 0.0
        self._bar: Bar | None = None
        self._task = TaskID(0)
        has_bar = self._stderr.is_terminal and not self._stderr.is_dumb_terminal and not is_quiet
        if has_bar and mode == "auto":
            self._bar = _new_bar(self._stderr)
            self._task = self._bar.add_task(
                "", total=None, frames=self._with_position(beginning), stages="", left=""
            )

    def __enter__(self) -> Self:
        """Show the bar, where there is one."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the bar."""
        self.clear()

    def clear(self) -> None:
        """Remove the bar for good, so that what comes next starts on a clean line."""
        if self._bar:
            self._bar.stop()

    def report(self, progress: Progress) -> None:
        """Show how far the job is."""
        self._latest = progress
        in_all = self._seconds_left_in_all(progress)
        left = ", ".join(
            filter(None, (time_left(progress.seconds_left), time_left(in_all, " in all")))
        )
        frames = self._with_position(frames_line(progress))
        if self._mode == "json":
            facts = asdict(progress) | {"seconds_left_in_all": in_all}
            if self._position:
                facts |= {"number": self._position.number, "of": self._position.of}
            line = json.dumps({"event": "progress", **facts})
            self._log(line, seconds_between=SECONDS_BETWEEN_OBJECTS)
        elif self._bar:
            self._bar.update(
                self._task,
                completed=frames_computed(progress),
                total=bar_length(progress),
                frames=frames,
                stages=stages_line(progress) if self._stderr.width >= WIDTH_OF_STAGES else "",
                left=left,
            )
        elif (
            frames_computed(progress) >= 1
            or time.monotonic() >= self._began + SECONDS_BETWEEN_LINES
        ):
            self._log(", ".join(part for part in (frames, stages_line(progress), left) if part))

    def report_transfer(self, transfer: "DownloadProgress") -> None:
        """Show how far a download is."""
        done, total = (
            format_megabytes(transfer.bytes_done),
            format_megabytes(transfer.bytes_expected),
        )
        words = f"downloading {transfer.name}, {done} of {total}"
        if self._bar:
            self._bar.update(
                self._task,
                completed=transfer.bytes_done,
                total=transfer.bytes_expected,
                frames=words,
            )
        else:
            self._log(words)

    def report_training(self, progress: "TrainingProgress") -> None:
        """Show how far a training run is; loss spikes get a line of their own."""
        if progress.rollback and not self._is_quiet:
            self.print_note(progress.rollback)
        steps = f"step {progress.step}" + (f" of {progress.steps}" if progress.steps else "")
        rate = progress.steps_per_second
        words = [f"loss {progress.loss:.5f}", f"{step_rate(rate)} steps/s" if rate else ""]
        left = progress.seconds_left
        remaining = "" if left is None else f"{format_duration(left)} left"
        if self._bar:
            self._bar.update(
                self._task,
                completed=progress.step,
                total=progress.steps,
                frames=steps,
                stages=", ".join(filter(None, words)),
                left=remaining,
            )
        else:
            self._log(", ".join(filter(None, (steps, *words, remaining))))

    def print_training(self, result: "TrainingResult", folder: Path) -> None:
        """Print the result of a training run."""
        if self._is_quiet:
            return
        done = f"{folder}: {result.step} of {result.steps} steps"
        _print(self._stderr, f"{done}. {result.summary} Report: {folder / 'report.html'}")

    def print_note(self, message: str) -> None:
        """Print one line of information while the job runs."""
        if self._mode == "json":
            _print(self._stderr, json.dumps({"event": "note", "message": message}))
            return
        _print(self._bar.console if self._bar else self._stderr, message)

    def warn(self, message: str) -> None:
        """Print a warning before the work starts, in one line."""
        if self._mode == "json":
            _print(self._stderr, json.dumps({"event": "warning", "message": message}))
            return
        _print(self._stderr, f"warning: {message}")

    def print_result(self, summary: "JobSummary") -> None:
        """Print the result of the job, in one line, and its warnings."""
        for warning in summary.warnings:
            self.warn(warning)
        if self._is_quiet:
            return
        if self._mode == "json":
            _print(self._stderr, json.dumps({"event": "done", "output": summary.output}))
        else:
            _print(self._stderr, summary_line(summary, self._latest))

    def _with_position(self, words: str) -> str:
        """Words about the job, with its position among several."""
        position = self._position
        return (
            words
            if position is None
            else f"{position.number} of {position.of}, {position.name}: {words}"
        )

    def _seconds_left_in_all(self, progress: Progress) -> float | None:
        """How long this job and those after it will take; None without any, or if unknown."""
        position, computed, expected = (
            self._position,
            frames_computed(progress),
            progress.frames_expected,
        )
        if self._first is None:
            self._first = (time.monotonic(), computed)
        since, before = self._first
        if position is None or position.number == position.of or progress.seconds_left is None:
            return None
        if not expected or computed <= before:
            return None
        done = position.work * (computed - before) / expected
        seconds = time.monotonic() - since
        return progress.seconds_left + position.work_after * seconds / done if done else None

    def _log(self, line: str, *, seconds_between: float = SECONDS_BETWEEN_LINES) -> None:
        if not self._is_quiet and time.monotonic() >= self._line_is_due_at:
            self._line_is_due_at = time.monotonic() + seconds_between
            _print(self._stderr, line)


def print_models(models: Sequence[Mapping[str, Any]]) -> None:
    """Print the networks on stdout, each with what helps to choose one.

    Args:
        models: What `vsrm models --json` prints.
    """
    stdout = Console(highlight=False)
    heads = [_head(model) for model in models]
    widths = [max(map(len, column)) for column in zip(*heads, strict=True)]
    for number, (head, model) in enumerate(zip(heads, models, strict=True)):
        cells = (cell.ljust(width) for cell, width in zip(head, widths, strict=True))
        if number:
            stdout.print()
        stdout.print(Text("  ".join(cells).rstrip(), style="bold"), soft_wrap=True)
        _print_facts(stdout, _merits(model))


def print_model(facts: Mapping[str, Any]) -> None:
    """Print everything about one network on stdout.

    Args:
        facts: What `vsrm models show --json` prints.
    """
    stdout = Console(highlight=False)
    stdout.print(Text(facts["name"], style="bold"), soft_wrap=True)
    used = {"about", "trained_on", "degradation", "quality", "quality_source", "how_to_get", "name"}
    _print_facts(stdout, _merits(facts) if "about" in facts else {})
    tables = {name: x for name, x in facts.items() if isinstance(x, Mapping)}
    shown = {n: x for n, x in facts.items() if n not in used | tables.keys()}
    if "place" in shown:
        shown["place"] = PLACES[shown["place"]]
    _print_facts(stdout, shown)
    for name, table in tables.items():
        stdout.print(Text(name, style="bold"))
        _print_facts(stdout, table)


def print_check_result(result: "CheckResult", *, is_first: bool) -> None:
    """Print one line of what `vsrm doctor` finds on stdout.

    Args:
        result: Of one check.
        is_first: Whether it is the first of its topic.
    """
    stdout = Console(highlight=False)
    if is_first:
        stdout.print(Text(result.topic, style="bold"))
    sign, style = CHECK_SIGNS[result.state]
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_column(no_wrap=True, style=style)
    line.add_column(no_wrap=True, min_width=16)
    line.add_column(overflow="fold", style="dim" if sign == "-" else "")
    line.add_row(sign, result.name, Text(_printable(result.detail)))
    stdout.print(Padding(line, (0, 0, 0, 2), expand=False))


def print_error(message: str) -> None:
    """Print an error, in one line."""
    _print(_stderr(), f"error: {' '.join(message.split())}")


def print_note(message: str) -> None:
    """Print one line of information."""
    _print(_stderr(), message)


def _stderr() -> Console:
    return Console(stderr=True, highlight=False)


def _print(console: Console, text: str) -> None:
    # File names can look like Rich's markup or emoji, and be longer than a line.
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _head(model: Mapping[str, Any]) -> tuple[str, ...]:
    """Name, size, scale, license and place of a network, in short."""
    about = "about " if model["place"] == "to be fetched" else ""
    size = f", {about}{format_megabytes(model['bytes'])}" if model["bytes"] else ""
    return (
        model["name"],
        f"{model['parameters'] / 1e6:5.2f} M parameters",
        f"x{model['scale']}",
        model["licence"] or "-",
        PLACES[model["place"]] + size,
    )


def _merits(model: Mapping[str, Any]) -> dict[str, str | None]:
    """What a network is good for."""
    pair = model["detail_pair"]
    return {
        "what": model["about"],
        "trained on": model["trained_on"],
        "made for": model["degradation"],
        "quality": f"{model['quality']} ({model['quality_source']})",
        "weights": model["how_to_get"],
        "detail": None if pair is None else f"0 is {pair['soft']}, 1 is {pair['sharp']} (--detail)",
    }


def _print_facts(console: Console, facts: Mapping[str, Any]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim", min_width=10)
    table.add_column(overflow="fold")
    for name, fact in facts.items():
        if fact is not None:
            facts_of_it = fact if isinstance(fact, tuple) else (fact,)
            text = ", ".join(f"{x:,}" if type(x) is int else str(x) for x in facts_of_it)
            table.add_row(Text(_printable(name)), Text(_printable(text)))
    if table.row_count:
        console.print(Padding(table, (0, 0, 0, 2), expand=False))


def _printable(text: str) -> str:
    """Text from an untrusted file, without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


class _Bar(Bar):
    """A bar that leaves room at the end of its line, where terminals print ^C when it is typed.

    In a full line it would wrap, and the old bar would stay on the screen.
    """

    def get_renderable(self) -> RenderableType:
        """What is drawn."""
        return _Narrow(super().get_renderable())


@dataclass(frozen=True)
class _Narrow:
    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(1, options.max_width - len("^C^C") - 1)
        yield from console.render(self.content, options.update_width(width))


def _new_bar(console: Console) -> Bar:
    columns = (
        BarColumn(bar_width=None),  # the rest of the line
        TextColumn("{task.fields[frames]}", markup=False),
        TextColumn("{task.fields[stages]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
    )
    return _Bar(*columns, console=console, transient=True, expand=True)


def show_table(table: "TableOfWords") -> None:
    """Print a table on stdout."""
    drawn = Table(title=escape(table.title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, header in enumerate(table.headers):
        drawn.add_column(escape(header), justify="right" if number else "left")
    for row in table.rows:
        drawn.add_row(*map(escape, row))
    stdout = Console(highlight=False)
    if not stdout.is_terminal:
        stdout = Console(highlight=False, width=WIDTH_OF_FILES)
    stdout.print(drawn)
