"""The command `vsrm finetune`.

It handles no failures: `app` adds it to the program and reports them.
"""

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from vsrm_cli.cli import console
from vsrm_cli.cli.options import DEVICES, Debug, JsonSummary, Quiet, complete, complete_model, panel
from vsrm_cli.cli.signals import stop_on_signal
from vsrm_cli.errors import UsageError

_network_option, _recipe_option = panel("Network"), panel("Recipe")
_sharp_option, _machine_option = panel("Stage sharp"), panel("Machine")


def finetune(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Training footage: videos, folders of frames, photos or packs; or HR-LR pairs in "
            "hr and lr.",
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
            help="Stop after this time; without --steps, train as many steps as fit. With "
            "--resume, train on for so long.",
            show_default="no limit",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Number of training steps.", show_default="2000; 20000 on a GPU"
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", metavar="", help="Resume the run in --out, with the same options."
        ),
    ] = False,
    val: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Validation footage.", show_default="crops of the footage"
        ),
    ] = None,
    as_json: JsonSummary = False,
    quiet: Quiet = False,
    debug: Debug = False,
    model: Annotated[
        str,
        _network_option(
            metavar="NAME|FILE",
            help="Network to start from: a name, a weight file, or a Hub id; auto is "
            "vsrm-t-real for compressed footage, else vsrm-t.",
            autocompletion=complete_model,
        ),
    ] = "auto",
    from_scratch: Annotated[
        bool,
        _network_option(
            "--from-scratch",
            metavar="",
            help="Start with new weights for the network of that name.",
        ),
    ] = False,
    degradation: Annotated[
        str | None,
        _recipe_option(
            metavar="bi|bd|real",
            help="How LR frames are made: bicubic; blur and subsample; or like real footage, "
            "compression included.",
            show_default="bi; real for vsrm-t-real",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        _recipe_option(
            metavar="NAME",
            help="Loss: charbonnier, or charbonnier+frequency as in the VSRM paper.",
            show_default="charbonnier",
        ),
    ] = None,
    lr: Annotated[
        float | None,
        _recipe_option(
            metavar="RATE", help="Peak learning rate.", show_default="0.0001; 0.001 from scratch"
        ),
    ] = None,
    batch: Annotated[
        int | None,
        _recipe_option(
            metavar="N",
            help="Clips per step.",
            show_default="2; 8 on a GPU; half for --stage sharp",
        ),
    ] = None,
    clip_frames: Annotated[
        int | None,
        _recipe_option(
            metavar="N", help="Frames per clip.", show_default="5; 7 on a GPU; 16 for --stage sharp"
        ),
    ] = None,
    patch: Annotated[
        int | None,
        _recipe_option(
            metavar="N",
            help="Size of LR patches in pixels; smaller if the footage is.",
            show_default="32; 48 on a GPU",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        _recipe_option(
            metavar="reds6|reds16|vimeo",
            help="Use a recipe of the VSRM paper; other options override single values.",
            show_default=False,
        ),
    ] = None,
    stage: Annotated[
        str | None,
        _recipe_option(
            metavar="flow|frames|clips|sharp",
            help="What to train: the flow network, single frames, whole clips, or sharp clips with "
            "a discriminator (needs the extra `perceptual`).",
            show_default="clips",
        ),
    ] = None,
    seed: Annotated[int, _recipe_option(metavar="N", help="Random seed.")] = 0,
    sharpen: Annotated[
        float | None,
        _sharp_option(
            metavar="X", help="How strongly the ground truth is sharpened.", show_default="0.5"
        ),
    ] = None,
    feature_weight: Annotated[
        float | None,
        _sharp_option(
            metavar="X",
            help="Weight of the feature (perceptual) loss; the pixel loss has 1.",
            show_default="0.1",
        ),
    ] = None,
    adversarial_weight: Annotated[
        float | None,
        _sharp_option(
            metavar="X",
            help="Weight of the adversarial loss; it rises from 0 after 100 steps.",
            show_default="0.02",
        ),
    ] = None,
    temporal_weight: Annotated[
        float | None,
        _sharp_option(
            metavar="X",
            help="Weight of the temporal loss; more means less flicker.",
            show_default="0.5",
        ),
    ] = None,
    pattern_weight: Annotated[
        float | None,
        _sharp_option(
            metavar="X",
            help="Weight of the loss on checkerboards and other fine grids.",
            show_default="4",
        ),
    ] = None,
    flat_weight: Annotated[
        float | None,
        _sharp_option(
            metavar="X",
            help="Weight of errors in flat areas, such as noise and ringing.",
            show_default="1",
        ),
    ] = None,
    color_weight: Annotated[
        float | None,
        _sharp_option(metavar="X", help="Weight of wrong colors of areas.", show_default="0.75"),
    ] = None,
    cleaning_weight: Annotated[
        float | None,
        _sharp_option(
            metavar="X",
            help="Weight of the loss on compression artifacts in the features of single frames.",
            show_default="0.5",
        ),
    ] = None,
    discriminator_lr: Annotated[
        float | None,
        _sharp_option(
            metavar="RATE", help="Learning rate of the discriminator.", show_default="0.0001"
        ),
    ] = None,
    device: Annotated[
        str,
        _machine_option(
            metavar="auto|cpu|cuda[:N]|mps|xpu",
            help="Where to compute; auto picks the best device.",
            envvar="VSRM_DEVICE",
            autocompletion=complete(*DEVICES),
        ),
    ] = "auto",
    dtype: Annotated[
        str,
        _machine_option(
            metavar="auto|fp32|bf16|fp16",
            help="Precision; auto is fp32, or what the preset says on a GPU.",
        ),
    ] = "auto",
    accumulate: Annotated[
        int,
        _machine_option(
            metavar="N", help="Compute each batch in N parts: less memory, the same result."
        ),
    ] = 1,
    recompute: Annotated[
        bool,
        _machine_option(
            "--recompute", metavar="", help="Gradient checkpointing: less memory, more time."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        _machine_option(
            metavar="N",
            help="Processes that load training data.",
            show_default="1; up to 8 with a GPU",
        ),
    ] = None,
) -> None:
    """Train a network on your own footage, for vsrm upscale --model.

    Example: vsrm finetune --data holidays --time 30
    """
    given = locals()
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"The time must be a number of minutes above 0, not {minutes}.")
    from vsrm_cli.training import finetune as job
    from vsrm_cli.training.distributed import process_group, rank
    from vsrm_cli.training.recipe import PerceptualWeights

    with process_group(device) as place:
        named = {field.name for field in fields(job.FinetuneOptions)} & given.keys()
        weights = {field.name: given[field.name] for field in fields(PerceptualWeights)}
        options = job.FinetuneOptions(
            **{name: given[name] for name in named} | {"device": place},
            frames=clip_frames,
            perceptual={name: x for name, x in weights.items() if x is not None},
        )
        is_first = rank() == 0
        folder = out or Path("runs") / data.absolute().name
        with (
            console.Display(
                is_quiet=quiet or not is_first, beginning="looking at the footage"
            ) as bar,
            stop_on_signal(bar.print_note, "step") as should_stop,
        ):
            try:
                result = job.finetune(
                    data,
                    folder,
                    options,
                    validation=val,
                    minutes=math.inf if minutes is None else minutes,
                    resume=resume,
                    should_stop=should_stop,
                    report=bar.report_training if is_first else lambda _: None,
                    warn=bar.warn if is_first else lambda _: None,
                )
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"interrupted; the state in {folder} is intact, and --resume continues from it"
                ) from None
        if is_first:
            bar.print_training(result, folder)
            if as_json:
                typer.echo(json.dumps(result.as_dict()))
