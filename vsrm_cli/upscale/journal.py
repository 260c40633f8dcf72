"""The record of what a job has finished on disk, so that it can resume after a crash.

A job works in a hidden folder beside its output, ``.large.mp4.vsrm`` for ``large.mp4``:

    journal.json      the options and the settings: only a job with the same options may resume
    000000000.mp4     a closed segment of the video, named by the number of its first frame
    segments.jsonl    one line for each: when its frames are shown, and where to resume
    lock              held by the running process; the system releases it when the process ends

A segment is finished when it has an entry, which is written when the segment is on disk. Entries
are flushed to disk once a second at most: a crash loses none, a power cut those of that second. An
entry is ignored if its line is incomplete or its file has changed, and a file without an entry is
deleted. If several devices work on a job, segments may be finished before earlier ones.

The journal holds text and numbers only; it does not know how a segment is made.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Self

from vsrm_cli.errors import OutputError
from vsrm_cli.files import flush_folder, lock_file, write_atomically
from vsrm_cli.upscale.entries import BEGINNING, JournalEntry, ResumePoint
from vsrm_cli.upscale.settings import JobSettings, Json

# Held by the running process.
LOCK = "lock"
_SETTINGS = "journal.json"
_ENTRIES = "segments.jsonl"
_NUMBERED = re.compile(r"\d{9}\.[a-z0-9]+")
# Our files in the folder, except the lock: segments, the journal, and unfinished files.
_OURS = re.compile(r"\d{9}\..*|journal\.json|segments\.jsonl|.*\.part(\..*)?")
# Characters of a checksum in messages: enough to see that two differ.
_SHOWN_CHARACTERS = 32
_CHECKED_BYTES = 2**20
# Entries are flushed to disk at most once in this time.
_FLUSH_SECONDS = 1.0

# What must be the same to resume a job: options and facts of the input, named as for the user.
JobIdentity = dict[str, str | int | None]


class Journal:
    """The folder of one job. Use it in a ``with`` statement, which locks the folder.

    Leaving the statement removes the folder if work was started and no segment is finished.

    One thread may write the settings while another adds entries: they share no file or attribute.

    Attributes:
        folder: Where the job works.
        entries: The finished segments, in order, up to the first that is missing.
        after_gap: Those finished after it, by the numbers of their first frames.
        settings: The settings of the job; None before it starts.
    """

    def __init__(self, output: Path) -> None:
        """Name the folder of an output; nothing is read or written yet."""
        self.folder = output.with_name(f".{output.name}.vsrm")
        self.entries: list[JournalEntry] = []
        self.after_gap: dict[int, JournalEntry] = {}
        self.settings: JobSettings | None = None
        self._output = output
        self._identity: JobIdentity = {}
        self._lock: IO[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._flushed_at = 0.0
        self._is_flushed = True
        self._is_started = False

    @property
    def resume_point(self) -> ResumePoint:
        """The end of the last of `entries`."""
        return self.entries[-1].resume_point if self.entries else BEGINNING

    @property
    def frames_done(self) -> int:
        """How many frames are in finished segments, up to the first that is missing."""
        return self.resume_point.next

    @property
    def frames_kept(self) -> int:
        """How many frames are in finished segments."""
        return self.frames_done + sum(len(entry.ticks) for entry in self.after_gap.values())

    def resume_hint(self) -> str:
        """Say what an interrupted job leaves, and how to resume it."""
        if not self.frames_kept:
            return "interrupted: nothing was written"
        return (
            f"interrupted: {self.frames_kept} frames are finished and kept in {self.folder}; "
            "run the same command to resume"
        )

    def __enter__(self) -> Self:
        """Create the folder and lock it.

        Raises:
            OutputError: If another process works in it, or it cannot be created.
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

    def __exit__(self, *error: object) -> None:
        """Unlock the folder, and remove it if no segment is finished.

        Raises:
            OutputError: If an entry cannot be flushed to disk.
        """
        assert self._lock is not None
        try:
            self._close_log()
            if self._is_started and not self.frames_kept:
                self.clear()
            if {path.name for path in self.folder.iterdir()} == {LOCK}:
                self._remove_folder(self._lock)
        except FileNotFoundError:  # the user has removed it
            pass
        finally:
            self._lock.close()

    def load(self, identity: JobIdentity, *, restart: bool) -> None:
        """Load the finished segments and the settings of an interrupted job with the same options.

        Args:
            identity: What must be the same to resume.
            restart: Load nothing.

        Raises:
            OutputError: If the interrupted job has other options; the message names them.
        """
        self._identity = identity
        saved = None if restart else self._read_settings()
        if saved is None:
            return
        found = self._read_entries()
        if found:
            self._compare(saved["asked"], identity)
            self.settings, self.after_gap = JobSettings.from_json(saved["chosen"]), found
            self._close_gap()

    def keep_only(self, planned: Mapping[int, ResumePoint]) -> None:
        """Drop the segments after the gap that are not planned.

        Args:
            planned: The ends of planned segments, by the numbers of their first frames.
        """
        self.after_gap = {
            first: entry
            for first, entry in self.after_gap.items()
            if planned.get(first) == entry.resume_point
        }

    def discard_unfinished(self) -> None:
        """Delete all files that belong to no loaded segment: the work starts.

        Raises:
            OutputError: If the folder cannot be written.
        """
        self._is_started = True
        self._clean()
        if self.settings is not None:
            kept = [*self.entries, *self.after_gap.values()]
            self._write(_ENTRIES, "".join(entry.to_json() for entry in kept))

    def write_settings(self, settings: JobSettings) -> None:
        """Write the options and the settings of the job.

        Raises:
            OutputError: If the folder cannot be written.
        """
        self.settings = settings
        content = {"asked": self._identity, "chosen": settings.to_json()}
        self._write(_SETTINGS, json.dumps(content))

    def add(self, entry: JournalEntry, *, move_from: Path | None = None) -> None:
        """Record a segment whose file is closed and flushed to disk; its size is filled in.

        Segments may be added in any order.

        Args:
            entry: The segment.
            move_from: A folder that contains its files only; they are moved from there.

        Raises:
            OutputError: If the folder cannot be written, or the segment is missing.
        """
        try:
            if move_from is not None:
                for file in move_from.iterdir():
                    file.replace(self.folder / file.name)
            entry = replace(entry, size_bytes=(self.folder / entry.file).stat().st_size)
            if self._log is None:
                self._log = (self.folder / _ENTRIES).open("ab")
            self._log.write(entry.to_json().encode())
            self._log.flush()
        except OSError as error:
            raise self._failure(error) from error
        self._is_flushed = False
        self.after_gap[entry.first] = entry
        self._close_gap()
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Flush new entries to disk, at most once a second.

        Raises:
            OutputError: If that fails.
        """
        if not self._is_flushed and time.monotonic() - self._flushed_at >= _FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        assert self._log is not None
        try:
            flush_folder(self.folder)
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

    def _close_gap(self) -> None:
        """Move those into `entries` that follow without a gap."""
        while self.frames_done in self.after_gap:
            self.entries.append(self.after_gap.pop(self.frames_done))

    def clear(self) -> None:
        """Discard all segments."""
        self._close_log()
        self.entries = []
        self.after_gap = {}
        self.settings = None
        self._clean()

    def _try_to_lock(self) -> IO[bytes] | None:
        """Lock the folder; None if it was removed meanwhile and must be created again."""
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

    def _compare(self, earlier: JobIdentity, now: JobIdentity) -> None:
        changes = [
            f"{name} (was {_shown(earlier.get(name))}, is {_shown(now.get(name))})"
            for name in {**earlier, **now}
            if earlier.get(name) != now.get(name)
        ]
        if changes:
            raise OutputError(
                f"{self.folder} holds an unfinished run that differs in {', '.join(changes)}; "
                "give the former command to resume it, or --restart to start over."
            )

    def _read_entries(self) -> dict[int, JournalEntry]:
        """Read the entries of existing segments, by the numbers of their first frames."""
        try:
            lines = (self.folder / _ENTRIES).read_bytes().splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unreadable(_ENTRIES, error) from error
        return {entry.first: entry for entry in map(self._read_entry, lines) if entry is not None}

    def _read_entry(self, line: bytes) -> JournalEntry | None:
        """Read an entry; None if it is incomplete, or its file is missing or has changed."""
        try:
            entry = JournalEntry.from_json(line)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        file = self.folder / entry.file
        is_whole = file.exists() and file.stat().st_size == entry.size_bytes
        return entry if is_whole else None

    def _clean(self) -> None:
        """Delete our files that belong to no segment; files of others stay."""
        after_gap = {number for e in self.after_gap.values() for number in range(e.first, e.next)}
        for path in self.folder.glob("*"):
            if _NUMBERED.fullmatch(path.name):
                number = int(path.name[:9])
                is_finished = number < self.frames_done or number in after_gap
            else:
                is_finished = path.name in (_SETTINGS, _ENTRIES) and self.settings is not None
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

    def _read_settings(self) -> dict[str, Json] | None:
        try:
            values: dict[str, Json] = json.loads((self.folder / _SETTINGS).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._unreadable(_SETTINGS, error) from error
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


def _shown(value: str | int | None) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def describe_files(files: Sequence[Path]) -> JobIdentity:
    """Describe an input of one or more files, so that a change is noticed.

    The description has their total size, their latest date, and a checksum: of the first and last
    mebibyte of a single file, of the names and sizes of several.
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
