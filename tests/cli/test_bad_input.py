"""Unusable input: exit 2, one line that says what was given, no traceback, no file."""

import errno
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from sfpsim.trace import writer


@pytest.fixture
def below_a_file(single):
    """A path that even root cannot write."""
    return single / "below"


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ("gecko", "unknown container 'gecko'"),
        ("", "unknown container ''"),
        ("sfp", "bitlengths in force"),
        ("sfp:m=24", "m=24"),
        ("sfp:m=-1", "m=-1"),
        ("sfp:m=4,e=9", "e=9"),
        ("sfp:m=4,e=0", "e=0"),
        ("sfp:m=4,q=1", "'q'"),
        ("sfp:m=4,m=5", "twice"),
        ("sfp:m=4,exponent=huffman", "exponent=huffman"),
        ("fp32:m=4", "takes no keys"),
        ("weight=fp32;weight=bf16", "twice"),
        ("weights=fp32", "'weights=fp32'"),
        ("fp32,bf16", "use compare"),
    ],
)
def test_containers(sfpsim, single, container, said):
    assert said in sfpsim("replay", single, "-c", container).line


def test_more_mantissa_than_the_source_has(sfpsim, arrays, tmp_path):
    out = tmp_path / "x.sfp"
    done = sfpsim("encode", arrays, "-c", "sfp:m=11", "--tensor", "half", "-o", out)
    assert "m=11" in done.line
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing",), "nothing"),
        (("replay", "X", "--contianer", "fp32"), "--contianer"),
        (("replay", "X"), "--container"),
        (("replay",), "TRACE"),
        (("replay", "X", "-c", "fp32", "--trace-format", "stl"), "--export-trace FILE"),
        (
            ("replay", "X", "-c", "fp32", "--export-trace", "t", "--trace-format", "csv"),
            "dramsim3, ramulator, stl, rstl",
        ),
        (("replay", "X", "-c", "fp32", "--export-trace", "no/where/t"), "cannot be written"),
        (("replay", "X", "-c", "fp32", "--machine", "tpu"), "'tpu'"),
        (("replay", "X", "-c", "fp32", "--detail", "coarse"), "'coarse'"),
        (("list", "nothing"), "containers, machines, devices, networks"),
        (("network", "resnet19"), "resnet19"),
        (("network", "resnet18", "--batch", "0"), "batch=0"),
        (("network", "resnet18", "--lengths", "3"), "two numbers"),
        (("network", "resnet18", "-c", "sfp", "--lengths", "3,9"), "exponent bits: must be 1 to 8"),
        (("network", "resnet18", "--mode", "dreaming"), "training, inference"),
        (("network", "resnet18", "--optimizer", "lion"), "sgd, momentum, adam"),
        (("network", "resnet18", "--stash", "all"), "paper, autograd"),
        (("network", "resnet18", "--recompute", "some"), "none, normalisation, full"),
        (("network", "resnet18", "--fusion", "half"), "none, producer, full"),
        (("network", "nowhere.csv"), "cannot be read"),
        (("network", "nowhere.onnx"), "no ONNX model"),
        (("bench", "disk"), "allowed are codec"),
        (("encode", "X", "-c", "fp32,bf16", "-o", "x.sfp"), "one container"),
        (("encode", "X", "-c", "fp32", "-o", "x.sfp", "--tensor", "q"), "'q'"),
    ],
)
def test_options(sfpsim, single, arguments, said):
    assert said in sfpsim(*(single if a == "X" else a for a in arguments)).line


def _damaged_files(folder):
    np.save(folder / "complex.npy", np.zeros(3, np.complex64))
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    (folder / "cut.npy").write_bytes((folder / "complex.npy").read_bytes()[:50])
    save_file({"x": np.zeros(100, np.float32)}, folder / "cut.safetensors")
    whole = (folder / "cut.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-7])
    (folder / "junk.safetensors").write_bytes(b"junk")
    (folder / "junk.npz").write_bytes(b"junk")
    (folder / "text.txt").write_text("text")
    (folder / "folder").mkdir()
    save_file({}, folder / "none.safetensors")


@pytest.mark.parametrize("command", ["info", "verify", "replay"])
@pytest.mark.parametrize(
    "name",
    ["complex.npy", "objects.npy", "cut.npy", "cut.safetensors", "junk.safetensors", "junk.npz",
     "text.txt", "folder", "none.safetensors", "missing"],
)  # fmt: skip
def test_files_that_are_no_trace(sfpsim, tmp_path, command, name):
    _damaged_files(tmp_path)
    more = ("-c", "fp32") if command == "replay" else ()
    line = sfpsim(command, tmp_path / name, *more).line
    assert name.partition(".")[0] in line


def test_an_empty_trace(sfpsim, tmp_path, trace):
    for path in trace.glob("segment-*"):
        path.unlink()
    assert str(trace) in sfpsim("replay", trace, "-c", "fp32").line


def test_a_damaged_segment_is_named(sfpsim, trace):
    segment = next(trace.glob("segment-*"))
    data = bytearray(segment.read_bytes())
    data[-5] ^= 4
    segment.write_bytes(data)
    assert segment.name in sfpsim("verify", trace).line
    segment.write_bytes(data[:-9])
    assert segment.name in sfpsim("info", trace).line


@pytest.mark.parametrize("at", [0, 5, 9, 14, 40, -1, -500])
def test_damaged_bitstreams(sfpsim, single, tmp_path, at):
    stored, out = tmp_path / "x.sfp", tmp_path / "y.npy"
    assert sfpsim("encode", single, "-c", "gecko-bias", "-o", stored).status == 0
    data = bytearray(stored.read_bytes())
    data[at] ^= 1
    stored.write_bytes(data)
    for command in (("verify", stored), ("decode", stored, "-o", out)):
        assert "x.sfp" in sfpsim(*command).line
    assert not out.exists()


@pytest.mark.parametrize("kept", [0, 3, 15, 60, 1000, -1])
def test_truncated_bitstreams(sfpsim, single, tmp_path, kept):
    stored = tmp_path / "x.sfp"
    assert sfpsim("encode", single, "-c", "gecko-bias", "-o", stored).status == 0
    stored.write_bytes(stored.read_bytes()[:kept])
    assert "x.sfp" in sfpsim("verify", stored).line


def test_unsupported_types(sfpsim, arrays, tmp_path):
    out = tmp_path / "x.sfp"
    done = sfpsim("encode", arrays, "-c", "gecko-bias", "--tensor", "whole", "-o", out)
    assert "int64" in done.line
    assert not out.exists()
    assert sfpsim("encode", arrays, "-c", "fp32", "--tensor", "brain", "-o", out).status == 0
    assert "bfloat16" in sfpsim("decode", out, "-o", tmp_path / "y.npy").line
    assert ".safetensors" in sfpsim("decode", out, "-o", tmp_path / "y.txt").line
    assert "6 tensors" in sfpsim("encode", arrays, "-c", "fp32", "-o", out).line


@pytest.mark.parametrize("option", ["--json", "--out"])
@pytest.mark.parametrize("command", ["replay", "compare"])
def test_places_that_cannot_be_written(sfpsim, single, below_a_file, command, option):
    done = sfpsim(command, single, "-c", "fp32", option, below_a_file)
    assert "cannot be written" in done.line
    assert str(below_a_file) in done.line


def test_other_places_that_cannot_be_written(sfpsim, single, tmp_path, below_a_file):
    for command in ("info", "verify"):
        assert "cannot be written" in sfpsim(command, single, "--json", below_a_file).line
    assert "cannot be written" in sfpsim("info", single, "--json", tmp_path).line
    assert "cannot be written" in sfpsim("info", single, "--json", tmp_path / "a" / "b").line
    assert "cannot be written" in sfpsim("encode", single, "-c", "fp32", "-o", below_a_file).line
    assert sfpsim("encode", single, "-c", "fp32", "-o", tmp_path / "x.sfp").status == 0
    assert "cannot be written" in sfpsim("decode", tmp_path / "x.sfp", "-o", "/nowhere/y.npy").line
    assert "cannot be written" in sfpsim("demo", "--out", below_a_file).line


def test_a_full_disk_leaves_no_file(sfpsim, single, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer.os, "fsync", full)
    target = tmp_path / "r.json"
    assert "No space left" in sfpsim("info", single, "--json", target).line
    out = tmp_path / "out"
    assert "No space left" in sfpsim("replay", single, "-c", "fp32", "--out", out).line
    assert not target.exists()
    assert not [p for p in out.iterdir() if not p.name.startswith(".")]


def test_explain_refuses_what_is_no_result(sfpsim, single, tmp_path):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    assert sfpsim("replay", single, "-c", "fp32", "--json", good).status == 0
    result = json.loads(good.read_text())
    for text, said in (
        ("{", "not a JSON file"),
        ("[1]", "no result"),
        ('{"schema": 1, "results": []}', "no result"),
        (json.dumps(result | {"schema": 2}), "schema 2"),
        (json.dumps(result | {"schema": "1"}), "schema '1'"),
        (json.dumps(result | {"containers": []}), "no container"),
        (json.dumps(result | {"containers": [{}]}), "no result that sfpsim"),
    ):
        bad.write_text(text)
        assert said in sfpsim("explain", good, bad).line
        assert "bad.json" in sfpsim("explain", good, bad).line
    bad.write_bytes(good.read_bytes().replace(b'"fp32"', b'"fp\xff2"'))
    assert "not a JSON file" in sfpsim("explain", good, bad).line
    bad.write_text("[" * 100_000)
    assert "not a JSON file" in sfpsim("explain", good, bad).line
    assert "'bf16'" in sfpsim("explain", good, good, "--to", "bf16").line
    assert "cannot be read" in sfpsim("explain", good, tmp_path).line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: sfp-2024\nname: x\nclock: 3\n", "clock"),
        ("base: nothing\nname: x\n", "nothing"),
        ("- 1\n", "mapping"),
        ("base: sfp-2024\ncodec: {compressors: 0}\n", "compressors"),
        ("{", "m.yaml"),
    ],
)
def test_machine_files(sfpsim, single, tmp_path, text, said):
    (tmp_path / "m.yaml").write_text(text)
    assert said in sfpsim("replay", single, "-c", "fp32", "--machine", tmp_path / "m.yaml").line


def test_the_unforeseen_is_one_line_too(sfpsim, single, monkeypatch):
    def broken(_):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("sfpsim.trace.reader.open_trace", broken)
    done = sfpsim("info", single)
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert "ZeroDivisionError" in done.err
    monkeypatch.setenv("SFPSIM_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        sfpsim("info", single)
