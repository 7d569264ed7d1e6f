"""The contract suite over the whole registry, and every container against its naive reference."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import naive
from sfpsim.containers import registry
from sfpsim.containers.base import MOST_BLOCK_VALUES, with_key
from sfpsim.containers.lanes import Streams, index_entry, over_blocks
from sfpsim.errors import InputError
from sfpsim.formats import FORMATS, format_of
from sfpsim.testing import specs
from sfpsim.testing.contract import ContractError, bits_equal, check_container
from sfpsim.testing.strategies import BLOCKS, bit_patterns, block_sizes, edge_cases

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


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("spec", SPECS)
def test_contract_on_edge_cases(spec, block):
    container = registry.parse_container(with_key(spec, "block", block))
    for x in edge_cases(block).values():
        check_container(container, x)


@pytest.mark.parametrize("spec", SPECS)
@QUICK
@given(x=bit_patterns(), block=block_sizes())
def test_contract_on_any_bits(spec, x, block):
    check_container(registry.parse_container(with_key(spec, "block", block)), x)


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
    size = naive.split_block(spec)[1] // 8
    blocks = [len(lengths[at : at + size]) for at in range(0, len(lengths), size)]
    return 3 * sum(b - -(-b // 8) for b in blocks) if "gecko-delta" in spec else 0


@pytest.mark.parametrize("spec", [*LOSSLESS, *SFP])
@QUICK
@given(x=bit_patterns(), block=block_sizes())
def test_bytes_are_those_of_the_naive_reference(spec, x, block):
    agrees_with_naive(with_key(spec, "block", block), x)


@pytest.mark.parametrize("spec", [*LOSSLESS, "sfp:m=4,e=5", "sfp:m=4,e=6,exponent=gecko-delta"])
@pytest.mark.parametrize("case", ["fp32 three blocks", "bf16 three blocks", "fp32 any words"])
@pytest.mark.parametrize("block", BLOCKS)
def test_long_tensors_are_those_of_the_naive_reference(spec, case, block):
    agrees_with_naive(with_key(spec, "block", block), edge_cases(block)[case])


@pytest.mark.parametrize(
    ("block", "widths"),
    [
        (64, (31, 28, 3, 1)),
        (1024, (31, 24, 7, 1)),
        (16_384, (29, 19, 11, 4)),
        (65_536, (28, 16, 13, 6)),
    ],
)
def test_index_entries_of_the_docs(block, widths):
    assert index_entry(block) == widths


def test_index_entries_hold_the_longest_streams_of_two_billion_values():
    for block in range(64, MOST_BLOCK_VALUES + 1, 64):
        entry, longest = index_entry(block), 4 * block // 64
        assert entry[:3] == naive.index_fields(block)
        assert sum(entry) == 63
        assert longest < 1 << entry.payload
        assert 3 * block <= 8 * 512 * ((1 << entry.metadata) - 1)
        assert (entry.most_blocks - 1) * longest < 1 << entry.start
        assert entry.most_blocks * block >= 1 << 31


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


def whole_groups(fmt, exponents, signs):
    """Whole groups of values with these exponents, any mantissa, zeros among them."""
    rng = np.random.default_rng(len(exponents))
    field = np.resize(np.array(exponents, np.uint64), 128)
    field[rng.random(128) < 0.2] = 0
    words = field << np.uint64(fmt.mantissa_bits)
    words |= rng.integers(0, 1 << fmt.mantissa_bits, 128).astype(np.uint64) * (field > 0)
    words |= rng.integers(0, 1 + signs, 128).astype(np.uint64) << np.uint64(fmt.bits - 1)
    return words.astype(fmt.word_dtype).view(fmt.dtype)


@pytest.mark.parametrize("fmt", sorted(FORMATS))
@pytest.mark.parametrize("code", ["gecko-bias", "gecko-delta"])
@pytest.mark.parametrize("kept", [0, 4, 7, 8, None])
@pytest.mark.parametrize("signs", [0, 1])
def test_whole_groups_around_where_distances_wrap(fmt, code, kept, signs):
    fmt = FORMATS[fmt]
    if kept is not None and kept > fmt.mantissa_bits:
        pytest.skip("more than the type has")
    spec = code if kept is None else f"sfp:m={kept},e=8,exponent={code}"
    bias, top = fmt.bias, fmt.exponent_max
    for exponents in (
        [bias], [bias, bias - 1, bias + 2], [1, bias + 1], [1, bias, bias + 1], [1, bias + 2],
        [2, bias + 2], [top], [top, bias], [bias + 1, top], [top - 1, bias, 1], [0],
    ):  # fmt: skip
        x = whole_groups(fmt, exponents, signs)
        agrees_with_naive(spec, x)
        check_container(registry.parse_container(spec), x)


@pytest.mark.parametrize("row", [0, 16])
def test_widths_that_no_exponent_needs_are_refused(row):
    """A width of 7 where exponents have 5 bits, and 1, for 4 and 4: lengths stay right."""
    container = registry.parse_container("sfp:m=0,e=8,exponent=gecko-bias")
    stored = container.encode(np.full(8 * 19, 2.0**-12, np.float16))
    widths = int.from_bytes(stored.metadata, "little")
    assert (widths >> (3 * row)) & 0o77 == 0o44
    forged = (widths ^ (0o44 ^ 0o17) << (3 * row)).to_bytes(len(stored.metadata), "little")
    with pytest.raises(InputError, match="row widths"):
        container.decode(replace(stored, metadata=forged))


@pytest.mark.parametrize("spec", ["gecko-bias", "sfp:m=4,exponent=gecko-delta", "sfp:m=2,e=4"])
@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("block", BLOCKS)
def test_threads_share_the_blocks_and_change_no_byte(spec, threads, block):
    container = registry.parse_container(with_key(spec, "block", block))
    x = CASES["fp32 three blocks"]
    streams = Streams.room_for(x, block)
    stored, back = container.encode(x), np.empty_like(x)
    blocks, _ = container.encode_into(x, streams, threads=threads)
    assert streams.payload[: blocks.payload_bytes.sum()].tobytes() == stored.payload
    assert streams.metadata[: blocks.metadata_bytes.sum()].tobytes() == stored.metadata
    measured = container.measure_blocks(x, threads=threads)
    assert measured.payload_bytes.tolist() == blocks.payload_bytes.tolist()
    container.decode_into(stored, back, threads=threads)
    assert bits_equal(back, container.quantize(x))


@pytest.mark.parametrize("bad", [0, 5, 9])
def test_an_error_in_any_range_is_an_error_once_all_ranges_are_done(bad):
    done = []

    def work(first, last):
        done.append(first)
        if first <= bad < last:
            raise InputError(f"block {bad}")

    with pytest.raises(InputError, match=f"block {bad}"):
        over_blocks(work, 10, 3)
    assert sorted(done) == [0, 3, 6]


FORKED = """
import os, signal
import numpy as np
from sfpsim.containers.registry import parse_container
container, x = parse_container("gecko-bias"), np.ones(70_000, np.float32)
first = container.measure_blocks(x, threads=2).payload_bytes.tolist()
child = os.fork()
if not child:
    signal.alarm(60)
    os._exit(container.measure_blocks(x, threads=2).payload_bytes.tolist() != first)
raise SystemExit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own():
    done = subprocess.run([sys.executable, "-c", FORKED], check=False, timeout=120)
    assert done.returncode == 0


def test_a_broken_container_is_found():
    from sfpsim.containers.gecko import GeckoBias

    class Forgetful(GeckoBias):
        def decode(self, stored):
            return super().decode(stored) * 1 + 1

    with pytest.raises(ContractError, match="decode"):
        check_container(Forgetful(), np.ones(9, np.float32))
