"""Image sequences keep their bit depth and numerical order, and can be resumed."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import make_clip
from PIL import Image
from stub_network import HEIGHT, WIDTH, draw_clip, names_in, read_clip

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.errors import InputError, Interrupted, OutputError
from vsrm_cli.upscale import job as upscale
from vsrm_cli.upscale.job import upscale_video

pytestmark = pytest.mark.usefixtures("stub_network")

SMALL = {"window": 7, "overlap": 3, "segment_frames": 8}


def draw_pictures(folder, numbers, *, name="frame_{:05}.png"):
    """Write noise, so that every bit counts; return the pictures, (H, W, 3) uint8 each."""
    noise = np.random.default_rng(0)
    folder.mkdir()
    drawn = {n: noise.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for n in numbers}
    for number, pixels in drawn.items():
        Image.fromarray(pixels).save(folder / name.format(number))
    return [drawn[number] for number in sorted(drawn)]


def draw_deep_picture(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 65536, (HEIGHT, WIDTH, 3), np.uint16)
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = WIDTH, HEIGHT, "rgb48be"
    codec.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb48le").reformat(format="rgb48be")
    path.write_bytes(b"".join(map(bytes, [*codec.encode(frame), *codec.encode(None)])))
    return pixels


def read_deep_picture(path):
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb48le")


def enlarged(pixels):
    return pixels.repeat(4, axis=0).repeat(4, axis=1)


def test_a_folder_becomes_a_folder_of_the_same_names_pixel_by_pixel(tmp_path):
    drawn = draw_pictures(tmp_path / "in", range(3, 36))

    summary = upscale_video(tmp_path / "in", tmp_path / "out", **SMALL)

    assert names_in(tmp_path / "out") == names_in(tmp_path / "in")
    for name, pixels in zip(names_in(tmp_path / "out"), drawn, strict=True):
        large = np.asarray(Image.open(tmp_path / "out" / name))
        np.testing.assert_array_equal(large, enlarged(pixels))
    assert (summary.frames_in, summary.frames_out) == (33, 33)
    assert names_in(tmp_path) == ["in", "out"]


def test_sixteen_bits_stay_sixteen_bits(tmp_path):
    (tmp_path / "in").mkdir()
    drawn = [draw_deep_picture(tmp_path / "in" / f"{n}.png", n) for n in range(2)]

    upscale_video(tmp_path / "in", tmp_path / "out")

    for number, pixels in enumerate(drawn):
        large = read_deep_picture(tmp_path / "out" / f"{number}.png")
        np.testing.assert_array_equal(large, enlarged(pixels))


def test_images_are_sorted_by_number_and_gaps_are_allowed(tmp_path):
    drawn = draw_pictures(tmp_path / "in", [10, 2, 1, 7], name="x{}.png")

    upscale_video(tmp_path / "in" / "x%d.png", tmp_path / "y_%03d.png")

    assert names_in(tmp_path) == ["in", *(f"y_00{n}.png" for n in range(1, 5))]
    for number, pixels in enumerate(drawn, 1):
        large = np.asarray(Image.open(tmp_path / f"y_00{number}.png"))
        np.testing.assert_array_equal(large, enlarged(pixels))


def test_images_become_a_video_at_the_given_rate(tmp_path):
    draw_pictures(tmp_path / "in", range(12))

    upscale_video(tmp_path / "in", tmp_path / "large.mp4", fps="24000/1001", end="0.3")

    times, _, size = read_clip(tmp_path / "large.mp4")
    assert times == [Fraction(1001 * n, 24000) for n in range(8)]
    assert size == (4 * WIDTH, 4 * HEIGHT)


def test_a_video_becomes_numbered_images(tmp_path):
    clip = draw_clip(tmp_path / "small.mp4", frames=3)

    upscale_video(clip, tmp_path / "out", start="0.04")

    assert names_in(tmp_path / "out") == ["frame_000001.png", "frame_000002.png"]


def test_a_part_of_a_sequence_keeps_its_image_numbers(tmp_path):
    draw_pictures(tmp_path / "in", range(10))

    upscale_video(tmp_path / "in", tmp_path / "out", start="0.08", end="0.2")

    assert names_in(tmp_path / "out") == [f"frame_0000{n}.png" for n in (2, 3, 4)]


def test_an_interrupted_image_sequence_can_be_resumed(tmp_path):
    drawn = draw_pictures(tmp_path / "in", range(33))

    for done in (8, 16):  # noise is a shot in each frame, so each is a window
        with pytest.raises(Interrupted, match=f"{done} frames"):
            upscale_video(tmp_path / "in", tmp_path / "out", should_stop=lambda: True, **SMALL)
        assert not (tmp_path / "out").exists()
    summary = upscale_video(tmp_path / "in", tmp_path / "out", **SMALL)

    assert summary.frames_resumed == 16
    for number, pixels in enumerate(drawn):
        large = np.asarray(Image.open(tmp_path / "out" / f"frame_{number:05}.png"))
        np.testing.assert_array_equal(large, enlarged(pixels))
    assert names_in(tmp_path) == ["in", "out"]


def test_existing_images_are_kept_without_overwrite(tmp_path):
    draw_pictures(tmp_path / "in", range(2))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "frame_00001.png").write_text("precious")
    (tmp_path / "out" / "notes.txt").write_text("mine")

    with pytest.raises(OutputError, match=r"frame_00001\.png exists; .*--overwrite"):
        upscale_video(tmp_path / "in", tmp_path / "out")
    upscale_video(tmp_path / "in", tmp_path / "out", overwrite=True)

    names = ["frame_00000.png", "frame_00001.png", "notes.txt"]
    assert names_in(tmp_path / "out") == names
    with Image.open(tmp_path / "out" / names[1]) as large:
        assert large.size == (4 * WIDTH, 4 * HEIGHT)


def test_the_input_folder_cannot_be_the_output(tmp_path):
    draw_pictures(tmp_path / "in", range(2))

    with pytest.raises(OutputError, match="holds the input itself"):
        upscale_video(tmp_path / "in", tmp_path / "in", overwrite=True)
    with pytest.raises(OutputError, match="holds the input itself"):
        upscale_video(tmp_path / "in", tmp_path / "in" / "frame_%05d.png", overwrite=True)


def draw_animation(path):
    first, *rest = (Image.new("RGB", (WIDTH, HEIGHT), color) for color in ("red", "blue"))
    first.save(path, save_all=True, append_images=rest)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: Image.new("RGB", (9, 9)).save(folder / "z.png"), "z.png is 9x9"),
        (lambda folder: (folder / "z.png").write_text("no picture"), "z.png"),
        (lambda folder: draw_animation(folder / "z.webp"), "z.webp is an animated WebP"),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "no image files"),
    ],
    ids=["size", "broken", "animated", "none"],
)
def test_unusable_image_folders_are_refused_before_the_work(
    tmp_path, monkeypatch, prepare, message
):
    draw_pictures(tmp_path / "in", range(2))
    prepare(tmp_path / "in")
    monkeypatch.setattr(upscale, "load_model", None)  # nobody gets as far as that

    with pytest.raises(InputError, match=message):
        upscale_video(tmp_path / "in", tmp_path / "out")

    assert names_in(tmp_path) == ["in"]


def test_an_image_sequence_of_mixed_formats_is_written_in_one_format(tmp_path):
    shade = np.full((HEIGHT, WIDTH), 90, np.uint8)
    (tmp_path / "in").mkdir()
    color = Image.fromarray(np.stack([shade, shade + 50, shade + 100], -1))
    color.save(tmp_path / "in" / "0.png")
    Image.fromarray(shade).save(tmp_path / "in" / "1.png")
    color.quantize(4).save(tmp_path / "in" / "2.png")
    color.convert("RGBA").save(tmp_path / "in" / "3.png")
    Image.fromarray(shade).convert("1").save(tmp_path / "in" / "4.png")
    color.save(tmp_path / "in" / "5.jpg", quality=100)

    summary = upscale_video(tmp_path / "in", tmp_path / "out")

    corners = [np.asarray(Image.open(tmp_path / "out" / f"{n}.png"))[0, 0] for n in range(6)]
    expected = [(90, 140, 190), (90, 90, 90), (90, 140, 190), (90, 140, 190)]
    np.testing.assert_array_equal(corners[:4], expected)
    assert corners[4].tolist() in ([0, 0, 0], [255, 255, 255])
    np.testing.assert_allclose(corners[5], (90, 140, 190), atol=2)
    assert "transparency: the network processes only colors" in summary.dropped


def test_one_high_bit_depth_image_makes_the_sequence_high_bit_depth(tmp_path):
    (shallow,) = draw_pictures(tmp_path / "in", [0], name="{}.png")
    deep = draw_deep_picture(tmp_path / "in" / "1.png", 1)

    upscale_video(tmp_path / "in", tmp_path / "out")

    for number, pixels in enumerate([shallow * np.uint16(257), deep]):
        large = read_deep_picture(tmp_path / "out" / f"{number}.png")
        np.testing.assert_array_equal(large, enlarged(pixels))


def test_rotated_photos_become_upright_images_and_videos(tmp_path):
    (tmp_path / "in").mkdir()
    shades = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 8 % 256
    upright = Image.fromarray(shades.astype(np.uint8)).convert("RGB")
    on_its_side = upright.transpose(Image.Transpose.ROTATE_90)
    exif = on_its_side.getexif()
    exif[0x0112] = 6
    on_its_side.save(tmp_path / "in" / "0.png", exif=exif.tobytes())
    upright.save(tmp_path / "in" / "1.png")

    upscale_video(tmp_path / "in", tmp_path / "out")
    upscale_video(tmp_path / "in", tmp_path / "out.mkv")

    for number in range(2):
        large = np.asarray(Image.open(tmp_path / "out" / f"{number}.png"))
        np.testing.assert_array_equal(large, enlarged(np.asarray(upright)))
    assert read_clip(tmp_path / "out.mkv")[2] == (4 * WIDTH, 4 * HEIGHT)


def test_a_video_of_a_phone_becomes_upright_images(tmp_path):
    clip = make_clip(tmp_path / "in.mp4", prepare=lambda video: video.set_display_rotation(90))
    with VideoReader(clip) as reader:
        stored = next(iter(reader)).pixels.transpose(1, 2, 0)

    upscale_video(clip, tmp_path / "out", end="0.05")

    large = np.asarray(Image.open(tmp_path / "out" / "frame_000001.png"))
    np.testing.assert_array_equal(large, enlarged(np.rot90(stored)))


def test_an_invalid_image_output_is_reported(tmp_path):
    clip = draw_clip(tmp_path / "small.mp4")

    with pytest.raises(OutputError, match=r"written as \.png"):
        upscale_video(clip, tmp_path / "frame_%05d.jpg")
    with pytest.raises(OutputError, match="does not exist; make it"):
        upscale_video(clip, tmp_path / "no" / "out")


def test_a_single_image_becomes_a_single_image(tmp_path):
    (pixels,) = draw_pictures(tmp_path / "in", [7], name="photo{}.png")

    upscale_video(tmp_path / "in" / "photo7.png", tmp_path / "big.png", **SMALL)

    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "big.png")), enlarged(pixels))
    assert names_in(tmp_path) == ["big.png", "in"]


def test_a_single_output_image_is_not_replaced_and_is_not_the_input(tmp_path):
    draw_pictures(tmp_path / "in", [7], name="photo{}.png")
    (tmp_path / "big.png").write_text("precious")
    photo = tmp_path / "in" / "photo7.png"

    with pytest.raises(OutputError, match=r"big\.png exists"):
        upscale_video(photo, tmp_path / "big.png", **SMALL)
    with pytest.raises(OutputError, match="the input itself"):
        upscale_video(photo, photo, overwrite=True, **SMALL)


def test_many_frames_cannot_be_written_to_one_image(tmp_path):
    draw_clip(tmp_path / "in.mp4", frames=3)

    with pytest.raises(OutputError, match=r"many frames; name the output big_%05d\.png"):
        upscale_video(tmp_path / "in.mp4", tmp_path / "big.png", **SMALL)


def test_an_animated_png_is_a_video(tmp_path):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "green")]
    frames[0].save(tmp_path / "in.png", save_all=True, append_images=frames[1:])

    summary = upscale_video(tmp_path / "in.png", tmp_path / "out.mkv", **SMALL)

    assert summary.frames_out == 3
