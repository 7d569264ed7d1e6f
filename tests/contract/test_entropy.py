"""Huffman, ANS and the entropy: contract, naive readers, optimal lengths, distance to the bound."""

import heapq
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import naive
import naive_zoo
from sfpsim.containers.entropy import ans_shares, exponent_entropy, huffman_lengths
from sfpsim.containers.registry import parse_container
from sfpsim.errors import InputError
from sfpsim.formats import exponent_counts, format_of
from sfpsim.testing import specs
from sfpsim.testing.contract import check_container
from sfpsim.testing.strategies import bit_patterns, edge_cases

CASES = edge_cases()
READERS = {"huffman": naive_zoo.read_huffman, "ans": naive_zoo.read_ans}
QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
GAUSS = (np.random.default_rng(1).standard_normal(16384) * 0.05).astype(np.float32)


@pytest.mark.parametrize("spec", specs.ENTROPY)
def test_contract_on_edge_cases(spec):
    for x in CASES.values():
        check_container(parse_container(spec), x)


@pytest.mark.parametrize("spec", specs.ENTROPY)
@QUICK
@given(x=bit_patterns())
def test_contract_on_any_bits(spec, x):
    check_container(parse_container(spec), x)


@pytest.mark.parametrize("spec", specs.ENTROPY)
@pytest.mark.parametrize("x", [GAUSS[:1500], np.zeros(300, np.float32), np.abs(GAUSS[:900])])
def test_bytes_are_read_by_the_naive_reader(spec, x):
    stored = parse_container(spec).encode(x)
    assert READERS[spec](stored.payload, format_of(x.dtype), x.size) == naive.words(x)


def optimal_bits(counts):
    heap = list(counts.values())
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        total += pair
        heapq.heappush(heap, pair)
    return total


def test_huffman_lengths_are_optimal_and_limited():
    counts = exponent_counts(GAUSS)
    lengths = huffman_lengths(counts)
    assert (counts * np.maximum(lengths, 0)).sum() == optimal_bits(
        Counter({s: int(n) for s, n in enumerate(counts) if n})
    )
    steep = np.array([1 << min(i, 40) for i in range(40)] + [0] * 216)
    limited = huffman_lengths(steep)
    assert limited.max() <= 15
    assert sum(2.0**-n for n in limited if n > 0) == 1


def test_ans_shares_fill_the_range():
    for counts in (exponent_counts(GAUSS), exponent_counts(CASES["fp32 any words"])):
        assert (ans_shares(counts) + 1).sum() == 1 << 12


@pytest.mark.parametrize(("spec", "most"), [("huffman", 0.06), ("ans", 0.06)])
def test_codes_are_near_the_entropy_and_not_below(spec, most):
    sizes = parse_container(spec).measure(GAUSS)
    bits = (sizes.exponent_bits + sizes.metadata_bits) / GAUSS.size
    assert 0 < bits - exponent_entropy(GAUSS) < most
    assert exponent_entropy(np.zeros(5, np.float32)) == 0
    assert exponent_entropy(np.zeros(0, np.float32)) == 0


@pytest.mark.parametrize("spec", specs.ENTROPY)
def test_damaged_streams_are_errors_or_other_values(spec):
    container, rng = parse_container(spec), np.random.default_rng(5)
    stored = container.encode(GAUSS)
    for trial in range(300):
        data = bytearray(stored.payload)
        place = trial if trial < 200 else rng.integers(8 * len(data))
        data[place // 8] ^= 1 << (place % 8)
        try:
            back = container.decode(replace(stored, payload=bytes(data)))
        except InputError:
            continue
        assert back.shape == GAUSS.shape
