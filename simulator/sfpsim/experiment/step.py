"""One step of a trace through a machine's memory path under one policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sfpsim.containers.policy import Policy
from sfpsim.experiment.tensors import Kept, Tensors
from sfpsim.formats import ChipFormat
from sfpsim.hardware.array import Bits, Work, cycles_ps, work_of
from sfpsim.hardware.channel import BurstObserver
from sfpsim.hardware.extents import PAGE_BYTES, Life, Usage, usage
from sfpsim.hardware.machine import Detail
from sfpsim.hardware.path import MemoryPath, Move, Run, Task
from sfpsim.hardware.placement import Placed, extent_bytes, place
from sfpsim.hardware.rows import RowStore
from sfpsim.hardware.windows import Sampler, Sampling
from sfpsim.trace.schema import TensorRecord
from sfpsim.workload.training import PassPlan, Transfer

LASTING = ("weight", "optimizer", "unknown")
STACKED = ("stash", "operand", "output_gradient", "weight_copy")


@dataclass(kw_only=True)
class StepRun:
    """A simulated step: plans with their reports, what each tensor takes, live bytes."""

    plans: list[PassPlan]
    works: list[Work]
    bits: list[Bits]
    formats: list[ChipFormat]
    run: Run
    detail: Detail
    kept: dict[str, Kept]
    usage: list[Usage]
    sampling: Sampling | None = None


class StepSimulation:
    """Places the tensors of one step, turns its passes into tasks and runs them.

    `tiles` says whether slices and samples of tiles are wanted; with `sample` windows of
    this share of the tiles are simulated and the rest is extrapolated.
    """

    def __init__(
        self, tensors: Tensors, policy: Policy, plans: list[PassPlan], detail: Detail,
        observer: BurstObserver | None = None, tiles: bool = False,
        sample: float | None = None,
    ) -> None:  # fmt: skip
        self.tiles, self.sample = tiles, sample
        self.tensors = tensors
        self.observer = observer
        self.detail = detail
        self.machine = tensors.machine
        self.plans = plans
        transfers = [t for plan in plans for t in (*plan.reads, *plan.writes)]
        self.records = {t.record.name: t.record for t in transfers}
        self.policy = policy
        self.kept: dict[str, Kept] = {}

    def run(self, progress: Callable[[int], None] | None = None) -> StepRun:
        """Simulate the step."""
        placed, rows = self._place()
        array = self.machine.compute
        bits = [self._bits(plan) for plan in self.plans]
        works = [work_of(p.gemm, p.macs, array, b) for p, b in zip(self.plans, bits, strict=True)]
        tasks = [self._task(p, w, placed) for p, w in zip(self.plans, works, strict=True)]
        sampling = None
        if self.sample is None:
            path = MemoryPath(self.machine, *rows.arrays(), self.detail, self.observer, self.tiles)
            run = path.run(tasks, progress)
        else:
            sampler = Sampler(self.machine, *rows.arrays(), self.detail, self.sample)
            run, sampling = sampler.run(tasks, progress)
        if self.observer is not None:
            device = self.machine.device
            self.observer.next_step(-(-run.end_ps * device.tck_den // device.tck_ps))
        return StepRun(
            plans=self.plans,
            works=works,
            bits=bits,
            formats=[self._compute_format(plan) for plan in self.plans],
            run=run,
            detail=self.detail,
            kept=self.kept,
            usage=usage(self._lives(), len(tasks), self.machine.memory.extents),
            sampling=sampling,
        )

    def _place(self) -> tuple[dict[str, Placed], RowStore]:
        """Measure every tensor and lay it out behind the one before it, in each group."""
        groups = self.machine.memory.groups
        top = np.zeros(groups, np.int64)
        placed: dict[str, Placed] = {}
        rows = RowStore()
        first = 0
        for name, record in self.records.items():
            kept, stored = self.tensors.keep(record, self.policy)
            self.kept[name] = kept
            padded = -(-extent_bytes(stored, first, groups) // PAGE_BYTES) * PAGE_BYTES
            ends = np.cumsum(padded, axis=0)
            row_base = rows.add(self.tensors.rows(record, kept.container))
            placed[name] = place(
                name, stored, kept.container, self.machine, first_group=first,
                row_base=row_base, base=top + ends - padded,
            )  # fmt: skip
            top = top + ends[-1]
            first = (first + len(stored.blocks.values)) % groups
        return placed, rows

    def _chip_bytes(self, transfer: Transfer) -> int:
        container = self.kept[transfer.record.name].container
        return self.tensors.chip_bytes(transfer.record, container) * transfer.times

    def _task(self, plan: PassPlan, work: Work, placed: dict[str, Placed]) -> Task:
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
            compute_ps=cycles_ps(work.cycles, self.machine.compute),
            onchip_bytes=max(
                sum(map(self._chip_bytes, streams)), sum(map(self._chip_bytes, plan.writes))
            ),
        )

    def _bits(self, plan: PassPlan) -> Bits:
        """Bits of a product's operands on an array of integers, 0 where they are no integers."""
        if not self.machine.compute.is_integer:
            return (0, 0)
        first, second = (self.tensors.operand_bits(r, self.policy) for r in plan.operands)
        return first, second

    def _compute_format(self, plan: PassPlan) -> ChipFormat:
        """Return the widest type among the operands, the type of the product."""
        found = [
            self.tensors.chip_format(t.record, self.kept[t.record.name].container)
            for t in plan.reads
        ]
        known = [fmt for fmt in found if fmt is not None]
        default = self.machine.compute.chip_formats[-1]
        return max(known, key=lambda fmt: fmt.bits, default=default)

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
        kept = self.kept[record.name]
        lasting = record.role in LASTING and record.use != "weight_copy"
        return Life(
            name=record.name,
            bytes=kept.bytes,
            worst_bytes=max(kept.sizes.raw_bits, kept.sizes.total_bits) // 8,
            first=-1 if lasting else first,
            last=len(self.plans) if lasting else last,
            stacked=record.use in STACKED,
        )
