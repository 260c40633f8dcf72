"""The command `vsrm preview`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vsrm_cli.cli import console
from vsrm_cli.cli.options import TILE_HELP, Debug, JsonSummary, OverwritePage, Quiet
from vsrm_cli.cli.signals import stop_at_once
from vsrm_cli.report.units import format_bytes, format_duration
from vsrm_cli.upscale.options import UpscaleOptions, read_time


def preview(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="Video to look at; a folder of images, or frame_%05d.png.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The page to write, such as a.html."),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Networks to show: names from `vsrm models`, weight files or Hub ids.",
            show_default="all that suit the input",
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TIME",
            help="Show the frames from here on: seconds, MM:SS or HH:MM:SS; may be repeated.",
            show_default="five places in scenes of their own",
        ),
    ] = None,
    tile: Annotated[
        str,
        typer.Option(metavar="auto|N|off", help=TILE_HELP),
    ] = "auto",
    device: Annotated[
        str,
        typer.Option(
            metavar="auto|cpu|cuda[:N]|mps", help="Where to compute; auto picks the best device."
        ),
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            metavar="auto|fp32|fp16|bf16",
            help="Precision; auto is fp16 on CUDA, bf16 on CPUs with AMX, else fp32.",
        ),
    ] = "auto",
    fps: Annotated[
        str, typer.Option(metavar="RATE", help="Frames per second of image files.")
    ] = "25",
    overwrite: OverwritePage = False,
    as_json: JsonSummary = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show some places of a video in each network, and what the whole job needs, on one page.

    Example: vsrm preview small.mp4 -o preview.html
    """
    options = UpscaleOptions.read(tile=tile, device=device, dtype=dtype, fps=fps)
    times = [read_time(time, name="time of --at") for time in at or ()]
    from vsrm_cli.preview.job import preview_video

    with console.Display(is_quiet=quiet, beginning="looking for places") as display, stop_at_once():
        made = preview_video(
            source,
            output,
            options,
            models=[name for name in (model or "").split(",") if name],
            at=[time for time in times if time is not None],
            overwrite=overwrite,
            report=display.report,
            report_transfer=display.report_transfer,
            warn=display.warn,
        )
    if not quiet:
        places = "1 place" if len(made.times) == 1 else f"{len(made.times)} places"
        console.print_note(
            f"{made.output}: {places} in {len(made.versions)} versions, "
            f"{format_bytes(made.page_bytes)}, made in {format_duration(made.seconds)}; "
            "open it in a browser"
        )
    if as_json:
        typer.echo(json.dumps(asdict(made)))
