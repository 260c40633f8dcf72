"""A cache of facts about files, for the next run."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vsrm_cli.files import write_atomically

_VERSION = 3

Facts = dict[str, Any]


class FileIndex:
    """Facts about files in a JSON file, each valid as long as its file does not change."""

    def __init__(self, file: Path) -> None:
        """Read the index, if it exists and is readable; it only saves time."""
        self.file = file
        self._old: dict[str, Facts] = {}
        self._new: dict[str, Facts] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found = json.loads(file.read_text())
            if found.get("version") == _VERSION:
                self._old = found["files"]

    def facts(self, path: Path, find_out: Callable[[Path], Facts]) -> Facts:
        """Return the cached facts about a file or folder, or find them out.

        Args:
            path: The file or folder.
            find_out: Called if it is new, or its size or time has changed. Returns what JSON can
                hold.
        """
        state = path.stat()
        stamp = [state.st_size, state.st_mtime_ns]
        key = str(path.absolute())
        known = self._old.get(key)
        if known is None or known["stamp"] != stamp:
            known = {"stamp": stamp, "facts": find_out(path)}
        self._new[key] = known
        facts: Facts = known["facts"]
        return facts

    def save(self) -> None:
        """Write the facts that were used, if anything has changed.

        If it cannot be written, the files are probed again next time.
        """
        if self._new == self._old:
            return
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(self.file) as part:
                part.write_text(json.dumps({"version": _VERSION, "files": self._new}))
