"""Train `vsrm-t` from scratch by the recipe of the shipped weights.

    python benchmarks/train_vsrm_t.py TRAIN VALIDATION OUT
    torchrun --nproc-per-node 2 benchmarks/train_vsrm_t.py TRAIN VALIDATION OUT

TRAIN holds photos and videos, VALIDATION one folder of pictures for each clip. OUT receives the
packs made of them and a folder for each stage. Run it again to go on where it stopped. Torchrun
uses two cores better than two threads do: each process takes half of every batch.

The shipped weights took a few detours more, which `weights/README.md` tells.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vsrm_cli.finetune import Progress, finetune
from vsrm_cli.learning.folder import STATE_FILE, WEIGHTS_FILE
from vsrm_cli.learning.processes import joined, rank, wait_for_all
from vsrm_cli.learning.recipe import Precision, Recipe, Stage
from vsrm_cli.models.catalog import VSRM_T
from vsrm_cli.models.network import Network
from vsrm_cli.models.vsrm import VSRM
from vsrm_cli.models.weights import read_weights
from vsrm_cli.pack import make_pack, make_validation_pack
from vsrm_cli.training.packs import load_pack
from vsrm_cli.training.sample import ClipShape

# The loss in frequencies with a tenth of the paper's weight: without a scale the transform of
# these patches makes it several times as large as the loss in pixels already.
FREQUENCY_WEIGHT = 0.002

STAGES = (
    Recipe(
        stage=Stage.FLOW,
        steps=1400,
        shape=ClipShape(frames=2, patch=48, batch=16, photo_share=1.0, motion=5.0),
        lr=1.5e-3,
        clip_norm=1.0,
        ema=0.995,
        dtype=Precision.BFLOAT16,
        seed=11,
    ),
    Recipe(
        stage=Stage.FRAMES,
        steps=1200,
        shape=ClipShape(frames=2, patch=48, batch=8, photo_share=0.75, motion=4.0),
        lr=1.5e-3,
        warmup=200,
        frequency_weight=FREQUENCY_WEIGHT,
        dtype=Precision.BFLOAT16,
        seed=7,
    ),
    Recipe(
        stage=Stage.FRAMES,
        steps=900,
        shape=ClipShape(frames=5, patch=32, batch=8, photo_share=0.6, motion=3.0),
        lr=1.2e-3,
        warmup=60,
        ema=0.998,
        frequency_weight=FREQUENCY_WEIGHT,
        dtype=Precision.BFLOAT16,
        seed=41,
    ),
    Recipe(
        stage=Stage.CLIPS,
        steps=820,
        shape=ClipShape(frames=5, patch=32, batch=4, photo_share=0.6, motion=3.0),
        lr=1.5e-3,
        warmup=50,
        ema=0.998,
        frequency_weight=FREQUENCY_WEIGHT,
        flow_frozen=200,
        flow_lr=0.05,
        trunk_lr=0.35,
        dtype=Precision.BFLOAT16,
        seed=42,
    ),
    Recipe(
        stage=Stage.CLIPS,
        steps=320,
        shape=ClipShape(frames=6, patch=32, batch=4, photo_share=0.6, motion=3.0),
        lr=1e-3,
        warmup=15,
        ema=0.99,
        frequency_weight=FREQUENCY_WEIGHT,
        flow_lr=0.1,
        trunk_lr=0.35,
        dtype=Precision.BFLOAT16,
        seed=52,
    ),
)

# What each weight file says of itself.
WORDS = {
    "licence": "MIT",
    "degradation": "BI x4: antialiased bicubic, rounded to 8 bits",
    "author": "the vsrm authors",
}


@dataclass(frozen=True)
class Options:
    """Where things are: the folder for results, the packs to train on and to validate with."""

    out: Path
    pack: Path
    clips: dict[str, Tensor]


def main() -> None:
    """Run the stages one after another."""
    with joined("cpu"):
        options = read_options(__doc__ or "")
        torch.manual_seed(0)
        network = VSRM(VSRM_T)
        for number, recipe in enumerate(STAGES, start=1):
            out = options.out / f"{number}-{recipe.stage}"
            run_stage(network, recipe, out, options)
            network = read_weights(out / WEIGHTS_FILE)


def run_stage(
    network: Network, recipe: Recipe, out: Path, options: Options, *, name: str = "vsrm-t"
) -> None:
    """Run one stage into a folder, or go on with it."""
    finetune(
        network,
        options.pack,
        out,
        recipe,
        validation=options.clips,
        words={**WORDS, "name": name},
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
    return Options(given.out, pack, load_pack(clips)[1])


def tell(progress: Progress) -> None:
    """Print a line where the metrics have got one."""
    if progress.accident:
        print(progress.accident, flush=True)  # noqa: T201 - this script is a terminal program
    if progress.line:
        values = "  ".join(f"{name} {value:.6g}" for name, value in progress.line.items())
        print(f"{time.strftime('%H:%M:%S')}  {values}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
