"""Address traces: what is written is read back, what is wrong is named with its line."""

import gzip
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfpsim.errors import InputError
from sfpsim.hardware.dram.device import load_device, presets
from sfpsim.hardware.dram.simulate import Requests
from sfpsim.interop import address_trace, trace_kernels
from sfpsim.interop.address_trace import (
    FORMATS,
    TraceWriter,
    detect_format,
    read_trace,
    vector_layout,
    write_trace,
)

DEVICE = msgspec.structs.replace(
    load_device("lpddr4-3200-x16"), mapping="ro ra bg^ro co3 ba^ro co3", ranks=2, bank_groups=4,
    banks=16, rows=128,
)  # fmt: skip
VECTORS = vector_layout(DEVICE)


def made(address, write, cycle):
    return Requests(
        address=np.array(address, np.uint64),
        is_write=np.array(write, np.uint8),
        cycle=np.array(cycle, np.uint64),
    )


def read(path, form, **more):
    """All requests of a file as plain tuples."""
    rows = []
    for chunk in read_trace(path, form, **more):
        assert len(chunk.address)
        assert (chunk.cycle is None) == (form == "ramulator")
        cycle = np.zeros(len(chunk.address), int) if chunk.cycle is None else chunk.cycle
        rows += zip(chunk.address.tolist(), chunk.is_write.tolist(), cycle.tolist(), strict=True)
    return rows


def text(tmp_path, content, name="t.txt"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


requests = st.lists(
    st.tuples(
        st.one_of(st.integers(0, (1 << 63) - 2), st.sampled_from([0, 9, 10, 15, 16, 64])),
        st.booleans(),
        st.one_of(st.integers(0, 1 << 40), st.sampled_from([0, 9, 10, 99, 100])),
    ),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("form", FORMATS)
@given(rows=requests, cuts=st.lists(st.integers(0, 40), max_size=3))
def test_written_is_read_back(tmp_path_factory, form, ending, rows, cuts):
    rows = sorted(rows, key=lambda r: r[2])
    path = tmp_path_factory.mktemp("trace") / f"t{ending}"
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    parts = [
        made(*zip(*rows[a:b], strict=True)) if a < b else made([], [], [])
        for a, b in pairwise(edges)
    ]
    assert write_trace(path, form, parts) == len(rows)
    expected = [(a, w, 0) for a, w, _ in rows] if form == "ramulator" else rows
    assert read(path, form) == expected
    assert detect_format(path) == ("stl" if form == "rstl" else form)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("form", FORMATS)
def test_chunks_do_not_show(tmp_path, monkeypatch, form):
    rng = np.random.default_rng(1)
    whole = made(rng.integers(0, 1 << 34, 500), rng.random(500) < 0.4, np.arange(500) * 3)
    for name in ("t", "t.gz"):
        write_trace(tmp_path / name, form, [whole])
        expected = read(tmp_path / name, form)
        with monkeypatch.context() as patch:
            patch.setattr(address_trace, "CHUNK_BYTES", 50)
            assert read(tmp_path / name, form) == expected


def test_equal_traces_are_equal_files(tmp_path):
    for name in ("a.gz", "b.gz"):
        write_trace(tmp_path / name, "dramsim3", [made([64], [False], [1])])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


@pytest.mark.parametrize(
    ("form", "line", "expected"),
    [
        ("dramsim3", "0x1A40 READ 12", (0x1A40, False, 12)),
        ("dramsim3", "1a40\tWRITE\t12\r", (0x1A40, True, 12)),
        ("dramsim3", "  0X10 write 0 ", (16, True, 0)),
        ("dramsim3", "0x10 read 0", (16, False, 0)),
        ("dramsim3", "0x10 P_MEM_WR 7", (16, True, 7)),
        ("dramsim3", "0x10 P_FETCH 7", (16, False, 7)),
        ("dramsim3", "0x10 BOFF 7", (16, True, 7)),
        ("ramulator", "LD 0x12340", (0x12340, False, 0)),
        ("ramulator", "ST 4096", (4096, True, 0)),
        ("ramulator", "R 4096", (4096, False, 0)),
        ("ramulator", "W 0x40", (64, True, 0)),
        ("ramulator", "0x4cbd56c0 W", (0x4CBD56C0, True, 0)),
        ("ramulator", "64 R", (64, False, 0)),
        ("stl", "31:     read    0x400140", (0x400140, False, 31)),
        ("stl", "33 write 400140", (0x400140, True, 33)),
        ("stl", "33: (64) write 0x40 0xFFeedd", (64, True, 33)),
        ("stl", "33: (64)write 0x40", (64, True, 33)),
    ],
)
def test_lines(tmp_path, form, line, expected):
    path = text(tmp_path, f"# a comment\n\n{line}\n \n")
    assert read(path, form) == [expected]
    assert read(text(tmp_path, line), form) == [expected]


def test_relative_cycles_add_up(tmp_path):
    path = text(tmp_path, "5: read 0x0\n0: write 0x40\n7: read 0x80\n", "t.rstl")
    assert detect_format(path) == "rstl"
    assert [row[2] for row in read(path, "rstl")] == [5, 5, 12]
    with pytest.raises(InputError, match="in the order of their cycles"):
        write_trace(path, "rstl", [made([0, 0], [0, 0], [2, 1])])


def test_address_vectors(tmp_path):
    path = text(tmp_path, "R 0,1,2,3,100,32\nW 0,0,3,0,0,63\n")
    bank, group = 3 ^ (100 & 3), 2 ^ (100 >> 2 & 3)
    first = (100 << 11) | (1 << 10) | (group << 8) | (4 << 5) | (bank << 3)
    second = (3 << 8) | (7 << 5) | 7
    assert VECTORS.counts == (1, 2, 4, 4, 128, 64)
    assert read(path, "ramulator", vectors=VECTORS) == [
        (first * 32, False, 0),
        (second * 32, True, 0),
    ]


@pytest.mark.parametrize("name", presets())
def test_every_access_has_one_vector(tmp_path, name):
    device = load_device(name)
    layout = vector_layout(device)
    rng = np.random.default_rng(1)
    vectors = {tuple(int(rng.integers(0, c)) for c in layout.counts) for _ in range(300)}
    lines = "\n".join(f"R {','.join(map(str, v))}" for v in vectors)
    found = read(
        text(tmp_path, lines), "ramulator", limit_bytes=device.capacity_bytes, vectors=layout
    )
    assert len({row[0] for row in found}) == len(vectors)
    assert len(layout.counts) == {"gddr6": 5, "lpddr4": 5}.get(device.kind, 6)


@pytest.mark.parametrize("line", ["0: (100) write 0x30", "0: (160) write 0x0"])
def test_lengths_become_bursts(tmp_path, line):
    path = text(tmp_path, f"{line}\n4: read 0x300\n")
    whole = read(path, "stl", burst_bytes=64)
    assert [row[0] // 64 for row in whole] == [0, 1, 2, 12]
    assert [row[1:] for row in whole] == [(True, 0)] * 3 + [(False, 4)]
    assert len(read(path, "stl")) == 2


@pytest.mark.parametrize(
    ("form", "line", "said"),
    [
        ("dramsim3", "0x1a40 REED 12", "no command"),
        ("dramsim3", "0x1a40", "no command"),
        ("dramsim3", "0xg READ 12", "no address"),
        ("dramsim3", "READ 0x10 12", "no address"),
        ("dramsim3", "-64 READ 12", "no address"),
        ("dramsim3", "0x10 READ -1", "no cycle"),
        ("dramsim3", "0x10 READ", "no cycle"),
        ("dramsim3", "0x10 READ 1.5", "no cycle"),
        ("dramsim3", "0x10 READ 1 2", "something after"),
        ("dramsim3", "0x10 READ 99999999999999999999", "63 bits"),
        ("dramsim3", "0x18000000000000000 READ 1", "63 bits"),
        ("ramulator", "LD", "no address"),
        ("ramulator", "LX 0x10", "no command"),
        ("ramulator", "ld 0x10", "no command"),
        ("ramulator", "LD 0x10 5", "something after"),
        ("ramulator", "0x10 LD", "no command"),
        ("ramulator", "LD 1a", "no address"),
        ("ramulator", "LD 1,2", "no address"),
        ("ramulator", "R 0,1,2,3,4,5", "needs a device"),
        ("ramulator", "LD 99999999999999999999", "63 bits"),
        ("stl", "read 0x10", "no cycle"),
        ("stl", "1.5: read 0x10", "no cycle"),
        ("stl", "1: READ 0x10", "no command"),
        ("stl", "1: read", "no address"),
        ("stl", "1: (0) read 0x10", "no length"),
        ("stl", "1: (4 read 0x10", "no length"),
        ("stl", "1: write 0x10 0xzz", "not hexadecimal"),
        ("stl", "1: write 0x10 0xff ff", "something after"),
        ("stl", "99999999999999999999: read 0x0", "63 bits"),
        ("rstl", "x: read 0x10", "no cycle"),
    ],
)
def test_malformed_lines_are_named(tmp_path, form, line, said):
    good = {"dramsim3": "0x0 READ 0", "ramulator": "LD 0"}.get(form, "0: read 0x0")
    path = text(tmp_path, f"# first\n{good}\n{line}\n{good}\n")
    with pytest.raises(InputError) as caught:
        read(path, form)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["R 0,1", "R 0,1,2,3,4,5,6", "R 0,1,2,3,x,5", "W 0,1,2,3,4,"])
def test_malformed_vectors(tmp_path, line):
    with pytest.raises(InputError, match="no address vector of 6 fields"):
        read(text(tmp_path, line), "ramulator", vectors=VECTORS)


@pytest.mark.parametrize(
    ("form", "line", "said"),
    [
        ("dramsim3", "0x400 READ 0", "addresses 0 to 0x3ff"),
        ("ramulator", "ST 1024", "addresses 0 to 0x3ff"),
        ("stl", "0: (65) read 0x3c0", "addresses 0 to 0x3ff"),
        ("ramulator", "R 0,0,4,0,0,0", "vectors below 1,2,4,4,128,64"),
        ("ramulator", "R 0,0,0,0,99999999999999999999,0", "vectors below"),
    ],
)
def test_beyond_the_device(tmp_path, form, line, said):
    path = text(tmp_path, f"\n{line}\n")
    with pytest.raises(InputError, match=said) as caught:
        read(path, form, limit_bytes=1024, vectors=VECTORS)
    assert f"{path}:2: " in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing\n"])
def test_empty_files(tmp_path, content):
    for data in (content, gzip.compress(content)):
        path = text(tmp_path, data)
        with pytest.raises(InputError, match="no request"):
            read(path, "stl")
        with pytest.raises(InputError, match="no request"):
            detect_format(path)


def test_damaged_gzip(tmp_path):
    whole = gzip.compress(b"0x40 READ 1\n" * 5000)
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 255
    for data in (whole[: len(whole) // 2], bytes(broken), whole[:4], whole + b"rest"):
        path = text(tmp_path, data)
        with pytest.raises(InputError, match="gzip"):
            list(read_trace(path, "dramsim3"))


def test_binary_is_no_trace(tmp_path, monkeypatch):
    data = bytes(b for b in range(256) if b != 10) * 100
    with pytest.raises(InputError):
        list(read_trace(text(tmp_path, data), "dramsim3"))
    monkeypatch.setattr(address_trace, "CHUNK_BYTES", 1000)
    with pytest.raises(InputError, match="no line ends within"):
        list(read_trace(text(tmp_path, data), "dramsim3"))


def test_what_cannot_be_opened(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            list(read_trace(path, "stl"))
    with pytest.raises(InputError, match="cannot be written"):
        TraceWriter(tmp_path / "none" / "t", "stl")


def test_a_full_disk_is_an_error(tmp_path):
    with TraceWriter(tmp_path / "t", "stl") as writer:
        full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        writer._file, kept = full, writer._file
        with pytest.raises(InputError, match="t: cannot be written: No space"):
            writer.add(made([1], [0], [1]))
        full.close()
        writer._file = kept


def test_an_error_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), TraceWriter(tmp_path / "t", "stl"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@given(st.binary(max_size=200), st.sampled_from(FORMATS))
def test_any_bytes_are_requests_or_an_error(tmp_path_factory, data, form):
    path = text(tmp_path_factory.mktemp("fuzz"), data)
    try:
        rows = read(path, form, limit_bytes=1 << 40, vectors=VECTORS)
    except InputError:
        return
    assert all(0 <= a < 1 << 40 and c >= 0 for a, _, c in rows)


def test_the_kernels_say_the_same_uncompiled(tmp_path, monkeypatch):
    rows = made([0, 64, 0xABC0], [0, 1, 0], [0, 5, 123456])
    names = [n for n in vars(trace_kernels) if hasattr(getattr(trace_kernels, n), "py_func")]
    expected = {}
    for form in FORMATS:
        write_trace(tmp_path / form, form, [rows])
        expected[form] = (tmp_path / form).read_bytes(), read(tmp_path / form, form)
    for name in names:
        monkeypatch.setattr(trace_kernels, name, getattr(trace_kernels, name).py_func)
    for form in FORMATS:
        write_trace(tmp_path / form, form, [rows])
        assert ((tmp_path / form).read_bytes(), read(tmp_path / form, form)) == expected[form]


def test_progress_reaches_the_end(tmp_path):
    path = tmp_path / "t.gz"
    write_trace(path, "stl", [made(range(1000), [0] * 1000, range(1000))])
    seen = []
    list(read_trace(path, "stl", progress=lambda share, label: seen.append(share)))
    assert seen[-1] == 1.0
