"""The measured peak follows the memory that is used."""

import subprocess
import sys

import pytest
import torch

from vsrm_cli.inference import memory
from vsrm_cli.inference.memory import PeakMemory

# In a process of its own: one that has worked already may hold freed memory in reserve.
PROGRAM = """
import torch
from vsrm_cli.inference.memory import PeakMemory

cpu = torch.device("cpu")
memory = PeakMemory(cpu)
print(memory.read_bytes())
taken = torch.ones(25 * 2**20)
print(memory.read_bytes())
del taken
print(PeakMemory(cpu).read_bytes())
"""
HUNDRED_MEGABYTES = 100 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_peak_memory_is_measured_since_the_start_of_the_work():
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    ).stdout

    before, with_it, after = map(int, told.split())
    assert with_it - before > 0.9 * HUNDRED_MEGABYTES
    assert after < with_it - 0.5 * HUNDRED_MEGABYTES


def test_a_peak_that_cannot_be_reset_counts_only_if_it_has_risen(monkeypatch):
    peaks = iter([7, 7, 7, 9])
    monkeypatch.setattr(memory, "_can_forget", lambda: False)
    monkeypatch.setattr(memory, "_largest_so_far", lambda: next(peaks))

    second, third = (PeakMemory(torch.device("cpu")).read_bytes() for _ in range(2))

    assert (second, third) == (None, 9)
