"""What the stage `sharp` needs besides the network: a discriminator, a feature network, and a head.

They are used only in training. The result is the network, as in any other stage.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vsrm_cli.evaluation.feature_networks import FeatureNetwork
from vsrm_cli.models.network import Network
from vsrm_cli.training.losses import charbonnier
from vsrm_cli.training.perceptual.discriminator import UNetDiscriminator
from vsrm_cli.training.perceptual.losses import (
    CleaningHead,
    adversarial_loss,
    cleaning_loss,
    color_loss,
    discriminator_loss,
    feature_loss,
    flat_area_loss,
    grid_loss,
    pattern_loss,
    temporal_loss,
    usm_sharpen,
    warmup_weight,
)
from vsrm_cli.training.recipe import Precision, Recipe

# Steps in which the discriminator trains alone, and steps of the ramp of its weight after them.
STEPS_ALONE, RAMP_STEPS = 100, 300
# The discriminator is not updated while its loss is lower: if it is always right, its gradients are
# useless.
MIN_UPDATE_LOSS = 0.15
# Frames of each clip that the discriminator gets in a step.
DISCRIMINATOR_FRAMES = 2
# Weight of the grid loss within the pattern loss; a pattern of half a gray level is visible.
GRID_WEIGHT = 4.0


class PerceptualStage:
    """The losses of `TrainingStage.SHARP`, and the networks that are trained with the main network.

    Args:
        network: The network that is trained.
        recipe: Of the run.
        features: A frozen feature network, on the device of the network.

    Attributes:
        head: Its parameters are optimized together with those of the network.
        discriminator: Its parameters are optimized here.
        lr_backoff: A factor of the discriminator's rate; 1 unless training has diverged.
    """

    def __init__(self, network: Network, recipe: Recipe, features: FeatureNetwork) -> None:
        """Create the networks; the same seed gives the same weights."""
        self.weights, self._recipe = recipe.perceptual, recipe
        self._device, self._features = network.device, features
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(recipe.seed)
            channels = network.extract(torch.zeros(1, 1, 3, 8, 8, device=self._device)).shape[2]
            self.head = CleaningHead(channels).to(self._device)
            self.discriminator = UNetDiscriminator().to(self._device)
        self.lr_backoff = 1.0
        self._optimizer = torch.optim.Adam(
            self.discriminator.parameters(), self.weights.discriminator_lr, betas=(0.9, 0.99)
        )

    @property
    def discriminator_parameters(self) -> list[nn.Parameter]:
        """The parameters that `update_weights` updates."""
        return list(self.discriminator.parameters())

    def target(self, hr: Tensor) -> Tensor:
        """The target of the losses: the ground truth, slightly sharpened.

        Args:
            hr: (B, T, 3, H, W), values 0 to 1.
        """
        return usm_sharpen(hr, amount=self.weights.sharpen)

    def loss(
        self,
        restored: Tensor,
        hr: Tensor,
        lr: Tensor,
        *,
        features: Tensor,
        flow: Tensor,
        step: int,
    ) -> Tensor:
        """The loss of the network.

        Args:
            restored: (B, T, 3, 4H, 4W), with gradients.
            hr: The ground truth, shaped like ``restored``.
            lr: (B, T, 3, H, W).
            features: Of ``lr``, from the stem of the network, (B, T, C, H, W).
            flow: From each frame to the next one, (B, T-1, 2, H, W).
            step: Steps done.
        """
        weights = self.weights
        restored, target = restored.float(), self.target(hr)
        loss = charbonnier(restored, target)
        if weights.cleaning_weight:
            cleaned = self.head.clean(features, lr)
            loss = loss + weights.cleaning_weight * cleaning_loss(cleaned, hr)
        if weights.temporal_weight and restored.shape[1] > 1:
            loss = loss + weights.temporal_weight * temporal_loss(restored, target, flow)
        if weights.pattern_weight:
            pattern = pattern_loss(restored, target) + GRID_WEIGHT * grid_loss(restored, target)
            loss = loss + weights.pattern_weight * pattern
        if weights.flat_weight:
            loss = loss + weights.flat_weight * flat_area_loss(restored, target)
        if weights.color_weight:
            loss = loss + weights.color_weight * color_loss(restored, target)
        if weights.feature_weight:
            with self._autocast():
                features_loss = feature_loss(self._features, restored, target)
            loss = loss + weights.feature_weight * features_loss
        weight = warmup_weight(
            weights.adversarial_weight, step, start=STEPS_ALONE, steps=RAMP_STEPS
        )
        if weight:
            # In evaluation mode and frozen: this loss must not change the discriminator.
            self.discriminator.eval().requires_grad_(False)
            with self._autocast():
                logits = self.discriminator(self._consecutive_frames(restored, step).flatten(0, 1))
            loss = loss + weight * adversarial_loss(logits)
        return loss

    def begin_step(self) -> None:
        """Clear the gradients of the discriminator, and set its learning rate."""
        self._optimizer.zero_grad(set_to_none=True)
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr_backoff * self.weights.discriminator_lr

    def compute_gradients(self, restored: Tensor, hr: Tensor, *, step: int, share: float) -> Tensor:
        """Accumulate the discriminator's gradients for a part of a batch; returns its loss.

        Args:
            restored: (B, T, 3, H, W); no gradient reaches the network.
            hr: The ground truth, shaped like ``restored``.
            step: Steps done.
            share: The fraction of the batch that the part is.
        """
        self.discriminator.train().requires_grad_(True)
        fake = self._consecutive_frames(restored.detach().float(), step).flatten(0, 1)
        real = self._consecutive_frames(self.target(hr), step).flatten(0, 1)
        with self._autocast():
            logits = self.discriminator(torch.cat((real, fake)))
        loss = discriminator_loss(*logits.chunk(2))
        (share * loss).backward()
        return loss.detach()

    def update_weights(self, discriminator_loss: float) -> None:
        """Update the discriminator with its gradients, unless its loss is too low.

        Args:
            discriminator_loss: Of the whole batch.
        """
        if discriminator_loss >= MIN_UPDATE_LOSS:
            self._optimizer.step()

    def validation_loss(self, restored: Tensor, hr: Tensor) -> float:
        """The validation loss: pixels and features, without the discriminator.

        Args:
            restored: (T, 3, H, W).
            hr: The ground truth, shaped like ``restored``.
        """
        target = self.target(hr)
        with self._autocast():
            features_loss = feature_loss(self._features, restored, target)
        return float(charbonnier(restored, target) + self.weights.feature_weight * features_loss)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume; the tensors change with every step."""
        return {
            "brake": self.lr_backoff,
            "head": self.head.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state."""
        self.lr_backoff = state["brake"]
        self.head.load_state_dict(state["head"])
        self.discriminator.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _consecutive_frames(self, clip: Tensor, step: int) -> Tensor:
        """`DISCRIMINATOR_FRAMES` neighboring frames of a clip, different ones in each step."""
        first = step % max(1, clip.shape[1] - DISCRIMINATOR_FRAMES + 1)
        return clip[:, first : first + DISCRIMINATOR_FRAMES]

    def _autocast(self) -> torch.autocast:
        # Not float16: differences of features exceed its range.
        is_half = self._recipe.dtype is Precision.BFLOAT16
        return torch.autocast(self._device.type, torch.bfloat16, enabled=is_half)
