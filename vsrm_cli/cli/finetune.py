"""The command that trains: `vsrm finetune`.

It knows nothing of failures: `app` adds it to the program and tells what goes wrong.
"""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from vsrm_cli.cli import console
from vsrm_cli.cli.signals import stop_when_asked
from vsrm_cli.errors import UsageError


def finetune(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Footage to learn from: videos, folders of frames, photos or packs; or hr and lr "
            "with such.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for weights, state, metrics and report.",
            show_default="runs/ and the name of the footage",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--time",
            metavar="MINUTES",
            help="Stop after this time; without --steps, do as much as fits into it.",
            show_default="no limit",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Length of the training.", show_default="2000; 20000 on a GPU"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, with the same options.")
    ] = False,
    val: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Footage to validate on.", show_default="pieces of the footage"
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object on stdout.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but warnings and errors.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error.")
    ] = False,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="Where to begin: a name, a weight file, or a Hub id.",
            rich_help_panel="Network",
        ),
    ] = "vsrm-t",
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch",
            help="Begin with new weights of the network of that name.",
            rich_help_panel="Network",
        ),
    ] = False,
    degradation: Annotated[
        str | None,
        typer.Option(
            metavar="bi|bd|real",
            help="How the small frames are made: bicubic; blurred and thinned out; or worn as "
            "real footage is, compression included.",
            show_default="bi",
            rich_help_panel="Recipe",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="What is minimized: charbonnier, or charbonnier+frequency as in the VSRM paper.",
            show_default="charbonnier",
            rich_help_panel="Recipe",
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Highest learning rate.",
            show_default="0.0001; 0.001 from scratch",
            rich_help_panel="Recipe",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Clips in each step.", show_default="2; 8 on a GPU", rich_help_panel="Recipe"
        ),
    ] = None,
    clip_frames: Annotated[
        int | None,
        typer.Option(
            help="Frames of each clip.", show_default="5; 7 on a GPU", rich_help_panel="Recipe"
        ),
    ] = None,
    patch: Annotated[
        int | None,
        typer.Option(
            help="Side of the small frames in pixels; smaller if the footage is.",
            show_default="32; 48 on a GPU",
            rich_help_panel="Recipe",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="reds6|reds16|vimeo",
            help="Begin with a recipe of the VSRM paper instead; other options still count.",
            show_default="none",
            rich_help_panel="Recipe",
        ),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            metavar="flow|frames|clips",
            help="What to teach: motion, by the true motion of filmed photos; single frames; or "
            "whole clips.",
            show_default="clips",
            rich_help_panel="Recipe",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides every sample.", rich_help_panel="Recipe")] = 0,
    device: Annotated[
        str,
        typer.Option(
            metavar="auto|cpu|cuda[:N]|mps", help="Where to compute.", rich_help_panel="Machine"
        ),
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            metavar="auto|fp32|bf16|fp16",
            help="Precision to compute in; auto is fp32, and what a preset says on a GPU.",
            rich_help_panel="Machine",
        ),
    ] = "auto",
    accumulate: Annotated[
        int,
        typer.Option(
            help="Parts into which each batch is divided: less memory, the same result.",
            rich_help_panel="Machine",
        ),
    ] = 1,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute",
            help="Compute branches twice instead of keeping them: less memory, more time.",
            rich_help_panel="Machine",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that prepare clips.",
            show_default="1; up to 8 with a GPU",
            rich_help_panel="Machine",
        ),
    ] = None,
) -> None:
    """Train a network on footage of your own; the result is for upscale --model.

    Example: vsrm finetune --data holidays --time 30
    """
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"The time must be a number of minutes above 0, not {minutes}.")
    from vsrm_cli.training.distributed import joined, rank
    from vsrm_cli.training.finetune import Wishes, adapt

    with joined(device) as place:
        wishes = Wishes(
            model=model,
            from_scratch=from_scratch,
            preset=preset,
            stage=stage,
            steps=steps,
            batch=batch,
            frames=clip_frames,
            patch=patch,
            lr=lr,
            loss=loss,
            degradation=degradation,
            seed=seed,
            device=place,
            dtype=dtype,
            accumulate=accumulate,
            recompute=recompute,
            workers=workers,
        )
        is_first = rank() == 0
        folder = out or Path("runs") / data.absolute().name
        with (
            console.Display(is_quiet=quiet or not is_first, beginning="looking around") as bar,
            stop_when_asked(bar.tell_note, "step") as should_stop,
        ):
            try:
                result = adapt(
                    data,
                    folder,
                    wishes,
                    validation=val,
                    minutes=math.inf if minutes is None else minutes,
                    resume=resume,
                    should_stop=should_stop,
                    report=bar.report_training if is_first else lambda _: None,
                    warn=bar.warn if is_first else lambda _: None,
                )
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"interrupted: what {folder} holds is good, and --resume goes on from there"
                ) from None
        if is_first:
            bar.tell_training(result, folder)
            if as_json:
                typer.echo(json.dumps(result.as_dict()))
