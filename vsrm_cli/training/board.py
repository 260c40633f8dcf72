"""What TensorBoard shows of a run, where it is installed; metrics and report do not need it."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vsrm_cli.training.judge import Piece, Verdict

FOLDER = "tensorboard"


class Board:
    """Writes scalars and pictures into a folder that TensorBoard reads.

    Args:
        path: Folder of the run; ``tensorboard`` is made in it. None for no board at all.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the folder, if TensorBoard is installed."""
        self._writer: Any = None
        if path is not None and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(path / FOLDER))

    def add_line(self, line: Mapping[str, float]) -> None:
        """Show the values of a line of the metrics."""
        if self._writer is not None:
            for name in line.keys() - {"step"}:
                self._writer.add_scalar(name, line[name], line["step"])

    def add_pictures(self, pieces: Sequence[Piece], verdict: Verdict) -> None:
        """Show what the network makes of the validation clips."""
        if self._writer is not None:
            for piece, picture in zip(pieces, verdict.pictures, strict=True):
                self._writer.add_image(piece.clip, picture, verdict.step)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
