"""Dolby Vision: which profile a file has. Profile 5 has no picture that others can show.

Most profiles add metadata to a picture in HDR10, HLG or BT.709, and can do without. The picture of
profile 5 is stored in a color space of Dolby's own (IPT-PQ-C2); read as YCbCr it is green and
purple. FFmpeg reads the record that says so, but PyAV 18 does not hand it on.
"""

from __future__ import annotations

import re
from pathlib import Path

from av.sidedata.sidedata import Type

# The configuration record of ISO files ("Dolby Vision Streams Within the ISO Base Media File
# Format", 3.2) and, as the extra data of a block addition, of Matroska files: two bytes of
# version, then seven bits of profile.
_RECORD = re.compile(rb"dv[cvw]C(?:\x41\xed[\x80-\xff])?([\x01\x02][\x00-\x09])(.)", re.DOTALL)
# Where such records lie: in the first bytes of a file, or in an index at its end.
_HEAD_BYTES, _TAIL_BYTES = 1 << 22, 1 << 25
WITHOUT_BASE = 5


def dolby_vision_profile(path: Path, side_data: dict[Type, bytes]) -> int | None:
    """The profile that a file names at its beginning or end; None where it names none.

    Args:
        path: The file.
        side_data: What travels with its first frame.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(max(len(head), path.stat().st_size - _TAIL_BYTES))
        match = _RECORD.search(head) or _RECORD.search(file.read())
    if match is not None:
        return match[2][0] >> 1
    return WITHOUT_BASE if _is_without_base(side_data) else None


def _is_without_base(side_data: dict[Type, bytes]) -> bool:
    """Whether the metadata of a frame say that its picture cannot do without them.

    FFmpeg's AVDOVIMetadata begins with the place of a header, whose fifth byte is
    vdr_rpu_profile: 0 in profile 5 alone.
    """
    metadata = side_data.get(Type.DOVI_METADATA)
    if metadata is None:
        return False
    header = int.from_bytes(metadata[:8], "little")
    return len(metadata) > header + 4 and metadata[header + 4] == 0
