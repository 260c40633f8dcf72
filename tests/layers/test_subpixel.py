"""What neighboring frames add between the pixels of a frame."""

import torch

from vsrm_cli.layers.subpixel import CHANNELS, GAIN, PRIOR_WEIGHT, subpixel_samples


def motion(dx, dy, time=2, height=6, width=9):
    """Flows of a scene in which what is at p lies at p + (dx, dy) in the next frame."""
    flow = torch.tensor([dx, dy]).view(1, 1, 2, 1, 1).expand(1, time - 1, 2, height, width)
    return flow, -flow


def split(channels):
    """Mean differences, (B, 3, 4, 4, H, W), and weights, (B, 4, 4, H, W)."""
    colors, known = channels[:, :48], channels[:, 48:]
    return colors.unflatten(1, (3, 4, 4)) / GAIN, known.unflatten(1, (4, 4))


def ramp(time=2, height=6, width=9):
    """A clip that grows by a hundredth with each pixel to the right."""
    row = 0.3 + 0.01 * torch.arange(width, dtype=torch.float32)
    return row.expand(1, time, 3, height, width).contiguous()


def test_a_frame_alone_has_nothing_from_its_neighbors():
    flows = (torch.zeros(2, 0, 2, 5, 7),) * 2

    around = subpixel_samples(torch.rand(2, 1, 3, 5, 7), flows, 0, 2)

    assert torch.equal(around, torch.zeros(2, CHANNELS, 5, 7))


def test_without_motion_a_neighbor_adds_its_difference_at_the_center_of_each_pixel():
    clip = torch.full((1, 2, 3, 6, 9), 0.5)
    clip[:, 1] += 0.01

    differences, known = split(subpixel_samples(clip, motion(0.0, 0.0), 0, 1))

    weight = 0.25 * torch.exp(torch.tensor(-0.5 * 0.01**2 / 0.04**2))
    torch.testing.assert_close(known[0, 1:3, 1:3], weight.expand(2, 2, 6, 9))
    torch.testing.assert_close(known.sum(), known[:, 1:3, 1:3].sum())
    center = 0.01 * weight / (weight + PRIOR_WEIGHT)
    torch.testing.assert_close(differences[0, :, 1:3, 1:3], center.expand(3, 2, 2, 6, 9))


def test_a_sample_lies_where_the_flow_says_and_half_way_between_two_sub_pixels_in_both():
    # What is at p lies at p + 1/4: the pixel p of the neighbor shows what is at p - 1/4 here.
    _, known = split(subpixel_samples(ramp(), motion(0.25, 0.0), 0, 1))

    across = known.sum(1)[0, :, 3, 4]
    torch.testing.assert_close(across / across.sum(), torch.tensor([0.5, 0.5, 0.0, 0.0]))


def test_rows_and_columns_are_not_confused():
    _, known = split(subpixel_samples(ramp(), motion(0.0, 0.375), 0, 1))

    assert known[0, 0, :, 3, 4].sum() > 0.9
    assert known[0, 1:, :, 3, 4].sum() < 1e-5


def test_a_neighbor_that_is_the_shifted_frame_adds_no_difference_for_any_flow():
    clip = ramp()
    clip[:, 1] -= 0.01 * 1.25  # the scene moved to the right by 1.25 pixels

    for t, flows in ((0, motion(1.25, 0.0)), (1, motion(1.25, 0.0))):
        differences, known = split(subpixel_samples(clip, flows, t, 1))
        inside = slice(3, -3)
        assert differences[..., inside].abs().max() < 5e-4  # bicubic bends a ramp so far
        assert known[..., inside].sum((1, 2)).min() > 0.99


def test_samples_outside_of_the_neighbor_are_ignored():
    _, known = split(subpixel_samples(ramp(), motion(3.0, 0.0), 0, 1))

    assert known[..., -3:].abs().max() == 0
    assert known[..., :-3].sum((1, 2)).min() > 0.5


def test_a_neighbor_that_shows_something_else_is_not_trusted():
    clip = torch.full((1, 2, 3, 6, 9), 0.2)
    clip[:, 1, :, :, 5:] = 0.9

    _, known = split(subpixel_samples(clip, motion(0.0, 0.0), 0, 1))

    assert known[..., 6:].max() < 1e-6
    assert known[0, 1, 1, :, :4].min() > 0.2


def test_the_frame_after_the_next_is_found_along_both_flows():
    clip = ramp(time=3)
    clip[:, 1] -= 0.01 * 1.0
    clip[:, 2] -= 0.01 * 3.0
    flow = torch.zeros(1, 2, 2, 6, 9)
    flow[:, 0, 0], flow[:, 1, 0] = 1.0, 2.0

    near, far = (
        split(subpixel_samples(clip, (flow, -flow), 0, reach))[1].sum((1, 2)) for reach in (1, 2)
    )
    differences, _ = split(subpixel_samples(clip, (flow, -flow), 0, 2))

    torch.testing.assert_close(near[..., 3:5], torch.ones(1, 6, 2))
    torch.testing.assert_close(far[..., 3:5], torch.full((1, 6, 2), 2.0))
    assert differences[..., 3:5].abs().max() < 5e-4


def test_both_sides_count_alike():
    clip = torch.rand(1, 3, 3, 6, 9) * 0.05 + 0.4
    flow = torch.rand(1, 2, 2, 6, 9)

    forward = subpixel_samples(clip, (flow, -flow), 1, 1)
    turned = subpixel_samples(clip.flip(1), (-flow.flip(1), flow.flip(1)), 1, 1)

    torch.testing.assert_close(forward, turned)
