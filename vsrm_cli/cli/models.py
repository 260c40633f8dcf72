"""The commands below `vsrm models`.

They handle no failures: `app` adds them to the program and reports them.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from vsrm_cli.cli import console
from vsrm_cli.cli.options import JsonList, Overwrite


def list_models(
    context: typer.Context,
    as_json: JsonList = False,
) -> None:
    """List the networks: size, license, where the weights are, and what they are for.

    Example: vsrm upscale small.mp4 -o large.mp4 --model gsm
    """
    if context.invoked_subcommand is not None:
        return
    from vsrm_cli.checkpoints.catalog import MODELS
    from vsrm_cli.checkpoints.inspect import describe_entry

    facts = [describe_entry(entry) for entry in MODELS.values()]
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        console.print_models(facts)


def pull(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name from `vsrm models`, or a Hub id.")
    ],
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="Print only errors.")
    ] = False,
) -> None:
    """Download the weights of a network, to use them without a connection later.

    Example: vsrm models pull gsm
    """
    from vsrm_cli.checkpoints.locate import locate

    with console.Display(is_quiet=quiet, beginning=f"downloading {name}") as display:
        path = locate(name, report=display.report_transfer)
    if not quiet:
        console.print_note(f"{name} is ready: {path}")


def show(
    name_or_file: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="A name, a weight file, or a Hub id.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print one JSON object on stdout.")
    ] = False,
) -> None:
    """Show the configuration, checksum and metadata of a network or a weight file.

    Example: vsrm models show vsrm-t
    """
    from vsrm_cli.checkpoints.inspect import describe

    with console.Display(is_quiet=False, beginning=f"reading {name_or_file}") as display:
        facts = describe(name_or_file, report=display.report_transfer)
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        console.print_model(facts)


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="Weight file, .pth or .safetensors.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Output file, .safetensors.")],
    ema: Annotated[
        bool,
        typer.Option(
            "--ema/--no-ema",
            metavar="",
            help="If the file has both, take the averaged weights (params_ema), not params.",
        ),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Convert a weight file to safetensors with a description; nothing in it is executed.

    Example: vsrm models convert gsmamba_reds_x4.pth gsm.safetensors
    """
    from vsrm_cli.checkpoints.inspect import convert_weights

    network = convert_weights(source, target, averaged=ema, overwrite=overwrite)
    console.print_note(f"{target}: a {network.family} network, ready for --model")
