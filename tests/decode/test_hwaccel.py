"""Hardware decodes only if its frames are those of software; otherwise software does."""

from contextlib import contextmanager
from itertools import chain, islice

import av
import numpy as np
import pytest
from stub_network import draw_clip

from vsrm_cli.decode import hwaccel as hardware
from vsrm_cli.decode import video as reader
from vsrm_cli.decode.hwaccel import find_decoder
from vsrm_cli.decode.video import VideoReader
from vsrm_cli.encode.encoders import replace_absent_hardware
from vsrm_cli.encode.options import EncodingOptions, plan_encoding
from vsrm_cli.errors import InputError
from vsrm_cli.media import probe


class Decoder:
    """Stands in for hardware: decodes like it, in the formats of hardware."""

    def __init__(self, path, *, brightens=0, fails_after=None):
        self.container = av.open(str(path))
        self.brightens, self.fails_after = brightens, fails_after

    def __getattr__(self, name):
        return getattr(self.container, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.container.close()

    def decode(self, stream):
        for number, frame in enumerate(self.container.decode(stream)):
            if number == self.fails_after:
                raise av.InvalidDataError(1, "the driver fails")
            picture = frame.reformat(format="nv12")
            if self.brightens:
                picture = av.VideoFrame.from_ndarray(
                    picture.to_ndarray() + np.uint8(self.brightens), format="nv12"
                )
            yield picture


@pytest.fixture
def clip(tmp_path):
    return draw_clip(tmp_path / "clip.mp4")


@pytest.fixture
def stub_network(monkeypatch):
    """A machine with one kind of hardware."""

    def put(**faults):
        monkeypatch.setattr(hardware, "hwdevices_available", lambda: ["drm", "cuda"])
        monkeypatch.setattr(hardware, "_open_on", lambda path, device: Decoder(path, **faults))

    return put


def test_hardware_with_identical_frames_is_used(clip, stub_network):
    stub_network()

    assert find_decoder(clip) == "cuda"


@pytest.mark.parametrize("faults", [{"brightens": 1}, {"fails_after": 0}, {"fails_after": 5}])
def test_hardware_with_different_frames_is_not_used(clip, stub_network, faults):
    stub_network(**faults)

    assert find_decoder(clip) is None


def test_missing_hardware_drivers_are_recognized(clip, monkeypatch):
    monkeypatch.setattr(hardware, "hwdevices_available", lambda: ["cuda", "vaapi", "d3d11va"])

    def refuse(path, device):
        raise {"cuda": PermissionError, "vaapi": RuntimeError, "d3d11va": OSError}[device]

    monkeypatch.setattr(hardware, "_open_on", refuse)

    assert find_decoder(clip) is None


def test_hardware_decoding_never_changes_frames(clip):
    plain, asked = VideoReader(clip), VideoReader(clip, uses_hardware=True)

    with plain, asked:
        pairs = list(zip(plain, asked, strict=True))

    assert len(pairs) == 10
    for one, other in pairs:
        assert (one.time, one.duration) == (other.time, other.duration)
        np.testing.assert_array_equal(one.pixels, other.pixels)


@contextmanager
def decoding_by_stand_in(monkeypatch):
    """Let the reader decode in a format of hardware, with the software that is here."""
    right = probe.open_container
    monkeypatch.setattr(reader, "find_decoder", lambda path: "cuda")
    asked = []

    def open_(path, *, hardware=None):
        asked.append(hardware)
        return right(path)

    monkeypatch.setattr(reader, "open_container", open_)
    yield asked


def test_frames_of_hardware_have_the_pixel_format_of_software(clip, monkeypatch):
    with VideoReader(clip) as plain:
        expected = [frame.pixels for frame in plain]

    with decoding_by_stand_in(monkeypatch) as asked, VideoReader(clip, uses_hardware=True) as hard:
        stream_decode = reader.VideoReader._as_in_software
        monkeypatch.setattr(
            reader.VideoReader,
            "_as_in_software",
            lambda self, picture: stream_decode(self, picture.reformat(format="nv12")),
        )
        found = [frame.pixels for frame in hard]

    assert asked == ["cuda"]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_damage_in_hardware_decoding_is_reported_with_a_suggestion(clip, monkeypatch):
    right = VideoReader._packets
    monkeypatch.setattr(
        VideoReader, "_packets", lambda *args: chain(islice(right(*args), 3), [None])
    )

    with (
        decoding_by_stand_in(monkeypatch),
        VideoReader(clip, uses_hardware=True) as hard,
        pytest.raises(InputError, match="by cuda without faults; give --hwaccel off"),
    ):
        list(hard)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("h264_nvenc", "h264"), ("hevc_nvenc", "hevc"), ("av1_nvenc", "av1")],
)
def test_an_encoder_without_its_hardware_is_replaced_by_software(name, codec, monkeypatch):
    monkeypatch.setattr("vsrm_cli.encode.encoders._can_be_opened", lambda _: False)

    encoding, said = replace_absent_hardware(EncodingOptions(codec=name, crf=20, preset="p5"))

    assert encoding == EncodingOptions(codec=codec, crf=20)
    assert said == f"no hardware for {name}: encoded as {codec} in software"


def test_an_encoder_with_its_hardware_is_used(monkeypatch):
    monkeypatch.setattr("vsrm_cli.encode.encoders._can_be_opened", lambda _: True)
    asked = EncodingOptions(codec="hevc_nvenc", preset="p5")

    assert replace_absent_hardware(asked) == (asked, None)


def test_a_software_encoder_is_not_replaced():
    assert replace_absent_hardware(EncodingOptions(codec="h264")) == (
        EncodingOptions(codec="h264"),
        None,
    )


def test_nvidias_encoders_keep_the_quality_and_the_depth():
    plan = plan_encoding(EncodingOptions(codec="hevc_nvenc"), "yuv420p10le")
    asked = plan_encoding(EncodingOptions(codec="h264_nvenc", crf=23), "yuv420p10le")

    assert plan.options == {"rc": "constqp", "qp": "21"}
    assert plan.pixel_format == "p010le"
    assert asked.options == {"rc": "constqp", "qp": "23"}
    assert asked.pixel_format == "yuv420p"
