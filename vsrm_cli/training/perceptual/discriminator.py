"""The discriminator: a network that distinguishes real frames from restored ones."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

WIDTH = 32


class UNetDiscriminator(nn.Module):
    """Rates how real each position of a frame looks.

    A U-Net with three levels and skip connections that are added. A pixel unshuffle folds blocks of
    2 x 2 pixels into channels first, which loses nothing and takes a quarter of the work.

    Spectral normalization of all layers but the first and the last limits how fast the output
    changes with the frame. This makes adversarial training stable.

    Args:
        width: Channels at the finest level; they double with each halving.

    Source: Wang et al., "Real-ESRGAN", arXiv:2107.10833, section 3.4; Miyato et al., "Spectral
    Normalization for Generative Adversarial Networks", arXiv:1802.05957.
    """

    def __init__(self, width: int = WIDTH) -> None:
        """Create the layers."""
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
        """Rate frames.

        Args:
            frames: (B, 3, H, W), values 0 to 1; H and W are even and at least 16.

        Returns:
            Logits, (B, 1, H/2, W/2); above 0 means real.
        """
        x = _activate(self.first(F.pixel_unshuffle(2 * frames - 1, 2)))
        skips: list[Tensor] = []
        for layer in self.down:
            skips.append(x)
            x = _activate(layer(x))
        for layer in self.up:
            finer = skips.pop()
            x = F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            x = _activate(layer(x)) + finer
        out: Tensor = self.last(_activate(self.merge(x)))
        return out


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)
