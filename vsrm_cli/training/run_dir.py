"""The folder of a run: weights, state, metrics. Files are written atomically."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vsrm_cli.checkpoints.loading import save_weights
from vsrm_cli.errors import InputError, OutputError
from vsrm_cli.files import write_atomically
from vsrm_cli.models.network import Network

STATE_FILE = "state.pt"
WEIGHTS_FILE = "model.safetensors"
METRICS_FILE = "metrics.jsonl"
REPORT_FILE = "report.html"


class RunDir:
    """The files of a run.

    Args:
        path: The folder; created when something is written.
    """

    def __init__(self, path: Path) -> None:
        """Name the files."""
        self.path = path
        self.state, self.weights = path / STATE_FILE, path / WEIGHTS_FILE
        self.metrics, self.report = path / METRICS_FILE, path / REPORT_FILE

    def check_is_free(self) -> None:
        """Make sure that a run can start here.

        Raises:
            OutputError: If the folder already holds a run.
        """
        for file in (self.state, self.weights, self.metrics, self.report):
            if file.exists():
                raise OutputError(
                    f"{file} exists: continue that run with --resume, or choose another --out."
                )

    def begin(self) -> None:
        """Create the folder.

        Raises:
            OutputError: If it already holds a run, or cannot be created.
        """
        self.check_is_free()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritten(self.path, error) from error

    def read_state(self) -> dict[str, Any]:
        """Load the state that `write_state` saved.

        Raises:
            InputError: If there is no state, or it is damaged.
        """
        if not self.state.is_file():
            raise InputError(
                f"{self.path} holds no {STATE_FILE} to resume from; start without --resume."
            )
        try:
            state: dict[str, Any] = torch.load(self.state, weights_only=True, map_location="cpu")
        # PyTorch's reader raises many kinds of errors for damaged files.
        except Exception as error:
            raise InputError(
                f"{self.state} cannot be read ({type(error).__name__}); start a run with another "
                f"--out, from {self.weights} if that can be read."
            ) from error
        return state

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Save a state; the previous one is kept until this one is complete.

        Raises:
            OutputError: If the disk is full; the previous state is kept.
        """
        # Into memory first: PyTorch's own writer does not say why a file could not be written.
        content = io.BytesIO()
        torch.save(dict(state), content)
        self._write(self.state, content.getbuffer())

    def write_weights(self, network: Network, metadata: Mapping[str, str]) -> None:
        """Save weights that `vsrm upscale --model` can load.

        Raises:
            OutputError: If the disk is full; the previous weights are kept.
        """
        try:
            save_weights(network, self.weights, metadata)
        except (OSError, SafetensorError) as error:
            raise _unwritten(self.weights, error) from error

    def add_line(self, line: Mapping[str, Any]) -> None:
        """Append an object to the metrics.

        Raises:
            OutputError: If the disk is full.
        """
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise _unwritten(self.metrics, error) from error

    def lines(self) -> list[dict[str, Any]]:
        """The metrics, without a last line that a power cut left half-written."""
        found: list[dict[str, Any]] = []
        if self.metrics.exists():
            for line in self.metrics.read_text(encoding="utf-8").splitlines():
                try:
                    found.append(json.loads(line))
                except json.JSONDecodeError:
                    break
        return found

    def forget_after(self, step: int) -> None:
        """Remove the metrics of later steps, which are done again, and unfinished files.

        Raises:
            OutputError: If the disk is full.
        """
        for part in self.path.glob(".*.part*"):
            part.unlink(missing_ok=True)
        kept = "".join(json.dumps(x) + "\n" for x in self.lines() if x["step"] <= step)
        self._write(self.metrics, kept.encode())

    def write_report(self, page: str) -> None:
        """Write the report, over an earlier one.

        Raises:
            OutputError: If the disk is full.
        """
        self._write(self.report, page.encode())

    def _write(self, file: Path, content: bytes | memoryview) -> None:
        try:
            with write_atomically(file) as part:
                part.write_bytes(content)
        except OSError as error:
            raise _unwritten(file, error) from error


def _unwritten(file: Path, error: OSError | SafetensorError) -> OutputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return OutputError(
        f"{file} could not be written ({reason}); its former version is intact. Free some space, "
        f"then continue with --resume."
    )
