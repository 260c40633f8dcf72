"""Static HDR metadata: the mastering display, MaxCLL and MaxFALL.

The HDR transfer function (PQ, HLG) is a color tag. This metadata is read from the side data of the
source's first frame and written through encoder parameters.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from av.sidedata.sidedata import Type

DOLBY_VISION = "Dolby Vision metadata"
# Other side data of a frame, which is lost when the frame is encoded again.
_DROPPED_TYPES = {
    Type.DYNAMIC_HDR_PLUS: "HDR10+ dynamic metadata",
    Type.DYNAMIC_HDR_VIVID: "HDR Vivid dynamic metadata",
    Type.DOVI_METADATA: DOLBY_VISION,
    Type.AMBIENT_VIEWING_ENVIRONMENT: "ambient viewing environment",
    Type.A53_CC: "closed captions in the video stream",
    Type.STEREO3D: "stereoscopic 3D metadata",
    Type.SPHERICAL: "spherical video metadata",
    Type.ICC_PROFILE: "ICC profile",
}

# x264 and x265 take chromaticities in units of 1/50000, and cd/m2 in units of 1/10000.
_CHROMATICITY_STEPS = 50000
_LUMINANCE_STEPS = 10000


@dataclass(frozen=True, slots=True)
class HdrMetadata:
    """Static HDR metadata (SMPTE ST 2086, CTA-861.3).

    Attributes:
        primaries: x and y of red, green, blue and white of the mastering display; or None.
        luminance: Minimum and maximum of that display, in cd/m2; or None. Encoders write it only
            together with ``primaries``.
        peaks: Brightest pixel and brightest frame average (MaxCLL, MaxFALL), in cd/m2; or None.
    """

    primaries: tuple[Fraction, ...] | None
    luminance: tuple[Fraction, Fraction] | None
    peaks: tuple[int, int] | None


def hdr_metadata_of(side_data: Mapping[Type, bytes]) -> HdrMetadata | None:
    """Read the side data of a frame; None if it has no HDR metadata."""
    primaries: tuple[Fraction, ...] | None = None
    luminance: tuple[Fraction, Fraction] | None = None
    peaks: tuple[int, int] | None = None
    if Type.MASTERING_DISPLAY_METADATA in side_data:
        # AVMasteringDisplayMetadata: ten fractions, then whether the first eight and the last
        # two of them are set.
        numbers = struct.unpack_from("=22i", side_data[Type.MASTERING_DISPLAY_METADATA])
        values = [Fraction(a, b or 1) for a, b in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
        primaries = tuple(values[:8]) if numbers[20] else None
        luminance = (values[8], values[9]) if numbers[21] else None
    if Type.CONTENT_LIGHT_LEVEL in side_data:
        peaks = struct.unpack_from("=2I", side_data[Type.CONTENT_LIGHT_LEVEL])
    if primaries is None and luminance is None and peaks is None:
        return None
    return HdrMetadata(primaries, luminance, peaks)


def dropped_side_data(side_data: Mapping[Type, bytes]) -> tuple[str, ...]:
    """Name the side data of a frame that is lost."""
    names = [name for kind, name in _DROPPED_TYPES.items() if kind in side_data]
    hdr = hdr_metadata_of(side_data)
    if hdr is not None and (hdr.primaries is None) != (hdr.luminance is None):
        names.append("incomplete HDR metadata of the mastering display")
    return tuple(names)


def hdr_parameters(encoder: str, hdr: HdrMetadata) -> dict[str, str]:
    """The encoder parameters that write HDR metadata.

    Args:
        encoder: FFmpeg's name of it.
        hdr: The metadata.

    Returns:
        Names and values, in the encoder's syntax; empty if it cannot write them.
    """
    names = {
        "libx264": ("mastering-display", "cll"),
        "libx265": ("master-display", "max-cll"),
        "libsvtav1": ("mastering-display", "content-light"),
    }.get(encoder)
    if names is None:
        return {}
    display_name, peaks_name = names
    parameters: dict[str, str] = {}
    if hdr.primaries is not None and hdr.luminance is not None:
        is_av1 = encoder == "libsvtav1"
        parameters[display_name] = _display(hdr.primaries, hdr.luminance, as_decimals=is_av1)
    if hdr.peaks is not None:
        parameters[peaks_name] = f"{hdr.peaks[0]},{hdr.peaks[1]}"
    return parameters


def _display(
    primaries: tuple[Fraction, ...], luminance: tuple[Fraction, Fraction], *, as_decimals: bool
) -> str:
    def number(value: Fraction, steps: int) -> str:
        return f"{float(value):.6f}" if as_decimals else str(round(value * steps))

    def place(first: int) -> str:
        return ",".join(number(v, _CHROMATICITY_STEPS) for v in primaries[first : first + 2])

    least, most = (number(value, _LUMINANCE_STEPS) for value in luminance)
    return f"G({place(2)})B({place(4)})R({place(0)})WP({place(6)})L({most},{least})"
