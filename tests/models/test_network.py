"""What holds for every network: it runs through a window without waiting for its device."""

import contextlib
from dataclasses import replace

import pytest
import torch
from networks import (
    PAPER_LIKE,
    RELEASED_LIKE,
    TINY,
    TINY_GSM,
    TINY_VSRM,
    draw_randomly,
    make_network,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What makes the processor wait for a GPU: a value that the program reads or that decides over the
# shape of a result, and numbers of the program that become a tensor.
WAITING = {
    *("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "equal"),
    *("nonzero", "masked_select", "unique", "tensor", "as_tensor", "new_tensor", "from_numpy"),
}


class Copies(TorchDispatchMode):
    """Notes what reads a value or brings one, also inside of what PyTorch composes."""

    def __init__(self):
        super().__init__()
        self.noted = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        values = tree_leaves((args, kwargs, result))
        devices = {value.device.type for value in values if isinstance(value, torch.Tensor)}
        name = function.overloadpacket.__name__
        if name in ("lift_fresh", "_local_scalar_dense", "nonzero") or "cpu" in devices:
            self.noted.append(name)
        return result


class Waits(TorchFunctionMode):
    """Notes each call that reads from a device, or brings something to it."""

    def __init__(self):
        super().__init__()
        self.noted = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = function.__name__
        places = args[1] if name in ("__getitem__", "__setitem__") else ()
        if name in WAITING or any(map(is_choice, parts_of(places))):
            self.noted.append(name)
        result = function(*args, **(kwargs or {}))
        values = tree_leaves((args, kwargs, result))
        if len({value.device for value in values if isinstance(value, torch.Tensor)}) > 1:
            self.noted.append(f"{name} between devices")
        return result


def parts_of(places):
    """The parts of an index."""
    return places if isinstance(places, tuple) else (places,)


def is_choice(place):
    """Whether a part of an index is no slice, but picked out by a list or by a condition."""
    return isinstance(place, list) or (
        isinstance(place, torch.Tensor) and place.dtype == torch.bool
    )


SHORT = replace(PAPER_LIKE, branches=TINY_VSRM.branches, dambs=1)  # its blocks are all alike
CONFIGS = [TINY_VSRM, SHORT, TINY, TINY_GSM, RELEASED_LIKE]
NAMES = ["tiny", "paper", "compact", "tiny gsm", "released"]


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
@torch.inference_mode()
def test_nothing_inside_a_window_waits_for_the_device(config):
    # A device that has no values: what asks for them fails or is seen.
    network = make_network(config).to("meta")
    clip = torch.empty(1, 3, 3, 19, 21, device="meta")
    network(clip)  # masks are made once for each size

    with Waits() as waits, Copies() as copies:
        network(clip)

    assert not waits.noted
    assert not copies.noted


@torch.inference_mode()
@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.new_tensor([1.0]),
        lambda x: x[:, [0, 2]],
        lambda x: x + torch.ones(3).to(x.device),
        lambda x: x.cpu(),
        lambda x: bool(x.sum() > 0),
        lambda x: x[x > 0],
    ],
    ids=["numbers", "a list as an index", "a copy", "a result", "a question", "a choice"],
)
def test_a_synchronizing_operation_is_detected(wait):
    with Waits() as waits, contextlib.suppress(NotImplementedError, RuntimeError):
        wait(torch.empty(1, 3, device="meta"))  # which has no values to give

    assert waits.noted


class MixedTypes(TorchDispatchMode):
    """Notes each operator, other than those that promote types, that gets several of them."""

    PROMOTING = ("cat", "copy_", "_to_copy")

    def __init__(self):
        super().__init__()
        self.noted = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        values = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        found = {x.dtype for x in values if x.is_floating_point()}
        name = function.overloadpacket.__name__
        promotes = torch.Tag.pointwise in function.tags or name in self.PROMOTING
        if len(found) > 1 and not promotes:
            self.noted.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
@torch.inference_mode()
def test_inputs_and_weights_of_a_layer_are_of_one_type(config, dtype):
    # A CPU normalizes halves with weights in float32, CUDA refuses to.
    network = make_network(config)
    network.set_precision(dtype)
    clip = draw_randomly(1, 3, 3, 19, 21).to(dtype)

    with MixedTypes() as mixed:
        network(clip)

    assert not mixed.noted


@pytest.mark.parametrize("config", [TINY, TINY_VSRM, TINY_GSM], ids=["compact", "vsrm", "gsm"])
def test_bfloat16_does_not_round_the_frames(config):
    network = make_network(config).requires_grad_(False)
    for name, weights in network.named_parameters():
        if "conv_last" in name:  # without its correction, the enlarged frame is left
            weights.zero_()
    clip = torch.full((1, 2, 3, 8, 8), 700.4 / 1023)
    network.set_precision(torch.bfloat16)

    large = network(clip.to(network.clip_dtype))

    torch.testing.assert_close(large, torch.full_like(large, 700.4 / 1023), atol=1e-5, rtol=0)
