"""The index of a video's frames agrees with what is known from decoding it."""

import pytest
from clips import make_clip

from vsrm_cli.decode.frame_index import read_frame_index
from vsrm_cli.media.probe import probe


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "is_lossy"),
    [
        ("clip.mp4", "libx264", "yuv420p", True),
        ("clip.mov", "prores_ks", "yuv422p10le", False),
        ("clip.mkv", "ffv1", "yuv420p", False),
        ("clip.avi", "zmbv", "bgr0", False),
        ("clip.nut", "dpx", "rgb24", False),
        ("clip.gif", "gif", "rgb8", False),
        ("clip.mov", "tiff", "rgb24", False),
    ],
)
def test_index_and_probe_agree_which_codecs_lose_something(
    tmp_path, name, codec, pixel_format, is_lossy
):
    clip = make_clip(
        tmp_path / name, codec=codec, pixel_format=pixel_format, times=range(0, 2048, 512)
    )

    assert read_frame_index(clip).is_lossy == probe(clip).is_lossy == is_lossy
