"""Every odd input gives a correct result, or is refused before the first frame."""

import pytest
from odd_inputs import try_many

# `python tests/odd_inputs.py` tries more.
SEEDS = range(150)


@pytest.mark.slow
def test_random_odd_inputs_are_upscaled_correctly_or_refused_at_once():
    faults = {seed: (fault, facts) for seed, facts, fault in try_many(SEEDS) if fault}

    assert faults == {}
