"""The papers' accounting of Gecko."""

import numpy as np
import pytest
from hypothesis import given, settings

import naive
from sfpsim.containers.paper import paper_bits
from sfpsim.containers.registry import parse_container
from sfpsim.errors import InputError
from sfpsim.testing.strategies import bit_patterns


@settings(max_examples=100, deadline=None, derandomize=True)
@given(x=bit_patterns())
def test_paper_bits_are_those_of_the_naive_reference(x):
    assert paper_bits(x).exponent_bits == naive.paper_exponent_bits(x)


def test_width_is_the_position_of_the_leading_one():
    x = np.exp2(np.array([3, 0, 1, -2, 0, 0, 0, 0], np.float32))
    assert paper_bits(x, mantissa_bits=4).exponent_bits == 8 * 2 + 3
    assert paper_bits(x, mantissa_bits=4).total_bits == 8 * 2 + 3 + 8 * 4
    assert paper_bits(-x, mantissa_bits=0).sign_bits == 8
    for wrong in (-1, 24):
        with pytest.raises(InputError):
            paper_bits(x, mantissa_bits=wrong)


@pytest.mark.parametrize("sigma", [0.02, 0.05])
def test_weights_cost_what_the_paper_simulates(sigma):
    """papers: Gaussian weights take 0.54 of 8 bits at 0.02 and 0.504 at 0.05 in groups of 8."""
    x = (np.random.default_rng(0).standard_normal(1 << 18) * sigma).astype(np.float32)
    ratio = paper_bits(x).exponent_bits / (8 * x.size)
    assert ratio == pytest.approx({0.02: 0.54, 0.05: 0.504}[sigma], abs=0.01)


@pytest.mark.parametrize("sigma", [0.02, 1.0])
def test_delta_takes_what_the_first_paper_reports(sigma):
    """papers: the 8x8 delta form takes 0.56 for weights and 0.567 simulated for any sigma."""
    x = (np.random.default_rng(0).standard_normal(1 << 18) * sigma).astype(np.float32)
    sizes = parse_container("gecko-delta").measure(x)
    ratio = (sizes.exponent_bits + sizes.metadata_bits) / (8 * x.size)
    assert ratio == pytest.approx(0.567, abs=0.01)
