"""A download gives the right bytes or a clear error, whatever the host does."""

import errno
import hashlib
import io
import os
import random
import subprocess
import sys
from dataclasses import replace
from email.message import Message
from pathlib import Path
from urllib.request import Request

import pytest
from http_host import serve

from vsrm_cli.checkpoints import download as downloads
from vsrm_cli.checkpoints.download import RemoteFile, cache_path, checksum, fetch
from vsrm_cli.errors import WeightsError
from vsrm_cli.files import cache_dir

CONTENT = random.Random(0).randbytes(3_000_000)
ROOT = Path(__file__).parents[2]

# Fetches in a process of its own, and says what it got.
FETCHER = """
import sys
from vsrm_cli.checkpoints.download import RemoteFile, checksum, fetch
name, url, size, digest = sys.argv[1:]
path = fetch(RemoteFile(name, url, int(size), True, digest))
print(checksum(path, "sha256"))
"""


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("VSRM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "PAUSES_SECONDS", (0.0, 0.01, 0.01))


@pytest.fixture
def host():
    with serve(CONTENT) as host:
        yield host


@pytest.fixture
def remote(host):
    return RemoteFile("net", host.url, len(CONTENT), True, sha256_of(CONTENT))


def sha256_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def files_left():
    return sorted(path.name for path in cache_dir().rglob("*") if path.is_file())


def refuse(remote, reason):
    with pytest.raises(WeightsError, match=reason) as error:
        fetch(remote)
    assert "\n" not in str(error.value)
    assert not cache_path(remote).exists()


def test_a_file_is_downloaded_into_the_cache_with_progress(remote):
    told = []

    path = fetch(remote, report=told.append)

    assert path.read_bytes() == CONTENT
    assert path.name == "net.pth"
    assert path.is_relative_to(cache_dir())
    done = [transfer.bytes_done for transfer in told]
    assert done == sorted(done)
    assert done[-1] == told[-1].bytes_expected == len(CONTENT)
    assert len(done) >= 3
    assert files_left() == ["net.pth", "net.pth.lock"]


def test_existing_files_are_not_downloaded_again(remote, host):
    fetch(remote)
    fetch(remote)

    assert len(host.requests) == 1


def test_damaged_cached_files_are_downloaded_again(remote, host):
    path = fetch(remote)
    path.write_bytes(CONTENT[:-1] + b"?")

    assert fetch(remote).read_bytes() == CONTENT
    assert len(host.requests) == 2


def test_another_revision_is_another_file(remote, host):
    host.content = CONTENT[::-1]
    newer = replace(remote, checksum=sha256_of(host.content))

    assert fetch(newer).read_bytes() == CONTENT[::-1]
    assert cache_path(newer) != cache_path(remote)


def test_a_git_blob_id_is_a_checksum(remote):
    digest = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()

    path = fetch(replace(remote, checksum=f"git:{digest}"))

    assert checksum(path, "git") == f"git:{digest}"
    assert checksum(path, "sha256") == sha256_of(CONTENT)


def test_an_interrupted_transfer_resumes(remote, host):
    host.cuts = [1_000_000, 500_000]

    path = fetch(remote)

    assert path.read_bytes() == CONTENT
    assert [headers["Range"] for headers in host.requests] == [
        None,
        "bytes=1000000-",
        "bytes=1500000-",
    ]


def test_a_later_run_resumes_a_failed_download(remote, host):
    host.cuts = [1_000_000, 0, 0, 0, 0]
    refuse(remote, r"failed repeatedly .*1000000 bytes are kept, 'vsrm models pull net'")

    host.cuts = []
    path = fetch(remote)

    assert path.read_bytes() == CONTENT
    assert host.requests[-1]["Range"] == "bytes=1000000-"
    assert files_left() == ["net.pth", "net.pth.lock"]


def test_a_file_that_changed_between_attempts_is_downloaded_again(remote, host):
    host.content, host.cuts = CONTENT[::-1], [1_000_000, 0, 0, 0, 0]
    refuse(remote, "failed repeatedly")

    host.content, host.cuts = CONTENT, []

    assert fetch(remote).read_bytes() == CONTENT
    assert [headers["Range"] for headers in host.requests[-2:]] == ["bytes=1000000-", None]


def test_a_host_without_range_requests_sends_the_whole_file(remote, host):
    host.supports_ranges, host.cuts = False, [1_000_000]

    assert fetch(remote).read_bytes() == CONTENT
    assert len(host.requests) == 2


def test_a_complete_partial_file_is_kept(remote, host):
    part = cache_path(remote).with_name("net.pth.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)

    assert fetch(remote).read_bytes() == CONTENT
    assert host.requests == []


def test_a_partial_file_that_is_too_long_is_deleted(remote, host):
    part = cache_path(remote).with_name("net.pth.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT + b"more")

    assert fetch(remote).read_bytes() == CONTENT


def test_a_busy_host_is_retried(remote, host):
    host.statuses = [503, 429, 500]

    assert fetch(remote).read_bytes() == CONTENT
    assert len(host.requests) == 4


def test_a_host_that_keeps_failing_is_an_error(remote, host):
    host.statuses = 20 * [500]

    refuse(remote, r"failed repeatedly \(the host answered 500")
    assert len(host.requests) == 4


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_404_is_not_retried(remote, host, status):
    host.statuses = 20 * [status]

    refuse(remote, rf"answered {status} .* instead of sending net")
    assert len(host.requests) == 1


def test_a_file_with_a_wrong_checksum_is_deleted(remote, host):
    host.content = CONTENT[:-1] + b"?"

    refuse(remote, "sent another file")
    assert files_left() == ["net.pth.lock"]


def test_a_web_page_is_not_mistaken_for_the_file(remote, host):
    host.content, host.content_type = b"<html>Please log in</html>", "text/html; charset=utf-8"

    refuse(remote, "answered with a web page")


@pytest.mark.parametrize("declared", [0, 134, 10 * len(CONTENT)])
def test_another_length_is_refused_before_anything_is_stored(remote, host, declared):
    host.declared = declared

    refuse(remote, rf"offers {declared} bytes as net, which has {len(CONTENT)}")
    assert len(host.requests) == 1


@pytest.mark.parametrize("declared", ["many", "-5", ""])
def test_an_invalid_content_length_is_ignored(remote, host, declared):
    host.declared = declared

    assert fetch(remote).read_bytes() == CONTENT


def test_an_endless_response_is_not_stored(remote, host):
    host.content, host.declared = CONTENT * 3, ""

    refuse(remote, f"sends more than the {len(CONTENT)} bytes")
    assert sum(path.stat().st_size for path in cache_dir().rglob("*") if path.is_file()) == 0


def test_an_approximate_length_is_enough(remote):
    path = fetch(replace(remote, size=2_900_000, is_size_exact=False))

    assert path.read_bytes() == CONTENT


def test_a_content_length_that_is_too_large_does_not_hang(remote, host):
    host.declared = len(CONTENT) + 10
    about = replace(remote, is_size_exact=False)

    # It cannot be told from a cut, until the checksum of what came is right.
    assert fetch(about).read_bytes() == CONTENT


def test_a_redirect_is_followed(remote, host):
    with serve(b"") as first:
        first.redirect = host.url

        assert fetch(replace(remote, url=first.url)).read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/file.pth"])
def test_a_redirect_to_another_scheme_is_not_followed(remote, host, target):
    host.redirect = target

    refuse(remote, "unsafe address|answered 302")


def test_a_redirect_from_https_to_http_is_not_followed():
    request = Request("https://example.org/file.pth")

    with pytest.raises(WeightsError, match="unsafe address"):
        downloads._SafeRedirects().redirect_request(
            request, io.BytesIO(), 302, "Found", Message(), "http://example.org/file.pth"
        )


def test_circular_redirects_are_reported(remote, host):
    host.redirect = host.url

    refuse(remote, "answered 302")


def test_an_unreachable_host_is_reported_at_once(remote):
    refuse(replace(remote, url="http://127.0.0.1:9/file.pth"), "cannot be reached.*when online")


def test_an_unknown_name_is_reported_at_once(remote):
    refuse(replace(remote, url="http://nowhere.invalid/file.pth"), "cannot be reached")


def test_a_read_only_cache_is_reported(remote, monkeypatch):
    # A stand-in for the system: an administrator, as in a container, may write everywhere.
    def refuse_to_write(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "mkdir", refuse_to_write)

    refuse(remote, "cannot be written.*VSRM_CACHE")


def test_a_cache_path_that_is_a_file_is_reported(remote, tmp_path):
    (tmp_path / "cache").write_text("precious")

    with pytest.raises(WeightsError, match=r"cannot be written.*VSRM_CACHE"):
        fetch(remote)
    assert (tmp_path / "cache").read_text() == "precious"


def start_fetching(remote):
    words = (remote.name, remote.url, str(remote.size), remote.checksum)
    return subprocess.Popen(
        [sys.executable, "-c", FETCHER, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_programs_download_a_file_once(remote, host):
    host.pause.clear()
    programs = [start_fetching(remote) for _ in range(2)]
    while not host.requests:
        assert all(program.poll() is None for program in programs)
    host.pause.set()

    told = [program.communicate(timeout=30) for program in programs]

    assert [out.strip() for out, _ in told] == 2 * [remote.checksum]
    assert [errors for _, errors in told] == ["", ""]
    assert len(host.requests) == 1


def test_a_program_that_died_leaves_no_lock(remote, host):
    host.pause.clear()
    program = start_fetching(remote)
    while not host.requests:
        assert program.poll() is None
    program.kill()
    program.communicate(timeout=30)
    host.pause.set()

    assert fetch(remote).read_bytes() == CONTENT
