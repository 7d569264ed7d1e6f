"""What is in a trace, in numbers."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from sfpsim.formats import FORMATS, split
from sfpsim.trace.reader import Trace

CHUNK_VALUES = 1 << 20
FLOATS = tuple(fmt.dtype.name for fmt in FORMATS.values())


def trace_info(trace: Trace) -> dict[str, Any]:
    """Return steps, epochs, layers, roles, dtypes, bytes, zeros, exponent entropy, lengths.

    `incomplete_steps` are those that a killed run did not write to their end.

    `zeros` is the share of values that are 0, and `exponent_entropy_bits` the entropy of
    the exponent field, by role, over the values that the trace holds.
    """
    records = trace.records
    exponents, zeros = _by_role(trace)
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
        "bytes": sum(r.values * np.asarray(trace.values(r)).dtype.itemsize for r in records),
        "zeros": {role: zeros[role] / int(n.sum()) for role, n in exponents.items() if n.sum()},
        "exponent_entropy_bits": {role: _entropy(n) for role, n in exponents.items()},
        "lengths": [
            {"step": r.step, "name": r.name, "mantissa_bits": r.lengths.mantissa_bits,
             "exponent_bits": r.lengths.exponent_bits}
            for r in records if r.lengths is not None
        ],
    }  # fmt: skip


def _by_role(trace: Trace) -> tuple[dict[str, Any], Counter[str]]:
    """Count exponent fields (256) and zeros of the held floats, by role."""
    exponents: dict[str, Any] = {}
    zeros: Counter[str] = Counter()
    for record in trace.records:
        if record.dtype in FLOATS:
            values = trace.values(record)
            for at in range(0, values.size, CHUNK_VALUES):  # however large the tensor
                part = np.asarray(values[at : at + CHUNK_VALUES])
                counts = np.bincount(split(part)[1], minlength=256)
                exponents[record.role] = exponents.get(record.role, 0) + counts
                zeros[record.role] += int((part == 0).sum())
    return exponents, zeros


def _entropy(counts: Any) -> float:
    share = counts[counts > 0] / counts.sum()
    return -math.fsum(float(p) * math.log2(p) for p in share)
