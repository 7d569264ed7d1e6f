"""Energy and limits of a simulated step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sfpsim.energy.model import (
    DramCounts,
    Level,
    codec_pj,
    dram_core_pj,
    dram_interface_pj_per_bit,
    integer_mac_pj,
    mac_pj,
    onchip_pj,
)
from sfpsim.experiment.result import Band, DramEnergy, Energy, Limits
from sfpsim.experiment.step import StepRun
from sfpsim.hardware.array import Bits, compute_ps, cycles_ps
from sfpsim.hardware.dram.fit import fit_of
from sfpsim.hardware.machine import Machine
from sfpsim.hardware.path import Report

PS_PER_NS = 1000
BAND = (1.0, 0.7, 0.5)


@dataclass(frozen=True, kw_only=True)
class PassCost:
    """One pass: time alone of each part, codec values, on-chip bytes, and MACs.

    `mac_format` is the type of the product, `mac_bits` the operands' widths where that is an
    integer, else None.
    """

    limits: Limits
    codec_values: int
    onchip_read_bytes: int
    onchip_write_bytes: int
    macs: int
    mac_format: str
    mac_bits: Bits | None


def limits_of(report: Report, compute: int) -> Limits:
    """Return the time, ns, that each part of a pass alone would need.

    What it waited for compressors of the pass before it counts as the encoder's.
    """
    longest = {part: int(busy.max(initial=0)) for part, busy in report.busy.items()}
    return Limits(
        compute=compute / PS_PER_NS,
        dram=longest["dram"] / PS_PER_NS,
        decoder=longest["decoder"] / PS_PER_NS,
        encoder=(longest["encoder"] + report.wait_encoder_ps) / PS_PER_NS,
        metadata=longest["metadata"] / PS_PER_NS,
        dependency=(report.wait_ps - report.wait_encoder_ps) / PS_PER_NS,
    )


def limiter_of(limits: Limits) -> str:
    """Return the name of the largest limit."""
    return max(limits.__struct_fields__, key=lambda name: float(getattr(limits, name)))


def band_of(
    time_ns: float, limits: Limits, macs: int, machine: Machine, bits: Bits = (0, 0)
) -> Band:
    """Return the time at mapping utilisations 1.0, 0.7 and 0.5, ns; an estimate.

    What the simulated time differs by from the pass's largest limit (waiting, or overlap
    with the passes around it) is kept; at the simulated utilisation it is the simulated time.
    """
    others = max(getattr(limits, f) for f in limits.__struct_fields__ if f != "compute")
    rest = time_ns - max(others, limits.compute)
    computes = [compute_ps(macs, share, machine.compute, bits) / PS_PER_NS for share in BAND]
    times = [max(compute, max(others, compute) + rest) for compute in computes]
    return Band(u100=times[0], u70=times[1], u50=times[2])


def pass_costs(step: StepRun, machine: Machine) -> list[PassCost]:
    """Return the cost of each pass of `step`."""
    out = []
    for plan, work, bits, fmt, report in zip(
        step.plans, step.works, step.bits, step.formats, step.run.reports, strict=True
    ):
        compute = cycles_ps(work.cycles, machine.compute) if plan.macs else 0
        # An operand feeds a row or a column of the array at a time; the third size is summed
        # in the unit.
        array = machine.compute
        operand = plan.macs // array.rows + plan.macs // array.columns
        out.append(
            PassCost(
                limits=limits_of(report, compute),
                codec_values=report.codec_values,
                onchip_read_bytes=operand * fmt.bytes + report.write_bytes,
                onchip_write_bytes=report.read_bytes + plan.gemm[0] * plan.gemm[1] * fmt.bytes,
                macs=plan.macs,
                mac_format=fmt.name,
                mac_bits=_mac_bits(bits, fmt.bits) if machine.compute.is_integer else None,
            )
        )
    return out


def _mac_bits(bits: Bits, widest: int) -> Bits:
    first, second = (b or widest for b in bits)
    return first, second


def _mac_pj(cost: PassCost, level: Level, node: float) -> float:
    if cost.mac_bits is not None:
        return integer_mac_pj(cost.mac_bits, level, node)
    return mac_pj(cost.mac_format, level, node)


def chip_energy(cost: PassCost, machine: Machine, level: Level) -> tuple[float, float, float]:
    """Return codec, on-chip and compute energy of a pass, pJ."""
    buffer = machine.buffer
    return (
        codec_pj(cost.codec_values, level),
        onchip_pj(
            cost.onchip_read_bytes,
            cost.onchip_write_bytes,
            level,
            buffer.bank_bytes,
            buffer.node_nm,
        ),
        cost.macs * _mac_pj(cost, level, buffer.node_nm) if cost.macs else 0.0,
    )


def dram_energy(step: StepRun, machine: Machine, level: Level) -> DramEnergy:
    """Return the energy of all channels over a step, pJ.

    In `bandwidth` detail activations and the time with a row open are estimated: the
    fitted activations a burst, and a row open whenever the bus is busy.
    """
    device, asleep = machine.device, [0, 0, 0]
    run, done = step.run, step.run.counts
    reads, writes = int(done.reads.sum()), int(done.writes.sum())
    ranks = machine.memory.channels * device.ranks
    cycles = run.end_ps * device.tck_den // device.tck_ps * ranks
    if step.detail == "detailed":
        act, refreshes, opened = (int(x.sum()) for x in (done.act, done.ref, done.open_cycles))
        asleep = done.slept_cycles.sum(axis=0).tolist()
    else:
        fit = fit_of(machine)
        a_burst = fit.activations if fit else device.burst_bytes / device.row_bytes
        act, refreshes = round((reads + writes) * a_burst), cycles // device.trefi
        opened = min(cycles, int(done.busy_ps.sum()) * device.tck_den // device.tck_ps)
    counts = DramCounts(
        act=act,
        rd=reads,
        wr=writes,
        ref=refreshes,
        active_cycles=opened - asleep[0],
        precharge_cycles=cycles - opened - asleep[1] - asleep[2],
        active_powerdown_cycles=asleep[0],
        precharge_powerdown_cycles=asleep[1],
        self_refresh_cycles=asleep[2],
    )
    core = dram_core_pj(counts, device.currents, device.energy_timing)
    bits = (reads + writes) * device.burst_bytes * 8
    return DramEnergy(
        **core.components(device.sleeps),
        interface=bits * dram_interface_pj_per_bit(device.kind, level),
    )


def step_energy(step: StepRun, costs: list[PassCost], machine: Machine, level: Level) -> Energy:
    """Return the energy of a step by component, pJ."""
    dram = dram_energy(step, machine, level)
    chip = [chip_energy(cost, machine, level) for cost in costs]
    codec, onchip, compute = (sum(part) for part in zip(*chip, strict=True)) if chip else (0, 0, 0)
    return Energy(
        dram=dram,
        codec=float(codec),
        onchip=float(onchip),
        compute=float(compute),
        total=float(dram.total + codec + onchip + compute),
    )


def _added(a: float | None, b: float | None) -> Any:
    return None if a is None or b is None else a + b


def add_energy(a: Energy, b: Energy) -> Energy:
    """Return the sum of two energies, component by component."""
    dram = DramEnergy(
        **{f: _added(getattr(a.dram, f), getattr(b.dram, f)) for f in DramEnergy.__struct_fields__}
    )
    return Energy(
        dram=dram,
        codec=a.codec + b.codec,
        onchip=a.onchip + b.onchip,
        compute=a.compute + b.compute,
        total=a.total + b.total,
    )
