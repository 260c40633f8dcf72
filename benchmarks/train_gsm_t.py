"""Train `gsm-t` by the recipe of the shipped weights, from those of `vsrm-t`.

    python benchmarks/train_gsm_t.py TRAIN VALIDATION OUT
    torchrun --nproc-per-node 2 benchmarks/train_gsm_t.py TRAIN VALIDATION OUT

The folders are those of `train_vsrm_t.py`, which explains the rest. What the two networks share,
the flow network and the way in and out, is taken over; the layers between begin as the identity.
So the network starts as `vsrm-t` without its branches.
"""

from dataclasses import replace

import torch
from torch import Tensor
from train_vsrm_t import CLIPS, read_options, run_stage

from vsrm_cli.checkpoints.loading import load_model
from vsrm_cli.models.gsmamba import GSM
from vsrm_cli.models.presets import GSM_T
from vsrm_cli.training.distributed import joined

RECIPE = replace(CLIPS, steps=280, flow_frozen=280, lr=1.5e-3, ema=0.995, trunk_lr=0.4, seed=77)


def main() -> None:
    """Take over what is shared, and train."""
    with joined("cpu"):
        options = read_options(__doc__ or "")
        torch.manual_seed(3)
        network = GSM(GSM_T)
        take_over(network, load_model("vsrm-t", device="cpu").state_dict())
        run_stage(network, RECIPE, options.out / "gsm-t", options, name="gsm-t")


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
