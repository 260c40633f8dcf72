"""The options of `vsrm upscale`, read and checked once.

The command line passes text, a Python program passes numbers; both become one `UpscaleOptions`,
which is passed on whole. Nothing here needs a file, a network or a device, so a mistake is reported
before anything is loaded.
"""

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from vsrm_cli.errors import UsageError
from vsrm_cli.inference.tiling import MIN_TILE

DEFAULT_MODEL = "auto"  # see `vsrm_cli.upscale.plan`

# A window of 32 frames is about a second: enough neighbors for every frame, and little enough for
# the memory of a laptop. 8 frames of each window are computed twice: a third more work. The first
# frames of a window lack what came before: with an overlap of 4, `vsrm-t-sharp` is a tenth softer
# at each join, with 8 less than 7 % (`test_frames_where_windows_join` in tests/test_shipped.py).
DEFAULT_WINDOW = 32
DEFAULT_OVERLAP = 8

# Most networks enlarge four times; for other sizes, frames are resampled.
DEFAULT_SCALE = 4
MAX_SCALE = 16
DEFAULT_RATE, MAX_RATE = Fraction(25), 1000
MIN_SIDE, MAX_SIDE = 16, 16384

FirstField = Literal["tff", "bff"]
_DEINTERLACE: dict[str, bool | FirstField] = {
    "auto": True,
    "off": False,
    "tff": "tff",
    "bff": "bff",
}

DTYPES = ("auto", "fp32", "fp16", "bf16")
AUDIO = ("copy", "transcode", "none")

_ONE = r"(cpu|cuda(:\d+)?|mps|xpu(:\d+)?)"
_DEVICE = re.compile(rf"auto|cuda:all|{_ONE}(,{_ONE})*", re.ASCII)
_CLUSTER = re.compile(r"auto|[^\s/]+:\d+", re.ASCII)
CLUSTER_DEVICES = ("auto", "cuda", "cpu")
_TIME = re.compile(
    r"""(?:(?:(?P<hours>\d+):)?(?P<minutes>\d+):)?(?P<seconds>\d+(?:\.\d*)?|\.\d+)""",
    re.ASCII,
)

Time = Fraction | float | str | None


@dataclass(frozen=True, kw_only=True)
class UpscaleOptions:
    """The options of a job. `read` takes each value as the command line or Python spells it.

    Attributes:
        model: A network by its name, a weight file, or a Hub id ``owner/name[@revision]``, which
            is downloaded if needed. "auto" selects the one for the footage.
        window: Frames that the network sees together.
        overlap: Frames that two neighboring windows share, at most half a window; None chooses.
        tile: Side of a tile in pixels of the input; None or "off" for whole frames; "auto" for the
            best size that fits into the free memory.
        device: "auto", "cpu", "cuda", "cuda:<n>", "mps" or "xpu" (Intel, untested); several of
            them with commas between them, or "cuda:all".
        cluster: Work on all machines of a Ray cluster: "auto" for that of this machine, or an
            address such as "10.0.0.1:6379". The device must be "auto", "cuda" or "cpu".
        mixed: Whether devices may be of different kinds, so that frames differ by rounding.
        dtype: "auto", "fp32", "fp16" or "bf16".
        codec: "auto" is H.264, HEVC for more than 8 bits, and AV1 in .webm; or "h264", "hevc",
            "av1", "ffv1", or another encoder that PyAV offers.
        crf: Quality on the codec's own scale; None for the default of the codec.
        preset: A preset of the encoder; None for its default.
        pix_fmt: Pixel format of the output; "auto" keeps the bit depth if the
            encoder can, with 4:2:0 chroma for codecs that people play.
        audio: "copy" copies sound; "transcode" encodes what the output's container cannot hold, as
            AAC or Opus; "none" leaves sound out.
        scale: How many times larger the output is, from 1 to 16; None for the scale of the network,
            which is 4 if "auto" chooses it.
        is_scale_given: Whether the user gave the scale.
        height: Instead: the height on the screen, in lines.
        size: Instead: the box on the screen that the output just fits into, such as "1920x1080".
        deinterlace: "auto" deinterlaces if there is combing, "off" never, "tff" and "bff" always,
            with the top or the bottom field first.
        start: Start time, in seconds or as text such as "1:30.5"; None for the beginning.
        end: End time, likewise; frames from this time on are left out.
        fps: Frames per second of an input of images; also a fraction such as "24000/1001".
        hwaccel: "auto" decodes in hardware if that gives the same frames, and uses a software
            encoder if the hardware of the given one is missing; "off" does neither.
        detail: For a network with two weight files: 0 is faithful to the input, 1 adds likely
            detail; None for the default.
        segment_frames: Minimum number of frames between resume points; None for about half a minute
            of work.
        overwrite: Whether to replace an existing output.
        restart: Whether to discard the unfinished work of an earlier call.
    """

    model: str | Path = DEFAULT_MODEL
    window: int = DEFAULT_WINDOW
    overlap: int = DEFAULT_OVERLAP
    tile: int | Literal["auto"] | None = "auto"
    device: str = "auto"
    cluster: str | None = None
    mixed: bool = False
    dtype: str = "auto"
    codec: str = "auto"
    crf: int | None = None
    preset: str | None = None
    pix_fmt: str = "auto"
    audio: Literal["copy", "transcode", "none"] = "copy"
    scale: Fraction = Fraction(DEFAULT_SCALE)
    is_scale_given: bool = False
    height: int | None = None
    size: tuple[int, int] | None = None
    deinterlace: bool | FirstField = True
    start: Fraction | None = None
    end: Fraction | None = None
    fps: Fraction = DEFAULT_RATE
    hwaccel: bool = False
    detail: float | None = None
    segment_frames: int | None = None
    overwrite: bool = False
    restart: bool = False

    def __post_init__(self) -> None:
        """Refuse values that can never work."""
        if self.window < 1:
            raise UsageError(f"The window must be 1 frame or more, not {self.window}.")
        if not 0 <= self.overlap <= self.window // 2:
            most = self.window // 2
            span = f"0 to {most}, half of the window of {self.window} frames" if most else "0"
            raise UsageError(f"The overlap must be {span}, not {self.overlap}.")
        if isinstance(self.tile, int) and self.tile < MIN_TILE:
            raise UsageError(f"The tile must have {MIN_TILE} pixels or more, not {self.tile}.")
        if not _DEVICE.fullmatch(self.device):
            raise UsageError(
                "The device must be auto, cpu, cuda, cuda:<number>, cuda:all, mps, xpu, or several "
                f'such as cuda:0,cuda:1, not "{self.device}".'
            )
        check_cluster(self.cluster)
        if self.cluster is not None and self.device not in CLUSTER_DEVICES:
            raise UsageError(
                f"With --cluster, the device must be {', '.join(CLUSTER_DEVICES)}, not "
                f'"{self.device}".'
            )
        if self.dtype not in DTYPES:
            raise UsageError(f'The dtype must be {", ".join(DTYPES)}, not "{self.dtype}".')
        if self.audio not in AUDIO:
            raise UsageError(f'The audio must be {", ".join(AUDIO)}, not "{self.audio}".')
        if self.detail is not None and not 0 <= self.detail <= 1:
            raise UsageError(f"The detail must be a number from 0 to 1, not {self.detail:g}.")
        if self.segment_frames is not None and self.segment_frames < 1:
            raise UsageError(f"A segment must have 1 frame or more, not {self.segment_frames}.")

    @classmethod
    def read(cls, **given: Any) -> Self:
        """Read options as a user wrote them; those left out keep their defaults.

        Raises:
            TypeError: If there is no option of a name.
            UsageError: If a value can never work; the message says which and why.
        """
        names = {field.name for field in fields(cls)} - {"is_scale_given"}
        if unknown := sorted(given.keys() - names):
            raise TypeError(f"there is no option {unknown[0]!r}; see UpscaleOptions")
        if sum(given.get(name) is not None for name in ("scale", "height", "size")) > 1:
            raise UsageError("Give only one of --scale, --height and --size.")
        values = {n: _READERS[n](x) if n in _READERS else x for n, x in given.items()}
        if values.get("overlap") is None:
            values["overlap"] = min(DEFAULT_OVERLAP, values.get("window", DEFAULT_WINDOW) // 4)
        options = cls(**values, is_scale_given=given.get("scale") is not None)
        if options.end is not None and options.end <= (options.start or 0):
            start = given.get("start") or 0
            raise UsageError(f"The end ({given['end']}) must come after the start ({start}).")
        return options

    @property
    def is_size_open(self) -> bool:
        """Whether the network decides the size of the output."""
        is_default = self.scale == DEFAULT_SCALE and not self.is_scale_given
        return is_default and self.height is None and self.size is None

    def for_journal(self) -> dict[str, str | None]:
        """The options that the output depends on, under their names in journals."""
        values = asdict(self)
        # Weights are identified by a checksum; the journal itself lists the hardware.
        for name in ("model", "is_scale_given", "cluster", "mixed", "overwrite", "restart"):
            del values[name]
        names = {"size": "box", "pix_fmt": "pixel_format"}
        return {
            names.get(name, name).replace("_", " "): None if value is None else str(value)
            for name, value in values.items()
        }


def read_tile(tile: int | str | None) -> int | Literal["auto"] | None:
    """Read the side of a tile: "auto", "off" (None), or a positive number of pixels.

    Raises:
        UsageError: If it is none of these.
    """
    if tile == "auto":
        return "auto"
    if tile is None or tile == "off":
        return None
    side = int(tile) if re.fullmatch(r"\d+", str(tile), re.ASCII) else 0
    if side < 1:
        raise UsageError(f'The tile must be auto, off or a number of pixels, not "{tile}".')
    return side


def read_scale(scale: Fraction | float | str | None) -> Fraction:
    """Read the scale; None for `DEFAULT_SCALE`.

    Raises:
        UsageError: If it is no number from 1 to `MAX_SCALE`.
    """
    if scale is None:
        return Fraction(DEFAULT_SCALE)
    try:
        number = Fraction(str(scale))
    except (ValueError, ZeroDivisionError):
        number = Fraction(0)
    if not 1 <= number <= MAX_SCALE:
        raise UsageError(f'The scale must be a number from 1 to {MAX_SCALE}, not "{scale}".')
    return number


def read_rate(rate: Fraction | float | str | None) -> Fraction:
    """Read a frame rate, without rounding; None for `DEFAULT_RATE`.

    Raises:
        UsageError: If it is no number above 0 and up to `MAX_RATE`.
    """
    if rate is None:
        return DEFAULT_RATE
    try:
        number = Fraction(str(rate))
    except (ValueError, ZeroDivisionError):
        number = Fraction(0)
    if not 0 < number <= MAX_RATE:
        raise UsageError(f'The rate must be a number up to {MAX_RATE}, not "{rate}".')
    return number


def check_cluster(address: str | None) -> None:
    """Check the address of a cluster, or that there is none.

    Raises:
        UsageError: If it can never be one.
    """
    if address is not None and not _CLUSTER.fullmatch(address):
        raise UsageError(
            f'The cluster must be auto, or an address such as 10.0.0.1:6379, not "{address}".'
        )


def read_switch(word: str, *, name: str) -> bool:
    """Read "auto" (True) or "off".

    Raises:
        UsageError: If it is neither.
    """
    if word not in ("auto", "off"):
        raise UsageError(f'The {name} must be auto or off, not "{word}".')
    return word == "auto"


def read_deinterlace(word: str) -> bool | FirstField:
    """Read "auto" (True), "off", or which field comes first.

    Raises:
        UsageError: If it is none of these.
    """
    if word not in _DEINTERLACE:
        raise UsageError(f'The deinterlacing must be {", ".join(_DEINTERLACE)}, not "{word}".')
    return _DEINTERLACE[word]


def read_side(pixels: int | None, *, name: str) -> int | None:
    """Check a side of the output in pixels; None stays None.

    Raises:
        UsageError: If it is odd, or out of range.
    """
    if pixels is not None and (pixels % 2 or not MIN_SIDE <= pixels <= MAX_SIDE):
        raise UsageError(
            f"The {name} must be an even number of pixels from {MIN_SIDE} to {MAX_SIDE}, "
            f"not {pixels}."
        )
    return pixels


def read_box(size: str | None) -> tuple[int, int] | None:
    """Read a width and a height, such as 1920x1080; None stays None.

    Raises:
        UsageError: If the text has another form, or a side is odd or out of range.
    """
    if size is None:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", size, re.ASCII)
    if not match:
        raise UsageError(f'The size must be written such as 1920x1080, not "{size}".')
    width, height = (int(side) for side in match.groups())
    read_side(width, name="width")
    read_side(height, name="height")
    return width, height


def read_time(time: Time, *, name: str) -> Fraction | None:
    """Read a time, without rounding: 0.1 is exactly a tenth of a second.

    Args:
        time: Seconds, or text of the form 90, 90.5, 1:30.5 or 0:01:30.5; None stays None.
        name: Its name in the message.

    Raises:
        UsageError: If the text has another form, or the number is negative or not finite.
    """
    if time is None or isinstance(time, str):
        return None if time is None else _parse_time(time, name=name)
    if not math.isfinite(time) or time < 0:
        raise UsageError(f"The {name} must be 0 seconds or more, not {time}.")
    # Through its decimal digits: the float 0.1 is slightly above a tenth.
    return Fraction(str(time))


def _parse_time(text: str, *, name: str) -> Fraction:
    match = _TIME.fullmatch(text)
    hours, minutes, seconds = match.group("hours", "minutes", "seconds") if match else ("", "", "")
    has_carry = (minutes and Fraction(seconds) >= 60) or (hours and int(minutes) >= 60)
    if not match or has_carry:
        raise UsageError(
            f"The {name} must be seconds or [hours:]minutes:seconds, such as 90.5 or 1:30.5, "
            f'not "{text}".'
        )
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + Fraction(seconds)


_READERS: dict[str, Callable[[Any], Any]] = {
    "tile": read_tile,
    "scale": read_scale,
    "height": partial(read_side, name="height"),
    "size": read_box,
    "deinterlace": read_deinterlace,
    "start": partial(read_time, name="start"),
    "end": partial(read_time, name="end"),
    "fps": read_rate,
    "hwaccel": partial(read_switch, name="hwaccel"),
}
