"""Published test sets are read as they are distributed, and errors name the clip."""

import pytest
import torch
from clips import make_clip
from PIL import Image
from scenes import draw_folder

from vsrm_cli.data.degradations import blur_and_subsample, shrink_bicubic
from vsrm_cli.errors import InputError
from vsrm_cli.evaluation.test_sets import find_clips, make_lr_clip, read_clip


def names_of(found):
    return [clip.name for clip in found.clips]


def test_a_folder_of_folders_and_videos_is_a_set_of_clips(tmp_path):
    draw_folder(tmp_path / "waves")
    draw_folder(tmp_path / "deep" / "down")
    make_clip(tmp_path / "film.mp4")

    found = find_clips(tmp_path, "bi")

    assert names_of(found) == ["deep/down", "film", "waves"]
    assert found.protocol.name == ""
    assert not found.has_lr


def test_one_folder_of_images_is_one_clip(tmp_path):
    draw_folder(tmp_path / "waves")

    assert names_of(find_clips(tmp_path / "waves", "bi")) == ["waves"]


def test_images_are_read_exactly_in_numerical_order(tmp_path):
    frames = draw_folder(tmp_path / "waves", frames=11, names="im{}.png")

    clip = read_clip(find_clips(tmp_path, "bi").clips[0], "bi")

    assert torch.equal(clip.hr, frames)
    assert torch.equal(clip.lr, (shrink_bicubic(frames / 255) * 255).round().to(torch.uint8))
    assert clip.note == ""


def test_hidden_images_are_no_frames(tmp_path):
    (tmp_path / "clip").mkdir()
    Image.new("RGB", (128, 128)).save(tmp_path / "clip" / "1.png")
    (tmp_path / "clip" / "._1.png").write_text("attributes, from macOS")
    (files,) = find_clips(tmp_path, "bi").clips

    assert len(read_clip(files, "bi").hr) == 1


def test_videos_are_read_frame_by_frame(tmp_path):
    make_clip(tmp_path / "film.mp4", size=(64, 48))

    clip = read_clip(find_clips(tmp_path, "bi").clips[0], "bi", most_frames=7)

    assert clip.hr.shape == (7, 3, 48, 64)
    assert clip.lr.shape == (7, 3, 12, 16)


@pytest.mark.parametrize(
    ("hr", "lr", "degradation"),
    [
        ("GT", "LR", "bi"),
        ("GT", "BIx4", "bi"),
        ("GT", "BDx4", "bd"),
        ("GT", "sharp_bicubic", "bi"),
        ("target", "low_resolution", "bi"),
    ],
)
def test_lr_frames_of_a_set_are_used(tmp_path, hr, lr, degradation):
    draw_folder(tmp_path / hr / "city")
    given = draw_folder(tmp_path / lr / "city", height=8, width=12)

    found = find_clips(tmp_path, degradation)
    clip = read_clip(found.clips[0], degradation)

    assert found.has_lr
    assert torch.equal(clip.lr, given)


def test_the_requested_degradation_is_used(tmp_path):
    draw_folder(tmp_path / "GT" / "city")
    draw_folder(tmp_path / "BIx4" / "city", height=8, width=12)
    blurred = draw_folder(tmp_path / "BDx4" / "city", height=8, width=12, frames=3)
    Image.new("RGB", (12, 8), "red").save(tmp_path / "BDx4" / "city" / "000.png")

    clip = read_clip(find_clips(tmp_path, "bd").clips[0], "bd")

    assert torch.equal(clip.lr[1:], blurred[1:])
    assert clip.lr[0, 0].min() == 255


@pytest.mark.parametrize(
    ("clips", "name", "on_luma", "center_only"),
    [
        (["000", "011", "015", "020"], "REDS4", False, False),
        (["calendar", "city", "foliage", "walk"], "Vid4", True, False),
        (["00001/0266", "00001/0268"], "Vimeo-90K-T", True, True),
        (["calendar", "city"], "", True, False),
    ],
    ids=["REDS4", "Vid4", "Vimeo", "unknown"],
)
def test_known_sets_bring_their_rules(tmp_path, clips, name, on_luma, center_only):
    for clip in clips:
        draw_folder(tmp_path / "GT" / clip, frames=1)
        draw_folder(tmp_path / "LR" / clip, frames=1, height=8, width=12)

    protocol = find_clips(tmp_path, "bi").protocol

    assert (protocol.name, protocol.on_luma, protocol.center_only) == (name, on_luma, center_only)


def test_sides_that_are_not_multiples_of_four_are_cropped_with_a_note(tmp_path):
    frames = draw_folder(tmp_path / "waves", height=34, width=51)

    clip = read_clip(find_clips(tmp_path, "bi").clips[0], "bi")

    assert torch.equal(clip.hr, frames[..., :32, :48])
    assert clip.note == "clip waves was cropped from 51x34 to 48x32 pixels"


def break_number(root):
    (root / "LR" / "city" / "002.png").unlink()


def break_size(root):
    draw_folder(root / "LR" / "city", height=8, width=16)


def break_frame(root):
    Image.new("RGB", (20, 20)).save(root / "GT" / "city" / "001.png")


def break_twin(root):
    (root / "LR" / "city").rename(root / "LR" / "town")


def break_picture(root):
    (root / "GT" / "city" / "001.png").write_bytes(b"not a picture")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_number, "clip city has 3 HR frames, but 2 LR frames"),
        (break_size, "clip city has HR frames of 48x32, but LR frames of 16x8"),
        (break_frame, "clip city has frames of different sizes"),
        (break_twin, "clip city has no LR version"),
        (break_picture, "city.001.png"),
    ],
    ids=["number", "size", "frame", "twin", "picture"],
)
def test_errors_in_a_clip_name_the_clip(tmp_path, damage, message):
    draw_folder(tmp_path / "GT" / "city")
    draw_folder(tmp_path / "LR" / "city", height=8, width=12)
    damage(tmp_path)

    with pytest.raises(InputError, match=message):
        read_clip(find_clips(tmp_path, "bi").clips[0], "bi")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "holds no clip"),
        (lambda root: draw_folder(root / "LR" / "city"), "holds LR but no GT"),
    ],
    ids=["empty", "small only"],
)
def test_a_folder_without_hr_clips_is_refused(tmp_path, prepare, message):
    prepare(tmp_path)

    with pytest.raises(InputError, match=message):
        find_clips(tmp_path, "bi")


def test_lr_clips_of_scale_2_are_in_a_folder_named_for_it(tmp_path):
    draw_folder(tmp_path / "GT" / "city")
    draw_folder(tmp_path / "BIx4" / "city", height=8, width=12)
    half = draw_folder(tmp_path / "BIx2" / "city", height=16, width=24)

    clip = read_clip(find_clips(tmp_path, "bi", scale=2).clips[0], "bi", scale=2)

    assert torch.equal(clip.lr, half)
    assert clip.scale == 2


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        find_clips(tmp_path / "nowhere", "bi")


def test_frames_too_small_to_measure_are_refused(tmp_path):
    draw_folder(tmp_path / "waves", height=14, width=48)

    with pytest.raises(InputError, match="clip waves has frames of 48x12 pixels, too small"):
        read_clip(find_clips(tmp_path, "bi").clips[0], "bi")


@pytest.mark.parametrize(("name", "shrink"), [("bi", shrink_bicubic), ("bd", blur_and_subsample)])
def test_clips_are_degraded_as_in_training(name, shrink):
    hr = (torch.rand(2, 3, 40, 52, generator=torch.Generator().manual_seed(1)) * 255).byte()

    lr = make_lr_clip(hr, name)

    assert torch.equal(lr, (shrink(hr / 255) * 255).round().byte())


def test_clips_can_be_compressed_and_a_higher_crf_is_worse():
    rows = torch.arange(64).view(-1, 1) * torch.arange(96) % 251
    hr = rows.expand(3, 3, 64, 96).byte()
    clean = make_lr_clip(hr, "bi").float()

    off = [(make_lr_clip(hr, f"h264-{crf}").float() - clean).abs().mean() for crf in (23, 28)]

    assert 0.5 < off[0] < off[1] < 20
