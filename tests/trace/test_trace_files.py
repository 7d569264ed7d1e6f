"""Does a trace give back what was written, and say so when it is damaged?"""

import json
import os
import random
import shutil
import zlib

import ml_dtypes
import msgspec
import numpy as np
import pytest

from sfpsim.errors import InputError
from sfpsim.trace.info import trace_info
from sfpsim.trace.reader import DTYPES, open_trace
from sfpsim.trace.schema import Manifest, Op, OpRecord, TensorRecord
from sfpsim.trace.writer import DTYPE_CODES, TraceWriter, write_atomically

MANIFEST = Manifest(model="hand-made", framework="none", framework_version="0", seed=3)


def record(name, values, step=0, order=0, **fields):
    given = {
        "role": "activation", "use": "stash", "dtype": values.dtype.name,
        "shape": values.shape, "memory_order": tuple(range(values.ndim)),
        "runs": ((0, values.size),),
    } | fields  # fmt: skip
    return TensorRecord(name=name, step=step, order=order, **given)


def op(step, reads):
    return OpRecord(name="fc", step=step, order=1, op=Op(kind="linear", m=2, n=2, k=2), reads=reads)


def write(path, steps=3, **options):
    """Write a trace of two tensors and one op a step, a segment each; return the arrays."""
    rng = np.random.default_rng(7)
    arrays = {}
    with TraceWriter(path, MANIFEST, **options) as writer:
        for step in range(steps):
            writer.add_ops([op(step, (f"step{step}.a", f"step{step}.b"))])
            for name in ("a", "b"):
                values = rng.standard_normal((5, 7), np.float32)
                arrays[f"step{step}.{name}"] = values
                writer.add(record(f"step{step}.{name}", values, step), values)
            writer.flush()
    return arrays


def holds(trace, arrays):
    """Whether the trace has exactly these arrays, bit for bit."""
    found = {r.name: np.asarray(trace.values(r)).reshape(r.shape) for r in trace.records}
    same = found.keys() == arrays.keys()
    return same and all(found[name].tobytes() == arrays[name].tobytes() for name in arrays)


@pytest.mark.parametrize("dtype", sorted(DTYPE_CODES))
def test_every_dtype_comes_back_bit_for_bit(tmp_path, dtype):
    kind = DTYPES[DTYPE_CODES[dtype]]
    raw = np.random.default_rng(1).integers(0, 256, 24 * kind.itemsize, np.uint8)
    values = (raw % 2).view(np.bool_) if dtype == "bool" else raw.view(kind)
    with TraceWriter(tmp_path / "t", MANIFEST) as writer:
        writer.add(record("x", values), values)
    trace = open_trace(tmp_path / "t")
    assert trace.records[0].dtype == dtype
    assert np.asarray(trace.values(trace.records[0])).tobytes() == values.tobytes()
    trace.verify()


def test_values_are_mapped_and_aligned_in_a_segment_of_mixed_widths(tmp_path):
    arrays = {
        "byte": np.arange(3, dtype=np.uint8),
        "half": np.arange(5).astype(ml_dtypes.bfloat16),
        "word": np.arange(7, dtype=np.float32),
        "double": np.arange(2, dtype=np.float64),
        "none": np.zeros(0, np.float32),
    }
    with TraceWriter(tmp_path / "t", MANIFEST) as writer:
        for name, values in arrays.items():
            writer.add(record(name, values), values)
    trace = open_trace(tmp_path / "t")
    assert holds(trace, arrays)
    for r in trace.records:
        values = trace.values(r)
        assert values.flags.aligned
        assert not values.flags.owndata


def test_sampled_runs_come_back_run_by_run(tmp_path):
    values = np.arange(1024, dtype=np.float32)
    sampled = record("x", values, shape=(100, 100), runs=((0, 512), (6400, 512)))
    with TraceWriter(tmp_path / "t", MANIFEST) as writer:
        writer.add(sampled, values)
    trace = open_trace(tmp_path / "t")
    first, second = trace.runs(trace.records[0])
    assert (first == values[:512]).all()
    assert (second == values[512:]).all()
    assert trace.records[0].is_sampled


def test_what_the_manifest_and_the_ops_say_comes_back(tmp_path):
    write(tmp_path / "t")
    trace = open_trace(tmp_path / "t")
    assert trace.manifest == MANIFEST
    assert [o.step for o in trace.ops] == trace.steps == [0, 1, 2]
    assert trace.ordered
    assert trace.incomplete_steps == []
    assert trace_info(trace)["held_values"] == 3 * 2 * 35


def test_a_full_segment_is_written_before_the_end(tmp_path):
    arrays = write(tmp_path / "t", segment_bytes=100)
    assert len(list((tmp_path / "t").glob("segment-*"))) == 6
    assert holds(open_trace(tmp_path / "t"), arrays)


@pytest.mark.parametrize("name", ["index.jsonl", "ops.jsonl"])
def test_an_index_torn_at_any_byte_is_rebuilt(tmp_path, name):
    arrays = write(tmp_path / "t", steps=2)
    whole = (tmp_path / "t" / name).read_bytes()
    ops = open_trace(tmp_path / "t").ops
    line = whole.index(b"\n")
    for length in [*range(0, len(whole), 23), line - 1, line, line + 1, len(whole) - 1]:
        (tmp_path / "t" / name).write_bytes(whole[:length])
        trace = open_trace(tmp_path / "t")
        assert len(trace.records) == 4
        assert trace.ops == ops
    assert holds(trace, arrays)
    (tmp_path / "t" / name).unlink()
    assert holds(open_trace(tmp_path / "t"), arrays)


def test_a_kill_between_segment_and_index_loses_nothing(tmp_path):
    write(tmp_path / "t", steps=2)
    before = {n: (tmp_path / "t" / n).read_bytes() for n in ("index.jsonl", "ops.jsonl")}
    shutil.rmtree(tmp_path / "t")
    arrays = write(tmp_path / "t", steps=3)
    for name, text in before.items():
        (tmp_path / "t" / name).write_bytes(text)
    (tmp_path / "t" / ".tmp-segment-00003.safetensors").write_bytes(b"half a seg")
    trace = open_trace(tmp_path / "t")
    assert holds(trace, arrays)
    trace.verify()


def test_a_step_whose_second_segment_was_lost_is_known_as_incomplete(tmp_path):
    write(tmp_path / "t", steps=2, segment_bytes=100)
    (tmp_path / "t" / "segment-00003.safetensors").unlink()
    for name in ("index.jsonl", "ops.jsonl"):
        (tmp_path / "t" / name).unlink()
    assert open_trace(tmp_path / "t").incomplete_steps == [1]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_missing_segment_is_named(tmp_path, lost):
    write(tmp_path / "t")
    name = f"segment-{lost:05d}.safetensors"
    (tmp_path / "t" / name).unlink()
    with pytest.raises(InputError, match=name):
        open_trace(tmp_path / "t")


def test_a_segment_cut_anywhere_is_named(tmp_path):
    write(tmp_path / "t")
    path = tmp_path / "t" / "segment-00001.safetensors"
    whole = path.read_bytes()
    for length in [*range(0, 20), *range(20, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=path.name):
            open_trace(tmp_path / "t").verify()


def test_a_flipped_bit_anywhere_in_a_segment_is_found(tmp_path):
    write(tmp_path / "t", steps=1)
    path = tmp_path / "t" / "segment-00000.safetensors"
    whole = path.read_bytes()
    chance = random.Random(5)
    for at in [*range(16), *(chance.randrange(len(whole)) for _ in range(200))]:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(InputError, match=path.name):
            open_trace(tmp_path / "t").verify()


def test_an_index_that_differs_from_the_segments_is_found(tmp_path):
    write(tmp_path / "t")
    path = tmp_path / "t" / "index.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"activation"', b'"weight"', 1))
    with pytest.raises(InputError, match=r"index\.jsonl"):
        open_trace(tmp_path / "t").verify()


@pytest.mark.parametrize(
    ("entry", "data"),
    [
        ({"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 8]}, 8),
        ({"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}, 8),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, 8),
        ({"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}, 8),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 80]}, 8),
        ({"dtype": "F32", "shape": [2.5], "data_offsets": [0, 8]}, 8),
        ({"dtype": "F32", "shape": "22", "data_offsets": [0, 8]}, 8),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0]}, 8),
        ({"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}, 8),
        ({"dtype": ["F32"], "shape": [1], "data_offsets": [0, 8]}, 8),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, 12),
        ([], 8),
        ("F32", 8),
    ],
)
def test_a_hostile_entry_is_refused(tmp_path, entry, data):
    text = msgspec.json.encode({"x": entry})
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data))
    with pytest.raises(InputError, match="hostile"):
        open_trace(path)


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"x":' + b"[" * 20000, b'{"x":' + b"9" * 5000 + b"}",
     b'{"__metadata__":[]}', b'{"__metadata__":{"records":3}}', b"{}"],
)  # fmt: skip
def test_a_hostile_header_is_refused(tmp_path, header):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match="hostile"):
        open_trace(path)


def test_a_header_longer_than_the_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes((1 << 63).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match="longer than the file"):
        open_trace(path)


@pytest.mark.parametrize("length", [0, 4, 12])
def test_metadata_that_lie_about_a_tensor_are_refused_when_it_is_read(tmp_path, length):
    values = np.zeros(8, np.float32)
    with TraceWriter(tmp_path / "t", MANIFEST) as writer:
        writer.add(record("x", values), values)
    index = tmp_path / "t" / "index.jsonl"
    index.write_bytes(index.read_bytes().replace(b"[[0,8]]", b"[[0,%d]]" % length))
    trace = open_trace(tmp_path / "t")
    with pytest.raises(InputError, match="segment-00000"):
        trace.values(trace.records[0])


def test_an_index_that_leads_outside_the_folder_is_refused(tmp_path):
    write(tmp_path / "t", steps=1)
    index = tmp_path / "t" / "index.jsonl"
    index.write_bytes(index.read_bytes().replace(b"segment-00000", b"../../x/seg-0"))
    with pytest.raises(InputError):
        open_trace(tmp_path / "t").verify()


def test_an_empty_trace_says_so(tmp_path):
    TraceWriter(tmp_path / "t", MANIFEST).flush()
    with pytest.raises(InputError, match="empty"):
        open_trace(tmp_path / "t")


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{}", b"[1]", b"\xff", b'{"model":"m","framework":"f","framework_version":"0","x":1}',
     b'{"schema":99,"model":"m","framework":"f","framework_version":"0"}'],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(tmp_path, manifest):
    write(tmp_path / "t")
    (tmp_path / "t" / "manifest.json").write_bytes(manifest)
    with pytest.raises(InputError, match="t"):
        open_trace(tmp_path / "t")


def test_what_is_no_trace_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no trace")
    for path, reason in (
        (tmp_path, "manifest"),
        (tmp_path / "notes.txt", "no trace"),
        (tmp_path / "absent", "no such file"),
    ):
        with pytest.raises(InputError, match=reason):
            open_trace(path)


def test_the_writer_refuses_what_does_not_fit(tmp_path):
    values = np.zeros(8, np.float32)
    writer = TraceWriter(tmp_path / "t", MANIFEST)
    writer.add(record("x", values), values)
    with pytest.raises(InputError, match="in the trace already"):
        writer.add(record("x", values), values)
    with pytest.raises(InputError, match="7 values"):
        writer.add(record("y", values), values[:7])
    with pytest.raises(InputError, match="float64"):
        writer.add(record("y", values), values.astype(np.float64))
    with pytest.raises(InputError, match="complex64"):
        writer.add(record("y", values.astype(np.complex64)), values.astype(np.complex64))
    writer.flush()
    assert len(open_trace(tmp_path / "t").records) == 1


def test_a_trace_needs_a_folder_of_its_own(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        TraceWriter(tmp_path, MANIFEST)
    with pytest.raises(InputError, match="cannot be written"):
        TraceWriter(tmp_path / "file" / "t", MANIFEST)


def test_a_full_disk_is_one_error_and_no_partial_file(tmp_path, monkeypatch):
    write(tmp_path / "t", steps=1)
    writer = TraceWriter(tmp_path / "u", MANIFEST)
    values = np.zeros(8, np.float32)
    writer.add(record("x", values), values)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        writer.flush()
    assert [p.name for p in (tmp_path / "u").iterdir()] == ["manifest.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomically(path, b"new", "no bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_library_of_safetensors_reads_a_segment(tmp_path):
    from safetensors import safe_open

    arrays = write(tmp_path / "t", steps=1)
    with safe_open(tmp_path / "t" / "segment-00000.safetensors", framework="np") as file:
        assert set(file.keys()) == set(arrays)
        for name, values in arrays.items():
            assert file.get_tensor(name).tobytes() == values.tobytes()
        assert set(file.metadata()) == {"records", "ops", "before", "crc32", "metadata_crc32"}


def test_a_reader_written_from_the_documentation_alone_finds_the_values(tmp_path):
    """docs/trace-format.md is enough: JSON lines, offsets, run by run."""
    arrays = write(tmp_path / "t")
    found = {}
    for line in (tmp_path / "t" / "index.jsonl").read_text().splitlines():
        entry = json.loads(line)
        raw = (tmp_path / "t" / entry["segment"]).read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:start])
        at, end = header[entry["key"]]["data_offsets"]
        place = json.loads(header["__metadata__"]["records"]).index(entry)
        data = raw[start + at : start + end]
        assert zlib.crc32(data) == json.loads(header["__metadata__"]["crc32"])[place]
        assert entry["runs"] == [[0, 35]]
        found[entry["name"]] = data
    assert found == {name: values.tobytes() for name, values in arrays.items()}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_folder_is_one_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        TraceWriter(tmp_path / "t", MANIFEST)
    tmp_path.chmod(0o700)


def test_a_folder_that_may_not_be_written_is_one_error(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        TraceWriter(tmp_path / "t", MANIFEST)
