"""Colors are unchanged by a network that only repeats pixels."""

from fractions import Fraction

import av
import numpy as np
import pytest
from color_bars import BT601, BT709, BT2020, FULL, LIMITED, color_bars, plane_of

from vsrm_cli.upscale.job import upscale_video

pytestmark = pytest.mark.usefixtures("stub_network")

PATCH = 16


def write(path, frame):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "ffv1", rate=25, width=frame.width, height=frame.height, pix_fmt=frame.format.name
        )
        context = stream.codec_context
        context.colorspace, context.color_range = frame.colorspace, frame.color_range
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def first_frame(path):
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


def centers(frame, patch):
    """The three values in the middle of each patch."""
    values = []
    for index in range(3):
        plane = plane_of(frame, index)
        step = patch * plane.shape[1] // frame.width
        values.append(plane[plane.shape[0] // 2, step // 2 :: step].astype(int))
    return np.stack(values)


@pytest.mark.parametrize("color_range", [LIMITED, FULL], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [BT709, BT601, BT2020], ids=["bt709", "bt601", "bt2020"])
@pytest.mark.parametrize(
    "pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le", "yuv420p12le"]
)
def test_color_bars_round_trip(tmp_path, pixel_format, matrix, color_range):
    bars = color_bars(pixel_format, matrix, color_range, patch=PATCH)
    source = write(tmp_path / "bars.mkv", bars)

    summary = upscale_video(source, tmp_path / "large.mkv", codec="ffv1", tile="off")

    large = first_frame(tmp_path / "large.mkv")
    assert (large.colorspace, large.color_range) == (matrix, color_range)
    assert (large.format.name, large.width) == (pixel_format, 4 * bars.width)
    assert summary.dropped == ()
    # The scaler's matrices have 14 bits, which leaves two steps of 4095 to rounding.
    tolerance = 2 if (pixel_format, color_range) == ("yuv420p12le", FULL) else 1
    np.testing.assert_allclose(centers(large, 4 * PATCH), centers(bars, PATCH), atol=tolerance)
