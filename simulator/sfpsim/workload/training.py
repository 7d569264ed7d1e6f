"""From a trace to the passes of its steps: what each reads, computes and writes.

The products of a step run in the order in which they were captured, then their gradient
products backwards, then the update. Everything between two products is fused into them: it
moves what it saved for the backward pass, its parameters and their gradients, and nothing
else. An embedding's gather, and that a fused attention computes its scores again in the
backward pass, are not counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from sfpsim.errors import InputError
from sfpsim.trace.schema import Op, OpRecord, Pass, TensorRecord
from sfpsim.workload.reuse import Scheme, best_scheme

Side = Literal["output", "first", "second"]


class Source(Protocol):
    """What is replayed: tensors, what was computed, and whether that is known."""

    records: Sequence[TensorRecord]
    ops: Sequence[OpRecord]
    ordered: bool
    incomplete_steps: list[int]


@runtime_checkable
class Planned(Protocol):
    """A source that knows the passes of its steps itself."""

    def plan_steps(self, buffer_values: Callable[[TensorRecord], int]) -> list[list[PassPlan]]:
        """Return the passes of every step, as `plan_trace` does."""


@dataclass(kw_only=True)
class Transfer:
    """A tensor moved: `times` times, `used` of its values needed (the rest is over-fetch)."""

    record: TensorRecord
    times: int = 1
    resident: bool = False
    used: int = 0


@dataclass(kw_only=True)
class PassPlan:
    """One pass of one layer of one step. `gemm` is (m, n, k, groups), zeros for none.

    `operands` are the product's two, moved or not; None for one that is not known.
    """

    layer: str
    pass_: Pass
    step: int
    macs: int = 0
    gemm: tuple[int, int, int, int] = (0, 0, 0, 1)
    scheme: str = "none"
    operands: tuple[TensorRecord | None, TensorRecord | None] = (None, None)
    reads: list[Transfer] = field(default_factory=list)
    writes: list[Transfer] = field(default_factory=list)


def touched(op: Op | None, record: TensorRecord) -> int:
    """Values of a convolution's input that its kernel touches; all of any other tensor."""
    if op is None or not op.kernel or tuple(op.input_shape) != record.shape:
        return record.values
    out = record.values
    spatial = record.shape[-len(op.kernel) :]
    for size, kernel, stride in zip(spatial, op.kernel, op.stride, strict=False):
        if stride > kernel:
            out = out // size * min(size, -(-size // stride) * kernel)
    return out


class StepPlanner:
    """Plans one training step. ``plan()`` returns its passes in order of execution."""

    def __init__(
        self,
        records: Iterable[TensorRecord],
        ops: Iterable[OpRecord],
        buffer_values: Callable[[TensorRecord], int],
        onchip: Mapping[str, TensorRecord] | None = None,
    ) -> None:
        self.records = {record.name: record for record in records}
        self.onchip = onchip or {}
        self.buffer_values = buffer_values
        self.step = next(iter(self.records.values())).step
        in_order = sorted(ops, key=lambda op: op.order)
        self.products = [op for op in in_order if op.op.macs]
        self.others = [op for op in in_order if not op.op.macs]
        self.starts = [op.order for op in self.products]
        self.multiplied = {self._owner(name) for op in self.products for name in op.reads} - {""}
        self.gathered = {op.layer for op in self.others if op.op.kind.startswith("embedding")}
        self.position: dict[str, int] = {}
        for op in in_order:
            for layer in (op.name, op.layer):
                self.position.setdefault(layer, op.order)

    def plan(self) -> list[PassPlan]:
        """Return forward, backward and update passes of the step, without empty ones."""
        if not self.products:
            return self._updates()
        plans = self._forward() + self._backward() + self._updates()
        return [plan for plan in plans if plan.macs or plan.reads or plan.writes]

    # Where things happen --------------------------------------------------------------

    def slot(self, order: int) -> int:
        """Return the index of the product into which what happens at `order` is fused.

        The last one that began by then; -1 before the first.
        """
        return bisect_right(self.starts, order) - 1

    def slot_of(self, record: TensorRecord) -> int:
        """Return the slot in which the parameter of `record` is used."""
        return self.slot(self.position.get(record.layer, record.order))

    def _owner(self, name: str) -> str:
        """Return the parameter that the tensor called `name` is or is a copy of."""
        record = self.records.get(name)
        return record.parameter if record is not None else ""

    def _used(self, *uses: str) -> list[TensorRecord]:
        return [record for record in self.records.values() if record.use in uses]

    # Products -------------------------------------------------------------------------

    def _product(self, product: OpRecord, side: Side) -> PassPlan:
        """Plan a product: its output, or the gradient of its first or second operand."""
        op = product.op
        first, second = (self.records.get(name) for name in (*product.reads, "", "")[:2])
        gradient = self.records.get(product.gradient)
        pass_: Pass = "forward"
        a, b, made = first, second, op.m * op.n * op.groups
        m, n, depth = op.m, op.n, op.k
        if side == "first":
            pass_, a, b = "input_gradient", gradient, second
            m, n, depth = op.m, op.k, op.n
            made = first.values if first is not None else m * n * op.groups
        elif side == "second":
            weight = second is not None and second.role == "weight"
            pass_, a, b = "weight_gradient" if weight else "input_gradient", first, gradient
            m, n, depth = op.k, op.n, op.m
            made = second.values if second is not None else m * n * op.groups
        used = [touched(op, r) if r is not None and r is first else _size(r) for r in (a, b)]
        known = a or b
        buffer = self.buffer_values(known) if known is not None else 1
        scheme = best_scheme(used[0], used[1], made, m, n, buffer, op.groups)
        plan = PassPlan(layer=product.name, pass_=pass_, step=self.step, macs=op.macs)
        plan.gemm, plan.scheme = (m, n, depth, op.groups), scheme.name
        names = (*product.reads, "", "")[:2]
        plan.operands = a or self.onchip.get(names[0]), b or self.onchip.get(names[1])
        plan.reads = _operand_reads(a, b, used, scheme)
        return plan

    def _forward(self) -> list[PassPlan]:
        plans = [self._product(product, "output") for product in self.products]
        for record in self._used("weight", "bias"):
            if record.parameter not in self.multiplied and record.layer not in self.gathered:
                plans[max(0, self.slot_of(record))].reads.append(_once(record))
        for record in self._used("stash", "operand"):
            if record.order:  # what was there before the step is not written in it
                plans[max(0, self.slot(record.order))].writes.append(_once(record))
        self._copies(plans)
        return plans

    def _copies(self, plans: list[PassPlan]) -> None:
        """Make the copies of weights where they are first used: read the weight, write it."""
        masters = {r.parameter: r for r in self._used("weight", "bias")}
        for record in self._used("weight_copy"):
            plan = plans[max(0, self.slot(record.order))]
            for product, candidate in zip(self.products, plans, strict=True):
                if record.name in product.reads:
                    plan = candidate
                    break
            if record.parameter in masters:
                plan.reads.append(_once(masters[record.parameter]))
            plan.writes.append(_once(record))

    # The backward pass ----------------------------------------------------------------

    def _backward(self) -> list[PassPlan]:
        plans = [PassPlan(layer="loss", pass_="input_gradient", step=self.step)]
        written: set[str] = set()
        for index in range(len(self.products) - 1, -1, -1):
            product = self.products[index]
            self._between(plans, index, written)
            if product.gradients[0]:
                plans.append(self._product(product, "first"))
            if product.gradients[1]:
                plans.append(self._second(product))
        self._between(plans, -1, written)
        return plans

    def _second(self, product: OpRecord) -> PassPlan:
        plan = self._product(product, "second")
        parameter = self._owner(product.reads[1])
        for record in self._used("weight_gradient"):
            if parameter and record.parameter == parameter:
                plan.writes.append(_once(record))
        return plan

    def _between(self, plans: list[PassPlan], index: int, written: set[str]) -> None:
        """Fuse what lies between product `index` and the next into the pass before it."""
        plan = next(p for p in reversed(plans) if p.pass_ == "input_gradient")
        for other in self.others:
            if self.slot(other.order) == index:
                saved = (self.records[name] for name in other.saves if name in self.records)
                plan.reads += [_once(record) for record in saved if record.use != "buffer"]
        made = [
            record for record in self._used("weight_gradient")
            if record.parameter not in self.multiplied and self.slot_of(record) == index
        ]  # fmt: skip
        if index >= 0 and self.products[index].gradient in self.records:
            made.append(self.records[self.products[index].gradient])
        for record in made:
            if record.name not in written:
                written.add(record.name)
                plan.writes.append(_once(record))

    # The update -----------------------------------------------------------------------

    def _updates(self) -> list[PassPlan]:
        trained = {record.parameter for record in self._used("weight_gradient")}
        plans: dict[str, PassPlan] = {}
        for record in self._used("weight", "bias", "weight_gradient", "optimizer_state"):
            if record.parameter in trained:
                plan = plans.setdefault(
                    record.layer, PassPlan(layer=record.layer, pass_="update", step=self.step)
                )
                plan.reads.append(_once(record))
                if record.use != "weight_gradient":
                    plan.writes.append(_once(record))
        return list(plans.values())


def _once(record: TensorRecord) -> Transfer:
    return Transfer(record=record, used=record.values)


def _size(record: TensorRecord | None) -> int:
    return record.values if record is not None else 0


def _operand_reads(
    a: TensorRecord | None, b: TensorRecord | None, used: list[int], scheme: Scheme
) -> list[Transfer]:
    if a is b and a is not None:
        return [Transfer(record=a, times=max(scheme.a_times, scheme.b_times), used=used[0])]
    out = []
    for key, record, times, need in (
        ("b", b, scheme.b_times, used[1]),
        ("a", a, scheme.a_times, used[0]),
    ):
        if record is not None:
            resident = scheme.resident == key and times == 1
            out.append(Transfer(record=record, times=times, resident=resident, used=need))
    return sorted(out, key=lambda t: not t.resident)


def plan_trace(trace: Source, buffer_values: Callable[[TensorRecord], int]) -> list[list[PassPlan]]:
    """Return the passes of every step of `trace`, one list a step.

    A source that does not know what was computed is one read and one write of each tensor
    of a step, in file order.

    Raises
    ------
    InputError
        If no step is whole.
    """
    lost = set(trace.incomplete_steps) if trace.ordered else set()
    steps: dict[int, list[TensorRecord]] = {}
    for record in trace.records:
        if record.step not in lost:
            steps.setdefault(record.step, []).append(record)
    if not steps:
        raise InputError("no step of the trace is whole: the run was killed while writing it")
    if not trace.ordered:
        return [[_as_array(record) for record in records] for _, records in sorted(steps.items())]
    return [
        StepPlanner(records, [op for op in trace.ops if op.step == step], buffer_values).plan()
        for step, records in sorted(steps.items())
    ]


def _as_array(record: TensorRecord) -> PassPlan:
    moved = [Transfer(record=record, used=record.values)]
    return PassPlan(
        layer=record.name, pass_="none", step=record.step, reads=moved, writes=list(moved)
    )
