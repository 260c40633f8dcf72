"""What of a run is finished on disk, so that it can go on after a crash.

A run works in a hidden folder beside its output, ``.large.mp4.vsrm`` for ``large.mp4``:

    journal.json      what was asked for and what was chosen: only the same may go on
    000000000.mp4     a closed segment of the video, named by the number of its first frame
    000000000.json    its entry: when its frames are shown, and how to go on behind it
    lock              held by the process at work; the lock dies with it

A segment counts when its entry is there, and the entry comes last. Each of these files is
written under another name, flushed to the disk and renamed, so that after a crash or a power
cut it is whole or absent. What no entry speaks of is thrown away. Where several devices work on a
run, segments may be finished before earlier ones are.

Only words and numbers live here: what a segment is made of, and how, others know.
"""

import hashlib
import json
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from vsrm_cli.errors import OutputError
from vsrm_cli.files import write_atomically
from vsrm_cli.frame import Fingerprint

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOCK = "lock"
_NUMBERED = re.compile(r"\d{9}\.[a-z0-9]+")
# Files of a run, beside the lock: segments and entries, the journal, and what was never finished.
_OURS = re.compile(r"\d{9}\..*|journal\.json|.*\.part(\..*)?")
# Of a checksum, so much is enough for a person to see that two differ.
_SHOWN_CHARACTERS = 32
_CHECKED_BYTES = 2**20
# Flushed to the disk at the same time.
_FLUSHES = 8

Choices = dict[str, str | int | None]


def number_of(choice: str | int | None) -> int | None:
    """A choice that is a number, or none."""
    return None if choice is None else int(choice)


@dataclass(frozen=True)
class ResumePoint:
    """How to go on behind a segment; see `Entry`, which says the same of a finished one.

    Attributes:
        next: Number of the first frame behind it.
        shot: Number of the first frame of the shot that the frame before belongs to.
        damaged: Damaged pieces met in the input up to that frame.
        margin: The frames up to it that the work behind it begins with.
    """

    next: int
    shot: int
    damaged: int
    margin: list[Fingerprint]


@dataclass(frozen=True)
class Entry:
    """A closed segment, and how to go on behind it.

    Attributes:
        file: Its name.
        first: Number of its first frame in the video.
        shot: Number of the first frame of the shot that its last frame belongs to.
        ticks: When its frames are shown, on the clock of the output.
        end: Until when its last frame is shown, on the same clock.
        tile: Side of the tiles in use at its end; None for whole pictures.
        damaged: Damaged pieces met in the input up to its last frame.
        margin: The frames up to its last one that the work behind it begins with.
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
        """Number of the first frame behind it."""
        return self.first + len(self.ticks)


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
        self._asked: Choices = {}
        self._lock: IO[bytes] | None = None
        self._is_started = False

    @property
    def frames_done(self) -> int:
        """How many frames are in finished segments, up to the first that is missing."""
        return self.entries[-1].next if self.entries else 0

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
        """Unlock the folder, and remove it if nothing in it is worth keeping."""
        if self._is_started and not self.frames_kept:
            self.clear()
        assert self._lock is not None
        try:
            if {path.name for path in self.folder.iterdir()} == {_LOCK}:
                self._remove_folder(self._lock)
        except FileNotFoundError:  # somebody has removed it
            pass
        finally:
            self._lock.close()

    def open(self, asked: Choices, *, restart: bool) -> None:
        """Read what an earlier run has finished, if it was asked for the same.

        Args:
            asked: All that the pictures depend on, by the names that the user knows.
            restart: Do as if there were nothing.

        Raises:
            OutputError: If the earlier run was asked for something else; says for what.
        """
        self._asked = asked
        told = None if restart else self._read("journal.json")
        if told is None:
            return
        entries = list(self._read_entries())
        later = self._read_later(entries[-1].next if entries else 0)
        if entries or later:
            self._compare(told["asked"], asked)
            self.chosen = told["chosen"]
            self.entries, self.later = entries, later

    def start(self) -> None:
        """Throw away what was not read, and what was never finished: the work begins."""
        self._is_started = True
        self._clean()

    def begin(self, chosen: Choices) -> None:
        """Write down what the run was asked for and what it has chosen.

        Raises:
            OutputError: If the folder cannot be written.
        """
        self.chosen = chosen
        self._write("journal.json", {"asked": self._asked, "chosen": chosen})

    def add(self, entry: Entry) -> None:
        """Write the entry of a segment whose file is closed; its size is filled in.

        Segments may come in any order.

        Raises:
            OutputError: If the folder cannot be written.
        """
        self._note(self._store(entry))

    @contextmanager
    def adding(self) -> Iterator[Callable[[Entry], None]]:
        """Give a function like `add` that does not wait for the disk; leaving waits for all of it.

        Many flushes at once take little longer than one.

        Raises:
            OutputError: If the folder cannot be written.
        """
        waiting: deque[Future[Entry]] = deque()

        def add(entry: Entry) -> None:
            waiting.append(disk.submit(self._store, entry))
            while waiting and waiting[0].done():
                self._note(waiting.popleft().result())

        with ThreadPoolExecutor(_FLUSHES, thread_name_prefix="journal") as disk:
            try:
                yield add
            finally:
                for stored in waiting:
                    self._note(stored.result())

    def _store(self, entry: Entry) -> Entry:
        try:
            with (self.folder / entry.file).open("r+b") as file:
                os.fsync(file.fileno())
                entry = replace(entry, size_bytes=os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise self._failure(error) from error
        self._write(f"{entry.first:09}.json", asdict(entry))
        return entry

    def _note(self, entry: Entry) -> None:
        self.later[entry.first] = entry
        while self.frames_done in self.later:
            self.entries.append(self.later.pop(self.frames_done))

    def clear(self) -> None:
        """Throw away all that is finished."""
        self.entries = []
        self.later = {}
        self.chosen = None
        self._clean()

    def _try_to_lock(self) -> IO[bytes] | None:
        """Lock the folder; None if it was removed meanwhile and must be made again."""
        self.folder.mkdir(exist_ok=True)
        path = self.folder / _LOCK
        try:
            file = path.open("ab")
        except FileNotFoundError:
            return None
        try:
            _lock_file(file)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()
        return None

    def _compare(self, earlier: Choices, asked: Choices) -> None:
        changes = [
            f"{name} (was {_shown(earlier.get(name))}, is {_shown(asked.get(name))})"
            for name in {**earlier, **asked}
            if earlier.get(name) != asked.get(name)
        ]
        if changes:
            raise OutputError(
                f"{self.folder} holds an unfinished run that differs in {', '.join(changes)}; "
                "give the former command to resume it, or --restart to start over."
            )

    def _read_entries(self) -> Iterator[Entry]:
        """Read the entries up to the first that is missing or whose file is not as it was."""
        first = 0
        while (entry := self._read_entry(f"{first:09}.json")) is not None:
            yield entry
            first = entry.next

    def _read_later(self, frames_done: int) -> dict[int, Entry]:
        """Read the entries behind the first that is missing."""
        names = sorted(path.name for path in self.folder.glob("?????????.json"))
        later = (
            name for name in names if _NUMBERED.fullmatch(name) and int(name[:9]) > frames_done
        )
        entries = filter(None, map(self._read_entry, later))
        return {entry.first: entry for entry in entries}

    def _read_entry(self, name: str) -> Entry | None:
        """Read an entry; None if it is missing or its file is not as it was."""
        told = self._read(name)
        if told is None:
            return None
        try:
            margin = [Fingerprint(**stamp) for stamp in told.pop("margin")]
            entry = Entry(**told, margin=margin)
        except (KeyError, TypeError):  # of another version
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
                is_finished = path.name == "journal.json" and self.chosen is not None
            if _OURS.fullmatch(path.name) and not is_finished:
                path.unlink(missing_ok=True)

    def _remove_folder(self, lock: IO[bytes]) -> None:
        if sys.platform == "win32":  # there, no open file can be deleted
            lock.close()
        (self.folder / _LOCK).unlink()
        self.folder.rmdir()

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        try:
            told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{path} cannot be read ({error}); give --restart to start over."
            ) from error
        return told

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        try:
            with write_atomically(self.folder / name) as part:
                part.write_text(json.dumps(content), encoding="utf-8")
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.folder} could not be written ({error.strerror}); make sure that the folder "
            "exists and the disk is not full, then run the same command to resume."
        )


def _shown(choice: str | int | None) -> str:
    text = str(choice)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _lock_file(file: IO[bytes]) -> None:
    """Lock an open file for this process.

    Raises:
        BlockingIOError: If another process holds it.
    """
    if sys.platform == "win32":
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError from error
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
        told = [(path.name, about.st_size) for path, about in zip(files, abouts, strict=True)]
        digest.update(repr(told).encode())
    latest = max(about.st_mtime for about in abouts)
    return {
        "size of the input": sum(about.st_size for about in abouts),
        "date of the input": str(datetime.fromtimestamp(latest, tz=UTC)),
        "content of the input": digest.hexdigest(),
    }
