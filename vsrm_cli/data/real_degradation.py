"""Real-world degradation: blur, resizing, noise, sharpening and compression.

The parameters are drawn once for a clip, so that the degradation is steady in time, as in real
footage; only noise differs from frame to frame. Each clip is one of the usual kinds of files: a
download, a video from a streaming site, a recording of a phone, a twenty-year-old file, or any
steps in any order. A tenth is only shrunk.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# The share of each kind of clips (see `draw_steps`).
SHARES = {
    "download": 0.4,
    "stream": 0.18,
    "phone": 0.12,
    "old": 0.1,
    "mixed": 0.1,
    "clean": 0.1,
}
# Fast presets: they take less time, and their artifacts are those of the slow ones.
PRESETS = {"h264": ("veryfast", "fast", "medium"), "hevc": ("superfast", "fast")}
# Lowest, most frequent and highest quality value of each codec, on its own scale.
QUALITIES = {
    "h264": (15.0, 25.0, 35.0),
    "hevc": (17.0, 27.0, 36.0),
    "vp9": (22.0, 36.0, 50.0),
    "mpeg4": (2.0, 5.0, 14.0),
    "mpeg2": (2.0, 5.0, 14.0),
}

Size = tuple[int, int]


@dataclass(frozen=True)
class Resize:
    """Resize by an antialiased filter.

    Attributes:
        filter: "area", "bilinear" or "bicubic".
        share: The target size, relative to the size of the LR frames.
    """

    filter: str
    share: float = 1.0

    def apply(self, clip: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
        """Resize a clip."""
        goal = tuple(max(1, round(self.share * side)) for side in size)
        if self.filter == "area":
            return F.interpolate(clip, size=goal, mode="area")
        return F.interpolate(clip, size=goal, mode=self.filter, antialias=True)


@dataclass(frozen=True)
class Blur:
    """Blur by an anisotropic Gaussian.

    Attributes:
        length: Standard deviation along its direction, in LR pixels.
        width: Standard deviation across it.
        angle: Its direction, in radians.
    """

    length: float
    width: float
    angle: float

    def apply(self, clip: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
        """Blur a clip; borders are mirrored.

        In the frequency domain, where a Gaussian is exp(-2 (pi f sigma)^2).
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
    """Add noise of constant strength, different in each frame.

    Attributes:
        strength: Standard deviation in gray levels, at medium brightness.
        follows_light: Whether its variance is proportional to the brightness (shot noise).
        is_gray: Whether it is the same in all three channels.
    """

    strength: float
    follows_light: bool
    is_gray: bool

    def apply(self, clip: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
        """Add noise to a clip."""
        frames, _, height, width = clip.shape
        shape = (frames, 1 if self.is_gray else 3, height, width)
        grain = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        grain = grain * (self.strength / 255)
        return clip + (grain * (2 * clip.clamp(0, 1)).sqrt() if self.follows_light else grain)


@dataclass(frozen=True)
class Sharpening:
    """Sharpen by an unsharp mask, as cameras and editors do; edges get halos.

    Attributes:
        amount: How much of the difference from the blurred clip is added.
        radius: Standard deviation of the blur, in LR pixels.
    """

    amount: float
    radius: float

    def apply(self, clip: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
        """Sharpen a clip."""
        blurred = Blur(self.radius, self.radius, 0.0).apply(clip, size, rng)
        return clip + self.amount * (clip - blurred)


@dataclass(frozen=True)
class InterlacingArtifacts:
    """Remnants of poor deinterlacing: every second row is from the next frame.

    Attributes:
        blends: Whether neighboring rows are averaged afterwards: a ghost instead of combing.
    """

    blends: bool

    def apply(self, clip: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
        """Weave each frame with the next one; the last one with itself."""
        later = torch.cat((clip[1:], clip[-1:]))
        woven = clip.clone()
        woven[..., 1::2, :] = later[..., 1::2, :]
        if not self.blends:
            return woven
        padded = F.pad(woven, (0, 0, 1, 1), mode="replicate")
        return (padded[..., :-2, :] + 2 * woven + padded[..., 2:, :]) / 4


@dataclass(frozen=True)
class Compression:
    """Encode a clip with a real encoder and decode it, as 4:2:0.

    Attributes:
        codec: One of `QUALITIES`.
        crf: Quality on the encoder's scale; smaller is better.
        preset: Of the encoder.
        lead: Mirrored frames that are encoded before the clip, so that not every clip begins with
            a key frame.
        deblocks: Whether H.264 filters the edges of its blocks.
    """

    codec: str
    crf: float
    preset: str
    lead: int
    deblocks: bool = True

    def apply(self, clip: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
        """Encode and decode a clip."""
        # Imported here, since the other degradations work without PyAV.
        from vsrm_cli.encode.roundtrip import encode_and_decode

        lead = min(self.lead, len(clip) - 1)
        whole = torch.cat((clip[1 : lead + 1].flip(0), clip))
        frames = (whole * 255).round().clamp(0, 255).to(torch.uint8).numpy()
        decoded = encode_and_decode(
            frames, self.codec, crf=self.crf, preset=self.preset, deblocks=self.deblocks
        )
        return torch.from_numpy(decoded[lead:]).float() / 255


Step = Resize | Blur | Noise | Sharpening | InterlacingArtifacts | Compression


def degrade_real(hr: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
    """Make LR frames by real-world degradation.

    Args:
        hr: (T, 3, 4H, 4W), values 0 to 1.
        size: H and W.
        rng: Decides everything.

    Returns:
        (T, 3, H, W), values 0 to 1 in steps of 1/255.
    """
    clip = hr
    for step in draw_steps(rng):
        clip = step.apply(clip, size, rng)
    return (clip * 255).round().clamp(0, 255) / 255


def draw_steps(rng: np.random.Generator) -> list[Step]:
    """Draw the steps of one clip; one of them resizes it to the size of the LR frames.

    * download: shrunk, sometimes soft or sharpened, and compressed by H.264.
    * stream: uploaded in good quality, then resized and compressed again by the site.
    * phone: a noisy sensor, strong sharpening, H.264 or HEVC.
    * old: soft and noisy, sometimes badly deinterlaced, compressed by MPEG-2, MPEG-4 or H.264
      without deblocking; some of it compressed again later.
    * mixed: any steps, in random order.
    * clean: only shrunk.
    """
    kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    if kind == "mixed":
        return _mixed(rng)
    steps: list[Step] = [Resize(_filter(rng))]
    if kind == "download":
        # Frames shrunk four times are sharper than those of most cameras.
        soft = [_blur(rng)] if rng.random() < 0.35 else []
        return [*steps, *soft, *_sharpened(rng, 0.15), _compression("h264", rng)]
    if kind == "stream":
        upload = _compression("h264", rng, best=15.0, worst=24.0)
        larger = Resize(_filter(rng), rng.uniform(0.75, 1.6))
        codec = str(rng.choice(["h264", "vp9", "hevc"], p=[0.5, 0.35, 0.15]))
        return [larger, upload, *steps, _compression(codec, rng)]
    if kind == "phone":
        sensor = [Noise(rng.uniform(1, 8), follows_light=True, is_gray=False)]
        codec = str(rng.choice(["h264", "hevc"]))
        return [*steps, *sensor, *_sharpened(rng, 0.7), _compression(codec, rng, worst=30.0)]
    if kind == "old":
        fields = [InterlacingArtifacts(blends=rng.random() < 0.5)] if rng.random() < 0.25 else []
        grain = [_noise(rng)] if rng.random() < 0.5 else []
        again = [_compression("h264", rng)] if rng.random() < 0.3 else []
        return [_blur(rng), *steps, *grain, *fields, _old_compression(rng), *again]
    return steps


def _mixed(rng: np.random.Generator) -> list[Step]:
    steps: list[Step] = [Resize(_filter(rng))]
    if rng.random() < 0.4:  # through another size, half to twice the final one
        steps.insert(0, Resize(_filter(rng), 2.0 ** rng.uniform(-1, 1)))
    if rng.random() < 0.7:
        steps.insert(rng.integers(len(steps) + 1), _blur(rng))
    if rng.random() < 0.6:
        steps.insert(rng.integers(len(steps) + 1), _noise(rng))
    steps += _sharpened(rng, 0.3)
    if rng.random() < 0.8:
        # Large frames would take long, and show few artifacts after they are shrunk.
        resized = next(n for n, step in enumerate(steps) if isinstance(step, Resize)) + 1
        is_last = rng.random() < 0.75
        place = len(steps) if is_last else rng.integers(resized, len(steps) + 1)
        steps.insert(place, _compression(str(rng.choice(list(PRESETS))), rng))
    return steps


def _filter(rng: np.random.Generator) -> str:
    return str(rng.choice(["bicubic", "bilinear", "area"], p=[0.6, 0.2, 0.2]))


def _blur(rng: np.random.Generator) -> Blur:
    # BD's Gaussian has a standard deviation of 0.4 LR pixels.
    length = rng.uniform(0.1, 0.8)
    is_round = rng.random() < 0.5
    width = length if is_round else rng.uniform(0.1, 0.8)
    return Blur(length, width, rng.uniform(0, np.pi))


def _noise(rng: np.random.Generator) -> Noise:
    strength = 1 + 14 * rng.random() ** 2
    return Noise(strength, follows_light=rng.random() < 0.5, is_gray=rng.random() < 0.4)


def _sharpened(rng: np.random.Generator, share: float) -> list[Step]:
    """Sharpening, in a share of the clips."""
    if rng.random() >= share:
        return []
    return [Sharpening(rng.uniform(0.2, 1.0), rng.uniform(0.5, 1.5))]


def _compression(
    codec: str, rng: np.random.Generator, *, best: float = 0.0, worst: float = 63.0
) -> Compression:
    low, usual, high = QUALITIES[codec]
    low, high = max(low, best), min(high, worst)
    crf = rng.triangular(low, min(usual, (low + high) / 2), high)
    preset = str(rng.choice(PRESETS.get(codec, ("medium",))))
    return Compression(codec, crf, preset, int(rng.integers(4)))


def _old_compression(rng: np.random.Generator) -> Compression:
    codec = str(rng.choice(["mpeg4", "mpeg2", "h264"], p=[0.45, 0.25, 0.3]))
    compression = _compression(codec, rng)
    return replace(compression, deblocks=False) if codec == "h264" else compression
