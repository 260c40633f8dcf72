"""What the tests of the selective scan share: inputs, gradients, and how near is near enough."""

import torch

FORMS = ["shared", "one group", "grouped", "constant"]

# Measured by the largest value: where terms cancel, no digit of a small one is certain. float32
# keeps 1e-7, and sums of some hundred terms in another order lose two or three digits of that.
# The half types round a float32 result once, by half a unit of their last digit; where two such
# results lie on different sides of a border, they are a whole unit apart.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}


def assert_near(actual, expected):
    assert actual.dtype == expected.dtype
    scale = expected.abs().max().item()
    tolerance = TOLERANCE[expected.dtype]
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * max(scale, 1e-6))


def scan_inputs(batch, channel, state, length, *, form="shared", seed=0):
    """What a scan takes; ``form`` says how B and C are shaped."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=rng)

    weights = {
        "shared": (batch, state, length),
        "one group": (batch, 1, state, length),
        "grouped": (batch, channel // 2, state, length),
        "constant": (channel, state),
    }[form]
    return {
        "u": draw(batch, channel, length),
        "delta": draw(batch, channel, length).exp(),
        "A": -draw(channel, state).exp(),
        "B": draw(*weights),
        "C": draw(*weights),
        "D": draw(channel),
    }


def with_all_options(inputs):
    """The inputs with a gate, a bias and an addition as well; the step sizes are raw."""
    rng = torch.Generator().manual_seed(99)
    u = inputs["u"]
    return {
        **inputs,
        "delta": inputs["delta"].log(),
        "z": torch.randn(u.shape, generator=rng),
        "delta_bias": torch.randn(u.shape[1], generator=rng),
        "add": torch.randn(u.shape, generator=rng),
        "delta_softplus": True,
    }


def tokens_first(inputs):
    """The same inputs in the other layout, dense in memory."""
    turned = dict(inputs)
    for name in ("u", "delta", "z", "add", "B", "C"):
        if name in inputs and inputs[name].dim() > 2:
            turned[name] = inputs[name].movedim(-1, 1).contiguous()
    return turned


def in_type(inputs, dtype):
    """The inputs with everything that varies over the tokens in another type."""
    names = ("u", "delta", "z", "add", "B", "C")
    return {name: x.to(dtype) if name in names else x for name, x in inputs.items()}


def in_float32(inputs):
    """The inputs, widened again."""
    return {name: x.float() if isinstance(x, torch.Tensor) else x for name, x in inputs.items()}


def gradients(scan, inputs, **options):
    """The output, and the gradient of a weighted sum of it for each input tensor."""
    leaves = {
        name: x.clone().requires_grad_() if isinstance(x, torch.Tensor) else x
        for name, x in inputs.items()
    }
    y = scan(leaves, **options)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(y)
    (y * weights).sum().backward()
    found = {name: x.grad for name, x in leaves.items() if isinstance(x, torch.Tensor)}
    return y.detach(), found
