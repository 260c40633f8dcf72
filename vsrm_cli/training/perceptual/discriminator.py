"""The opponent of a network that learns to sharpen: it tells real frames from restored ones."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

WIDTH = 32


class UNetDiscriminator(nn.Module):
    """Judges each place of a frame, by what is around it near and far.

    A U-Net: sides are halved three times and doubled again, and what was seen on the way down is
    added on the way up. It sees each square of two by two pixels as one place with all of its
    values: nothing is lost, and the work is a fourth.

    Every weight but the first and the last is divided by its largest singular value, so that the
    judgment cannot change faster than the frame by much, and the network it teaches is not torn
    to and fro.

    Args:
        width: Channels at the finest level; they double with each halving.

    Source: Wang et al., "Real-ESRGAN", arXiv:2107.10833, section 3.4; Miyato et al., "Spectral
    Normalization for Generative Adversarial Networks", arXiv:1802.05957.
    """

    def __init__(self, width: int = WIDTH) -> None:
        """Make the layers."""
        super().__init__()
        self.first = nn.Conv2d(12, width, 3, padding=1)
        self.down = nn.ModuleList(
            spectral_norm(nn.Conv2d(width * n, 2 * width * n, 4, 2, 1, bias=False))
            for n in (1, 2, 4)
        )
        self.up = nn.ModuleList(
            spectral_norm(nn.Conv2d(2 * width * n, width * n, 3, padding=1, bias=False))
            for n in (4, 2, 1)
        )
        self.merge = spectral_norm(nn.Conv2d(width, width, 3, padding=1, bias=False))
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        """Judge frames.

        Args:
            frames: (B, 3, H, W), values 0 to 1; sides are even, from 16 on.

        Returns:
            Logits, (B, 1, H/2, W/2); above 0 where a place looks real.
        """
        x = _activate(self.first(F.pixel_unshuffle(2 * frames - 1, 2)))
        passed: list[Tensor] = []
        for layer in self.down:
            passed.append(x)
            x = _activate(layer(x))
        for layer in self.up:
            finer = passed.pop()
            x = F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            x = _activate(layer(x)) + finer
        out: Tensor = self.last(_activate(self.merge(x)))
        return out


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)
