"""Several inputs: their outputs are decided, and problems reported, before the work begins."""

import json

import pytest
from PIL import Image
from stub_network import draw_clip, load_nearest, read_clip
from typer.testing import CliRunner

from vsrm_cli.cli import app as cli
from vsrm_cli.decode.image_sequence import find_images
from vsrm_cli.errors import InputError, OutputError, UsageError
from vsrm_cli.upscale import job as upscale
from vsrm_cli.upscale.batch import check_ending, name_output, plan_batch
from vsrm_cli.upscale.options import UpscaleOptions


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
    options = UpscaleOptions(overwrite=overwrite)
    pairs = plan_batch([folder / name for name in names], folder / "large", options)
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


def test_hidden_files_of_a_folder_are_no_inputs(folder):
    (folder / "more" / "._b.mkv").write_text("attributes, from macOS")
    (folder / "shots" / "._1.png").write_text("attributes, from macOS")

    assert [source for source, _ in plan(folder, "more")] == ["more/b.mkv", "more/c.avi"]
    assert find_images(folder / "shots") == [folder / "shots" / "1.png"]


def test_two_inputs_with_the_same_output_are_reported(folder):
    (folder / "B.mkv").write_text("another video")

    with pytest.raises(UsageError, match=r"B\.mkv and .*b\.mkv would both become .*b\.mkv"):
        plan(folder, "B.mkv", "more")
    with pytest.raises(UsageError, match="would both become"):
        plan(folder, "a.mp4", "a.mp4")


def test_existing_outputs_are_an_error_without_overwrite(folder):
    (folder / "large" / "b.mkv").write_text("precious")

    with pytest.raises(OutputError, match=r"large/b\.mkv exists; .*--overwrite"):
        plan(folder, "a.mp4", "more")

    assert len(plan(folder, "a.mp4", "more", overwrite=True)) == 3


def test_an_input_cannot_be_an_output(folder):
    with pytest.raises(OutputError, match=r"more/b\.mkv is one of the inputs"):
        plan_batch([folder / "more"], folder / "more", UpscaleOptions(overwrite=True))


def test_a_missing_input_and_an_empty_folder_are_reported(folder):
    with pytest.raises(InputError, match="missing does not exist"):
        plan(folder, "a.mp4", "missing")
    with pytest.raises(InputError, match="no image files"):
        plan(folder, "large")
    with pytest.raises(OutputError, match="is not a folder"):
        plan_batch([folder / "more"], folder / "a.mp4", UpscaleOptions())


def test_a_failed_input_does_not_stop_the_others(folder):
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
    [["a.mp4", "more", "-o", "x.mp4"], ["a.mp4", "-o", "x.mp4", "--out-dir", "large"]],
    ids=" ".join,
)
def test_output_and_out_dir_cannot_be_combined(folder, words):
    result = run(*words)

    assert result.exit_code == 2
    assert result.stderr == ("error: Give --output for one input, or --out-dir for several.\n")


@pytest.mark.parametrize(
    ("name", "given", "output"),
    [
        ("a.mp4", {}, "a_x4.mp4"),
        ("more/c.avi", {"scale": 1.5}, "more/c_x1.5.mkv"),
        ("a.mp4", {"height": 1080}, "a_1080p.mp4"),
        ("a.mp4", {"size": "640x480"}, "a_640x480.mp4"),
        ("shots", {}, "shots_x4"),
        ("shots/1.png", {}, "shots/1_x4.png"),
        ("shots/%d.png", {}, "shots/%d_x4.png"),
    ],
)
def test_the_default_output_is_next_to_its_input(folder, name, given, output):
    named = name_output(folder / name, UpscaleOptions.read(**given))

    assert named == folder / output


def test_a_folder_of_videos_and_a_pipe_need_a_name_for_their_output(folder):
    for words in (["more"], ["-"]):
        result = run(*words)

        assert result.exit_code == 2
        assert "--out-dir" in result.stderr or "-o" in result.stderr


def test_without_a_name_every_input_is_upscaled_and_nothing_is_replaced(folder):
    draw_clip("a.mp4", frames=3)
    draw_clip("more/c.avi", frames=3)

    first = run("a.mp4", "more/c.avi")
    again = run("a.mp4", "more/c.avi")

    assert first.exit_code == 0
    assert len(read_clip("a_x4.mp4")[0]) == len(read_clip("more/c_x4.mkv")[0]) == 3
    assert again.exit_code == 1
    assert "a_x4.mp4 exists; " in again.stderr


def test_several_inputs_load_their_network_once(folder, monkeypatch):
    for name in ("1.mp4", "2.mp4", "3.mp4"):
        draw_clip(folder / name)
    loaded = []

    def load(*words, **options):
        loaded.append(load_nearest(*words, **options))
        return loaded[-1]

    monkeypatch.setattr(upscale, "load_model", load)

    result = run("1.mp4", "2.mp4", "3.mp4", "--out-dir", "large", "--model", "vsrm-t")

    assert result.exit_code == 0
    assert len(loaded) == 1
    assert read_clip(folder / "large" / "3.mp4")[0] == read_clip(folder / "large" / "1.mp4")[0]


def test_existing_outputs_are_skipped_on_request(folder):
    draw_clip("a.mp4", frames=3)
    draw_clip("more/c.avi", frames=3)
    (folder / "large" / "a.mp4").write_text("precious")

    result = run("a.mp4", "more/c.avi", "--out-dir", "large", "--skip-existing")

    assert result.exit_code == 0
    assert "skipped: large/a.mp4 exists" in result.stderr.replace("\\", "/")
    assert (folder / "large" / "a.mp4").read_text() == "precious"
    assert len(read_clip("large/c.mkv")[0]) == 3


def test_an_output_as_second_argument_suggests_the_correct_command(folder):
    result = run("a.mp4", "b.mp4")

    assert result.exit_code == 2
    assert "vsrm upscale a.mp4 -o b.mp4" in result.stderr


@pytest.mark.parametrize("output", ["result", "large"])
def test_an_output_without_a_suffix_is_refused_for_a_video(folder, output):
    with pytest.raises(UsageError, match=f"or -?o? ?{output}/ for (a folder of )?image files"):
        check_ending(output, folder / "a.mp4")


def test_without_a_terminal_an_output_without_a_suffix_is_accepted(folder):
    result = run("a.mp4", "-o", "result")

    # It gets as far as the video, which is none here.
    assert "a.mp4 is not a video file" in result.stderr


def test_a_slash_or_an_input_of_images_requests_image_files(folder):
    check_ending("result/", folder / "a.mp4")
    check_ending("result", folder / "shots")
    check_ending("result", folder / "shots" / "1.png")


def test_a_url_is_refused(folder):
    result = run("https://example.com/x.mp4")

    assert result.exit_code == 1
    assert "x.mp4 is on the web: download it first" in result.stderr


def test_a_frame_rate_is_for_image_files_only(folder):
    result = run("a.mp4", "--fps", "60")

    assert result.exit_code == 2
    assert "--fps is for image files" in result.stderr
    assert not list(folder.glob("a_x4*"))


def test_the_output_folder_is_made_with_its_parents(folder):
    draw_clip("a.mp4", frames=2)

    result = run("a.mp4", "--out-dir", "deep/er")

    assert result.exit_code == 0
    assert (folder / "deep" / "er" / "a.mp4").exists()
