"""The format pages are enough: a reader written from them alone reads what sfpsim writes."""

import numpy as np
import pytest

import naive
import second_reader
from sfpsim.containers.bitstream import write_sfp
from sfpsim.containers.registry import parse_container
from sfpsim.testing.strategies import edge_cases

SPECS = (
    "gecko-bias", "gecko-delta", "sfp:m=4,e=8,exponent=gecko-bias",
    "sfp:m=0,e=8,exponent=gecko-delta", "crest", "crest:m=3,e=8", "ebpc",
)  # fmt: skip


@pytest.mark.parametrize("spec", [*SPECS, "gecko-delta:block=64", "crest:m=3,e=8,block=1024"])
def test_files_are_read_by_a_reader_from_the_page(tmp_path, spec):
    container, raw = parse_container(spec), 0
    for x in edge_cases().values():
        write_sfp(tmp_path / "x.sfp", container, x)
        raw += container.measure(x).raw_blocks
        assert second_reader.read((tmp_path / "x.sfp").read_bytes()) == naive.words(
            container.quantize(x)
        )
    assert raw or "m=" in spec


@pytest.mark.parametrize("spec", SPECS)
def test_one_block_is_read_from_its_own_bytes(tmp_path, spec):
    rng = np.random.default_rng(4)
    x = (rng.standard_normal(3 * 16384 + 100) * (rng.random(3 * 16384 + 100) < 0.6)).astype("f4")
    container = parse_container(spec)
    write_sfp(tmp_path / "x.sfp", container, x)
    whole = naive.words(container.quantize(x))
    data = bytearray((tmp_path / "x.sfp").read_bytes())
    header, _, table, *_ = second_reader.front(bytes(data))
    streams = header["payload_bytes"] + header["metadata_bytes"]
    data[len(data) - streams + table[0][0]] ^= 1  # in block 1
    for block in (0, 2, 3):
        part = second_reader.read(bytes(data), block)
        assert part == whole[16384 * block : 16384 * (block + 1)]
    with pytest.raises(AssertionError):
        second_reader.read(bytes(data), 1)
