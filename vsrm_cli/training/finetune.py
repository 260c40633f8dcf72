"""A job: a folder of footage and a network become weights for such footage.

What a user wishes becomes a recipe here, and what lies in a folder becomes clips; the training
itself is `vsrm_cli.training.loop`.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.checkpoints.loading import FAMILIES, find_device, load_model
from vsrm_cli.data.degradations import SCALE, Degradation
from vsrm_cli.data.footage import Footage, open_footage
from vsrm_cli.data.sample import ClipShape
from vsrm_cli.data.validation_clips import validation_pairs
from vsrm_cli.errors import UsageError
from vsrm_cli.evaluation.feature_networks import load_efficientnet_lite0
from vsrm_cli.models.network import Network
from vsrm_cli.training.loop import Progress, Result, finetune
from vsrm_cli.training.recipe import FREQUENCY_WEIGHT, Precision, Recipe, Stage, start_recipe
from vsrm_cli.training.run_dir import RunDir

LOSSES = {"charbonnier": 0.0, "charbonnier+frequency": FREQUENCY_WEIGHT}
DTYPES = {"fp32": Precision.FLOAT32, "bf16": Precision.BFLOAT16, "fp16": Precision.FLOAT16}

# More than this and the processes that make samples want more memory than they save time.
MOST_WORKERS = 8

_Values = TypeVar("_Values", Recipe, ClipShape)

# What is validated on a CPU, which shall not spend its time there: clips, frames of each, and
# side in pixels at most.
VALIDATION_ON_CPU = {"most": 6, "frames": 7, "side": 192}

# How many files that are passed over a message names.
SKIPPED_NAMED = 5


@dataclass(frozen=True)
class FinetuneOptions:
    """What a user may ask for; None is for what the recipe has.

    Attributes:
        model: Where to start: a name of the catalog, a weight file, or a Hub id.
        from_scratch: Whether to begin with new weights of the network of that name instead.
        preset: A published recipe, see `vsrm_cli.training.recipe.PRESETS`.
        stage: What to teach: "flow", "frames", "clips" or "sharp".
        steps: Length of the run.
        batch: Clips in each step.
        frames: Frames of each clip.
        patch: Side of the small frames in pixels.
        lr: Highest learning rate.
        loss: One of `LOSSES`.
        degradation: How small frames are made: "bi", "bd" or "real".
        seed: Decides every sample, and new weights.
        device: "auto", "cpu", "cuda", "cuda:<n>" or "mps".
        dtype: "auto", one of `DTYPES`, or its long name, such as "bfloat16".
        accumulate: Into how many parts each batch is divided.
        recompute: Whether to compute branches a second time instead of keeping them.
        workers: Processes that prepare samples.
        perceptual: Values of `PerceptualWeights` by their names, for the stage "sharp" only.
    """

    model: str
    from_scratch: bool = False
    preset: str | None = None
    stage: str | None = None
    steps: int | None = None
    batch: int | None = None
    frames: int | None = None
    patch: int | None = None
    lr: float | None = None
    loss: str | None = None
    degradation: str | None = None
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    accumulate: int = 1
    recompute: bool = False
    workers: int | None = None
    perceptual: Mapping[str, float] = field(default_factory=dict)


def adapt(
    data: Path,
    out: Path,
    wishes: FinetuneOptions,
    *,
    validation: Path | None = None,
    minutes: float = math.inf,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    report: Callable[[Progress], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Result:
    """Train a network on the footage in a folder; see `vsrm_cli.training.loop.finetune`.

    Args:
        data: Videos, folders of frames, photos, packs, or pairs of such in ``hr`` and ``lr``.
        out: Folder for what is made.
        wishes: How.
        validation: Footage to validate on; by default clips out of ``data``.
        minutes: Stop after this time. Without a wish for steps it decides how many there are.
        resume: Go on with the run in the folder.
        should_stop: Asked after each step.
        report: Told after each step.
        warn: Told what the user should know beforehand.

    Raises:
        VsrmError: Any of its children; the message says what to do.
    """
    recipe = choose_recipe(wishes, has_time=math.isfinite(minutes))
    features = load_efficientnet_lite0() if recipe.stage is Stage.SHARP else None
    if not resume:
        RunDir(out).check_is_free()
    network = choose_network(wishes)
    footage = open_footage(data)
    if footage.skipped:
        warn(_skipped(footage))
    shape = footage.fit(recipe.shape)
    if shape != recipe.shape:
        warn(_shrunk(recipe.shape, shape, data))
    on_cpu = network.device.type == "cpu"
    watched = footage if validation is None else validation
    sizes = VALIDATION_ON_CPU if on_cpu else {}
    workers = 1 if on_cpu else min(MOST_WORKERS, os.cpu_count() or 1)
    return finetune(
        network,
        footage,
        out,
        replace(recipe, shape=shape),
        features=features,
        validation=validation_pairs(watched, recipe.degradation, **sizes),
        words=_words(wishes, out, recipe),
        settings={
            "model": wishes.model,
            "from_scratch": str(wishes.from_scratch),
            "data": str(data.absolute()),
            "validation": str((validation or data).absolute()),
        },
        minutes=minutes,
        resume=resume,
        should_stop=should_stop,
        report=report,
        workers=wishes.workers or workers,
    )


def choose_recipe(wishes: FinetuneOptions, *, has_time: bool) -> Recipe:
    """The recipe that wishes come to.

    Args:
        wishes: Of the user.
        has_time: Whether a time is set: it decides how many steps there are where no wish and no
            preset does.

    Raises:
        UsageError: If a wish can never be fulfilled; the message says which and why.
    """
    _check(wishes)
    on_gpu = wishes.device.startswith("cuda") or (
        wishes.device == "auto" and torch.cuda.is_available()
    )
    recipe = start_recipe(wishes.preset, on_gpu=on_gpu, from_scratch=wishes.from_scratch)
    if has_time and wishes.preset is None:
        recipe = replace(recipe, steps=None)
    shape = _with(recipe.shape, batch=wishes.batch, frames=wishes.frames, patch=wishes.patch)
    return _with(
        recipe,
        shape=shape,
        stage=None if wishes.stage is None else Stage(wishes.stage),
        steps=wishes.steps,
        lr=wishes.lr,
        frequency_weight=None if wishes.loss is None else LOSSES[wishes.loss],
        degradation=None if wishes.degradation is None else Degradation(wishes.degradation),
        dtype=None if wishes.dtype == "auto" else _precision(wishes.dtype),
        accumulate=wishes.accumulate,
        recompute=recipe.recompute or wishes.recompute,
        seed=wishes.seed,
        perceptual=replace(recipe.perceptual, **wishes.perceptual),
    )


def choose_network(wishes: FinetuneOptions) -> Network:
    """The network to begin with, on the device of the wishes.

    Raises:
        UsageError: If a network from scratch is wished for that has no entry in the catalog, or if
            the network does not enlarge four times, as the training footage is made for.
        VsrmError: As `vsrm_cli.checkpoints.loading.load_model`.
    """
    if not wishes.from_scratch:
        network = load_model(wishes.model, device=wishes.device, dtype="fp32")
        _check_scale(network)
        return network.requires_grad_(True)
    if wishes.model not in MODELS:
        raise UsageError(
            f"With --from-scratch the model must be one of {', '.join(MODELS)}, not "
            f'"{wishes.model}".'
        )
    entry = MODELS[wishes.model]
    torch.manual_seed(wishes.seed)
    new: Network = FAMILIES[entry.network].network(entry.config)
    _check_scale(new)
    return new.to(find_device(wishes.device))


def _check_scale(network: Network) -> None:
    if network.scale != SCALE:
        raise UsageError(
            f"{network.name} enlarges {network.scale} times, and vsrm finetune trains networks "
            f"that enlarge {SCALE} times; give another --model, such as vsrm-t."
        )


def _check(wishes: FinetuneOptions) -> None:
    for name in ("steps", "batch", "frames", "patch", "accumulate", "workers"):
        value = getattr(wishes, name)
        if value is not None and value < 1:
            option = "clip-frames" if name == "frames" else name
            raise UsageError(f"The number for --{option} must be 1 or more, not {value}.")
    if wishes.lr is not None and not 0 < wishes.lr < math.inf:
        raise UsageError(f"The learning rate must be a number above 0, not {wishes.lr}.")
    for name, weight in wishes.perceptual.items():
        option = f"--{name.replace('_', '-')}"
        if wishes.stage != Stage.SHARP:
            raise UsageError(f"{option} is for --stage sharp.")
        if not 0 <= weight < math.inf:
            raise UsageError(f"The number for {option} must be 0 or more, not {weight}.")
    dtypes = ("auto", *DTYPES, *Precision)
    for name, value, choices in (
        ("stage", wishes.stage, tuple(Stage)),
        ("loss", wishes.loss, tuple(LOSSES)),
        ("degradation", wishes.degradation, tuple(Degradation)),
        ("dtype", wishes.dtype, dtypes),
    ):
        if value is not None and value not in choices:
            raise UsageError(f'The {name} must be one of {", ".join(choices)}, not "{value}".')


def _precision(dtype: str) -> Precision:
    return DTYPES[dtype] if dtype in DTYPES else Precision(dtype)


def _with(values: _Values, **wishes: Any) -> _Values:
    """The values, with those wishes that there are in their place."""
    return replace(values, **{name: x for name, x in wishes.items() if x is not None})


def _words(wishes: FinetuneOptions, out: Path, recipe: Recipe) -> dict[str, str]:
    """What the weight file says about itself."""
    began = f"new weights of {wishes.model}" if wishes.from_scratch else wishes.model
    return {
        "name": out.absolute().name,
        "source": f"vsrm finetune, from {began}",
        "degradation": str(recipe.degradation),
    }


def _skipped(footage: Footage) -> str:
    """What is wrong with files that were passed over, a few of them by name."""
    first = "; ".join(skipped.why.rstrip(".") for skipped in footage.skipped[:SKIPPED_NAMED])
    more = len(footage.skipped) - SKIPPED_NAMED
    return f"{len(footage.skipped)} skipped: {first}" + (f"; and {more} more" if more > 0 else "")


def _shrunk(wanted: ClipShape, shape: ClipShape, data: Path) -> str:
    return (
        f"{data} is small: clips have {shape.frames} frames (not {wanted.frames}) and patches "
        f"{shape.patch} pixels (not {wanted.patch})"
    )
