"""Validation clips are few, always the same, and spread over the footage."""

import pytest
import torch
from clips import make_clip
from safetensors.torch import save_file
from scenes import draw_folder, draw_pair, draw_photo

from vsrm_cli.data.degradations import Degradation, shrink_bicubic
from vsrm_cli.data.validation_clips import validation_pairs


def hr_clips(data, **limits):
    pairs = validation_pairs(data, Degradation.BI, **limits)
    return {name: hr for name, (_, hr) in pairs.items()}


def test_validation_clips_are_reproducible_and_of_the_requested_size(mixed):
    first, again = (hr_clips(mixed, most=4, frames=3, side=48) for _ in range(2))

    assert list(first) == list(again)
    assert len(first) in (3, 4)
    for name, clip in first.items():
        assert torch.equal(clip, again[name])
        assert clip.shape == (3, 3, 48, 48)
        assert clip.dtype == torch.uint8


def test_one_video_gives_several_hr_clips(tmp_path):
    make_clip(tmp_path / "a.mp4", size=(96, 64))

    clips = hr_clips(tmp_path, most=3, frames=4, side=640)

    assert list(clips) == ["a 3", "a 10", "a 16"]
    assert {tuple(clip.shape) for clip in clips.values()} == {(4, 3, 64, 96)}


def test_the_number_of_validation_clips_can_be_limited(tmp_path):
    for number in range(5):
        draw_folder(tmp_path / f"clip{number}", height=34, width=48)

    clips = hr_clips(tmp_path, most=2)

    assert list(clips) == ["clip0", "clip2"]
    assert {tuple(clip.shape) for clip in clips.values()} == {(3, 3, 32, 48)}


def test_without_clips_photos_with_synthetic_motion_are_used(tmp_path):
    draw_photo(tmp_path / "p.png", height=64, width=80)

    ((name, clip),) = hr_clips(tmp_path, frames=5).items()

    assert name == "p"
    assert clip.shape == (5, 3, 64, 64)
    assert not torch.equal(clip[0], clip[1])


@pytest.mark.parametrize("degradation", Degradation)
def test_validation_pairs_have_degraded_lr_frames(mixed, degradation):
    pairs = validation_pairs(mixed, degradation, frames=3, side=48)

    for lr, hr in pairs.values():
        assert lr.dtype == hr.dtype == torch.uint8
        assert tuple(hr.shape[-2:]) == tuple(4 * side for side in lr.shape[-2:])
        if degradation is Degradation.BI:
            assert torch.equal(lr, (shrink_bicubic(hr / 255) * 255).round().byte())


def test_lr_frames_of_the_footage_are_used_for_validation(tmp_path):
    draw_pair(tmp_path, "city")

    ((lr, hr),) = validation_pairs(tmp_path, Degradation.BI).values()

    assert torch.equal(hr[..., ::4, ::4], lr)


def test_clips_of_the_same_name_are_all_used(tmp_path):
    lr = torch.randint(0, 256, (3, 3, 16, 20), dtype=torch.uint8)
    hr = lr.repeat_interleave(4, -1).repeat_interleave(4, -2)
    tensors = {"clip.city": hr, "twin-0.city": lr, "twin-1.city": lr // 2}
    save_file(tensors, tmp_path / "pack.safetensors")

    pairs = validation_pairs(tmp_path / "pack.safetensors", Degradation.REAL)

    assert list(pairs) == ["city", "city (2)"]
    assert torch.equal(pairs["city"][0], lr)
    assert torch.equal(pairs["city (2)"][0], lr // 2)
