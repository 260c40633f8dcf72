"""The discriminator scores every position, learns, and has a bounded spectral norm."""

import pytest
import torch
from networks import draw_randomly

from vsrm_cli.training.perceptual.discriminator import UNetDiscriminator
from vsrm_cli.training.perceptual.losses import discriminator_loss


def make_discriminator(width=4):
    torch.manual_seed(0)
    return UNetDiscriminator(width)


def test_there_is_one_score_for_every_two_by_two_pixels():
    assert make_discriminator()(draw_randomly(2, 3, 32, 44)).shape == (2, 1, 16, 22)


def test_a_score_depends_on_distant_pixels():
    frames = draw_randomly(1, 3, 64, 64).requires_grad_()

    make_discriminator()(frames)[0, 0, 16, 16].backward()

    assert frames.grad[..., 32, 32].abs().sum() > 0
    assert frames.grad[..., 32, 54].abs().sum() > 0


def test_inner_layers_have_a_spectral_norm_of_one():
    network = make_discriminator()
    for _ in range(30):
        network(draw_randomly(1, 3, 16, 16))

    for layer in (*network.down, *network.up, network.merge):
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        assert abs(largest.item() - 1) < 0.05


@pytest.mark.slow
def test_it_learns_to_distinguish_blurred_from_textured_frames():
    network = make_discriminator(8)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for seed in range(40):
        hr = draw_randomly(4, 3, 32, 32, seed=seed)
        blurred = torch.nn.functional.avg_pool2d(hr, 5, stride=1, padding=2)
        loss = discriminator_loss(network(hr), network(blurred))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    assert losses[-1] < 0.2 < 0.6 < losses[0]


def test_a_restored_discriminator_gives_the_same_bits():
    network, frames = make_discriminator(), draw_randomly(1, 3, 32, 32)
    network(frames)  # updates the vectors of the spectral norm
    copy = UNetDiscriminator(4)
    copy.load_state_dict(network.state_dict())

    assert torch.equal(network(frames), copy(frames))
    assert torch.equal(network(frames), copy(frames))
