"""Write files atomically, check output paths so that nothing is overwritten, find inputs."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vsrm_cli.errors import OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# Images and videos in a folder are found by these endings; a file given by name may have any.
IMAGE_ENDINGS = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".bmp"}
VIDEO_ENDINGS = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".nut", ".avi", ".ts", ".m2ts", ".mts", ".mpg"),
    *(".mpeg", ".vob", ".wmv", ".flv", ".ogv", ".3gp"),
    *(".264", ".h264", ".265", ".h265", ".hevc"),  # refused with a reason: they have no times
}


def check_output_path(path: Path, *, inputs: Iterable[Path] = (), overwrite: bool) -> None:
    """Make sure, before any work is done, that a file can be written.

    Args:
        path: The file.
        inputs: The files it is made of; none of them is ever replaced.
        overwrite: Whether the file may exist.

    Raises:
        OutputError: If it cannot be written; says why and what to do.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"The folder {folder} does not exist; make it, or choose another one.")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file.")
    if path.exists():
        if not path.is_file():
            raise OutputError(f"{path} is a pipe or a device, not a file; name a file.")
        if any(source.exists() and path.samefile(source) for source in inputs):
            raise OutputError(f"{path} is the input itself; choose another name for the output.")
        if not overwrite:
            raise OutputError(f"{path} exists; choose another name, or give --overwrite.")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"No file can be written into {folder}; choose another folder.")


def temporary_path(path: Path, folder: Path | None = None) -> Path:
    """The hidden temporary file of this process, in which a file is written until it is complete.

    Args:
        path: The file.
        folder: Where to put it, on the same disk; None for beside the file.
    """
    return (folder or path.parent) / f".{path.stem}.{os.getpid()}.part{path.suffix}"


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Write a temporary file and rename it when it is complete; an old file stays until then.

    Yields:
        Where to write. Leaving the block without an exception gives that file its name.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    part = temporary_path(path)
    part.touch()
    mode = part.stat().st_mode
    try:
        yield part
        part.chmod(mode)  # safetensors keeps what it writes from all other users
        flush_and_rename(part, path)
    finally:
        part.unlink(missing_ok=True)


def flush_and_rename(part: Path, path: Path) -> None:
    """Flush a complete file to disk and rename it, so that both survive a power failure.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to disk; Windows does so by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_in(folder: Path) -> list[Path]:
    """The files of a folder, sorted; hidden ones are left out, such as those that macOS adds."""
    return sorted(f for f in folder.glob("*") if not f.name.startswith(".") and f.is_file())


def files_below(folder: Path) -> list[Path]:
    """The files of a folder and of all folders in it, sorted; hidden ones are left out.

    Links to folders are followed, as data sets are often linked to; each folder is listed once.
    """
    files: list[Path] = []
    visited: set[Path] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        here = Path(root)
        if here.resolve() in visited:
            folders.clear()  # a link back to where it lies
            continue
        visited.add(here.resolve())
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [here / name for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.is_file())


def lock_file(file: IO[bytes]) -> None:
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


def cache_dir() -> Path:
    """The cache folder: VSRM_CACHE, or where this system has its caches."""
    if os.environ.get("VSRM_CACHE"):
        return Path(os.environ["VSRM_CACHE"]).expanduser()
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "vsrm"
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "vsrm" / "cache"
    home = Path.home()
    return home / "Library/Caches/vsrm" if sys.platform == "darwin" else home / ".cache/vsrm"
