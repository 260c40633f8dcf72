"""Train `gsm-t` by the recipe of the shipped weights, from those of `vsrm-t`.

    python benchmarks/train_gsm_t.py TRAIN VALIDATION OUT
    torchrun --nproc-per-node 2 benchmarks/train_gsm_t.py TRAIN VALIDATION OUT

The folders are those of `train_vsrm_t.py`, which explains the rest. What the two networks share,
the flow network and the way in and out, is taken over; the layers between begin as the identity.
So the network starts as `vsrm-t` without its branches. (The first stage of the shipped file was the
beginning of a schedule of 3,600 steps: its rate hardly fell.)
"""

from dataclasses import replace

import torch
from torch import Tensor
from train_vsrm_t import FREQUENCY_WEIGHT, read_options, run_stage

from vsrm_cli.learning.folder import WEIGHTS_FILE
from vsrm_cli.learning.processes import joined
from vsrm_cli.learning.recipe import Precision, Recipe, Stage
from vsrm_cli.models.catalog import GSM_T
from vsrm_cli.models.gsmamba import GSM
from vsrm_cli.models.weights import load_model, read_weights
from vsrm_cli.training.sample import ClipShape

SHAPE = ClipShape(frames=5, patch=32, batch=4, photo_share=0.6, motion=3.0)
FIRST = Recipe(
    stage=Stage.CLIPS,
    steps=620,
    shape=SHAPE,
    lr=1.5e-3,
    warmup=40,
    ema=0.998,
    frequency_weight=FREQUENCY_WEIGHT,
    flow_frozen=620,
    trunk_lr=0.4,
    dtype=Precision.BFLOAT16,
    seed=61,
)
STAGES = (FIRST, replace(FIRST, steps=900, lr=1.3e-3, warmup=10, flow_frozen=900, seed=62))


def main() -> None:
    """Run both stages."""
    with joined("cpu"):
        options = read_options(__doc__ or "")
        torch.manual_seed(3)
        network = GSM(GSM_T)
        take_over(network, load_model("vsrm-t", device="cpu").state_dict())
        for number, recipe in enumerate(STAGES, start=1):
            out = options.out / f"gsm-t-{number}"
            run_stage(network, recipe, out, options, name="gsm-t")
            network = read_weights(out / WEIGHTS_FILE)  # type: ignore[assignment]


def take_over(network: GSM, weights: dict[str, Tensor]) -> None:
    """Give a network the flow network and the way in and out of a narrower VSRM.

    The first channels of the features are the narrower network's; what reads the others begins
    with zeros, so the enlarged frames are the same.
    """
    state = network.state_dict()
    narrow = len(weights["conv_first.weight"])
    wide = network.config.channels
    for name, x in weights.items():
        if name == "upsampler.conv_in.weight":  # features first, then the warped neighbors
            state[name].zero_()
            state[name][:, :narrow] = x[:, :narrow]
            state[name][:, wide:] = x[:, narrow:]
        elif name.startswith(("spynet.", "upsampler.")):
            state[name].copy_(x)
        elif name == "conv_first.weight":
            state[name][:narrow] = x.unsqueeze(2)
        elif name == "conv_first.bias":
            state[name][:narrow] = x
        elif name.startswith("features."):
            part = state[name][:narrow]
            if x.dim() == 4:
                part.zero_()
            part[:, :narrow].copy_(x) if x.dim() == 4 else part.copy_(x)


if __name__ == "__main__":
    main()
