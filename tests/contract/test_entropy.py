"""APack, Huffman, ANS, the entropy: contract, naive readers, tables, distance to the bound."""

import heapq
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import naive
import naive_zoo
from sfpsim.containers.apack import apack_counts, apack_ranges
from sfpsim.containers.base import with_key
from sfpsim.containers.entropy import ans_shares, exponent_entropy, huffman_lengths
from sfpsim.containers.registry import parse_container
from sfpsim.errors import InputError
from sfpsim.formats import exponent_counts, format_of
from sfpsim.testing import specs
from sfpsim.testing.contract import check_container
from sfpsim.testing.strategies import BLOCKS, bit_patterns, block_sizes, edge_cases

CASES = edge_cases()
READERS = {
    "apack": naive_zoo.read_apack,
    "huffman": naive_zoo.read_huffman,
    "ans": naive_zoo.read_ans,
}
QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
GAUSS = (np.random.default_rng(1).standard_normal(16384) * 0.05).astype(np.float32)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("spec", specs.ENTROPY)
def test_contract_on_edge_cases(spec, block):
    for x in edge_cases(block).values():
        check_container(parse_container(with_key(spec, "block", block)), x)


@pytest.mark.parametrize("spec", specs.ENTROPY)
@QUICK
@given(x=bit_patterns(), block=block_sizes())
def test_contract_on_any_bits(spec, x, block):
    check_container(parse_container(with_key(spec, "block", block)), x)


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


def apack_bits(counts, ends):
    """Bits of offsets and codes, shares rounded to 2^-10, from the definition."""
    total, bits = sum(counts), 0.0
    for first, last in pairwise(ends):
        held = sum(counts[first:last])
        share = max(1, int(1024 * held / total + 0.5)) / 1024
        bits += held * (math.ceil(math.log2(last - first)) - math.log2(share))
    return bits


@pytest.mark.parametrize("x", [GAUSS, np.abs(GAUSS), CASES["fp32 any words"], GAUSS.astype("f2")])
def test_apack_ranges_are_where_no_move_of_one_boundary_gains_a_percent(x):
    counts, symbols = exponent_counts(x), 1 << format_of(x.dtype).exponent_bits
    counts = counts[:symbols].tolist()
    ends = apack_ranges(np.array(counts + [0] * (256 - symbols)), symbols).tolist()
    assert (ends[0], ends[-1], len(ends)) == (0, symbols, 17)
    assert all(a < b for a, b in pairwise(ends))
    found = apack_bits(counts, ends)
    equal = list(range(0, symbols + 1, symbols // 16))
    assert found <= apack_bits(counts, equal)
    for i in range(1, 16):
        for place in range(ends[i - 1] + 1, ends[i + 1]):
            moved = [*ends[:i], place, *ends[i + 1 :]]
            assert apack_bits(counts, moved) > 0.9899 * found
    if x is GAUSS:
        assert found < 1.05 * x.size * exponent_entropy(x)


def test_apack_counts_give_every_used_range_one():
    held = np.array([0, 1, 16000, 3, 0, *[0] * 9, 1, 0])
    bounds = apack_counts(held)
    assert (bounds[0], bounds[-1]) == (0, 1023)
    assert ((np.diff(bounds) > 0) == (held > 0)).all()


def test_apack_reads_its_code_whole():
    """A wait between the registers' halves ends as either; long waits are in the code too."""
    rng = np.random.default_rng(2)
    for trial in range(40):
        steep = rng.geometric(0.05 + 0.9 * trial / 40, 300) + 100
        x = (np.minimum(steep, 254).astype(np.uint32) << 23).view(np.float32)
        stored = parse_container("apack").encode(x)
        assert not int.from_bytes(stored.index, "little") >> 63
        assert naive_zoo.read_apack(stored.payload, format_of(x.dtype), x.size) == naive.words(x)


@pytest.mark.parametrize(("spec", "most"), [("huffman", 0.06), ("ans", 0.06), ("apack", 0.15)])
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
