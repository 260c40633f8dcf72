"""The flow network works at any size, in pixels of the picture it was given."""

import pytest
import torch
from networks import count_parameters, draw_randomly
from torch import nn

from vsrm_cli.layers.spynet import MEAN, STD, FlowLevel, SpyNet


def make_net(levels):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SpyNet(levels=levels, widths=(8, 4), kernel=3).eval().requires_grad_(False)


def make_constant(net, dx, dy):
    """Make every level correct the flow by the same vector, whatever it sees."""
    for level in net.basic_module:
        last = level.basic_module[-1]
        nn.init.zeros_(last.weight)
        last.bias.copy_(torch.tensor([dx, dy]))
    return net


class Recorder(nn.Module):
    """Stands in for a level: keeps what it was given, corrects nothing."""

    def forward(self, ref, warped, flow):
        self.ref, self.warped, self.flow = ref, warped, flow
        return torch.zeros_like(flow)


def full_size():
    with torch.device("meta"):
        return SpyNet(levels=6, widths=(32, 64, 32, 16), kernel=7)


def test_the_full_network_has_the_published_size():
    assert count_parameters(full_size()) == 1_440_300


def test_the_full_network_has_the_names_of_the_public_checkpoints():
    names = set(full_size().state_dict())

    assert names == {
        f"basic_module.{level}.basic_module.{layer}.{kind}"
        for level in range(6)
        for layer in (0, 2, 4, 6, 8)
        for kind in ("weight", "bias")
    }


def test_there_is_a_relu_between_convolutions_and_none_after_the_last():
    level = FlowLevel((8, 4), 3)

    assert [type(layer) for layer in level.basic_module] == [
        nn.Conv2d,
        nn.ReLU,
        nn.Conv2d,
        nn.ReLU,
        nn.Conv2d,
    ]


@pytest.mark.parametrize("levels", [1, 4, 6])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 2), (33, 40)])
def test_any_size_has_a_flow(height, width, levels):
    ref, supp = draw_randomly(2, 2, 3, height, width).unbind()

    flow = make_net(levels)(ref, supp)

    assert flow.shape == (2, 2, height, width)
    assert flow.isfinite().all()


def test_each_level_doubles_the_coarser_flow_and_corrects_it():
    # (1, -2) at the coarsest level, then twice: double, and add the same again.
    net = make_constant(make_net(3), 1.0, -2.0)

    flow = net(*draw_randomly(2, 1, 3, 16, 24).unbind())

    torch.testing.assert_close(flow[:, 0], torch.full((1, 16, 24), 7.0))
    torch.testing.assert_close(flow[:, 1], torch.full((1, 16, 24), -14.0))


def test_the_flow_of_resized_frames_is_scaled_back():
    # 12 x 20 pixels are worked on as 16 x 24: a flow of 12 there is 10 here, and one of 8 is 6.
    net = make_constant(make_net(4), 12 / 15, 8 / 15)

    flow = net(*draw_randomly(2, 1, 3, 12, 20).unbind())

    torch.testing.assert_close(flow[:, 0], torch.full((1, 12, 20), 10.0))
    torch.testing.assert_close(flow[:, 1], torch.full((1, 12, 20), 6.0))


def test_a_level_sees_the_source_warped_along_the_flow_so_far():
    net = make_constant(make_net(2), 1.0, 0.0)
    net.basic_module[1] = seen = Recorder()
    ref, supp = draw_randomly(2, 1, 3, 8, 12).unbind()

    net(ref, supp)

    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
    torch.testing.assert_close(seen.flow[:, 0], torch.full((1, 8, 12), 2.0))
    torch.testing.assert_close(seen.ref, (ref - mean) / std)
    torch.testing.assert_close(
        seen.warped[..., :10], ((supp - mean) / std)[..., 2:], rtol=0, atol=1e-4
    )
    torch.testing.assert_close(seen.warped[..., 10], seen.warped[..., 11], rtol=0, atol=1e-4)


def test_the_coarsest_level_sees_means_of_squares_of_pixels():
    net = make_net(3)
    net.basic_module[0] = seen = Recorder()
    ref, supp = draw_randomly(2, 1, 3, 8, 8).unbind()

    net(ref, supp)

    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
    squares = ref.unflatten(3, (2, 4)).unflatten(2, (2, 4)).mean((3, 5))
    torch.testing.assert_close(seen.ref, (squares - mean) / std, rtol=1e-5, atol=1e-5)
    assert not seen.flow.any()


def test_a_network_of_zeros_sees_no_motion():
    flow = make_constant(make_net(4), 0.0, 0.0)(*draw_randomly(2, 1, 3, 9, 13).unbind())

    assert not flow.any()


def test_images_of_a_batch_are_independent():
    net = make_net(4)
    ref, supp = draw_randomly(2, 3, 3, 9, 13).unbind()

    together = net(ref, supp)

    for n in range(3):
        torch.testing.assert_close(together[n], net(ref[n, None], supp[n, None])[0])
