"""Many policies side by side: a trace replayed through one machine under each."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

import msgspec
import numpy as np

from sfpsim._version import __version__
from sfpsim.containers.base import Sizes
from sfpsim.containers.policy import Policy, parse_policy
from sfpsim.containers.quality import Quality
from sfpsim.containers.registry import parse_container
from sfpsim.energy.model import LEVELS
from sfpsim.errors import InputError, one_of
from sfpsim.experiment import costs as c
from sfpsim.experiment.result import (
    Band,
    Comparison,
    ContainerResult,
    LayerLengths,
    LayerResult,
    LiveBytes,
    MachineInfo,
    RoleResult,
    StepResult,
    StepRole,
    TensorResult,
    Totals,
    TraceInfo,
    Traffic,
)
from sfpsim.experiment.step import StepRun, StepSimulation
from sfpsim.experiment.tensors import FLOATS, Kept, Tensors
from sfpsim.formats import exponent_counts
from sfpsim.hardware.array import Bits
from sfpsim.hardware.channel import BurstObserver
from sfpsim.hardware.dram.fit import fit_of
from sfpsim.hardware.machine import DETAILS, Machine, load_machine
from sfpsim.trace.lengths import by_layer
from sfpsim.trace.schema import TensorRecord
from sfpsim.workload.training import PassPlan, Planned, plan_trace

Progress = Callable[[float, str], None]
Timeline = dict[str, list[StepRun]]
FIELDS = ("sign", "exponent", "mantissa", "metadata", "padding", "index", "total")


def compare(
    trace: Any, policies: Sequence[Policy | str], *, machine: str | Machine = "sfp-2024",
    detail: str | None = None, per_tensor: bool = False, progress: Progress | None = None,
    timeline: Timeline | None = None, sample: float | None = None,
) -> Comparison:  # fmt: skip
    """Replay `trace` under each of `policies` on `machine`.

    Parameters
    ----------
    trace
        What `open_trace` returns.
    policies
        Policies or their specifications.
    machine
        A preset, a file or a `Machine`.
    detail
        ``bandwidth`` or ``detailed``; None takes the machine's.
    per_tensor
        Whether the result lists every tensor.
    progress
        Called with (share done, label).
    timeline
        Filled with the simulated steps of each policy, for `sfpsim.report.timeline`.
    sample
        Share of the tiles to simulate, 0 to 1; the rest is extrapolated (see
        `sfpsim.hardware.windows`). None: everything.

    Raises
    ------
    InputError
        If a policy, the machine or the detail is not known, or nothing is to be compared.
    """
    parsed = [parse_policy(p) if isinstance(p, str) else p for p in policies]
    if not parsed:
        raise InputError("no container to compare: give at least one")
    replayer = _Replayer(
        trace, machine, detail, per_tensor=per_tensor, timeline=timeline, sample=sample
    )
    return replayer.comparison(_side_by_side(replayer, parsed, progress))


def replay(
    trace: Any, policy: Policy | str, *, machine: str | Machine = "sfp-2024",
    detail: str | None = None, per_tensor: bool = False, progress: Progress | None = None,
    timeline: Timeline | None = None, observer: BurstObserver | None = None,
    sample: float | None = None,
) -> Comparison:  # fmt: skip
    """Replay `trace` under one policy; see `compare`.

    `observer` is told of every burst that the controllers take, step by step, for example a
    `sfpsim.interop.traffic.TrafficExport`.
    """
    parsed = parse_policy(policy) if isinstance(policy, str) else policy
    replayer = _Replayer(
        trace, machine, detail, per_tensor=per_tensor, timeline=timeline, observer=observer,
        sample=sample,
    )  # fmt: skip
    return replayer.comparison(_side_by_side(replayer, [parsed], progress))


class _Cancelled(Exception):
    """Ends the other policies' replays when one failed or the user interrupted."""


class _Shares:
    """Gathers what is done of several replays into one progress; ends them when cancelled."""

    def __init__(self, count: int, progress: Progress | None) -> None:
        self.done = [0.0] * count
        self.progress = progress
        self.cancelled = False
        self.lock = threading.Lock()

    def tell(self, number: int, done: float, label: str) -> None:
        """Note that replay `number` is `done`, 0 to 1."""
        if self.cancelled:
            raise _Cancelled
        with self.lock:
            self.done[number] = done
            if self.progress is not None:
                self.progress(sum(self.done) / len(self.done), label)


def _side_by_side(
    replayer: _Replayer, policies: list[Policy], progress: Progress | None
) -> list[ContainerResult]:
    """Replay every policy, as many at once as there are cores; the kernels hold no lock.

    A replay depends on nothing but its policy, so the number of workers changes no result.
    """
    shares = _Shares(len(policies), progress)
    workers = min(len(policies), os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        futures = [
            pool.submit(replayer.replay, policy, partial(shares.tell, number))
            for number, policy in enumerate(policies)
        ]
        try:
            return [future.result() for future in futures]
        except BaseException:
            shares.cancelled = True
            raise


class _Replayer:
    """Replays one trace under one policy after the other, measuring tensors once."""

    def __init__(
        self, trace: Any, machine: str | Machine, detail: str | None, *, per_tensor: bool,
        timeline: Timeline | None, observer: BurstObserver | None = None,
        sample: float | None = None,
    ) -> None:  # fmt: skip
        if sample is not None and not 0 < sample < 1:
            raise InputError(f"sample={sample}: a share above 0 and below 1")
        if sample is not None and (timeline is not None or observer is not None):
            raise InputError(f"sample={sample}: a timeline or an address trace takes every burst")
        self.sample = sample
        self.trace = trace
        self.timeline = timeline
        self.observer = observer
        self.machine = load_machine(machine)
        self.fit = fit_of(self.machine)
        self.detail = one_of("detail", detail or self.machine.memory.detail, DETAILS)
        self.per_tensor = per_tensor
        self.baseline = parse_container(self.machine.baseline)
        self.tensors = Tensors(trace, self.machine, self.baseline)
        self.reference = self._reference_traffic()

    def _plans(self, policy: Policy) -> list[list[PassPlan]]:
        def buffer_values(record: TensorRecord) -> int:
            container = self.tensors.container_of(record, policy)
            bytes_each = self.tensors.chip_bytes(record, container) // max(1, record.values)
            return self.machine.buffer.bytes // max(1, bytes_each)

        if isinstance(self.trace, Planned):
            return self.trace.plan_steps(buffer_values)
        return plan_trace(self.trace, buffer_values)

    def _reference_traffic(self) -> Counter[tuple[str, str]]:
        """Bytes by role and direction with every tensor in the machine's baseline type."""
        policy = parse_policy(f"all={self.machine.baseline}")
        out: Counter[tuple[str, str]] = Counter()
        for plans in self._plans(policy):
            sizes: dict[str, int] = {}
            for plan in plans:
                for _, transfer in _transfers(plan):
                    record = transfer.record
                    if record.name not in sizes:
                        sizes[record.name] = self.tensors.keep(record, policy)[0].bytes
            _add_traffic(out, plans, sizes)
        return out

    def _run(self, policy: Policy, progress: Progress) -> list[StepRun]:
        steps = self._plans(policy)
        total = max(1, sum(map(len, steps)))
        before = 0
        out = []
        for plans in steps:
            simulation = StepSimulation(
                self.tensors, policy, plans, self.detail, self.observer,
                tiles=self.timeline is not None, sample=self.sample,
            )  # fmt: skip
            out.append(simulation.run(partial(_tell_tasks, progress, before, total, policy.spec)))
            before += len(plans)
        return out

    def _traffic_by_role(self, steps: list[StepRun]) -> Counter[tuple[str, str]]:
        out: Counter[tuple[str, str]] = Counter()
        for step in steps:
            _add_traffic(out, step.plans, {name: kept.bytes for name, kept in step.kept.items()})
        return out

    def replay(self, policy: Policy, progress: Progress) -> ContainerResult:
        """Replay the trace under `policy`; `progress` may raise to end it."""
        steps = self._run(policy, progress)
        if self.timeline is not None:
            self.timeline[policy.spec] = steps
        kept = [k for step in steps for k in step.kept.values()]
        all_costs = [c.pass_costs(step, self.machine) for step in steps]
        of_steps = [self._layers(*both) for both in zip(steps, all_costs, strict=True)]
        layers = [layer for of_step in of_steps for layer in of_step]
        return ContainerResult(
            container=policy.spec,
            policy=policy.by_role(self.baseline),
            lossless=all(k.lossless for k in kept),
            totals=self._totals(policy, steps, all_costs, layers, kept),
            roles=_roles(kept),
            traffic=self._traffic(steps),
            live=_live(steps),
            layers=layers,
            tensors=[_tensor(k) for k in kept] if self.per_tensor else None,
            steps=[
                self._step(policy, *parts)
                for parts in zip(steps, all_costs, of_steps, strict=True)
                if parts[0].kept
            ],
        )

    def _step(
        self, policy: Policy, step: StepRun, costs: list[c.PassCost], layers: list[LayerResult]
    ) -> StepResult:
        kept = list(step.kept.values())
        sizes = sum((k.sizes for k in kept if self._covered(policy, k)), Sizes())
        ends = step.run.end_ps
        read = sum(layer.read_bytes for layer in layers)
        write = sum(layer.write_bytes for layer in layers)
        return StepResult(
            step=kept[0].record.step,
            epoch=kept[0].record.epoch,
            values=sizes.values,
            raw_bits=sizes.raw_bits,
            **{f"{f}_bits": getattr(sizes, f"{f}_bits") for f in FIELDS},
            time_ns=ends / c.PS_PER_NS,
            read_bytes=read,
            write_bytes=write,
            bandwidth_gbps=_gbps(read + write, ends),
            energy_pj=c.step_energy(step, costs, self.machine, "middle").total,
            roles=_step_roles(kept),
        )

    def _layers(self, step: StepRun, pass_costs: list[c.PassCost]) -> list[LayerResult]:
        dram = c.dram_energy(step, self.machine, "middle").total
        moved = sum(r.read_bytes + r.write_bytes for r in step.run.reports) or 1
        out, before = [], 0
        for plan, work, report, cost in zip(
            step.plans, step.works, step.run.reports, pass_costs, strict=True
        ):
            compulsory, used = _bytes_needed(plan, step)
            bytes_moved = report.read_bytes + report.write_bytes
            chip = sum(c.chip_energy(cost, self.machine, "middle"))
            out.append(
                LayerResult(
                    name=plan.layer,
                    pass_=plan.pass_,
                    step=plan.step,
                    limiter=c.limiter_of(cost.limits),
                    time_ns=max(0, report.end_ps - before) / c.PS_PER_NS,
                    read_bytes=report.read_bytes,
                    write_bytes=report.write_bytes,
                    compulsory_bytes=compulsory,
                    overfetch_bytes=max(0, bytes_moved - used),
                    macs=plan.macs,
                    utilisation=work.share,
                    scheme=plan.scheme,
                    energy_pj=chip + dram * bytes_moved / moved,
                    limits_ns=cost.limits,
                )
            )
            before = max(before, report.end_ps)
        return out

    def _traffic(self, steps: list[StepRun]) -> list[Traffic]:
        reads: Counter[tuple[str, str]] = Counter()
        writes: Counter[tuple[str, str]] = Counter()
        needed: Counter[tuple[str, str]] = Counter()
        for step in steps:
            for plan in step.plans:
                for key, transfer in _transfers(plan):
                    size = step.kept[transfer.record.name].bytes
                    role = plan.pass_, transfer.record.role
                    (reads if key == "read" else writes)[role] += size * transfer.times
                    needed[role] += size * transfer.used // max(1, transfer.record.values)
        return [
            Traffic(
                pass_=key[0],
                role=key[1],
                read_bytes=reads[key],
                write_bytes=writes[key],
                compulsory_bytes=needed[key],
            )
            for key in sorted(needed)
        ]

    def _totals(
        self, policy: Policy, steps: list[StepRun], all_costs: list[list[c.PassCost]],
        layers: list[LayerResult], kept: list[Kept],
    ) -> Totals:  # fmt: skip
        covered = [k for k in kept if self._covered(policy, k)]
        sizes = sum((k.sizes for k in covered), Sizes())
        found = sum((k.quality for k in covered), Quality())
        se = float(np.sqrt(sum(k.total_bits_se**2 for k in covered)))
        ends = sum(step.run.end_ps for step in steps)
        sampled = [step.sampling for step in steps if step.sampling is not None]
        read = sum(layer.read_bytes for layer in layers)
        write = sum(layer.write_bytes for layer in layers)
        reserved = max((u.reserved_bytes for s in steps for u in s.usage), default=0)
        peak = max((u.stash_bytes + u.other_bytes for s in steps for u in s.usage), default=0)
        traffic = self._traffic_by_role(steps)
        share, bound = self._bound(policy, traffic)
        baseline, moved = sum(self.reference.values()), sum(traffic.values())
        compute = sum(layer.limits_ns.compute for layer in layers)
        energies = {level: self._energy(steps, all_costs, level) for level in LEVELS}
        channel_busy = np.sum([step.run.counts.busy_ps for step in steps], axis=0)
        return Totals(
            values=sizes.values,
            raw_bits=sizes.raw_bits,
            **{f"{f}_bits": getattr(sizes, f"{f}_bits") for f in FIELDS},
            total_bits_se=se,
            ratio=sizes.ratio,
            raw_blocks=sizes.raw_blocks,
            max_rel_error=found.max_rel_error if not all(k.lossless for k in covered) else None,
            sqnr_db=found.sqnr_db,
            nan_lost=sizes.nan_lost,
            time_ns=ends / c.PS_PER_NS,
            time_error_ns=sum(s.error_ps for s in sampled) / c.PS_PER_NS,
            simulated_share=min((s.fraction for s in sampled), default=1.0),
            read_bytes=read,
            write_bytes=write,
            compulsory_bytes=sum(layer.compulsory_bytes for layer in layers),
            overfetch_bytes=sum(layer.overfetch_bytes for layer in layers),
            peak_live_bytes=peak,
            reserved_bytes=reserved,
            fragmentation=1 - peak / reserved if reserved else None,
            channel_imbalance=_imbalance(channel_busy),
            bandwidth_gbps=_gbps(read + write, ends),
            compressed_share=share,
            bound=bound,
            traffic_ratio=baseline / moved if moved else None,
            limiter=_main_limiter(layers),
            time_band_ns=self._band(layers, [b for step in steps for b in step.bits]),
            break_even_gbps=(read + write) / compute if compute else None,
            energy_pj=energies["middle"],
            energy_low_pj=energies["low"],
            energy_high_pj=energies["high"],
        )

    def _covered(self, policy: Policy, kept: Kept) -> bool:
        """Whether the policy names a container for this tensor's role."""
        if kept.record.dtype not in FLOATS:
            return False
        role = kept.record.role
        return role in dict(policy.containers) or (role == "unknown" and policy.unknown is not None)

    def _bound(
        self, policy: Policy, traffic: Counter[tuple[str, str]]
    ) -> tuple[float, float | None]:
        """Return the compressed share f of baseline traffic and 1 / (1 - f + f / r).

        r is the baseline traffic of the covered roles over their traffic in the container.
        """
        roles = {*dict(policy.containers), *(["unknown"] if policy.unknown else [])}
        total = sum(self.reference.values())
        before = sum(v for (role, _), v in self.reference.items() if role in roles)
        after = sum(v for (role, _), v in traffic.items() if role in roles)
        share = before / total if total else 0.0
        return share, 1 / (1 - share + after / total) if after else None

    def _band(self, layers: list[LayerResult], bits: list[Bits]) -> Band:
        bands = [
            c.band_of(x.time_ns, x.limits_ns, x.macs, self.machine, b)
            for x, b in zip(layers, bits, strict=True)
        ]
        return Band(**{f: sum(getattr(b, f) for b in bands) for f in Band.__struct_fields__})

    def _energy(self, steps: list[StepRun], costs: list[list[c.PassCost]], level: Any) -> Any:
        parts = [
            c.step_energy(step, pass_costs, self.machine, level)
            for step, pass_costs in zip(steps, costs, strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = c.add_energy(total, part)
        return total

    def comparison(self, results: list[ContainerResult]) -> Comparison:
        """Return the results with what they were made of."""
        level = self.detail
        records = self.trace.records
        device = self.machine.device
        fit = self.fit
        note = (
            f"{level}: peak {device.peak_gbps:.1f} GB/s a channel at the efficiency fitted to "
            f"detailed ({fit.read:.3f} reads, {fit.write:.3f} writes, {fit.mixed:.3f} mixed, "
            f"residual {fit.residual:.1%})"
            if fit
            else f"{level}: peak {device.peak_gbps:.1f} GB/s a channel, no efficiency fitted"
        )
        return Comparison(
            sfpsim=__version__,
            config_hash=_hash(self.machine, results, level),
            trace=TraceInfo(
                path=self.trace.label,
                steps=len({r.step for r in records}),
                tensors=len(records),
                values=sum(r.values for r in records),
                sampled=any(r.is_sampled for r in records),
            ),
            machine=MachineInfo(
                name=self.machine.name,
                hash=self.machine.hash,
                memory_detail=level,
                peak_bandwidth_gbps=self.machine.peak_gbps,
                memory_note=note,
            ),
            exponents=_exponents(self.trace),
            containers=results,
            notes=[
                *_notes(self.trace),
                *_sampling_notes(results),
                *self._capacity_notes(results),
            ],
            lengths=_lengths(self.trace),
        )

    def _capacity_notes(self, results: list[ContainerResult]) -> list[str]:
        """Say where the memory is too small for what it should hold."""
        holds = self.machine.memory.channels * self.machine.device.capacity_bytes
        return [
            f"{r.container}: {r.totals.reserved_bytes / 1e9:.1f} GB are reserved at the peak, "
            f"{self.machine.name} holds {holds / 1e9:.1f} GB: addresses wrap around"
            for r in results
            if r.totals.reserved_bytes > holds
        ]


def _sampling_notes(results: list[ContainerResult]) -> list[str]:
    return [
        f"{r.container}: {r.totals.simulated_share:.1%} of the bursts were simulated, in windows; "
        f"time within {r.totals.time_error_ns / max(r.totals.time_ns, 1e-9):.2%}"
        for r in results
        if r.totals.simulated_share < 1 or r.totals.time_error_ns
    ]


def _hash(machine: Machine, results: list[ContainerResult], level: str) -> str:
    text = msgspec.json.encode([__version__, machine.hash, level, [r.policy for r in results]])
    return hashlib.sha256(text).hexdigest()[:12]


def _tell_tasks(progress: Progress, before: int, total: int, label: str, tasks: int) -> None:
    progress((before + tasks) / total, label)


def _add_traffic(
    out: Counter[tuple[str, str]], plans: list[PassPlan], sizes: dict[str, int]
) -> None:
    """Add the bytes that `plans` move, by role and direction, to `out`."""
    for plan in plans:
        for direction, transfer in _transfers(plan):
            record = transfer.record
            out[record.role, direction] += sizes[record.name] * transfer.times


def _transfers(plan: PassPlan) -> list[tuple[str, Any]]:
    return [("read", t) for t in plan.reads] + [("write", t) for t in plan.writes]


def _bytes_needed(plan: PassPlan, step: StepRun) -> tuple[int, int]:
    """Return compulsory bytes (each value once) and bytes of values fetched for use."""
    compulsory = used = 0
    for _, transfer in _transfers(plan):
        size = step.kept[transfer.record.name].bytes
        need = size * transfer.used // max(1, transfer.record.values)
        compulsory += need
        used += need * transfer.times
    return compulsory, used


def _imbalance(busy: Any) -> float | None:
    mean = float(np.mean(busy))
    return float(np.max(busy)) / mean - 1 if mean else None


def _main_limiter(layers: list[LayerResult]) -> str | None:
    times: Counter[str] = Counter()
    for layer in layers:
        times[layer.limiter] += round(1000 * layer.time_ns)
    return times.most_common(1)[0][0] if any(times.values()) else None


def _gbps(moved_bytes: int, time_ps: int) -> float | None:
    return moved_bytes * c.PS_PER_NS / time_ps if time_ps else None


def _step_roles(kept: list[Kept]) -> list[StepRole]:
    groups: dict[str, list[Sizes]] = {}
    for k in kept:
        groups.setdefault(k.record.role, []).append(k.sizes)
    sums = {role: sum(sizes, Sizes()) for role, sizes in sorted(groups.items())}
    return [
        StepRole(role=role, values=s.values, raw_bits=s.raw_bits, total_bits=s.total_bits)
        for role, s in sums.items()
    ]


def _lengths(trace: Any) -> list[LayerLengths]:
    found = by_layer(trace.records, trace.ops if trace.ordered else ())
    return [
        LayerLengths(step=step, epoch=epoch, layer=layer, role=role, **asdict(mean))
        for (step, epoch, layer, role), mean in found.items()
    ]


def _roles(kept: list[Kept]) -> list[RoleResult]:
    groups: dict[tuple[str, str], list[Kept]] = {}
    for k in kept:
        groups.setdefault((k.record.role, k.container.spec), []).append(k)
    return [_role(role, spec, members) for (role, spec), members in sorted(groups.items())]


def _role(role: str, spec: str, members: list[Kept]) -> RoleResult:
    sizes = sum((k.sizes for k in members), Sizes())
    found = sum((k.quality for k in members), Quality())
    return RoleResult(
        role=role,
        container=spec,
        tensors=len(members),
        values=sizes.values,
        raw_bits=sizes.raw_bits,
        **{f"{f}_bits": getattr(sizes, f"{f}_bits") for f in FIELDS},
        bits_per_value=sizes.total_bits / sizes.values if sizes.values else None,
        held_values=sum(k.record.sampled_values for k in members),
        sqnr_db=found.sqnr_db,
        max_rel_error=found.max_rel_error,
        cosine=found.cosine,
        zeros_made=found.zeros_made,
        specials_lost=found.specials_lost,
        specials_made=found.specials_made,
    )


def _tensor(kept: Kept) -> TensorResult:
    sizes = kept.sizes
    return TensorResult(
        name=kept.record.name,
        role=kept.record.role,
        layer=kept.record.layer,
        container=kept.container.spec,
        values=sizes.values,
        raw_bits=sizes.raw_bits,
        **{f"{f}_bits": getattr(sizes, f"{f}_bits") for f in FIELDS},
        total_bits_se=kept.total_bits_se,
        raw_blocks=sizes.raw_blocks,
        max_rel_error=kept.quality.max_rel_error,
        sqnr_db=kept.quality.sqnr_db,
    )


def _live(steps: list[StepRun]) -> list[LiveBytes]:
    """Bytes in use over the first step, from the end of one pass to the next."""
    out = []
    before = 0
    for used, report in zip(steps[0].usage, steps[0].run.reports, strict=True):
        out.append(
            LiveBytes(
                time_ns=before / c.PS_PER_NS,
                stash_bytes=used.stash_bytes,
                other_bytes=used.other_bytes,
            )
        )
        before = max(before, report.end_ps)
    return out


def _notes(trace: Any) -> list[str]:
    """Say what a reader would not expect: floats that no container holds, lost steps."""
    others = Counter(r.dtype for r in trace.records if r.dtype not in FLOATS and "float" in r.dtype)
    out = [
        f"{count} tensors of dtype {dtype} travel as they are under every policy: containers "
        f"hold {', '.join(FLOATS)}"
        for dtype, count in sorted(others.items())
    ]
    if lost := getattr(trace, "incomplete_steps", []):
        out.append(f"steps {', '.join(map(str, lost))} are not whole and were left out")
    return out


def _exponents(trace: Any) -> dict[str, list[int]]:
    """Count exponent fields (0 .. 255) by role over the values that the trace holds."""
    out: dict[str, Any] = {}
    for record in trace.records:
        if record.dtype in FLOATS:
            counts = exponent_counts(trace.values(record))
            out[record.role] = out.get(record.role, 0) + counts
    return {role: counts.tolist() for role, counts in sorted(out.items())}
