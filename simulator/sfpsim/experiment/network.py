"""A step of a published network: its layer table with the values of a real trace.

Every tensor of the step has the size that the table gives it; its values are those of the
tensor of the same role in a captured trace, the *profile*, that lies at the same depth,
repeated to the size (docs/containers.md says how samples are extrapolated). Stashed are
the inputs of products, as in the papers (the ``paper`` stash); normalisation, activations
and additions are fused into the products around them and move nothing.

An inference step is the forward pass alone, layer after layer. Nothing has to be kept for
later, so an input of a product stays on chip where it fits beside what is read while it is
made and beside what is made from it. That a skip connection waits there too is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import msgspec
import numpy as np

from sfpsim._version import __version__
from sfpsim.containers.policy import Policy
from sfpsim.errors import InputError, one_of
from sfpsim.experiment.compare import Progress, Timeline, compare
from sfpsim.experiment.inforce import IntegersFromTrace, parse_in_force
from sfpsim.experiment.result import Band, Comparison, ContainerResult, Energy, LayerResult, Struct
from sfpsim.experiment.tensors import FLOATS
from sfpsim.formats import FORMATS
from sfpsim.hardware.machine import Machine, load_machine
from sfpsim.trace.schema import Lengths, Manifest, OpRecord, Role, TensorRecord, Use
from sfpsim.workload.imports import find_network
from sfpsim.workload.layers import FUSIONS, STATES, StepOptions, Weaver
from sfpsim.workload.networks import Layer, Network
from sfpsim.workload.training import PassPlan, StepPlanner, Transfer

GROUP_VALUES = 64
TELLING_VALUES = 1024  # two pieces of 512, from which a standard error can come
MOST_BATCH = 1 << 20
LEARNED = ("weight", "activation")
Mode = Literal["training", "inference"]
MODES: tuple[Mode, ...] = ("training", "inference")
ROLES: dict[Use, Role] = {
    "stash": "activation",
    "weight": "weight",
    "output_gradient": "gradient",
    "weight_gradient": "gradient",
    "optimizer_state": "optimizer",
}


BASE_SAMPLE = 0.01
BASES = {  # everything in one type; FP8 as usual: E4M3 forward, E5M2 for the rest
    "fp32": "all=fp32",
    "bf16": "all=bf16",
    "fp8": "weight=fp8-e4m3;activation=fp8-e4m3;"
    + ";".join(f"{role}=fp8-e5m2" for role in ("gradient", "optimizer", "other")),
}


class Gain(Struct, frozen=True, kw_only=True):
    """A step against the same step in a base: how many times less it takes.

    `speed_up` is as simulated, give or take `speed_up_error` where a side is sampled (a base
    is, unless it runs many bursts at a time), `speed_up_band` at mapping utilisations of
    both; energy by the low, middle and high tables; `traffic` is the ratio of all bytes moved.
    """

    base: str
    policy: str
    speed_up: float
    speed_up_error: float
    speed_up_band: Band
    energy_low: float
    energy_middle: float
    energy_high: float
    traffic: float


class NetworkContainer(Struct, frozen=True, kw_only=True):
    """A network's step under one policy; see docs/results.md."""

    container: str
    operand_bytes: int
    compulsory_bytes: int
    traffic_bytes: int
    time_ns: float
    time_error_ns: float
    simulated_share: float
    time_band_ns: Band
    bandwidth_gbps: float | None
    break_even_gbps: float | None
    bound: float | None
    energy_pj: Energy
    energy_low_pj: Energy
    energy_high_pj: Energy
    gains: list[Gain]
    layers: list[LayerResult]


class StepTraffic(Struct, frozen=True, kw_only=True):
    """What a step moves in the machine's baseline type, whatever the policy.

    Of the products (`operand_bytes`, each value once `compulsory_bytes`, the lower bound of
    any order of the work `bound_bytes`), of everything by what is fused (`full_bytes`), and
    what the forward pass keeps for the backward pass (`stash_bytes`).
    """

    compulsory_bytes: int
    bound_bytes: int
    operand_bytes: int
    full_bytes: dict[str, int]
    stash_bytes: int


class NetworkResult(Struct, frozen=True, kw_only=True):
    """What ``network --json`` writes; `optimizer` to `fusion` are as of `StepOptions`."""

    schema: int = 1
    sfpsim: str
    network: str
    batch: int
    machine: str
    machine_hash: str
    memory_detail: str
    mode: str
    config_hash: str
    profile: str
    optimizer: str | None
    master_weights: bool
    stash: str
    recompute: str
    fusion: str
    macs: int
    parameters: int
    traffic: StepTraffic
    containers: list[NetworkContainer]
    notes: list[str]


class NetworkTrace:
    """A network's step as a trace whose values come from a profile.

    Parameters
    ----------
    network, batch
        What is trained on how many samples at a time.
    profile
        What `open_trace` returns for a captured training.
    lengths
        Mean mantissa and exponent bits a value, which a bare ``sfp`` takes, or one number:
        mean bits a layer, which a bare ``int`` takes; None: none in force. See
        `spread_lengths`.
    mode
        ``training`` or ``inference``.
    onchip_values
        Values that stay on chip from product to product (inference).
    options
        How the training step is done.

    Raises
    ------
    InputError
        If the batch or a length is out of range or the profile lacks a role.
    """

    ordered = True
    incomplete_steps: tuple[int, ...] = ()

    def __init__(
        self, network: Network, batch: int, profile: Any,
        lengths: tuple[float, ...] | None = None, mode: Mode = "training",
        onchip_values: int = 0, options: StepOptions | None = None,
    ) -> None:  # fmt: skip
        self.options = options or StepOptions()
        if not 1 <= batch <= MOST_BATCH:
            raise InputError(f"batch={batch}: must be 1 to {MOST_BATCH}")
        self.network, self.batch, self.profile = network, batch, profile
        self.mode, self.onchip_values = mode, onchip_values
        self.label = f"{network.name}, batch {batch}, values of {profile.label}"
        self.path = self.label
        self.manifest = Manifest(model=network.name, framework="table", framework_version="")
        self.models = {use: self._models(use) for use in ROLES}
        self.records: list[TensorRecord] = []
        self.ops: list[OpRecord] = []
        self.sources: dict[str, TensorRecord] = {}
        self.onchip: dict[str, TensorRecord] = {}
        self._build()
        self.planned = len(self.records)
        if mode == "training" and not self.options.plain:
            self.plan_steps(lambda _: MOST_BATCH)  # makes the tensors that are not fused away
        if lengths is not None and len(lengths) == 1:
            self._set_bits(lengths[0])
        elif lengths is not None:
            self._set_lengths(*lengths)

    def _set_bits(self, mean: float) -> None:
        """Put integers' bits in force: each layer's weight and input share a whole number."""
        names = [layer.name for layer in self.network.products]
        bits = spread_lengths([1] * len(names), mean, 1, 16, "integer")
        found = {n: Lengths(mantissa_bits=b) for n, b in zip(names, bits, strict=True)}
        self.records = [
            msgspec.structs.replace(r, lengths=found[r.layer]) if r.role in LEARNED else r
            for r in self.records
        ]
        self.onchip = {
            name: msgspec.structs.replace(r, lengths=found[r.layer])
            for name, r in self.onchip.items()
        }

    def _set_lengths(self, mantissa: float, exponent: float) -> None:
        """Put lengths in force: weights and stash share the means, other roles likewise."""
        for stored in (True, False):
            chosen = [r for r in self.records if (r.role in LEARNED) == stored]
            sizes = [r.values for r in chosen]
            pairs = zip(
                chosen, spread_lengths(sizes, mantissa, 0, 23, "mantissa"),
                spread_lengths(sizes, exponent, 1, 8, "exponent"), strict=True,
            )  # fmt: skip
            found = {r.name: Lengths(mantissa_bits=m, exponent_bits=e) for r, m, e in pairs}
            self.records = [
                msgspec.structs.replace(r, lengths=found[r.name]) if r.name in found else r
                for r in self.records
            ]

    def _models(self, use: Use) -> list[TensorRecord]:
        """The profile's tensors of one use, by depth.

        Those too short to tell how much their values vary count only where there is no other.
        """
        floats = [fmt.dtype.name for fmt in FORMATS.values()]
        found = [
            r for r in self.profile.records
            if r.use == use and r.role == ROLES[use] and r.dtype in floats
            and r.sampled_values >= GROUP_VALUES
        ]  # fmt: skip
        if not found and use != "optimizer_state":
            raise InputError(
                f"profile {self.profile.label}: no tensor of use {use}: capture a training step"
            )
        found = [r for r in found if r.sampled_values >= TELLING_VALUES] or found
        order = sorted(found, key=lambda r: (r.step, r.order))
        return order[::-1] if use == "output_gradient" else order

    def _build(self) -> None:
        products = self.network.products
        shared: set[str] = set()
        for number, layer in enumerate(products):
            depth = number / max(1, len(products) - 1)
            at = (number + 1) * 10
            reads = self._operands(layer, at, depth, shared)
            training = self.mode == "training"
            gradient = f"{layer.name}.output_gradient" if training else ""
            out = layer.out_elements * self.batch
            if training:
                self._add(gradient, "output_gradient", layer, out, at, depth)
            self.ops.append(
                OpRecord(
                    name=layer.name, step=0, order=at, layer=layer.name, op=layer.op(self.batch),
                    reads=reads, gradient=gradient, gradients=(training and number > 0, training),
                )
            )  # fmt: skip
        if self.mode == "inference":
            self._add(f"{layer.name}.output", "stash", layer, out, at, depth)

    def _stays(self, layer: Layer, size: int) -> bool:
        """Whether `size` values that the product before made stay on chip until it has run."""
        products = self.network.products
        number = products.index(layer)
        if self.mode == "training" or not number:
            return False
        made = sum(p.out_elements for p in products if p.input_name == layer.input_name)
        beside = max(products[number - 1].touched, made) * self.batch
        return size + beside <= self.onchip_values

    @property
    def kept_on_chip(self) -> int:
        """Products whose input stays on chip."""
        return sum(op.reads[0] not in self.sources for op in self.ops)

    def mean_lengths(self) -> tuple[float, float]:
        """Mean mantissa and exponent bits in force of a value of weights and stash."""
        learned = [r for r in self.records if r.role in LEARNED and r.lengths is not None]
        values = sum(r.values for r in learned) or 1
        fields = ("mantissa_bits", "exponent_bits")
        mantissa, exponent = (
            sum(getattr(r.lengths, field) * r.values for r in learned) / values for field in fields
        )
        return mantissa, exponent

    def plan_steps(self, buffer_values: Callable[[TensorRecord], int]) -> list[list[PassPlan]]:
        """Return the passes of the step."""
        planner = StepPlanner(
            self.records[: self.planned], self.ops, buffer_values, self.onchip
        )  # fmt: skip
        plans = planner.plan()
        if self.mode == "training" and not self.options.plain:
            weaver = Weaver(self.network, self.batch, self.options, self._woven)
            plans = weaver.weave(plans)
        if self.options.master:
            copies = {r.parameter: r for r in self.records if r.name.endswith(".copy")}
            for plan in plans:
                for record in [t.record for t in plan.writes if t.record.use == "weight"]:
                    if plan.pass_ == "update":
                        copy = copies[record.parameter]
                        plan.writes.append(Transfer(record=copy, used=copy.values))
        return [plans]

    def _woven(self, name: str, layer: str, values: int, use: Use, dtype: str) -> TensorRecord:
        """Return the tensor of this name, made where it is not there."""
        known = next((r for r in self.records if r.name == name), None)
        if known is not None:
            return known
        products = [p.name for p in self.network.products]
        number = next((i for i, p in enumerate(products) if name.startswith((f"{p}+", f"{p}."))), 0)
        depth = number / max(1, len(products) - 1)
        models = self.models["output_gradient" if use == "output_gradient" else "stash"]
        model = models[round(depth * (len(models) - 1))]
        if dtype:  # an index or a mask: its size is all that counts
            held = ((0, min(values, GROUP_VALUES)),)
            record = msgspec.structs.replace(
                self._keep(name, use, "other", layer, values, 0, model), dtype=dtype, runs=held,
                any_sign=None,
            )  # fmt: skip
            self.records[-1] = record
            return record
        role: Role = "gradient" if use == "output_gradient" else "activation"
        return self._keep(name, use, role, layer, values, 0, model)

    def _operands(self, layer: Layer, at: int, depth: float, shared: set[str]) -> tuple[str, str]:
        """Add the operands of a product; return their names."""
        first = f"{layer.input_name}.input"
        made = at - 5 if at > 10 else 0
        if layer.kind == "attn_matmul":
            op = layer.op(self.batch)
            sizes = op.groups * op.m * op.k, op.groups * op.k * op.n
            names = f"{layer.name}.first", f"{layer.name}.second"
            stays = self._stays(layer, sum(sizes))
            for name, size in zip(names, sizes, strict=True):
                self._add(name, "stash", layer, size, made, depth, stays=stays)
            return names
        if first not in shared:
            shared.add(first)
            size = layer.touched * self.batch
            self._add(first, "stash", layer, size, made, depth, stays=self._stays(layer, size))
        weight = f"{layer.name}.weight"
        parts: dict[str, Use] = {weight: "weight"}
        if self.mode == "training":
            parts[f"{weight}.gradient"] = "weight_gradient"
            parts |= {f"{weight}.{x}": "optimizer_state" for x in STATES[self.options.optimizer]}
        for name, use in parts.items():
            self._add(name, use, layer, layer.weight_elements, 0, depth, weight)
        if self.options.master and self.mode == "training":
            self._copy(weight, layer, depth)
            return first, f"{weight}.copy"
        return first, weight

    def _copy(self, weight: str, layer: Layer, depth: float) -> None:
        """Make the weight an FP32 master, of role optimizer, with a copy for the products."""
        at = next(i for i, r in enumerate(self.records) if r.name == weight)
        master = self.records[at]
        self.records[at] = msgspec.structs.replace(master, role="optimizer")
        model = self.sources[weight]
        copy = self._keep(
            f"{weight}.copy", "operand", "weight", layer.name, master.values, 0, model
        )
        self.records[-1] = msgspec.structs.replace(copy, parameter=weight)

    def _add(
        self, name: str, use: Use, layer: Layer, elements: int, order: int, depth: float,
        parameter: str = "", stays: bool = False,
    ) -> None:  # fmt: skip
        """Add a tensor of a layer, to those that move or to those that stay on chip."""
        models = self.models[use]
        if not models:
            return
        model = models[round(depth * (len(models) - 1))]
        if stays:
            self.onchip[name] = self._record(
                name, use, ROLES[use], layer.name, elements, order, model, parameter
            )
            return
        self._keep(name, use, ROLES[use], layer.name, elements, order, model, parameter)

    def _keep(
        self, name: str, use: Use, role: Role, layer: str, elements: int, order: int,
        model: TensorRecord, parameter: str = "",
    ) -> TensorRecord:  # fmt: skip
        record = self._record(name, use, role, layer, elements, order, model, parameter)
        self.sources[name] = model
        self.records.append(record)
        return record

    def _record(
        self, name: str, use: Use, role: Role, layer: str, elements: int, order: int,
        model: TensorRecord, parameter: str = "",
    ) -> TensorRecord:  # fmt: skip
        """Return a tensor of `elements` values that those of `model` stand for."""
        held = model.sampled_values
        usable = held if held <= elements else elements
        if usable < elements:
            usable = usable // GROUP_VALUES * GROUP_VALUES
        return TensorRecord(
            name=name, step=0, order=order, layer=layer, users=(layer,),
            parameter=parameter, role=role, use=use, dtype=model.dtype,
            shape=(elements,), memory_order=(0,), runs=((0, usable),),
            any_sign=model.any_sign, segment="", key=name,
        )  # fmt: skip

    @property
    def steps(self) -> list[int]:
        """One step."""
        return [0]

    def values(self, record: TensorRecord) -> Any:
        """Return the values that stand for `record`, flat."""
        if record.dtype not in FLOATS:
            return np.zeros(record.sampled_values, record.dtype)
        found = np.asarray(self.profile.values(self.sources[record.name]))
        return found[: record.sampled_values]

    def runs(self, record: TensorRecord) -> list[Any]:
        """Return the profile's runs, cut to what the record holds."""
        if record.dtype not in FLOATS:
            return [self.values(record)]
        out, left = [], record.sampled_values
        for run in self.profile.runs(self.sources[record.name]):
            if left <= 0:
                break
            part = run[:left]
            out.append(part)
            left -= part.size
        return out


def spread_lengths(
    values: Sequence[int], mean: float, least: int, most: int, field: str
) -> list[int]:
    """Give tensors of `values` values lengths next to `mean` so that it is their mean.

    The largest tensor is served first, so the smaller ones make up for it: the mean over all
    values is met to half of the largest tensor's share, and mostly much better.

    Raises
    ------
    InputError
        If `mean` is not within `least` to `most`.

    Examples
    --------
    >>> spread_lengths([100, 300, 100], 2.2, 0, 23, "mantissa")
    [3, 2, 2]
    """
    if not least <= mean <= most:
        raise InputError(f"{mean} {field} bits: must be {least} to {most}")
    floor = min(int(mean), most - 1)
    out, owed = [0] * len(values), 0.0
    for i in sorted(range(len(values)), key=lambda i: -values[i]):
        owed += (mean - floor) * values[i]
        more = owed >= values[i] / 2
        out[i] = floor + more
        owed -= more * values[i]
    return out


def simulate_network(
    name: str | Network, policies: Sequence[Policy | str], *, batch: int, profile: Any,
    machine: str | Machine = "sfp-2024", detail: str | None = None,
    lengths: tuple[float, ...] | None = None, mode: str = "training",
    options: StepOptions | None = None, progress: Progress | None = None,
    sample: float | None = None, timeline: Timeline | None = None,
    against: Sequence[str] = (),
) -> tuple[NetworkResult, Comparison]:  # fmt: skip
    """Simulate a published network's step under each policy.

    Parameters
    ----------
    name
        A published network, a file of one, or a `Network` (see `find_network` and
        `record_module`).
    policies, machine, detail, progress, sample, timeline
        As `compare`.
    batch
        Samples a step.
    profile
        The captured trace whose values stand for the network's.
    lengths
        What a bare ``sfp`` or a bare ``int`` takes, as of `NetworkTrace`.
    mode
        ``training`` or ``inference``.
    options
        How the training step is done; as the papers do it by default.
    against
        Bases to state gains against: names of `BASES`, or policies.

    Raises
    ------
    InputError
        As `compare`, or if the network or the mode is not known.
    """
    network, chosen = find_network(name), load_machine(machine)
    kind = one_of("mode", mode, MODES)
    item = chosen.baseline_bytes
    buffer = int(chosen.buffer.bytes / item)
    chosen_options = options or StepOptions()
    trace = NetworkTrace(network, batch, profile, lengths, kind, buffer // 2, chosen_options)
    parsed = [parse_in_force(p) if isinstance(p, str) else p for p in policies]
    _check_lengths(lengths, parsed)
    found = compare(
        trace, parsed, machine=chosen, detail=detail, progress=progress, sample=sample,
        timeline=timeline,
    )  # fmt: skip
    references = {
        name: _reference(trace, BASES.get(name, name), chosen, detail, sample) for name in against
    }
    traffic = step_traffic(trace, item, buffer)
    result = NetworkResult(
        sfpsim=__version__,
        network=network.name,
        batch=batch,
        machine=chosen.name,
        machine_hash=chosen.hash,
        memory_detail=found.machine.memory_detail,
        mode=kind,
        profile=profile.label,
        optimizer=chosen_options.optimizer if kind == "training" else None,
        master_weights=chosen_options.master,
        stash=chosen_options.stash,
        recompute=chosen_options.recompute,
        fusion=chosen_options.fusion,
        macs=network.macs,
        parameters=network.parameters,
        traffic=traffic,
        config_hash=found.config_hash,
        containers=[_container(c, traffic, references) for c in found.containers],
        notes=[
            f"values of {profile.label} stand for the network's; {_stash_note(chosen_options)}",
            *_mode_notes(trace),
            *([] if lengths is None else [_length_note(trace, lengths)]),
            *found.notes,
        ],
    )
    return result, found


def _reference(
    trace: NetworkTrace, base: str, machine: Machine, detail: str | None, sample: float | None
) -> ContainerResult:
    """Return the step in a base; in windows unless it runs many bursts at a time."""
    policy = parse_in_force(base)
    plain = all(container.timing.bypass for _, container in policy.containers)
    whole = plain and (detail or machine.memory.detail) == "bandwidth"
    share = sample if whole else sample or BASE_SAMPLE
    return compare(trace, [policy], machine=machine, detail=detail, sample=share).containers[0]


def _check_lengths(lengths: tuple[float, ...] | None, policies: Sequence[Policy]) -> None:
    """One number is of use to a bare ``int`` only."""
    taken = any(
        isinstance(container, IntegersFromTrace)
        for policy in policies for _, container in policy.containers
    )  # fmt: skip
    if lengths is not None and len(lengths) == 1 and not taken:
        raise InputError(
            f"lengths {lengths[0]:g}: one number goes with a container int without n, which is "
            "not asked for; a bare sfp takes two numbers, mantissa and exponent bits"
        )


def _mode_notes(trace: NetworkTrace) -> list[str]:
    if trace.mode == "training":
        return []
    return [
        f"inference, layer after layer: the inputs of {trace.kept_on_chip} products stay on chip, "
        "where they fit in half of the buffer beside the inputs and outputs around them"
    ]


def _length_note(trace: NetworkTrace, lengths: tuple[float, ...]) -> str:
    if len(lengths) == 1:
        return (
            f"int without n takes {lengths[0]:g} bits on average over the layers, each the whole "
            "number below or above"
        )
    mantissa, exponent = lengths
    met = trace.mean_lengths()
    return (
        f"sfp without lengths takes {mantissa:g} mantissa and {exponent:g} exponent bits on "
        f"average, each tensor the whole number below or above: {met[0]:.3f} and {met[1]:.3f} "
        "are met"
    )


def _stash_note(options: StepOptions) -> str:
    stash = {
        "paper": "stashed are the inputs of products",
        "autograd": "stashed is what PyTorch's autograd saves",
    }[options.stash]
    fused = {
        "none": "nothing is fused",
        "producer": "all but normalisations is fused into the layer before",
        "full": "normalisation, activations and additions are fused",
    }[options.fusion]
    again = {
        "none": "",
        "normalisation": "; normalisation and activation are computed again",
        "full": "; blocks of the network are computed again from their inputs",
    }[options.recompute]
    return f"{stash}; {fused}{again}"


def step_traffic(trace: NetworkTrace, item: float, buffer: int) -> StepTraffic:
    """Return what a step of `trace` moves at `item` bytes a value, `buffer` values on chip."""
    training = trace.mode == "training"
    operands = [o for o in trace.network.operands(trace.batch) if training or o.pass_ == "forward"]
    full: dict[str, int] = {}
    stashes: dict[str, int] = {}
    for fusion in FUSIONS if training else ("full",):
        options = replace(trace.options, fusion=fusion)
        other = NetworkTrace(
            trace.network, trace.batch, trace.profile, None, trace.mode, trace.onchip_values,
            options,
        )  # fmt: skip
        plans = other.plan_steps(lambda _: buffer)[0]
        moved = [t for plan in plans for t in (*plan.reads, *plan.writes)]
        full[fusion] = round(sum(_bytes(t.record, item) * t.times for t in moved))
        stashes[fusion] = round(sum(_bytes(r, item) for r in stashed(plans)))
    return StepTraffic(
        compulsory_bytes=round(item * sum(o.compulsory for o in operands)),
        bound_bytes=round(item * sum(o.least(buffer) for o in operands)),
        operand_bytes=round(item * sum(o.moved(buffer) for o in operands)),
        full_bytes=full,
        stash_bytes=stashes[trace.options.fusion if training else "full"],
    )


def _bytes(record: TensorRecord, item: float) -> float:
    """Bytes of a tensor at `item` bytes a float."""
    return record.values * (item if record.dtype in FLOATS else np.dtype(record.dtype).itemsize)


def stashed(plans: Sequence[PassPlan]) -> list[TensorRecord]:
    """Return what the forward pass keeps in memory for the backward pass."""
    ahead = [p for p in plans if p.pass_ == "forward" and not p.layer.endswith(":recompute")]
    behind = [p for p in plans if p.pass_ not in ("forward", "update")]
    again = {t.record.name for p in plans if p.layer.endswith(":recompute") for t in p.writes}
    there = {t.record.name for p in ahead for t in (*p.writes, *p.reads)}
    read = {
        t.record.name: t.record
        for p in behind for t in p.reads
        if t.record.role in ("activation", "other") and t.record.name in there - again
    }  # fmt: skip
    return list(read.values())


def _container(
    c: ContainerResult, traffic: StepTraffic, references: dict[str, ContainerResult]
) -> NetworkContainer:
    t = c.totals
    return NetworkContainer(
        container=c.container,
        operand_bytes=traffic.operand_bytes,
        compulsory_bytes=traffic.compulsory_bytes,
        traffic_bytes=t.read_bytes + t.write_bytes,
        time_ns=t.time_ns,
        time_error_ns=t.time_error_ns,
        simulated_share=t.simulated_share,
        time_band_ns=t.time_band_ns,
        bandwidth_gbps=t.bandwidth_gbps,
        break_even_gbps=t.break_even_gbps,
        bound=t.bound,
        energy_pj=t.energy_pj,
        energy_low_pj=t.energy_low_pj,
        energy_high_pj=t.energy_high_pj,
        gains=[_gain(name, base, c) for name, base in references.items()],
        layers=c.layers,
    )


def _gain(name: str, base: ContainerResult, mine: ContainerResult) -> Gain:
    a, b = base.totals, mine.totals
    band = {
        f: getattr(a.time_band_ns, f) / getattr(b.time_band_ns, f) for f in Band.__struct_fields__
    }
    return Gain(
        base=name,
        policy=base.container,
        speed_up=a.time_ns / b.time_ns,
        speed_up_error=a.time_ns
        / b.time_ns
        * (a.time_error_ns / a.time_ns + b.time_error_ns / b.time_ns),
        speed_up_band=Band(**band),
        energy_low=a.energy_low_pj.total / b.energy_low_pj.total,
        energy_middle=a.energy_pj.total / b.energy_pj.total,
        energy_high=a.energy_high_pj.total / b.energy_high_pj.total,
        traffic=(a.read_bytes + a.write_bytes) / (b.read_bytes + b.write_bytes),
    )


def to_json(result: NetworkResult) -> bytes:
    """Return the result as JSON."""
    return msgspec.json.format(msgspec.json.encode(result)) + b"\n"
