"""Flicker raises the warping error; motion of the ground truth does not."""

import pytest
import torch
from scenes import smooth_picture, to_8_bits

from vsrm_cli.evaluation.temporal import error_flicker, find_visible, warping_errors


class KnownFlow:
    """A flow network that knows how the scene moves: ``shift`` pixels to the right each frame."""

    device = torch.device("cpu")

    def __init__(self, shift):
        self.shift = shift

    def flows(self, clip):
        flow = torch.zeros(1, 1, 2, *clip.shape[-2:])
        flow[:, :, 0] = self.shift
        return flow, -flow


def moving_clip(*, frames=4, shift=3):
    return torch.stack(
        [to_8_bits(smooth_picture(40, 60, shift=(shift * t, 0))) for t in range(frames)]
    )


def test_motion_like_the_ground_truth_has_no_warping_error():
    hr = moving_clip()

    errors = warping_errors(KnownFlow(3), hr, {"same": hr, "darker": hr // 2})

    assert errors["same"] < 0.02
    assert errors["darker"] < 0.02


def test_flicker_has_the_error_of_its_size():
    hr = moving_clip()
    flickering = hr.clone()
    flickering[1::2] = flickering[1::2] - 20  # never below zero: the scene is not that dark

    errors = warping_errors(KnownFlow(3), hr, {"flickering": flickering})

    assert errors["flickering"] == pytest.approx(1000 * (20 / 255) ** 2, rel=0.05)


def test_pixels_that_leave_the_frame_are_ignored():
    forth = torch.zeros(1, 2, 8, 10)
    forth[:, 0] = 3

    seen = find_visible(forth, -forth)

    assert seen[0, :, :7].all()
    assert not seen[0, :, 7:].any()


def test_pixels_with_inconsistent_flow_are_ignored():
    forth, back = torch.zeros(1, 2, 8, 10), torch.zeros(1, 2, 8, 10)
    back[:, 0, :, 5:] = 2

    seen = find_visible(forth, back)

    assert seen[0, :, :5].all()
    assert not seen[0, :, 5:].any()


def test_flicker_counts_changing_errors_and_not_constant_ones():
    hr = torch.full((3, 3, 4, 4), 100, dtype=torch.uint8)
    blinking = hr.clone()
    blinking[1] += 6

    assert error_flicker(hr + 20, hr) == 0
    assert error_flicker(blinking, hr) == 6
