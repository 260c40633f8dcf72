"""What a person sees: a bar while the work goes on, a line when it is done, tables of facts.

Progress and messages are drawn on stderr. Stdout belongs to results, so that it can be piped.
The bar is for a terminal; a log file gets a plain line every few seconds instead.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from vsrm_cli.upscale.pipeline import Progress

if TYPE_CHECKING:  # they bring numpy and torch, which `vsrm --help` need not wait for
    from vsrm_cli.checkpoints.download import Transfer
    from vsrm_cli.doctor import Finding
    from vsrm_cli.report.html import Table as TableOfWords
    from vsrm_cli.training.loop import Progress as Training
    from vsrm_cli.training.loop import Result as TrainingResult
    from vsrm_cli.upscale.plan import Plan
    from vsrm_cli.upscale.summary import Summary

# Often enough to see in a log that the work goes on, seldom enough to read the log.
SECONDS_BETWEEN_LINES = 10.0
FINDING_SIGNS = {"good": ("+", "green"), "absent": ("-", "dim"), "broken": ("!", "bold red")}

# Of tables that go into a file or another program: wide enough that nothing is folded.
WIDTH_OF_FILES = 200


class Display:
    """Draws one job: use it as a context manager and hand `report` to the job."""

    def __init__(self, *, is_quiet: bool, beginning: str = "reading") -> None:
        """Prepare a display that says everything, or nothing but warnings.

        Args:
            is_quiet: Whether to say nothing but warnings.
            beginning: What the bar says until the job reports.
        """
        self._is_quiet = is_quiet
        self._stderr = _stderr()
        self._latest: Progress | None = None
        self._line_is_due_at = 0.0
        self._bar: Bar | None = None
        self._task = TaskID(0)
        if self._stderr.is_terminal and not self._stderr.is_dumb_terminal and not is_quiet:
            self._bar = _new_bar(self._stderr)
            self._task = self._bar.add_task("", total=None, frames=beginning, stages="", left="")

    def __enter__(self) -> Self:
        """Show the bar, where there is one."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away, so that what is printed next begins on a clean line."""
        if self._bar:
            self._bar.stop()

    def report(self, progress: Progress) -> None:
        """Show how far the job is."""
        self._latest = progress
        if self._bar:
            self._bar.update(
                self._task,
                completed=progress.frames_done,
                total=_bar_length(progress),
                frames=_frames(progress),
                stages=_stages(progress),
                left=_left(progress),
            )
        else:
            parts = (_frames(progress), _stages(progress), _left(progress))
            self._log(", ".join(part for part in parts if part))

    def report_transfer(self, transfer: "Transfer") -> None:
        """Show how far a download is."""
        done, total = megabytes(transfer.bytes_done), megabytes(transfer.bytes_expected)
        words = f"fetching {transfer.name}, {done} of {total}"
        if self._bar:
            self._bar.update(
                self._task,
                completed=transfer.bytes_done,
                total=transfer.bytes_expected,
                frames=words,
            )
        else:
            self._log(words)

    def report_training(self, progress: "Training") -> None:
        """Show how far a training is; accidents get a line of their own."""
        if progress.accident and not self._is_quiet:
            self.tell_note(progress.accident)
        steps = f"step {progress.step}" + (f" of {progress.steps}" if progress.steps else "")
        rate = progress.steps_per_second
        words = [f"loss {progress.loss:.5f}", f"{_step_rate(rate)} steps/s" if rate else ""]
        left = progress.seconds_left
        remaining = "" if left is None else f"{_clock(left)} left"
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

    def tell_training(self, result: "TrainingResult", folder: Path) -> None:
        """Print what a training has come to."""
        if self._is_quiet:
            return
        done = f"{folder}: {result.step} of {result.steps} steps"
        _print(self._stderr, f"{done}. {result.told} {folder / 'report.html'} shows it.")

    def tell_note(self, message: str) -> None:
        """Print something that the user should know, in one line, while the work goes on."""
        _print(self._bar.console if self._bar else self._stderr, message)

    def warn(self, message: str) -> None:
        """Print what the user should know before the work begins, in one line."""
        _print(self._stderr, f"warning: {message}")

    def tell_result(self, summary: "Summary") -> None:
        """Print what the job made, in one line, and its warnings."""
        for warning in summary.warnings:
            self.warn(warning)
        if not self._is_quiet:
            _print(self._stderr, _summary_line(summary, self._latest))

    def _log(self, line: str) -> None:
        if not self._is_quiet and time.monotonic() >= self._line_is_due_at:
            self._line_is_due_at = time.monotonic() + SECONDS_BETWEEN_LINES
            _print(self._stderr, line)


def tell_models(models: Sequence[Mapping[str, Any]]) -> None:
    """Print a list of networks on stdout, each with what there is to know before choosing it.

    Args:
        models: Of each the facts that `vsrm models --json` prints.
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


def tell_model(facts: Mapping[str, Any]) -> None:
    """Print all that is known of one network on stdout.

    Args:
        facts: What `vsrm models show --json` prints.
    """
    stdout = Console(highlight=False)
    stdout.print(Text(facts["name"], style="bold"), soft_wrap=True)
    told = {"about", "trained_on", "degradation", "quality", "quality_source", "how_to_get", "name"}
    _print_facts(stdout, _merits(facts) if "about" in facts else {})
    tables = {name: x for name, x in facts.items() if isinstance(x, Mapping)}
    _print_facts(stdout, {n: x for n, x in facts.items() if n not in told | tables.keys()})
    for name, table in tables.items():
        stdout.print(Text(name, style="bold"))
        _print_facts(stdout, table)


def tell_finding(finding: "Finding", *, is_first: bool) -> None:
    """Print one line of what `vsrm doctor` finds on stdout.

    Args:
        finding: What was found.
        is_first: Whether its topic begins here.
    """
    stdout = Console(highlight=False)
    if is_first:
        stdout.print(Text(finding.topic, style="bold"))
    sign, style = FINDING_SIGNS[finding.state]
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_column(no_wrap=True, style=style)
    line.add_column(no_wrap=True, min_width=16)
    line.add_column(overflow="fold", style="dim" if sign == "-" else "")
    line.add_row(sign, finding.name, Text(_printable(finding.detail)))
    stdout.print(Padding(line, (0, 0, 0, 2), expand=False))


def megabytes(count: int) -> str:
    """A number of bytes, for a person."""
    return f"{count / 1e6:.1f} MB"


def plan_lines(plan: "Plan") -> list[str]:
    """Tell a plan in lines of a name and what is to be said of it."""
    frames = "unknown" if plan.frames is None else f"about {plan.frames}"
    resumed = f", {plan.frames_resumed} of them finished" if plan.frames_resumed else ""
    tile = "whole pictures" if plan.tile is None else f"{plan.tiles} tiles of {plan.tile} pixels"
    segments = (
        "of about half a minute of work"
        if plan.segment_frames is None
        else f"of {plan.segment_frames} frames or a little more"
    )
    told = {
        "input": f"{plan.input} ({plan.source})",
        "output": f"{plan.output} ({plan.result})",
        "frames": frames + resumed,
        "color": plan.color,
        "kept": "; ".join(plan.kept) or "nothing else is in the file",
        "left out": "; ".join(plan.dropped) or "nothing",
        "network": f"{plan.model} on {plan.device} in {plan.dtype}{_why(plan.model_reason)}",
        "windows": f"of {plan.window} frames, {plan.overlap} shared with the next",
        "tiles": tile,
        "segments": segments,
        "time": "unknown" if plan.seconds is None else f"about {_clock(plan.seconds)} (estimate)",
        "memory": f"about {in_words(plan.memory_bytes)} for the network (estimate)",
        "size": "unknown"
        if plan.file_bytes is None
        else f"about {in_words(plan.file_bytes)}, "
        f"and as much for the segments meanwhile (estimate); {in_words(plan.free_bytes)} are free",
    }
    return [f"{name:9} {words}" for name, words in told.items()]


def tell_error(message: str) -> None:
    """Print why the program ends, in one line."""
    _print(_stderr(), f"error: {' '.join(message.split())}")


def tell_note(message: str) -> None:
    """Print something else that the user should know, in one line."""
    _print(_stderr(), message)


def _stderr() -> Console:
    return Console(stderr=True, highlight=False)


def _print(console: Console, text: str) -> None:
    # A file name may hold what Rich takes for markup or an emoji, and be longer than a line.
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _head(model: Mapping[str, Any]) -> tuple[str, ...]:
    """Name, size, scale, licence and place of a network, each in few letters."""
    about = "about " if model["place"] == "to be fetched" else ""
    size = f", {about}{megabytes(model['bytes'])}" if model["bytes"] else ""
    return (
        model["name"],
        f"{model['parameters'] / 1e6:5.2f} M parameters",
        f"x{model['scale']}",
        model["licence"] or "-",
        "no weights" if model["place"] == "none" else model["place"] + size,
    )


def _merits(model: Mapping[str, Any]) -> dict[str, str | None]:
    """What a network is good for."""
    return {
        "what": model["about"],
        "trained on": model["trained_on"],
        "made for": model["degradation"],
        "quality": f"{model['quality']} ({model['quality_source']})",
        "weights": model["how_to_get"],
    }


def _print_facts(console: Console, facts: Mapping[str, Any]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim", min_width=10)
    table.add_column(overflow="fold")
    for name, fact in facts.items():
        if fact is not None:
            text = ", ".join(map(str, fact)) if isinstance(fact, tuple) else str(fact)
            table.add_row(Text(_printable(name)), Text(_printable(text)))
    if table.row_count:
        console.print(Padding(table, (0, 0, 0, 2), expand=False))


def _printable(text: str) -> str:
    """Words out of a stranger's file, without what would command the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _new_bar(console: Console) -> Bar:
    columns = (
        BarColumn(bar_width=None),  # whatever the words leave
        TextColumn("{task.fields[frames]}", markup=False),
        TextColumn("{task.fields[stages]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
    )
    return Bar(*columns, console=console, transient=True, expand=True)


def _bar_length(progress: Progress) -> int | None:
    """The length of the bar: the file's hint, as long as it has not proved too small."""
    expected = progress.frames_expected
    return None if expected is None or progress.frames_done > expected else expected


def _frames(progress: Progress) -> str:
    length = _bar_length(progress)
    total = "" if length is None else f" of ~{length}"
    return f"{progress.frames_done}{total} frames"


def _stages(progress: Progress) -> str:
    rates = ((name, fps) for name, fps in _rates(progress).items() if fps > 0)
    text = ", ".join(f"{name} {_rounded(fps)}" for name, fps in rates)
    return f"{text} fps" if text else ""


def _left(progress: Progress) -> str:
    if progress.seconds_left is None:
        return ""
    return f"{_clock(progress.seconds_left)} left"


def _clock(duration: float) -> str:
    """Write seconds as a clock shows them."""
    minutes, seconds = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _rates(progress: Progress) -> dict[str, float]:
    """Frames per second of each stage; 0 where nothing is known yet."""
    return {
        "decode": progress.decode_fps,
        "network": progress.network_fps,
        "encode": progress.encode_fps,
    }


def in_words(count: int) -> str:
    """Write a number of bytes for people."""
    amount = float(count)
    for unit in ("bytes", "KB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def _rounded(fps: float) -> str:
    return f"{fps:.0f}" if fps >= 10 else f"{fps:.1f}"


def _step_rate(rate: float) -> str:
    return f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def _summary_line(summary: "Summary", latest: Progress | None) -> str:
    rates = {name: fps for name, fps in _rates(latest).items() if fps > 0} if latest else {}
    slowest = min(rates, key=rates.__getitem__, default=None)
    stage = f" (slowest stage: {slowest}, {_rounded(rates[slowest])})" if slowest else ""
    resumed = f" ({summary.frames_resumed} from before)" if summary.frames_resumed else ""
    return (
        f"{summary.output}: {summary.frames_out} frames{resumed}, "
        f"{summary.width}x{summary.height}, {_rounded(summary.fps)} fps{stage}, "
        f"{summary.model} on {summary.device}{_why(summary.model_reason)}"
    )


def _why(reason: str) -> str:
    return f" ({reason})" if reason else ""


def show_table(table: "TableOfWords") -> None:
    """Print a table on stdout: it is a result."""
    drawn = Table(title=escape(table.title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, header in enumerate(table.headers):
        drawn.add_column(escape(header), justify="right" if number else "left")
    for row in table.rows:
        drawn.add_row(*map(escape, row))
    stdout = Console(highlight=False)
    if not stdout.is_terminal:
        stdout = Console(highlight=False, width=WIDTH_OF_FILES)
    stdout.print(drawn)
