"""Train `vsrm-t`, and after it `vsrm-t-real`, in minutes on one GPU, from a pack.

    vsrm pack FOLDER pack.safetensors --degraded 6
    python benchmarks/train_on_gpu.py pack.safetensors OUT --minutes 10

For each network, OUT receives a weight file for `vsrm upscale --model FILE` and a ``.state.pt``
with the optimizer and the weights before averaging. ``--device cpu`` is a test run on the CPU.

A small network leaves a GPU idle while it waits for data and kernel launches. So all footage is
stored on the device as 8-bit frames and cropped there, and a step is one CUDA graph: forward,
backward, clipping, Adam and the average of the weights. The schedule follows the clock. The minutes
are training time; loading the footage and recording the graphs take more.

The trainer is separate from that of `vsrm finetune`, which reads losses and gradient norms on the
CPU to drop steps and scale losses; a CUDA graph cannot do that. They share schedule and losses.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, where it is not installed

from vsrm_cli.checkpoints.loading import build_network, find_device, save_weights
from vsrm_cli.checkpoints.locate import locate
from vsrm_cli.checkpoints.safe_reader import read_checkpoint
from vsrm_cli.data.crops import most_detailed
from vsrm_cli.data.dataset import ClipDataset
from vsrm_cli.data.degradations import shrink_bicubic
from vsrm_cli.data.footage import Footage
from vsrm_cli.data.packs import load_lr_clips, load_pack
from vsrm_cli.data.sources import StoredFrames
from vsrm_cli.data.training_batch import ClipShape
from vsrm_cli.errors import InputError, VsrmError
from vsrm_cli.files import write_atomically
from vsrm_cli.frame import SCALE
from vsrm_cli.layers.flow_refinement import rgb_to_luma
from vsrm_cli.models.network import Network
from vsrm_cli.training.losses import charbonnier
from vsrm_cli.training.trainer import EARLIER_PASS, scheduled_lr

CLEAN, REAL = STAGES = ("vsrm-t", "vsrm-t-real")
SHARES = (0.36, 0.64)  # of the training time
PEAK_LR, LAST_LR_SHARE, FLOW_LR_SHARE, WARMUP_STEPS = 8e-4, 0.01, 0.15, 60
CLIP_NORM, EMA = 0.5, 0.998
# The loss changes from Charbonnier to PSNR at this share of the training time, over this share.
# With this weight, the gradients of both have about the same size.
PSNR_FROM, PSNR_TURN, PSNR_WEIGHT = 0.55, 0.1, 0.0023
PHOTO_MARGIN = 8  # LR pixels by which clips made from photos are larger than crops
MOST_WORKERS = 16


class Clip(NamedTuple):
    """A clip on the device: HR frames, versions of LR frames, and one LR frame on the CPU."""

    hr: Tensor  # (T, 3, 4H, 4W) uint8
    lr: tuple[Tensor, ...]  # (T, 3, H, W) uint8
    overview: Tensor  # (3, H, W) uint8, to choose crops with detail


class Batches:
    """Random crops of clips; each list that is not empty is chosen equally often."""

    def __init__(self, kinds: Sequence[list[Clip]], shape: ClipShape, *, is_clean: bool) -> None:
        """Permute colors only in clean frames: compression artifacts depend on the color."""
        self._kinds = [kind for kind in kinds if kind]
        self._shape, self._is_clean = shape, is_clean
        self._rng = np.random.default_rng(0)

    def draw(self) -> tuple[Tensor, Tensor]:
        """LR frames, (B, T, 3, P, P), and HR frames, (B, T, 3, 4P, 4P), 0 to 1."""
        pairs = [self._crop() for _ in range(self._shape.batch)]
        lr, hr = zip(*pairs, strict=True)
        return torch.stack(lr).float() / 255, torch.stack(hr).float() / 255

    def _crop(self) -> tuple[Tensor, Tensor]:
        rng, patch, frames = self._rng, self._shape.patch, self._shape.frames
        clips = self._kinds[rng.integers(len(self._kinds))]
        clip = clips[rng.integers(len(clips))]
        lr = clip.lr[rng.integers(len(clip.lr))]
        first = int(rng.integers(len(lr) - frames + 1))
        top, left = most_detailed(clip.overview, patch, patch, rng)
        turns, mirrors, reverses = int(rng.integers(4)), rng.random() < 0.5, rng.random() < 0.5
        colors = rng.permutation(3).tolist() if self._is_clean else [0, 1, 2]
        crops = []
        for clip_frames, scale in ((lr, 1), (clip.hr, SCALE)):
            y, x, side = scale * top, scale * left, scale * patch
            crop = clip_frames[first : first + frames, :, y : y + side, x : x + side]
            crop = torch.stack([crop[:, color] for color in colors], dim=1)
            crop = torch.rot90(crop.flip(-1) if mirrors else crop, turns, (-2, -1))
            crops.append(crop.flip(0) if reverses else crop)
        return crops[0], crops[1]


def load_batches(
    pack: Path, shape: ClipShape, photo_clips: int, device: torch.device
) -> dict[str, Batches]:
    """Load a pack: bicubic LR frames for the first network, LR frames of the pack for the second.

    Clips that are too small or too short for the shape are skipped. ``photo_clips`` clips are made
    from photos by a moving camera, for the first network only.
    """
    photos, clips = load_pack(pack)
    clean, real, moved = [], [], []
    for name, versions in load_lr_clips(pack).items():
        hr = clips[name]
        if len(hr) >= shape.frames and min(hr.shape[-2:]) >= SCALE * shape.patch:
            clean.append(_with_bicubic_lr(hr.to(device)))
            real.append(clean[-1]._replace(lr=tuple(lr.to(device) for lr in versions)))
    if not real:
        size = f"{shape.frames} frames of {SCALE * shape.patch} pixels"
        advice = "make it with vsrm pack --degraded 6, or lower --frames or --patch."
        raise InputError(f"{pack} has no clip of {size} with LR versions; {advice}")
    if photos and photo_clips:
        sources = tuple(StoredFrames(name, photo[None]) for name, photo in photos.items())
        wide = ClipShape(shape.frames, shape.patch + PHOTO_MARGIN, batch=1, photo_share=1.0)
        loader = DataLoader(
            ClipDataset(Footage(pack, sources), wide, steps=photo_clips, seed=0),
            batch_size=None,
            num_workers=1 if device.type == "cpu" else min(MOST_WORKERS, os.cpu_count() or 1),
            collate_fn=_hr_in_8_bits,  # in the workers: float frames are large
        )
        moved = [_with_bicubic_lr(hr.to(device, copy=True)) for hr in loader]
    return {
        CLEAN: Batches((clean, moved), shape, is_clean=True),
        REAL: Batches((real,), shape, is_clean=False),
    }


def _hr_in_8_bits(sample: Any) -> Any:
    return (sample.hr[0] * 255).round().byte()


def _with_bicubic_lr(hr: Tensor) -> Clip:
    lr = (shrink_bicubic(hr.float() / 255) * 255).round().byte()
    return Clip(hr, (lr,), lr[len(lr) // 2].cpu())


class Trainer:
    """A network, its average and its optimizer; on CUDA, a step is one graph of a fixed shape."""

    def __init__(self, network: Network, lr: Tensor, hr: Tensor) -> None:
        """Record a step on CUDA with a first batch; this changes no weights."""
        self._network, self._lr, self._hr = network.train().requires_grad_(True), lr, hr
        flow = list(network.spynet.parameters())
        flow_ids = {id(parameter) for parameter in flow}
        rest = [p for p in network.parameters() if id(p) not in flow_ids]
        self._parameters: list[Tensor] = [*rest, *flow]
        self._average = [p.detach().clone() for p in self._parameters]
        self._update_average = get_ema_multi_avg_fn(EMA)
        # A graph reads values that change between steps from tensors.
        self._psnr_share, self.loss_sum, *self._rates = torch.zeros(4, device=lr.device).unbind()
        is_cuda = lr.device.type == "cuda"
        parts = zip((rest, flow), self._rates, strict=True)
        groups = [{"params": part, "lr": rate} for part, rate in parts]
        ways = {"capturable": is_cuda, "fused": is_cuda}
        self._optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), **ways)
        self._graph = self._record() if is_cuda else None

    def step(self, lr: Tensor, hr: Tensor, *, rate: float, psnr_share: float) -> None:
        """Run a step; on CUDA it is only queued when this returns."""
        self._lr.copy_(lr)
        self._hr.copy_(hr)
        self._psnr_share.fill_(psnr_share)
        for tensor, share in zip(self._rates, (1.0, FLOW_LR_SHARE), strict=True):
            tensor.fill_(rate * share)
        (self._graph.replay if self._graph else self._update)()

    def finish(self, state: Path) -> None:
        """Save the weights and the optimizer, then copy the average into the network."""
        weights, optimizer = self._network.state_dict(), self._optimizer.state_dict()
        with write_atomically(state) as part:
            torch.save({"weights": weights, "optimizer": optimizer}, part)
        with torch.no_grad():
            torch._foreach_copy_(self._parameters, self._average)

    def _record(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # Adam creates its state in the first step, and libraries choose their kernels.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._update()
        torch.cuda.current_stream().wait_stream(stream)
        self._optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            self._update()
        # The learning rates were zero, so the weights are unchanged; the moments are not.
        for state in self._optimizer.state.values():
            for value in state.values():
                value.zero_()
        self.loss_sum.zero_()
        return graph

    def _update(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._lr.device.type, torch.bfloat16):
            *earlier, last = self._network.passes(self._lr, self._network.flows(self._lr))
        loss = self._loss(last) + EARLIER_PASS * sum(self._loss(frames) for frames in earlier)
        loss = loss / (1 + EARLIER_PASS * len(earlier))
        loss.backward()
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = get_total_norm(gradients)
        # A graph cannot skip a batch, so gradients that are not finite become zero.
        for gradient in gradients:
            gradient.nan_to_num_(0.0, 0.0, 0.0)
        clip_grads_with_norm_(self._parameters, CLIP_NORM, norm.nan_to_num(math.inf, math.inf))
        self._optimizer.step()
        self._update_average(self._average, self._parameters, 0)
        self.loss_sum.add_(loss.detach())

    def _loss(self, restored: Tensor) -> Tensor:
        pixels = charbonnier(restored, self._hr)
        return pixels.lerp(PSNR_WEIGHT * psnr_loss(restored, self._hr), self._psnr_share)


def psnr_loss(restored: Tensor, target: Tensor, *, eps: float = 2e-5) -> Tensor:
    """The negative PSNR in dB, mean of that of RGB and that of the luma, over all frames.

        10 log10(mean squared error + eps)

    The logarithm gives frames that are nearly right as much weight as difficult ones, and the
    luma is what benchmarks measure. It suits the end of a training; before that, `charbonnier` is
    steadier.

    Args:
        restored: (..., 3, H, W), values 0 to 1.
        target: Shaped like ``restored``.
        eps: Bounds the PSNR, at 47 dB by default, and so the gradients of easy frames.

    Returns:
        A scalar in float32.

    Source: PSNR as a loss is from NAFNet (Chen et al., arXiv 2204.04676), whose code takes it of
    RGB or of the luma.
    """
    error = restored.float() - target.float()
    rgb_error = error.square().mean((-3, -2, -1))
    luma_error = rgb_to_luma(error).square().mean((-3, -2, -1))
    logs = (rgb_error + eps).log() + (luma_error + eps).log()
    return 10 / math.log(10) * logs.mean() / 2


def train(network: Network, batches: Batches, *, seconds: float, state: Path) -> int:
    """Train for some seconds, at least one step; returns the number of steps.

    The network gets its averaged weights. The others and the optimizer are saved in ``state``.
    """
    trainer = Trainer(network, *batches.draw())
    began, done, steps = time.perf_counter(), 0.0, 0
    while done < 1 or not steps:
        rate = scheduled_lr(PEAK_LR, steps, done, warmup=WARMUP_STEPS, end=LAST_LR_SHARE)
        psnr_share = min(1.0, max(0.0, (done - PSNR_FROM) / PSNR_TURN))
        trainer.step(*batches.draw(), rate=rate, psnr_share=psnr_share)
        steps += 1
        if steps % 50 == 0:
            mean = trainer.loss_sum.item() / 50
            trainer.loss_sum.zero_()
            line = f"step {steps}, {done:.0%} of the time: loss {mean:.5f}"
            print(line, flush=True)  # noqa: T201 - this script is a terminal program
        if network.device.type == "cuda" and steps % 4 == 0:
            torch.cuda.synchronize()  # otherwise steps are queued faster than they run
        done = (time.perf_counter() - began) / seconds
    trainer.finish(state)
    return steps


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both networks and write them."""
    given = read_options(arguments)
    device = find_device(given.device)
    given.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    shape = ClipShape(given.frames, given.patch, given.batch, photo_share=0.5)
    batches = load_batches(given.pack, shape, given.photo_clips, device)
    files = [read_checkpoint(locate(name)) for name in given.start_weights]
    networks = [build_network(file, file.path.stem).to(device) for file in files]
    clean, real = (network.state_dict() for network in networks)
    difference = {key: real[key] - x for key, x in clean.items()}
    for name, share, network, file in zip(STAGES, SHARES, networks, files, strict=True):
        recipe = json.loads(file.metadata.get("recipe", "[]"))
        recipe = recipe if isinstance(recipe, list) else [recipe]  # `vsrm finetune` writes one
        if name == REAL:
            # `clean` refers to the weights of the first network, which has been trained by now.
            network.load_state_dict({key: x + difference[key] for key, x in clean.items()})
            recipe.append({"start": "the new vsrm-t, plus the difference of the former two"})
        seconds, state = 60 * share * given.minutes, given.out / f"{name}.state.pt"
        steps = train(network, batches[name], seconds=seconds, state=state)
        clips = f"{given.batch} of {given.frames} frames of {given.patch} x {given.patch}"
        recipe.append({"script": "train_on_gpu.py", "steps": steps, "lr": PEAK_LR, "clips": clips})
        metadata = {**file.metadata, "recipe": json.dumps(recipe)}
        save_weights(network, given.out / f"{name}.safetensors", metadata)


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("pack", type=Path)
    add("out", type=Path)
    add("--minutes", type=float, default=10.0, help="of both networks together")
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--batch", type=int, default=24, help="clips in a step")
    add("--patch", type=int, default=48, help="side of LR frames in pixels")
    add("--frames", type=int, default=12, help="of each clip")
    add("--photo-clips", type=int, default=700, help="clips made of photos")
    other = "start from these weight files, not from the bundled ones"
    names = ("VSRM-T", "VSRM-T-REAL")
    add("--start-weights", nargs=2, default=STAGES, metavar=names, help=other)
    given = parser.parse_args(arguments)
    for name in ("minutes", "batch", "patch", "frames"):
        if getattr(given, name) <= 0:
            parser.error(f"--{name} must be above 0")
    return given


if __name__ == "__main__":
    try:
        main()
    except VsrmError as error:
        sys.exit(str(error))
