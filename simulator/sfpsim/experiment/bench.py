"""The benchmarks behind ``sfpsim bench``: each beside memcpy in the same process."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from sfpsim.errors import InputError
from sfpsim.experiment.bench_codec import bench_codec
from sfpsim.experiment.compare import replay
from sfpsim.trace.schema import Manifest, TensorRecord

BENCHES = ("codec", "replay")
REPLAY_VALUES = 8 << 20
REPLAY_TENSORS = 4


class _Arrays:
    """Float32 tensors in memory that replay like a file of arrays."""

    ordered = False
    label = "arrays in memory"
    manifest = Manifest(model="bench", framework="none", framework_version="")

    def __init__(self) -> None:
        values = np.random.default_rng(1).normal(size=REPLAY_VALUES).astype(np.float32)
        self.array = values
        self.records = [
            TensorRecord(
                name=f"array{i}",
                step=0,
                order=i,
                role="unknown",
                use="array",
                dtype="float32",
                shape=(REPLAY_VALUES,),
                memory_order=(0,),
                runs=((0, REPLAY_VALUES),),
            )
            for i in range(REPLAY_TENSORS)
        ]

    def runs(self, record: TensorRecord) -> list[Any]:
        return [self.array]

    def values(self, record: TensorRecord) -> Any:
        return self.array


def _bench_replay() -> dict[str, Any]:
    """Time a replay of four tensors of 32 MiB, read and written once."""
    trace = _Arrays()
    results = []
    for spec in ("fp32", "gecko-delta", "sfp:m=4,e=5"):
        replay(trace, spec)
        began = time.perf_counter()
        totals = replay(trace, spec).containers[0].totals
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
            }
        )
    return {"schema": 1, "memcpy_gbps": None, "results": results}


def bench(which: str | None = None) -> dict[str, Any]:
    """Run the benchmark called `which`, or all; returns what ``bench --json`` writes.

    Raises
    ------
    InputError
        If there is no such benchmark.
    """
    if which is not None and which not in BENCHES:
        raise InputError(f"unknown benchmark {which!r}: allowed are {', '.join(BENCHES)}")
    parts = []
    if which in (None, "codec"):
        parts.append(bench_codec())
    if which in (None, "replay"):
        parts.append(_bench_replay())
    return {
        "schema": 1,
        "memcpy_gbps": parts[0]["memcpy_gbps"],
        "results": [result for part in parts for result in part["results"]],
    }
