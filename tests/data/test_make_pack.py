"""A folder becomes one pack: all of its photos, and the most detailed crops of its videos."""

import pytest
import torch
from clips import CONSTANT, make_clip
from scenes import draw_photo

from vsrm_cli.data import make_pack as job
from vsrm_cli.data.make_pack import make_pack
from vsrm_cli.data.packs import load_lr_clips, load_pack
from vsrm_cli.errors import InputError


def test_photos_of_all_subfolders_are_stored_without_loss(tmp_path):
    first = draw_photo(tmp_path / "in" / "a.png")
    second = draw_photo(tmp_path / "in" / "deep" / "er" / "B.PNG", height=9, seed=1)

    count = make_pack(tmp_path / "in", tmp_path / "pack")

    photos, clips = load_pack(tmp_path / "pack")
    assert count == len(photos) == 2
    assert not clips
    assert torch.equal(photos["0"], first)
    assert torch.equal(photos["1"], second)


def test_two_crops_of_every_twelve_frames_of_a_video_are_stored(tmp_path):
    make_clip(tmp_path / "a.mp4")  # 24 frames: two runs

    count = make_pack(tmp_path, tmp_path / "pack")

    _, clips = load_pack(tmp_path / "pack")
    assert count == len(clips) == 4
    assert {tuple(clip.shape) for clip in clips.values()} == {(12, 3, 32, 48)}
    assert {clip.dtype for clip in clips.values()} == {torch.uint8}
    for clip in clips.values():
        brightness = clip[:, 2].float().mean((1, 2))
        # Each drawn frame is eight levels brighter than the one before; the codec errs by one.
        assert (brightness.diff() - 8).abs().max() < 2


def test_the_number_of_clips_per_video_can_be_limited(tmp_path):
    make_clip(tmp_path / "a.mp4")

    assert make_pack(tmp_path, tmp_path / "pack", clips_per_video=3) == 3


def test_a_large_video_is_cropped_to_squares(tmp_path, monkeypatch):
    make_clip(tmp_path / "a.mp4", times=CONSTANT[:12])
    monkeypatch.setattr(job, "CLIP_SIDE", 16)

    make_pack(tmp_path, tmp_path / "pack")

    assert {tuple(c.shape) for c in load_pack(tmp_path / "pack")[1].values()} == {(12, 3, 16, 16)}


def test_a_tall_video_is_downscaled_first(tmp_path, monkeypatch):
    make_clip(tmp_path / "a.mp4", times=CONSTANT[:12])
    monkeypatch.setattr(job, "CLIP_HEIGHT", 16)

    make_pack(tmp_path, tmp_path / "pack")

    assert {tuple(c.shape) for c in load_pack(tmp_path / "pack")[1].values()} == {(12, 3, 16, 24)}


def test_the_most_detailed_crops_are_stored(monkeypatch):
    # Flat on the left, noise on the right: of eight random crops, the two with most noise.
    run = torch.full((12, 3, 32, 200), 100, dtype=torch.uint8)
    rng = torch.Generator().manual_seed(0)
    run[..., 100:] = torch.randint(0, 256, (12, 3, 32, 100), generator=rng, dtype=torch.uint8)
    monkeypatch.setattr(job, "_runs", lambda _: iter([run]))
    monkeypatch.setattr(job, "CLIP_SIDE", 32)

    kept = job._detailed_clips(None, 32, torch.Generator().manual_seed(1))

    assert len(kept) == 2
    assert all((clip == 100).float().mean() < 0.1 for clip in kept)


def test_clips_have_the_requested_number_of_lr_versions(tmp_path):
    make_clip(tmp_path / "a.mp4", size=(70, 50))

    count = make_pack(tmp_path, tmp_path / "pack", clips_per_video=2, lr_versions=3)

    _, clips = load_pack(tmp_path / "pack")
    lr_clips = load_lr_clips(tmp_path / "pack")
    assert count == len(clips) == len(lr_clips) == 2
    assert {tuple(clip.shape) for clip in clips.values()} == {(12, 3, 48, 68)}
    assert [version.shape for version in lr_clips["0"]] == [(12, 3, 12, 17)] * 3
    assert not torch.equal(lr_clips["0"][0], lr_clips["0"][1])


def test_photos_and_videos_are_stored_in_one_pack(tmp_path):
    draw_photo(tmp_path / "in" / "b.png")
    make_clip(tmp_path / "in" / "a.mp4")

    count = make_pack(tmp_path / "in", tmp_path / "pack", clips_per_video=2)

    photos, clips = load_pack(tmp_path / "pack")
    assert (count, list(photos), list(clips)) == (3, ["0"], ["0", "1"])


def test_the_same_seed_makes_the_same_pack(tmp_path, monkeypatch):
    make_clip(tmp_path / "a.mp4")
    monkeypatch.setattr(job, "CLIP_SIDE", 16)

    for name in ("one", "two"):
        make_pack(tmp_path, tmp_path / name, seed=4)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_folder_without_photos_and_videos_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")

    with pytest.raises(InputError, match="has no photos and no videos"):
        make_pack(tmp_path, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_an_unreadable_photo_is_skipped_with_a_warning(tmp_path):
    draw_photo(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image at all")

    warnings = []
    count = make_pack(tmp_path, tmp_path / "pack", warn=warnings.append)

    assert count == 1
    assert len(warnings) == 1
    assert "bad.png" in warnings[0]
