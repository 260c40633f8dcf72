"""Train the bundled networks from scratch: `vsrm-t`, then `vsrm-t-real`, then `vsrm-t-sharp`.

    python benchmarks/train_vsrm_t.py TRAIN VALIDATION OUT
    python benchmarks/train_vsrm_t.py TRAIN VALIDATION OUT --minutes 8 --device cuda
    torchrun --nproc-per-node 2 benchmarks/train_vsrm_t.py TRAIN VALIDATION OUT

TRAIN holds photos and videos, including drawn ones (`draw_graphics.py`), VALIDATION one folder of
frames for each clip. OUT receives the packs made from them and a folder for each stage. Run it
again to resume. With --minutes, the stages share that time instead of a fixed number of steps, and
the schedule of each follows the clock.

The bundled weights were trained with some changes on the way; see `weights/README.md`.
"""

import argparse
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vsrm_cli.checkpoints.loading import read_weights
from vsrm_cli.data.degradations import Degradation
from vsrm_cli.data.make_pack import make_pack
from vsrm_cli.data.training_batch import ClipShape
from vsrm_cli.evaluation.feature_networks import load_efficientnet_lite0
from vsrm_cli.evaluation.test_sets import find_clips, read_clip
from vsrm_cli.models.network import Network
from vsrm_cli.models.presets import VSRM_T
from vsrm_cli.models.vsrm_compact import VSRMCompact
from vsrm_cli.training.distributed import barrier, process_group, rank
from vsrm_cli.training.loop import TrainingProgress, train
from vsrm_cli.training.recipe import PerceptualWeights, Precision, Recipe, TrainingStage
from vsrm_cli.training.run_dir import STATE_FILE, WEIGHTS_FILE
from vsrm_cli.training.validation import Pair

SHAPE = ClipShape(frames=5, patch=32, batch=4, photo_share=0.6, motion=3.0)

# First flow, on photos with known motion; then half of the clips are real footage.
FLOW = Recipe(
    stage=TrainingStage.FLOW,
    steps=3000,
    shape=ClipShape(frames=2, patch=64, batch=4, photo_share=1.0, motion=6.0),
    lr=2e-3,
    warmup=50,
    clip_norm=1.0,
    ema=0.995,
    seed=5,
)
FLOW_OF_FOOTAGE = replace(
    FLOW,
    steps=700,
    shape=ClipShape(frames=2, patch=48, batch=6, photo_share=0.5, motion=5.0),
    lr=6e-4,
    ema=0.99,
    seed=9,
)
# Then single frames without propagation, which are cheap, then clips, where propagation starts
# small and learns fast. The last stage has long clips and trains the flow, too.
FRAMES = Recipe(
    stage=TrainingStage.FRAMES,
    steps=5000,
    shape=SHAPE,
    lr=1e-3,
    ema=0.998,
    frequency_weight=0.0,
    dtype=Precision.BFLOAT16,
    seed=37,
)
CLIPS = Recipe(
    stage=TrainingStage.CLIPS,
    steps=6000,
    shape=ClipShape(frames=8, patch=40, batch=4, photo_share=0.5, motion=3.0),
    lr=8e-4,
    warmup=40,
    ema=0.998,
    frequency_weight=0.0,
    flow_frozen=1_000_000,
    trunk_lr=0.5,
    dtype=Precision.BFLOAT16,
    seed=47,
)
LONG_CLIPS = replace(
    CLIPS,
    steps=2000,
    shape=ClipShape(frames=12, patch=40, batch=3, photo_share=0.5, motion=3.0),
    lr=3e-4,
    flow_frozen=0,
    flow_lr=0.1,
    trunk_lr=1.0,
    seed=57,
)
# Each stage, and its share of --minutes.
STAGES = (
    (FLOW, 0.07),
    (FLOW_OF_FOOTAGE, 0.03),
    (FRAMES, 0.1),
    (CLIPS, 0.3),
    (LONG_CLIPS, 0.2),
)
# From clean footage to compressed and noisy footage.
REAL = replace(LONG_CLIPS, lr=4e-4, degradation=Degradation.REAL, seed=67)
# From there to perceptual quality.
SHARP = replace(
    REAL,
    stage=TrainingStage.SHARP,
    steps=1500,
    shape=ClipShape(frames=6, patch=40, batch=2, photo_share=0.4, motion=3.0),
    lr=2e-4,
    ema=0.99,
    perceptual=PerceptualWeights(
        sharpen=0.4, feature_weight=0.2, adversarial_weight=0.06, cleaning_weight=0.0
    ),
    seed=77,
)
NETWORKS = {
    "vsrm-t": STAGES,
    "vsrm-t-real": ((REAL, 0.1),),
    "vsrm-t-sharp": ((SHARP, 0.2),),
}

# Factors of batch and patch size on a GPU.
ON_GPU = {"batch": 4, "patch": 1.6}

# Metadata of each weight file.
METADATA = {"licence": "MIT", "author": "the vsrm authors"}


@dataclass(frozen=True)
class Options:
    """Output folder, training pack, validation clips, time for all stages, and device."""

    out: Path
    pack: Path
    clips: dict[str, Pair]
    minutes: float | None
    device: str


def main() -> None:
    """Run all stages."""
    options = read_options(__doc__ or "")
    with process_group(options.device):
        torch.manual_seed(0)
        network: Network = VSRMCompact(VSRM_T).to(options.device)
        for name, stages in NETWORKS.items():
            for number, (recipe, share) in enumerate(stages, start=1):
                out = options.out / f"{name}-{number}-{recipe.stage}"
                run_stage(network, recipe, share, out, options, name=name)
                network = read_weights(out / WEIGHTS_FILE).to(options.device)


def run_stage(
    network: Network, recipe: Recipe, share: float, out: Path, options: Options, *, name: str
) -> None:
    """Run one stage into a folder, or resume it."""
    if options.device != "cpu":
        shape = recipe.shape
        patch = round(ON_GPU["patch"] * shape.patch / 8) * 8
        recipe = replace(
            recipe,
            shape=replace(shape, batch=round(ON_GPU["batch"] * shape.batch), patch=patch),
        )
    if options.minutes is not None:
        recipe = replace(recipe, steps=None)
    train(
        network,
        options.pack,
        out,
        recipe,
        validation=options.clips,
        metadata={**METADATA, "name": name, "degradation": str(recipe.degradation)},
        minutes=math.inf if options.minutes is None else share * options.minutes,
        resume=(out / STATE_FILE).exists(),
        report=print_metrics,
        every=50,
        validations=10 if options.minutes is None else 1,
        features=load_efficientnet_lite0() if recipe.stage is TrainingStage.SHARP else None,
        workers=1 if options.device == "cpu" else 8,
    )


def read_options(about: str) -> Options:
    """Read the command line, and make the pack if it is missing."""
    arguments = argparse.ArgumentParser(description=about)
    for name in ("train", "validation", "out"):
        arguments.add_argument(name, type=Path)
    arguments.add_argument("--minutes", type=float, help="time for all stages together")
    arguments.add_argument("--device", default="cpu", help="cpu or cuda")
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    pack = given.out / "train.safetensors"
    if rank() == 0 and not pack.exists():
        make_pack(given.train, pack, clips_per_video=32)
    barrier()
    clips = [read_clip(files, "bi") for files in find_clips(given.validation, "bi").clips]
    pairs = {clip.name: (clip.lr, clip.hr) for clip in clips}
    return Options(given.out, pack, pairs, given.minutes, given.device)


def print_metrics(progress: TrainingProgress) -> None:
    """Print each new line of the metrics."""
    if progress.rollback:
        print(progress.rollback, flush=True)  # noqa: T201 - this script is a terminal program
    if progress.line:
        values = "  ".join(f"{name} {value:.6g}" for name, value in progress.line.items())
        print(f"{time.strftime('%H:%M:%S')}  {values}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
