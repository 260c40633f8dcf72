"""Feed-forward layers and upsamplers: what they compute, and what sizes they give."""

import pytest
import torch
from networks import count_parameters, draw_randomly
from torch.nn import functional

from vsrm_cli.layers.blocks import (
    TGFN,
    ResidualBlock,
    TwoStepUpsampler,
    channels_last,
)


def make(kind, *sizes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(*sizes).eval().requires_grad_(False)


def test_channels_last_changes_the_layout_and_no_value():
    x = draw_randomly(2, 3, 4, 5)

    y = channels_last(x)

    assert torch.equal(x, y)
    assert y.stride() == (60, 1, 15, 3)


def test_a_residual_block_adds_two_convolutions():
    block, x = make(ResidualBlock, 4), draw_randomly(1, 4, 5, 6) - 0.5

    y = block(x)

    torch.testing.assert_close(y, x + block.conv2(functional.relu(block.conv1(x))))
    assert (y - x).abs().max() < 0.1  # a deep stack starts plain


def test_the_gated_layer_matches_its_formula():
    tgfn, x = make(TGFN, 6, 5), draw_randomly(2, 3, 4, 5, 6) - 0.5

    y = tgfn(x)

    a, b = tgfn.proj_in(x).split(5, dim=-1)
    a, b = (n(h).movedim(-1, 1) for n, h in ((tgfn.norm1, a), (tgfn.norm2, b)))
    a, b = (c(h).movedim(1, -1) for c, h in ((tgfn.dw1, a), (tgfn.dw2, b)))
    gate = b * 0.5 * (1 + torch.erf(b / 2**0.5))
    torch.testing.assert_close(y, tgfn.proj_out(a * gate), rtol=1e-5, atol=1e-6)


def test_the_published_gated_layer_has_its_size():
    with torch.device("meta"):
        assert count_parameters(TGFN(120, 200)) == 84_520


def test_the_gated_layer_sees_one_pixel_and_one_frame_around():
    tgfn, x = make(TGFN, 6, 5), draw_randomly(1, 5, 5, 5, 6) - 0.5
    changed = x.clone()
    changed[:, 2, 2, 2] += 1

    is_changed = (tgfn(x) - tgfn(changed)).abs().amax(dim=(0, 4)) > 1e-7

    near = torch.zeros(5, 5, 5, dtype=torch.bool)
    near[1:4, 1:4, 1:4] = True
    assert torch.equal(is_changed, near)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (8, 2)])
def test_the_upsampler_has_scale_4(height, width):
    large = make(TwoStepUpsampler, 6, 5)(draw_randomly(2, 6, height, width))

    assert large.shape == (2, 3, 4 * height, 4 * width)
    assert large.isfinite().all()


def test_the_published_upsampler_has_its_size():
    with torch.device("meta"):
        assert count_parameters(TwoStepUpsampler(120, 64)) == 403_267


def test_the_two_step_upsampler_has_no_activation_after_its_first_convolution():
    up, x = make(TwoStepUpsampler, 6, 5), draw_randomly(1, 6, 3, 4) - 0.5

    y = up(x)

    z = up.upconv1(up.conv_before_upsample(x))
    z = up.upconv2(functional.leaky_relu(functional.pixel_shuffle(z, 2), 0.1))
    z = up.conv_hr(functional.leaky_relu(functional.pixel_shuffle(z, 2), 0.1))
    torch.testing.assert_close(y, up.conv_last(functional.leaky_relu(z, 0.1)))
