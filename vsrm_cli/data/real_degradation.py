"""What footage goes through before people have it: blur, resizing, grain, compression.

What happens to a clip is drawn once for all its frames, so that it is steady in time, as it is in
real footage; only grain differs from frame to frame. Half of the clips are shrunk and compressed
by H.264 and nothing else, because that is what most people have. A tenth is shrunk only. The rest
gets some of everything, in random order.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Of all clips.
COMPRESSED_SHARE, CLEAN_SHARE = 0.5, 0.1
# Least, most frequent and greatest crf.
CRF = (15.0, 25.0, 35.0)
# Cheap ones: they cost a training loop less, and their artifacts are those of the slow ones.
PRESETS = {"h264": ("veryfast", "fast", "medium"), "hevc": ("superfast", "fast")}

Size = tuple[int, int]


@dataclass(frozen=True)
class Resize:
    """Resize by an antialiased filter.

    Attributes:
        filter: "area", "bilinear" or "bicubic".
        share: Size to reach, as a share of the small frames' size.
    """

    filter: str
    share: float = 1.0

    def apply(self, clip: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
        """Resize a clip to its share of ``size``."""
        goal = tuple(max(1, round(self.share * side)) for side in size)
        if self.filter == "area":
            return F.interpolate(clip, size=goal, mode="area")
        return F.interpolate(clip, size=goal, mode=self.filter, antialias=True)


@dataclass(frozen=True)
class Blur:
    """Blur by a Gaussian that may be longer in one direction than across it.

    Attributes:
        length: Standard deviation in its direction, in pixels of the small frames.
        width: Across it.
        angle: Its direction, in radians.
    """

    length: float
    width: float
    angle: float

    def apply(self, clip: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
        """Blur a clip; it goes on as its mirror image beyond its borders.

        Multiplied in frequencies, where a Gaussian is one too: exp(-2 (pi f sigma)^2).
        """
        height, width = clip.shape[-2:]
        scale = width / size[1]
        reach = min(int(3 * scale * max(self.length, self.width)) + 1, height - 1, width - 1)
        padded = F.pad(clip, (reach,) * 4, mode="reflect")
        y = torch.fft.fftfreq(padded.shape[-2])[:, None]
        x = torch.fft.rfftfreq(padded.shape[-1])
        cosine, sine = float(np.cos(self.angle)), float(np.sin(self.angle))
        along = scale * self.length * (cosine * x + sine * y)
        across = scale * self.width * (cosine * y - sine * x)
        passed = torch.exp(-2 * np.pi**2 * (along**2 + across**2))
        blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(padded) * passed, s=padded.shape[-2:])
        return blurred[..., reach : reach + height, reach : reach + width]


@dataclass(frozen=True)
class Noise:
    """Add grain of a steady strength, new in each frame.

    Attributes:
        strength: Standard deviation in grey levels, at medium brightness.
        follows_light: Whether its variance is proportional to the brightness, as that of photons.
        is_gray: Whether it is the same in all three colors.
    """

    strength: float
    follows_light: bool
    is_gray: bool

    def apply(self, clip: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
        """Add it to a clip."""
        frames, _, height, width = clip.shape
        shape = (frames, 1 if self.is_gray else 3, height, width)
        grain = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        grain = grain * (self.strength / 255)
        return clip + (grain * (2 * clip.clamp(0, 1)).sqrt() if self.follows_light else grain)


@dataclass(frozen=True)
class Compression:
    """Encode a clip with a real encoder, and decode it.

    Attributes:
        codec: "h264" or "hevc".
        crf: Quality on the encoder's scale; smaller is better.
        preset: Of the encoder.
        lead: Frames, mirrored in time, that are encoded before the clip: in a video few runs of
            frames begin with a key frame.
    """

    codec: str
    crf: float
    preset: str
    lead: int

    def apply(self, clip: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
        """Encode and decode a clip."""
        # Here and not above: clips can be shrunk where PyAV is not installed.
        from vsrm_cli.encode.roundtrip import compressed

        lead = min(self.lead, len(clip) - 1)
        whole = torch.cat((clip[1 : lead + 1].flip(0), clip))
        frames = (whole * 255).round().clamp(0, 255).to(torch.uint8).numpy()
        decoded = compressed(frames, self.codec, crf=self.crf, preset=self.preset)
        return torch.from_numpy(decoded[lead:]).float() / 255


Step = Resize | Blur | Noise | Compression


def wear(sharp: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
    """Make small frames of sharp ones as life does.

    Args:
        sharp: (T, 3, 4H, 4W), values 0 to 1.
        size: H and W.
        rng: Decides everything.

    Returns:
        (T, 3, H, W), values 0 to 1 in steps of 1/255.
    """
    clip = sharp
    for step in draw_steps(rng):
        clip = step.apply(clip, size, rng)
    return (clip * 255).round().clamp(0, 255) / 255


def draw_steps(rng: np.random.Generator) -> list[Step]:
    """Draw what happens to one clip; one step brings it to the size of the small frames."""
    steps: list[Step] = [Resize(_filter(rng))]
    kind = rng.random()
    if kind < COMPRESSED_SHARE:
        return [*steps, _compression("h264", rng)]
    if kind < COMPRESSED_SHARE + CLEAN_SHARE:
        return steps
    if rng.random() < 0.4:  # by way of another size, down to half or up to twice the last one
        steps.insert(0, Resize(_filter(rng), 2.0 ** rng.uniform(-1, 1)))
    if rng.random() < 0.7:
        steps.insert(rng.integers(len(steps) + 1), _blur(rng))
    if rng.random() < 0.6:
        steps.insert(rng.integers(len(steps) + 1), _noise(rng))
    if rng.random() < 0.8:
        # Of large frames it would take long, and leave little that is still seen in small ones.
        resized = next(n for n, step in enumerate(steps) if isinstance(step, Resize)) + 1
        is_last = rng.random() < 0.75
        place = len(steps) if is_last else rng.integers(resized, len(steps) + 1)
        steps.insert(place, _compression(str(rng.choice(list(PRESETS))), rng))
    return steps


def _filter(rng: np.random.Generator) -> str:
    return str(rng.choice(["bicubic", "bilinear", "area"], p=[0.6, 0.2, 0.2]))


def _blur(rng: np.random.Generator) -> Blur:
    # BD's Gaussian has a width of 0.4 small pixels.
    length = rng.uniform(0.1, 0.8)
    is_round = rng.random() < 0.5
    width = length if is_round else rng.uniform(0.1, 0.8)
    return Blur(length, width, rng.uniform(0, np.pi))


def _noise(rng: np.random.Generator) -> Noise:
    strength = 1 + 14 * rng.random() ** 2
    return Noise(strength, follows_light=rng.random() < 0.5, is_gray=rng.random() < 0.4)


def _compression(codec: str, rng: np.random.Generator) -> Compression:
    preset = str(rng.choice(PRESETS[codec]))
    return Compression(codec, rng.triangular(*CRF), preset, int(rng.integers(4)))
