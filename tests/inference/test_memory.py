"""What is said of memory follows what is taken."""

import subprocess
import sys

import pytest

# In a process of its own: one that has worked already may hold freed memory in reserve.
PROGRAM = """
import torch
from vsrm_cli.inference.memory import begin_peak, peak_bytes

cpu = torch.device("cpu")
begin_peak(cpu)
print(peak_bytes(cpu))
taken = torch.ones(25 * 2**20)
print(peak_bytes(cpu))
del taken
begin_peak(cpu)
print(peak_bytes(cpu))
"""
HUNDRED_MEGABYTES = 100 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_the_peak_is_that_of_the_work_since_it_began():
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    ).stdout

    before, with_it, after = map(int, told.split())
    assert with_it - before > 0.9 * HUNDRED_MEGABYTES
    assert after < with_it - 0.5 * HUNDRED_MEGABYTES
