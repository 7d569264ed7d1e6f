"""What is in a trace, in numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpsim.formats import FORMATS, split
from sfpsim.trace.lengths import LEARNED, mean_lengths
from sfpsim.trace.reader import Trace
from sfpsim.trace.schema import TensorRecord

CHUNK_VALUES = 1 << 20
FLOATS = tuple(fmt.dtype.name for fmt in FORMATS.values())
Counts = dict[tuple[int, str], NDArray[np.int64]]  # by step and role


def trace_info(trace: Trace) -> dict[str, Any]:
    """Return steps, epochs, layers, roles, dtypes, bytes, zeros, exponent entropy, lengths.

    `incomplete_steps` are those that a killed run did not write to their end.

    `zeros` is the share of values that are 0, and `exponent_entropy_bits` the entropy of
    the exponent field, by role, over the values that the trace holds. `by_step` has the same
    for each captured step, and `mean_lengths`: by role the mean bits in force, over the
    values of the tensors that have lengths (see `sfpsim.trace.lengths`).
    """
    records = trace.records
    counts = _counts(trace)
    return {
        "schema": 1,
        "path": str(trace.path),
        "model": trace.manifest.model,
        "framework": f"{trace.manifest.framework} {trace.manifest.framework_version}",
        "steps": trace.steps,
        "incomplete_steps": trace.incomplete_steps,
        "epochs": sorted({r.epoch for r in records}),
        "layers": len({r.layer for r in records}),
        "tensors": len(records),
        "values": sum(r.values for r in records),
        "held_values": sum(r.sampled_values for r in records),
        "roles": dict(Counter(r.role for r in records)),
        "dtypes": dict(Counter(r.dtype for r in records)),
        "bytes": _bytes(trace, records),
        **_shares(counts, trace.steps),
        "lengths": [
            {"step": r.step, "name": r.name, "mantissa_bits": r.lengths.mantissa_bits,
             "exponent_bits": r.lengths.exponent_bits}
            for r in records if r.lengths is not None
        ],
        "by_step": [_step(trace, step, counts) for step in trace.steps],
    }  # fmt: skip


def _step(trace: Trace, step: int, counts: Counts) -> dict[str, Any]:
    records = [r for r in trace.records if r.step == step]
    means = {role: mean_lengths(r for r in records if r.role == role) for role in LEARNED}
    return {
        "step": step,
        "epoch": records[0].epoch,
        "tensors": len(records),
        "bytes": _bytes(trace, records),
        **_shares(counts, [step]),
        "mean_lengths": {role: asdict(mean) for role, mean in means.items() if mean.values},
    }


def _bytes(trace: Trace, records: Sequence[TensorRecord]) -> int:
    return sum(r.values * np.asarray(trace.values(r)).dtype.itemsize for r in records)


def _counts(trace: Trace) -> Counts:
    """Count exponent fields (256) and, behind them, zeros of the held floats."""
    out: Counts = {}
    for record in trace.records:
        if record.dtype in FLOATS:
            values = trace.values(record)
            found = out.setdefault((record.step, record.role), np.zeros(257, np.int64))
            for at in range(0, values.size, CHUNK_VALUES):  # however large the tensor
                part = np.asarray(values[at : at + CHUNK_VALUES])
                found[:256] += np.bincount(split(part)[1], minlength=256)
                found[256] += (part == 0).sum()
    return out


def _shares(counts: Counts, steps: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return zeros and exponent entropy by role over the values of `steps`."""
    by_role: dict[str, Any] = {}
    for (step, role), found in counts.items():
        if step in steps:
            by_role[role] = by_role.get(role, 0) + found
    held = {role: found for role, found in by_role.items() if found[:256].any()}
    return {
        "zeros": {role: int(n[256]) / int(n[:256].sum()) for role, n in held.items()},
        "exponent_entropy_bits": {role: _entropy(n[:256]) for role, n in held.items()},
    }


def _entropy(counts: Any) -> float:
    share = counts[counts > 0] / counts.sum()
    return -math.fsum(float(p) * math.log2(p) for p in share)
