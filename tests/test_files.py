"""Files are written atomically, survive a power failure and overwrite nothing unasked."""

import os
import sys
from pathlib import Path

import pytest

from vsrm_cli.errors import OutputError
from vsrm_cli.files import (
    cache_dir,
    check_output_path,
    files_below,
    temporary_path,
    write_atomically,
)


def on_the_disk(monkeypatch):
    """Records what is flushed to disk, by inode; Windows flushes names by itself."""
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    return flushed


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")

    with write_atomically(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"

    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes")
def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.mkv")

    for path in (tmp_path / "pipe.mkv", Path(os.devnull)):
        with pytest.raises(OutputError, match="is a pipe or a device, not a file; name a file"):
            check_output_path(path, overwrite=True)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")

    def write_half():
        with write_atomically(path) as part:
            part.write_text("ne")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_half()

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows flushes names by itself")
def test_content_is_flushed_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    flushed = on_the_disk(monkeypatch)
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (flushed.append("renamed"), rename(*names)))

    with write_atomically(path) as part:
        part.write_text("new")

    assert flushed == [path.stat().st_ino, "renamed", tmp_path.stat().st_ino]


def test_two_processes_never_share_a_temporary_file(tmp_path, monkeypatch):
    mine = temporary_path(tmp_path / "large.mp4")
    monkeypatch.setattr(os, "getpid", lambda: -1)

    theirs = temporary_path(tmp_path / "large.mp4")

    assert mine != theirs
    assert mine.suffix == theirs.suffix == ".mp4"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/page.html", "The folder .* does not exist; make it"),
        ("folder", "is a folder; name a file"),
        ("mine.html", "exists; choose another name, or give --overwrite"),
        ("input.mp4", "is the input itself"),
        ("link.mp4", "is the input itself"),
    ],
)
def test_an_impossible_output_path_is_refused_early(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "mine.html").write_text("precious")
    source = tmp_path / "input.mp4"
    source.write_text("footage")
    os.link(source, tmp_path / "link.mp4")

    with pytest.raises(OutputError, match=message):
        check_output_path(tmp_path / name, inputs=[source], overwrite=False)


def test_an_input_is_not_replaced_even_with_overwrite(tmp_path):
    source = tmp_path / "input.mp4"
    source.write_text("footage")
    other = tmp_path / "other.mp4"
    other.write_text("old")

    check_output_path(other, inputs=[source], overwrite=True)
    with pytest.raises(OutputError, match="is the input itself"):
        check_output_path(source, inputs=[other, source], overwrite=True)


def test_a_read_only_folder_is_refused_early(tmp_path, monkeypatch):
    # os.access is patched: root, as in a container, may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == tmp_path and mode == os.W_OK))

    with pytest.raises(OutputError, match=r"No file can be written into .*; choose another"):
        check_output_path(tmp_path / "large.mp4", overwrite=False)


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"VSRM_CACHE": "/c", "XDG_CACHE_HOME": "/x"}, "/c"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/vsrm"),
        ("linux", {}, "/home/me/.cache/vsrm"),
        ("darwin", {}, "/home/me/Library/Caches/vsrm"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/vsrm/cache"),
    ],
)
def test_the_cache_is_where_the_system_has_its_caches(monkeypatch, platform, variables, folder):
    for name in ("VSRM_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))

    assert cache_dir() == Path(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_files_below_a_folder_are_found_through_links_and_once(tmp_path):
    clips, data = tmp_path / "clips", tmp_path / "data"
    for name in ("clips/b.png", "data/a.png", "data/._a.png", "data/.cache/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (data / "linked").symlink_to(clips, target_is_directory=True)
    (clips / "back").symlink_to(data, target_is_directory=True)
    (data / "broken.png").symlink_to(tmp_path / "missing.png")

    assert files_below(data) == [data / "a.png", data / "linked" / "b.png"]


def test_permissions_of_a_file_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        with write_atomically(tmp_path / "model") as part:
            part.unlink()
            os.close(os.open(part, os.O_CREAT, 0o600))  # as safetensors does it
    finally:
        os.umask(before)

    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o644
