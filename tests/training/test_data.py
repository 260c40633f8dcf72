"""A sample is a sharp clip, its twin as the literature shrinks it, and its true motion."""

import dataclasses

import numpy as np
import pytest
import torch
from networks import draw_randomly
from PIL import Image
from safetensors.torch import save_file
from scenes import draw_pack, smooth_picture, to_8_bits

from vsrm_cli.errors import InputError
from vsrm_cli.ops.warp import warp
from vsrm_cli.training import data
from vsrm_cli.training.data import SCALE, Clips, ClipShape, move_camera, shrink_4x

SHAPE = ClipShape(frames=3, patch=8, batch=4, photo_share=0.5)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return draw_pack(tmp_path_factory.mktemp("packs") / "drawn.safetensors", clips=2)


def levels(picture):
    return picture.mul(255).round().to(torch.int64)


def assert_equal_samples(a, b):
    for field in dataclasses.fields(a):
        assert torch.equal(getattr(a, field.name), getattr(b, field.name)), field.name


# Shrinking


def test_an_edge_is_shrunk_to_the_values_of_the_kernel():
    # Left 51, right 204. A small pixel's weights for the right side, by the kernel with a = -0.5
    # at (16 - center + n) / 4, divided by 4: -0.012695 two pixels away, 0.077148 one away.
    sharp = torch.full((3, 8, 32), 51 / 255)
    sharp[:, :, 16:] = 204 / 255

    small = shrink_4x(sharp)

    row = [51, 51, 51 - 2, 51 + 12, 204 - 12, 204 + 2, 204, 204]
    assert levels(small).tolist() == [[row, row]] * 3


@pytest.mark.parametrize(("height", "width"), [(4, 4), (36, 52)])
def test_shrinking_agrees_with_pillow(height, width):
    sharp = to_8_bits(draw_randomly(3, height, width))

    small = shrink_4x(sharp / 255)

    picture = Image.fromarray(sharp.permute(1, 2, 0).numpy())
    expected = np.array(picture.resize((width // 4, height // 4), Image.Resampling.BICUBIC))
    # Pillow rounds twice, once after each direction.
    difference = levels(small).permute(1, 2, 0).numpy() - expected.astype(np.int64)
    assert np.abs(difference).max() <= 1


def test_a_plain_picture_stays_plain():
    sharp = torch.full((2, 3, 16, 12), 77 / 255)

    assert torch.equal(levels(shrink_4x(sharp)), torch.full((2, 3, 4, 3), 77))


def test_shrunken_values_are_levels_of_8_bits_even_where_the_kernel_overshoots():
    sharp = draw_randomly(2, 2, 3, 32, 32).round()

    small = shrink_4x(sharp)

    assert small.shape == (2, 2, 3, 8, 8)
    assert small.min() >= 0
    assert small.max() <= 1
    torch.testing.assert_close(small * 255, levels(small).float(), rtol=0, atol=1e-4)


def test_a_size_that_four_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiples of 4, got 8 x 10"):
        shrink_4x(torch.zeros(3, 8, 10))


# Samples


def test_a_sample_has_the_shapes_and_ranges_it_promises(pack):
    sample = Clips(pack, SHAPE, steps=3, seed=0)[1]

    assert sample.sharp.shape == (4, 3, 3, 32, 32)
    assert sample.small.shape == (4, 3, 3, 8, 8)
    assert sample.flow_backward.shape == sample.flow_forward.shape == (4, 2, 2, 8, 8)
    assert sample.has_flow.shape == (4,)
    assert sample.sharp.min() >= 0
    assert sample.sharp.max() <= 1
    assert all(getattr(sample, f.name).isfinite().all() for f in dataclasses.fields(sample))


def test_the_small_frames_are_the_sharp_ones_shrunk(pack):
    sample = Clips(pack, SHAPE, steps=1, seed=3)[0]

    assert torch.equal(sample.small, shrink_4x(sample.sharp))


def test_a_sample_depends_on_its_seed_and_its_step_alone(pack):
    clips = Clips(pack, SHAPE, steps=9, seed=7)
    expected = clips[5]

    other = Clips(pack, SHAPE, steps=50, seed=7)
    _ = [other[n] for n in (0, 8, 2)]

    assert_equal_samples(other[5], expected)


def test_other_steps_and_other_seeds_give_other_samples(pack):
    clips = Clips(pack, SHAPE, steps=9, seed=7)

    assert not torch.equal(clips[4].sharp, clips[5].sharp)
    assert not torch.equal(Clips(pack, SHAPE, steps=9, seed=8)[5].sharp, clips[5].sharp)


def test_two_processes_divide_the_batch_that_one_would_have_seen(pack):
    whole = Clips(pack, SHAPE, steps=9, seed=7)[5]
    half = dataclasses.replace(SHAPE, batch=2)

    shares = [Clips(pack, half, steps=9, seed=7, share=share)[5] for share in range(2)]

    for field in dataclasses.fields(whole):
        divided = torch.cat([getattr(share, field.name) for share in shares])
        assert torch.equal(divided, getattr(whole, field.name)), field.name


def test_there_are_as_many_items_as_steps(pack):
    clips = Clips(pack, SHAPE, steps=2, seed=0)

    assert len(clips) == 2
    with pytest.raises(IndexError):
        clips[2]


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (1.0, True)])
def test_the_share_of_photos_decides_where_the_flow_is_known(pack, share, expected):
    shape = dataclasses.replace(SHAPE, photo_share=share, batch=6)

    sample = Clips(pack, shape, steps=1, seed=0)[0]

    assert sample.has_flow.tolist() == [expected] * 6
    assert sample.flow_backward.any().item() == expected


def test_a_single_frame_has_no_flow(pack):
    shape = dataclasses.replace(SHAPE, frames=1, photo_share=1.0)

    sample = Clips(pack, shape, steps=1, seed=0)[0]

    assert sample.sharp.shape == (4, 1, 3, 32, 32)
    assert sample.flow_backward.shape == (4, 0, 2, 8, 8)


def test_a_pack_of_photos_alone_or_of_clips_alone_is_enough(tmp_path):
    photos = draw_pack(tmp_path / "photos.safetensors", clips=0)
    clips = draw_pack(tmp_path / "clips.safetensors", photos=0)

    assert Clips(photos, SHAPE, steps=1, seed=0)[0].has_flow.all()
    assert not Clips(clips, SHAPE, steps=1, seed=0)[0].has_flow.any()


def test_a_clip_is_cut_out_of_what_the_pack_holds(tmp_path):
    # Every pixel of frame t of the stored clip is t in red; green and blue tell the place.
    stored = torch.zeros(4, 3, 40, 40, dtype=torch.uint8)
    stored[:, 0] = torch.arange(4).view(4, 1, 1)
    stored[:, 1] = 100 + torch.arange(40)
    stored[:, 2] = 200 + torch.arange(40)[:, None]
    save_file({"clip.0": stored}, tmp_path / "clip.safetensors")

    sample = Clips(tmp_path / "clip.safetensors", SHAPE, steps=1, seed=0)[0]

    for sharp in levels(sample.sharp):
        t, x, y = sharp.sort(dim=1).values.unbind(1)  # whatever channel each of them went to
        assert (t.flatten(1) == t[:, :1, 0]).all()
        assert t[:, 0, 0].tolist() in ([0, 1, 2], [1, 2, 3], [2, 1, 0], [3, 2, 1])
        assert len(x[0].unique()) == len(y[0].unique()) == 32
        assert torch.equal(x[0], x[2])


@pytest.mark.parametrize(
    ("photo_side", "clip_side", "clip_frames"), [(32, 31, 4), (31, 32, 3), (32, 40, 2)]
)
def test_what_is_too_small_or_too_short_is_left_out(tmp_path, photo_side, clip_side, clip_frames):
    tensors = {
        "photo.0": torch.zeros(3, 60, photo_side, dtype=torch.uint8),
        "clip.0": torch.zeros(clip_frames, 3, clip_side, 60, dtype=torch.uint8),
    }
    save_file(tensors, tmp_path / "pack.safetensors")

    clips = Clips(tmp_path / "pack.safetensors", SHAPE, steps=1, seed=0)

    assert len(clips.photos) == (photo_side >= 32)
    assert len(clips.clips) == (clip_side >= 32 and clip_frames >= 3)


def test_a_pack_with_nothing_large_and_long_enough_is_told(tmp_path):
    pack = draw_pack(tmp_path / "small.safetensors", side=31)

    with pytest.raises(InputError, match=r"no photo and no clip of 32 pixels and 3 frames"):
        Clips(pack, SHAPE, steps=1, seed=0)


# Motion that is known

MOTION = ClipShape(frames=3, patch=32, batch=1, photo_share=1.0, motion=3.0)
# Bilinear interpolation of waves of 96 large pixels, of 18 small ones where the camera is nearest,
# errs by 0.002 on average, and rounding to 8 bits, twice, by another 0.002.
EXACT = 0.004


def film(seed):
    """A clip of smooth photos, shrunk, (T, 3, P, P), and its flows."""
    photo, cover = (
        to_8_bits(smooth_picture(200, 240, wavelength=96.0, phase=phase)) for phase in (0.0, 2.0)
    )
    clip, backward, forward = move_camera(photo, cover, MOTION, np.random.default_rng(seed))
    return shrink_4x(clip), backward, forward


def errors(frames, neighbors, flows):
    """Absolute differences of frames from their neighbors along the flow, away from borders."""
    along = warp(neighbors, flows, padding="border")
    return (along - frames).abs()[..., 6:-6, 6:-6]


@pytest.mark.parametrize("layer", ["behind", "in front"])
@pytest.mark.parametrize("seed", range(6))
def test_along_the_flow_each_frame_finds_itself_in_its_neighbor(seed, layer, monkeypatch):
    # One layer fills the frame, so nothing is hidden.
    filled = float(layer == "in front")
    monkeypatch.setattr(data, "_ellipse", lambda *_: torch.full((128, 128), filled))

    frames, backward, forward = film(seed)

    assert errors(frames[:-1], frames[1:], backward).mean() < EXACT
    assert errors(frames[1:], frames[:-1], forward).mean() < EXACT


def test_a_flow_of_the_wrong_sign_or_scale_would_have_been_seen():
    seeds = [seed for seed in range(12) if film(seed)[1].norm(dim=1).mean() > 1]

    assert len(seeds) >= 3
    for seed in seeds:
        frames, backward, _ = film(seed)
        right = errors(frames[:-1], frames[1:], backward).median()
        for wrong in (-backward, 0.5 * backward, 2 * backward, backward.flip(1)):
            assert errors(frames[:-1], frames[1:], wrong).median() > 2 * right


@pytest.mark.parametrize("seed", range(6))
def test_most_pixels_find_themselves_where_a_piece_moves_in_front(seed):
    frames, backward, forward = film(seed)

    assert errors(frames[:-1], frames[1:], backward).median() < EXACT
    assert errors(frames[1:], frames[:-1], forward).median() < EXACT


def test_the_camera_keeps_to_its_speed():
    fastest = max(film(seed)[1].norm(dim=1).median().item() for seed in range(20))

    # Zoom, turn and the slow change of speed come on top.
    assert 1.5 < fastest < 1.5 * MOTION.motion


def test_filmed_values_are_levels_of_8_bits():
    photo = to_8_bits(draw_randomly(3, 200, 200))

    clip, _, _ = move_camera(photo, photo, MOTION, np.random.default_rng(1))

    assert clip.shape == (3, 3, SCALE * 32, SCALE * 32)
    assert clip.min() >= 0
    assert clip.max() <= 1


def test_a_photo_no_larger_than_the_frame_is_reflected_at_its_borders():
    photo = to_8_bits(smooth_picture(128, 128, wavelength=48.0))

    clip, backward, _ = move_camera(photo, photo, MOTION, np.random.default_rng(2))

    assert clip.isfinite().all()
    assert clip.min() > 0.05  # no black corners
    assert backward.isfinite().all()
