"""What is said of memory follows what is taken."""

import sys

import pytest
import torch

from vsrm_cli.memory import begin_peak, peak_bytes

CPU = torch.device("cpu")
HUNDRED_MEGABYTES = 100 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_the_peak_is_that_of_the_work_since_it_began():
    begin_peak(CPU)
    before = peak_bytes(CPU)
    taken = torch.ones(HUNDRED_MEGABYTES // 4)
    with_it = peak_bytes(CPU)
    del taken
    begin_peak(CPU)

    assert with_it - before > 0.9 * HUNDRED_MEGABYTES
    assert peak_bytes(CPU) < with_it - 0.5 * HUNDRED_MEGABYTES
