"""The small results of the command line: what ``--json`` writes beside comparisons.

`RESULTS` names the type of every result; docs/schema holds their JSON Schemas.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from sfpsim.experiment.explain import Explanation
from sfpsim.experiment.network import NetworkResult
from sfpsim.experiment.result import Comparison
from sfpsim.experiment.sweep import SweepResult
from sfpsim.hardware.dram.simulate import DramResult

SCHEMA = 1


class Entry(TypedDict):
    """A line of ``list``."""

    name: str
    summary: str
    source: str


class Listing(TypedDict, total=False):
    """``list --json``: one of the three."""

    schema: int
    containers: list[Entry]
    machines: list[Entry]
    devices: list[Entry]


class TraceLengths(TypedDict):
    """Bitlengths in force for one tensor; null where the trace has none."""

    step: int
    name: str
    mantissa_bits: int | None
    exponent_bits: int | None


class RoleLengths(TypedDict):
    """Mean bits in force over the values of a role that have lengths."""

    values: int
    mantissa_bits: float | None
    exponent_bits: float | None


class TraceStep(TypedDict):
    """One captured step of ``info``."""

    step: int
    epoch: int
    tensors: int
    bytes: int
    zeros: dict[str, float | None]
    exponent_entropy_bits: dict[str, float | None]
    mean_lengths: dict[str, RoleLengths]


class TraceSummary(TypedDict):
    """``info --json``."""

    schema: int
    path: str
    model: str
    framework: str
    steps: list[int]
    epochs: list[int]
    layers: int
    tensors: int
    values: int
    held_values: int
    roles: dict[str, int]
    dtypes: dict[str, int]
    bytes: int
    zeros: dict[str, float | None]
    exponent_entropy_bits: dict[str, float | None]
    lengths: list[TraceLengths]
    by_step: list[TraceStep]


class Encoding(TypedDict):
    """``encode --json``: sizes by field, and the file's bytes with header and checksums."""

    schema: int
    path: str
    tensor: str
    container: str
    dtype: str
    values: int
    raw_bits: int
    sign_bits: int
    exponent_bits: int
    mantissa_bits: int
    metadata_bits: int
    padding_bits: int
    index_bits: int
    total_bits: int
    ratio: float | None
    raw_blocks: int
    file_bytes: int


class Decoding(TypedDict):
    """``decode --json``."""

    schema: int
    path: str
    tensor: str
    container: str
    dtype: str
    shape: list[int]


class Verification(TypedDict):
    """``verify --json``; what is damaged is an error and has no result."""

    schema: int
    path: str
    kind: Literal["sfp", "trace"]
    tensors: int
    sound: bool


class Report(TypedDict):
    """``doctor --json``; a version is null where the part is not installed."""

    schema: int
    sfpsim: str
    python: str
    cores: int
    numba_threads: str | None
    cache_folder: str
    cache_writable: bool
    parts: dict[str, str | None]
    containers: list[str]


class BenchEntry(TypedDict, total=False):
    """One line of ``bench --json``; which keys are there depends on `bench`."""

    bench: str
    name: str
    op: str
    dtype: str
    mantissa_bits: int | None
    threads: int
    gbps: float
    memcpy_ratio: float
    level: str
    traffic_bytes: int
    seconds: float


class Benchmarks(TypedDict):
    """``bench --json``."""

    schema: int
    memcpy_gbps: float | None
    results: list[BenchEntry]


RESULTS: dict[str, Any] = {
    "compare": Comparison,
    "info": TraceSummary,
    "explain": Explanation,
    "encode": Encoding,
    "decode": Decoding,
    "verify": Verification,
    "dram": DramResult,
    "list": Listing,
    "bench": Benchmarks,
    "doctor": Report,
    "network": NetworkResult,
    "sweep": SweepResult,
}
