"""Scene cuts are found, and nothing else is detected as one.

`PYSCENEDETECT` is what PySceneDetect 0.7.1 finds in the same frames:
AdaptiveDetector(min_scene_len=1) fed with each frame as BGR.
"""

from fractions import Fraction

import numpy as np
import pytest
from clips import make_clip

from vsrm_cli.decode.scene_cuts import SceneCutFinder
from vsrm_cli.decode.video import VideoReader

HEIGHT, WIDTH = 90, 160
COLORS = [(200, 60, 40), (40, 120, 200), (90, 160, 60), (210, 200, 180), (30, 30, 60)]

PYSCENEDETECT = {
    "hard cuts": [10, 25, 32, 50],
    "a fast pan": [],
    "a slow dissolve": [],
    "a fade to black": [],
    "noise": [],
    "one foreign frame": [12, 13],
    "a cut within a pan": [20],
}


def scene(number, *, offset=0.0):
    """A landscape of waves and boxes in the colors of a scene, (H, W, 3), moved sideways."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    x = x + offset
    waves = np.sin(x / (7 + number) + y / 11) + np.cos(y / (5 + number) - x / 23)
    picture = np.array(COLORS[number % len(COLORS)]) + 22 * waves[..., None]
    for _ in range(6):
        left, top = rng.integers(0, WIDTH), rng.integers(0, HEIGHT - 20)
        inside = ((x - left) % (2 * WIDTH) < 25) & (y >= top) & (y < top + 20)
        picture[inside] = rng.integers(0, 255, 3)
    return picture


def drawn(name):
    """The frames of one of the clips named in `PYSCENEDETECT`, (H, W, 3), uint8."""
    rng = np.random.default_rng(7)
    if name == "hard cuts":
        lengths = [10, 15, 7, 18, 12]
        frames = [scene(n, offset=2 * i) for n, size in enumerate(lengths) for i in range(size)]
    elif name == "a fast pan":
        frames = [scene(1, offset=9 * i) for i in range(40)]
    elif name == "a slow dissolve":
        shares = np.clip((np.arange(50) - 10) / 30, 0, 1)
        frames = [(1 - s) * scene(0) + s * scene(2) for s in shares]
    elif name == "a fade to black":
        frames = [scene(3) * s for s in np.linspace(1, 0, 30)]
    elif name == "noise":
        frames = [scene(4) + rng.normal(0, 12, (HEIGHT, WIDTH, 3)) for _ in range(30)]
    elif name == "one foreign frame":
        frames = [scene(2 if i == 12 else 0, offset=i) for i in range(25)]
    else:
        frames = [scene(1 if i < 20 else 3, offset=6 * i) for i in range(40)]
    return [frame.clip(0, 255).astype(np.uint8) for frame in frames]


def cuts_in(frames):
    finder = SceneCutFinder()
    found = [finder.begins_shot(np.ascontiguousarray(frame.transpose(2, 0, 1))) for frame in frames]
    return [index for index, is_cut in enumerate(found) if is_cut]


@pytest.mark.parametrize("name", PYSCENEDETECT)
def test_cuts_agree_with_pyscenedetect(name):
    assert cuts_in(drawn(name)) == PYSCENEDETECT[name]


def test_depth_makes_no_difference():
    deep = [frame.astype(np.uint16) * 257 for frame in drawn("hard cuts")]

    assert cuts_in(deep) == PYSCENEDETECT["hard cuts"]


def test_a_part_has_the_scene_cuts_of_the_video():
    frames = drawn("hard cuts")

    assert [20 + index for index in cuts_in(frames[20:])] == [25, 32, 50]


def test_the_reader_marks_the_first_frame_of_each_shot(tmp_path, monkeypatch):
    frames = drawn("hard cuts")
    monkeypatch.setattr("clips.picture", lambda index, **_: frames[index])
    clip = make_clip(tmp_path / "cuts.mp4", times=range(0, 62 * 512, 512), size=(WIDTH, HEIGHT))

    with VideoReader(clip) as whole, VideoReader(clip, start=Fraction(4, 5)) as part:
        marks = [frame.begins_shot for frame in whole]
        marks_of_part = [frame.begins_shot for frame in part]

    assert [i for i, begins in enumerate(marks) if begins] == PYSCENEDETECT["hard cuts"]
    assert marks_of_part == marks[20:]
