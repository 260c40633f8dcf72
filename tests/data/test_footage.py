"""All usable files of a folder become footage; others are skipped with a reason."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from clips import make_clip
from PIL import Image
from safetensors.torch import save_file
from scenes import assert_equal_samples, draw_folder, draw_pack, draw_pair, draw_photo
from torch.utils.data import DataLoader

from vsrm_cli.data import clip_cache as cache
from vsrm_cli.data.crops import CropBox
from vsrm_cli.data.dataset import ClipDataset
from vsrm_cli.data.degradations import Degradation, shrink_bicubic
from vsrm_cli.data.footage import Footage, open_footage
from vsrm_cli.data.sources import FrameRun, StoredFrames
from vsrm_cli.data.training_batch import ClipShape
from vsrm_cli.errors import InputError

SHAPE = ClipShape(frames=3, patch=8, batch=4, photo_share=0.5)


def names(sources):
    return [source.name for source in sources]


def skipped_names(footage):
    return sorted(skipped.path.name for skipped in footage.skipped)


# Finding footage


def test_footage_in_all_subfolders_is_found(mixed):
    footage = open_footage(mixed)

    assert names(footage.clips) == ["pack/0", "videos/a", "videos/waves"]
    assert names(footage.photos) == ["pack/photo.0", "photos/p"]
    assert footage.skipped == ()


@pytest.mark.parametrize("name", ["videos/a.mp4", "photos/p.png", "pack.safetensors"])
def test_a_single_file_is_footage_too(mixed, name):
    assert open_footage(mixed / name).sources


def test_files_that_differ_only_in_their_suffix_are_both_used(tmp_path):
    for ending in ("mp4", "mkv"):
        make_clip(tmp_path / f"a.{ending}", size=(96, 64))

    assert names(open_footage(tmp_path).clips) == ["a", "a"]


def test_hidden_files_are_ignored(tmp_path):
    draw_photo(tmp_path / "p.png", height=64, width=64)
    draw_photo(tmp_path / ".p.png", height=64, width=64)
    draw_folder(tmp_path / ".work" / "waves", height=64, width=64)

    assert names(open_footage(tmp_path).sources) == ["p"]


def test_unusable_files_are_skipped_with_a_reason(tmp_path):
    make_clip(tmp_path / "good.mp4", size=(96, 64))
    make_clip(tmp_path / "tiny.mp4", size=(48, 28))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("ignored")
    save_file({"weights": torch.zeros(3)}, tmp_path / "weights.safetensors")

    footage = open_footage(tmp_path)

    assert names(footage.sources) == ["good"]
    assert skipped_names(footage) == ["broken.mp4", "broken.png", "tiny", "weights.safetensors"]
    assert any("tiny is too small: 48x28 pixels" in skipped.reason for skipped in footage.skipped)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no usable footage; give a folder of"):
        open_footage(tmp_path)


def test_a_folder_without_usable_files_is_refused_with_the_first_reason(tmp_path):
    make_clip(tmp_path / "tiny.mp4", size=(16, 16))
    (tmp_path / "broken.png").write_bytes(b"no image")

    with pytest.raises(InputError, match=r"2 were skipped, the first: .*broken\.png"):
        open_footage(tmp_path)


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_footage(tmp_path / "missing")


def test_files_are_probed_once(tmp_path, cache, monkeypatch):
    make_clip(tmp_path / "a.mp4", size=(96, 64))
    first = open_footage(tmp_path)

    monkeypatch.setattr("vsrm_cli.data.file_sources.read_frame_index", None)
    again = open_footage(tmp_path)

    assert again == first
    assert len(list((cache / "footage").glob("*.json"))) == 1


def test_the_path_of_the_index_can_be_chosen(tmp_path, cache):
    draw_photo(tmp_path / "data" / "p.png", height=64, width=64)

    open_footage(tmp_path / "data", index=tmp_path / "run" / "index.json")

    assert (tmp_path / "run" / "index.json").exists()
    assert not (cache / "footage").exists()


# Fitting the clip shape


def stored(*sizes):
    return tuple(
        StoredFrames(f"{n}", torch.zeros(frames, 3, height, width, dtype=torch.uint8))
        for n, (frames, height, width) in enumerate(sizes)
    )


def footage_of(tmp_path, *sizes):
    return Footage(tmp_path, stored(*sizes))


def test_a_clip_shape_that_fits_half_of_the_footage_is_kept(tmp_path):
    shape = dataclasses.replace(SHAPE, patch=16, frames=5)

    assert footage_of(tmp_path, (5, 64, 64), (3, 40, 40)).fit(shape) == shape


def test_patches_and_clips_are_reduced_until_half_of_the_footage_fits(tmp_path):
    shape = dataclasses.replace(SHAPE, patch=16, frames=5)
    footage = footage_of(tmp_path, (9, 99, 99), (4, 50, 70), (3, 40, 40))

    fitted = footage.fit(shape)

    assert fitted == dataclasses.replace(shape, patch=12, frames=4)
    assert names(footage.usable(fitted).sources) == ["0", "1"]


def test_footage_that_does_not_fit_the_clip_shape_is_skipped_with_a_reason(tmp_path):
    footage = footage_of(tmp_path, (3, 64, 64), (2, 64, 64), (1, 64, 64), (3, 64, 31))

    clips = ClipDataset(footage, SHAPE, steps=1, seed=0)

    assert [skipped.reason for skipped in clips.skipped] == [
        "1 is too short: 2 frames, where clips have 3.",
        "3 is too small: 31x64 pixels, where patches have 32.",
    ]


# Samples


class BlackClip:
    """A large black clip."""

    name, frames, size, is_in_memory = "black", 40, (2000, 3000), False

    def read(self, first, count, window):
        return FrameRun(torch.zeros(count, 3, window.height, window.width, dtype=torch.uint8))


@pytest.mark.parametrize("degradation", Degradation)
def test_samples_from_files_have_the_documented_shapes(mixed, degradation):
    clips = ClipDataset(open_footage(mixed), SHAPE, steps=2, seed=0, degradation=degradation)

    sample = clips[1]

    assert sample.hr.shape == (4, 3, 3, 32, 32)
    assert sample.lr.shape == (4, 3, 3, 8, 8)
    if degradation is Degradation.BI:
        assert torch.equal(sample.lr, shrink_bicubic(sample.hr))


def test_a_sample_does_not_depend_on_order_or_cache(mixed, monkeypatch):
    footage = open_footage(mixed)
    straight = ClipDataset(footage, SHAPE, steps=400, seed=7)
    expected = {step: straight[step] for step in (0, 5, 300, 301)}

    monkeypatch.setattr(cache, "CACHE_BYTES", 0)
    other = ClipDataset(footage, SHAPE, steps=400, seed=7)

    for step in (301, 0, 300, 5):
        assert_equal_samples(other[step], expected[step])


def test_a_worker_process_gives_the_same_samples(mixed):
    clips = ClipDataset(open_footage(mixed), SHAPE, steps=4, seed=7)
    expected = [clips[step] for step in range(4)]

    samples = list(DataLoader(clips, batch_size=None, num_workers=1))

    for sample, expected_sample in zip(samples, expected, strict=True):
        assert_equal_samples(sample, expected_sample)


def test_later_steps_use_other_runs_of_frames(mixed):
    clips = ClipDataset(open_footage(mixed), SHAPE, steps=10_000, seed=7)

    runs = {clips.clips.take(0, step).hr.numpy().tobytes() for step in range(0, 2000, 96)}

    assert len(runs) > 10


def test_a_run_of_frames_is_cached_for_many_steps(mixed):
    clips = ClipDataset(open_footage(mixed), SHAPE, steps=10_000, seed=7).clips
    reads = []
    read = type(clips)._read
    clips._read = lambda key: reads.append(key) or read(clips, key)

    for step in range(cache.STEPS_IN_USE):
        for slot in range(len(clips)):
            clips.take(slot, step)

    assert len(reads) < 2 * cache.SLOTS + 1


def test_the_cache_stays_within_its_size_limit(mixed, monkeypatch):
    monkeypatch.setattr(cache, "CACHE_BYTES", 200_000)
    clips = ClipDataset(open_footage(mixed), SHAPE, steps=10_000, seed=7).clips

    for slot in range(len(clips)):
        clips.take(slot, 0)

    assert sum(run.bytes for run in clips._cache.values()) <= 200_000


@pytest.mark.parametrize(("patch", "side"), [(32, 320), (64, 404), (128, 512)])
def test_cached_crops_are_larger_than_a_patch_if_they_fit(tmp_path, patch, side):
    clip = BlackClip()
    shape = dataclasses.replace(SHAPE, frames=17, patch=patch)

    run = ClipDataset(Footage(tmp_path, (clip,)), shape, steps=1, seed=0).clips.take(3, 0)

    assert run.hr.shape == (21, 3, side, side)


def test_deleted_footage_is_reported(tmp_path):
    make_clip(tmp_path / "a.mp4", size=(96, 64))
    clips = ClipDataset(open_footage(tmp_path), SHAPE, steps=1, seed=0)
    (tmp_path / "a.mp4").unlink()

    with pytest.raises(InputError, match="check that the files still exist"):
        clips[0]


# Pairs


@pytest.mark.parametrize("frames", [1, 4])
def test_lr_hr_pairs_are_cropped_alike_and_not_degraded(tmp_path, frames):
    draw_pair(tmp_path, "one", frames=frames)
    draw_pair(tmp_path, "second", frames=frames)
    footage = open_footage(tmp_path)
    shape = dataclasses.replace(SHAPE, batch=8)

    sample = ClipDataset(footage, shape, steps=1, seed=1, degradation=Degradation.REAL)[0]

    assert names(footage.sources) == ["one", "second"]
    for offset in range(4):
        assert torch.equal(sample.hr[..., offset::4, offset::4], sample.lr)
    assert sample.has_flow.tolist() == [frames == 1] * 8


def test_a_crop_moves_over_an_lr_hr_photo_as_its_flow_says(tmp_path):
    draw_pair(tmp_path, "photo", frames=1, height=24, width=32)
    shape = dataclasses.replace(SHAPE, batch=8)

    sample = ClipDataset(open_footage(tmp_path), shape, steps=1, seed=1)[0]

    moved = 0
    for lr, backward, forward in zip(
        sample.lr, sample.flow_backward, sample.flow_forward, strict=True
    ):
        x, y = (int(v) for v in backward[0, :, 0, 0])
        assert torch.equal(backward, -forward)
        assert abs(x) <= 2
        assert abs(y) <= 2
        # A pixel is found in the next frame where the backward flow points.
        rows, columns = slice(2, 6), slice(2, 6)
        followed = lr[1:, :, 2 + y : 6 + y, 2 + x : 6 + x]
        assert torch.equal(lr[:-1, :, rows, columns], followed)
        moved += (x, y) != (0, 0)
    assert moved >= 5


def test_lr_hr_pairs_may_be_videos(tmp_path):
    for kind, size in (("hr", (128, 64)), ("lr", (32, 16))):
        (tmp_path / kind).mkdir()
        make_clip(tmp_path / kind / "a.mp4", size=size)

    footage = open_footage(tmp_path)
    sample = ClipDataset(footage, dataclasses.replace(SHAPE, patch=12), steps=1, seed=0)[0]

    brightness = sample.lr.mean((2, 3, 4)) - sample.hr.mean((2, 3, 4))
    assert brightness.abs().max() < 2 / 255  # frames of one pair are eight levels apart


def test_lr_hr_pairs_of_different_length_are_refused(tmp_path):
    draw_pair(tmp_path, "city", frames=4)
    (tmp_path / "lr" / "city" / "3.png").unlink()

    with pytest.raises(InputError, match=r"hr/city has 4 frames, but its LR version has 3"):
        open_footage(tmp_path)


def test_lr_hr_pairs_of_mismatched_sizes_are_refused(tmp_path):
    draw_pair(tmp_path, "city", frames=1, height=16, width=20)
    Image.new("RGB", (20, 17)).save(tmp_path / "lr" / "city.png")

    with pytest.raises(InputError, match=r"hr/city has 80x64 pixels, but .* has 20x17"):
        open_footage(tmp_path)


def test_an_hr_clip_without_an_lr_version_is_skipped_with_a_reason(tmp_path):
    draw_pair(tmp_path, "city")
    draw_pair(tmp_path, "unpaired")
    for file in (tmp_path / "lr" / "unpaired").iterdir():
        file.unlink()

    footage = open_footage(tmp_path)

    assert names(footage.sources) == ["city"]
    assert [s.reason for s in footage.skipped] == ["hr/unpaired has no counterpart in lr/."]


def test_a_clip_of_a_pack_is_one_source_per_lr_version(tmp_path):
    first, second = (torch.randint(0, 200, (4, 3, 16, 20), dtype=torch.uint8) for _ in range(2))
    hr = first.repeat_interleave(4, -1).repeat_interleave(4, -2)
    tensors = {"clip.city": hr, "twin-0.city": first, "twin-1.city": second, "clip.b": hr + 1}
    save_file(tensors, tmp_path / "pack.safetensors")

    sources = open_footage(tmp_path / "pack.safetensors").sources

    assert names(sources) == ["b", "city", "city"]
    runs = [source.read(1, 2, CropBox(0, 0, *source.size)) for source in sources]
    assert runs[0].lr is None
    assert torch.equal(runs[1].lr, first[1:3])
    assert torch.equal(runs[2].lr, second[1:3])
    assert torch.equal(runs[1].hr, hr[1:3])


def test_a_pack_with_a_mismatched_lr_version_is_refused(tmp_path):
    hr = torch.zeros(4, 3, 64, 80, dtype=torch.uint8)
    tensors = {"clip.city": hr, "twin-0.city": hr[:3, :, :16, :20].contiguous()}
    save_file(tensors, tmp_path / "pack.safetensors")

    with pytest.raises(InputError, match=r"city has 4 frames, but its LR version has 3"):
        open_footage(tmp_path)


# Without PyAV

WITHOUT_PYAV = """
import sys
sys.modules["av"] = None  # importing it fails
from pathlib import Path
from vsrm_cli.errors import InputError
from vsrm_cli.data.dataset import ClipDataset
from vsrm_cli.data.degradations import Degradation
from vsrm_cli.data.footage import open_footage
from vsrm_cli.data.training_batch import ClipShape
from vsrm_cli.data.validation_clips import validation_pairs
packs, photos = map(Path, sys.argv[1:])
shape = ClipShape(frames=3, patch=8, batch=4, photo_share=0.5)
footage = open_footage(packs)
for kind in (Degradation.BI, Degradation.BD):
    batch = ClipDataset(footage, shape, steps=1, seed=0, degradation=kind)[0]
    print(len(validation_pairs(packs, kind)), *batch.lr.shape)
try:
    open_footage(photos)
except InputError as error:
    print(error)
"""


def test_packs_can_be_used_without_pyav(tmp_path):
    for name in ("packs", "photos"):
        (tmp_path / name).mkdir()
    draw_pack(tmp_path / "packs" / "a.safetensors")
    draw_photo(tmp_path / "photos" / "p.png", height=64, width=64)

    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYAV, tmp_path / "packs", tmp_path / "photos"],
        capture_output=True,
        text=True,
        check=True,
    )

    *packs, photos = result.stdout.splitlines()
    assert packs == ["1 4 3 3 8 8"] * 2
    assert photos.endswith("p.png needs PyAV, which is not installed; install it, or give packs.")
