"""Shared fixtures, GPU tests, and what encoders that take the whole machine change for tests."""

import gc
import os
from contextlib import suppress
from importlib.util import find_spec

import pytest
import torch
from browser import Browser
from stub_network import load_nearest

if find_spec("triton") and not torch.cuda.is_available():
    # Kernels that are imported under this setting run on the CPU, by Triton's interpreter. Here,
    # because Triton must see it before any test imports something that imports Triton.
    os.environ["TRITON_INTERPRET"] = "1"
    import vsrm_cli.ops.fused_triton_kernels
    import vsrm_cli.ops.selective_scan.triton_kernels  # noqa: F401

    del os.environ["TRITON_INTERPRET"]


# SVT-AV1 reads this once in a process: tests that draw AV1 sources would make it talk for good.
os.environ.setdefault("SVT_LOG", "1")


def pytest_collection_finish():
    # Thousands of tests stay in memory: searched at each collection of garbage, they take time.
    gc.freeze()


def pytest_runtest_teardown():
    """Take back the real-time priority that SVT-AV1 gives root, where a test has drawn AV1.

    Threads that wait by spinning, such as those of libvpx, would wait forever for one that never
    gets a processor.
    """
    if os.path.isdir("/proc/self/task"):
        for task in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):
                if os.sched_getscheduler(int(task)) == os.SCHED_FIFO:
                    os.sched_setscheduler(int(task), os.SCHED_OTHER, os.sched_param(0))


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        if "VSRM_REQUIRE_GPU" in os.environ:
            pytest.fail("VSRM_REQUIRE_GPU is set, and there is no CUDA device")
        pytest.skip("needs a CUDA device")


@pytest.fixture
def stub_network(monkeypatch):
    """Let jobs restore frames by nearest neighbor."""
    monkeypatch.setattr("vsrm_cli.upscale.job.load_model", load_nearest)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless browser."""
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
