"""Segments in the journal are complete; all others are deleted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub_network import names_in

from vsrm_cli.errors import OutputError
from vsrm_cli.frame import Faults, Fingerprint
from vsrm_cli.upscale.entries import JournalEntry, ResumePoint
from vsrm_cli.upscale.journal import Journal, describe_files
from vsrm_cli.upscale.settings import JobSettings

ASKED = {"window": 24, "weights": "0123"}
SETTINGS = JobSettings(device="cpu", hardware="cpu AVX2", dtype="fp32", threads=2)
HOLD = "import sys; from pathlib import Path; from vsrm_cli.upscale.journal import Journal\n"
HOLD += "with Journal(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "large.mp4"


def add_segment(journal, *, first, frames=3, move_from=None):
    ((move_from or journal.folder) / f"{first:09}.mp4").write_bytes(b"x" * 10)
    journal.add(
        JournalEntry(
            file=f"{first:09}.mp4",
            ticks=[512 * number for number in range(first, first + frames)],
            end=512 * (first + frames),
            tile=None,
            resume_point=ResumePoint(first + frames, 0, [Fingerprint("1/25", 123)]),
        ),
        move_from=move_from,
    )


def change_lines(folder, change):
    """Change the list of the lines that tell of segments."""
    file = folder / "segments.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    change(lines)
    file.write_bytes(b"".join(lines))


def tear(lines):
    """As after a power cut, when a part of a line has reached the disk."""
    lines[-1] = lines[-1][:40] + bytes(20)


def start(output, *, segments):
    """Do some work, and leave it."""
    with Journal(output) as journal:
        journal.load(ASKED, restart=True)
        journal.discard_unfinished()
        journal.write_settings(SETTINGS)
        for number in range(segments):
            add_segment(journal, first=3 * number)
    return journal


def test_a_later_run_reads_finished_segments_and_choices(output):
    earlier = start(output, segments=2)

    with Journal(output) as later:
        later.load(ASKED, restart=False)

        assert later.entries == earlier.entries
        assert later.settings == SETTINGS
        assert later.frames_done == 6


def test_the_journal_of_an_earlier_version_is_read(output):
    folder = start(output, segments=0).folder
    folder.mkdir()
    (folder / "000000000.mp4").write_bytes(b"x" * 10)
    chosen = {"device": "cpu", "hardware": "cpu", "dtype": "fp32", "segment frames": 8}
    (folder / "journal.json").write_text(json.dumps({"asked": ASKED, "chosen": chosen}))
    (folder / "segments.jsonl").write_text(
        '{"file": "000000000.mp4", "first": 0, "shot": 0, "ticks": [0, 512], "end": 1024, '
        '"tile": null, "damaged": 7, "margin": [{"time": "1/25", "checksum": 123}], '
        '"size_bytes": 10}\n'
    )

    with Journal(output) as journal:
        journal.load(ASKED, restart=False)

        point = ResumePoint(2, 0, [Fingerprint("1/25", 123)])
        assert journal.entries == [JournalEntry("000000000.mp4", [0, 512], 1024, None, point, 10)]
        assert journal.resume_point.faults == Faults(damaged=7)
        assert journal.settings == JobSettings(
            hardware="cpu", device="cpu", dtype="fp32", threads=None, segment_frames=8
        )


def test_a_run_that_finished_nothing_leaves_no_folder(output):
    start(output, segments=0)
    with Journal(output):
        pass

    assert names_in(output.parent) == []


def test_a_cleared_journal_is_deleted(output):
    start(output, segments=2)

    with Journal(output) as journal:
        journal.load(ASKED, restart=False)
        journal.clear()

    assert names_in(output.parent) == []


def test_other_options_are_refused_by_name_and_segments_are_kept(output):
    start(output, segments=2)
    kept = names_in(output.with_name(".large.mp4.vsrm"))

    with (
        pytest.raises(OutputError, match=r"differs in window \(was 24, is 8\);"),
        Journal(output) as journal,
    ):
        journal.load(ASKED | {"window": 8}, restart=False)

    assert names_in(output.with_name(".large.mp4.vsrm")) == kept


def test_other_options_are_accepted_without_finished_segments(output):
    with Journal(output) as journal:
        journal.load(ASKED, restart=False)
        journal.write_settings(SETTINGS)
        (journal.folder / "journal.json").rename(output)
    journal.folder.mkdir()
    output.rename(journal.folder / "journal.json")  # as after a crash

    with Journal(output) as journal:
        journal.load(ASKED | {"window": 8}, restart=False)

        assert journal.settings is None


def test_a_restart_deletes_finished_segments(output):
    start(output, segments=2)

    with Journal(output) as journal:
        journal.load(ASKED | {"window": 8}, restart=True)
        names_before_the_start = names_in(journal.folder)
        journal.discard_unfinished()

        assert "000000003.mp4" in names_before_the_start
        assert journal.entries == []
        assert names_in(journal.folder) == ["lock"]


@pytest.mark.parametrize(
    ("harm", "frames", "kept"),
    [
        (lambda folder: change_lines(folder, lambda lines: lines.pop(1)), 3, [0, 6]),
        (lambda folder: change_lines(folder, tear), 6, [0, 3]),
        (lambda folder: change_lines(folder, list.reverse), 9, [0, 3, 6]),
        (lambda folder: (folder / "000000003.mp4").unlink(), 3, [0, 6]),
        (lambda folder: (folder / "000000003.mp4").write_bytes(b"short"), 3, [0, 6]),
        (lambda folder: (folder / "000000000.mp4").unlink(), 0, [3, 6]),
        (lambda folder: (folder / "000000009.mp4").write_bytes(b"unfinished"), 9, [0, 3, 6]),
        (lambda folder: (folder / "a.part").mkdir(), 9, [0, 3, 6]),
    ],
    ids=[
        "no-entry",
        "torn-entry",
        "any-order",
        "no-file",
        "short-file",
        "no-first",
        "unfinished",
        "unfinished-elsewhere",
    ],
)
def test_a_segment_that_is_missing_leaves_a_gap_and_what_is_not_finished_is_deleted(
    output, harm, frames, kept
):
    folder = start(output, segments=3).folder
    harm(folder)

    with Journal(output) as journal:
        journal.load(ASKED, restart=False)
        journal.discard_unfinished()

        assert journal.frames_done == frames
        assert (journal.frames_kept, sorted(journal.after_gap)) == (
            3 * len(kept),
            [n for n in kept if n > frames],
        )
        names = [f"{first:09}.mp4" for first in kept]
        assert names_in(folder) == [*names, "journal.json", "lock", "segments.jsonl"]
        add_segment(journal, first=9)

    with Journal(output) as later:
        later.load(ASKED, restart=False)
        assert later.frames_kept == 3 * len(kept) + 3


def test_a_filled_gap_connects_later_segments(output):
    folder = start(output, segments=3).folder
    (folder / "000000003.mp4").unlink()

    with Journal(output) as journal:
        journal.load(ASKED, restart=False)
        journal.discard_unfinished()
        add_segment(journal, first=3)

        assert [entry.first for entry in journal.entries] == [0, 3, 6]
        assert (journal.frames_done, journal.after_gap) == (9, {})


def test_files_of_other_programs_are_not_deleted(output):
    folder = start(output, segments=1).folder
    (folder / "notes.txt").write_text("mine")

    with Journal(output) as journal:
        journal.load(ASKED, restart=True)
        journal.discard_unfinished()

    assert names_in(folder) == ["lock", "notes.txt"]


def test_an_unreadable_journal_is_reported_with_a_suggestion(output):
    folder = start(output, segments=1).folder
    (folder / "journal.json").write_text("not a journal")

    with pytest.raises(OutputError, match=r"cannot be read .* --restart"), Journal(output) as held:
        held.load(ASKED, restart=False)

    assert "000000000.mp4" in names_in(folder)


def test_a_second_process_is_refused_while_the_first_is_running(output):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, output],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as first:
        first.stdout.readline()

        with pytest.raises(OutputError, match="Another vsrm is working on"), Journal(output):
            pass
        first.kill()
        first.wait()
        with Journal(output) as journal:
            assert journal.folder.is_dir()


def test_a_missing_output_folder_is_reported(output):
    with Journal(output) as journal:
        journal.load(ASKED, restart=False)
        for path in journal.folder.iterdir():
            path.unlink()
        journal.folder.rmdir()

        with pytest.raises(OutputError, match="make sure that the folder exists"):
            journal.write_settings(SETTINGS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows")
def test_a_folder_that_cannot_be_created_is_reported(tmp_path):
    with pytest.raises(OutputError, match="could not be written"), Journal(tmp_path / "no" / "x"):
        pass


@given(data=st.binary(max_size=40), at=st.integers(0, 39), to=st.binary(min_size=1, max_size=1))
def test_a_small_file_is_identified_by_all_its_bytes(tmp_path_factory, data, at, to):
    path = tmp_path_factory.mktemp("known") / "file"
    path.write_bytes(data)
    about = path.stat()
    before = describe_files([path])

    changed = data[:at] + to + data[at + 1 :]
    path.write_bytes(changed)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))

    assert (describe_files([path]) == before) == (changed == data)


def test_a_segment_made_elsewhere_is_moved_to_the_others(output):
    with Journal(output) as journal:
        journal.load(ASKED, restart=True)
        journal.discard_unfinished()
        journal.write_settings(SETTINGS)
        move_from = journal.folder / "worker.part"
        move_from.mkdir()
        for first in (9, 3, 6, 0):
            add_segment(journal, first=first, move_from=move_from)

        assert (journal.frames_done, journal.after_gap) == (12, {})
        assert names_in(move_from) == []
    with Journal(output) as journal:
        journal.load(ASKED, restart=False)
        assert journal.frames_done == 12


def test_a_process_that_is_killed_loses_no_entry(output):
    work = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from vsrm_cli.upscale.entries import JournalEntry, ResumePoint
from vsrm_cli.upscale.journal import Journal
from vsrm_cli.upscale.settings import JobSettings

journal = Journal(Path({str(output)!r}))
journal.__enter__()
journal.load({ASKED!r}, restart=True)
journal.discard_unfinished()
journal.write_settings({SETTINGS!r})
for first in range(50):
    (journal.folder / f"{{first:09}}.mp4").write_bytes(b"x")
    point = ResumePoint(first + 1, 0, [])
    journal.add(JournalEntry(f"{{first:09}}.mp4", [first], first + 1, None, point))
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", work]).returncode == 9

    with Journal(output) as journal:
        journal.load(ASKED, restart=False)
        assert journal.frames_done == 50


def test_entries_are_on_the_disk_a_second_later_and_those_of_a_slow_run_at_once(
    output, monkeypatch
):
    now, flushed = [100.0], []
    monkeypatch.setattr("vsrm_cli.upscale.journal.time.monotonic", lambda: now[0])
    with Journal(output) as journal:
        journal.load(ASKED, restart=True)
        journal.discard_unfinished()
        journal.write_settings(SETTINGS)
        monkeypatch.setattr("vsrm_cli.upscale.journal.os.fsync", lambda _: flushed.append(now[0]))
        for seconds in (0, 0.1, 0.1, 30):
            now[0] += seconds
            add_segment(journal, first=journal.frames_done)
        now[0] += 0.5
        add_segment(journal, first=journal.frames_done)
        journal.flush_if_due()
        now[0] += 0.6
        journal.flush_if_due()
        journal.flush_if_due()

        # Each time the names of the files, too.
        assert flushed[::2] == flushed[1::2] == pytest.approx([100.0, 130.2, 131.3])


def test_a_missing_segment_is_reported(output):
    with Journal(output) as journal:
        journal.load(ASKED, restart=True)
        journal.discard_unfinished()
        with pytest.raises(OutputError, match="could not be written"):
            journal.add(JournalEntry("absent.mp4", [0], 1, None, ResumePoint(4, 0, [])))
