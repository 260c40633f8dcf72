"""Color models other than YCbCr are refused instead of decoded to wrong colors."""

import struct

import pytest
from clips import make_clip

from vsrm_cli.errors import InputError
from vsrm_cli.media.probe import probe


def record(profile, compatibility):
    """A configuration record: version 1.0, level 3, with metadata and base layer."""
    return struct.pack(">BBHB", 1, 0, profile << 9 | 3 << 3 | 0b101, compatibility << 4) + bytes(19)


def make_mp4(path, profile, compatibility):
    """H.264 in MP4 with the configuration box at the end of its sample entry."""
    data = make_clip(path).read_bytes()
    box = struct.pack(">I", 32) + b"dvvC" + record(profile, compatibility)
    moov = data.index(b"moov")  # one of the brands before it is called avc1, too
    end = data.index(b"avcC", moov) - 4
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        at = data.index(name, moov) - 4
        (size,) = struct.unpack_from(">I", data, at)
        data = data[:at] + struct.pack(">I", size + len(box)) + data[at + 4 :]
    path.write_bytes(data[:end] + box + data[end:])
    return path


def make_matroska(path, profile, compatibility):
    """Matroska in which a void element is the block addition that holds the record."""
    clip = make_clip(path, container={"reserve_index_space": "512"})
    data = clip.read_bytes()
    addition = b"\x41\xe7\x84dvcC" + b"\x41\xed\x98" + record(profile, compatibility)
    mapping = b"\x41\xe4" + bytes([0x80 | len(addition)]) + addition
    at = data.index(b"\xec\x01")  # the void that was reserved
    path.write_bytes(data[: at + 9] + mapping + data[at + 9 + len(mapping) :])
    return path


@pytest.mark.parametrize(("make", "name"), [(make_mp4, "a.mp4"), (make_matroska, "a.mkv")])
@pytest.mark.parametrize("profile", [5, 10])
def test_dolby_vision_profile_5_is_refused(tmp_path, make, name, profile):
    clip = make(tmp_path / name, profile, 0)

    with pytest.raises(InputError, match=rf"Dolby Vision profile {profile} .* convert it"):
        probe(clip)


@pytest.mark.parametrize(("make", "name"), [(make_mp4, "a.mp4"), (make_matroska, "a.mkv")])
@pytest.mark.parametrize(("profile", "compatibility"), [(8, 1), (8, 4), (7, 6), (10, 1)])
def test_dolby_vision_with_a_base_layer_is_read_and_its_loss_reported(
    tmp_path, make, name, profile, compatibility
):
    clip = make(tmp_path / name, profile, compatibility)

    assert probe(clip).dropped == ("Dolby Vision metadata",)


@pytest.mark.parametrize(
    ("matrix", "name"), [(8, "YCgCo"), (10, "YCbCr of constant luminance"), (14, "ICtCp")]
)
def test_unsupported_color_models_are_refused_by_name(tmp_path, matrix, name):
    def tag(video):
        video.codec_context.colorspace = matrix

    clip = make_clip(tmp_path / "clip.mkv", pixel_format="yuv444p", prepare=tag)

    with pytest.raises(InputError, match=f"stored as {name}, not as YCbCr"):
        probe(clip)
