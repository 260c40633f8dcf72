"""The command `vsrm pack`: a folder becomes one file to train from."""

from clips import make_clip
from scenes import draw_photo
from typer.testing import CliRunner

from vsrm_cli.cli import app as cli
from vsrm_cli.data.packs import load_pack


def run(*arguments):
    return CliRunner().invoke(cli.app, ["pack", *map(str, arguments)])


def test_a_folder_becomes_a_pack_and_what_cannot_be_read_is_skipped(tmp_path):
    draw_photo(tmp_path / "in" / "a.png")
    make_clip(tmp_path / "in" / "b.mp4")
    (tmp_path / "in" / "broken.mp4").write_bytes(b"not a video")

    result = run(tmp_path / "in", tmp_path / "pack.safetensors", "--clips", 2)

    photos, clips = load_pack(tmp_path / "pack.safetensors")
    assert result.exit_code == 0
    assert (len(photos), len(clips)) == (1, 2)
    assert "warning: skipped: " in result.stderr
    assert "broken.mp4 is not a video" in result.stderr
    assert "3 photos and clips, ready for vsrm finetune --data" in result.stderr


def test_a_pack_is_not_replaced_without_overwrite(tmp_path):
    draw_photo(tmp_path / "in" / "a.png")
    (tmp_path / "pack.safetensors").write_text("precious")

    refused = run(tmp_path / "in", tmp_path / "pack.safetensors")
    replaced = run(tmp_path / "in", tmp_path / "pack.safetensors", "-y")

    assert refused.exit_code == 1
    assert "exists" in refused.stderr
    assert replaced.exit_code == 0


def test_a_wrong_pack_suffix_or_a_missing_folder_is_refused(tmp_path):
    assert run(tmp_path, tmp_path / "pack.zip").exit_code == 2
    assert run(tmp_path / "nothing", tmp_path / "pack.safetensors").exit_code == 1
