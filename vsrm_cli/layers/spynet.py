"""Optical flow between two frames, from coarse to fine."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsrm_cli.ops.warp import warp

# Statistics of ImageNet, which the published SpyNet weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class FlowLevel(nn.Module):
    """One level of the pyramid: a stack of convolutions that corrects a flow.

    Args:
        widths: Channels between the convolutions.
        kernel: Side of the kernels.
    """

    def __init__(self, widths: tuple[int, ...], kernel: int) -> None:
        """Make the convolutions: 8 channels in (two frames and a flow), 2 out.

        The last one starts at zero: the flow of an untrained pyramid is zero.
        """
        super().__init__()
        sizes = (8, *widths, 2)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU()]
        last = layers[-2]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.basic_module = nn.Sequential(*layers[:-1])

    def forward(self, ref: Tensor, warped: Tensor, flow: Tensor) -> Tensor:
        """Residual flow, (B, 2, H, W), of ``ref`` and ``warped``, (B, 3, H, W)."""
        stacked = torch.cat((ref, warped, flow), dim=1)
        residual: Tensor = self.basic_module(stacked.contiguous(memory_format=torch.channels_last))
        return residual


class SpyNet(nn.Module):
    """A pyramid of small networks, each of which corrects the flow of the coarser one.

    With six levels, widths (32, 64, 32, 16) and kernel 7 this is SpyNet (Ranjan and Black,
    arXiv 1611.00850), with the key names of its public checkpoints for video super-resolution.

    Args:
        levels: How often the frames are halved, plus one.
        widths: Channels between the convolutions of a level.
        kernel: Side of the kernels.
        keeps_statistics: Whether mean and deviation of the frames are part of the weights, as in
            public checkpoints.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, *, levels: int, widths: tuple[int, ...], kernel: int, keeps_statistics: bool = False
    ) -> None:
        """Make the levels, coarsest first."""
        super().__init__()
        for name, values in (("mean", MEAN), ("std", STD)):
            # On the CPU even if the weights are made on the meta device: a weight file may not
            # contain these values.
            statistic = torch.tensor(values, device="cpu").view(1, 3, 1, 1)
            self.register_buffer(name, statistic, persistent=keeps_statistics)
        self.basic_module = nn.ModuleList(FlowLevel(widths, kernel) for _ in range(levels))

    def forward(self, ref: Tensor, supp: Tensor) -> Tensor:
        """The flow from ``ref`` to ``supp``.

        Args:
            ref: (B, 3, H, W), values 0 to 1; any size from one pixel on.
            supp: Shaped like ``ref``.

        Returns:
            (B, 2, H, W), in pixels, dx first, in the type of the weights: supp(p + flow(p))
            matches ref(p).
        """
        dtype = next(self.parameters()).dtype  # float32 even in a float16 network
        ref, supp = ref.to(dtype), supp.to(dtype)
        height, width = ref.shape[-2:]
        multiple = 2 ** (len(self.basic_module) - 1)
        tall, wide = -(-height // multiple) * multiple, -(-width // multiple) * multiple
        flow = self.pyramid(self._fit(ref, tall, wide), self._fit(supp, tall, wide))[-1]
        if (tall, wide) == (height, width):
            return flow
        flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
        dx, dy = flow.unbind(1)
        return torch.stack((dx * (width / wide), dy * (height / tall)), dim=1)

    def normalized(self, frames: Tensor) -> Tensor:
        """Normalize frames, (B, 3, H, W), 0 to 1, for the levels."""
        return (frames - self.mean) / self.std

    def _fit(self, frames: Tensor, tall: int, wide: int) -> Tensor:
        frames = self.normalized(frames)
        if frames.shape[-2:] == (tall, wide):
            return frames
        return F.interpolate(frames, size=(tall, wide), mode="bilinear", align_corners=False)

    def pyramid(self, ref: Tensor, supp: Tensor) -> list[Tensor]:
        """The flow after each level, for the training loss.

        Args:
            ref: (B, 3, H, W), `normalized`; sides are multiples of 2 to the power of (levels - 1).
            supp: Shaped like ``ref``.

        Returns:
            Coarsest first, each in its own pixels: (B, 2, H / 2^k, W / 2^k), the last one with
            k = 0.
        """
        refs, supps = [ref], [supp]
        for _ in self.basic_module[1:]:
            refs.insert(0, F.avg_pool2d(refs[0], 2))
            supps.insert(0, F.avg_pool2d(supps[0], 2))
        flow = refs[0].new_zeros(refs[0].shape[0], 2, *refs[0].shape[-2:])
        flows = []
        for level, small_ref, small_supp in zip(self.basic_module, refs, supps, strict=True):
            if flow.shape[-2:] != small_ref.shape[-2:]:
                flow = 2.0 * F.interpolate(
                    flow, size=small_ref.shape[-2:], mode="bilinear", align_corners=True
                )
            flow = flow + level(small_ref, warp(small_supp, flow, padding="border"), flow)
            flows.append(flow)
        return flows
