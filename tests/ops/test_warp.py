"""Warping samples along the flow: result(p) = image(p + flow(p)), x before y."""

import pytest
import torch
from scenes import constant_flow

from vsrm_cli.ops.warp import pixel_grid, sample_points, sample_tokens, warp


def numbered(height, width):
    """A picture whose value is ten times the row plus the column."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (10.0 * y + x)[None, None]


def assert_same(actual, expected):
    # Coordinates of pictures this small lose no more than a millionth of a pixel.
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_the_grid_has_x_first():
    grid = pixel_grid(2, 3)

    assert grid[0].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert grid[1].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_zero_flow_gives_the_image():
    picture = numbered(5, 7)

    assert_same(warp(picture, torch.zeros(1, 2, 5, 7)), picture)


def test_a_flow_to_the_right_samples_pixels_to_the_right():
    picture = numbered(3, 5)

    warped = warp(picture, constant_flow(2.0, 0.0, 3, 5))

    assert_same(warped[..., :3], picture[..., 2:])
    assert_same(warped[..., 3:], torch.zeros(1, 1, 3, 2))


def test_a_flow_down_samples_pixels_below():
    picture = numbered(4, 3)

    warped = warp(picture, constant_flow(0.0, 1.0, 4, 3))

    assert_same(warped[:, :, :3], picture[:, :, 1:])
    assert_same(warped[:, :, 3:], torch.zeros(1, 1, 1, 3))


def test_border_padding_repeats_the_last_pixel():
    picture = numbered(3, 4)

    warped = warp(picture, constant_flow(-2.0, 1.0, 3, 4), padding="border")

    assert_same(
        warped[0, 0], torch.tensor([[10.0, 10, 10, 11], [20, 20, 20, 21], [20, 20, 20, 21]])
    )


def test_between_pixels_the_value_is_interpolated():
    picture = numbered(3, 4)

    warped = warp(picture, constant_flow(0.25, 0.5, 3, 4))

    assert_same(warped[0, 0, :2, :3], picture[0, 0, :2, :3] + 5.25)


def test_each_pixel_follows_its_own_flow():
    picture = numbered(2, 3)
    flow = torch.tensor([[[2.0, 0, -2], [0, 1, 0]], [[0, 1, 0], [-1, 0, 0]]])[None]

    warped = warp(picture, flow)

    assert_same(warped[0, 0], torch.tensor([[2.0, 11, 0], [0, 12, 12]]))


def test_each_image_of_a_batch_has_its_own_flow():
    pictures = numbered(3, 4).repeat(2, 1, 1, 1)
    flows = torch.cat((constant_flow(1.0, 0.0, 3, 4), constant_flow(0.0, 1.0, 3, 4)))

    warped = warp(pictures, flows)

    assert_same(warped[:1], warp(pictures[:1], flows[:1]))
    assert_same(warped[1:], warp(pictures[1:], flows[1:]))


def test_points_may_be_more_or_fewer_than_pixels():
    points = torch.tensor([[3.0, 0.5], [2.0, 0.0]]).view(1, 2, 1, 2)

    values = sample_points(numbered(4, 5), points)

    assert_same(values, torch.tensor([[[[23.0, 0.5]]]]))


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4), (4, 1)])
def test_an_image_one_pixel_wide_or_high_is_unchanged_without_flow(height, width, padding):
    picture = numbered(height, width) + 1

    assert_same(warp(picture, torch.zeros(1, 2, height, width), padding=padding), picture)


def test_an_image_one_pixel_wide_is_warped_vertically():
    warped = warp(numbered(4, 1), constant_flow(0.0, 1.0, 4, 1), padding="border")

    assert_same(warped[0, 0, :, 0], torch.tensor([10.0, 20, 30, 30]))


@pytest.mark.parametrize(("dx", "dy", "height", "width"), [(1.0, 0.0, 3, 1), (0.0, -1.0, 1, 3)])
def test_beside_an_image_one_pixel_wide_or_high_is_padding(dx, dy, height, width):
    warped = warp(numbered(height, width) + 1, constant_flow(dx, dy, height, width))

    assert_same(warped, torch.zeros(1, 1, height, width))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_sampled_at_exact_positions(dtype):
    # In float16 no number lies between 512 and 512.5, in bfloat16 none between 512 and 516.
    picture = torch.zeros(1, 1, 1, 600, dtype=dtype)
    picture[..., 513] = 1

    warped = warp(picture, constant_flow(0.125, 0.0, 1, 600))

    assert warped.dtype == dtype
    assert warped[0, 0, 0, 511:515].tolist() == [0, 0.125, 0.875, 0]


def test_gradients_reach_the_image_and_the_flow():
    # A bright column at x = 2 seen from x = 1.5: the value is half, and grows by one a pixel.
    picture = torch.tensor([[[[0.0, 0, 1, 0]]]], requires_grad=True)
    flow = torch.tensor([[[[0.0, 0.5, 0, 0]], [[0.0, 0, 0, 0]]]], requires_grad=True)

    warp(picture, flow)[0, 0, 0, 1].backward()

    assert picture.grad[0, 0, 0].tolist() == pytest.approx([0, 0.5, 0.5, 0], abs=1e-6)
    assert flow.grad[0, 0, 0].tolist() == pytest.approx([0, 1, 0, 0], abs=1e-6)


def test_tokens_are_read_pixel_by_pixel_and_beyond_the_border_from_it():
    picture = torch.cat((numbered(2, 3), 100 + numbered(2, 3)), dim=1)
    grid = pixel_grid(2, 3)
    points = torch.stack((grid, grid + torch.tensor([1.0, 9.0]).view(2, 1, 1)))[None]

    tokens = sample_tokens(picture, points)

    # Of pixel (0, 1): itself, then to the right and far below, each with both channels.
    assert_same(tokens[1], torch.tensor([[1.0, 101.0], [12.0, 112.0]]))
    assert_same(tokens[5], torch.tensor([[12.0, 112.0], [12.0, 112.0]]))
