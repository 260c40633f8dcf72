"""What an HDR video says of its light comes out as it went in."""

import struct
from dataclasses import replace
from fractions import Fraction

import pytest
from av.sidedata.sidedata import Type
from clips import make_clip

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.encode.options import Encoding
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.media.geometry import Shape
from vsrm_cli.media.hdr import HdrMetadata, hdr_metadata_of, hdr_parameters, left_behind
from vsrm_cli.media.probe import probe

BT2020, PQ, HLG = 9, 16, 18
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
LIGHT = HdrMetadata(
    primaries=tuple(
        Fraction(x, 50000) for x in (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450)
    ),
    luminance=(Fraction(5, 1000), Fraction(1000)),
    peaks=(1000, 400),
)


def make_hdr(path, *, transfer=PQ, parameters=f":master-display={DISPLAY}:max-cll=1000,400"):
    def tag(video):
        context = video.codec_context
        context.colorspace = context.color_primaries = BT2020
        context.color_range, context.color_trc = 1, transfer

    return make_clip(
        path,
        times=(0, 512, 1024),
        size=(96, 64),
        codec="libx265",
        pixel_format="yuv420p10le",
        encoder={"x265-params": f"log-level=none{parameters}"},
        prepare=tag,
    )


def copy(source, target, codec):
    with VideoReader(source) as reader:
        shape = Shape(reader.info.width, reader.info.height, None)
        with VideoWriter(
            target, source=reader.info, shape=shape, encoding=Encoding(codec)
        ) as writer:
            for frame in reader:
                writer.write(replace(frame))
    return writer


def test_the_figures_of_a_file_are_read(tmp_path):
    assert probe(make_hdr(tmp_path / "hdr.mkv")).light == LIGHT
    assert probe(make_clip(tmp_path / "sdr.mp4")).light is None


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize("codec", ["hevc", "h264"])
def test_figures_and_transfer_of_hdr10_are_kept(tmp_path, name, codec):
    source = make_hdr(tmp_path / "source.mkv")

    writer = copy(source, tmp_path / name, codec)

    info = probe(tmp_path / name)
    assert info.light == LIGHT
    assert (info.color.matrix, info.color.primaries, info.color.transfer) == (BT2020, BT2020, PQ)
    assert info.pixel_format == "yuv420p10le"
    assert writer.dropped == ()


def test_av1_keeps_them_to_the_precision_that_it_stores(tmp_path):
    source = make_hdr(tmp_path / "source.mkv")

    copy(source, tmp_path / "out.mp4", "av1")

    light = probe(tmp_path / "out.mp4").light
    assert light.peaks == LIGHT.peaks
    assert [float(x) for x in light.primaries] == pytest.approx(
        [float(x) for x in LIGHT.primaries], abs=1e-4
    )
    assert [float(x) for x in light.luminance] == pytest.approx([0.005, 1000], abs=1e-3)


def test_hlg_stays_hlg(tmp_path):
    source = make_hdr(tmp_path / "source.mkv", transfer=HLG, parameters="")

    copy(source, tmp_path / "out.mp4", "hevc")

    info = probe(tmp_path / "out.mp4")
    assert (info.color.transfer, info.light) == (HLG, None)


def test_a_codec_that_cannot_store_them_is_told_of(tmp_path):
    source = make_hdr(tmp_path / "source.mkv")

    writer = copy(source, tmp_path / "out.mkv", "ffv1")

    assert writer.dropped == ("HDR metadata of the mastering display: ffv1 cannot store them",)
    assert probe(tmp_path / "out.mkv").color.transfer == PQ


def test_half_of_the_figures_is_kept_alone(tmp_path):
    source = make_hdr(tmp_path / "source.mkv", parameters=":max-cll=1000,400")

    copy(source, tmp_path / "out.mkv", "hevc")

    assert probe(tmp_path / "out.mkv").light == HdrMetadata(None, None, (1000, 400))


def test_parameters_are_written_as_x265_wants_them():
    assert hdr_parameters("libx265", LIGHT) == {
        "master-display": DISPLAY,
        "max-cll": "1000,400",
    }
    assert hdr_parameters("ffv1", LIGHT) == {}


def test_figures_without_a_range_of_brightness_are_named_as_lost():
    numbers = [1, 3] * 10 + [1, 0]  # ten fractions; the first eight are set, the others not
    side_data = {Type.MASTERING_DISPLAY_METADATA: struct.pack("=22i", *numbers)}

    light = hdr_metadata_of(side_data)

    assert (light.primaries, light.luminance) == ((Fraction(1, 3),) * 8, None)
    assert left_behind(side_data) == ("incomplete HDR metadata of the mastering display",)
    assert hdr_parameters("libx265", light) == {}


def test_what_travels_with_a_frame_and_is_lost_is_named(tmp_path):
    info = probe(make_clip(tmp_path / "clip.mp4"))
    info = replace(info, left_behind=("Dolby Vision metadata",))
    target = tmp_path / "out.mp4"

    writer = VideoWriter(target, source=info, shape=Shape(48, 32, None), encoding=Encoding())
    writer.__exit__(KeyboardInterrupt, None, None)

    assert writer.dropped == ("Dolby Vision metadata",)


def test_the_encoder_still_keeps_quiet(tmp_path, capfd):
    copy(make_hdr(tmp_path / "source.mkv"), tmp_path / "out.mkv", "hevc")

    assert capfd.readouterr() == ("", "")
