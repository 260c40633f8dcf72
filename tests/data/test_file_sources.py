"""Videos and images can be read from any frame, and are probed once."""

import json
import shutil

import av
import interlaced_video
import numpy as np
import pytest
import torch
from clips import VARIABLE, index_of, make_clip
from PIL import Image
from scenes import draw_folder, draw_photo

from vsrm_cli.data import file_sources
from vsrm_cli.data.crops import CropBox
from vsrm_cli.data.file_index import FileIndex
from vsrm_cli.data.file_sources import find_sources, read_photo


def sources_in(folder, **options):
    """The sources and the skipped files, without an index."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return find_sources(folder, files, FileIndex(folder / "none"), **options)


def only_source(folder, **options):
    (source,), _ = sources_in(folder, **options)
    return source


def read(source, first, count):
    return source.read(first, count, CropBox(0, 0, *source.size))


# Photos


@pytest.mark.parametrize(("name", "mode"), [("grey.png", "L"), ("clear.png", "RGBA")])
def test_images_of_other_modes_become_rgb(tmp_path, name, mode):
    pixels = np.full((20, 30, 4 if mode == "RGBA" else 1), 77, np.uint8)
    pixels[..., 3:] = 255
    Image.fromarray(pixels.squeeze()).save(tmp_path / name)

    photo = read_photo(tmp_path / name)

    assert photo.shape == (3, 20, 30)
    assert photo.dtype == torch.uint8
    assert photo.unique().tolist() == [77]


def test_sixteen_bit_images_become_8_bit(tmp_path):
    ramp = np.arange(256, dtype=np.uint16).repeat(4).reshape(32, 32) * 257
    Image.fromarray(ramp).save(tmp_path / "deep.png")

    photo = read_photo(tmp_path / "deep.png")

    assert photo.dtype == torch.uint8
    assert photo[0].flatten().tolist() == (ramp.flatten() // 257).tolist()


def test_a_large_photo_is_downscaled(tmp_path, monkeypatch):
    draw_photo(tmp_path / "large.png", height=40, width=80)
    monkeypatch.setattr(file_sources, "PHOTO_SIDE", 20)

    assert read_photo(tmp_path / "large.png").shape == (3, 15, 30)


def test_a_photo_that_is_not_too_large_is_unchanged(tmp_path, monkeypatch):
    drawn = draw_photo(tmp_path / "photo.png", height=20, width=30)
    monkeypatch.setattr(file_sources, "PHOTO_SIDE", 20)

    assert torch.equal(read_photo(tmp_path / "photo.png"), drawn)


# Videos


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "ts"])
@pytest.mark.parametrize("first", [0, 1, 9, 13, 20])
def test_a_video_can_be_read_from_any_frame(tmp_path, ending, first):
    make_clip(tmp_path / f"a.{ending}")  # 24 frames, a key frame each ten

    source = only_source(tmp_path)

    assert (source.frames, source.size) == (24, (32, 48))
    run = read(source, first, 4).hr
    assert run.shape == (4, 3, 32, 48)
    assert run.dtype == torch.uint8
    assert [index_of(frame.numpy()) for frame in run] == list(range(first, first + 4))


def test_frames_of_a_variable_rate_can_be_read_by_number(tmp_path):
    make_clip(tmp_path / "a.mp4", times=VARIABLE)

    source = only_source(tmp_path)

    assert source.frames == len(VARIABLE)
    for first in range(0, len(VARIABLE) - 2, 3):
        run = read(source, first, 2).hr
        assert [index_of(frame.numpy()) for frame in run] == [first, first + 1]


def test_reading_past_the_last_frame_gives_nothing(tmp_path):
    make_clip(tmp_path / "a.mp4")

    assert read(only_source(tmp_path), 22, 4) is None


@pytest.mark.parametrize(
    ("codec", "pixel_format", "is_halved"),
    [("libx264", "yuv420p", True), ("ffv1", "yuv444p", False)],
)
def test_large_compressed_video_is_halved(tmp_path, monkeypatch, codec, pixel_format, is_halved):
    make_clip(tmp_path / "a.mkv", codec=codec, pixel_format=pixel_format, size=(64, 48))
    monkeypatch.setattr(file_sources, "HALVED_LINES", 48)

    source = only_source(tmp_path)

    size = (24, 32) if is_halved else (48, 64)
    assert source.size == size
    run = read(source, 5, 2).hr
    assert run.shape == (2, 3, *size)
    assert [index_of(frame.numpy()) for frame in run] == [5, 6]


@pytest.mark.parametrize("halved_lines", [48, 1000])
def test_a_crop_equals_that_part_of_the_whole_frame(tmp_path, monkeypatch, halved_lines):
    make_clip(tmp_path / "a.mp4", size=(64, 48))
    monkeypatch.setattr(file_sources, "HALVED_LINES", halved_lines)
    source = only_source(tmp_path)

    part = source.read(5, 2, CropBox(4, 8, 12, 16)).hr

    expected = read(source, 5, 2).hr[..., 4:16, 8:24]
    # At its border a crop is downscaled without the rest.
    inside = (..., slice(2, -2), slice(2, -2))
    assert part.shape == expected.shape
    assert (part[inside].int() - expected[inside].int()).abs().max() <= 1


def test_large_video_is_not_halved_if_sources_are_taken_as_they_are(tmp_path, monkeypatch):
    make_clip(tmp_path / "a.mp4", size=(64, 48))
    monkeypatch.setattr(file_sources, "HALVED_LINES", 48)

    assert only_source(tmp_path, keeps_size=True).size == (48, 64)


@pytest.mark.parametrize("kind", ["video", "images"])
def test_a_run_of_frames_never_crosses_a_scene_cut(tmp_path, kind):
    folder = tmp_path / "shots"
    folder.mkdir()
    for number in range(9):
        color = (250, 20, 20) if number < 5 else (20, 240, 250)
        Image.new("RGB", (64, 64), color).save(folder / f"{number}.png")
    if kind == "video":
        write_video(folder, tmp_path / "a.mkv")
        shutil.rmtree(folder)

    source = only_source(tmp_path)

    assert source.frames == 9
    assert read(source, 2, 3) is not None
    assert read(source, 5, 4) is not None
    assert read(source, 3, 3) is None


def write_video(folder, path):
    """A lossless video of the images of a folder."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25, width=64, height=64, pix_fmt="bgr0")
        for file in sorted(folder.iterdir()):
            frame = av.VideoFrame.from_ndarray(np.array(Image.open(file)))
            output.mux(stream.encode(frame.reformat(format="bgr0")))
        output.mux(stream.encode(None))


def test_a_run_of_frames_never_has_damaged_frames(tmp_path):
    path = make_clip(tmp_path / "a.mp4", size=(320, 192), encoder={"crf": "1"})
    source = only_source(tmp_path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)

    path.write_bytes(content)

    assert any(read(source, first, 4) is None for first in range(0, 20, 4))
    assert read(source, 0, 2) is not None


def test_an_interlaced_video_is_skipped_with_a_reason(tmp_path):
    interlaced_video.make_video(tmp_path / "interlaced.mp4", "tff", mark="tff")

    sources, skipped = sources_in(tmp_path)

    assert not sources
    assert [s.path.name for s in skipped] == ["interlaced.mp4"]
    assert "interlaced" in skipped[0].reason


# Folders


def test_numbered_images_of_one_scene_are_a_clip(tmp_path):
    frames = draw_folder(tmp_path / "waves", frames=11, names="im{}.png")

    source = only_source(tmp_path)

    assert (source.name, source.frames, source.size) == ("waves", 11, (32, 48))
    assert torch.equal(read(source, 2, 3).hr, frames[2:5])


def test_images_of_different_sizes_or_scenes_are_photos(tmp_path):
    draw_photo(tmp_path / "sizes" / "1.png", height=40)
    draw_photo(tmp_path / "sizes" / "2.png", height=41)
    for number, color in enumerate(["red", "green", "blue"]):
        path = tmp_path / "scenes" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), color).save(path)

    sources, _ = sources_in(tmp_path)

    expected = ["scenes/0", "scenes/1", "scenes/2", "sizes/1", "sizes/2"]
    assert [source.name for source in sources] == expected
    assert {source.frames for source in sources} == {1}


def test_a_run_of_frames_never_has_a_frame_of_another_size(tmp_path):
    draw_folder(tmp_path / "waves", frames=6)
    draw_photo(tmp_path / "waves" / "004.png", height=40)

    source = only_source(tmp_path)

    assert read(source, 1, 3) is not None
    assert read(source, 2, 3) is None


def test_unreadable_files_are_skipped_with_a_reason(tmp_path):
    make_clip(tmp_path / "good.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"no video at all" * 100)
    (tmp_path / "empty.png").write_bytes(b"")

    sources, skipped = sources_in(tmp_path)

    assert [source.name for source in sources] == ["good"]
    assert sorted(s.path.name for s in skipped) == ["bad.mp4", "empty.png"]
    assert all(str(s.path) in s.reason for s in skipped)


# The index


def test_a_file_is_probed_once_until_it_changes(tmp_path):
    file, probed = tmp_path / "a", []
    file.write_text("one")

    def probe(path):
        probed.append(path.read_text())
        return {"text": path.read_text()}

    for text in ("one", "one", "three"):
        file.write_text(text) if file.read_text() != text else None
        index = FileIndex(tmp_path / "cache" / "index.json")
        assert index.facts(file, probe) == {"text": text}
        index.save()

    assert probed == ["one", "three"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 0, "files": {}}'])
def test_an_unreadable_index_is_rebuilt(tmp_path, content):
    file = tmp_path / "index.json"
    file.write_text(content)

    index = FileIndex(file)
    index.facts(tmp_path / "..", lambda _: {"n": 1})
    index.save()

    assert json.loads(file.read_text())["files"]


def test_an_index_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("in the way")

    index = FileIndex(tmp_path / "file" / "index.json")
    index.facts(tmp_path, lambda _: {})
    index.save()

    assert (tmp_path / "file").read_text() == "in the way"


def test_deleted_files_are_removed_from_the_index(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        index = FileIndex(tmp_path / "index.json")
        index.facts(tmp_path / name, lambda _: {})
        index.save()

    assert str(tmp_path / "a") not in (tmp_path / "index.json").read_text()
