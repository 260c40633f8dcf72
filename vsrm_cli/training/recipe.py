"""Everything that decides what a training run computes, and the recipes of the papers."""

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from vsrm_cli.data.degradations import Degradation
from vsrm_cli.data.sample import ClipShape
from vsrm_cli.errors import UsageError

# The paper's weight of the loss in frequencies.
FREQUENCY_WEIGHT = 0.02


class Stage(enum.StrEnum):
    """What a run teaches."""

    FLOW = "flow"
    FRAMES = "frames"
    CLIPS = "clips"
    SHARP = "sharp"


class Precision(enum.StrEnum):
    """What a run computes in; weights, averages and losses are float32 in any case."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@dataclass(frozen=True)
class PerceptualWeights:
    """How much each loss of `Stage.SHARP` counts, beside the pixel loss, which counts 1.

    Attributes:
        sharpen: How strongly the ground truth is sharpened.
        feature_weight: Of the difference that a feature network sees.
        adversarial_weight: Of what the discriminator says, once it has learned alone for a while.
        temporal_weight: Of errors that change along the motion.
        pattern_weight: Of fine checkerboards that the ground truth does not show.
        cleaning_weight: Of artifacts that are left in the features of single frames.
        discriminator_lr: Learning rate of the discriminator.
    """

    sharpen: float = 0.5
    feature_weight: float = 0.1
    adversarial_weight: float = 0.02
    temporal_weight: float = 0.5
    pattern_weight: float = 4.0
    cleaning_weight: float = 0.5
    discriminator_lr: float = 1e-4


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes.

    Attributes:
        stage: What is taught.
        steps: Length of the run and of its cosine schedule; None for as many as fit into the
            time that the run is given, which its first steps tell.
        shape: Size of the training clips; its batch is that of all processes together.
        lr: Highest learning rate.
        warmup: Steps in which the rate rises to `lr`.
        lr_end: To which share of itself the rate falls at the end.
        clip_norm: Greatest norm of a step's gradient; None for any.
        ema: How much of the average of the weights is kept in each step, at the end.
        frequency_weight: Weight of the loss in frequencies; the paper's is 0.02.
        flow_frozen: Steps in which the flow network stays as it is.
        flow_lr: Its rate after that, as a share of `lr`.
        trunk_lr: Rate of what `Stage.FRAMES` taught, as a share of `lr`, in `Stage.CLIPS`.
        dtype: What networks compute in.
        accumulate: Into how many parts a batch is divided that are computed one after the other:
            less memory, the same step.
        recompute: Whether the branches are computed a second time for their gradients, instead
            of being kept: much less memory, a third more time.
        mirrored: Whether each clip is followed by itself backwards.
        degradation: How the small frames are made.
        seed: Decides every sample.
        perceptual: Of `Stage.SHARP`; without effect in others.
    """

    stage: Stage
    steps: int | None
    shape: ClipShape
    lr: float
    warmup: int = 100
    lr_end: float = 0.02
    clip_norm: float | None = 0.5
    ema: float = 0.999
    frequency_weight: float = FREQUENCY_WEIGHT
    flow_frozen: int = 0
    flow_lr: float = 0.25
    trunk_lr: float = 1.0
    dtype: Precision = Precision.FLOAT32
    accumulate: int = 1
    recompute: bool = False
    mirrored: bool = False
    degradation: Degradation = Degradation.BI
    seed: int = 0
    perceptual: PerceptualWeights = PerceptualWeights()

    def settings(self) -> dict[str, str]:
        """All values that have an effect by their names, as text, those of the shape among them."""
        values = asdict(self)
        shape, perceptual = values.pop("shape"), values.pop("perceptual")
        if self.stage is Stage.SHARP:
            values |= perceptual
        return {name: str(value) for name, value in (values | shape).items()}


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs between the settings of two runs, each as "name: value then, value now"."""
    changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    pairs = ((name, then.get(name, "nothing"), now.get(name, "nothing")) for name in changed)
    return [f"{name.replace('_', '-')}: {old} then, {new} now" for name, old, new in pairs]


# The recipes of VSRM's paper (arXiv 2506.22762). Its authors tell the data, the number of frames
# and the number of iterations; all else is inherited from the option files of PSRT and IART
# (github.com/XPixelGroup/RethinkVSRAlignment, github.com/kai422/IART), on which they built.
REDS6 = Recipe(
    stage=Stage.CLIPS,
    steps=300_000,
    shape=ClipShape(frames=6, patch=64, batch=8, photo_share=0.0),
    lr=2e-4,
    warmup=0,
    lr_end=5e-4,  # 1e-7 of 2e-4
    clip_norm=None,
    ema=0.999,
    flow_frozen=5000,
    flow_lr=0.125,
    dtype=Precision.FLOAT16,
    recompute=True,
)
PRESETS = {
    "reds6": REDS6,
    "reds16": replace(REDS6, steps=600_000, shape=replace(REDS6.shape, frames=16)),
    # Starts from what reds16 gave. Its clips of seven frames are mirrored to fourteen.
    "vimeo": replace(
        REDS6,
        shape=replace(REDS6.shape, frames=7),
        mirrored=True,
        lr=1e-4,
        lr_end=1e-3,
        flow_frozen=0,
        flow_lr=0.25,
    ),
}

# Ours: a small part of a network's own training, at a small rate that rises slowly: Adam's first
# steps are as long as all others, and point nowhere yet. Small enough that some minutes on a CPU
# are many steps; a GPU is given more of everything.
FINETUNING = Recipe(
    stage=Stage.CLIPS,
    steps=2000,
    shape=ClipShape(frames=5, patch=32, batch=2, photo_share=0.5),
    lr=1e-4,
    warmup=20,
    frequency_weight=0.0,
    flow_frozen=50,
)
FINETUNING_ON_GPU = replace(
    FINETUNING, steps=20_000, shape=ClipShape(frames=7, patch=48, batch=8, photo_share=0.5)
)
# What a network that knows nothing is taught with, where no preset is asked for.
RATE_FROM_SCRATCH = 1e-3


def start_recipe(preset: str | None, *, on_gpu: bool, from_scratch: bool) -> Recipe:
    """The recipe that a user begins with, before any wishes.

    Args:
        preset: A name of `PRESETS`, or None for our own.
        on_gpu: Whether there is a GPU to compute on. Float16 is for these only.
        from_scratch: Whether the network knows nothing yet.

    Raises:
        UsageError: If there is no such preset.
    """
    if preset is not None and preset not in PRESETS:
        raise UsageError(f'The preset must be one of {", ".join(PRESETS)}, not "{preset}".')
    if preset is not None:
        recipe = PRESETS[preset]
        return recipe if on_gpu else replace(recipe, dtype=Precision.FLOAT32)
    recipe = FINETUNING_ON_GPU if on_gpu else FINETUNING
    return replace(recipe, lr=RATE_FROM_SCRATCH) if from_scratch else recipe
