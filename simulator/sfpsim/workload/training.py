"""From a trace to the passes of its steps: what each reads, computes and writes.

Element-wise work and normalisation are fused into the product before them (forward) or
after them (backward): they move their stash, and nothing else. docs/hardware.md has the
rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sfpsim.trace.schema import Op, Pass, TensorRecord
from sfpsim.workload.reuse import Scheme, best_scheme


class Source(Protocol):
    """What is replayed: records, and whether they have an order of layers."""

    records: Sequence[TensorRecord]
    ordered: bool


@dataclass(kw_only=True)
class Transfer:
    """A tensor moved: `times` times, `used` of its values needed (the rest is over-fetch)."""

    record: TensorRecord
    times: int = 1
    resident: bool = False
    used: int = 0


@dataclass(kw_only=True)
class PassPlan:
    """One pass of one layer of one step. `gemm` is (m, n, k, groups), zeros for none."""

    layer: str
    pass_: Pass
    step: int
    macs: int = 0
    gemm: tuple[int, int, int, int] = (0, 0, 0, 1)
    scheme: str = "none"
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
        self, records: Iterable[TensorRecord], buffer_values: Callable[[TensorRecord], int]
    ) -> None:
        self.records = list(records)
        self.buffer_values = buffer_values
        self.step = self.records[0].step
        self.stash = [r for r in self.records if r.use == "stash"]
        self.weights = [r for r in self.records if r.use in ("weight", "bias")]
        self.output_gradient = {r.layer: r for r in self.records if r.use == "output_gradient"}
        self.ops: dict[str, Op] = {}
        for record in self.records:
            if record.op is not None and record.op.macs:
                self.ops.setdefault(record.layer, record.op)
        self.position = self._positions()
        self.products = sorted(self.ops, key=lambda name: self.position[name])

    def _positions(self) -> dict[str, int]:
        """First place in the forward order at which each layer shows up."""
        out: dict[str, int] = {}
        for record in sorted(self.stash + self.weights, key=lambda r: r.order):
            for layer in (record.layer, *record.users):
                out.setdefault(layer, record.order)
        for layer in self.ops:
            out.setdefault(layer, len(self.records))
        return out

    def operands(self, layer: str) -> list[TensorRecord]:
        """Return the stashed inputs of a product: floats that the layer saved."""
        op = self.ops[layer]
        mine = [r for r in self.stash if layer in (r.layer, *r.users)]
        shaped = [r for r in mine if not op.input_shape or r.shape == tuple(op.input_shape)]
        return [r for r in (shaped or mine) if "float" in r.dtype][:2]

    def weight(self, layer: str) -> TensorRecord | None:
        """Return the weight of a product, None for attention products."""
        found = [r for r in self.weights if r.layer == layer and r.use == "weight"]
        return found[0] if found else None

    def plan(self) -> list[PassPlan]:
        """Return forward, backward and update passes of the step."""
        forward = [self._forward(layer) for layer in self.products]
        self._write_stash(forward)
        return forward + self._backward() + self._updates()

    def _product(
        self, layer: str, pass_: Pass, a: TensorRecord | None, b: TensorRecord | None
    ) -> PassPlan:
        op = self.ops[layer]
        m, n, depth = op.m, op.n, op.k
        if pass_ == "input_gradient":
            n, depth = depth, n
        elif pass_ == "weight_gradient":
            m, n, depth = depth, n, m
        plan = PassPlan(layer=layer, pass_=pass_, step=self.step, macs=op.macs)
        plan.gemm = (m, n, depth, op.groups)
        used = [touched(op, r) if r is not None else 0 for r in (a, b)]
        buffer = self.buffer_values(a or b) if a or b else 1 << 40  # type: ignore[arg-type]
        scheme = best_scheme(used[0], used[1], m * n * op.groups, m, n, buffer)
        plan.scheme = scheme.name
        plan.reads = _operand_reads(a, b, used, scheme)
        return plan

    def _forward(self, layer: str) -> PassPlan:
        inputs = self.operands(layer)
        weight = self.weight(layer)
        second = weight or (inputs[1] if len(inputs) > 1 else None)
        plan = self._product(layer, "forward", inputs[0] if inputs else None, second)
        plan.reads += [
            Transfer(record=r, used=r.values)
            for r in self.weights
            if r.layer == layer and r is not weight
        ]
        return plan

    def _before(self, record: TensorRecord) -> int:
        """Index of the product that makes `record`, or the last one before it; -1: none."""
        if record.producer in self.ops:
            return self.products.index(record.producer)
        if record.producer is None and self.position.get(record.layer, 0) <= min(
            self.position.values(), default=0
        ):
            return -1
        earlier = [
            i for i, p in enumerate(self.products)
            if self.position[p] < record.order and p not in (record.layer, *record.users)
        ]  # fmt: skip
        return earlier[-1] if earlier else -1

    def _write_stash(self, forward: list[PassPlan]) -> None:
        for record in self.stash:
            maker = self._before(record)
            if maker >= 0:
                forward[maker].writes.append(Transfer(record=record, used=record.values))

    def _fused_reads(self, layer_index: int) -> list[Transfer]:
        """Stash that layers without a product read between this product and the next."""
        bounds = [self.position[p] for p in self.products] + [1 << 60]
        low, high = bounds[layer_index], bounds[layer_index + 1]
        out = []
        for record in self.stash:
            for user in dict.fromkeys((record.layer, *record.users)):
                if user not in self.ops and low <= self.position[user] < high:
                    out.append(Transfer(record=record, used=record.values))
        return out

    def _backward(self) -> list[PassPlan]:
        if not self.products:
            return []
        last = self.products[-1]
        plans = [PassPlan(layer="loss", pass_="input_gradient", step=self.step)]
        plans[0].reads = self._fused_reads(len(self.products) - 1)
        self._write_gradient(plans[0], last)
        for index in range(len(self.products) - 1, -1, -1):
            layer = self.products[index]
            gradient = self.output_gradient.get(layer)
            if index:
                inner = self._product(layer, "input_gradient", gradient, self._second(layer))
                inner.reads += self._fused_reads(index - 1)
                self._write_gradient(inner, self.products[index - 1])
                plans.append(inner)
            plans.append(self._weight_gradient(layer, gradient))
        return plans

    def _second(self, layer: str) -> TensorRecord | None:
        inputs = self.operands(layer)
        return self.weight(layer) or (inputs[1] if len(inputs) > 1 else None)

    def _weight_gradient(self, layer: str, gradient: TensorRecord | None) -> PassPlan:
        inputs = self.operands(layer)
        plan = self._product(layer, "weight_gradient", inputs[0] if inputs else None, gradient)
        plan.writes = [
            Transfer(record=r, used=r.values)
            for r in self.records
            if r.use == "weight_gradient" and r.layer == layer
        ]
        return plan

    def _write_gradient(self, plan: PassPlan, layer: str) -> None:
        gradient = self.output_gradient.get(layer)
        if gradient is not None:
            plan.writes.append(Transfer(record=gradient, used=gradient.values))

    def _updates(self) -> list[PassPlan]:
        layers = dict.fromkeys(r.layer for r in self.weights)
        return [self._update(layer) for layer in layers]

    def _update(self, layer: str) -> PassPlan:
        plan = PassPlan(layer=layer, pass_="update", step=self.step)
        mine = [r for r in self.records if r.layer == layer]
        for record in mine:
            if record.use in ("weight", "bias", "weight_gradient", "optimizer_state"):
                plan.reads.append(Transfer(record=record, used=record.values))
            if record.use in ("weight", "bias", "optimizer_state"):
                plan.writes.append(Transfer(record=record, used=record.values))
        return plan


def _operand_reads(
    a: TensorRecord | None, b: TensorRecord | None, used: list[int], scheme: Scheme
) -> list[Transfer]:
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

    A source without layer order is one read and one write of each tensor, in file order.
    """
    if not trace.ordered:
        return [[_as_array(record) for record in trace.records]]
    steps: dict[int, list[TensorRecord]] = {}
    for record in trace.records:
        steps.setdefault(record.step, []).append(record)
    return [StepPlanner(records, buffer_values).plan() for _, records in sorted(steps.items())]


def _as_array(record: TensorRecord) -> PassPlan:
    moved = [Transfer(record=record, used=record.values)]
    return PassPlan(
        layer=record.name, pass_="none", step=record.step, reads=moved, writes=list(moved)
    )
