"""Train `vsrm-t` from scratch, and `vsrm-t-real` behind it, by the recipe of the shipped weights.

    python benchmarks/train_vsrm_t.py TRAIN VALIDATION OUT
    torchrun --nproc-per-node 2 benchmarks/train_vsrm_t.py TRAIN VALIDATION OUT

TRAIN holds photos and videos, VALIDATION one folder of pictures for each clip. OUT receives the
packs made of them and a folder for each stage. Run it again to go on where it stopped. Torchrun
uses two cores better than two threads do: each process takes half of every batch.

The shipped weights took a few detours more, which `weights/README.md` tells.
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vsrm_cli.checkpoints.loading import read_weights
from vsrm_cli.data.degradations import Degradation
from vsrm_cli.data.make_pack import make_pack, make_validation_pack
from vsrm_cli.data.packs import load_pack
from vsrm_cli.data.sample import ClipShape
from vsrm_cli.models.network import Network
from vsrm_cli.models.presets import VSRM_T
from vsrm_cli.models.vsrm import VSRM
from vsrm_cli.training.distributed import joined, rank, wait_for_all
from vsrm_cli.training.loop import Progress, finetune
from vsrm_cli.training.recipe import Precision, Recipe, Stage
from vsrm_cli.training.run_dir import STATE_FILE, WEIGHTS_FILE
from vsrm_cli.training.validation import Pair, with_small_twins

# The loss in frequencies with a tenth of the paper's weight: without a scale the transform of
# these patches makes it several times as large as the loss in pixels already.
FREQUENCY_WEIGHT = 0.002

SHAPE = ClipShape(frames=5, patch=32, batch=4, photo_share=0.6, motion=3.0)

# True motion first, of photos alone; then half real footage, whose frames tell it.
FLOW = Recipe(
    stage=Stage.FLOW,
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
FRAMES = Recipe(
    stage=Stage.FRAMES,
    steps=5000,
    shape=SHAPE,
    lr=1e-3,
    ema=0.998,
    frequency_weight=FREQUENCY_WEIGHT,
    dtype=Precision.BFLOAT16,
    seed=37,
)
CLIPS = Recipe(
    stage=Stage.CLIPS,
    steps=1000,
    shape=SHAPE,
    lr=1.2e-3,
    warmup=40,
    ema=0.99,
    frequency_weight=FREQUENCY_WEIGHT,
    flow_frozen=1000,
    trunk_lr=0.5,
    dtype=Precision.BFLOAT16,
    seed=47,
)
STAGES = (FLOW, FLOW_OF_FOOTAGE, FRAMES, CLIPS)

# From the weights for clean footage to those for worn footage.
WORN = Degradation.REAL
REAL_STAGES = (
    replace(FLOW_OF_FOOTAGE, steps=450, lr=5e-4, degradation=WORN, seed=19),
    replace(FRAMES, steps=3900, degradation=WORN, seed=57),
)

# What each weight file says of itself.
WORDS = {"licence": "MIT", "author": "the vsrm authors"}


@dataclass(frozen=True)
class Options:
    """Where things are: the folder for results, the packs to train on and to validate with."""

    out: Path
    pack: Path
    clips: dict[str, Pair]


def main() -> None:
    """Run the stages one after another."""
    with joined("cpu"):
        options = read_options(__doc__ or "")
        torch.manual_seed(0)
        network: Network = VSRM(VSRM_T)
        for name, stages in (("vsrm-t", STAGES), ("vsrm-t-real", REAL_STAGES)):
            for number, recipe in enumerate(stages, start=1):
                out = options.out / f"{name}-{number}-{recipe.stage}"
                run_stage(network, recipe, out, options, name=name)
                network = read_weights(out / WEIGHTS_FILE)


def run_stage(network: Network, recipe: Recipe, out: Path, options: Options, *, name: str) -> None:
    """Run one stage into a folder, or go on with it."""
    finetune(
        network,
        options.pack,
        out,
        recipe,
        validation=options.clips,
        words={**WORDS, "name": name, "degradation": str(recipe.degradation)},
        resume=(out / STATE_FILE).exists(),
        report=tell,
        every=50,
    )


def read_options(about: str) -> Options:
    """Read the command line, and make the packs that are missing."""
    arguments = argparse.ArgumentParser(description=about)
    for name in ("train", "validation", "out"):
        arguments.add_argument(name, type=Path)
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    pack, clips = (given.out / f"{name}.safetensors" for name in ("train", "validation"))
    if rank() == 0:
        if not pack.exists():
            make_pack(given.train, pack, clips_per_video=28)
        if not clips.exists():
            make_validation_pack(given.validation, clips)
    wait_for_all()
    return Options(given.out, pack, with_small_twins(load_pack(clips)[1]))


def tell(progress: Progress) -> None:
    """Print a line where the metrics have got one."""
    if progress.accident:
        print(progress.accident, flush=True)  # noqa: T201 - this script is a terminal program
    if progress.line:
        values = "  ".join(f"{name} {value:.6g}" for name, value in progress.line.items())
        print(f"{time.strftime('%H:%M:%S')}  {values}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
