import sys
from types import SimpleNamespace

import pytest

from sfpsim.errors import InputError
from sfpsim.experiment.bench_codec import bench_codec


def test_the_benchmark_names_what_it_measures():
    found = bench_codec((4, 23), size_bytes=1 << 18, repeats=1, peers=False)
    assert set(found) == {"schema", "memcpy_gbps", "results"}
    ours = [r for r in found["results"] if r["name"].startswith("gecko") and r["threads"] == 1]
    assert {(r["name"], r["op"], r["dtype"], r["mantissa_bits"]) for r in ours} == {
        (name, op, dtype, kept)
        for name in ("gecko-bias", "gecko-delta")
        for op in ("measure", "encode", "decode")
        for dtype, kept in (("fp32", 4), ("fp32", 23), ("bf16", 4), ("bf16", 7))
    }
    assert all(r["gbps"] > 0 and r["memcpy_ratio"] > 0 for r in found["results"])


@pytest.mark.filterwarnings("ignore")
def test_peers_are_in_the_same_run():
    found = bench_codec((23,), dtypes=["fp32"], threads=[1], size_bytes=1 << 18, repeats=1)
    assert {"memcpy", "mxfp8-e4m3", "ml_dtypes-e4m3"} <= {r["name"] for r in found["results"]}


@pytest.mark.filterwarnings("ignore")
def test_zipnn_is_timed_where_it_is_installed(monkeypatch):
    class Stored:
        def __init__(self, **options):
            assert options == {
                "input_format": "byte", "bytearray_dtype": "bfloat16", "threads": 1
            }  # fmt: skip

        def compress(self, data):
            assert type(data) is bytes
            return data

        def decompress(self, data):
            return data

    monkeypatch.setitem(sys.modules, "zipnn", SimpleNamespace(ZipNN=Stored))
    found = bench_codec((4,), dtypes=["bf16"], threads=[1], size_bytes=1 << 16, repeats=1)
    assert {r["op"] for r in found["results"] if r["name"] == "zipnn"} == {"encode", "decode"}


def test_wrong_numbers_are_errors():
    with pytest.raises(InputError, match="allowed are fp32"):
        bench_codec(dtypes=["fp64"])
    with pytest.raises(InputError, match="1 thread"):
        bench_codec(threads=[0])
