"""Options that several commands share, and what the shell completes for values of options.

Nothing here imports torch.
"""

from collections.abc import Callable
from functools import partial
from os.path import dirname
from pathlib import Path
from typing import Annotated, Any

import typer

Debug = Annotated[bool, typer.Option("--debug", metavar="", help="Print tracebacks of errors.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", metavar="", help="Print only warnings and errors.")
]
JsonSummary = Annotated[
    bool,
    typer.Option("--json", metavar="", help="Print the summary as one JSON object on stdout."),
]
JsonList = Annotated[bool, typer.Option("--json", metavar="", help="Print a JSON list on stdout.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", "-y", metavar="", help="Replace the output if it exists.")
]
OverwritePage = Annotated[
    bool, typer.Option("--overwrite", "-y", metavar="", help="Replace the page if it exists.")
]

# Their names in `vsrm_cli.checkpoints.catalog`, which imports torch.
MODELS = (
    "auto",
    "vsrm-t",
    "vsrm-t-real",
    "vsrm-t-sharp",
    "vsrm-t-x2",
    "gsm",
    "vsrm",
    "vsrm-ablation",
)
CODECS = ("auto", "h264", "hevc", "av1", "vp9", "ffv1", "prores", "h264_nvenc", "hevc_nvenc")
DEVICES = ("auto", "cpu", "cuda", "cuda:0", "cuda:1", "mps", "xpu")
WEIGHT_ENDINGS = (".safetensors", ".pth")


def panel(name: str) -> Callable[..., Any]:
    """A function like `typer.Option`, for the options in one panel of ``--help``."""
    return partial(typer.Option, rich_help_panel=name)


TILE_HELP = (
    "Tile size in input pixels, rounded down to a multiple of 16; small tiles need less memory and "
    "more time."
)


def complete(*values: str) -> Callable[[str], list[str]]:
    """A function that completes to one of some values."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


def complete_model(incomplete: str) -> list[str]:
    """Names of networks, weight files, and the folders on the way to them."""
    paths = [f"{p}/" if p.is_dir() else str(p) for p in Path(dirname(incomplete)).glob("*")]
    paths = [p for p in paths if p.endswith(("/", *WEIGHT_ENDINGS))]
    return [name for name in (*MODELS, *sorted(paths)) if name.startswith(incomplete)]
