"""A sample is an HR clip, its LR clip and the true flow."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file
from scenes import assert_equal_samples, draw_pack, levels, smooth_picture, to_8_bits

from vsrm_cli.data import dataset
from vsrm_cli.data.dataset import ClipDataset
from vsrm_cli.data.degradations import Degradation, blur_and_subsample, shrink_bicubic
from vsrm_cli.data.training_batch import ClipShape
from vsrm_cli.errors import InputError

SHAPE = ClipShape(frames=3, patch=8, batch=4, photo_share=0.5)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return draw_pack(tmp_path_factory.mktemp("packs") / "drawn.safetensors", clips=2)


def test_a_sample_has_the_documented_shapes_and_ranges(pack):
    sample = ClipDataset(pack, SHAPE, steps=3, seed=0)[1]

    assert sample.hr.shape == (4, 3, 3, 32, 32)
    assert sample.lr.shape == (4, 3, 3, 8, 8)
    assert sample.flow_backward.shape == sample.flow_forward.shape == (4, 2, 2, 8, 8)
    assert sample.has_flow.shape == (4,)
    assert sample.hr.min() >= 0
    assert sample.hr.max() <= 1
    assert all(getattr(sample, f.name).isfinite().all() for f in dataclasses.fields(sample))


def test_with_bi_lr_frames_are_hr_frames_downscaled_by_bicubic(pack):
    sample = ClipDataset(pack, SHAPE, steps=1, seed=3)[0]

    assert torch.equal(sample.lr, shrink_bicubic(sample.hr))


def test_a_sample_depends_only_on_seed_and_step(pack):
    clips = ClipDataset(pack, SHAPE, steps=9, seed=7)
    expected = clips[5]

    other = ClipDataset(pack, SHAPE, steps=50, seed=7)
    _ = [other[n] for n in (0, 8, 2)]

    assert_equal_samples(other[5], expected)


def test_other_steps_and_seeds_give_other_samples(pack):
    clips = ClipDataset(pack, SHAPE, steps=9, seed=7)

    assert not torch.equal(clips[4].hr, clips[5].hr)
    assert not torch.equal(ClipDataset(pack, SHAPE, steps=9, seed=8)[5].hr, clips[5].hr)


def test_two_processes_share_the_batch_of_one(pack):
    whole = ClipDataset(pack, SHAPE, steps=9, seed=7)[5]
    half = dataclasses.replace(SHAPE, batch=2)

    shares = [ClipDataset(pack, half, steps=9, seed=7, share=share)[5] for share in range(2)]

    for field in dataclasses.fields(whole):
        divided = torch.cat([getattr(share, field.name) for share in shares])
        assert torch.equal(divided, getattr(whole, field.name)), field.name


def test_the_dataset_has_one_batch_per_step(pack):
    clips = ClipDataset(pack, SHAPE, steps=2, seed=0)

    assert len(clips) == 2
    with pytest.raises(IndexError):
        clips[2]


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (1.0, True)])
def test_the_flow_is_known_for_photos_only(pack, share, expected):
    shape = dataclasses.replace(SHAPE, photo_share=share, batch=6)

    sample = ClipDataset(pack, shape, steps=1, seed=0)[0]

    assert sample.has_flow.tolist() == [expected] * 6
    assert sample.flow_backward.any().item() == expected


def test_a_single_frame_has_no_flow(pack):
    shape = dataclasses.replace(SHAPE, frames=1, photo_share=1.0)

    sample = ClipDataset(pack, shape, steps=1, seed=0)[0]

    assert sample.hr.shape == (4, 1, 3, 32, 32)
    assert sample.flow_backward.shape == (4, 0, 2, 8, 8)


def test_a_pack_may_have_only_photos_or_only_clips(tmp_path):
    photos = draw_pack(tmp_path / "photos.safetensors", clips=0)
    clips = draw_pack(tmp_path / "clips.safetensors", photos=0)

    assert ClipDataset(photos, SHAPE, steps=1, seed=0)[0].has_flow.all()
    assert not ClipDataset(clips, SHAPE, steps=1, seed=0)[0].has_flow.any()


def test_a_sample_is_a_crop_of_a_clip_in_the_pack(tmp_path):
    # Every pixel of frame t of the stored clip is t in red; green and blue are its position.
    stored = torch.zeros(4, 3, 40, 40, dtype=torch.uint8)
    stored[:, 0] = torch.arange(4).view(4, 1, 1)
    stored[:, 1] = 100 + torch.arange(40)
    stored[:, 2] = 200 + torch.arange(40)[:, None]
    save_file({"clip.0": stored}, tmp_path / "clip.safetensors")

    sample = ClipDataset(tmp_path / "clip.safetensors", SHAPE, steps=1, seed=0)[0]

    for hr in levels(sample.hr):
        t, x, y = hr.sort(dim=1).values.unbind(1)  # channels are shuffled
        assert (t.flatten(1) == t[:, :1, 0]).all()
        assert t[:, 0, 0].tolist() in ([0, 1, 2], [1, 2, 3], [2, 1, 0], [3, 2, 1])
        assert len(x[0].unique()) == len(y[0].unique()) == 32
        assert torch.equal(x[0], x[2])


@pytest.mark.parametrize(
    ("photo_side", "clip_side", "clip_frames"), [(32, 31, 4), (31, 32, 3), (32, 40, 2)]
)
def test_too_small_and_too_short_clips_are_left_out(tmp_path, photo_side, clip_side, clip_frames):
    tensors = {
        "photo.0": torch.zeros(3, 60, photo_side, dtype=torch.uint8),
        "clip.0": torch.zeros(clip_frames, 3, clip_side, 60, dtype=torch.uint8),
    }
    save_file(tensors, tmp_path / "pack.safetensors")

    clips = ClipDataset(tmp_path / "pack.safetensors", SHAPE, steps=1, seed=0)

    assert len(clips.photos) == (photo_side >= 32)
    assert len(clips.clips) == (clip_side >= 32 and clip_frames >= 3)


def test_a_pack_with_nothing_large_and_long_enough_is_refused(tmp_path):
    pack = draw_pack(tmp_path / "small.safetensors", side=31)

    with pytest.raises(InputError, match=r"no photo and no clip of 32 pixels and 3 frames"):
        ClipDataset(pack, SHAPE, steps=1, seed=0)


# Other degradations


def test_with_bd_lr_frames_are_blurred_and_subsampled(pack):
    sample = ClipDataset(pack, SHAPE, steps=1, seed=3, degradation=Degradation.BD)[0]

    assert torch.equal(sample.lr, blur_and_subsample(sample.hr))


def test_the_degradation_does_not_change_hr_frames(pack):
    shape = dataclasses.replace(SHAPE, photo_share=0.0)

    bi, bd, real = (
        ClipDataset(pack, shape, steps=2, seed=3, degradation=d)[1] for d in Degradation
    )

    assert torch.equal(bi.hr, bd.hr)
    assert torch.equal(bi.hr, real.hr)
    assert real.lr.shape == bi.lr.shape
    assert not torch.equal(real.lr, bi.lr)


def test_real_degradation_depends_only_on_seed_and_step(pack):
    clips = ClipDataset(pack, SHAPE, steps=9, seed=7, degradation=Degradation.REAL)
    expected = clips[5]

    other = ClipDataset(pack, SHAPE, steps=9, seed=7, degradation=Degradation.REAL)
    _ = other[2]

    assert_equal_samples(other[5], expected)


@pytest.fixture(scope="module")
def wide_pack(tmp_path_factory):
    """Images with more around each patch than is degraded with it."""
    path = tmp_path_factory.mktemp("packs") / "wide.safetensors"
    picture = to_8_bits(smooth_picture(240, 240, wavelength=80.0))
    save_file({"photo.0": picture, "clip.0": picture.repeat(4, 1, 1, 1)}, path)
    return path


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_degraded_patch_is_aligned_with_its_hr_patch(wide_pack, share):
    shape = dataclasses.replace(SHAPE, batch=12, patch=12, photo_share=share)

    sample = ClipDataset(wide_pack, shape, steps=1, seed=1, degradation=Degradation.REAL)[0]

    hr = shrink_bicubic(sample.hr)
    here = (sample.lr - hr).abs().mean((1, 2, 3, 4))
    beside = (sample.lr[..., 2:] - hr[..., :-2]).abs().mean((1, 2, 3, 4))
    assert (here < 0.5 * beside).sum() >= 11  # one may have much grain


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_patches_are_degraded_together_with_their_surroundings(wide_pack, share, monkeypatch):
    shape = dataclasses.replace(SHAPE, batch=12, photo_share=share)
    seen = []

    def record_size(hr, kind, rng):
        seen.append(hr.shape[-1])
        return shrink_bicubic(hr)

    monkeypatch.setattr(dataset, "degrade", record_size)
    sample = ClipDataset(wide_pack, shape, steps=1, seed=1, degradation=Degradation.REAL)[0]

    assert max(seen) == 32 + 2 * 4 * dataset.CONTEXT
    assert sample.lr.shape == (12, 3, 3, 8, 8)
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(sample.lr[inside], shrink_bicubic(sample.hr)[inside])
