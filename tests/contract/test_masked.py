"""A zero mask in front of other containers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import naive
from sfpsim.containers.base import with_key
from sfpsim.containers.registry import parse_container, parse_list
from sfpsim.errors import InputError
from sfpsim.testing import specs
from sfpsim.testing.contract import bits_equal, check_container
from sfpsim.testing.strategies import BLOCKS, bit_patterns, block_sizes, edge_cases

CASES = edge_cases()
QUICK = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("spec", specs.MASKED)
def test_contract_on_edge_cases(spec, block):
    assert parse_container(spec).spec == spec
    for x in edge_cases(block).values():
        check_container(parse_container(with_key(spec, "block", block)), x)


@pytest.mark.parametrize("spec", specs.MASKED)
@QUICK
@given(x=bit_patterns(), block=block_sizes())
def test_contract_on_any_bits(spec, x, block):
    check_container(parse_container(with_key(spec, "block", block)), x)


def test_what_is_not_zero_is_the_inner_containers():
    x = CASES["fp32 tail in row 5"]
    stored = parse_container("js+gecko-delta").encode(x)
    held = np.array([v for v, w in zip(x, naive.words(x), strict=True) if w], np.float32)
    assert stored.payload == parse_container("gecko-delta").encode(held).payload
    bits = "".join(format(byte, "08b")[::-1] for byte in stored.metadata)
    assert bits[: x.size] == "".join(str(int(w != 0)) for w in naive.words(x))


def test_a_mask_pays_where_half_is_zero():
    x = np.maximum(np.random.default_rng(0).standard_normal(1 << 15, dtype=np.float32), 0)
    bits = {s: parse_container(s).measure(x).total_bits for s in ("js", "crest", "js+crest")}
    assert bits["js+crest"] < min(bits["js"], bits["crest"])


def test_what_cannot_stand_behind_a_mask():
    for spec in ("js+nvfp4", "js+int8", "js+js+bf16"):
        with pytest.raises(InputError, match="zero mask"):
            parse_container(spec)
    with pytest.raises(InputError, match="unknown container"):
        parse_container("js+nothing")
    listed = [c.spec for c in parse_list(["js+sfp:m=4,e=5,bf16"])]
    assert listed == ["js+sfp:m=4,e=5", "bf16"]


def test_damaged_streams_are_errors_or_other_values():
    container, x, rng = (
        parse_container("js+crest"),
        CASES["bf16 three blocks"],
        np.random.default_rng(5),
    )
    stored = container.encode(x)
    assert bits_equal(container.decode(stored), x)
    for field in ("payload", "metadata", "index"):
        for _ in range(100):
            data = bytearray(getattr(stored, field))
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
            cut = bytes(data) if rng.random() < 0.7 else bytes(data[: rng.integers(len(data))])
            try:
                back = container.decode(replace(stored, **{field: cut}))
            except InputError:
                continue
            assert back.shape == x.shape
