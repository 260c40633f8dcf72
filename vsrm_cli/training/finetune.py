"""The job of `vsrm finetune`: train a network on a folder of footage.

The options become a recipe here, and the folder becomes clips; the training itself is in
`vsrm_cli.training.loop`.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from vsrm_cli.checkpoints.catalog import FOR_CLEAN, MODELS, START_FOR_COMPRESSED, find_detail_pair
from vsrm_cli.checkpoints.loading import DTYPES, FAMILIES, find_device, load_model
from vsrm_cli.data.degradations import Degradation
from vsrm_cli.data.footage import Footage, open_footage
from vsrm_cli.data.training_batch import ClipShape
from vsrm_cli.data.validation_clips import validation_pairs
from vsrm_cli.errors import UsageError
from vsrm_cli.evaluation.feature_networks import load_efficientnet_lite0
from vsrm_cli.frame import SCALE
from vsrm_cli.models.network import Network
from vsrm_cli.training.loop import TrainingProgress, TrainingResult, train
from vsrm_cli.training.recipe import (
    LOSSES,
    PRESETS,
    Precision,
    Recipe,
    TrainingStage,
    default_recipe,
)
from vsrm_cli.training.run_dir import RunDir

# `START_FOR_COMPRESSED` if most clips are from compressed video, else `FOR_CLEAN`.
AUTO = "auto"

# More worker processes cost more memory than they save time.
MOST_WORKERS = 8

_Values = TypeVar("_Values", Recipe, ClipShape)

# Validation on a CPU is kept short: clips, frames of each, and side in pixels at most.
VALIDATION_ON_CPU = {"most": 6, "frames": 7, "side": 192}

# How many skipped files a message names.
SKIPPED_NAMED = 5


@dataclass(frozen=True)
class FinetuneOptions:
    """The options of `vsrm finetune`; None means the value of the recipe.

    Attributes:
        model: The network to start from: a name of the catalog, a weight file, or a Hub id; "auto"
            lets the footage decide, see `choose_start_model`.
        from_scratch: Whether to start from new weights of that network instead.
        preset: A published recipe, see `vsrm_cli.training.recipe.PRESETS`.
        stage: What to train: "flow", "frames", "clips" or "sharp".
        steps: Length of the run.
        batch: Clips in each step.
        frames: Frames of each clip.
        patch: Side of the LR frames in pixels.
        lr: Peak learning rate.
        loss: One of `LOSSES`.
        degradation: How LR frames are made: "bi", "bd" or "real".
        seed: Of all samples and new weights.
        device: "auto", "cpu", "cuda", "cuda:<n>" or "mps".
        dtype: "auto", a name of `DTYPES`, or its long one, such as "bfloat16".
        accumulate: Into how many parts each batch is divided.
        recompute: Whether to use gradient checkpointing.
        workers: Processes that prepare samples.
        perceptual: Values of `PerceptualWeights` by name, for the stage "sharp" only.

    Raises:
        UsageError: If an option can never work; the message says which and why.
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

    def __post_init__(self) -> None:
        """Refuse values that can never work."""
        for name in ("steps", "batch", "frames", "patch", "accumulate", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                option = "clip-frames" if name == "frames" else name
                raise UsageError(f"The number for --{option} must be 1 or more, not {value}.")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise UsageError(f"The learning rate must be a number above 0, not {self.lr}.")
        for name, weight in self.perceptual.items():
            option = f"--{name.replace('_', '-')}"
            if self.stage != TrainingStage.SHARP:
                raise UsageError(f"{option} is for --stage sharp.")
            if not 0 <= weight < math.inf:
                raise UsageError(f"The number for {option} must be 0 or more, not {weight}.")
        for name, value, choices in (
            ("preset", self.preset, tuple(PRESETS)),
            ("stage", self.stage, tuple(TrainingStage)),
            ("loss", self.loss, tuple(LOSSES)),
            ("degradation", self.degradation, tuple(Degradation)),
            ("dtype", self.dtype, ("auto", *DTYPES, *Precision)),
        ):
            if value is not None and value not in choices:
                raise UsageError(f'The {name} must be one of {", ".join(choices)}, not "{value}".')


def finetune(
    data: Path,
    out: Path,
    options: FinetuneOptions,
    *,
    validation: Path | None = None,
    minutes: float = math.inf,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    report: Callable[[TrainingProgress], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> TrainingResult:
    """Train a network on the footage in a folder; see `vsrm_cli.training.loop.train`.

    Args:
        data: Videos, folders of frames, photos, packs, or pairs of such in ``hr`` and ``lr``.
        out: Folder for the results.
        options: The options.
        validation: Footage to validate on; by default clips out of ``data``.
        minutes: Time budget. Without a number of steps it decides how many there are.
        resume: Resume the run in the folder.
        should_stop: Called after each step; if true, the run is saved and ends.
        report: Called after each step.
        warn: Called with each warning before the training starts.

    Raises:
        VsrmError: Any of its subclasses; the message says what to do.
    """
    features = load_efficientnet_lite0() if options.stage == TrainingStage.SHARP else None
    find_device(options.device)  # fails before the footage is read
    if not resume:
        RunDir(out).check_is_free()
    # Before the footage is read, since it may be refused.
    network = None if options.model == AUTO else load_start_network(options)
    footage = open_footage(data)
    if footage.skipped:
        warn(_skipped(footage))
    options = choose_start_model(options, footage, warn)
    network = network or load_start_network(options)
    recipe = choose_recipe(options, has_time=math.isfinite(minutes))
    shape = footage.fit(recipe.shape)
    if shape != recipe.shape:
        warn(_shrunk(recipe.shape, shape, data))
    on_cpu = network.device.type == "cpu"
    watched = footage if validation is None else validation
    sizes = VALIDATION_ON_CPU if on_cpu else {}
    workers = 1 if on_cpu else min(MOST_WORKERS, os.cpu_count() or 1)
    return train(
        network,
        footage,
        out,
        replace(recipe, shape=shape),
        features=features,
        validation=validation_pairs(watched, recipe.degradation, **sizes),
        metadata=_metadata(options, out, recipe),
        settings={
            "model": options.model,
            "from_scratch": str(options.from_scratch),
            "data": str(data.absolute()),
            "validation": str((validation or data).absolute()),
        },
        minutes=minutes,
        resume=resume,
        should_stop=should_stop,
        report=report,
        workers=options.workers or workers,
    )


def choose_start_model(
    options: FinetuneOptions, footage: Footage, warn: Callable[[str], None]
) -> FinetuneOptions:
    """Choose the network to start from by the codecs of the footage, and its degradation.

    Args:
        options: Options that the user has set are kept.
        footage: The training footage.
        warn: Called if the footage decides.
    """
    if options.model == AUTO:
        is_open = not options.from_scratch and options.preset is None
        model = START_FOR_COMPRESSED if is_open and footage.is_compressed else FOR_CLEAN
        options = replace(options, model=model)
        if model == START_FOR_COMPRESSED:
            warn(
                f"the footage is compressed video, so training starts from {model} and degrades "
                f"like such footage; for clean footage give --model {FOR_CLEAN}"
            )
    pair = find_detail_pair(options.model)
    start = options.model if pair is None else pair.soft
    if start == START_FOR_COMPRESSED and options.degradation is None and options.preset is None:
        options = replace(options, degradation=str(Degradation.REAL))
    return options


def choose_recipe(options: FinetuneOptions, *, has_time: bool) -> Recipe:
    """Make a recipe of the options.

    Args:
        options: The options.
        has_time: Whether there is a time budget: it decides the number of steps if neither an
            option nor a preset does.
    """
    on_gpu = options.device.startswith("cuda") or (
        options.device == "auto" and torch.cuda.is_available()
    )
    stage = None if options.stage is None else TrainingStage(options.stage)
    recipe = default_recipe(options.preset, stage, on_gpu=on_gpu, from_scratch=options.from_scratch)
    if has_time and options.preset is None:
        recipe = replace(recipe, steps=None)
    shape = _with(recipe.shape, batch=options.batch, frames=options.frames, patch=options.patch)
    return _with(
        recipe,
        shape=shape,
        steps=options.steps,
        lr=options.lr,
        frequency_weight=None if options.loss is None else LOSSES[options.loss],
        degradation=None if options.degradation is None else Degradation(options.degradation),
        dtype=None if options.dtype == "auto" else _precision(options.dtype),
        accumulate=options.accumulate,
        recompute=recipe.recompute or options.recompute,
        seed=options.seed,
        perceptual=replace(recipe.perceptual, **options.perceptual),
    )


def load_start_network(options: FinetuneOptions) -> Network:
    """Load or create the network to start from, on the device of the options.

    Raises:
        UsageError: If a network from scratch has no entry in the catalog, or if the network does
            not enlarge four times.
        VsrmError: As `vsrm_cli.checkpoints.loading.load_model`.
    """
    if not options.from_scratch:
        network = load_model(options.model, device=options.device, dtype="fp32")
        _check_scale(network)
        return network.requires_grad_(True)
    if options.model not in MODELS:
        raise UsageError(
            f"With --from-scratch the model must be one of {', '.join(MODELS)}, not "
            f'"{options.model}".'
        )
    entry = MODELS[options.model]
    torch.manual_seed(options.seed)
    new: Network = FAMILIES[entry.network].network(entry.config)
    _check_scale(new)
    return new.to(find_device(options.device))


def _check_scale(network: Network) -> None:
    if network.scale != SCALE:
        raise UsageError(
            f"{network.name} enlarges {network.scale} times, and vsrm finetune trains networks "
            f"that enlarge {SCALE} times; give another --model, such as vsrm-t."
        )


def _precision(dtype: str) -> Precision:
    return Precision(str(DTYPES.get(dtype, dtype)).removeprefix("torch."))


def _with(values: _Values, **changes: Any) -> _Values:
    """The values, with the changes that are not None."""
    return replace(values, **{name: x for name, x in changes.items() if x is not None})


def _metadata(options: FinetuneOptions, out: Path, recipe: Recipe) -> dict[str, str]:
    """The metadata of the weight file."""
    began = f"new weights of {options.model}" if options.from_scratch else options.model
    return {
        "name": out.absolute().name,
        "source": f"vsrm finetune, from {began}",
        "degradation": str(recipe.degradation),
    }


def _skipped(footage: Footage) -> str:
    """What is wrong with skipped files; a few of them are named."""
    first = "; ".join(skipped.reason.rstrip(".") for skipped in footage.skipped[:SKIPPED_NAMED])
    more = len(footage.skipped) - SKIPPED_NAMED
    return f"{len(footage.skipped)} skipped: {first}" + (f"; and {more} more" if more > 0 else "")


def _shrunk(wanted: ClipShape, shape: ClipShape, data: Path) -> str:
    parts = []
    if shape.frames != wanted.frames:
        parts.append(f"clips have {shape.frames} frames (not {wanted.frames})")
    if shape.patch != wanted.patch:
        parts.append(f"patches have {shape.patch} pixels (not {wanted.patch})")
    return f"{data} is small: {' and '.join(parts)}"
