"""One step of a trace through a machine's memory path under one policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.policy import Policy
from sfpsim.experiment.tensors import Kept, Tensors
from sfpsim.formats import FORMATS, FloatFormat
from sfpsim.hardware.array import compute_ps, utilisation
from sfpsim.hardware.extents import Life, Usage, usage
from sfpsim.hardware.machine import Detail
from sfpsim.hardware.path import MemoryPath, Move, Run, Task
from sfpsim.hardware.placement import Placed, extent_bytes, place
from sfpsim.trace.schema import TensorRecord
from sfpsim.workload.training import PassPlan, Transfer


@dataclass(kw_only=True)
class StepRun:
    """A simulated step: plans with their reports, what each tensor takes, live bytes."""

    plans: list[PassPlan]
    shares: list[float]
    formats: list[FloatFormat]
    run: Run
    detail: Detail
    kept: dict[str, Kept]
    usage: list[Usage]
    extent_bytes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))


class StepSimulation:
    """Places the tensors of one step, turns its passes into tasks and runs them."""

    def __init__(
        self, tensors: Tensors, policy: Policy, plans: list[PassPlan], detail: Detail
    ) -> None:
        self.tensors = tensors
        self.detail = detail
        self.machine = tensors.machine
        self.plans = plans
        transfers = [t for plan in plans for t in (*plan.reads, *plan.writes)]
        self.records = {t.record.name: t.record for t in transfers}
        self.kept = {name: tensors.keep(r, policy) for name, r in self.records.items()}

    def run(self, progress: Callable[[int], None] | None = None) -> StepRun:
        """Simulate the step."""
        placed, rows_p, rows_m, extents = self._place()
        shares = [utilisation(plan.gemm, self.machine.compute) for plan in self.plans]
        tasks = [self._task(p, s, placed) for p, s in zip(self.plans, shares, strict=True)]
        path = MemoryPath(self.machine, rows_p, rows_m, self.detail)
        run = path.run(tasks, progress)
        return StepRun(
            plans=self.plans,
            shares=shares,
            formats=[self._compute_format(plan) for plan in self.plans],
            run=run,
            detail=self.detail,
            kept=self.kept,
            usage=usage(self._lives(), len(tasks), self.machine.memory.extents),
            extent_bytes=extents,
        )

    def _place(
        self,
    ) -> tuple[dict[str, Placed], NDArray[np.uint16], NDArray[np.uint8], NDArray[np.int64]]:
        channels = self.machine.memory.channels
        top = np.zeros(channels, np.int64)
        placed: dict[str, Placed] = {}
        payload, metadata, held = [], [], 0
        first = 0
        for name, kept in self.kept.items():
            sizes = extent_bytes(kept.stored, first, channels)
            padded = -(-sizes // 4096) * 4096
            base = top + np.cumsum(np.vstack([np.zeros(channels, np.int64), padded]), axis=0)[:3]
            placed[name] = place(
                name, kept.stored, kept.container, self.machine,
                first_channel=first, row_base=held, base=base,
            )  # fmt: skip
            top = top + padded.sum(axis=0)
            payload.append(kept.stored.rows.payload_bits)
            metadata.append(kept.stored.rows.metadata_bits)
            held += len(payload[-1])
            first = (first + len(kept.stored.blocks.values)) % channels
        rows_p = np.concatenate(payload) if payload else np.zeros(0, np.uint16)
        rows_m = np.concatenate(metadata) if metadata else np.zeros(0, np.uint8)
        return placed, rows_p, rows_m, top

    def _chip_bytes(self, transfer: Transfer) -> int:
        container = self.kept[transfer.record.name].container
        return self.tensors.chip_bytes(transfer.record, container) * transfer.times

    def _task(self, plan: PassPlan, share: float, placed: dict[str, Placed]) -> Task:
        def moves(transfers: list[Transfer]) -> tuple[Move, ...]:
            return tuple(
                Move(tensor=placed[t.record.name], times=t.times, resident=t.resident)
                for t in transfers
            )

        streams = [t for t in plan.reads if not t.resident]
        return Task(
            name=f"{plan.layer} {plan.pass_}",
            reads=moves(plan.reads),
            writes=moves(plan.writes),
            compute_ps=compute_ps(plan.macs, share, self.machine.compute),
            onchip_bytes=max(
                sum(map(self._chip_bytes, streams)), sum(map(self._chip_bytes, plan.writes))
            ),
        )

    def _compute_format(self, plan: PassPlan) -> FloatFormat:
        """Return the widest type among the operands, the type of the product."""
        found = [
            self.tensors.chip_format(t.record, self.kept[t.record.name].container)
            for t in plan.reads
        ]
        floats = [fmt for fmt in found if fmt is not None]
        default = FORMATS[self.machine.compute.formats[-1]]
        return max(floats, key=lambda fmt: fmt.bits, default=default)

    def _lives(self) -> list[Life]:
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for number, plan in enumerate(self.plans):
            for transfer in plan.reads:
                name = transfer.record.name
                first.setdefault(name, -1)
                last[name] = number
            for transfer in plan.writes:
                first.setdefault(transfer.record.name, number)
                last[transfer.record.name] = number
        return [self._life(self.records[n], first[n], last[n]) for n in self.records]

    def _life(self, record: TensorRecord, first: int, last: int) -> Life:
        stored = self.kept[record.name].stored
        lasting = record.role in ("weight", "optimizer", "unknown")
        return Life(
            name=record.name,
            bytes=-(-stored.sizes.total_bits // 8),
            worst_bytes=max(stored.sizes.raw_bits, stored.sizes.total_bits) // 8,
            first=-1 if lasting else first,
            last=len(self.plans) if lasting else last,
            stacked=record.use in ("stash", "output_gradient"),
        )
