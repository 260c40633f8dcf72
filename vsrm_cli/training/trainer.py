"""The trainer: weights, their moving average, the optimizer, and one training step.

`Trainer.compute_gradients` and `Trainer.update_weights` are the two halves of a step. Between them
the caller can decide to drop it.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from vsrm_cli.data.training_batch import TrainingBatch
from vsrm_cli.frame import SCALE
from vsrm_cli.models.network import Network
from vsrm_cli.training.distributed import all_reduce_max, average_over_processes
from vsrm_cli.training.flow_loss import compare_flows
from vsrm_cli.training.losses import restoration_loss
from vsrm_cli.training.perceptual.stage import PerceptualStage
from vsrm_cli.training.recipe import Precision, Recipe, TrainingStage

# Weight of an earlier pass in the mean of the losses of all passes; the last one has 1.
EARLIER_PASS = 0.3


@dataclass(frozen=True)
class StepLosses:
    """The losses of a batch.

    Attributes:
        loss: What is minimized; not finite if no step can be made of it.
        baseline: The loss of bicubic enlargement, or of zero flow, on the same batch: how difficult
            the batch is. None with perceptual losses, which are relative already.
        discriminator: The loss of the discriminator, if there is one.
    """

    loss: float
    baseline: float | None = None
    discriminator: float | None = None


@dataclass(frozen=True)
class _Forward:
    """The loss of a part of a batch, with its gradients, and what else is computed for a step."""

    loss: Tensor
    baseline: Tensor | None = None  # as in `StepLosses`
    clips: tuple[Tensor, Tensor] | None = None  # restored and HR, for the discriminator


class Trainer:
    """The network that is trained, its average and its optimizer.

    Args:
        network: Where to start; changed in place.
        recipe: What to compute.
        perceptual: The losses of `TrainingStage.SHARP`; None in other stages.

    Attributes:
        step: How many steps are done.
        length: Steps of the whole schedule; None as long as that is not known.
        lr_backoff: A factor of the learning rate; 1 unless the loss has exploded.
        average: A network with the averaged weights.
    """

    def __init__(
        self, network: Network, recipe: Recipe, perceptual: PerceptualStage | None = None
    ) -> None:
        """Create the optimizer, and an average that equals the network."""
        self.network, self.recipe, self.perceptual = network, recipe, perceptual
        self.step = 0
        self.length = recipe.steps
        self.lr_backoff = 1.0
        network.train()
        self._flow = list(network.spynet.parameters())
        groups = _groups(network, recipe)
        if perceptual is not None:
            groups.append({"params": list(perceptual.head.parameters()), "share": 1.0})
        self._optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self._scaler = self._new_scaler()
        self._averaged = AveragedModel(network, avg_fn=self._average)
        # The weights at the start count as the first of the average.
        self._averaged.n_averaged.fill_(1)
        self.average = cast(Network, self._averaged.module).eval().requires_grad_(False)

    def compute_gradients(self, batch: TrainingBatch) -> StepLosses:
        """Compute the loss of a batch and its gradients; no weight is changed."""
        for parameter in self._flow:
            parameter.requires_grad_(not self._is_flow_frozen())
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate() * group["share"]
        self._optimizer.zero_grad(set_to_none=True)
        if self.perceptual is not None:
            self.perceptual.begin_step()
        figures = torch.zeros(3, device=self.network.device)
        for part, share in _parts(self._to_device(batch), self.recipe.accumulate):
            forward = self._forward(part)
            # Before the backward pass, where sampling at NaN positions crashes.
            if all_reduce_max(not math.isfinite(forward.loss.item()), self.network.device):
                return StepLosses(math.nan)
            self._scaler.scale(share * forward.loss).backward()
            figures[0] += share * forward.loss.detach()
            if forward.baseline is not None:
                figures[1] += share * forward.baseline
            if self.perceptual is not None and forward.clips is not None:
                mean = self.perceptual.compute_gradients(
                    *forward.clips, step=self.step, share=share
                )
                figures[2] += share * mean
        own = [group["params"] for group in self._optimizer.param_groups]
        parameters = [p for group in own for p in group if p.grad is not None]
        others = [] if self.perceptual is None else self.perceptual.discriminator_parameters
        figures = average_over_processes([*parameters, *others], figures)
        loss, baseline, discriminator = figures.tolist()
        loss = loss if self._clip(parameters) else math.nan
        if self.perceptual is None:
            return StepLosses(loss, baseline)
        return StepLosses(loss, discriminator=discriminator)

    def update_weights(self, losses: StepLosses) -> None:
        """Update the weights with the gradients that belong to these losses."""
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self.perceptual is not None and losses.discriminator is not None:
            self.perceptual.update_weights(losses.discriminator)
        self.step += 1
        self._averaged.update_parameters(self.network)

    def run_trial(self, batch: TrainingBatch) -> None:
        """Run forward and backward once, for all weights that this stage trains."""
        learns_flow = self.recipe.stage in (TrainingStage.FLOW, TrainingStage.CLIPS)
        for parameter in self._flow:
            parameter.requires_grad_(learns_flow)
        with torch.random.fork_rng(devices=[]):
            self._forward(self._to_device(batch)).loss.backward()
        others = [] if self.perceptual is None else self.perceptual.discriminator_parameters
        for parameter in (*self.network.parameters(), *others):
            parameter.grad = None

    def compute_loss(self, batch: TrainingBatch) -> float:
        """The loss of a batch; nothing is changed."""
        with torch.no_grad():
            return self._forward(self._to_device(batch)).loss.item()

    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        recipe = self.recipe
        done = self.step / self.length if self.length else 0.0
        peak = self.lr_backoff * recipe.lr
        return scheduled_lr(peak, self.step, done, warmup=recipe.warmup, end=recipe.lr_end)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume; the tensors change with every step."""
        state = {
            "step": self.step,
            "length": self.length,
            "brake": self.lr_backoff,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "averaged": int(self._averaged.n_averaged),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }
        return (
            state
            if self.perceptual is None
            else state | {"perceptual": self.perceptual.state_dict()}
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state, which is left unchanged."""
        self.step, self.length, self.lr_backoff = state["step"], state["length"], state["brake"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self._averaged.n_averaged.fill_(state["averaged"])
        # A copy: the optimizer would update the tensors that it is given.
        self._optimizer.load_state_dict(deepcopy(state["optimizer"]))
        self._scaler = self._new_scaler()  # the old one may be in the middle of a dropped step
        self._scaler.load_state_dict(state["scaler"])
        if self.perceptual is not None:
            self.perceptual.load_state_dict(deepcopy(state["perceptual"]))

    def back_off(self, state: dict[str, Any], *, is_network_slower: bool) -> None:
        """Load a former state, with half the present rate of the discriminator.

        Args:
            state: Left unchanged.
            is_network_slower: Whether the rate of the network is halved as well.
        """
        state = {**state, "brake": self.lr_backoff / (2 if is_network_slower else 1)}
        if self.perceptual is not None:
            state["perceptual"] = {**state["perceptual"], "brake": self.perceptual.lr_backoff / 2}
        self.load_state_dict(state)

    def _new_scaler(self) -> torch.amp.GradScaler:
        is_half = self.recipe.dtype is Precision.FLOAT16
        return torch.amp.GradScaler(self.network.device.type, enabled=is_half)

    def _average(self, slow: Tensor, fast: Tensor, count: Tensor | int) -> Tensor:
        """Follow the newest weights closely at first: those at the start are soon out of date."""
        keep = min(self.recipe.ema, float(count) / (float(count) + 10))
        return torch.lerp(slow, fast, 1 - keep)

    def _is_flow_frozen(self) -> bool:
        recipe = self.recipe
        return recipe.stage in (TrainingStage.FRAMES, TrainingStage.SHARP) or (
            recipe.stage is TrainingStage.CLIPS and self.step < recipe.flow_frozen
        )

    def _clip(self, parameters: list[nn.Parameter]) -> bool:
        """Clip the gradient to the recipe's norm; False if no step can be made of it."""
        self._scaler.unscale_(self._optimizer)
        max_norm = math.inf if self.recipe.clip_norm is None else self.recipe.clip_norm
        norm = nn.utils.clip_grad_norm_(parameters, max_norm)
        if self._scaler.is_enabled():
            # Too large a scale is normal: the scaler skips the step and halves the scale.
            return self._scaler.get_scale() >= 1
        return bool(norm.isfinite())

    def _to_device(self, batch: TrainingBatch) -> TrainingBatch:
        device = self.network.device
        return TrainingBatch(*(getattr(batch, field.name).to(device) for field in fields(batch)))

    def _forward(self, batch: TrainingBatch) -> _Forward:
        if self.recipe.stage is TrainingStage.FLOW:
            with self._autocast():
                return _Forward(*compare_flows(self.network.spynet, batch))
        lr, hr = batch.lr, batch.hr
        if self.recipe.mirrored:
            lr, hr = (torch.cat((x, x.flip(1)), dim=1) for x in (lr, hr))
        with self._autocast():
            flows = self.network.flows(lr)
        recompute = self.recipe.recompute
        with gradient_checkpointing(self.network) if recompute else nullcontext():
            *earlier, restored = self._restore(lr, flows)
        weight = self.recipe.frequency_weight
        if self.perceptual is not None:
            features = self.network.extract(lr)
            loss = self.perceptual.loss(
                restored, hr, lr, features=features, flow=flows[0], step=self.step
            )
        else:
            loss = restoration_loss(restored, hr, frequency_weight=weight)
        target = hr if self.perceptual is None else self.perceptual.target(hr)
        for attempt in earlier:
            loss = loss + EARLIER_PASS * restoration_loss(attempt, target, frequency_weight=weight)
        loss = loss / (1 + EARLIER_PASS * len(earlier))
        if self.perceptual is not None:
            return _Forward(loss, clips=(restored, hr))
        with torch.no_grad():
            bicubic = F.interpolate(
                lr.flatten(0, 1), scale_factor=SCALE, mode="bicubic", align_corners=False
            )
            baseline = restoration_loss(bicubic.view_as(hr), hr, frequency_weight=weight)
        return _Forward(loss, baseline)

    def _restore(self, lr: Tensor, flows: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """The result of each pass of the network, the final one last."""
        with self._autocast():
            if self.recipe.stage is TrainingStage.FRAMES:
                return (self.network.frames(lr, flows),)
            return self.network.passes(lr, flows)

    def _autocast(self) -> torch.autocast:
        dtype = getattr(torch, self.recipe.dtype)
        is_half = self.recipe.dtype is not Precision.FLOAT32
        return torch.autocast(self.network.device.type, dtype, enabled=is_half)


def scheduled_lr(peak: float, step: int, done: float, *, warmup: int, end: float) -> float:
    """The learning rate of a step: linear warmup, then a cosine.

    Args:
        peak: Peak learning rate.
        step: Steps done.
        done: Part of the schedule that is done, 0 to 1.
        warmup: Steps of the warmup.
        end: The last learning rate, as a fraction of the peak.
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    return peak * rise * (end + (1 - end) * (0.5 + 0.5 * math.cos(math.pi * done)))


def _parts(batch: TrainingBatch, count: int) -> Iterator[tuple[TrainingBatch, float]]:
    """The parts of a batch that are computed one after the other, and the weight of each."""
    chunks = [getattr(batch, field.name).chunk(count) for field in fields(batch)]
    for tensors in zip(*chunks, strict=True):
        yield TrainingBatch(*tensors), len(tensors[0]) / len(batch.lr)


def _groups(network: Network, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameters that a stage trains, and their shares of the learning rate."""
    flow = list(network.spynet.parameters())
    time = network.temporal_parameters()
    known = {id(parameter) for parameter in (*flow, *time)}
    backbone = [parameter for parameter in network.parameters() if id(parameter) not in known]
    if recipe.stage is TrainingStage.FLOW:
        return [{"params": flow, "share": 1.0}]
    if recipe.stage is TrainingStage.FRAMES:
        return [{"params": backbone, "share": 1.0}]
    return [
        {"params": time, "share": 1.0},
        {"params": backbone, "share": recipe.trunk_lr},
        {"params": flow, "share": recipe.flow_lr},
    ]


@contextmanager
def gradient_checkpointing(network: Network) -> Iterator[None]:
    """Keep only the inputs of the modules in `Network.checkpointed`, and recompute the rest.

    Values and gradients are the same as without it if the forward pass runs inside.

    Args:
        network: Restored when this ends.
    """
    changed = network.checkpointed()
    for owner, name in changed:
        setattr(owner, name, _checkpointed(getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name in changed:
            delattr(owner, name)


def _checkpointed(compute: Callable[..., Any]) -> Callable[..., Any]:
    return partial(checkpoint, compute, use_reentrant=False, preserve_rng_state=False)
