"""Where an output may be written: asked before any work, so that nothing is lost at its end."""

from __future__ import annotations

import os
from pathlib import Path

from vsrm_cli.errors import OutputError
from vsrm_cli.remux.stream_mapping import CONTAINERS


def check_destination(path: Path, source: Path, *, overwrite: bool) -> None:
    """Make sure that a file may be written there.

    Raises:
        OutputError: If it may not; says why and what to do.
    """
    if path.suffix.lower() not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        raise OutputError(
            f"{path.name} has no ending of a container that keeps the times of frames; "
            f"name the output with one of {known}."
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"The folder {folder} does not exist; make it, or choose another one.")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file.")
    if path.exists():
        if path.samefile(source):
            raise OutputError(f"{path} is the input itself; choose another name for the output.")
        if not overwrite:
            raise OutputError(f"{path} exists; choose another name, or give --overwrite.")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"No file can be written into {folder}; choose another folder.")
