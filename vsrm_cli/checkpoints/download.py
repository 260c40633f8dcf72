"""A file from the network into the cache: whole and right, or not at all.

What a file must be is known before it is fetched: its address, its size, its checksum. A broken
transfer goes on where it stopped; several programs that want the same file wait for the one that
fetches it; and a file gets its name in the cache only after its bytes were checked.
"""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, responses
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from filelock import FileLock

from vsrm_cli.errors import WeightsError

TIMEOUT_SECONDS = 30.0
# Between attempts; a transfer that gets any further begins counting anew.
PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0)

_CHUNK = 1 << 20
# The host is busy or ill, and may be well in a moment.
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class RemoteFile:
    """A file in the network, and how to know that it is the right one.

    Attributes:
        name: What a user calls it; the name of the cached file, too.
        url: Where it is, at a pinned revision.
        size: Its length in bytes.
        is_size_exact: Whether that is known to the byte, or only to a tenth.
        checksum: "sha256:" or "git:" (the id of a git blob) and hexadecimal digits.
    """

    name: str
    url: str
    size: int
    is_size_exact: bool
    checksum: str

    @property
    def sizes(self) -> range:
        """The lengths that are believed."""
        slack = 0 if self.is_size_exact else self.size // 10
        return range(self.size - slack, self.size + slack + 1)


@dataclass(frozen=True)
class Transfer:
    """How far a download is."""

    name: str
    bytes_done: int
    bytes_expected: int


class _Broken(Exception):
    """A transfer stopped, and may go on."""


def fetch(remote: RemoteFile, *, report: Callable[[Transfer], None] | None = None) -> Path:
    """Bring a file into the cache, unless it is there.

    Args:
        remote: What to fetch.
        report: Called as the bytes come in.

    Returns:
        Where it is; its bytes were checked in this call.

    Raises:
        WeightsError: If the host cannot be reached, does not have the file, or sends another; or
            if the cache cannot be written.
    """
    path = cached(remote)
    if path:
        return path
    path = cache_path(remote)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A lock of the operating system: it dies with the process that holds it.
        with FileLock(path.with_name(f"{path.name}.lock")):
            if not cached(remote):
                part = path.with_name(f"{path.name}.part")
                _receive_all(remote, part, report or (lambda _: None))
                os.replace(part, path)
                _forget(part)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted: the part that was downloaded is kept; run the same command to resume"
        ) from None
    except OSError as error:
        raise WeightsError(
            f"The cache {cache_folder()} cannot be written ({error.strerror or error}); "
            "the environment variable VSRM_CACHE names another folder."
        ) from error
    return path


def cached(remote: RemoteFile) -> Path | None:
    """The file in the cache, if it is there and right."""
    path = cache_path(remote)
    return path if path.is_file() and _is_right(path, remote) else None


def cache_path(remote: RemoteFile) -> Path:
    """Where a file is kept: apart by checksum, so that another revision is another file."""
    digest = remote.checksum.partition(":")[2]
    ending = PurePosixPath(urlsplit(remote.url).path).suffix
    return cache_folder() / digest[:12] / f"{remote.name}{ending}"


def cache_folder() -> Path:
    """The folder of fetched files: VSRM_CACHE, or where this system keeps such things."""
    if os.environ.get("VSRM_CACHE"):
        return Path(os.environ["VSRM_CACHE"]).expanduser()
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "vsrm"
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "vsrm" / "cache"
    home = Path.home()
    return home / "Library/Caches/vsrm" if sys.platform == "darwin" else home / ".cache/vsrm"


def checksum(path: Path, kind: str) -> str:
    """The checksum of a file: "sha256", or "git", the id that git gives a blob of this content."""
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
    if kind == "git":
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return f"{kind}:{digest.hexdigest()}"


def _is_right(path: Path, remote: RemoteFile) -> bool:
    kind = remote.checksum.partition(":")[0]
    return path.stat().st_size in remote.sizes and checksum(path, kind) == remote.checksum


def _receive_all(remote: RemoteFile, part: Path, report: Callable[[Transfer], None]) -> None:
    """Fill a file, in as many attempts as it takes and is reasonable, and check it."""
    pauses = iter(PAUSES_SECONDS)
    furthest = _size(part)
    is_resumed = furthest > 0
    while not (part.exists() and _is_right(part, remote)):
        try:
            _receive(remote, part, report)
        except _Broken as broken:
            if _size(part) > furthest:
                furthest = _size(part)
                pauses = iter(PAUSES_SECONDS)
            is_resumed = _size(part) > 0
            pause = next(pauses, None)
            if pause is None:
                raise WeightsError(
                    f"Fetching {remote.name} from {_host(remote)} failed again and again "
                    f"({broken}); {_size(part)} bytes are kept, 'vsrm models pull {remote.name}' "
                    "resumes."
                ) from broken
            time.sleep(pause)
            continue
        if _is_right(part, remote):
            return
        _forget(part)
        if not is_resumed:
            raise WeightsError(
                f"{_host(remote)} sent something else than {remote.name} (wrong checksum); it was "
                "deleted."
            )
        # The beginning may have been another file's than the end: once more, as a whole.
        is_resumed = False


def _receive(remote: RemoteFile, part: Path, report: Callable[[Transfer], None]) -> None:
    """One attempt: append to a file what it lacks, or begin it anew if the host insists."""
    done = _size(part)
    with _ask(remote, part, done) as response:
        if response.status != 206 or not _continues_at(response.headers, done):
            done = 0
        expected = _expected(response.headers, done, remote)
        if not done:
            _remember_etag(part, response.headers.get("ETag", ""))
        with part.open("ab" if done else "wb") as file:
            for chunk in _chunks(response):
                done += len(chunk)
                if done >= remote.sizes.stop:
                    break
                file.write(chunk)
                report(Transfer(remote.name, done, expected))
            file.flush()
            os.fsync(file.fileno())
    if done >= remote.sizes.stop:
        _forget(part)
        raise WeightsError(
            f"{_host(remote)} sends more than the {remote.size} bytes of {remote.name}; nothing "
            "was kept."
        )
    if done < expected:
        raise _Broken(f"the connection was cut after {done} of {expected} bytes")


def _ask(remote: RemoteFile, part: Path, done: int) -> Any:
    """Ask for a file, from its byte `done` on; returns the host's answer, open for reading."""
    request = Request(remote.url, headers=_headers(part, done))
    try:
        return build_opener(_SafeRedirects).open(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        with error:
            raise _judged(error, remote, part) from error
    except URLError as error:
        if isinstance(error.reason, ConnectionResetError | BrokenPipeError):
            raise _Broken(str(error.reason)) from error
        raise WeightsError(
            f"{_host(remote)} cannot be reached ({error.reason}), and {remote.name} is not in the "
            f"cache; when online, run 'vsrm models pull {remote.name}'."
        ) from error
    except (OSError, HTTPException) as error:
        raise _Broken(str(error) or type(error).__name__) from error


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, HTTPException) as error:
            raise _Broken(str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk


def _headers(part: Path, done: int) -> dict[str, str]:
    headers = {"User-Agent": "vsrm", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
        etag = _etag_file(part)
        if etag.is_file():
            headers["If-Range"] = etag.read_text(encoding="ascii")
    return headers


def _continues_at(headers: HTTPMessage, done: int) -> bool:
    return headers.get("Content-Range", "").startswith(f"bytes {done}-")


def _expected(headers: HTTPMessage, done: int, remote: RemoteFile) -> int:
    """The length of the whole file as the host tells it; a file of another length is refused."""
    if headers.get_content_type() == "text/html":
        raise WeightsError(
            f"{_host(remote)} answered with a web page, not with {remote.name}; if this network "
            "asks for a login, open a browser first."
        )
    told = headers.get("Content-Length", "")
    total = done + int(told) if told.isdecimal() else remote.sizes.start
    if total not in remote.sizes:
        about = "" if remote.is_size_exact else "about "
        raise WeightsError(
            f"{_host(remote)} offers {total} bytes as {remote.name}, which has {about}"
            f"{remote.size}; nothing was kept."
        )
    return total


def _judged(error: HTTPError, remote: RemoteFile, part: Path) -> Exception:
    """What an answer that is no success means: try again, or tell."""
    answer = f"{error.code} {responses.get(error.code, '')}".strip()
    if error.code == 416:  # there is nothing after what we have, yet it is not the file
        _forget(part)
        return _Broken("the host cannot resume")
    if error.code in _PASSING_STATUS:
        return _Broken(f"the host answered {answer}")
    return WeightsError(
        f"{_host(remote)} answered {answer} instead of sending {remote.name} "
        f"({remote.url}); a newer vsrm may know where it is now."
    )


class _SafeRedirects(HTTPRedirectHandler):
    """Follows a host to another one, but not out of encryption, nor to a file of this machine."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Make the request for the new address, or refuse it."""
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if after.scheme not in {"https", before.scheme}:
            fp.close()
            raise WeightsError(
                f"{before.hostname} leads to the unsafe address {newurl[:100]!r}; it was not "
                "followed."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _host(remote: RemoteFile) -> str:
    return urlsplit(remote.url).hostname or remote.url


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _etag_file(part: Path) -> Path:
    return part.with_suffix(".etag")


def _remember_etag(part: Path, etag: str) -> None:
    # A weak one ("W/...") promises the same meaning, not the same bytes.
    if etag.startswith('"') and etag.isascii() and etag.isprintable():
        _etag_file(part).write_text(etag, encoding="ascii")
    else:
        _etag_file(part).unlink(missing_ok=True)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _etag_file(part).unlink(missing_ok=True)
