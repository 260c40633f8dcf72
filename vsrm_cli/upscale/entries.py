"""Finished segments as the journal records them, and the points from which a job can resume."""

import json
from dataclasses import asdict, dataclass, field
from typing import Self

from vsrm_cli.frame import Faults, Fingerprint


@dataclass(frozen=True)
class ResumePoint:
    """The end of a segment, from which a job can resume.

    Attributes:
        next: Number of the first frame after it.
        shot: Number of the first frame of the shot that the frame before it belongs to.
        margin: The frames before it that must be read again.
        faults: Of the input up to it; after a seek, a decoder may find others.
    """

    next: int
    shot: int
    margin: list[Fingerprint]
    faults: Faults = field(default=Faults(), compare=False)


BEGINNING = ResumePoint(next=0, shot=0, margin=[])


@dataclass(frozen=True)
class JournalEntry:
    """A closed segment.

    Attributes:
        file: Its name.
        ticks: When its frames are shown, on the clock of the output.
        end: Until when its last frame is shown, on the same clock.
        tile: Side of the tiles in use at its end; None for whole frames.
        resume_point: Its end.
        size_bytes: Size of the file.
    """

    file: str
    ticks: list[int]
    end: int
    tile: int | None
    resume_point: ResumePoint
    size_bytes: int = 0

    @property
    def first(self) -> int:
        """Number of its first frame in the video."""
        return self.next - len(self.ticks)

    @property
    def next(self) -> int:
        """Number of the first frame after it."""
        return self.resume_point.next

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        """Read the line of a journal; also of an older one, which counts fewer faults.

        Raises:
            Exception: If it is incomplete: ValueError, KeyError, TypeError or AttributeError.
        """
        values = json.loads(line)
        point = ResumePoint(
            next=values.pop("first") + len(values["ticks"]),
            shot=values.pop("shot"),
            margin=[Fingerprint(**stamp) for stamp in values.pop("margin")],
            faults=Faults(**{name: values.pop(name, 0) for name in asdict(Faults())}),
        )
        return cls(**values, resume_point=point)

    def to_json(self) -> str:
        """A line of a journal."""
        values = asdict(self) | {"first": self.first}
        point = values.pop("resume_point")
        del point["next"]
        return json.dumps(values | point.pop("faults") | point) + "\n"
