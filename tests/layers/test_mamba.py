"""The mixer matches the paper in each direction, and starts with the published decays."""

import pytest
import torch
from networks import PAPER_LIKE, count_parameters, draw_randomly, make_network
from torch.nn import functional

from vsrm_cli.layers.deformable_alignment import DCA
from vsrm_cli.layers.mamba import MambaMixer, SelectiveSSM

# Two float32 computations of the same sums in another order.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def make_ssm(*, reverse=False, channels=6, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ssm = SelectiveSSM(channels, state=3, conv=4, rank=2, reverse=reverse)
        with torch.no_grad():
            ssm.dt_proj.bias.uniform_(-1, 1)  # steps large enough that states are forgotten
            ssm.D.normal_()
    return ssm.eval().requires_grad_(False)


def make_mixer(*, bidirectional):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        mixer = MambaMixer(6, expand=2, state=3, conv=4, rank=2, bidirectional=bidirectional)
    return mixer.eval().requires_grad_(False)


def tokens(length, channels=6):
    return draw_randomly(2, length, channels, seed=length) * 2 - 1


def as_the_paper_writes(ssm, u):
    """One direction onward, for tokens (B, L, d), one step after another."""
    rank, state = ssm.dt_proj.in_features, ssm.A_log.shape[1]
    padded = functional.pad(u.transpose(1, 2), (ssm.conv1d.kernel_size[0] - 1, 0))
    v = functional.silu(ssm.conv1d(padded)).transpose(1, 2)
    h, y = torch.zeros(u.shape[0], u.shape[2], state), []
    for t in range(u.shape[1]):
        low, B, C = ssm.x_proj(v[:, t]).split((rank, state, state), dim=-1)
        step = functional.softplus(ssm.dt_proj(low))[..., None]
        h = torch.exp(-step * ssm.A_log.exp()) * h + step * B[:, None] * v[:, t, :, None]
        y.append((h * C[:, None]).sum(-1) + ssm.D * v[:, t])
    return torch.stack(y, dim=1)


@pytest.mark.parametrize("length", [1, 2, 3, 29])
def test_one_direction_matches_its_formula(length):
    ssm, u = make_ssm(), tokens(length)

    torch.testing.assert_close(ssm(u), as_the_paper_writes(ssm, u), **TOLERANCE)


@pytest.mark.parametrize("length", [1, 2, 3, 29])
def test_the_reverse_direction_equals_the_forward_one_on_flipped_tokens(length):
    # Turned around before the causal convolution: it must look at later tokens.
    onward, backward, u = make_ssm(), make_ssm(reverse=True), tokens(length)
    backward.load_state_dict(onward.state_dict())

    torch.testing.assert_close(backward(u), onward(u.flip(1)).flip(1), **TOLERANCE)


def test_a_forward_scan_is_causal():
    ssm, u = make_ssm(), tokens(20)
    changed = u.clone()
    changed[:, 12:] += 1

    before, after = ssm(u), ssm(changed)

    torch.testing.assert_close(before[:, :12], after[:, :12], rtol=0, atol=1e-6)
    assert (before[:, 12:] - after[:, 12:]).abs().amin(dim=(0, 2)).min() > 1e-4


def test_a_reverse_scan_is_anticausal():
    ssm, u = make_ssm(reverse=True), tokens(20)
    changed = u.clone()
    changed[:, :12] += 1

    before, after = ssm(u), ssm(changed)

    torch.testing.assert_close(before[:, 12:], after[:, 12:], rtol=0, atol=1e-6)
    assert (before[:, :12] - after[:, :12]).abs().amin(dim=(0, 2)).min() > 1e-4


def test_the_mixer_gates_the_sum_of_its_directions():
    mixer, x = make_mixer(bidirectional=True), tokens(17)
    onward, backward = mixer.ssm
    u, z = mixer.in_proj(x).chunk(2, dim=-1)

    y = mixer(x)

    both = as_the_paper_writes(onward, u) + as_the_paper_writes(backward, u.flip(1)).flip(1)
    torch.testing.assert_close(y, mixer.out_proj(both * functional.silu(z)), **TOLERANCE)


def test_the_fused_sum_and_gate_have_the_gradients_of_separate_ones():
    mixer, x = make_mixer(bidirectional=True).requires_grad_(), tokens(9)
    weights = list(mixer.parameters())
    u, z = mixer.in_proj(x).chunk(2, dim=-1)

    y = mixer(x)

    expected = mixer.out_proj((mixer.ssm[0](u) + mixer.ssm[1](u)) * functional.silu(z))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)
    slopes = torch.autograd.grad(expected.square().sum(), weights)
    found = torch.autograd.grad(y.square().sum(), weights)
    for slope, other in zip(slopes, found, strict=True):
        torch.testing.assert_close(other, slope, rtol=1e-4, atol=1e-5 * slope.abs().max().item())


def test_a_forward_mixer_is_causal():
    mixer, x = make_mixer(bidirectional=False), tokens(9)
    u, z = mixer.in_proj(x).chunk(2, dim=-1)

    y = mixer(x)

    scanned = as_the_paper_writes(mixer.ssm[0], u)
    torch.testing.assert_close(y, mixer.out_proj(scanned * functional.silu(z)), **TOLERANCE)


@pytest.mark.parametrize(("bidirectional", "parameters"), [(True, 108_960), (False, 97_680)])
def test_the_published_mixers_have_their_size(bidirectional, parameters):
    with torch.device("meta"):
        mixer = MambaMixer(120, expand=2, state=8, conv=4, rank=8, bidirectional=bidirectional)

    assert count_parameters(mixer) == parameters


def scans_of(network):
    return [m for m in network.modules() if isinstance(m, SelectiveSSM | DCA)]


def test_a_whole_network_starts_with_steps_from_a_thousandth_to_a_tenth():
    # A network's own initialization of all linear layers would set the biases to zero: steps 0.69.
    scans = scans_of(make_network(PAPER_LIKE, randomized=False))

    steps = torch.cat([functional.softplus(scan.dt_proj.bias) for scan in scans])

    assert len(scans) == 4 * 2 * 3 + 1
    assert steps.min() >= 1e-3 * 0.999
    assert steps.max() <= 1e-1 * 1.001


def test_the_first_steps_are_spread_evenly_over_their_logarithm():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ssm = SelectiveSSM(3000, state=1, conv=1, rank=1, reverse=False)

    steps = functional.softplus(ssm.dt_proj.bias).log10()

    shares = torch.histc(steps, bins=4, min=-3, max=-1) / 3000
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.03)  # three deviations


def test_a_whole_network_starts_with_decays_one_to_n_and_a_skip_of_one():
    for scan in scans_of(make_network(randomized=False)):
        rates = scan.A_log.exp()
        torch.testing.assert_close(rates, torch.tensor([1.0, 2.0]).expand_as(rates))
        assert torch.equal(scan.D, torch.ones_like(scan.D))


def test_a_whole_network_keeps_the_step_projections_as_they_were_drawn():
    # Evenly within rank^-0.5 = 1, not as the linear layers around them.
    scans = scans_of(make_network(PAPER_LIKE, randomized=False))

    weights = torch.cat([scan.dt_proj.weight.flatten() for scan in scans])

    assert weights.abs().max() <= 1
    assert weights.std().item() == pytest.approx(3**-0.5, rel=0.15)


@pytest.mark.parametrize(
    ("ending", "deviation"),
    # What ends a residual starts near zero; the rest keeps the size of its 8 or 16 inputs.
    [("out_proj", 0.02), ("proj_out", 0.02), ("in_proj", 8**-0.5), ("x_proj", 16**-0.5)],
)
def test_a_whole_network_starts_its_linear_layers_at_their_size(ending, deviation):
    branches = make_network(PAPER_LIKE, randomized=False).branches

    weights = [m.weight.flatten() for name, m in branches.named_modules() if name.endswith(ending)]

    assert torch.cat(weights).std().item() == pytest.approx(deviation, rel=0.1)
