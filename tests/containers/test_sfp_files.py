import struct
import zlib

import msgspec
import numpy as np
import pytest

from sfpsim.containers.base import with_key
from sfpsim.containers.bitstream import (
    Header,
    read_sfp,
    read_sfp_block,
    verify_sfp,
    write_sfp,
)
from sfpsim.containers.registry import parse_container
from sfpsim.errors import InputError
from sfpsim.testing import damage
from sfpsim.testing.contract import bits_equal
from sfpsim.testing.strategies import edge_cases

SPECS = ["fp32", "bf16", "gecko-bias", "gecko-delta", "sfp:m=4,e=5", "sfp:exponent=gecko-bias,e=8"]
SPECS += [
    "crest",
    "js+crest",
    "huffman",
    "mxfp6-e3m2",
    "nvfp4",
    "int:n=5,range=64",
    "zvc",
    "bpc",
    "gist:dpr=fp10",
]
BLOCKWISE = [spec for spec in SPECS if parse_container(spec).blockwise]
TENSOR = np.random.default_rng(0).standard_normal(16384 + 700).astype(np.float32)


@pytest.mark.parametrize("spec", SPECS)
def test_files_give_back_what_quantize_says(tmp_path, spec):
    container = parse_container(spec)
    for x in edge_cases().values():
        size = write_sfp(tmp_path / "x.sfp", container, x, "a name")
        assert size == (tmp_path / "x.sfp").stat().st_size
        assert bits_equal(read_sfp(tmp_path / "x.sfp"), container.quantize(x))
    assert verify_sfp(tmp_path / "x.sfp").name == "a name"
    assert [path.name for path in tmp_path.iterdir()] == ["x.sfp"]


def test_tensors_that_are_no_floats(tmp_path):
    write_sfp(tmp_path / "x.sfp", parse_container("raw"), np.arange(20_000))
    assert bits_equal(read_sfp(tmp_path / "x.sfp"), np.arange(20_000))


@pytest.mark.parametrize("spec", ["gecko-delta", "bf16"])
def test_every_damage_is_found(tmp_path, spec):
    path = tmp_path / "x.sfp"
    write_sfp(path, parse_container(spec), TENSOR)
    good = path.read_bytes()
    rng = np.random.default_rng(1)
    places = np.concatenate([np.arange(8 * 400, step=7), rng.integers(0, 8 * len(good), 250)])
    for place in places:
        bad = bytearray(good)
        bad[place // 8] ^= 1 << (place % 8)
        path.write_bytes(bad)
        for check in (verify_sfp, read_sfp):
            with pytest.raises(InputError):
                check(path)
    for length in [*range(0, 300, 13), *rng.integers(0, len(good), 100), len(good) - 1]:
        path.write_bytes(good[:length])
        with pytest.raises(InputError):
            read_sfp(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(InputError, match="are there"):
        verify_sfp(path)


def forged(path, **changes):
    """Rewrite the header with right checksums but other contents."""
    data = path.read_bytes()
    length = struct.unpack("<I", data[8:12])[0]
    header = msgspec.structs.replace(msgspec.json.decode(data[16 : 16 + length], type=Header))
    text = msgspec.json.encode(msgspec.structs.replace(header, **changes))
    first = data[:8] + struct.pack("<I", len(text))
    checksum = struct.pack("<I", zlib.crc32(text, zlib.crc32(first)))
    path.write_bytes(first + checksum + text + data[16 + length :])


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": (1 << 60,)},
        {"shape": (1 << 30, 1 << 30)},
        {"shape": (-5,)},
        {"shape": (17_000,)},
        {"shape": (TENSOR.size, 0)},
        {"shape": (1 << 60,), "blocks": 1 << 46},
        {"payload_bytes": 1 << 60},
        {"payload_bytes": -1, "metadata_bytes": 1 << 20},
        {"blocks": 1 << 60},
        {"index_bytes": 1 << 60},
        {"dtype": "float64"},
        {"dtype": "float16"},
        {"dtype": "object"},
        {"block_values": 0},
        {"block_values": 8192},
        {"block_values": 16448},
        {"container": "gecko-bias:block=16448"},
        {"container": "sfp"},
        {"container": "gecko-delta"},
        {"container": "sfp:m=23,e=8"},
        {"container": "fp32"},
        {"container": "nothing"},
        {"signed": False},
    ],
)
def test_hostile_headers_are_errors(tmp_path, changes):
    path = tmp_path / "x.sfp"
    write_sfp(path, parse_container("gecko-bias"), TENSOR)
    forged(path, **changes)
    with pytest.raises(InputError):
        read_sfp(path)


def test_the_header_names_blocks_of_another_size_alone(tmp_path):
    """A file without the key has the default, as all had before there was one."""
    path = tmp_path / "x.sfp"
    write_sfp(path, parse_container("gecko-bias"), TENSOR)
    assert b"block_values" not in path.read_bytes()
    write_sfp(path, parse_container("gecko-bias:block=1024"), TENSOR)
    assert b'"block_values":1024' in path.read_bytes()
    forged(path, container="nothing")
    assert verify_sfp(path).blocks == 17
    forged(path, container="gecko-bias")
    with pytest.raises(InputError, match="16384 values, the header says 1024"):
        read_sfp(path)


def test_what_is_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_sfp(tmp_path / "missing.sfp")
    (tmp_path / "x.sfp").write_bytes(b"not a tensor, but long enough for a header")
    with pytest.raises(InputError, match=r"no \.sfp file"):
        verify_sfp(tmp_path / "x.sfp")
    with pytest.raises(InputError, match="cannot be written"):
        write_sfp(tmp_path / "no" / "x.sfp", parse_container("fp32"), TENSOR)


@pytest.mark.parametrize("size", [4160, 16384])
@pytest.mark.parametrize("spec", BLOCKWISE)
def test_a_block_is_read_alone(tmp_path, spec, size):
    path, container = tmp_path / "x.sfp", parse_container(with_key(spec, "block", size))
    start = TENSOR[-size // 10 :]
    x = np.concatenate([TENSOR[:size], start, np.zeros(size, np.float32), TENSOR[:size], start])
    write_sfp(path, container, x)
    whole = container.quantize(x)
    assert verify_sfp(path).values_per_block == size
    for block in range(-(-x.size // size)):
        part = whole[block * size : (block + 1) * size]
        assert bits_equal(read_sfp_block(path, block), part)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert bits_equal(read_sfp_block(path, 0), whole[:size])
    with pytest.raises(InputError, match="damaged"):
        read_sfp_block(path, 3)
    with pytest.raises(InputError, match="0 to 3"):
        read_sfp_block(path, 4)


def test_a_block_that_needs_the_tensor_is_not_read_alone(tmp_path):
    write_sfp(tmp_path / "x.sfp", parse_container("nvfp4"), TENSOR)
    with pytest.raises(InputError, match="whole tensors only"):
        read_sfp_block(tmp_path / "x.sfp", 0)


def test_a_newer_file_is_refused_with_its_version(tmp_path):
    path = tmp_path / "x.sfp"
    write_sfp(path, parse_container("bf16"), TENSOR)
    data = bytearray(path.read_bytes())
    data[4] = 2
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"version 2 of \.sfp is not supported, 1 is: a newer"):
        read_sfp(path)


def test_damaged_files_are_refused(tmp_path):
    accepted, memory = damage.run(1200, tmp_path)
    assert accepted == 0
    assert memory < damage.MOST_MEMORY_BYTES
