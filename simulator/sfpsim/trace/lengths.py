"""The bitlengths in force as a training goes on, by step, role and layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sfpsim.formats import FORMATS
from sfpsim.trace.schema import Lengths, OpRecord, Role, TensorRecord

LEARNED: tuple[Role, ...] = ("weight", "activation")
MANTISSA_BITS = {fmt.dtype.name: fmt.mantissa_bits for fmt in FORMATS.values()}


@dataclass(frozen=True, kw_only=True)
class MeanLengths:
    """Mean bits in force over `values` values; None where none of them has such a length."""

    values: int
    mantissa_bits: float | None
    exponent_bits: float | None


def has_lengths(record: TensorRecord) -> bool:
    """Whether `record` is a weight or an activation with lengths in force.

    Biases do not count: no method chooses lengths for them.
    """
    return record.role in LEARNED and record.use != "bias" and record.lengths is not None


def mean_lengths(records: Iterable[TensorRecord]) -> MeanLengths:
    """Return the mean lengths over the values of those of `records` that have lengths.

    A float whose mantissa has no length is kept whole: its type's mantissa counts.
    """
    found = [r for r in records if has_lengths(r)]
    return MeanLengths(
        values=sum(r.values for r in found),
        mantissa_bits=_mean((r.values, _mantissa_bits(r)) for r in found),
        exponent_bits=_mean((r.values, r.lengths.exponent_bits) for r in found if r.lengths),
    )


def _mantissa_bits(record: TensorRecord) -> int | None:
    lengths = record.lengths or Lengths()
    if lengths.mantissa_bits is None and lengths.exponent_bits is not None:
        return MANTISSA_BITS.get(record.dtype)
    return lengths.mantissa_bits


def _mean(weighted: Iterable[tuple[int, int | None]]) -> float | None:
    known = [(values, bits) for values, bits in weighted if bits is not None]
    total = sum(values for values, _ in known)
    return sum(values * bits for values, bits in known) / total if total else None


def by_layer(
    records: Iterable[TensorRecord], ops: Iterable[OpRecord] = ()
) -> dict[tuple[int, int, str, Role], MeanLengths]:
    """Return the mean lengths by (step, epoch, layer, role).

    Each step's layers come in the order in which their first of `ops` ran; those without one
    where their first tensor was made.
    """
    groups: dict[tuple[int, int, str, Role], list[TensorRecord]] = {}
    for r in filter(has_lengths, records):
        groups.setdefault((r.step, r.epoch, r.layer, r.role), []).append(r)
    began: dict[tuple[int, str], int] = {}
    for op in ops:
        before = began.get((op.step, op.layer), op.order)
        began[op.step, op.layer] = min(op.order, before)

    def place(key: tuple[int, int, str, Role]) -> tuple[int, int]:
        step, _, layer, _ = key
        return step, began.get((step, layer), min(r.order for r in groups[key]))

    return {key: mean_lengths(groups[key]) for key in sorted(groups, key=place)}
