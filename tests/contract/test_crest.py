"""crest: contract, bytes of the naive reference, sizes on real tensors, hostile streams."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from safetensors.numpy import load_file

import naive_zoo
from sfpsim.containers.base import with_key
from sfpsim.containers.registry import parse_container
from sfpsim.errors import InputError
from sfpsim.testing import specs
from sfpsim.testing.contract import check_container
from sfpsim.testing.strategies import BLOCKS, bit_patterns, block_sizes, edge_cases

CASES = edge_cases()
FIXTURE = Path(__file__).parent.parent / "fixture" / "containers"
QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("spec", specs.CREST)
def test_contract_on_edge_cases(spec, block):
    container = parse_container(with_key(spec, "block", block))
    assert container.base_spec == spec
    for x in edge_cases(block).values():
        check_container(container, x)


def agrees_with_naive(spec, x):
    check_container(parse_container(spec), x)
    stored = parse_container(spec).encode(x)
    assert (stored.payload, stored.metadata, stored.index) == naive_zoo.crest(spec, x)


@pytest.mark.parametrize("spec", specs.CREST)
@QUICK
@given(x=bit_patterns(), block=block_sizes())
def test_bytes_are_those_of_the_naive_reference(spec, x, block):
    agrees_with_naive(with_key(spec, "block", block), x)


@pytest.mark.parametrize("case", ["fp32 three blocks", "bf16 three blocks", "fp32 any words"])
@pytest.mark.parametrize("block", BLOCKS)
def test_long_tensors_are_those_of_the_naive_reference(case, block):
    agrees_with_naive(f"crest:block={block}", edge_cases(block)[case])


def test_rows_are_the_blocks_bits():
    container, x = parse_container("crest"), CASES["fp32 three blocks"][: 2 * 16384]
    rows, sizes = container.rows(x), container.measure(x)
    heads = int(rows.metadata_bits.sum(dtype=np.int64))
    lanes = int(rows.payload_bits.sum(dtype=np.int64))
    assert heads + lanes == sizes.total_bits - sizes.padding_bits - sizes.index_bits


def exponent_bits(spec, x):
    sizes = parse_container(spec).measure(x)
    return (sizes.exponent_bits + sizes.metadata_bits) / x.size


def test_exponents_are_smaller_than_geckos_on_real_tensors():
    tensors = [
        x for file in sorted(FIXTURE.glob("*.safetensors")) for x in load_file(file).values()
    ]
    weights = [x.size for x in tensors]
    ours = np.average([exponent_bits("crest", x) for x in tensors], weights=weights)
    gecko = np.average([exponent_bits("gecko-delta", x) for x in tensors], weights=weights)
    assert ours < 0.8 * gecko


def test_never_above_raw_and_three_percent():
    for name, x in CASES.items():
        if x.size >= 500:
            sizes = parse_container("crest").measure(x)
            assert (
                sizes.total_bits - sizes.padding_bits - sizes.index_bits < 1.03 * sizes.raw_bits
            ), name


def test_damaged_streams_are_errors_or_other_values():
    container, x = parse_container("crest"), CASES["bf16 three blocks"]
    stored, rng = container.encode(x), np.random.default_rng(5)
    for field in ("payload", "metadata", "index"):
        for _ in range(150):
            data = bytearray(getattr(stored, field))
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
            cut = bytes(data) if rng.random() < 0.7 else bytes(data[: rng.integers(len(data))])
            try:
                back = container.decode(replace(stored, **{field: cut}))
            except InputError:
                continue
            assert back.shape == x.shape
