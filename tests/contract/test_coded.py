"""Zero skipping, exponent codes and line compressors: contract, naive bytes, papers' examples."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import naive_zoo
from sfpsim.containers.base import with_key
from sfpsim.containers.registry import parse_container
from sfpsim.errors import InputError
from sfpsim.testing import specs
from sfpsim.testing.contract import check_container
from sfpsim.testing.strategies import BLOCKS, bit_patterns, block_sizes, edge_cases

CASES = edge_cases()
QUICK = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("spec", [*specs.CODED, *specs.GIST])
def test_contract_on_edge_cases(spec, block):
    container = parse_container(with_key(spec, "block", block))
    assert container.base_spec == spec
    for x in edge_cases(block).values():
        check_container(container, x)


@pytest.mark.parametrize("spec", [*specs.CODED, *specs.GIST])
@QUICK
@given(x=bit_patterns(), block=block_sizes())
def test_contract_on_any_bits(spec, x, block):
    check_container(parse_container(with_key(spec, "block", block)), x)


@pytest.mark.parametrize("spec", specs.CODED)
@QUICK
@given(x=bit_patterns(), block=block_sizes())
def test_bytes_are_those_of_the_naive_reference(spec, x, block):
    spec = with_key(spec, "block", block)
    stored = parse_container(spec).encode(x)
    assert (stored.payload, stored.index) == naive_zoo.coded(spec, x)


def compressible():
    """Words of small differences and many zeros, so that no block is stored raw."""
    rng = np.random.default_rng(3)
    words = rng.integers(0, 40, 1200).astype(np.uint32) + np.uint32(0x3F800000)
    words[rng.random(1200) < 0.5] = 0
    words[:64], words[128:160] = 7, np.arange(32) * 5
    return words.view(np.float32)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("spec", specs.CODED)
def test_blocks_that_shrink_are_those_of_the_naive_reference(spec, block):
    spec = with_key(spec, "block", block)
    for x in (compressible(), compressible()[:777], CASES["bf16 three blocks"][:2000]):
        stored = parse_container(spec).encode(x)
        assert (stored.payload, stored.index) == naive_zoo.coded(spec, x)


def bits_of(spec, words):
    """Payload and metadata bits of 32-bit words, repeated so that the block is not raw."""
    x = np.tile(np.array(words, np.uint32), 64).view(np.float32)
    sizes = parse_container(spec).measure(x)
    assert not sizes.raw_blocks
    return sizes.mantissa_bits / 64, sizes.metadata_bits / 64


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ([0, 0xB, 3, 1, 4, 0, 3, 4], 12),  # h264ref: narrow values
        ([0xC04039C0 + 8 * i for i in range(8)], 12),  # perlbench: near pointers
        (  # like its mcf: near zero and near one base, within 16 signed bits
            [0, 0x09A40178, 0xB, 1, 0x09A44838, 0xA, 0xB, 0x09A462F0],
            20,
        ),
        ([0] * 8, 1),
        ([0x12345678, 0x9ABCDEF0] * 4, 8),
    ],
)
def test_bdi_sizes_are_those_of_its_paper(words, size):
    payload, _ = bits_of("bdi:line=32", words)
    assert payload == 8 * size


@pytest.mark.parametrize(
    ("word", "bits"),
    [
        (0x00000007, 4),
        (0xFFFFFFF8, 4),
        (0x0000007F, 8),
        (0xFFFF8000, 16),
        (0x3F800000, 16),
        (0x0012FFF0, 16),
        (0xABABABAB, 8),
    ],
)
def test_fpc_sizes_are_those_of_its_table(word, bits):
    assert bits_of("fpc", [word]) == (bits, 3)


def test_fpc_runs_of_zeros_share_a_prefix():
    assert bits_of("fpc", [0] * 8) == (3, 3)
    assert bits_of("fpc", [0] * 8 + [1]) == (7, 6)


@pytest.mark.parametrize(
    ("words", "bits"),
    [
        ([0] * 32, 3 + 7),  # base 000, one run of 33 zero planes
        ([5] * 32, 7 + 7),  # base of 4 bits
        (list(range(32)), 3 + 7 + 5),  # 32 zero planes, then all ones
        (list(range(0, 64, 2)), 3 + 7 + 5 + 5),  # 31 zero planes, ones, a zero plane
    ],
)
def test_bpc_sizes_by_hand(words, bits):
    assert bits_of("bpc", words)[0] == bits


@pytest.mark.parametrize(
    ("words", "zeros", "planes"),
    [
        ([7] * 8, 8, 32 + 8),  # all 33 planes of the differences are zero: 001 and 5 bits
        ([0] * 16, 5, 0),  # a run of 16 zeros
        ([0] * 17 + [7] * 8, 5 + 5 + 8, 40),  # 16 and 1
        # differences of one: lowest plane all ones, then it is zero, then 31 planes like it
        ([9, 10, 11, 12, 13, 14, 15, 16], 8, 32 + 5 + 5 + 8),
        # one step: a single one, then the plane is zero, a run
        ([9, 9, 9, 10, 10, 10, 10, 10], 8, 32 + 8 + 5 + 8),
        # 32 planes zero and a last one: halves of the word that differ in nothing but the sign
        ([1 << 31] * 3 + [(1 << 31) + 3] * 5, 8, 32 + 8 + 2 + 5 + 8),
    ],
)
def test_ebpc_sizes_by_hand(words, zeros, planes):
    assert bits_of("ebpc", words) == (planes, zeros)


@pytest.mark.parametrize("spec", specs.CODED)
def test_damaged_streams_are_errors_or_other_values(spec):
    container, x = parse_container(spec), compressible()
    stored, rng = container.encode(x), np.random.default_rng(5)
    for field in ("payload", "index"):
        for _ in range(100):
            data = bytearray(getattr(stored, field))
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
            cut = bytes(data) if rng.random() < 0.7 else bytes(data[: rng.integers(len(data))])
            try:
                back = container.decode(replace(stored, **{field: cut}))
            except InputError:
                continue
            assert back.shape == x.shape
