"""Perceptual losses, for detail that compression has removed.

Such detail cannot be recovered exactly. A pixel loss alone averages over all possible details, so
the result is soft. These losses compare features with those of the ground truth, use a
discriminator, penalize errors that flicker, and make the stem remove artifacts before the network
enlarges them.

Clips are (B, T, 3, H, W) with values 0 to 1 at the size of the HR frames, unless noted otherwise;
values may be slightly outside this range.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.evaluation.feature_networks import FeatureNetwork, extract_features
from vsrm_cli.frame import SCALE
from vsrm_cli.ops.warp import warp
from vsrm_cli.training.losses import EPS, charbonnier, smooth_mean

# Of Real-ESRGAN's unsharp mask: standard deviation and reach of its Gaussian in pixels (OpenCV's
# rule for 51 taps), and the difference from the blurred frame above which it sharpens.
_USM_SIGMA, _USM_REACH, _USM_THRESHOLD = 8.0, 25, 10 / 255
# The standard deviation of brightness at which the weight of a flat area has fallen to 1 / e.
_FLAT_DEVIATION = 0.015


def usm_sharpen(frames: Tensor, *, amount: float = 0.5) -> Tensor:
    """Sharpen the ground truth slightly by an unsharp mask; flat areas keep their noise.

        mask * (x + amount * (x - blur(x))) + (1 - mask) * x

    where mask is the blurred map of the pixels at which x differs from blur(x) by more than ten
    gray levels.

    Args:
        frames: (..., 3, H, W), values 0 to 1; H and W above 25.
        amount: Strength; 0 changes nothing.

    Returns:
        Shaped like ``frames``, values 0 to 1.

    Source: Wang et al., "Real-ESRGAN", arXiv:2107.10833, section 3.4, with the constants of its
    code (``usm_sharp``).
    """
    residual = frames - _usm_blur(frames)
    mask = _usm_blur((residual.abs() > _USM_THRESHOLD).to(frames.dtype))
    sharpened = (frames + amount * residual).clamp(0, 1)
    return mask * sharpened + (1 - mask) * frames


def _usm_blur(frames: Tensor) -> Tensor:
    offsets = torch.arange(-_USM_REACH, _USM_REACH + 1, dtype=frames.dtype, device=frames.device)
    line = torch.exp(-(offsets**2) / (2 * _USM_SIGMA**2))
    line = (line / line.sum()).view(1, 1, -1, 1)
    planes = F.pad(frames.reshape(-1, 1, *frames.shape[-2:]), (_USM_REACH,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(planes, line), line.transpose(2, 3)).view(frames.shape)


def feature_loss(network: FeatureNetwork, restored: Tensor, hr: Tensor) -> Tensor:
    """The difference between the features of restored frames and of the ground truth.

        sum over stages of mean |f(restored) - f(hr)| / mean |f(hr)|

    of each frame, and the mean over all frames.

    Args:
        network: Frozen; gradients pass through it.
        restored: (B, T, 3, H, W) or (B, 3, H, W).
        hr: Shaped like ``restored``.

    Returns:
        A scalar in float32; each stage adds about 1 if the features are unrelated.

    Source: Johnson et al., "Perceptual Losses for Real-Time Style Transfer and
    Super-Resolution", arXiv:1603.08155; the division gives all stages the same scale.
    """
    features, targets = extract_features(network, restored, hr)
    shares = [
        (x - y).abs().mean((1, 2, 3)) / y.abs().mean((1, 2, 3)).clamp(min=1e-6)
        for x, y in zip(features, targets, strict=True)
    ]
    return torch.stack(shares).sum(0).mean()


def adversarial_loss(restored_logits: Tensor) -> Tensor:
    """The adversarial loss of the network: how clearly the discriminator rejects its frames.

        mean of softplus(-logit)

    Args:
        restored_logits: Of the discriminator for restored frames, any shape; above 0 means real.

    Source: Goodfellow et al., "Generative Adversarial Nets", arXiv:1406.2661, section 3, the
    non-saturating loss of the generator.
    """
    return F.softplus(-restored_logits.float()).mean()


def discriminator_loss(real_logits: Tensor, restored_logits: Tensor) -> Tensor:
    """The loss of the discriminator; log 2 if it cannot distinguish the frames.

        (mean of softplus(-logit) on real frames + mean of softplus(logit) on restored ones) / 2

    Args:
        real_logits: Of the discriminator for the ground truth, any shape.
        restored_logits: Of the discriminator for restored frames, detached from the network.
    """
    real = F.softplus(-real_logits.float()).mean()
    return (real + F.softplus(restored_logits.float()).mean()) / 2


def warmup_weight(weight: float, step: int, *, start: int, steps: int) -> float:
    """The weight of the adversarial loss: 0 while the discriminator trains alone, then a ramp.

    Args:
        weight: The final value.
        step: Steps done.
        start: The step at which the ramp starts.
        steps: Length of the ramp.
    """
    return weight * min(1.0, max(0.0, (step - start) / max(1, steps)))


def temporal_loss(restored: Tensor, hr: Tensor, flow: Tensor) -> Tensor:
    """How much the error of a clip changes from frame to frame along the motion.

    With e = restored - hr, this is the Charbonnier mean of e[t](p) - e[t+1](p + flow(p)): the
    change of the restored clip between aligned neighbors minus that of the ground truth. A constant
    error costs nothing; a flickering one does.

    Args:
        restored: (B, T, 3, H, W), T at least 2.
        hr: Shaped like ``restored``.
        flow: From t to t + 1, (B, T-1, 2, h, w), in pixels of its own grid, which may be coarser
            than that of the clips; no gradient passes through it.

    Source: the warping error of Lai et al., "Learning Blind Video Temporal Consistency", ECCV
    2018, applied to the difference from the ground truth, so that a soft clip has no advantage.
    """
    error = (restored - hr).float()
    scale = error.shape[-1] // flow.shape[-1]
    fine = flow.detach().flatten(0, 1).float()
    if scale > 1:
        fine = scale * F.interpolate(fine, scale_factor=scale, mode="bilinear")
    now, later = error[:, :-1].flatten(0, 1), error[:, 1:].flatten(0, 1)
    # Bicubic, because bilinear sampling blurs errors in fine detail.
    change = now - warp(later, fine, padding="border", mode="bicubic")
    return smooth_mean(change)


def pattern_loss(restored: Tensor, hr: Tensor) -> Tensor:
    """How much stronger checkerboard artifacts are than in the ground truth, in local windows.

        mean of max(0, m(|d * restored|) - m(|d * hr|))

    where d is the diagonal Haar filter for squares of one pixel and of two, and m the mean over
    windows of eight pixels. With an adversarial loss, pixel shuffle leaves such artifacts along
    edges. A clip that is only soft costs nothing.

    Args:
        restored: (B, T, 3, H, W); H and W at least 8.
        hr: Shaped like ``restored``.
    """
    excess = restored.new_zeros(())
    for square in (1, 2):
        own, target = (_checkers(clip.flatten(0, 1), square) for clip in (restored, hr))
        excess = excess + F.relu(own - target).mean()
    return excess


def _checkers(frames: Tensor, square: int) -> Tensor:
    """The mean strength of a checkerboard with such squares, in windows of eight pixels."""
    a, b = frames[..., :-square, :], frames[..., square:, :]
    down = a - b
    strength = (down[..., :-square] - down[..., square:]).abs() / 4
    return F.avg_pool2d(strength, 7, 4)


def flat_area_loss(restored: Tensor, hr: Tensor) -> Tensor:
    """Errors where the ground truth is flat: noise, ringing, and invented texture.

        mean of exp(-s / 0.015) * |restored - hr|

    where s is the standard deviation of the ground truth's brightness within 5 x 5 pixels, and
    |.| is the root mean square over the three colors of a pixel. People see faint errors there that
    a feature loss and an adversarial loss hardly notice.

    Args:
        restored: (B, T, 3, H, W).
        hr: Shaped like ``restored``.
    """
    brightness = hr.flatten(0, 1).mean(1, keepdim=True)
    mean, mean_square = (_box_mean(x) for x in (brightness, brightness.square()))
    deviation = (mean_square - mean.square()).clamp(min=0).sqrt()
    error = (restored - hr).flatten(0, 1).square().mean(1, keepdim=True)
    return (torch.exp(-deviation / _FLAT_DEVIATION) * (error + EPS * EPS).sqrt()).mean()


def _box_mean(frames: Tensor) -> Tensor:
    return F.avg_pool2d(frames, 5, stride=1, padding=2, count_include_pad=False)


def color_loss(restored: Tensor, hr: Tensor) -> Tensor:
    """Wrong colors of areas: the mean error of B - G and R - G after averaging 4 x 4 pixels.

    Compressed chroma has a fraction of the resolution of luma. The other losses mostly see luma.

    Args:
        restored: (B, T, 3, H, W); H and W at least 4.
        hr: Shaped like ``restored``.
    """
    red, green, blue = (restored - hr).flatten(0, 1).unbind(1)
    return smooth_mean(F.avg_pool2d(torch.stack((blue - green, red - green), dim=1), 4))


def grid_loss(restored: Tensor, hr: Tensor) -> Tensor:
    """How much the mean error depends on the position within the pixels of the LR grid.

    Pixel shuffle has its own weights for each position, and an adversarial loss tempts them to add
    a fixed pattern, fine grain that repeats every `SCALE` pixels. Over a clip it does not average
    out, as all other errors do.

    Args:
        restored: (B, T, 3, H, W); H and W are multiples of `SCALE`.
        hr: Shaped like ``restored``.
    """
    # (B, T, 3, positions, H / SCALE, W / SCALE)
    error = F.pixel_unshuffle(restored - hr, SCALE).unflatten(2, (3, -1))
    by_position: Tensor = error.mean((1, 4, 5))
    return (by_position - by_position.mean(-1, keepdim=True)).abs().mean()


class CleaningHead(nn.Conv2d):
    """Predicts clean LR frames from features of single LR frames.

    It is trained together with a network and discarded afterwards.

    Args:
        channels: Of the features.
    """

    def __init__(self, channels: int) -> None:
        """Initialize with zeros: at first the frames stay unchanged."""
        super().__init__(channels, 3, 3, padding=1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def clean(self, features: Tensor, lr: Tensor) -> Tensor:
        """Frames without their artifacts, (B, T, 3, h, w).

        Args:
            features: Of the frames, from the stem of a network, (B, T, C, h, w).
            lr: LR frames, (B, T, 3, h, w).
        """
        correction: Tensor = self(features.flatten(0, 1).float())
        return lr + correction.view_as(lr)


def cleaning_loss(cleaned: Tensor, hr: Tensor) -> Tensor:
    """How far LR frames are from clean ones, which are the ground truth averaged over blocks.

    Artifacts that the stem removes are neither propagated nor enlarged.

    Args:
        cleaned: Of `CleaningHead.clean`, (B, T, 3, h, w).
        hr: (B, T, 3, H, W); H and W are multiples of h and w.

    Source: Chan et al., "Investigating Tradeoffs in Real-World Video Super-Resolution"
    (RealBasicVSR), arXiv:2111.12704, section 4.1; the averaging is that of its code.
    """
    height, width = cleaned.shape[-2:]
    clean = F.adaptive_avg_pool2d(hr.flatten(0, 1), (height, width))
    return charbonnier(cleaned, clean.view_as(cleaned))
