"""How a video is to be restored: what a user may ask for, read and checked.

The command line hands over words, a Python program numbers; both become one `Settings`.
Nothing here needs a file, a network or a device, so a slip is told before anything is loaded.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Self

from vsrm_cli.errors import UsageError

DEFAULT_MODEL = "auto"  # see `vsrm_cli.upscale.plan`

# A window of 24 frames shows the network about a second: most of what neighbours can tell about
# a frame, for a memory that a laptop has. Each window gives 4 frames a second time, for the
# cross-fade to the next: a fifth more work than without, and no jump where two meet.
DEFAULT_WINDOW = 24
DEFAULT_OVERLAP = 4

# Frames are enlarged by the network four times, and then resampled where another size is asked for.
DEFAULT_SCALE = 4
MAX_SCALE = 16
MAX_RATE = 1000
MIN_SIDE, MAX_SIDE = 16, 16384

DEINTERLACE = ("auto", "off")

HWACCEL = ("auto", "off")

DTYPES = ("auto", "fp32", "fp16", "bf16")

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps", re.ASCII)
_TIME = re.compile(
    r"""(?:(?:(?P<hours>\d+):)?(?P<minutes>\d+):)?(?P<seconds>\d+(?:\.\d*)?|\.\d+)""",
    re.ASCII,
)

Time = Fraction | float | str | None


@dataclass(frozen=True)
class Settings:
    """What a user asked for, in one form, each value possible in itself.

    Attributes:
        window: Frames that the network sees together.
        overlap: Frames that two neighbouring windows share; half a window at most.
        tile: Side of a tile in pixels of the input; None for whole frames; "auto" for as
            large as the free memory allows.
        device: "auto", "cpu", "cuda", "cuda:<n>" or "mps".
        dtype: One of `DTYPES`.
        start: Seconds into the video at which to begin; None for its beginning.
        end: Seconds into the video before which to stop; None for its end.
        scale: How many times larger to make the picture, unless `height` or `box` is set.
        height: Lines of the picture on the screen.
        box: Width and height on the screen into which the picture shall just fit.
        deinterlace: Whether to make whole frames of interlaced ones.
        fps: Frames per second of an input of pictures.
        segment_frames: Frames, at least, between the points at which the work can go on after
            an interruption; None for about half a minute of work.
        hwaccel: Whether graphics hardware may decode, and be replaced where it cannot encode.
        detail: Where between the two weight files of a pair, 0 to 1; None for what suits.
    """

    window: int
    overlap: int
    tile: int | Literal["auto"] | None
    device: str
    dtype: str
    start: Fraction | None
    end: Fraction | None
    scale: Fraction
    height: int | None
    box: tuple[int, int] | None
    deinterlace: bool
    fps: Fraction
    segment_frames: int | None = None
    hwaccel: bool = False
    detail: float | None = None

    @classmethod
    def read(
        cls,
        *,
        window: int,
        overlap: int | None,
        tile: int | str | None,
        device: str,
        dtype: str,
        start: Time,
        end: Time,
        scale: Fraction | float | str | None = None,
        height: int | None = None,
        size: str | None = None,
        deinterlace: str = "auto",
        fps: Fraction | float | str = 25,
        segment_frames: int | None = None,
        hwaccel: str = "off",
        detail: float | None = None,
    ) -> Self:
        """Read what a user wrote.

        Args:
            window: As the attribute.
            overlap: As the attribute; None for `DEFAULT_OVERLAP`, or less in a small window.
            tile: As the attribute; in words also "off" (whole frames) and a number.
            device: As the attribute.
            dtype: As the attribute.
            start: Seconds, or text as `read_time` takes it.
            end: The same.
            scale: As the attribute; None for `DEFAULT_SCALE`.
            height: As the attribute.
            size: The box as text, such as 1920x1080.
            deinterlace: "auto" or "off".
            fps: As the attribute; in words also a fraction such as 24000/1001.
            segment_frames: As the attribute.
            hwaccel: "auto" or "off".
            detail: As the attribute.

        Raises:
            UsageError: If a value can never work; the message says which and why.
        """
        if window < 1:
            raise UsageError(f"The window must be 1 frame or more, not {window}.")
        shared = min(DEFAULT_OVERLAP, window // 2) if overlap is None else overlap
        if not 0 <= shared <= window // 2:
            raise UsageError(
                f"The overlap must be 0 to {window // 2}, half of the window of {window} frames, "
                f"not {shared}."
            )
        if not _DEVICE.fullmatch(device):
            raise UsageError(
                f'The device must be auto, cpu, cuda, cuda:<number> or mps, not "{device}".'
            )
        if dtype not in DTYPES:
            raise UsageError(f'The dtype must be {", ".join(DTYPES)}, not "{dtype}".')
        first = read_time(start, name="start")
        last = read_time(end, name="end")
        if last is not None and last <= (first or 0):
            raise UsageError(f"The end ({end}) must come after the start ({start or 0}).")
        if segment_frames is not None and segment_frames < 1:
            raise UsageError(f"A segment must have 1 frame or more, not {segment_frames}.")
        if sum(wish is not None for wish in (scale, height, size)) > 1:
            raise UsageError("Give only one of --scale, --height and --size.")
        if deinterlace not in DEINTERLACE:
            raise UsageError(
                f'The deinterlacing must be {" or ".join(DEINTERLACE)}, not "{deinterlace}".'
            )
        if hwaccel not in HWACCEL:
            raise UsageError(f'The hwaccel must be {" or ".join(HWACCEL)}, not "{hwaccel}".')
        if detail is not None and not 0 <= detail <= 1:
            raise UsageError(f"The detail must be a number from 0 to 1, not {detail:g}.")
        return cls(
            window=window,
            overlap=shared,
            tile=read_tile(tile),
            device=device,
            dtype=dtype,
            start=first,
            end=last,
            scale=read_scale(scale),
            height=None if height is None else read_side(height, name="height"),
            box=None if size is None else read_box(size),
            deinterlace=deinterlace == "auto",
            fps=read_rate(fps),
            segment_frames=segment_frames,
            hwaccel=hwaccel == "auto",
            detail=detail,
        )


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
    """Read how many times larger to make the picture; None for `DEFAULT_SCALE`.

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


def read_rate(rate: Fraction | float | str) -> Fraction:
    """Read how many frames there are in a second, without rounding.

    Raises:
        UsageError: If it is no number above 0 and up to `MAX_RATE`.
    """
    try:
        number = Fraction(str(rate))
    except (ValueError, ZeroDivisionError):
        number = Fraction(0)
    if not 0 < number <= MAX_RATE:
        raise UsageError(f'The rate must be a number up to {MAX_RATE}, not "{rate}".')
    return number


def read_side(pixels: int, *, name: str) -> int:
    """Check a side of the output in pixels.

    Raises:
        UsageError: If it is odd, or out of range.
    """
    if pixels % 2 or not MIN_SIDE <= pixels <= MAX_SIDE:
        raise UsageError(
            f"The {name} must be an even number of pixels from {MIN_SIDE} to {MAX_SIDE}, "
            f"not {pixels}."
        )
    return pixels


def read_box(size: str) -> tuple[int, int]:
    """Read a width and a height, written such as 1920x1080.

    Raises:
        UsageError: If the text has another form, or a side is odd or out of range.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", size, re.ASCII)
    if not match:
        raise UsageError(f'The size must be written such as 1920x1080, not "{size}".')
    width, height = (int(side) for side in match.groups())
    return read_side(width, name="width"), read_side(height, name="height")


def read_time(time: Time, *, name: str) -> Fraction | None:
    """Read a moment, without rounding: 0.1 is a tenth of a second, however it was written.

    Args:
        time: Seconds, or text of the form 90, 90.5, 1:30.5 or 0:01:30.5; None stays None.
        name: What to call it in the message.

    Raises:
        UsageError: If the text has another form, or the number is negative or not finite.
    """
    if time is None or isinstance(time, str):
        return None if time is None else _parse_time(time, name=name)
    if not math.isfinite(time) or time < 0:
        raise UsageError(f"The {name} must be 0 seconds or more, not {time}.")
    # By way of its decimal digits: the float 0.1 itself lies a little above a tenth.
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
