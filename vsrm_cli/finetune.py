"""The training loop, whole, in one place.

A network is taught in three stages, each a run of this loop: to see motion (`Stage.FLOW`, where
the true motion of synthetic clips is known), to enlarge frames past the branches
(`Stage.FRAMES`, cheap), and to restore clips (`Stage.CLIPS`). The first two may be skipped; the
last one is also what adapts finished weights to other footage.

Several processes started by torchrun share each batch and average their gradients.
"""

import enum
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader

from vsrm_cli.errors import InputError, OutputError
from vsrm_cli.models.network import Network
from vsrm_cli.models.weights import save_weights
from vsrm_cli.training.data import Clips
from vsrm_cli.training.losses import end_point_error, restoration_loss
from vsrm_cli.training.packs import load_pack
from vsrm_cli.training.sample import ClipShape, Sample
from vsrm_cli.training.validation import Score, validate

STATE_FILE = "state.pt"
WEIGHTS_FILE = "model.safetensors"
METRICS_FILE = "metrics.jsonl"
SAVE_SECONDS = 120.0


class Stage(enum.StrEnum):
    """What a run teaches."""

    FLOW = "flow"
    FRAMES = "frames"
    CLIPS = "clips"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes.

    Attributes:
        stage: What is taught.
        steps: Length of the run and of its cosine schedule, which falls from `lr` to a fiftieth.
        shape: Size of the training clips (of each process).
        lr: Highest learning rate.
        warmup: Steps in which the rate rises to `lr`.
        clip_norm: Greatest norm of a step's gradient.
        ema: How much of the average of the weights is kept in each step, at the end.
        frequency_weight: Weight of the loss in frequencies; the paper's is 0.02.
        flow_frozen: Steps in which the flow network stays as it is.
        flow_lr: Its rate after that, as a share of `lr`.
        trunk_lr: Rate of what `Stage.FRAMES` taught, as a share of `lr`, in `Stage.CLIPS`.
        half: Whether the flow network and the upsampler compute in bfloat16.
        seed: Decides every sample.
    """

    stage: Stage
    steps: int
    shape: ClipShape
    lr: float
    warmup: int = 100
    clip_norm: float = 0.5
    ema: float = 0.999
    frequency_weight: float = 0.02
    flow_frozen: int = 0
    flow_lr: float = 0.25
    trunk_lr: float = 1.0
    half: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """What a training run tells as it goes: the mean loss since the last one, the scores so far."""

    step: int
    loss: float
    lr: float
    seconds: float
    scores: list[Score] | None


def finetune(
    network: Network,
    pack: Path,
    out: Path,
    recipe: Recipe,
    *,
    validation: Path | None = None,
    words: Mapping[str, str] | None = None,
    minutes: float = math.inf,
    report: Callable[[Report], None] | None = None,
    every: int = 50,
    validate_minutes: float = 10.0,
) -> Network:
    """Train a network; go on where an earlier run into the same folder stopped.

    Args:
        network: Where to start; changed in place.
        pack: Training clips, see `vsrm_cli.pack`.
        out: Folder for the averaged weights, the resumable state and the metrics.
        recipe: What to compute.
        validation: A pack whose clips are restored whole, now and then and at the end.
        words: What the weight file is to say about itself besides the recipe.
        minutes: Stop after this time; the next run goes on from there.
        report: Called every `every` steps.
        every: Steps between two reports.
        validate_minutes: Time between two validations.

    Returns:
        A copy of the network with the averaged weights.

    Raises:
        InputError: If the state in the folder is of another recipe.
        OutputError: If the loss is no longer a number; the last good state is kept.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(network, recipe, out / STATE_FILE)
    samples = DataLoader(
        _From(
            Clips(pack, recipe.shape, steps=recipe.steps, seed=recipe.seed, share=_rank()),
            run.step,
        ),
        batch_size=None,
        num_workers=1,
        prefetch_factor=4,
        worker_init_fn=_calm,
    )
    clips = load_pack(validation)[1] if validation and _rank() == 0 else {}
    began = last_save = last_look = time.monotonic()
    losses: list[float] = []
    description = {**(words or {}), "recipe": json.dumps(asdict(recipe))}
    for sample in samples:
        losses.append(run.advance(sample))
        now = time.monotonic()
        is_over = run.step == recipe.steps or _any_process(now - began > 60 * minutes)
        if is_over or now - last_save > SAVE_SECONDS:
            last_save = now
            _keep(run, out, description)
        look = bool(clips) and (is_over or now - last_look > 60 * validate_minutes)
        if look or run.step % every == 0 or is_over:
            scores = validate(run.average, clips, alone=is_over) if look else None
            last_look = now if look else last_look
            _tell(run, out, losses, now - began, scores, report)
            losses = []
        if is_over:
            break
    return run.average


class _From(torch.utils.data.Dataset[Sample]):
    """A data set without its first items."""

    def __init__(self, clips: Clips, start: int) -> None:
        self.clips, self.start = clips, start

    def __len__(self) -> int:
        return len(self.clips) - self.start

    def __getitem__(self, index: int) -> Sample:
        return self.clips[self.start + index]


def _calm(_: int) -> None:
    torch.set_num_threads(1)


class _Run:
    """The state of a run: network, average, optimizer, and how many steps are done."""

    def __init__(self, network: Network, recipe: Recipe, file: Path) -> None:
        self.network, self.recipe, self.file = network, recipe, file
        self.step = 0
        network.train()
        self.flow = list(network.spynet.parameters())
        self.optimizer = torch.optim.Adam(_groups(network, recipe), betas=(0.9, 0.99))
        self.average: Network = deepcopy(network).eval().requires_grad_(False)
        if file.exists():
            self._resume(torch.load(file, weights_only=True, map_location="cpu"))

    def advance(self, sample: Sample) -> float:
        """Do one step; returns the loss.

        Raises:
            OutputError: If the loss or the gradient is not finite.
        """
        recipe = self.recipe
        is_frozen = recipe.stage is Stage.FRAMES or (
            recipe.stage is Stage.CLIPS and self.step < recipe.flow_frozen
        )
        for parameter in self.flow:
            parameter.requires_grad_(not is_frozen)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate() * group["share"]
        loss = self._loss(sample)
        # Before the backward pass: sampling at places that are not numbers crashes there.
        self._check_finite(loss)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        _average_gradients(parameters)
        self._check_finite(nn.utils.clip_grad_norm_(parameters, recipe.clip_norm))
        self.optimizer.step()
        self.step += 1
        keep = min(recipe.ema, self.step / (self.step + 10))
        pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
        with torch.no_grad():
            for slow, fast in pairs:
                slow.lerp_(fast, 1 - keep)
        return loss.item()

    def _check_finite(self, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise OutputError(
                f"The loss is not a number any more at step {self.step}; start again from the "
                f"last good state in {self.file.parent}, with a lower learning rate."
            )

    def rate(self) -> float:
        """Learning rate of the next step: a linear rise, then a cosine."""
        recipe = self.recipe
        fall = 0.5 + 0.5 * math.cos(math.pi * self.step / recipe.steps)
        return recipe.lr * min(1.0, (self.step + 1) / max(1, recipe.warmup)) * (0.02 + 0.98 * fall)

    def _loss(self, sample: Sample) -> Tensor:
        recipe, network = self.recipe, self.network
        device = next(network.parameters()).device
        small, sharp = sample.small.to(device), sample.sharp.to(device)
        # Not the branches: their depthwise convolutions are slower in bfloat16 on a CPU.
        half = torch.autocast(device.type, torch.bfloat16, enabled=recipe.half)
        if recipe.stage is Stage.FLOW:
            known = sample.has_flow.to(device)
            with half:
                backward, forward = network.flows(small)
            if not known.any():
                return 0.0 * (backward.sum() + forward.sum())
            return end_point_error(
                backward.float()[known], sample.flow_backward.to(device)[known]
            ) + end_point_error(forward.float()[known], sample.flow_forward.to(device)[known])
        with half:
            flows = network.flows(small)
        features = network.extract(small)
        if recipe.stage is Stage.CLIPS:
            features = network.propagate(features, flows)
        with half:
            restored = network.enlarge(features, small, flows)
        return restoration_loss(restored, sharp, frequency_weight=recipe.frequency_weight)

    def state(self) -> dict[str, Any]:
        """All that a later run needs to go on."""
        return {
            "step": self.step,
            "recipe": json.dumps(asdict(self.recipe)),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def _resume(self, state: dict[str, Any]) -> None:
        mine = json.dumps(asdict(self.recipe))
        if state["recipe"] != mine:
            raise InputError(
                f"{self.file} is of another recipe: {state['recipe']}, not {mine}; choose another "
                f"folder, or start again without this file."
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def _groups(network: Network, recipe: Recipe) -> list[dict[str, Any]]:
    """What a stage teaches, and at which share of the learning rate."""
    flow = list(network.spynet.parameters())
    time = network.temporal_parameters()
    known = {id(parameter) for parameter in (*flow, *time)}
    trunk = [parameter for parameter in network.parameters() if id(parameter) not in known]
    if recipe.stage is Stage.FLOW:
        return [{"params": flow, "share": 1.0}]
    if recipe.stage is Stage.FRAMES:
        return [{"params": trunk, "share": 1.0}]
    return [
        {"params": time, "share": 1.0},
        {"params": trunk, "share": recipe.trunk_lr},
        {"params": flow, "share": recipe.flow_lr},
    ]


def _rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def _any_process(flag: bool) -> bool:
    """Whether the flag is up in any process: they must stop at the same step."""
    if not distributed.is_initialized():
        return flag
    flags = torch.tensor(int(flag))
    distributed.all_reduce(flags)
    return bool(flags)


def _average_gradients(parameters: list[nn.Parameter]) -> None:
    """Make the gradients those of all processes' batches together."""
    if not distributed.is_initialized():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    pieces = flat.split([g.numel() for g in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


def _keep(run: _Run, out: Path, description: Mapping[str, str]) -> None:
    """Save weights and state; neither file is ever seen half-written."""
    if _rank():
        return
    save_weights(run.average, out / WEIGHTS_FILE, description)
    part = run.file.with_suffix(".part")
    torch.save(run.state(), part)
    os.replace(part, run.file)


def _tell(
    run: _Run,
    out: Path,
    losses: list[float],
    seconds: float,
    scores: list[Score] | None,
    report: Callable[[Report], None] | None,
) -> None:
    """Append a line to the metrics and report it."""
    if _rank():
        return
    told = Report(run.step, sum(losses) / len(losses), run.rate(), seconds, scores)
    line: dict[str, Any] = {"step": told.step, "loss": told.loss, "lr": told.lr}
    if scores:
        line["val_psnr_y"] = sum(score.together for score in scores) / len(scores)
        if scores[0].alone is not None:
            line["val_psnr_y_alone"] = sum(s.alone or 0.0 for s in scores) / len(scores)
    with (out / METRICS_FILE).open("a") as file:
        file.write(json.dumps(line) + "\n")
    if report is not None:
        report(told)
