"""General compressors, where they are installed."""

from dataclasses import replace

import numpy as np
import pytest

from sfpsim.containers import baselines
from sfpsim.containers.base import with_key
from sfpsim.containers.registry import parse_container
from sfpsim.errors import InputError
from sfpsim.testing import specs
from sfpsim.testing.contract import check_container
from sfpsim.testing.strategies import BLOCKS, edge_cases

CASES = edge_cases()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("spec", specs.BASELINES)
def test_contract_on_edge_cases(spec, block):
    pytest.importorskip(baselines.TOOLS[spec][0])
    for x in edge_cases(block).values():
        check_container(parse_container(with_key(spec, "block", block)), x)


@pytest.mark.parametrize("spec", specs.BASELINES)
def test_damaged_streams_are_errors_or_other_values(spec):
    pytest.importorskip(baselines.TOOLS[spec][0])
    container, x = parse_container(spec), np.tile(CASES["fp32 zeros"], 3)
    stored = container.encode(x)
    for place in range(0, 8 * len(stored.payload), 3):
        data = bytearray(stored.payload)
        data[place // 8] ^= 1 << (place % 8)
        try:
            back = container.decode(replace(stored, payload=bytes(data)))
        except InputError:
            continue
        assert back.shape == x.shape


def test_a_missing_library_is_a_clear_error(monkeypatch):
    monkeypatch.setitem(baselines.TOOLS, "zstd", ("no_such_module", "", None, None))
    with pytest.raises(InputError, match=r"sfpsim\[baselines\]"):
        parse_container("zstd").measure(np.ones(9, np.float32))
