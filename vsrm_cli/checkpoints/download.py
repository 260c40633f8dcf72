"""Download pinned files into the cache.

URL, size and checksum are known in advance. Interrupted downloads are resumed; processes that need
the same file wait for the one that downloads it; a file is renamed in the cache only after its
checksum is verified.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPMessage, responses
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from filelock import FileLock

from vsrm_cli.errors import WeightsError
from vsrm_cli.files import cache_dir, flush_and_rename

TIMEOUT_SECONDS = 30.0
# Between attempts; reset after a transfer that made progress.
PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0)

_CHUNK = 1 << 20
# The host has a temporary problem.
_TEMPORARY_STATUS = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class RemoteFile:
    """A pinned file on the network.

    Attributes:
        name: Its name for the user, and in the cache.
        url: Its address, at a pinned revision.
        size: Its length in bytes.
        is_size_exact: Whether the size is known exactly, or to a tenth.
        checksum: "sha256:" or "git:" (the id of a git blob) and hexadecimal digits.
    """

    name: str
    url: str
    size: int
    is_size_exact: bool
    checksum: str

    @property
    def sizes(self) -> range:
        """The accepted sizes."""
        slack = 0 if self.is_size_exact else self.size // 10
        return range(self.size - slack, self.size + slack + 1)


@dataclass(frozen=True)
class DownloadProgress:
    """The progress of a download."""

    name: str
    bytes_done: int
    bytes_expected: int


class _Broken(Exception):
    """A transfer stopped, and can be resumed."""


def fetch(remote: RemoteFile, *, report: Callable[[DownloadProgress], None] | None = None) -> Path:
    """Download a file into the cache, unless it is there.

    Args:
        remote: The file.
        report: Called as data arrives.

    Returns:
        Its path; its checksum was verified in this call.

    Raises:
        WeightsError: If the host cannot be reached, does not have the file, or sends another; or if
            the cache cannot be written.
    """
    path = find_cached(remote)
    if path:
        return path
    path = cache_path(remote)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A lock of the operating system, released when its process ends.
        with FileLock(path.with_name(f"{path.name}.lock")):
            if not find_cached(remote):
                part = path.with_name(f"{path.name}.part")
                _receive_all(remote, part, report or (lambda _: None))
                flush_and_rename(part, path)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted: the part that was downloaded is kept; run the same command to resume"
        ) from None
    except OSError as error:
        raise WeightsError(
            f"The cache {cache_dir()} cannot be written ({error.strerror or error}); "
            "the environment variable VSRM_CACHE names another folder."
        ) from error
    return path


def find_cached(remote: RemoteFile) -> Path | None:
    """The file in the cache, if it is there and its checksum is right."""
    path = cache_path(remote)
    return path if path.is_file() and _is_right(path, remote) else None


def cache_path(remote: RemoteFile) -> Path:
    """The path of a file in the cache; it depends on the checksum, so revisions do not collide."""
    digest = remote.checksum.partition(":")[2]
    ending = PurePosixPath(urlsplit(remote.url).path).suffix
    return cache_dir() / digest[:12] / f"{remote.name}{ending}"


def checksum(path: Path, kind: str) -> str:
    """The checksum of a file: "sha256", or "git", its id as a git blob."""
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
    if kind == "git":
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, lambda: digest).hexdigest()}"


def _is_right(path: Path, remote: RemoteFile) -> bool:
    kind = remote.checksum.partition(":")[0]
    return path.stat().st_size in remote.sizes and checksum(path, kind) == remote.checksum


def _receive_all(
    remote: RemoteFile, part: Path, report: Callable[[DownloadProgress], None]
) -> None:
    """Download a file, in several attempts if needed, and verify it."""
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
                    f"Fetching {remote.name} from {_host(remote)} failed repeatedly ({broken}); "
                    f"{_size(part)} bytes are kept, 'vsrm models pull {remote.name}' resumes."
                ) from broken
            time.sleep(pause)
            continue
        if _is_right(part, remote):
            return
        part.unlink(missing_ok=True)
        if not is_resumed:
            raise WeightsError(
                f"{_host(remote)} sent another file than {remote.name} (wrong checksum); it was "
                "deleted."
            )
        # The file may have changed between the two parts: download it again as a whole.
        is_resumed = False


def _receive(remote: RemoteFile, part: Path, report: Callable[[DownloadProgress], None]) -> None:
    """One attempt: append the missing part, or start over if the host sends the whole file."""
    done = _size(part)
    with _request(remote, part, done) as response:
        if response.status != 206 or not _continues_at(response.headers, done):
            done = 0
        expected = _expected(response.headers, done, remote)
        with part.open("ab" if done else "wb") as file:
            for chunk in _chunks(response):
                done += len(chunk)
                if done >= remote.sizes.stop:
                    break
                file.write(chunk)
                report(DownloadProgress(remote.name, done, expected))
            file.flush()
            os.fsync(file.fileno())
    if done >= remote.sizes.stop:
        part.unlink(missing_ok=True)
        raise WeightsError(
            f"{_host(remote)} sends more than the {remote.size} bytes of {remote.name}; nothing "
            "was kept."
        )
    if done < expected:
        raise _Broken(f"the connection was cut after {done} of {expected} bytes")


def _request(remote: RemoteFile, part: Path, done: int) -> Any:
    """Request a file from byte `done` on; returns the response, open for reading."""
    headers = {"User-Agent": "vsrm", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    request = Request(remote.url, headers=headers)
    try:
        return build_opener(_SafeRedirects).open(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        with error:
            raise _failure(error, remote, part) from error
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
    try:
        yield from iter(partial(response.read, _CHUNK), b"")
    except (OSError, HTTPException) as error:
        raise _Broken(str(error) or type(error).__name__) from error


def _continues_at(headers: HTTPMessage, done: int) -> bool:
    return headers.get("Content-Range", "").startswith(f"bytes {done}-")


def _expected(headers: HTTPMessage, done: int, remote: RemoteFile) -> int:
    """The size of the whole file by the host's headers; another size is refused."""
    if headers.get_content_type() == "text/html":
        raise WeightsError(
            f"{_host(remote)} answered with a web page, not with {remote.name}; if this network "
            "asks for a login, open a browser first."
        )
    length = headers.get("Content-Length", "")
    total = done + int(length) if length.isdecimal() else remote.sizes.start
    if total not in remote.sizes:
        about = "" if remote.is_size_exact else "about "
        raise WeightsError(
            f"{_host(remote)} offers {total} bytes as {remote.name}, which has {about}"
            f"{remote.size}; nothing was kept."
        )
    return total


def _failure(error: HTTPError, remote: RemoteFile, part: Path) -> Exception:
    """The exception for an error status: one that is retried, or one for the user."""
    answer = f"{error.code} {responses.get(error.code, '')}".strip()
    if error.code == 416:  # the host has nothing after our part, which is not the file
        part.unlink(missing_ok=True)
        return _Broken("the host cannot resume")
    if error.code in _TEMPORARY_STATUS:
        return _Broken(f"the host answered {answer}")
    return WeightsError(
        f"{_host(remote)} answered {answer} instead of sending {remote.name} "
        f"({remote.url}); a newer vsrm may know where it is now."
    )


class _SafeRedirects(HTTPRedirectHandler):
    """Follows redirects, but not from HTTPS to HTTP, nor to local files."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Create the redirected request, or refuse it."""
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
