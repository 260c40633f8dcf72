"""The Typer app: all commands of `vsrm`, and the exit code of each."""

import shlex
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from vsrm_cli import __version__
from vsrm_cli.cli import bench, compare, console, finetune, models, pack, preview, upscale
from vsrm_cli.cli.failures import report_failures

# What Typer raises for a command line that it cannot read. The class has moved between its
# versions (Click's, then a copy of Click's); its child `BadParameter` is public in all of them.
_UnreadableCommandLine: type[Any] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="Make videos four times larger.\n\nExample: vsrm upscale small.mp4 -o large.mp4",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

models_app = typer.Typer(help="List, download, inspect and convert networks.")
app.add_typer(models_app, name="models")


def run(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        arguments: What follows the program's name; None for `sys.argv`.

    Returns:
        0 done, 1 failed, 2 wrong usage, 3 the result failed its check, 130 interrupted.
    """
    try:
        code = app(arguments, prog_name="vsrm", standalone_mode=False)
    except _UnreadableCommandLine as error:
        return _report_usage_error(error, sys.argv[1:] if arguments is None else arguments)
    return code or 0


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"vsrm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            metavar="",
            help="Print the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Print the help if no command was given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _report_usage_error(error: Any, arguments: list[str]) -> int:
    """Print in one line what is wrong with a command line, and return the exit code for it."""
    message = error.format_message().rstrip(".")
    # Of a file instead of a command, what is meant is plain.
    if message.startswith("No such command") and arguments and Path(arguments[0]).suffix:
        message += f"; to enlarge a video: {shlex.join(['vsrm', 'upscale', *arguments])}"
    if "'--data'" in message:
        message += ", such as --data holidays"
    command = error.ctx.command_path if error.ctx else "vsrm"
    console.print_error(f"{message} (see {command} --help)")
    return int(error.exit_code)


def _add_command(command: Callable[..., None], group: typer.Typer = app) -> None:
    """Add a command of another file; its failures are reported like all others."""

    @wraps(command)
    def run_command(**options: Any) -> None:
        with report_failures(debug=options.get("debug")):
            command(**options)

    group.command()(run_command)


@models_app.callback(invoke_without_command=True)
@wraps(models.list_models)
def _list_models(**options: Any) -> None:
    with report_failures():
        models.list_models(**options)


_add_command(upscale.upscale)
_add_command(preview.preview)
_add_command(models.pull, models_app)
_add_command(models.show, models_app)
_add_command(models.convert, models_app)
_add_command(finetune.finetune)
_add_command(pack.pack)
_add_command(compare.doctor)
_add_command(bench.bench)
_add_command(compare.compare)
