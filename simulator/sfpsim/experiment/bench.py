"""The benchmarks behind ``sfpsim bench``: each beside memcpy in the same process."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from sfpsim.errors import one_of
from sfpsim.experiment.bench_codec import bench_codec
from sfpsim.experiment.bench_dram import bench_dram
from sfpsim.experiment.compare import replay
from sfpsim.trace.schema import Manifest, TensorRecord

BENCHES = ("codec", "dram", "replay")
REPLAY_VALUES = 8 << 20
REPLAY_TENSORS = 16
REPLAY_POLICIES = ("fp32", "gecko-delta", "sfp:m=4,e=5")
COPY_BYTES = 64 << 20
COPY_REPEATS = 5


class _Arrays:
    """Float32 tensors in memory that replay like a file of arrays."""

    ordered = False
    label = "arrays in memory"
    manifest = Manifest(model="bench", framework="none", framework_version="")

    def __init__(self, tensors: int, values: int) -> None:
        self.array = np.random.default_rng(1).normal(size=values).astype(np.float32)
        self.records = [
            TensorRecord(
                name=f"array{i}",
                step=0,
                order=i,
                role="unknown",
                use="array",
                dtype="float32",
                shape=(values,),
                memory_order=(0,),
                runs=((0, values),),
            )
            for i in range(tensors)
        ]

    def runs(self, record: TensorRecord) -> list[Any]:
        return [self.array]

    def values(self, record: TensorRecord) -> Any:
        return self.array


def _memcpy_gbps() -> float:
    """Return the rate of copying 64 MiB, bytes counted once; the best of five."""
    source, target = np.ones(COPY_BYTES, np.uint8), np.empty(COPY_BYTES, np.uint8)
    best = float("inf")
    for _ in range(COPY_REPEATS):
        began = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - began)
    return COPY_BYTES / best / 1e9


def _bench_replay() -> dict[str, Any]:
    """Time a replay of 16 tensors of 32 MiB, read and written once: 1 GB of traffic in FP32."""
    memcpy = _memcpy_gbps()
    small, large = _Arrays(1, 1 << 16), _Arrays(REPLAY_TENSORS, REPLAY_VALUES)
    results = []
    for spec in REPLAY_POLICIES:
        replay(small, spec, detail="bandwidth")
        began = time.perf_counter()
        totals = replay(large, spec, detail="bandwidth").containers[0].totals
        seconds = time.perf_counter() - began
        moved = totals.read_bytes + totals.write_bytes
        results.append(
            {
                "bench": "replay",
                "name": spec,
                "level": "bandwidth",
                "traffic_bytes": moved,
                "seconds": seconds,
                "gbps": moved / seconds / 1e9,
                "memcpy_ratio": moved / seconds / 1e9 / memcpy,
            }
        )
    return {"schema": 1, "memcpy_gbps": memcpy, "results": results}


def bench(which: str | None = None) -> dict[str, Any]:
    """Run the benchmark called `which`, or all; returns what ``bench --json`` writes.

    Raises
    ------
    InputError
        If there is no such benchmark.
    """
    if which is not None:
        one_of("unknown benchmark", which, BENCHES)
    parts = []
    if which in (None, "codec"):
        parts.append(bench_codec())
    if which in (None, "dram"):
        parts.append({"memcpy_gbps": _memcpy_gbps(), "results": bench_dram()})
    if which in (None, "replay"):
        parts.append(_bench_replay())
    return {
        "schema": 1,
        "memcpy_gbps": parts[0]["memcpy_gbps"],
        "results": [result for part in parts for result in part["results"]],
    }
