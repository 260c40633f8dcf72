"""The command `vsrm pack`.

It handles no failures: `app` adds it to the program and reports them.
"""

from pathlib import Path
from typing import Annotated

import typer

from vsrm_cli.cli import console
from vsrm_cli.cli.options import Debug, Overwrite, Quiet
from vsrm_cli.errors import UsageError


def pack(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of videos and photos, with subfolders.")
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="Output file, .safetensors.", show_default=False)
    ],
    clips: Annotated[
        int, typer.Option(metavar="N", help="Crops of each video: those with most detail.")
    ] = 32,
    degraded: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Degraded LR versions of each clip, to train for compressed footage where PyAV is "
            "not installed.",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.")] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Decode training footage once, into one file for vsrm finetune --data.

    Example: vsrm pack holidays holidays.safetensors
    """
    if output.suffix != ".safetensors":
        raise UsageError(f"The name of a pack ends in .safetensors, unlike {output}.")
    if clips < 1 or degraded < 0:
        raise UsageError("--clips must be 1 or more, and --degraded 0 or more.")
    from vsrm_cli.data.make_pack import make_pack

    count = make_pack(
        folder,
        output,
        clips_per_video=clips,
        lr_versions=degraded,
        seed=seed,
        overwrite=overwrite,
        report=(lambda _: None) if quiet else console.print_note,
        warn=lambda message: console.print_note(f"warning: {message}"),
    )
    if not quiet:
        console.print_note(f"{output}: {count} photos and clips, ready for vsrm finetune --data")
