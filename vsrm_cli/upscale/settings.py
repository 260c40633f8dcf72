"""The settings of a job that can change its pixels, and stay as they are when it is resumed."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """What was chosen for a job; the journal holds it.

    Attributes:
        device: Where it runs; several are separated by commas.
        hardware: Of all devices, see `devices.resolve_hardware`; None in old journals.
        dtype: The precision: "fp32", "fp16" or "bf16".
        threads: Of each process; None in old journals.
        tile: Side of the tiles in pixels of the input; None for whole frames.
        batch: Tiles, or windows of whole frames, in one call of the network; None until chosen.
        segment_frames: Minimum frames of a segment; None until the speed has been measured.
    """

    device: str
    hardware: str | None
    dtype: str
    threads: int | None
    tile: int | None = None
    batch: int | None = None
    segment_frames: int | None = None

    @classmethod
    def from_json(cls, values: Json) -> Self:
        """Read the settings of a journal."""
        found: Json = {field.name: values.get(_key(field.name)) for field in fields(cls)}
        return cls(**found)

    def to_json(self) -> Json:
        """The settings under their names in journals."""
        return {_key(name): value for name, value in asdict(self).items()}


def _key(name: str) -> str:
    return name.replace("_", " ")
