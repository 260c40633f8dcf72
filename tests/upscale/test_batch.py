"""Several inputs: what they become is known, and told if it cannot be, before any work begins."""

import json

import pytest
from PIL import Image
from stand_in import draw_clip, load_nearest, read_clip
from typer.testing import CliRunner

from vsrm_cli.cli import app as cli
from vsrm_cli.errors import InputError, OutputError, UsageError
from vsrm_cli.upscale import job as upscale
from vsrm_cli.upscale.batch import plan_batch


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with videos in it and in a folder beside them."""
    monkeypatch.setattr(upscale, "load_model", load_nearest)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "shots").mkdir()
    (tmp_path / "large").mkdir()
    for name in ("a.mp4", "more/b.mkv", "more/c.avi"):
        (tmp_path / name).write_text("a video")
    (tmp_path / "more" / "notes.txt").write_text("none")
    Image.new("RGB", (8, 8)).save(tmp_path / "shots" / "1.png")
    return tmp_path


def plan(folder, *names, overwrite=False):
    pairs = plan_batch([folder / name for name in names], folder / "large", overwrite=overwrite)
    return [
        (str(source.relative_to(folder)), str(output.relative_to(folder)))
        for source, output in pairs
    ]


def run(*arguments):
    return CliRunner().invoke(cli.app, ["upscale", *map(str, arguments)])


def test_each_input_gets_its_name_in_the_folder_and_a_container_that_is_written(folder):
    assert plan(folder, "a.mp4", "more", "shots") == [
        ("a.mp4", "large/a.mp4"),
        ("more/b.mkv", "large/b.mkv"),
        ("more/c.avi", "large/c.mkv"),
        ("shots", "large/shots"),
    ]


def test_two_inputs_that_would_meet_are_told_by_name(folder):
    (folder / "B.mkv").write_text("another video")

    with pytest.raises(UsageError, match=r"B\.mkv and .*b\.mkv would both become .*b\.mkv"):
        plan(folder, "B.mkv", "more")
    with pytest.raises(UsageError, match="would both become"):
        plan(folder, "a.mp4", "a.mp4")


def test_outputs_that_exist_are_told_unless_they_may_be_replaced(folder):
    (folder / "large" / "b.mkv").write_text("precious")

    with pytest.raises(OutputError, match=r"large/b\.mkv exists; .*--overwrite"):
        plan(folder, "a.mp4", "more")

    assert len(plan(folder, "a.mp4", "more", overwrite=True)) == 3


def test_an_input_is_no_output(folder):
    with pytest.raises(OutputError, match=r"more/b\.mkv is one of the inputs"):
        plan_batch([folder / "more"], folder / "more", overwrite=True)


def test_an_input_that_is_not_there_and_an_empty_folder_are_told(folder):
    with pytest.raises(InputError, match="missing does not exist"):
        plan(folder, "a.mp4", "missing")
    with pytest.raises(InputError, match="no image files"):
        plan(folder, "large")
    with pytest.raises(OutputError, match="is not a folder"):
        plan_batch([folder / "more"], folder / "a.mp4", overwrite=False)


def test_one_that_fails_does_not_keep_the_others_from_being_made(folder):
    draw_clip("a.mp4", frames=3)
    draw_clip("more/c.avi", frames=4)

    result = run("a.mp4", "more", "--out-dir", "new", "--json")

    facts = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert "error: more/b.mkv is not a video" in result.stderr.replace("\\", "/")
    assert [fact["output"] for fact in facts] == ["new/a.mp4", "new/c.mkv"]
    assert len(read_clip("new/c.mkv")[0]) == 4
    assert sorted(path.name for path in (folder / "new").iterdir()) == ["a.mp4", "c.mkv"]


@pytest.mark.parametrize(
    "words",
    [["a.mp4"], ["a.mp4", "more", "-o", "x.mp4"], ["a.mp4", "-o", "x.mp4", "--out-dir", "large"]],
    ids=" ".join,
)
def test_a_place_for_the_outputs_must_be_given_once(folder, words):
    result = run(*words)

    assert result.exit_code == 2
    assert result.stderr == ("error: Give --output for one input, or --out-dir for several.\n")
