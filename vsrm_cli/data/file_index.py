"""What was found out about files, kept for the next time."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_VERSION = 1

Facts = dict[str, Any]


class Index:
    """Facts about files in a JSON file, each valid as long as its file stays what it was."""

    def __init__(self, file: Path) -> None:
        """Read the index, if there is one that can be read; it only saves time."""
        self.file = file
        self._old: dict[str, Facts] = {}
        self._new: dict[str, Facts] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found = json.loads(file.read_text())
            if found.get("version") == _VERSION:
                self._old = found["files"]

    def facts(self, path: Path, find_out: Callable[[Path], Facts]) -> Facts:
        """Tell what is known of a file or folder, or find it out.

        Args:
            path: The file or folder.
            find_out: Called where it is new, or has another size or time than before. Its answer
                must be made of what JSON can hold.
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
        """Write the index, of what was asked for since it was read, if anything is new.

        Where it cannot be written, the files are looked at again next time.
        """
        if self._new == self._old:
            return
        part = self.file.with_name(f"{self.file.name}.{os.getpid()}.part")
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"version": _VERSION, "files": self._new}))
            os.replace(part, self.file)
