"""The commands of `vsrm`: options in, one call, one exit code.

The jobs are imported by the commands, not by this file: they bring torch, and `vsrm --help`
should not wait for it.
"""

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from vsrm_cli import __version__, cli_bench, console
from vsrm_cli.errors import VsrmError
from vsrm_cli.settings import DEFAULT_MODEL, DEFAULT_OVERLAP, DEFAULT_WINDOW, Settings

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # what shells report for a program that SIGINT has ended

# What Typer raises for a command line that it cannot read. The class has moved between its
# versions (Click's, then a copy of Click's); its child `BadParameter` is public in all of them.
_UnreadableCommandLine: type[Any] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="Make a small video four times larger.\n\nExample: vsrm upscale small.mp4 -o large.mp4",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

models = typer.Typer(help="The networks: list, fetch, inspect and convert them.")
app.add_typer(models, name="models")


def run(arguments: list[str] | None = None) -> int:
    """Run a command line and say with which code to exit.

    Args:
        arguments: The words after the program's name; None for those it was started with.

    Returns:
        0 done, 1 failed, 2 wrong usage, 3 the result failed its check, 130 interrupted.
    """
    try:
        code = app(arguments, prog_name="vsrm", standalone_mode=False)
    except _UnreadableCommandLine as error:
        return _tell_unreadable(error)
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
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Print the help if no command was given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def upscale(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="The video to enlarge.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The file to write; its ending chooses the container."),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="A name, a .safetensors or .pth file, or a Hub id.", rich_help_panel="Network"
        ),
    ] = DEFAULT_MODEL,
    window: Annotated[
        int,
        typer.Option(help="Frames that the network sees together.", rich_help_panel="Network"),
    ] = DEFAULT_WINDOW,
    overlap: Annotated[
        int | None,
        typer.Option(
            help="Frames that two neighbouring windows share.",
            show_default=f"{DEFAULT_OVERLAP}, at most half a window",
            rich_help_panel="Network",
        ),
    ] = None,
    tile: Annotated[
        str,
        typer.Option(
            metavar="auto|N|off",
            help="Side of a tile in pixels of the input: less memory, more time.",
            rich_help_panel="Network",
        ),
    ] = "auto",
    device: Annotated[
        str,
        typer.Option(
            metavar="auto|cpu|cuda[:N]|mps", help="Where to compute.", rich_help_panel="Network"
        ),
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            metavar="auto|fp32|fp16|bf16",
            help="Precision to compute in; auto is fp16 on CUDA and fp32 elsewhere.",
            rich_help_panel="Network",
        ),
    ] = "auto",
    codec: Annotated[
        str,
        typer.Option(
            help="h264, hevc, av1, ffv1, or another encoder that PyAV offers.",
            rich_help_panel="Encoding",
        ),
    ] = "h264",
    crf: Annotated[
        int | None,
        typer.Option(
            help="Quality on the codec's own scale; smaller is better and larger.",
            show_default="by codec",
            rich_help_panel="Encoding",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Speed of the encoder, in its own words.",
            show_default="by codec",
            rich_help_panel="Encoding",
        ),
    ] = None,
    pix_fmt: Annotated[
        str,
        typer.Option(
            help="Pixel format of the output; auto is nearest to the input.",
            rich_help_panel="Encoding",
        ),
    ] = "auto",
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Begin here: seconds, MM:SS or HH:MM:SS.",
            show_default="the beginning",
            rich_help_panel="Part",
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Stop before this time of the input.",
            show_default="the end",
            rich_help_panel="Part",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it exists.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object on stdout.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but warnings and errors.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error.")
    ] = False,
) -> None:
    """Make a video four times larger; sound and subtitles are carried over.

    Example: vsrm upscale small.mp4 -o large.mp4
    """
    with _failures_told(debug=debug):
        Settings.read(
            window=window,
            overlap=overlap,
            tile=tile,
            device=device,
            dtype=dtype,
            start=start,
            end=end,
        )
        from vsrm_cli.upscale import upscale_video

        with console.Display(is_quiet=quiet) as display:
            summary = upscale_video(
                source,
                output,
                model=model,
                window=window,
                overlap=overlap,
                tile=tile,
                device=device,
                dtype=dtype,
                codec=codec,
                crf=crf,
                preset=preset,
                pix_fmt=pix_fmt,
                start=start,
                end=end,
                overwrite=overwrite,
                report=display.report,
                report_transfer=display.report_transfer,
            )
        display.tell_result(summary)
        if as_json:
            typer.echo(json.dumps(summary.as_dict()))


@models.callback(invoke_without_command=True)
def list_models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list on stdout.")] = False,
) -> None:
    """List the networks: their size, where their weights are, and what they are good for.

    Example: vsrm upscale small.mp4 -o large.mp4 --model gsm
    """
    if context.invoked_subcommand is not None:
        return
    with _failures_told():
        from vsrm_cli.models.catalog import MODELS
        from vsrm_cli.models.description import describe_entry

        facts = [describe_entry(entry) for entry in MODELS.values()]
        if as_json:
            typer.echo(json.dumps(facts))
        else:
            console.tell_models(facts)


@models.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of the list, or a Hub id.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Fetch the weights of a network now, to use them later without a connection.

    Example: vsrm models pull gsm
    """
    with _failures_told():
        from vsrm_cli.models.locate import locate

        with console.Display(is_quiet=quiet, beginning=f"fetching {name}") as display:
            path = locate(name, report=display.report_transfer)
        if not quiet:
            console.tell_note(f"{name} is ready: {path}")


@models.command()
def show(
    name_or_file: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="A name, a weight file, or a Hub id.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout.")
    ] = False,
) -> None:
    """Show what a network is made of, and what its weight file says of itself.

    Example: vsrm models show vsrm-t
    """
    with _failures_told():
        from vsrm_cli.models.description import describe

        with console.Display(is_quiet=False, beginning=f"reading {name_or_file}") as display:
            facts = describe(name_or_file, report=display.report_transfer)
        if as_json:
            typer.echo(json.dumps(facts))
        else:
            console.tell_model(facts)


@models.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="A weight file: .pth or .safetensors.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
    ema: Annotated[
        bool,
        typer.Option(
            "--ema/--no-ema",
            help="Of a file that holds both, take the averaged weights (params_ema), not params.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it exists.")
    ] = False,
) -> None:
    """Write the weights of a file as safetensors that say what they are; nothing is executed.

    Example: vsrm models convert gsmamba_reds_x4.pth gsm.safetensors
    """
    with _failures_told():
        from vsrm_cli.models.description import convert_weights

        network = convert_weights(source, target, averaged=ema, overwrite=overwrite)
        console.tell_note(f"{target}: a {network.family} network, ready for --model")


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list on stdout.")] = False,
) -> None:
    """Try what this machine can do and say what does not work; exit 1 if something should.

    Example: vsrm doctor
    """
    with _failures_told():
        from vsrm_cli.doctor import State, examine

        findings = []
        topic = ""
        for finding in examine():
            findings.append(finding)
            if not as_json:
                console.tell_finding(finding, is_first=finding.topic != topic)
            topic = finding.topic
        if as_json:
            typer.echo(json.dumps([asdict(finding) for finding in findings]))
        if any(finding.state is State.BROKEN for finding in findings):
            raise VsrmError("Something that should work here does not; see above.")


@contextmanager
def _failures_told(*, debug: bool | None = None) -> Iterator[None]:
    """Turn every failure into a line on stderr and an exit code; tracebacks are for debugging.

    Args:
        debug: Whether tracebacks are wanted; None for a command that does not ask, which prints
            those of bugs.
    """
    try:
        yield
    except VsrmError as error:
        _print_traceback(bool(debug))
        console.tell_error(str(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        _print_traceback(bool(debug))
        console.tell_note("interrupted: nothing was written")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:  # nobody reads stdout any more: `main` ends quietly
        raise
    except Exception as error:
        _print_traceback(debug is not False)
        advice = " run it again with --debug and" if debug is False else ""
        console.tell_error(
            f"{type(error).__name__}: {error} (this is a bug in vsrm:{advice} please report it)"
        )
        raise typer.Exit(EXIT_FAILED) from None


def _print_traceback(is_wanted: bool) -> None:
    if is_wanted:
        traceback.print_exc()


def _tell_unreadable(error: Any) -> int:
    """Print in one line what is wrong with a command line, and return the exit code for it."""
    message = error.format_message().rstrip(".")
    command = error.ctx.command_path if error.ctx else "vsrm"
    console.tell_error(f"{message} (see {command} --help)")
    return int(error.exit_code)


def _add_command(command: Callable[..., None]) -> None:
    """Add a command of another file; what goes wrong in it is told as everywhere."""

    @wraps(command)
    def run_command(**options: Any) -> None:
        with _failures_told(debug=options["debug"]):
            command(**options)

    app.command()(run_command)


_add_command(cli_bench.bench)
_add_command(cli_bench.compare)
