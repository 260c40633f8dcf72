"""What the tests of operators need around them: poisoned memory, and one kernel of several."""

import os

import pytest
import torch

from vsrm_cli.ops.selective_scan import selective_scan

# cuBLAS is deterministic with a workspace of fixed size only; it is read when CUDA starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """Fill uninitialized tensors with NaN, so that what is read before it is written is seen."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def run_with(monkeypatch):
    """Run the scan by one implementation, on its device: ``triton``, or ``triton on cuda``."""
    needed = {"compiled": "numba", "triton": "triton", "mamba_ssm": "selective_scan_cuda"}

    def run(kernel, inputs, **options):
        name, _, device = kernel.partition(" on ")
        if name in needed:
            pytest.importorskip(needed[name])
        if name == "triton" and not device:
            monkeypatch.setenv("TRITON_INTERPRET", "1")
        monkeypatch.setenv("VSRM_KERNELS", name)
        moved = {
            key: x.to(device or "cpu") if isinstance(x, torch.Tensor) else x
            for key, x in inputs.items()
        }
        return selective_scan(**moved, **options).cpu()

    return run
