"""What of a run is finished on disk, so that it can go on after a crash.

A run works in a hidden folder beside its output, ``.large.mp4.vsrm`` for ``large.mp4``:

    journal.json      the options and the choices: only the same options may resume
    000000000.mp4     a closed segment of the video, named by the number of its first frame
    segments.jsonl    an entry for each, in a line: when its frames are shown, and how to go on
    lock              held by the process at work; the lock dies with it

A segment counts when its entry is there: the entry is written when the segment is on the disk. That
of the entry is waited for once a second at most, so a crash loses none, and a power cut those of
that second. A line that is torn, or whose file is not as it was, is as none; what no line speaks of
is thrown away. Where several devices work on a run, segments may be finished before earlier ones
are.

Only words and numbers live here: what a segment is made of, and how, others know.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from vsrm_cli.errors import OutputError
from vsrm_cli.files import flush_names, lock_file, write_atomically
from vsrm_cli.frame import Faults, Fingerprint

# It is there while a process is at work.
LOCK = "lock"
_CHOICES = "journal.json"
_ENTRIES = "segments.jsonl"
_NUMBERED = re.compile(r"\d{9}\.[a-z0-9]+")
# Files of a run, beside the lock: segments, what is known of them, and what was never finished.
_OURS = re.compile(r"\d{9}\..*|journal\.json|segments\.jsonl|.*\.part(\..*)?")
# Of a checksum, so much is enough for a person to see that two differ.
_SHOWN_CHARACTERS = 32
_CHECKED_BYTES = 2**20
# How often somebody waits for the disk, where segments are finished faster.
_FLUSH_SECONDS = 1.0

Choices = dict[str, str | int | None]


def number_of(choice: str | int | None) -> int | None:
    """A choice that is a number, or none."""
    return None if choice is None else int(choice)


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
class Entry:
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
            ValueError: If it is torn; or a KeyError, TypeError or AttributeError.
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


class Journal:
    """The folder of one run. Use it in a ``with`` statement: meanwhile nobody else may.

    Leaving the statement removes the folder if work was started and no segment is finished.

    Attributes:
        folder: Where the run works.
        entries: The finished segments, in order, up to the first that is missing.
        later: Those finished behind it, by the numbers of their first frames.
        chosen: What the run chose where it was left the choice; None if it has not yet.
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
        return self.frames_done + sum(len(entry.ticks) for entry in self.later.values())

    def resume_hint(self) -> str:
        """Say what an interrupted run leaves, and what to do with it."""
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
        """Unlock the folder, and remove it if nothing in it is worth keeping.

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
        except FileNotFoundError:  # somebody has removed it
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
        """Throw away what was not read, and what was never finished: the work begins.

        Raises:
            OutputError: If the folder cannot be written.
        """
        self._is_started = True
        self._clean()
        if self.chosen is not None:
            kept = [*self.entries, *self.later.values()]
            self._write(_ENTRIES, "".join(entry.to_json() for entry in kept))

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
            self._log.write(entry.to_json().encode())
            self._log.flush()
        except OSError as error:
            raise self._failure(error) from error
        self._is_flushed = False
        self.later[entry.first] = entry
        self._order()
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Wait until all entries are on the disk, if the last time was a while ago.

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
        """Put those into `entries` that follow without a gap."""
        while self.frames_done in self.later:
            self.entries.append(self.later.pop(self.frames_done))

    def clear(self) -> None:
        """Throw away all that is finished."""
        self._close_log()
        self.entries = []
        self.later = {}
        self.chosen = None
        self._clean()

    def _try_to_lock(self) -> IO[bytes] | None:
        """Lock the folder; None if it was removed meanwhile and must be made again."""
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
        """Read the entries of the segments that are there, by the numbers of their first frames."""
        try:
            lines = (self.folder / _ENTRIES).read_bytes().splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unreadable(_ENTRIES, error) from error
        return {entry.first: entry for entry in map(self._read_entry, lines) if entry is not None}

    def _read_entry(self, line: bytes) -> Entry | None:
        """Read an entry; None if it is torn, or its file is not as it was."""
        try:
            entry = Entry.from_json(line)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        file = self.folder / entry.file
        is_whole = file.exists() and file.stat().st_size == entry.size_bytes
        return entry if is_whole else None

    def _clean(self) -> None:
        """Delete files of ours that no entry speaks of; what others have put there stays."""
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
        if sys.platform == "win32":  # there, no open file can be deleted
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


def _shown(choice: str | int | None) -> str:
    text = str(choice)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def describe_files(files: Sequence[Path]) -> Choices:
    """Say by what an input of one or more files is known again.

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
