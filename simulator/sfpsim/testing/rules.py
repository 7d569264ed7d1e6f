"""Checks a trace of DRAM commands against the timing rules of its standard.

The checker knows the rules (`INTERVALS` reads like the standard's tables) and a device's
numbers, and nothing of the engine that made the trace:

>>> from sfpsim.hardware.dram.device import load_device
>>> device = load_device("lpddr4-3200-x16")
>>> commands = parse_commands(["0 ACT 0 0 3 17", "20 RD 0 0 3 17"])
>>> for violation in check_commands(commands, device):
...     print(violation)
tRCD: RD of command 1 at cycle 20, 20 cycles after ACT of command 0: at least 29

A command's cycle is the first in which it holds the command bus. Intervals are counted from
first cycle to first cycle, or, with ``edge="last"``, from last to last, as LPDDR's standards
count them for commands of several cycles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sfpsim.errors import InputError
from sfpsim.hardware.dram.device import Device
from sfpsim.hardware.dram.simulate import COMMANDS as ENGINE_COMMANDS
from sfpsim.hardware.dram.simulate import CommandLog
from sfpsim.testing import rule_kernels as k

I64 = NDArray[np.int64]
Edge = Literal["first", "last"]

COMMANDS = ("ACT", "RD", "WR", "PRE", "PREA", "REF", "REFPB", "RDA", "WRA", "PDE", "PDX", "SRE",
            "SRX")  # fmt: skip
LOGGED = {
    "read": "RD", "write": "WR", "activate": "ACT", "precharge": "PRE", "precharge_all": "PREA",
    "refresh": "REF", "refresh_bank": "REFPB", "read_precharge": "RDA", "write_precharge": "WRA",
    "power_down_entry": "PDE", "power_down_exit": "PDX", "self_refresh_entry": "SRE",
    "self_refresh_exit": "SRX",
}  # fmt: skip
POSTPONED = 8
"""Refreshes that may be put off: DDR4 and LPDDR4; DDR5's 4 and HBM's fewer are stricter."""

OF_BANK = (k.ACT, k.RD, k.WR, k.PRE, k.REFPB, k.RDA, k.WRA)

STATE_RULES = {
    k.CLOSED: "column to a closed row",
    k.OTHER_ROW: "column to another row",
    k.OPEN_BANK: "activate of an open bank",
    k.REF_OPEN: "refresh with an open bank",
    k.OVERDUE: "refresh overdue",
    k.COMMAND_BUS: "command bus",
    k.DATA_BUS: "data bus",
    k.ASLEEP: "command in power-down",
    k.AWAKE: "exit without power-down",
    k.UNREFRESHED: "self-refresh again without a refresh",
}


PLAIN = (k.CLOSED, k.OPEN_BANK, k.REF_OPEN, k.ASLEEP, k.AWAKE, k.UNREFRESHED)  # without numbers


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A rule of the standard: `then` comes at least `cycles` after `first` in `place`."""

    name: str
    first: int
    then: int
    place: int
    cycles: int
    window: int = 1


def intervals(device: Device) -> list[Interval]:
    """Return the rules between two commands with the numbers of `device`."""
    d = device
    write_end = d.cwl + d.burst_cycles
    trcd_wr = d.trcd if d.trcd_wr is None else d.trcd_wr
    bank, group, rank = k.SAME_BANK, k.SAME_GROUP, k.SAME_RANK
    table: list[tuple[str, int, int, int, int]] = [
        ("tRCD", k.ACT, k.RD, bank, d.trcd),
        ("tRCD", k.ACT, k.WR, bank, trcd_wr),
        ("tRP", k.PRE, k.ACT, bank, d.trp),
        ("tRP", k.PRE, k.REFPB, bank, d.trp),
        ("tRP", k.PRE, k.REF, bank, d.trp),
        ("tRP", k.PRE, k.SRE, bank, d.trp),
        ("tRAS", k.ACT, k.PRE, bank, d.tras),
        ("tRC", k.ACT, k.ACT, bank, d.tras + d.trp),
        ("tRRD_S", k.ACT, k.ACT, rank, d.trrd_s),
        ("tRRD_L", k.ACT, k.ACT, group, d.trrd_l),
        ("tCCD_S", k.RD, k.RD, rank, d.tccd_s),
        ("tCCD_S", k.WR, k.WR, rank, d.tccd_s),
        ("tCCD_L", k.RD, k.RD, group, d.tccd_l),
        ("tCCD_L", k.WR, k.WR, group, d.tccd_l),
        ("tRTW", k.RD, k.WR, rank, d.trtw),
        ("tWTR_S", k.WR, k.RD, rank, write_end + d.twtr_s),
        ("tWTR_L", k.WR, k.RD, group, write_end + d.twtr_l),
        ("tRTP", k.RD, k.PRE, bank, d.trtp),
        ("tWR", k.WR, k.PRE, bank, write_end + d.twr),
        ("tPPD", k.PRE, k.PRE, rank, d.tppd),
        ("tRFC", k.REF, k.ACT, rank, d.trfc),
        ("tRFC", k.REF, k.REF, rank, d.trfc),
        ("tRFC", k.REF, k.REFPB, rank, d.trfc),
        ("tRFC", k.REF, k.SRE, rank, d.trfc),
        ("tRFCpb", k.REFPB, k.ACT, bank, d.trfcpb),
        ("tRFCpb", k.REFPB, k.REFPB, bank, d.trfcpb),
        ("tRFCpb", k.REFPB, k.REF, rank, d.trfcpb),
        ("tRFCpb", k.REFPB, k.SRE, rank, d.trfcpb),
        ("tpbR2pbR", k.REFPB, k.REFPB, rank, d.tpbr2pbr),
        ("tRDPDEN", k.RD, k.PDE, rank, d.cl + d.burst_cycles + 1),
        ("tWRPDEN", k.WR, k.PDE, rank, write_end + d.twr),
        ("tCKE", k.PDE, k.PDX, rank, d.tcke),
        ("tCKESR", k.SRE, k.SRX, rank, d.tckesr),
    ]  # fmt: skip
    for kind in (k.ACT, k.RD, k.WR, k.PRE, k.REF, k.REFPB, k.PDE, k.SRE):
        table += [("tXP", k.PDX, kind, rank, d.txp), ("tXS", k.SRX, kind, rank, d.txs)]
    rules = [
        Interval(name=name, first=first, then=then, place=place, cycles=cycles)
        for name, first, then, place, cycles in table
        if cycles > 0
    ]
    for name, cycles, window in (("tFAW", d.tfaw, 4), ("t32AW", d.t32aw, 32)):
        if cycles:
            rules.append(
                Interval(
                    name=name, first=k.ACT, then=k.ACT, place=rank, cycles=cycles, window=window
                )
            )
    return rules


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Commands in the order of their cycles, int64 arrays of one entry a command.

    `kind` indexes `COMMANDS`; `bank` counts within its bank group; `row` is -1 where it is
    not known. What a command does not need (the bank of a REF) is not read, and may be -1.
    """

    cycle: I64
    kind: I64
    rank: I64
    group: I64
    bank: I64
    row: I64

    def __len__(self) -> int:
        return len(self.cycle)


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A rule that command number `now` breaks, because of command number `before`.

    `wanted` and `found` are cycles; rows for a column to another row; refreshes put off for
    an overdue one; None where the rule has no number.
    """

    rule: str
    now: int
    now_command: str
    now_cycle: int
    before: int | None
    before_command: str
    wanted: int | None
    found: int | None

    def __str__(self) -> str:
        text = f"{self.rule}: {self.now_command} of command {self.now} at cycle {self.now_cycle}"
        if self.before is not None and self.wanted is not None and self.found is not None:
            after = f"{self.found} cycles after {self.before_command} of command {self.before}"
            return f"{text}, {after}: at least {self.wanted}"
        if self.before is not None:
            return f"{text}, after {self.before_command} of command {self.before}"
        return (
            text if self.wanted is None else f"{text}: {self.found} put off, at most {self.wanted}"
        )


def parse_commands(lines: Iterable[str]) -> Commands:
    """Read ``CYCLE COMMAND RANK GROUP BANK ROW`` lines; the row may be left out.

    Raises
    ------
    InputError
        If a line is anything else; it says which.
    """
    rows: list[list[int]] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            kind = COMMANDS.index(words[1])
            numbers = [int(w) for w in (words[0], *words[2:])]
            if not 4 <= len(numbers) <= 5:
                raise ValueError
        except (ValueError, IndexError) as error:
            raise InputError(
                f"line {number}: {line.strip()!r}: commands are like '20 RD 0 1 3 17': a cycle, "
                f"one of {', '.join(COMMANDS)}, rank, bank group, bank, row"
            ) from error
        rows.append([numbers[0], kind, *numbers[1:4], *(numbers[4:] or [k.NONE])])
    columns = np.array(rows, np.int64).reshape(-1, 6).T
    cycle, kinds, rank, group, bank, row = (np.ascontiguousarray(c) for c in columns)
    return Commands(cycle=cycle, kind=kinds, rank=rank, group=group, bank=bank, row=row)


def commands_of(log: CommandLog) -> Commands:
    """Return the commands that the engine logged for a channel."""
    kind = np.array([COMMANDS.index(LOGGED[name]) for name in ENGINE_COMMANDS], np.int64)
    return Commands(
        cycle=log.cycle, kind=kind[log.command], rank=log.rank, group=log.bank_group,
        bank=log.bank, row=log.row,
    )  # fmt: skip


class RuleChecker:
    """Checks a trace in batches of any size.

    Parameters
    ----------
    device
        Its numbers.
    edge
        Whether intervals are counted between the commands' first or last cycles.
    postponed
        Refreshes that may be put off.

    Raises
    ------
    InputError
        By `check`, if commands go back in time or name what the device does not have.
    """

    def __init__(self, device: Device, edge: Edge = "first", postponed: int = POSTPONED) -> None:
        self.device = device
        self.rules = intervals(device)
        self._lengths = self._command_cycles()
        shift = self._lengths if edge == "last" else np.zeros(k.KINDS, np.int64)
        self._table = np.array(
            [
                (r.first, r.then, r.place, r.cycles + shift[r.first] - shift[r.then], r.window)
                for r in self.rules
            ],
            np.int64,
        )
        self._par = self._parameters(postponed)
        self._base, self._last = 0, 0
        self._recent: dict[int, tuple[str, int]] = {}
        self._state = self._fresh()

    def _command_cycles(self) -> I64:
        held = self.device.command_cycles
        lengths = np.full(k.KINDS, held.pre, np.int64)
        lengths[k.ACT] = held.act
        lengths[[k.RD, k.WR, k.RDA, k.WRA]] = held.column
        return lengths

    def _parameters(self, postponed: int) -> I64:
        d, par = self.device, np.zeros(k.PARAMETERS, np.int64)
        par[k.P_GROUPS], par[k.P_IN_GROUP] = d.bank_groups, d.banks // d.bank_groups
        par[k.P_RANKS], par[k.P_BURST] = d.ranks, d.burst_cycles
        par[k.P_CL], par[k.P_CWL], par[k.P_RTRS] = d.cl, d.cwl, d.trtrs
        par[k.P_RTP], par[k.P_RAS] = d.trtp, d.tras
        par[k.P_CWL_WR] = d.cwl + d.burst_cycles + d.twr
        par[k.P_REFI], par[k.P_POSTPONED] = d.trefi, postponed
        kinds = {"none": 0, "all-bank": k.ALL_BANK, "per-bank": k.PER_BANK}
        par[k.P_REFRESH], par[k.P_DUAL] = kinds[d.refresh], d.dual_command
        par[k.P_LENGTH : k.P_LENGTH + k.KINDS] = self._lengths
        return par

    def _fresh(self) -> tuple[I64, ...]:
        d = self.device
        banks, groups = d.ranks * d.banks, d.ranks * d.bank_groups
        places = banks + groups + d.ranks
        bursts = np.full((k.HISTORY + 1, 4), k.NONE, np.int64)
        bursts[k.HISTORY] = 0
        history = (places, k.KINDS, k.HISTORY)
        return (
            np.full(banks, k.NONE, np.int64),  # rows open
            np.full(banks, k.NONE, np.int64),  # by which command
            np.zeros((d.ranks, 5), np.int64),  # asleep
            np.zeros(banks, np.int64),  # refreshes
            np.zeros((2, 3), np.int64),  # command buses
            bursts,
            np.zeros(history, np.int64),
            np.zeros(history, np.int64),
            np.zeros((places, k.KINDS), np.int64),
        )

    def check(self, commands: Commands) -> list[Violation]:
        """Check the next commands; return every violation, in their order.

        Raises
        ------
        InputError
            If commands go back in time or name a rank, bank or command that is not there.
        """
        rows = self._checked(commands)
        size = 1024
        while True:
            state = tuple(part.copy() for part in self._state)
            found = np.zeros((size, k.VIOLATION_COLUMNS), np.int64)
            count = int(k.check(rows, self._base, self._table, self._par, *state, found))
            if count <= size:
                break
            size = count
        self._state = state
        violations = self._violations(found[:count], rows)
        self._base += len(rows)
        self._last = int(rows[-1, k.CYCLE]) if len(rows) else self._last
        return violations

    def finish(self, end_cycle: int | None = None) -> list[Violation]:
        """Return what is overdue at the end: at the last command, or a later cycle."""
        at = self._last if end_cycle is None else end_cycle
        rows_, _, asleep, refreshed = self._state[:4]
        found = np.zeros((len(rows_), k.VIOLATION_COLUMNS), np.int64)
        count = k.finish(self._base, at, self._par, asleep, refreshed, found)
        return [
            Violation(
                rule=STATE_RULES[k.OVERDUE], now=self._base, now_command="end", now_cycle=at,
                before=None, before_command="", wanted=int(v[k.V_WANTED]), found=int(v[k.V_FOUND]),
            )
            for v in found[:count]
        ]  # fmt: skip

    def _checked(self, commands: Commands) -> I64:
        d = self.device
        of_bank = np.isin(commands.kind, OF_BANK)
        limits = (
            ("command", commands.kind, k.KINDS),
            ("rank", commands.rank, d.ranks),
            ("bank group", np.where(of_bank, commands.group, 0), d.bank_groups),
            ("bank", np.where(of_bank, commands.bank, 0), d.banks // d.bank_groups),
        )
        for name, given, below in limits:
            wrong = np.flatnonzero((given < 0) | (given >= below))
            if len(wrong):
                at = int(wrong[0])
                raise InputError(
                    f"command {self._base + at}: {name} {given[at]}: allowed are 0 to {below - 1}"
                )
        back = np.flatnonzero(np.diff(commands.cycle, prepend=np.int64(self._last)) < 0)
        if len(back):
            at = int(back[0])
            raise InputError(
                f"command {self._base + at}: cycle {commands.cycle[at]} is before the last one"
            )
        rows = np.empty((len(commands), k.COMMAND_COLUMNS), np.int64)
        rows[:, k.CYCLE], rows[:, k.KIND], rows[:, k.RANK] = (
            commands.cycle, commands.kind, commands.rank,
        )  # fmt: skip
        rows[:, k.BANK] = commands.group * (d.banks // d.bank_groups) + commands.bank
        rows[:, k.ROW] = commands.row
        return rows

    def _violations(self, found: I64, rows: I64) -> list[Violation]:
        out = []
        for rule, now, before, wanted, got in found.tolist():
            at = now - self._base
            plain = rule in PLAIN
            out.append(
                Violation(
                    rule=STATE_RULES[rule] if rule < 0 else self.rules[rule].name,
                    now=now, now_command=COMMANDS[rows[at, k.KIND]],
                    now_cycle=int(rows[at, k.CYCLE]),
                    before=None if before < 0 else before,
                    before_command=self._name(before, rows, rule),
                    wanted=None if plain else wanted, found=None if plain else got,
                )
            )  # fmt: skip
        return out

    def _name(self, before: int, rows: I64, rule: int) -> str:
        """Return the name of an earlier command: of this batch, or what its rule says."""
        if before < 0:
            return ""
        if before >= self._base:
            return COMMANDS[rows[before - self._base, k.KIND]]
        return COMMANDS[self.rules[rule].first] if rule >= 0 else "a command"


def check_commands(
    commands: Commands,
    device: Device,
    edge: Edge = "first",
    postponed: int = POSTPONED,
    end_cycle: int | None = None,
) -> list[Violation]:
    """Return every violation of a whole trace.

    Raises
    ------
    InputError
        If commands go back in time or name what the device does not have.
    """
    checker = RuleChecker(device, edge, postponed)
    return checker.check(commands) + checker.finish(end_cycle)


__all__: Sequence[Any] = (
    "COMMANDS", "POSTPONED", "Commands", "Interval", "RuleChecker", "Violation", "check_commands",
    "commands_of", "intervals", "parse_commands",
)  # fmt: skip
