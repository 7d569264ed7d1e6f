"""An address trace on one memory device: requests in, cycles, counts and energy out.

`Memory` takes batches of requests and keeps its state between them, so a trace of any
length runs in the memory of one batch, and where it is cut does not change the result.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sfpsim.energy.model import (
    DramCounts,
    dram_core_pj,
    dram_interface_pj_per_bit,
    interface_kinds,
)
from sfpsim.errors import InputError, one_of
from sfpsim.hardware.dram import engine as e
from sfpsim.hardware.dram import periods
from sfpsim.hardware.dram.device import Device, Struct, address_pieces

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
Part = tuple[U64, NDArray[np.uint8], U64]
LONG_AGO = -(1 << 40)
NO_CYCLES = np.zeros(0, np.uint64)
EMPTY: Part = (np.zeros(0, np.uint64), np.zeros(0, np.uint8), NO_CYCLES)

Policy = Literal["default", "dramsim3", "ramulator", "dramsys"]
POLICIES: tuple[Policy, ...] = ("default", "dramsim3", "ramulator", "dramsys")

# Commands in a log.
READ, WRITE, ACTIVATE, PRECHARGE, PRECHARGE_ALL, REFRESH, REFRESH_BANK = range(7)
COMMANDS = (
    "read", "write", "activate", "precharge", "precharge_all", "refresh", "refresh_bank",
    "read_precharge", "write_precharge", "power_down_entry", "power_down_exit",
    "self_refresh_entry", "self_refresh_exit",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Requests:
    """A batch of requests in trace order.

    `address` is uint64 bytes (the access that holds the byte is moved), `is_write` uint8,
    `cycle` the memory cycle from which a request is offered (uint64, not falling), or None:
    saturating, every request is offered as soon as the one before it was taken.
    """

    address: NDArray[np.uint64]
    is_write: NDArray[np.uint8]
    cycle: NDArray[np.uint64] | None = None


class DramCommandCounts(Struct, frozen=True, kw_only=True):
    """Commands issued, reads answered from a queued write, writes never issued."""

    act: int
    pre: int
    rd: int
    wr: int
    ref: int
    forwarded: int
    unissued_writes: int


class DramTraceEnergy(Struct, frozen=True, kw_only=True):
    """Energy by component, pJ; None where it does not apply. `total` is the sum of the rest."""

    act: float
    rd: float
    wr: float
    ref: float
    active_standby: float
    precharge_standby: float
    active_powerdown: float | None = None
    precharge_powerdown: float | None = None
    self_refresh: float | None = None
    interface: float | None = None
    total: float


class DramResult(Struct, frozen=True, kw_only=True):
    """What ``sfpsim dram --json`` writes.

    `cycles` is that of the last read data or the last command, whichever is later; latency
    is from entry into the controller to data (None: no read); `wall_s` and `cpu_s` are the
    engine's on parsed requests, without compilation.
    """

    schema: int = 1
    device: str
    policy: str
    requests: int
    reads: int
    writes: int
    cycles: int
    time_ns: float
    bandwidth_gbps: float
    avg_read_latency_ns: float | None
    counts: DramCommandCounts
    energy_pj: DramTraceEnergy
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class CommandLog:
    """Commands of one channel in the order of issue, int64 arrays of one length.

    `command` is an index into `COMMANDS`; fields that a command does not name are -1 (a
    precharge-all or refresh names a rank only; `bank` is that within its group). `column`
    is the access in the row, -1 but for reads and writes.
    """

    cycle: NDArray[np.int64]
    command: NDArray[np.int64]
    rank: NDArray[np.int64]
    bank_group: NDArray[np.int64]
    bank: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]


KERNELS: dict[str, Any] = {
    "default": periods.run_default,
    "dramsim3": periods.run_dramsim3,
    "ramulator": periods.run_ramulator,
    "dramsys": periods.run_default,
}
# The same without the shortcut of `sfpsim.hardware.dram.periods`.
PLAIN_KERNELS: dict[str, Any] = {
    "default": e.run_default,
    "dramsim3": e.run_dramsim3,
    "ramulator": e.run_ramulator,
    "dramsys": e.run_default,
}
FIELDS = ("ro", "ra", "bg", "ba", "co", "ch")
CHUNK = 1 << 20


def timings(device: Device, policy: Policy = "default") -> I64:
    """Return the engine's timings of `device` under `policy`, int64."""
    d, tim = device, np.zeros(e.TIMING_COLUMNS, np.int64)
    short = {"ranks": d.ranks, "groups": d.bank_groups, "banks": d.banks, "burst": d.burst_cycles}
    short |= {"cl": d.cl, "cwl": d.cwl, "rcdrd": d.trcd, "rcdwr": d.trcd_wr or d.trcd, "rp": d.trp}
    short |= {"ras": d.tras, "rrds": d.trrd_s, "rrdl": d.trrd_l, "faw": d.tfaw, "32aw": d.t32aw}
    short |= {"rtp": d.trtp, "wrpre": d.cwl + d.burst_cycles + d.twr, "ppd": d.tppd}
    short |= {"rfc": d.trfc, "rfcpb": d.trfcpb, "dual": int(d.dual_command)}
    short |= {"cmdact": d.command_cycles.act, "cmdcol": d.command_cycles.column}
    short |= {"cmdpre": d.command_cycles.pre, "timeout": d.page_timeout}
    closes = int(d.page == "closed")
    short |= {"auto": closes} if policy != "dramsim3" else {"closed": closes}
    short |= {"pbr": d.tpbr2pbr or d.trfcpb}
    queues = d.controller
    short |= {"queue": queues.queue, "bankqueue": queues.bank_queue, "high": queues.drain_high}
    short |= {"low": queues.drain_low, "cap": queues.hit_cap, "turn": queues.turn}
    short |= {"writes": queues.write_queue or queues.queue}
    short |= {"intake": 1, "powerdown": queues.power_down, "self": queues.self_refresh}
    short |= {"xp": d.txp, "cke": d.tcke, "xs": d.txs, "ckesr": d.tckesr}
    extra = d.burst_cycles if policy == "dramsim3" else 0  # DRAMsim3 counts the burst as well
    short |= {"rdap": d.trtp + extra + d.trp, "wrap": d.cwl + d.burst_cycles + d.twr + d.trp}
    short |= {"refi": _refresh_interval(d, policy), "perbank": int(d.refresh == "per-bank")}
    short |= _policy(policy, queues.queue)
    for name, value in short.items():
        tim[getattr(e, f"T_{name.upper()}")] = value
    _column_to_column(tim, d)
    _mapping(tim, d)
    tim[e.T_ALLGROUPS] = d.ranks * d.bank_groups
    return np.concatenate([tim, _column_distances(tim, d)])


def _policy(policy: Policy, queue: int) -> dict[str, int]:
    """What a reference's controller does otherwise than ours.

    The reference runs of DRAMsim3 and Ramulator took up to 8 requests a cycle: only that
    repeats their write drains. DRAMSys' watermarks were fitted to its runs; half and a
    quarter of the queue repeat them.
    """
    if policy == "dramsim3":
        return {"intake": 8}
    if policy == "ramulator":
        return {"intake": 8, "high": queue * 4 // 5, "low": queue // 5}
    if policy == "dramsys":
        marks = {"high": max(1, queue // 2), "low": queue // 4}
        return {"oldest": 1, "turn": 0, "cap": e.FAR, **marks}
    return {}


def _refresh_interval(d: Device, policy: Policy) -> int:
    """From one refresh of the channel to the next; ranks take turns."""
    if d.refresh == "none":
        return e.FAR
    if d.refresh == "all-bank":
        return max(1, d.trefi // d.ranks)
    interval = d.trefipb or d.trefi // d.banks
    return max(1, interval if policy == "dramsim3" else interval // d.ranks)


def _column_to_column(tim: I64, d: Device) -> None:
    burst = d.burst_cycles
    same = [max(burst, d.tccd_l), max(burst, d.tccd_s)]
    to_read = d.cwl + burst - d.cl
    tim[e.T_RR : e.T_RR + 3] = [*same, burst + d.trtrs]
    tim[e.T_RW : e.T_RW + 3] = [d.trtw, d.trtw, max(1, d.cl + burst + d.trtrs - d.cwl)]
    tim[e.T_WR : e.T_WR + 3] = [
        d.cwl + burst + d.twtr_l, d.cwl + burst + d.twtr_s, max(1, to_read + d.trtrs)
    ]  # fmt: skip
    tim[e.T_WW : e.T_WW + 3] = [*same, burst]


def _column_distances(tim: I64, d: Device) -> I64:
    """After a read, then a write, in each group: until each bank may be read, then written.

    A command holds the command bus for as long, where that is more than a cycle.
    """
    group = np.arange(d.ranks * d.banks) // (d.banks // d.bank_groups)
    rank = np.arange(d.ranks * d.banks) // d.banks
    held = d.command_cycles.column if d.command_cycles.column > 1 else 0
    found = []
    for to_read, to_write in ((e.T_RR, e.T_RW), (e.T_WR, e.T_WW)):
        for one in range(d.ranks * d.bank_groups):
            for kind in (to_read, to_write):
                same, other, far = tim[kind : kind + 3]
                near = max(same, other) if d.bank_groups > 1 else same
                own = np.where(group == one, near, other)
                apart = np.where(rank == one // d.bank_groups, own, far)
                found.append(np.maximum(apart, held))
    return np.concatenate(found).astype(np.int64)


def _mapping(tim: I64, d: Device) -> None:
    bits = d.field_bits()
    pieces, xored = address_pieces(d)
    filled = dict.fromkeys(FIELDS, 0)
    for piece in pieces:
        at = e.T_MAP + 6 * FIELDS.index(piece.field) + 3 * filled[piece.field]
        filled[piece.field] += 1
        tim[at : at + 3] = piece.at, (1 << piece.bits) - 1, piece.to
    bank, group = bits["ba"], bits["bg"]
    tim[e.T_XOR] = (1 << bank) - 1 if xored & 1 else 0
    tim[e.T_XORG] = (1 << group) - 1 if xored & 2 else 0
    tim[e.T_XORSHIFT] = bank if xored & 1 else 0
    tim[e.T_SHIFT] = d.access_bytes.bit_length() - 1
    tim[e.T_BANKBITS], tim[e.T_GROUPBITS] = bank, group


class ChannelState:
    """The engine's arrays of one channel."""

    def __init__(self, device: Device, tim: I64) -> None:
        d, banks = device, device.ranks * device.banks
        self.st = np.zeros(e.ST_COLUMNS + e.SLEEP_COLUMNS * d.ranks, np.int64)
        self.st[e.ST_DUE] = tim[e.T_REFI]
        self.st[e.ST_ACCEPTED] = 1
        self.st[e.ST_BESTAT] = e.FAR
        self.bk = np.zeros((banks, e.BANK_COLUMNS), np.int64)
        self.bk[:, e.B_ROW] = -1
        self.bk[:, e.B_GROUP] = np.arange(banks) // (d.banks // d.bank_groups)
        self.bk[:, e.B_RANK] = np.arange(banks) // d.banks
        for chain in (e.B_HEAD, e.B_TAIL):
            self.bk[:, chain : chain + 3] = -1
        for kinds in (e.B_HIT, e.B_MISS):
            self.bk[:, kinds : kinds + 2] = -1
        self.bk[:, e.B_ACTIVE] = -1
        self.tm = np.zeros((e.TM_ROWS, banks), np.int64)
        self.tm[e.WANT_ACT :] = e.FAR
        self.tm[e.WANT_LENGTH] = 0
        self.rk = np.zeros((d.ranks, e.RANK_COLUMNS), np.int64)
        self.rk[:, e.R_FAW : e.R_FAW + 4] = LONG_AGO
        self.rk[:, e.R_32 : e.R_32 + 32] = LONG_AGO
        places = 2 * d.controller.queue + banks * max(1, d.controller.bank_queue)
        self.rq = np.zeros((places, e.REQUEST_COLUMNS), np.int64)
        self.fr = np.arange(places, dtype=np.int64)
        self.st[e.ST_FREE] = places
        self.ft = np.zeros((2, e.FILTER), np.int64)
        self.kept = periods.kept_places(self.st, self.bk, self.tm, self.rk, self.rq)

    def kept_by(self, shortcut: bool) -> tuple[I64, ...]:
        """What the engine takes besides `arrays` where it may take its shortcut."""
        return (self.kept,) if shortcut else ()

    @property
    def arrays(self) -> tuple[I64, ...]:
        """In the order in which the engine takes them."""
        return self.st, self.bk, self.tm, self.rk, self.rq, self.fr, self.ft


class Memory:
    """A memory that takes a trace batch by batch.

    Where a trace is cut into batches changes nothing, nor does `shortcut`: what repeats
    itself is left out (`sfpsim.hardware.dram.periods`), or, where it is False, worked out
    again. `send` may not be called after `finish`.
    """

    def __init__(
        self, device: Device, policy: Policy = "default", threads: int = 1, logged: bool = False,
        shortcut: bool = True,
    ) -> None:  # fmt: skip
        one_of("unknown policy", policy, POLICIES)
        if policy == "ramulator" and device.refresh == "per-bank":
            raise InputError(
                f"policy ramulator refreshes all banks of a rank at once, device {device.name} "
                "bank by bank: allowed are the other policies"
            )
        if policy in ("dramsim3", "ramulator") and device.sleeps:
            raise InputError(
                f"policy {policy} lets no rank power down or refresh itself, as device "
                f"{device.name} asks for: allowed are default and dramsys, or power_down and "
                "self_refresh of 0"
            )
        if threads < 1:
            raise InputError(f"threads={threads} must be at least 1")
        self.device, self.policy = device, policy
        self.tim = timings(device, policy)
        self.channels = [ChannelState(device, self.tim) for _ in range(device.channels)]
        self.kernel = (KERNELS if shortcut else PLAIN_KERNELS)[policy]
        self.shortcut = shortcut
        self.pool = ThreadPoolExecutor(min(threads, device.channels)) if threads > 1 else None
        self.log = np.zeros((1 << 16 if logged else 0, e.LOG_COLUMNS), np.int64)
        self.logged: list[list[I64]] = [[] for _ in self.channels]
        self.requests = self.reads = 0
        self.wall_s = self.cpu_s = 0.0
        self._run(0, EMPTY, False)  # compile

    def send(self, batch: Requests) -> None:
        """Run the memory until it has taken the whole batch.

        Raises
        ------
        InputError
            If an address is beyond the device or the arrays do not fit together.
        """
        _check(batch, self.device)
        for start in range(0, len(batch.address), CHUNK):
            chunk = slice(start, start + CHUNK)
            cycle = batch.cycle
            self._send(
                np.require(batch.address[chunk], np.uint64, ["C", "W"]),
                np.require(batch.is_write[chunk], np.uint8, ["C", "W"]),
                NO_CYCLES if cycle is None else np.require(cycle[chunk], np.uint64, ["C", "W"]),
            )

    def _send(self, address: U64, is_write: NDArray[np.uint8], cycle: U64) -> None:
        self.requests += len(address)
        self.reads += int(np.count_nonzero(is_write == 0))
        if self.device.channels == 1:
            self._all([(address, is_write, cycle)], False)
            return
        channel = _channel(address, self.tim)
        parts = []
        for c in range(self.device.channels):
            mine = channel == c
            parts.append((address[mine], is_write[mine], cycle[mine] if len(cycle) else cycle))
        self._all(parts, False)

    def _all(self, parts: list[Part], final: bool) -> None:
        began = time.perf_counter()
        work = [(c, part, final) for c, part in enumerate(parts)]
        if self.pool:
            spent = list(self.pool.map(lambda x: self._run(*x), work))
        else:
            spent = [self._run(*x) for x in work]
        self.wall_s += time.perf_counter() - began
        self.cpu_s += sum(spent)

    def _run(self, c: int, part: Part, final: bool) -> float:
        """Run channel `c` on its part of a batch; returns the CPU seconds."""
        state = self.channels[c]
        log = self.log if c == 0 else self.log.copy()
        state.st[e.ST_NEXTIN] = 0
        began = time.thread_time()
        while True:
            state.st[e.ST_LOG] = 0
            arrays = (*state.arrays, self.tim, log, *state.kept_by(self.shortcut))
            done = self.kernel(*part, final, *arrays)
            if len(log):
                self.logged[c].append(log[: state.st[e.ST_LOG]].copy())
            if done:
                return time.thread_time() - began

    def finish(self) -> DramResult:
        """Serve what is queued; return the result of the whole trace."""
        self._all([EMPTY] * len(self.channels), True)
        if self.pool:
            self.pool.shutdown()
        cycles = max(int(c.st[e.ST_LAST]) for c in self.channels)
        for c, state in enumerate(self.channels):
            state.st[e.ST_LOG] = 0
            rest = np.zeros(
                (8 * self.device.ranks if len(self.log) else 0, e.LOG_COLUMNS), np.int64
            )
            e.close_counts(cycles, state.st, state.bk, state.tm, state.rk, state.rq, self.tim, rest)
            self.logged[c].append(rest[: state.st[e.ST_LOG]])
        return self._result(cycles)

    def logs(self) -> list[CommandLog]:
        """Return the commands of every channel so far."""
        return [_as_log(parts, self.device) for parts in self.logged]

    def _result(self, cycles: int) -> DramResult:
        d = self.device
        total: I64 = np.sum([c.st for c in self.channels], axis=0)
        time_ns = cycles * d.tck_ps / d.tck_den / 1000
        replies = int(total[e.ST_REPLIES])
        latency = int(total[e.ST_LATENCY]) / replies * d.tck_ps / d.tck_den / 1000 if replies else 0
        moved = (self.requests - int(total[e.ST_WRITES])) * d.access_bytes
        return DramResult(
            device=d.name,
            policy=self.policy,
            requests=self.requests,
            reads=self.reads,
            writes=self.requests - self.reads,
            cycles=cycles,
            time_ns=time_ns,
            bandwidth_gbps=moved / time_ns if time_ns else 0.0,
            avg_read_latency_ns=latency if replies else None,
            counts=DramCommandCounts(
                act=int(total[e.ST_ACT]),
                pre=int(total[e.ST_PRE]),
                rd=int(total[e.ST_RD]),
                wr=int(total[e.ST_WR]),
                ref=int(total[e.ST_REF] + total[e.ST_REFB]),
                forwarded=int(total[e.ST_FORWARDED]),
                unissued_writes=int(total[e.ST_WRITES]),
            ),
            energy_pj=self._energy(cycles, total),
            wall_s=self.wall_s,
            cpu_s=self.cpu_s,
        )

    def _energy(self, cycles: int, total: I64) -> DramTraceEnergy:
        d = self.device
        opened = int(sum(c.rk[:, e.R_OPENCYCLES].sum() for c in self.channels))
        active, precharged, itself = slept_cycles(total)
        counts = DramCounts(
            act=int(total[e.ST_ACT]),
            rd=int(total[e.ST_RD]),
            wr=int(total[e.ST_WR]),
            ref=int(total[e.ST_REF]),
            refpb=int(total[e.ST_REFB]),
            active_cycles=opened - active,
            precharge_cycles=cycles * d.channels * d.ranks - opened - precharged - itself,
            active_powerdown_cycles=active,
            precharge_powerdown_cycles=precharged,
            self_refresh_cycles=itself,
        )
        parts = dram_core_pj(counts, d.currents, d.energy_timing).components(d.sleeps)
        if self.policy != "dramsim3" and d.kind in interface_kinds():
            bits = (counts.rd + counts.wr) * d.access_bytes * 8
            parts["interface"] = bits * dram_interface_pj_per_bit(d.kind)
        return DramTraceEnergy(**parts, total=sum(x for x in parts.values() if x is not None))


def slept_cycles(st: I64) -> tuple[int, int, int]:
    """Return a channel's rank-cycles in active and precharge power-down and in self-refresh."""
    ranks = st[e.ST_COLUMNS :].reshape(-1, e.SLEEP_COLUMNS).sum(axis=0)
    return int(ranks[e.SL_ACTIVE]), int(ranks[e.SL_PRECHARGED]), int(ranks[e.SL_SELF])


def _check(batch: Requests, device: Device) -> None:
    n = len(batch.address)
    if len(batch.is_write) != n or (batch.cycle is not None and len(batch.cycle) != n):
        raise InputError("address, is_write and cycle must have one entry a request")
    size = device.capacity_bytes * device.channels
    beyond = np.flatnonzero(np.asarray(batch.address) >= np.uint64(size))
    if len(beyond):
        i = int(beyond[0])
        raise InputError(
            f"request {i}: address {int(batch.address[i]):#x} is beyond device {device.name}, "
            f"which has {size:#x} bytes"
        )


def _channel(address: U64, tim: I64) -> NDArray[np.uint64]:
    found = np.zeros(len(address), np.uint64)
    number = address >> np.uint64(tim[e.T_SHIFT])
    at = e.T_MAP + 6 * FIELDS.index("ch")
    for first in (at, at + 3):
        low, mask, to = (np.uint64(x) for x in tim[first : first + 3])
        found |= ((number >> low) & mask) << to
    return found


def _as_log(parts: list[I64], device: Device) -> CommandLog:
    rows = np.concatenate(parts) if parts else np.zeros((0, e.LOG_COLUMNS), np.int64)
    if device.sleeps:  # how a rank slept is logged when it wakes
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
    cycle, command, bank, row, column = rows.T
    in_group = device.banks // device.bank_groups
    whole = (command == REFRESH) | (command == PRECHARGE_ALL) | (command >= e.C_PDE)
    return CommandLog(
        cycle=cycle,
        command=command,
        rank=bank // device.banks,
        bank_group=np.where(whole, -1, bank % device.banks // in_group),
        bank=np.where(whole, -1, bank % in_group),
        row=row,
        column=column,
    )


def simulate(
    requests: Requests | Iterable[Requests],
    device: Device,
    policy: Policy = "default",
    threads: int = 1,
) -> DramResult:
    """Run `requests` (one batch, or batches in order) on `device` until all are served.

    Parameters
    ----------
    requests
        The trace.
    device
        One memory; `device.channels` of them share the trace by the mapping's ``ch``.
    policy
        Whose controller: ours (``default``), or that of a reference simulator.
    threads
        Channels that run at the same time.

    Raises
    ------
    InputError
        If the policy is unknown, an address is beyond the device, or arrays do not fit
        together.
    """
    memory = Memory(device, policy, threads)
    for batch in [requests] if isinstance(requests, Requests) else requests:
        memory.send(batch)
    return memory.finish()


def simulate_logged(
    requests: Requests | Iterable[Requests], device: Device, policy: Policy = "default"
) -> tuple[DramResult, list[CommandLog]]:
    """As `simulate`, with every command of every channel; memory grows with the trace."""
    memory = Memory(device, policy, logged=True)
    for batch in [requests] if isinstance(requests, Requests) else requests:
        memory.send(batch)
    return memory.finish(), memory.logs()
