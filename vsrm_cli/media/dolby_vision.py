"""Dolby Vision: which profile a file has. Profile 5 has no picture that others can show.

Most profiles add metadata to a picture in HDR10, HLG or BT.709, and can do without. The picture of
profile 5 is stored in a color space of Dolby's own (IPT-PQ-C2); read as YCbCr it is green and
purple. FFmpeg reads the record that says so, but PyAV 18 does not hand it on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from av.sidedata.sidedata import Type

# The configuration record of ISO files ("Dolby Vision Streams Within the ISO Base Media File
# Format", 3.2) and, as the extra data of a block addition, of Matroska files: two bytes of
# version, seven bits of profile, nine of level and flags, four of what the picture is without it.
_RECORD = re.compile(rb"dv[cvw]C(?:\x41\xed[\x80-\xff])?[\x01\x02][\x00-\x09](.)(.)(.)", re.DOTALL)
# Where such records lie: in the first bytes of a file, or in an index at its end.
_HEAD_BYTES, _TAIL_BYTES = 1 << 22, 1 << 25
# Profiles whose picture can be nothing at all to others, if their record says so.
_MAY_LACK_BASE = (10, 20)


@dataclass(frozen=True, slots=True)
class DolbyVision:
    """What a file says about its Dolby Vision.

    Attributes:
        profile: Its number.
        has_base: Whether the picture can be shown without it.
    """

    profile: int
    has_base: bool


def find_dolby_vision(path: Path, side_data: dict[Type, bytes]) -> DolbyVision | None:
    """What a file says at its beginning or end, or its first frame; None for nothing.

    Args:
        path: The file.
        side_data: What travels with its first frame.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(max(len(head), path.stat().st_size - _TAIL_BYTES))
        match = _RECORD.search(head) or _RECORD.search(file.read())
    if match is not None:
        profile, without = match[1][0] >> 1, match[3][0] >> 4
        lacks_base = profile == 5 or (profile in _MAY_LACK_BASE and without == 0)
        return DolbyVision(profile, not lacks_base)
    return DolbyVision(5, has_base=False) if _is_profile_5(side_data) else None


def _is_profile_5(side_data: dict[Type, bytes]) -> bool:
    """Whether the metadata of a frame are those of profile 5.

    FFmpeg's AVDOVIMetadata begins with the place of a header. There the fifth byte is
    vdr_rpu_profile and the eleventh bl_video_full_range_flag: 0 and 1 in profile 5 alone.
    """
    metadata = side_data.get(Type.DOVI_METADATA)
    if metadata is None:
        return False
    header = int.from_bytes(metadata[:8], "little")
    return (
        metadata[header + 4 : header + 5] == b"\0" and metadata[header + 10 : header + 11] == b"\1"
    )
