"""HDR metadata of the input is written to the output."""

import struct
from dataclasses import replace
from fractions import Fraction

import pytest
from av.sidedata.sidedata import Type
from clips import make_clip

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.encode.options import EncodingOptions
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.encode.video_target import VideoTarget
from vsrm_cli.media.geometry import OutputShape
from vsrm_cli.media.hdr import HdrMetadata, dropped_side_data, hdr_metadata_of, hdr_parameters
from vsrm_cli.media.probe import probe

BT2020, PQ, HLG = 9, 16, 18
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
METADATA = HdrMetadata(
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
        shape = OutputShape(reader.info.width, reader.info.height, None)
        with VideoWriter(
            VideoTarget(target, source=reader.info, shape=shape, encoding=EncodingOptions(codec))
        ) as writer:
            for frame in reader:
                writer.write(replace(frame))
    return writer


def test_hdr_metadata_of_a_file_are_read(tmp_path):
    assert probe(make_hdr(tmp_path / "hdr.mkv")).hdr == METADATA
    assert probe(make_clip(tmp_path / "sdr.mp4")).hdr is None


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize("codec", ["hevc", "h264"])
def test_hdr_metadata_and_transfer_of_hdr10_are_kept(tmp_path, name, codec):
    source = make_hdr(tmp_path / "source.mkv")

    writer = copy(source, tmp_path / name, codec)

    info = probe(tmp_path / name)
    assert info.hdr == METADATA
    assert (info.color.matrix, info.color.primaries, info.color.transfer) == (BT2020, BT2020, PQ)
    assert info.pixel_format == "yuv420p10le"
    assert writer.dropped == ()


def test_av1_keeps_hdr_metadata_to_its_own_precision(tmp_path):
    source = make_hdr(tmp_path / "source.mkv")

    copy(source, tmp_path / "out.mp4", "av1")

    hdr = probe(tmp_path / "out.mp4").hdr
    assert hdr.peaks == METADATA.peaks
    assert [float(x) for x in hdr.primaries] == pytest.approx(
        [float(x) for x in METADATA.primaries], abs=1e-4
    )
    assert [float(x) for x in hdr.luminance] == pytest.approx([0.005, 1000], abs=1e-3)


def test_hlg_stays_hlg(tmp_path):
    source = make_hdr(tmp_path / "source.mkv", transfer=HLG, parameters="")

    copy(source, tmp_path / "out.mp4", "hevc")

    info = probe(tmp_path / "out.mp4")
    assert (info.color.transfer, info.hdr) == (HLG, None)


def test_hdr_metadata_that_a_codec_cannot_store_are_reported(tmp_path):
    source = make_hdr(tmp_path / "source.mkv")

    writer = copy(source, tmp_path / "out.mkv", "ffv1")

    assert writer.dropped == ("HDR metadata of the mastering display: ffv1 cannot store them",)
    assert probe(tmp_path / "out.mkv").color.transfer == PQ


def test_maxcll_is_kept_without_a_mastering_display(tmp_path):
    source = make_hdr(tmp_path / "source.mkv", parameters=":max-cll=1000,400")

    copy(source, tmp_path / "out.mkv", "hevc")

    assert probe(tmp_path / "out.mkv").hdr == HdrMetadata(None, None, (1000, 400))


def test_hdr_parameters_have_the_syntax_of_x265():
    assert hdr_parameters("libx265", METADATA) == {
        "master-display": DISPLAY,
        "max-cll": "1000,400",
    }
    assert hdr_parameters("ffv1", METADATA) == {}


def test_primaries_without_luminance_are_reported_as_dropped():
    numbers = [1, 3] * 10 + [1, 0]  # ten fractions; the first eight are set, the others not
    side_data = {Type.MASTERING_DISPLAY_METADATA: struct.pack("=22i", *numbers)}

    hdr = hdr_metadata_of(side_data)

    assert (hdr.primaries, hdr.luminance) == ((Fraction(1, 3),) * 8, None)
    assert dropped_side_data(side_data) == ("incomplete HDR metadata of the mastering display",)
    assert hdr_parameters("libx265", hdr) == {}


def test_dropped_side_data_are_reported(tmp_path):
    info = probe(make_clip(tmp_path / "clip.mp4"))
    info = replace(info, dropped=("Dolby Vision metadata",))
    target = tmp_path / "out.mp4"

    writer = VideoWriter(
        VideoTarget(
            target, source=info, shape=OutputShape(48, 32, None), encoding=EncodingOptions()
        )
    )
    writer.__exit__(KeyboardInterrupt, None, None)

    assert writer.dropped == ("Dolby Vision metadata",)


def test_the_encoder_logs_nothing_with_hdr_metadata(tmp_path, capfd):
    copy(make_hdr(tmp_path / "source.mkv"), tmp_path / "out.mkv", "hevc")

    assert capfd.readouterr() == ("", "")
