"""The contract suite over the whole registry, and every container against its naive reference."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import naive
from sfpsim.containers import registry
from sfpsim.formats import FORMATS, format_of
from sfpsim.testing import specs
from sfpsim.testing.contract import ContractError, bits_equal, check_container
from sfpsim.testing.strategies import bit_patterns, edge_cases

LOSSLESS = ["gecko-bias", "gecko-delta"]
SFP = list(specs.SFP)
SPECS = [*specs.PLAIN, *specs.LANES]
CASES = edge_cases()
QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def test_every_family_is_checked():
    plain = [spec for spec in specs.ALL if not spec.startswith("js+")]
    assert {spec.partition(":")[0] for spec in plain} == set(registry.BUILT_IN)


@pytest.mark.parametrize("spec", SPECS)
def test_contract_on_edge_cases(spec):
    container = registry.parse_container(spec)
    for x in CASES.values():
        check_container(container, x)


@pytest.mark.parametrize("spec", SPECS)
@QUICK
@given(x=bit_patterns())
def test_contract_on_any_bits(spec, x):
    check_container(registry.parse_container(spec), x)


def agrees_with_naive(spec, x):
    container = registry.parse_container(spec)
    payload, metadata, index, sizes, lengths = naive.encode(spec, x)
    stored = container.encode(x)
    assert (stored.metadata, stored.index) == (metadata, index)
    assert stored.payload == payload
    measured = container.measure(x)
    assert {name: getattr(measured, name) for name in sizes} == sizes
    assert bits_equal(container.quantize(x), naive.quantize(spec, x)[0])
    assert container.rows(x).payload_bits.tolist() == [8 * length for length in lengths]
    assert int(container.rows(x).metadata_bits.sum()) == expected_metadata(spec, lengths)


def expected_metadata(spec, lengths):
    if "gecko-bias" in spec:
        return 3 * len(lengths)
    blocks = [len(lengths[at : at + 2048]) for at in range(0, len(lengths), 2048)]
    return 3 * sum(b - -(-b // 8) for b in blocks) if "gecko-delta" in spec else 0


@pytest.mark.parametrize("spec", [*LOSSLESS, *SFP])
@QUICK
@given(x=bit_patterns())
def test_bytes_are_those_of_the_naive_reference(spec, x):
    agrees_with_naive(spec, x)


@pytest.mark.parametrize("spec", [*LOSSLESS, "sfp:m=4,e=5", "sfp:m=4,e=6,exponent=gecko-delta"])
@pytest.mark.parametrize("case", ["fp32 three blocks", "bf16 three blocks", "fp32 any words"])
def test_long_tensors_are_those_of_the_naive_reference(spec, case):
    agrees_with_naive(spec, CASES[case])


@pytest.mark.parametrize("target", sorted(FORMATS))
@QUICK
@given(x=bit_patterns())
def test_plain_words_are_rounded_as_by_the_naive_reference(target, x):
    source, fmt = format_of(x.dtype), FORMATS[target]
    stored = registry.parse_container(target).encode(x)
    words = np.frombuffer(stored.payload, fmt.word_dtype).tolist()
    assert words == [naive.round_word(w, source, fmt) for w in naive.words(x)]


@pytest.mark.parametrize(("target", "source"), [("bf16", "fp16"), ("fp16", "bf16")])
def test_all_16_bit_patterns_are_rounded_as_by_the_naive_reference(target, source):
    every = np.arange(1 << 16, dtype=np.uint16).view(FORMATS[source].dtype)
    stored = registry.parse_container(target).encode(every)
    words = np.frombuffer(stored.payload, np.uint16).tolist()
    expected = [naive.round_word(w, FORMATS[source], FORMATS[target]) for w in range(1 << 16)]
    assert words == expected


@pytest.mark.parametrize("code", ["gecko-bias", "gecko-delta"])
def test_all_exponent_pairs_come_back(code):
    for fmt in FORMATS.values():
        exponents = np.arange(1 << fmt.exponent_bits, dtype=np.uint32)
        first, second = (grid.reshape(-1) for grid in np.meshgrid(exponents, exponents))
        rows = np.concatenate([first.reshape(-1, 8), second.reshape(-1, 8)], axis=1).reshape(-1)
        x = (rows << fmt.mantissa_bits).astype(fmt.word_dtype).view(fmt.dtype)
        container = registry.parse_container(code)
        for pair in range(0, x.size, 16):
            part = x[pair : pair + 16]
            assert bits_equal(container.decode(container.encode(part)), part)
            if pair > 16 * 600:
                break
        check_container(container, x)


def test_a_broken_container_is_found():
    from sfpsim.containers.gecko import GeckoBias

    class Forgetful(GeckoBias):
        def decode(self, stored):
            return super().decode(stored) * 1 + 1

    with pytest.raises(ContractError, match="decode"):
        check_container(Forgetful(), np.ones(9, np.float32))
