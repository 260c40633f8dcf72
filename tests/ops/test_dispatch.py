"""Which implementation of the selective scan runs, and the error for one that cannot."""

import pytest
import torch

from vsrm_cli.errors import UsageError
from vsrm_cli.ops import dispatch as choice
from vsrm_cli.ops import selective_scan as door
from vsrm_cli.ops.selective_scan import selective_scan

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def install(monkeypatch):
    """Make the program believe that exactly these packages are installed."""
    monkeypatch.delenv("VSRM_KERNELS", raising=False)

    def only(*modules):
        monkeypatch.setattr(choice, "_is_installed", lambda module: module in modules)

    return only


def chosen(device=CPU, dtype=torch.float32, *, is_shared=True):
    return choice.choose_kernel(device, dtype, is_shared=is_shared)


@pytest.mark.parametrize("kernel", choice.NAMES)
def test_the_environment_decides_which_implementation_runs(kernel, monkeypatch):
    called = []

    def stub_network(name):
        def scan(u, *_, **__):
            called.append(name)
            return u

        return scan

    monkeypatch.setattr(door, "_implementation", stub_network)
    monkeypatch.setattr(choice, "_missing", lambda *_: "")
    monkeypatch.setenv("VSRM_KERNELS", kernel)
    tokens, weights = torch.zeros(1, 4, 8), torch.zeros(1, 3, 8)

    selective_scan(tokens, tokens, torch.zeros(4, 3), weights, weights)

    assert called == [kernel]


@pytest.mark.parametrize(
    ("device", "installed", "fastest"),
    [
        (CPU, ("numba", "triton"), "compiled"),
        (CPU, ("triton",), "chunked"),
        (CUDA, ("numba", "triton", "mamba_ssm", "selective_scan_cuda"), "triton"),
        (CUDA, ("mamba_ssm", "selective_scan_cuda"), "mamba_ssm"),
        (CUDA, ("mamba_ssm",), "chunked"),
        (torch.device("mps"), ("numba", "triton"), "chunked"),
    ],
)
def test_by_default_the_fastest_installed_implementation_runs(device, installed, fastest, install):
    install(*installed)

    assert chosen(device) == fastest


def test_by_default_an_input_goes_to_an_implementation_that_supports_it(install):
    install("numba", "triton", "mamba_ssm", "selective_scan_cuda")

    assert chosen(CPU, torch.float64) == "chunked"
    assert chosen(CPU, is_shared=False) == "chunked"
    assert chosen(CPU, torch.float16) == "compiled"
    assert chosen(CUDA, torch.float64) == "chunked"
    assert chosen(CUDA, is_shared=False) == "mamba_ssm"
    assert chosen(CUDA, torch.bfloat16) == "triton"


def test_an_unknown_implementation_is_refused_with_the_known_ones(monkeypatch):
    monkeypatch.setenv("VSRM_KERNELS", "magic")

    with pytest.raises(UsageError, match=r"'magic'.* auto, reference, chunked, compiled"):
        chosen()


@pytest.mark.parametrize(
    ("kernel", "installed", "device", "message"),
    [
        ("compiled", (), CPU, "pip install numba"),
        ("compiled", ("numba",), CUDA, "not on cuda"),
        ("triton", (), CUDA, "pip install triton"),
        ("triton", ("triton",), CPU, "not on cpu"),
        ("mamba_ssm", (), CUDA, "not installed"),
        ("mamba_ssm", ("mamba_ssm",), CUDA, "without its CUDA scan"),
        ("mamba_ssm", ("mamba_ssm", "selective_scan_cuda"), CPU, "not on cpu"),
    ],
)
def test_forcing_an_unavailable_implementation_says_why(
    kernel, installed, device, message, install, monkeypatch
):
    install(*installed)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("VSRM_KERNELS", kernel)

    with pytest.raises(UsageError, match=f"VSRM_KERNELS is '{kernel}', but .*{message}"):
        chosen(device)


@pytest.mark.parametrize(("kernel", "device"), [("compiled", CPU), ("triton", CUDA)])
@pytest.mark.parametrize(
    ("kind", "message"),
    [({"dtype": torch.float64}, "float64"), ({"is_shared": False}, "shared by all channels")],
)
def test_a_forced_kernel_never_falls_back_silently(
    kernel, device, kind, message, install, monkeypatch
):
    install("numba", "triton")
    monkeypatch.setenv("VSRM_KERNELS", kernel)

    with pytest.raises(UsageError, match=message):
        chosen(device, **kind)


def test_all_implementations_are_listed_with_the_reason_why_not(install):
    install("numba")

    kernels = {kernel.name: kernel for kernel in choice.usable_kernels(CPU)}

    assert tuple(kernels) == choice.NAMES
    assert [name for name, kernel in kernels.items() if kernel.is_usable] == [
        "reference",
        "chunked",
        "compiled",
    ]
    assert "not installed" in kernels["mamba_ssm"].reason
