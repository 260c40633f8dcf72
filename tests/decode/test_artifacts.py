"""Artifacts are detected in the frames, whatever their codec."""

import av
import numpy as np
import pytest
from motion import nature
from PIL import Image

from vsrm_cli.decode.artifacts import find_artifacts
from vsrm_cli.encode.roundtrip import encode_and_decode

RNG = np.random.default_rng(4)


def scene(index=0):
    """A drawn photo in color, (H, W, 3) uint8."""
    sheets = [nature(seed)[40 + index : 200 + index, 60:300] for seed in (1, 2, 3)]
    return np.stack(sheets, -1).astype(np.uint8)


def save(path, image, **options):
    Image.fromarray(image).save(path, **options)
    return path


def test_clean_frames_have_no_artifacts(tmp_path):
    files = [save(tmp_path / f"{n}.png", scene(n)) for n in range(3)]

    assert find_artifacts(files) is None


def test_blocks_of_a_codec_are_detected_in_lossless_files(tmp_path):
    clip = np.stack([scene(n).transpose(2, 0, 1) for n in range(4)])
    worn = encode_and_decode(clip, "h264", crf=32, preset="medium")
    files = [save(tmp_path / f"{n}.png", frame.transpose(1, 2, 0)) for n, frame in enumerate(worn)]

    assert "blocks" in find_artifacts(files)


def test_jpeg_blocks_are_detected_in_a_lossless_file(tmp_path):
    photo = save(tmp_path / "photo.jpg", scene(), quality=75)
    with Image.open(photo) as opened:
        copy = save(tmp_path / "copy.png", np.asarray(opened))

    assert "blocks" in find_artifacts([copy])


@pytest.mark.parametrize("corner", [(3, 5), (4, 4)])
def test_jpeg_blocks_are_detected_in_a_cropped_photo(tmp_path, corner):
    photo = save(tmp_path / "photo.jpg", scene(), quality=75)
    with Image.open(photo) as opened:
        copy = save(tmp_path / "copy.png", np.asarray(opened)[corner[0] :, corner[1] :])

    assert "blocks" in find_artifacts([copy])


@pytest.mark.parametrize("ending", ["gif", "png"])
def test_a_palette_with_dithering_is_detected(tmp_path, ending):
    palette = Image.fromarray(scene()).quantize(64)
    images = [Image.fromarray(scene(n)).quantize(palette=palette, dither=3) for n in range(3)]
    path = tmp_path / f"film.{ending}"
    rest = {"save_all": True, "append_images": images[1:]} if ending == "gif" else {}
    images[0].save(path, **rest)

    assert "reduced to a palette" in find_artifacts([path])


def test_pixel_art_in_few_colors_is_clean(tmp_path):
    tiles = RNG.integers(0, 256, (12, 18, 3), np.uint8)
    tiles[4:] = tiles[0]

    assert find_artifacts([save(tmp_path / "art.png", tiles.repeat(16, 0).repeat(16, 1))]) is None


def test_a_gray_video_has_few_colors_and_is_clean(tmp_path):
    gray = nature(1)[40:200, 60:300].astype(np.uint8)

    assert find_artifacts([save(tmp_path / "gray.png", gray)]) is None


def test_noise_is_detected(tmp_path):
    noisy = scene() + RNG.normal(0, 6, scene().shape)
    path = save(tmp_path / "dark.png", noisy.clip(0, 255).astype(np.uint8))

    assert "noisy" in find_artifacts([path])


def test_a_video_is_sampled_in_two_places(tmp_path):
    clean, noise = scene(), RNG.normal(0, 9, scene().shape)
    with av.open(str(tmp_path / "clip.mkv"), "w") as output:
        video = output.add_stream("ffv1", rate=25, options={"g": "1"})
        video.width, video.height, video.pix_fmt = clean.shape[1], clean.shape[0], "bgr0"
        for number in range(12):
            image = (clean + noise * (number >= 3)).clip(0, 255).astype(np.uint8)
            output.mux(video.encode(av.VideoFrame.from_ndarray(image).reformat(format="bgr0")))
        output.mux(video.encode(None))

    assert "noisy" in find_artifacts([tmp_path / "clip.mkv"])


def test_tiny_and_constant_frames_are_not_classified(tmp_path):
    tiny = save(tmp_path / "tiny.png", RNG.integers(0, 256, (9, 9, 3), np.uint8))
    plain = save(tmp_path / "plain.png", np.full((64, 64, 3), 90, np.uint8))

    assert find_artifacts([tiny]) is None
    assert find_artifacts([plain]) is None
