"""The recipe of a training run, and the recipes of the papers."""

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from vsrm_cli.data.degradations import Degradation
from vsrm_cli.data.training_batch import ClipShape

# The weight of the loss in frequencies, by the name of the whole loss. The second is the paper's.
FREQUENCY_WEIGHT = 0.02
LOSSES = {"charbonnier": 0.0, "charbonnier+frequency": FREQUENCY_WEIGHT}


class TrainingStage(enum.StrEnum):
    """What a run trains."""

    FLOW = "flow"
    FRAMES = "frames"
    CLIPS = "clips"
    SHARP = "sharp"


class Precision(enum.StrEnum):
    """What a run computes in; weights, averages and losses are always float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@dataclass(frozen=True)
class PerceptualWeights:
    """The weights of the losses of `TrainingStage.SHARP`; the pixel loss has weight 1.

    Attributes:
        sharpen: How strongly the ground truth is sharpened.
        feature_weight: Of the difference of features.
        adversarial_weight: Of the adversarial loss, after the discriminator has been trained alone.
        temporal_weight: Of errors that change along the motion.
        pattern_weight: Of checkerboards and grids of fine dots that the ground truth does not show.
        flat_weight: Of errors where the ground truth is flat.
        color_weight: Of wrong colors of areas.
        cleaning_weight: Of artifacts that remain in the features of single frames.
        discriminator_lr: Learning rate of the discriminator.
    """

    sharpen: float = 0.5
    feature_weight: float = 0.1
    adversarial_weight: float = 0.02
    temporal_weight: float = 0.5
    pattern_weight: float = 4.0
    flat_weight: float = 1.0
    color_weight: float = 0.75
    cleaning_weight: float = 0.5
    discriminator_lr: float = 1e-4


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes.

    Attributes:
        stage: What is trained.
        steps: Length of the run and of its cosine schedule; None for as many as fit into the time
            budget, by the speed of the first steps.
        shape: Size of the training clips; its batch is the total over all processes.
        lr: Peak learning rate.
        warmup: Steps in which the rate rises to `lr`.
        lr_end: The final rate, as a share of `lr`.
        clip_norm: Maximum norm of the gradient; None for no clipping.
        ema: Decay of the moving average of the weights.
        frequency_weight: Weight of the frequency loss; 0.02 in the paper.
        flow_frozen: Steps in which the flow network is frozen.
        flow_lr: Its rate after that, as a share of `lr`.
        trunk_lr: Rate of the backbone, which `TrainingStage.FRAMES` trains, as a share of `lr`.
        dtype: Precision of the forward and backward passes.
        accumulate: Gradient accumulation: a batch is computed in this many parts, with less memory.
        recompute: Gradient checkpointing: much less memory, a third more time.
        mirrored: Whether each clip is followed by itself backwards.
        degradation: How LR frames are made.
        seed: Of all samples.
        perceptual: Of `TrainingStage.SHARP`; unused in other stages.
    """

    stage: TrainingStage
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
        """All values that have an effect, by name, as text; those of the shape included."""
        values = asdict(self)
        shape, perceptual = values.pop("shape"), values.pop("perceptual")
        if self.stage is TrainingStage.SHARP:
            values |= perceptual
        return {name: str(value) for name, value in (values | shape).items()}


def list_differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The differences between the settings of two runs, as "name: value then, value now"."""
    changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    pairs = ((name, then.get(name, "nothing"), now.get(name, "nothing")) for name in changed)
    return [f"{name.replace('_', '-')}: {old} then, {new} now" for name, old, new in pairs]


# The recipes of VSRM's paper (arXiv 2506.22762). It states the data, the number of frames and the
# number of iterations; everything else is from the option files of PSRT and IART
# (github.com/XPixelGroup/RethinkVSRAlignment, github.com/kai422/IART), on which it is based.
REDS6 = Recipe(
    stage=TrainingStage.CLIPS,
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
    # Starts from the weights of reds16. Its clips of seven frames are mirrored to fourteen.
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

# Our own recipe for fine-tuning: few steps at a low rate with a slow warmup, since Adam's first
# steps are full-length and point nowhere yet. Small enough for many steps in minutes on a CPU; a
# GPU gets more of everything.
FINETUNING = Recipe(
    stage=TrainingStage.CLIPS,
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
# What the stage sharp adds to a frame is added again with each frame that it is propagated to: with
# short clips, sharpness builds up in long windows (weights/README.md, `vsrm-t-sharp`).
SHARP_FRAMES = 16
# The rate of a network from scratch, without a preset.
RATE_FROM_SCRATCH = 1e-3


def default_recipe(
    preset: str | None,
    stage: TrainingStage | None = None,
    *,
    on_gpu: bool,
    from_scratch: bool,
) -> Recipe:
    """The recipe before any options.

    Args:
        preset: A name of `PRESETS`, or None for our own recipe.
        stage: What to train; None for the stage of the recipe.
        on_gpu: Whether the run computes on a GPU. Float16 is for GPUs only.
        from_scratch: Whether the network starts from new weights.
    """
    if preset is not None:
        recipe = PRESETS[preset] if on_gpu else replace(PRESETS[preset], dtype=Precision.FLOAT32)
    else:
        recipe = FINETUNING_ON_GPU if on_gpu else FINETUNING
        if stage is TrainingStage.SHARP:
            shape = replace(recipe.shape, frames=SHARP_FRAMES, batch=recipe.shape.batch // 2)
            recipe = replace(recipe, shape=shape)
        if from_scratch:
            recipe = replace(recipe, lr=RATE_FROM_SCRATCH)
    return recipe if stage is None else replace(recipe, stage=stage)
