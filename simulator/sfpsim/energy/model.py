"""Energy from tables: every number is in `tables/*.yaml` with its unit and source.

All results are pJ. `level` is low, middle or high; where the sources do not differ the three
are equal. DRAM core energy comes from datasheet currents, as DRAMsim3 counts it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, TypeVar

import msgspec

from sfpsim.errors import InputError, one_of

Level = Literal["low", "middle", "high"]
LEVELS: tuple[Level, ...] = ("low", "middle", "high")


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A strict record of a table file."""


class _Sourced(_Struct, frozen=True, kw_only=True):
    estimate: bool
    source: str


class InterfaceEntry(_Sourced, frozen=True, kw_only=True):
    """Interface energy of one kind of DRAM, pJ/bit."""

    kind: str
    low: float
    middle: float
    high: float


class CodecEntry(_Sourced, frozen=True, kw_only=True):
    """Energy of a codec unit, pJ/value."""

    name: str
    low: float
    middle: float
    high: float


class SramEntry(_Sourced, frozen=True, kw_only=True):
    """One SRAM array; `read` and `write` are pJ/byte."""

    model: str
    node_nm: int
    size_bytes: int
    read: float
    write: float


class ArithmeticEntry(_Sourced, frozen=True, kw_only=True):
    """One format at one node; `add` and `multiply` are pJ an operation."""

    format: str
    node_nm: int
    add: float
    multiply: float


class InterfaceTable(_Struct, frozen=True, kw_only=True):
    """`tables/interface.yaml`."""

    unit: str
    entries: list[InterfaceEntry]


class CodecTable(_Struct, frozen=True, kw_only=True):
    """`tables/codec.yaml`."""

    unit: str
    entries: list[CodecEntry]


class SramTable(_Struct, frozen=True, kw_only=True):
    """`tables/sram.yaml`."""

    unit: str
    entries: list[SramEntry]


class ArithmeticTable(_Struct, frozen=True, kw_only=True):
    """`tables/arithmetic.yaml`; `multiplier_high` scales the multiply at level high."""

    unit: str
    multiplier_high: float
    multiplier_high_source: str
    entries: list[ArithmeticEntry]
    integers: list[ArithmeticEntry]


Table = TypeVar("Table", InterfaceTable, CodecTable, SramTable, ArithmeticTable)


@cache
def _read(name: str) -> Any:
    import yaml

    text = (resources.files("sfpsim.energy") / "tables" / f"{name}.yaml").read_text("utf-8")
    return yaml.safe_load(text)


@cache
def load_table(kind: type[Table]) -> Table:
    """Return the package's table of struct `kind`, decoded strictly."""
    return msgspec.convert(_read(kind.__name__.removesuffix("Table").lower()), kind)


def _check_level(level: str) -> None:
    one_of("energy level", level, LEVELS)


def dram_interface_pj_per_bit(kind: str, level: str = "middle") -> float:
    """Return the I/O and termination energy of one bit moved, pJ.

    Raises
    ------
    InputError
        If `kind` (``lpddr4``, ``hbm2``, ...) is not in the table or `level` is unknown.
    """
    _check_level(level)
    entries = {entry.kind: entry for entry in load_table(InterfaceTable).entries}
    if kind.lower() not in entries:
        raise InputError(f"no interface energy for {kind!r}: allowed are {', '.join(entries)}")
    return float(getattr(entries[kind.lower()], level))


def interface_kinds() -> tuple[str, ...]:
    """Return the kinds of DRAM whose interface energy is in the table."""
    return tuple(entry.kind for entry in load_table(InterfaceTable).entries)


def codec_pj(values: int, level: str = "middle") -> float:
    """Return the energy of passing `values` values through an encoder or a decoder, pJ."""
    _check_level(level)
    return values * float(getattr(load_table(CodecTable).entries[0], level))


def _log_log(points: list[tuple[float, float]], at: float) -> float:
    """Interpolate (extrapolate) through sorted positive points along straight log-log lines."""
    if len(points) == 1:
        return points[0][1]
    upper = next((i for i, (x, _) in enumerate(points) if i and x >= at), len(points) - 1)
    (x0, y0), (x1, y1) = points[upper - 1], points[upper]
    slope = math.log(y1 / y0) / math.log(x1 / x0)
    return y0 * (at / x0) ** slope


@cache
def _sram_pj_per_byte(model: str, field: str, size_bytes: int, node_nm: float) -> float:
    entries = [entry for entry in load_table(SramTable).entries if entry.model == model]
    nodes: list[tuple[float, float]] = []
    for node in sorted({entry.node_nm for entry in entries}):
        sizes = sorted((e.size_bytes, getattr(e, field)) for e in entries if e.node_nm == node)
        # A larger buffer is banks of the largest array, a smaller one costs as the smallest.
        at = min(max(size_bytes, sizes[0][0]), sizes[-1][0])
        nodes.append((float(node), _log_log([(float(x), y) for x, y in sizes], at)))
    return _log_log(nodes, node_nm)


def onchip_pj(
    read_bytes: int,
    write_bytes: int,
    level: str = "middle",
    buffer_bytes: int = 1 << 20,
    node_nm: float = 65,
) -> float:
    """Return the energy of on-chip buffer accesses, pJ (CACTI 7, log-log interpolated).

    Parameters
    ----------
    read_bytes, write_bytes
        Bytes read from and written to the buffer.
    level
        low and high are the least and the greatest of two CACTI organisations (256-bit and
        64-byte access), middle their geometric mean.
    buffer_bytes
        Size of one array; clamped to the table's range.
    node_nm
        Process node.

    Raises
    ------
    InputError
        If a size or the node is not positive or `level` is unknown.
    """
    _check_level(level)
    if buffer_bytes <= 0 or node_nm <= 0:
        raise InputError(f"buffer of {buffer_bytes} bytes at {node_nm} nm: both must be positive")
    both = sorted(
        read_bytes * _sram_pj_per_byte(model, "read", buffer_bytes, node_nm)
        + write_bytes * _sram_pj_per_byte(model, "write", buffer_bytes, node_nm)
        for model in ("lop_256b", "lop_64byte")
    )
    return {"low": both[0], "middle": math.sqrt(both[0] * both[1]), "high": both[1]}[level]


def mac_pj(fmt_name: str, level: str = "middle", node: float = 65) -> float:
    """Return the energy of a multiply and an add in format `fmt_name`, pJ.

    `node` is nm; away from 45 and 7 nm it is a log-log estimate between the two. Level high
    takes the larger multiplier of Accelergy's Aladdin table; low and middle are equal.

    Raises
    ------
    InputError
        If the format or level is unknown, or `node` is not positive.
    """
    _check_level(level)
    table = load_table(ArithmeticTable)
    found = sorted((e.node_nm, e.add, e.multiply) for e in table.entries if e.format == fmt_name)
    if not found:
        names = sorted({entry.format for entry in table.entries})
        raise InputError(f"no arithmetic energy for {fmt_name!r}: allowed are {', '.join(names)}")
    if node <= 0:
        raise InputError(f"node of {node} nm: must be positive")
    add = _log_log([(float(n), a) for n, a, _ in found], node)
    multiply = _log_log([(float(n), m) for n, _, m in found], node)
    return add + multiply * (table.multiplier_high if level == "high" else 1.0)


def integer_mac_pj(bits: tuple[int, int], level: str = "middle", node: float = 65) -> float:
    """Return the energy of a multiply of integers of `bits` bits and an add in 32 bits, pJ.

    The multiply goes with the product of the widths, from int8's; `level` and `node` as
    `mac_pj`.

    Raises
    ------
    InputError
        If a width or `node` is not positive or the level is unknown.
    """
    _check_level(level)
    if min(bits) <= 0 or node <= 0:
        raise InputError(f"integers of {bits} bits at {node} nm: all must be positive")
    table = load_table(ArithmeticTable)
    points: dict[str, list[tuple[float, float]]] = {"int8": [], "int32": []}
    for e in sorted(table.integers, key=lambda e: e.node_nm):
        value = e.multiply if e.format == "int8" else e.add
        points[e.format].append((float(e.node_nm), value))
    multiply = _log_log(points["int8"], node) * bits[0] * bits[1] / 64
    factor = table.multiplier_high if level == "high" else 1.0
    return _log_log(points["int32"], node) + multiply * factor


@dataclass(frozen=True, kw_only=True)
class IddCurrents:
    """Supply voltage (V) and datasheet currents (mA) of one device."""

    vdd: float
    idd0: float
    idd2n: float
    idd3n: float
    idd4r: float
    idd4w: float
    idd5ab: float
    idd5pb: float | None = None
    idd2p: float | None = None
    idd3p: float | None = None
    idd6: float | None = None


@dataclass(frozen=True, kw_only=True)
class DramCounts:
    """Commands issued, and rank-cycles in standby with a row open and with all banks closed.

    `ref` are refreshes of all banks, `refpb` those of one; cycles in power-down (with a row
    open, with none) and in self-refresh are apart from those in standby.
    """

    act: int
    rd: int
    wr: int
    ref: int
    active_cycles: int
    precharge_cycles: int
    refpb: int = 0
    active_powerdown_cycles: int = 0
    precharge_powerdown_cycles: int = 0
    self_refresh_cycles: int = 0


@dataclass(frozen=True, kw_only=True)
class DramTiming:
    """Clock period (ns), timings and burst length (cycles), devices that act as one."""

    tck_ns: float
    tras: int
    trp: int
    trfc: int
    burst_cycles: int
    devices: int
    trfcpb: int = 0
    banks: int = 1


@dataclass(frozen=True, kw_only=True)
class DramCoreEnergy:
    """DRAM core and background energy by component, pJ; the interface is not in it."""

    act: float
    rd: float
    wr: float
    ref: float
    active_standby: float
    precharge_standby: float
    active_powerdown: float
    precharge_powerdown: float
    self_refresh: float

    def components(self, sleeps: bool) -> dict[str, Any]:
        """Return it by component; low-power states are None where the device never `sleeps`."""
        found: dict[str, Any] = dict(vars(self))
        if not sleeps:
            found |= {"active_powerdown": None, "precharge_powerdown": None, "self_refresh": None}
        return found


def dram_core_pj(counts: DramCounts, idd: IddCurrents, timing: DramTiming) -> DramCoreEnergy:
    """Return the core energy of `counts` commands and cycles, pJ (V x mA x ns = pJ).

    The increments are DRAMsim3's: each command's current above standby, times its cycles.
    Where no current of a per-bank refresh is known, a bank's share of IDD5AB is taken: as
    much charge in all as a refresh of all banks.
    """
    scale = idd.vdd * timing.tck_ns * timing.devices
    trc = timing.tras + timing.trp
    refresh = (idd.idd5ab - idd.idd3n) * timing.trfc
    one_bank = refresh / timing.banks
    if idd.idd5pb is not None and idd.idd5pb > idd.idd3n:
        one_bank = (idd.idd5pb - idd.idd3n) * timing.trfcpb
    act = idd.idd0 * trc - idd.idd3n * timing.tras - idd.idd2n * timing.trp
    return DramCoreEnergy(
        act=counts.act * scale * act,
        rd=counts.rd * scale * (idd.idd4r - idd.idd3n) * timing.burst_cycles,
        wr=counts.wr * scale * (idd.idd4w - idd.idd3n) * timing.burst_cycles,
        ref=scale * (counts.ref * refresh + counts.refpb * one_bank),
        active_standby=counts.active_cycles * scale * idd.idd3n,
        precharge_standby=counts.precharge_cycles * scale * idd.idd2n,
        active_powerdown=_state(counts.active_powerdown_cycles, idd.idd3p, "idd3p") * scale,
        precharge_powerdown=_state(counts.precharge_powerdown_cycles, idd.idd2p, "idd2p") * scale,
        self_refresh=_state(counts.self_refresh_cycles, idd.idd6, "idd6") * scale,
    )


def _state(cycles: int, current: float | None, name: str) -> float:
    """Return cycles times the current of a state, mA; 0 where nothing was in it."""
    if not cycles:
        return 0.0
    if current is None:
        raise InputError(f"{cycles} cycles in a low-power state need the current {name}")
    return cycles * current
