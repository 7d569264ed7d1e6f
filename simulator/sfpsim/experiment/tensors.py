"""The tensors of a trace as they are stored under a policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfpsim.containers.base import Container, Rows, Sizes
from sfpsim.containers.integers import Uniform
from sfpsim.containers.policy import Policy
from sfpsim.containers.quality import Quality, stored_quality
from sfpsim.containers.raw import AS_IS, Plain
from sfpsim.containers.sampled import Stored, held_rows, store
from sfpsim.containers.sfp import SfpFromTrace
from sfpsim.experiment.inforce import IntegersFromTrace
from sfpsim.formats import FORMATS, ChipFormat, FloatFormat, format_of
from sfpsim.hardware.machine import Machine
from sfpsim.trace.schema import TensorRecord

FLOATS = tuple(fmt.dtype.name for fmt in FORMATS.values())


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A tensor under a policy: its container, sizes, quality and standard error, bits.

    `quality` is that of the values in the trace; of nothing where `lossless`.
    """

    record: TensorRecord
    container: Container
    sizes: Sizes
    total_bits_se: float
    quality: Quality
    lossless: bool

    @property
    def bytes(self) -> int:
        """Bytes stored."""
        return -(-self.sizes.total_bits // 8)


class Tensors:
    """Measures the tensors of one trace on the way from the mapped file to the kernels."""

    def __init__(self, trace: Any, machine: Machine, baseline: Container) -> None:
        self.trace = trace
        self.machine = machine
        self.baseline = baseline

    def runs(self, record: TensorRecord) -> list[Any]:
        """Return what the trace holds of `record`, mapped, run after run."""
        return [np.asarray(run) for run in self.trace.runs(record)]

    def rows(self, record: TensorRecord, container: Container) -> Iterator[Rows]:
        """Yield the row widths of `record` in `container`, in parts."""
        return held_rows(
            container, self.runs(record), full_values=record.values, signed=record.any_sign
        )

    def keep(self, record: TensorRecord, policy: Policy) -> tuple[Kept, Stored]:
        """Return `record` as `policy` stores it, and how that lies in memory."""
        container = self.container_of(record, policy)
        runs = self.runs(record)
        stored = store(container, runs, full_values=record.values, signed=record.any_sign)
        is_float = record.dtype in FLOATS
        lossless = not is_float or container.lossless_for(format_of(runs[0].dtype))
        kept = Kept(
            record=record,
            container=container,
            sizes=stored.sizes,
            total_bits_se=stored.total_bits_se,
            quality=Quality() if lossless else stored_quality(container, runs),
            lossless=lossless,
        )
        return kept, stored

    def container_of(self, record: TensorRecord, policy: Policy) -> Container:
        """Return the container of `record`; what is no float travels as it is."""
        if record.dtype not in FLOATS:
            return AS_IS
        container = policy.container_for(record.role, self.baseline)
        if isinstance(container, SfpFromTrace):
            lengths = record.lengths
            return container.resolve(
                lengths.mantissa_bits if lengths else None,
                lengths.exponent_bits if lengths else None,
            )
        if isinstance(container, IntegersFromTrace):
            return container.resolve(record.lengths)
        return container

    def operand_bits(self, record: TensorRecord | None, policy: Policy) -> int:
        """Bits of the integers that `record` is stored as; 0 where it is no integers."""
        if record is None:
            return 0
        container = self.container_of(record, policy)
        return container.bits if isinstance(container, Uniform) else 0

    def chip_format(self, record: TensorRecord, container: Container) -> ChipFormat | None:
        """Return the type that values have on chip: the narrowest that holds them.

        None for tensors that are no floats.
        """
        if record.dtype not in FLOATS:
            return None
        if self.machine.compute.is_integer:
            return self._chip_integer(container)
        source = next(fmt for fmt in FORMATS.values() if fmt.dtype.name == record.dtype)
        mantissa, exponent = source.mantissa_bits, source.exponent_bits
        if isinstance(container, Plain):
            exponent = min(exponent, container.fmt.exponent_bits)
        kept = container.value_mantissa_bits
        if kept is not None:
            mantissa = min(mantissa, kept)
        formats = [f for f in self.machine.compute.chip_formats if isinstance(f, FloatFormat)]
        holding = [
            f for f in formats if f.mantissa_bits >= mantissa and f.exponent_bits >= exponent
        ]
        return holding[0] if holding else formats[-1]

    def _chip_integer(self, container: Container) -> ChipFormat:
        """Return the narrowest integer that holds a container's; the widest for floats."""
        formats = self.machine.compute.chip_formats
        bits = container.bits if isinstance(container, Uniform) else formats[-1].bits
        return next((f for f in formats if f.bits >= bits), formats[-1])

    def chip_bytes(self, record: TensorRecord, container: Container) -> int:
        """Bytes that the whole tensor takes on chip."""
        fmt = self.chip_format(record, container)
        return record.values * (fmt.bytes if fmt else np.dtype(record.dtype).itemsize)
