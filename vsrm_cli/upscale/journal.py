"""The journal: which segments of a run are finished on disk, so that it can resume after a crash.

A run works in a hidden folder beside its output, ``.large.mp4.vsrm`` for ``large.mp4``:

    journal.json      the options and the choices: only the same options may resume
    000000000.mp4     a closed segment of the video, named by the number of its first frame
    segments.jsonl    an entry per line for each segment: its times, and how to resume after it
    lock              held by the running process, and released when it ends

A segment is finished when its entry exists. The entry is written after the segment was flushed to
disk. Entries are flushed at most once a second, so a crash loses none, and a power cut loses those
of the last second. Incomplete lines and entries whose file has changed are ignored, and files
without an entry are deleted. With several devices, segments may be finished out of order.

This module handles only text and numbers; it does not read or write video.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from vsrm_cli.errors import OutputError
from vsrm_cli.files import flush_names, lock_file, write_atomically
from vsrm_cli.frame import Fingerprint

# Exists while a process works on the run.
LOCK = "lock"
_CHOICES = "journal.json"
_ENTRIES = "segments.jsonl"
_NUMBERED = re.compile(r"\d{9}\.[a-z0-9]+")
# Files of a run besides the lock: segments, journal, entries, and unfinished files.
_OURS = re.compile(r"\d{9}\..*|journal\.json|segments\.jsonl|.*\.part(\..*)?")
# Characters of a checksum that a message shows: enough to see that two differ.
_SHOWN_CHARACTERS = 32
_CHECKED_BYTES = 2**20
# Minimum time between flushes, if segments are finished faster.
_FLUSH_SECONDS = 1.0

Choices = dict[str, str | int | None]


def number_of(choice: str | int | None) -> int | None:
    """Convert a choice to a number; None stays None."""
    return None if choice is None else int(choice)


@dataclass(frozen=True)
class ResumePoint:
    """How to resume after a segment; `Entry` has the same data for a finished segment.

    Attributes:
        next: Number of the first frame after it.
        shot: Number of the first frame of the shot that the frame before belongs to.
        damaged: Damaged packets in the input up to that frame.
        margin: The last frames before ``next``, which are computed again when resuming.
    """

    next: int
    shot: int
    damaged: int
    margin: list[Fingerprint]


@dataclass(frozen=True)
class Entry:
    """A closed segment, and how to resume after it.

    Attributes:
        file: Its name.
        first: Number of its first frame in the video.
        shot: Number of the first frame of the shot that its last frame belongs to.
        ticks: When its frames are shown, on the clock of the output.
        end: Until when its last frame is shown, on the same clock.
        tile: Side of the tiles in use at its end; None for whole frames.
        damaged: Damaged packets in the input up to its last frame.
        margin: Its last frames, and earlier ones, that are computed again when resuming after it.
        size_bytes: Size of the file.
    """

    file: str
    first: int
    shot: int
    ticks: list[int]
    end: int
    tile: int | None
    damaged: int
    margin: list[Fingerprint]
    size_bytes: int = 0

    @property
    def next(self) -> int:
        """Number of the first frame after it."""
        return self.first + len(self.ticks)


class Journal:
    """The folder of one run. The ``with`` statement locks it for this process.

    Leaving the statement removes the folder if work was started and no segment is finished.

    Attributes:
        folder: Where the run works.
        entries: The finished segments, in order, up to the first missing one.
        later: Finished segments after a missing one, by the numbers of their first frames.
        chosen: The choices of the run; None before it has made them.
    """

    def __init__(self, output: Path) -> None:
        """Name the folder of an output; nothing is read or written yet."""
        self.folder = output.with_name(f".{output.name}.vsrm")
        self.entries: list[Entry] = []
        self.later: dict[int, Entry] = {}
        self.chosen: Choices | None = None
        self._output = output
        self._requested: Choices = {}
        self._lock: IO[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._flushed_at = 0.0
        self._is_flushed = True
        self._is_started = False

    @property
    def frames_done(self) -> int:
        """Frames in finished segments, up to the first missing one."""
        return self.entries[-1].next if self.entries else 0

    @property
    def frames_kept(self) -> int:
        """Frames in all finished segments."""
        return self.frames_done + sum(len(entry.ticks) for entry in self.later.values())

    def resume_hint(self) -> str:
        """A message that says what an interrupted run keeps and how to resume."""
        if not self.frames_kept:
            return "interrupted: nothing was written"
        return (
            f"interrupted: {self.frames_kept} frames are finished and kept in {self.folder}; "
            "run the same command to resume"
        )

    def __enter__(self) -> Self:
        """Make the folder and lock it.

        Raises:
            OutputError: If another process works in it, or it cannot be made.
        """
        try:
            while self._lock is None:
                self._lock = self._try_to_lock()
        except BlockingIOError:
            raise OutputError(
                f"Another vsrm is working on {self._output} now; wait for it, or choose another "
                "output."
            ) from None
        except OSError as error:
            raise self._failure(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unlock the folder, and remove it if it contains no finished segment.

        Raises:
            OutputError: If an entry does not reach the disk.
        """
        assert self._lock is not None
        try:
            self._close_log()
            if self._is_started and not self.frames_kept:
                self.clear()
            if {path.name for path in self.folder.iterdir()} == {LOCK}:
                self._remove_folder(self._lock)
        except FileNotFoundError:  # it was removed
            pass
        finally:
            self._lock.close()

    def open(self, requested: Choices, *, restart: bool) -> None:
        """Read the finished segments of an earlier run with the same options.

        Args:
            requested: All options that frames depend on, by their names for the user.
            restart: Do as if there were nothing.

        Raises:
            OutputError: If the earlier run had other options; names them.
        """
        self._requested = requested
        saved = None if restart else self._read_choices()
        if saved is None:
            return
        found = self._read_entries()
        if found:
            self._compare(saved["asked"], requested)
            self.chosen, self.later = saved["chosen"], found
            self._order()

    def start(self) -> None:
        """Delete files that are not part of the run and start the work.

        Raises:
            OutputError: If the folder cannot be written.
        """
        self._is_started = True
        self._clean()
        if self.chosen is not None:
            kept = [*self.entries, *self.later.values()]
            self._write(_ENTRIES, "".join(map(_line, kept)))

    def begin(self, chosen: Choices) -> None:
        """Write the options and the choices of the run.

        Raises:
            OutputError: If the folder cannot be written.
        """
        self.chosen = chosen
        self._write(_CHOICES, json.dumps({"asked": self._requested, "chosen": chosen}))

    def add(self, entry: Entry, *, made_in: Path | None = None) -> None:
        """Record a segment whose file is closed and on the disk; its size is filled in.

        Segments may come in any order.

        Args:
            entry: What is known of it.
            made_in: A folder that holds its files and nothing else, which are moved from there.

        Raises:
            OutputError: If the folder cannot be written, or the segment is not there.
        """
        try:
            if made_in is not None:
                for file in made_in.iterdir():
                    file.replace(self.folder / file.name)
            entry = replace(entry, size_bytes=(self.folder / entry.file).stat().st_size)
            if self._log is None:
                self._log = (self.folder / _ENTRIES).open("ab")
            self._log.write(_line(entry).encode())
            self._log.flush()
        except OSError as error:
            raise self._failure(error) from error
        self._is_flushed = False
        self.later[entry.first] = entry
        self._order()
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Flush the entries to disk, if the last flush was a while ago.

        Raises:
            OutputError: If they do not get there.
        """
        if not self._is_flushed and time.monotonic() - self._flushed_at >= _FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        assert self._log is not None
        try:
            flush_names(self.folder)
            os.fsync(self._log.fileno())
        except OSError as error:
            raise self._failure(error) from error
        self._flushed_at, self._is_flushed = time.monotonic(), True

    def _close_log(self) -> None:
        if self._log is None:
            return
        try:
            with self._log:
                if not self._is_flushed:
                    self._flush()
        except OSError as error:
            raise self._failure(error) from error
        finally:
            self._log = None

    def _order(self) -> None:
        """Move segments from `later` to `entries` that follow without a gap."""
        while self.frames_done in self.later:
            self.entries.append(self.later.pop(self.frames_done))

    def clear(self) -> None:
        """Delete all finished segments."""
        self._close_log()
        self.entries = []
        self.later = {}
        self.chosen = None
        self._clean()

    def _try_to_lock(self) -> IO[bytes] | None:
        """Create and lock the folder; None if it was removed in between."""
        self.folder.mkdir(exist_ok=True)
        path = self.folder / LOCK
        try:
            file = path.open("ab")
        except FileNotFoundError:
            return None
        try:
            lock_file(file)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()
        return None

    def _compare(self, earlier: Choices, requested: Choices) -> None:
        changes = [
            f"{name} (was {_shown(earlier.get(name))}, is {_shown(requested.get(name))})"
            for name in {**earlier, **requested}
            if earlier.get(name) != requested.get(name)
        ]
        if changes:
            raise OutputError(
                f"{self.folder} holds an unfinished run that differs in {', '.join(changes)}; "
                "give the former command to resume it, or --restart to start over."
            )

    def _read_entries(self) -> dict[int, Entry]:
        """Read the entries of existing segments, by the numbers of their first frames."""
        try:
            lines = (self.folder / _ENTRIES).read_bytes().splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unreadable(_ENTRIES, error) from error
        return {entry.first: entry for entry in map(self._read_entry, lines) if entry is not None}

    def _read_entry(self, line: bytes) -> Entry | None:
        """Read an entry; None if the line is incomplete or the file has changed."""
        try:
            values = json.loads(line)
            margin = [Fingerprint(**stamp) for stamp in values.pop("margin")]
            entry = Entry(**values, margin=margin)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        file = self.folder / entry.file
        is_whole = file.exists() and file.stat().st_size == entry.size_bytes
        return entry if is_whole else None

    def _clean(self) -> None:
        """Delete files of the run that have no entry; other files stay."""
        later = {number for e in self.later.values() for number in range(e.first, e.next)}
        for path in self.folder.glob("*"):
            if _NUMBERED.fullmatch(path.name):
                number = int(path.name[:9])
                is_finished = number < self.frames_done or number in later
            else:
                is_finished = path.name in (_CHOICES, _ENTRIES) and self.chosen is not None
            if not _OURS.fullmatch(path.name) or is_finished:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _remove_folder(self, lock: IO[bytes]) -> None:
        if sys.platform == "win32":  # cannot delete open files
            lock.close()
        (self.folder / LOCK).unlink()
        self.folder.rmdir()

    def _read_choices(self) -> dict[str, Choices] | None:
        try:
            values: dict[str, Choices] = json.loads((self.folder / _CHOICES).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._unreadable(_CHOICES, error) from error
        return values

    def _write(self, name: str, content: str) -> None:
        try:
            with write_atomically(self.folder / name) as part:
                part.write_text(content, encoding="utf-8")
        except OSError as error:
            raise self._failure(error) from error

    def _unreadable(self, name: str, error: Exception) -> OutputError:
        return OutputError(
            f"{self.folder / name} cannot be read ({error}); give --restart to start over."
        )

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.folder} could not be written ({error.strerror}); make sure that the folder "
            "exists and the disk is not full, then run the same command to resume."
        )


def _line(entry: Entry) -> str:
    values = vars(entry) | {"margin": [vars(stamp) for stamp in entry.margin]}
    return json.dumps(values) + "\n"


def _shown(choice: str | int | None) -> str:
    text = str(choice)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def describe_files(files: Sequence[Path]) -> Choices:
    """Describe an input of one or more files, so that a change is noticed.

    That is their size, the latest of their dates, and a checksum: of the first and last mebibyte
    of a single file, of the names and sizes of several.
    """
    abouts = [file.stat() for file in files]
    digest = hashlib.sha256()
    if len(files) == 1:
        with files[0].open("rb") as file:
            digest.update(file.read(_CHECKED_BYTES))
            file.seek(max(0, abouts[0].st_size - _CHECKED_BYTES))
            digest.update(file.read())
    else:
        values = [(path.name, about.st_size) for path, about in zip(files, abouts, strict=True)]
        digest.update(repr(values).encode())
    latest = max(about.st_mtime for about in abouts)
    return {
        "size of the input": sum(about.st_size for about in abouts),
        "date of the input": str(datetime.fromtimestamp(latest, tz=UTC)),
        "content of the input": digest.hexdigest(),
    }
