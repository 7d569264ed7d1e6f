from sfpsim.experiment.bench_codec import bench_codec


def test_the_benchmark_names_what_it_measures():
    found = bench_codec((4, 23), size_bytes=1 << 18, repeats=1)
    assert set(found) == {"schema", "memcpy_gbps", "results"}
    ours = [r for r in found["results"] if r["name"].startswith("gecko")]
    assert {(r["name"], r["op"], r["mantissa_bits"]) for r in ours} == {
        (name, op, kept)
        for name in ("gecko-bias", "gecko-delta")
        for op in ("measure", "encode", "decode")
        for kept in (4, 23)
    }
    assert all(r["gbps"] > 0 and r["memcpy_ratio"] > 0 for r in found["results"])
