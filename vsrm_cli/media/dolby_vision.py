"""The Dolby Vision profile of a file. Profile 5 cannot be shown without Dolby Vision.

Most profiles add metadata to a base layer in HDR10, HLG or BT.709, which can be shown without them.
Profile 5 is stored in Dolby's own color space (IPT-PQ-C2); read as YCbCr it is green and purple.
FFmpeg reads the configuration record, but PyAV 18 does not expose it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from av.sidedata.sidedata import Type

# The configuration record of ISO files ("Dolby Vision Streams Within the ISO Base Media File
# Format", 3.2) and, as the extra data of a block addition, of Matroska files: two bytes of
# version, seven bits of profile, nine of level and flags, four of the base layer's compatibility.
_RECORD = re.compile(rb"dv[cvw]C(?:\x41\xed[\x80-\xff])?[\x01\x02][\x00-\x09](.)(.)(.)", re.DOTALL)
# The record is in the first bytes of a file, or in an index at its end.
_HEAD_BYTES, _TAIL_BYTES = 1 << 22, 1 << 25
# Profiles without a compatible base layer if the compatibility in the record is 0.
_MAY_LACK_BASE = (10, 20)


@dataclass(frozen=True, slots=True)
class DolbyVision:
    """The Dolby Vision configuration of a file.

    Attributes:
        profile: Its number.
        has_base: Whether the base layer can be shown without it.
    """

    profile: int
    has_base: bool


def find_dolby_vision(path: Path, side_data: dict[Type, bytes]) -> DolbyVision | None:
    """Find the configuration in a file or its first frame; None if there is none.

    Args:
        path: The file.
        side_data: Of its first frame.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(max(len(head), path.stat().st_size - _TAIL_BYTES))
        match = _RECORD.search(head) or _RECORD.search(file.read())
    if match is not None:
        profile, compatibility = match[1][0] >> 1, match[3][0] >> 4
        lacks_base = profile == 5 or (profile in _MAY_LACK_BASE and compatibility == 0)
        return DolbyVision(profile, not lacks_base)
    return DolbyVision(5, has_base=False) if _is_profile_5(side_data) else None


def _is_profile_5(side_data: dict[Type, bytes]) -> bool:
    """Whether the metadata of a frame are those of profile 5.

    FFmpeg's AVDOVIMetadata begins with the offset of a header. Its fifth byte is vdr_rpu_profile,
    its eleventh bl_video_full_range_flag: only profile 5 has 0 and 1.
    """
    metadata = side_data.get(Type.DOVI_METADATA)
    if metadata is None:
        return False
    header = int.from_bytes(metadata[:8], "little")
    return (
        metadata[header + 4 : header + 5] == b"\0" and metadata[header + 10 : header + 11] == b"\1"
    )
