"""What a reader should take from a comparison: the headline, flips of order, sources."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from sfpsim.energy.model import CodecTable, InterfaceTable, load_table
from sfpsim.errors import InputError
from sfpsim.experiment.result import Comparison, ContainerResult
from sfpsim.hardware.machine import Machine, load_machine
from sfpsim.report.table import bits_a_value, number, significant, speed_up

LEVELS = ("low", "middle", "high")


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Two containers whose order by energy depends on the tables."""

    a: str
    b: str
    text: str


def headline(comparison: Comparison) -> list[str]:
    """Return the main message, one sentence each: the fastest, and the fastest exact one."""
    first, *others = comparison.containers
    if not others:
        return [_cost(first)]
    out = [_against(first, min(others, key=lambda c: c.totals.time_ns))]
    exact = [c for c in others if c.lossless and _narrower(first, c)]
    if exact:
        best = min(exact, key=lambda c: c.totals.time_ns)
        sentence = _against(first, best)
        if sentence not in out:
            out.append(sentence)
    return out


def _narrower(first: ContainerResult, other: ContainerResult) -> bool:
    return other.totals.total_bits < first.totals.total_bits


def _cost(c: ContainerResult) -> str:
    t = c.totals
    return (
        f"In {c.container} the run moves {significant((t.read_bytes + t.write_bytes) / 1e6)} MB "
        f"in {significant(t.time_ns / 1e6)} ms and {significant(t.energy_pj.total / 1e9)} mJ."
    )


def _against(first: ContainerResult, other: ContainerResult) -> str:
    t = other.totals
    faster = speed_up(first.totals, t)
    quality = "exact" if other.lossless else f"lossy, SQNR {number(t.sqnr_db, '.1f')} dB"
    energy = t.energy_pj.total / first.totals.energy_pj.total if first.totals.values else None
    return (
        f"{other.container} ({quality}; {number(bits_a_value(t), '.1f')} bits per value) is "
        f"{number(faster, '.2f')} times as fast as {first.container} and takes "
        f"{number(energy, '.0%')} of its energy."
    )


def order_flips(comparison: Comparison) -> list[Flip]:
    """Return every pair of containers whose order by energy differs between the tables."""
    out = []
    for a, b in combinations(comparison.containers, 2):
        signs = {}
        for level, x, y in zip(LEVELS, _totals(a), _totals(b), strict=True):
            signs[level] = (x > y) - (x < y)
        if {-1, 1} <= set(signs.values()):
            less = [level for level in LEVELS if signs[level] < 0]
            more = [level for level in LEVELS if signs[level] > 0]
            text = (
                f"{a.container} takes less energy than {b.container} in the "
                f"{' and '.join(less)} tables, more in the {' and '.join(more)} ones."
            )
            out.append(Flip(a=a.container, b=b.container, text=text))
    return out


def _totals(c: ContainerResult) -> tuple[float, float, float]:
    t = c.totals
    return t.energy_low_pj.total, t.energy_pj.total, t.energy_high_pj.total


def sources(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (part, source) of the machine, its device and the energy tables.

    Empty where the machine of the result is not a preset of this version.
    """
    try:
        machine = load_machine(comparison.machine.name)
    except InputError:
        return []
    if machine.hash != comparison.machine.hash:
        return []
    return [*_machine_sources(machine), *_energy_sources(machine.device.kind)]


def _machine_sources(machine: Machine) -> list[tuple[str, str]]:
    parts = ("compute", "buffer", "codec", "dma", "index_cache", "memory")
    named = [(part.replace("_", " "), getattr(machine, part).source) for part in parts]
    device = machine.device
    return [("machine", machine.source), *named, (f"device {device.name}", device.source)]


def _energy_sources(kind: str) -> list[tuple[str, str]]:
    interface = {e.kind: e for e in load_table(InterfaceTable).entries}[kind]
    codec = load_table(CodecTable).entries[0]
    out = []
    for name, entry, unit in (
        (f"energy of the {kind} interface", interface, "pJ/bit"),
        ("energy of the codec", codec, "pJ/value"),
    ):
        estimate = ", an estimate" if entry.estimate else ""
        numbers = f"{entry.low} / {entry.middle} / {entry.high} {unit}{estimate}"
        out.append((name, f"{numbers}: {entry.source}"))
    return out
