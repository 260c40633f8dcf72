"""What footage goes through before people have it, from the camera to the file.

What happens to a clip is drawn once for all its frames, so that it is steady in time, as it is in
real footage; only grain differs from frame to frame. A clip is drawn as one of the kinds of files
that people have: a download, a video of a streaming site, a recording of a phone, a file of
twenty years ago, or anything at all in any order. A tenth is shrunk only.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Of all clips, how many are of which kind (see `draw_steps`).
SHARES = {
    "download": 0.4,
    "stream": 0.18,
    "phone": 0.12,
    "old": 0.1,
    "mixed": 0.1,
    "clean": 0.1,
}
# Cheap ones: they cost a training loop less, and their artifacts are those of the slow ones.
PRESETS = {"h264": ("veryfast", "fast", "medium"), "hevc": ("superfast", "fast")}
# Least, most frequent and greatest quality of each codec on its own scale.
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
        strength: Standard deviation in gray levels, at medium brightness.
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
class Sharpening:
    """Sharpen by an unsharp mask, as cameras and editors do; edges get halos.

    Attributes:
        amount: How much of the difference from the blurred clip is added.
        radius: Standard deviation of the blur, in pixels of the small frames.
    """

    amount: float
    radius: float

    def apply(self, clip: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
        """Sharpen a clip."""
        blurred = Blur(self.radius, self.radius, 0.0).apply(clip, size, rng)
        return clip + self.amount * (clip - blurred)


@dataclass(frozen=True)
class Fields:
    """What a poor deinterlacer leaves of fields: rows of the next frame in every second row.

    Attributes:
        blends: Whether neighboring rows were averaged afterwards: a ghost in place of combs.
    """

    blends: bool

    def apply(self, clip: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
        """Weave each frame with the next one; the last one has none."""
        later = torch.cat((clip[1:], clip[-1:]))
        woven = clip.clone()
        woven[..., 1::2, :] = later[..., 1::2, :]
        if not self.blends:
            return woven
        padded = F.pad(woven, (0, 0, 1, 1), mode="replicate")
        return (padded[..., :-2, :] + 2 * woven + padded[..., 2:, :]) / 4


@dataclass(frozen=True)
class Compression:
    """Encode a clip with a real encoder, and decode it; color is kept at half the resolution.

    Attributes:
        codec: One of `QUALITIES`.
        crf: Quality on the encoder's scale; smaller is better.
        preset: Of the encoder.
        lead: Frames, mirrored in time, that are encoded before the clip: in a video few runs of
            frames begin with a key frame.
        deblocks: Whether H.264 filters the edges of its blocks.
    """

    codec: str
    crf: float
    preset: str
    lead: int
    deblocks: bool = True

    def apply(self, clip: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
        """Encode and decode a clip."""
        # Here and not above: clips can be shrunk where PyAV is not installed.
        from vsrm_cli.encode.roundtrip import compressed

        lead = min(self.lead, len(clip) - 1)
        whole = torch.cat((clip[1 : lead + 1].flip(0), clip))
        frames = (whole * 255).round().clamp(0, 255).to(torch.uint8).numpy()
        decoded = compressed(
            frames, self.codec, crf=self.crf, preset=self.preset, deblocks=self.deblocks
        )
        return torch.from_numpy(decoded[lead:]).float() / 255


Step = Resize | Blur | Noise | Sharpening | Fields | Compression


def degrade_real(sharp: Tensor, size: Size, rng: np.random.Generator) -> Tensor:
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
    """Draw what happens to one clip; one step brings it to the size of the small frames.

    * download: shrunk, now and then soft or sharpened, and compressed by H.264.
    * stream: uploaded in a good quality, resized and compressed once more by the site.
    * phone: a noisy sensor, strong sharpening, H.264 or HEVC.
    * old: soft and grainy, now and then with remnants of fields, compressed by MPEG-2, MPEG-4 or
      H.264 without its filter; some of it compressed again later.
    * mixed: some of everything, in random order.
    * clean: shrunk only.
    """
    kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    if kind == "mixed":
        return _mixed(rng)
    steps: list[Step] = [Resize(_filter(rng))]
    if kind == "download":
        # Frames shrunk four times are crisper than those of most cameras.
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
        fields = [Fields(blends=rng.random() < 0.5)] if rng.random() < 0.25 else []
        grain = [_noise(rng)] if rng.random() < 0.5 else []
        again = [_compression("h264", rng)] if rng.random() < 0.3 else []
        return [_blur(rng), *steps, *grain, *fields, _old_compression(rng), *again]
    return steps


def _mixed(rng: np.random.Generator) -> list[Step]:
    steps: list[Step] = [Resize(_filter(rng))]
    if rng.random() < 0.4:  # by way of another size, down to half or up to twice the last one
        steps.insert(0, Resize(_filter(rng), 2.0 ** rng.uniform(-1, 1)))
    if rng.random() < 0.7:
        steps.insert(rng.integers(len(steps) + 1), _blur(rng))
    if rng.random() < 0.6:
        steps.insert(rng.integers(len(steps) + 1), _noise(rng))
    steps += _sharpened(rng, 0.3)
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


def _sharpened(rng: np.random.Generator, share: float) -> list[Step]:
    """Sharpening in so many of the clips."""
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
