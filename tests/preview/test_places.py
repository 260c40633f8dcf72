"""Places are spread over the video, in motion, not black, and each in a scene of its own."""

from fractions import Fraction

import numpy as np
import pytest

from vsrm_cli.decode.scene_cuts import SceneCutFinder
from vsrm_cli.errors import InputError
from vsrm_cli.frame import Frame
from vsrm_cli.preview.places import find_places

RATE = 25
START = Fraction(7, 2)  # the clock of the file begins anywhere


def picture(color, *, shift=0):
    """Stripes over a color, (3, 48, 64) uint8; they move with ``shift``."""
    stripes = 60 * ((np.arange(64) + shift) // 8 % 2)
    return np.clip(np.array(color)[:, None, None] + stripes, 0, 255).astype(np.uint8) + np.zeros(
        (3, 48, 1), np.uint8
    )


class ShotVideo:
    """Shots of a length in seconds, each a color, "black", or a color that does not move."""

    def __init__(self, *shots):
        self.shots = shots
        self.seconds = sum(length for _, length, _ in shots)
        self.frames_read = 0
        self.times_read = []

    def shot_at(self, time):
        for number, (_, length, _) in enumerate(self.shots):
            if time < length:
                return number
            time -= length
        return None

    def read(self, time):
        self.times_read.append(time)
        index, cuts = -int(-time * RATE // 1), SceneCutFinder()
        if Fraction(index, RATE) >= self.seconds:
            raise InputError("nothing there")
        while (number := self.shot_at(Fraction(index, RATE))) is not None:
            color, _, kind = self.shots[number]
            pixels = picture(color, shift=index if kind == "moving" else 0)
            if kind == "black":
                pixels = np.full((3, 48, 64), 3, np.uint8)
            self.frames_read += 1
            yield Frame(pixels, START + Fraction(index, RATE), None, cuts.begins_shot(pixels))
            index += 1

    def places(self, *, count=5):
        return find_places(self.read, Fraction(self.seconds), start=START, count=count, frames=8)


COLORS = [(190, 20, 20), (20, 190, 20), (20, 20, 190), (190, 190, 20), (20, 190, 190), (90, 20, 90)]


def test_each_place_is_in_a_scene_of_its_own_and_they_are_spread():
    video = ShotVideo(*((color, 10, "moving") for color in COLORS))

    places = video.places()

    assert places == sorted(places)
    assert len({video.shot_at(place) for place in places}) == 5
    assert places[0] < 20
    assert places[-1] > 40


def test_black_and_still_parts_are_left_out():
    video = ShotVideo(
        (COLORS[0], 20, "black"),
        (COLORS[0], 10, "moving"),
        (COLORS[1], 30, "still"),
        (COLORS[2], 10, "moving"),
        (COLORS[3], 20, "black"),
    )

    assert [video.shot_at(place) for place in video.places()] == [1, 3]


def test_a_repeated_scene_is_shown_once():
    video = ShotVideo(*((COLORS[n % 2], 5, "moving") for n in range(10)))

    assert len({video.shot_at(place) % 2 for place in video.places()}) == len(video.places()) == 2


def test_there_is_no_cut_between_the_frames_of_a_place():
    video = ShotVideo(*((COLORS[n % 6], Fraction(12, 25), "moving") for n in range(40)))

    places = video.places()

    assert len(places) == 5
    assert all(video.shot_at(place) == video.shot_at(place + Fraction(7, RATE)) for place in places)


def test_without_motion_still_scenes_are_shown():
    video = ShotVideo(*((color, 10, "still") for color in COLORS))

    assert len({video.shot_at(place) for place in video.places()}) == 5


@pytest.mark.parametrize(
    "video",
    [ShotVideo((COLORS[0], 60, "black")), ShotVideo((COLORS[0], Fraction(5, 25), "moving"))],
    ids=["all black", "shorter than a place"],
)
def test_without_a_good_place_the_beginning_is_shown(video):
    assert video.places() == [0]


def test_a_long_video_is_sampled_at_a_few_times():
    video = ShotVideo(*((COLORS[n % 6], 600, "moving") for n in range(6)))

    video.places()

    assert len(video.times_read) <= 25
    assert video.frames_read <= 3 * 8 * len(video.times_read)
