"""The loop of the rule checker: one command after the other against what came before.

Nothing here is the engine's: no earliest times are kept, only the last commands of each
kind, with which every interval is compared.
"""

from __future__ import annotations

from typing import Any

from numba import njit

# Commands. RDA and WRA close their row by themselves; PDE and PDX are power-down in and out,
# SRE and SRX self-refresh in and out.
ACT, RD, WR, PRE, PREA, REF, REFPB, RDA, WRA, PDE, PDX, SRE, SRX = range(13)
KINDS = 13

# Columns of a command.
CYCLE, KIND, RANK, BANK, ROW = range(5)
COMMAND_COLUMNS = 5

# Columns of an interval: command of kind FROM to one of kind TO in the same place is at
# least CYCLES (the latest WINDOW of FROM counts: 1 is the last one).
FROM, TO, PLACE, CYCLES, WINDOW = range(5)
SAME_BANK, SAME_GROUP, SAME_RANK = range(3)  # ranks meet on the data bus only

# What is wrong, where it is no interval: numbers below 0.
(
    CLOSED, OTHER_ROW, OPEN_BANK, REF_OPEN, OVERDUE, COMMAND_BUS, DATA_BUS, ASLEEP, AWAKE,
    UNREFRESHED,
) = range(-10, 0)  # fmt: skip

# Columns of a violation.
V_RULE, V_NOW, V_BEFORE, V_WANTED, V_FOUND = range(5)
VIOLATION_COLUMNS = 5

# Parameters.
(
    P_GROUPS, P_IN_GROUP, P_RANKS, P_BURST, P_CL, P_CWL, P_RTRS, P_RTP, P_RAS, P_REFI, P_POSTPONED,
    P_REFRESH, P_DUAL, P_LENGTH, P_CWL_WR,
) = (*range(14), 14 + KINDS)  # fmt: skip
PARAMETERS = P_CWL_WR + 1
ALL_BANK, PER_BANK = 1, 2

HISTORY = 32  # commands of a kind that are remembered, for windows and the data bus
NONE = -1


@njit(cache=True, nogil=True, error_model="numpy")
def _report(found: Any, count: int, rule: int, now: int, before: int, wanted: int, got: int) -> int:
    """Add a violation; what does not fit is counted."""
    if count < found.shape[0]:
        found[count, V_RULE], found[count, V_NOW], found[count, V_BEFORE] = rule, now, before
        found[count, V_WANTED], found[count, V_FOUND] = wanted, got
    return count + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _remember(
    cycles: Any, numbers: Any, counts: Any, place: int, kind: int, at: int, n: int
) -> None:
    """Add command `n` at cycle `at` to the history of `kind` in `place`."""
    slot = counts[place, kind] % HISTORY
    cycles[place, kind, slot], numbers[place, kind, slot] = at, n
    counts[place, kind] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _interval(
    rule: int, interval: Any, at: int, n: int, place: int, cycles: Any, numbers: Any, counts: Any,
    found: Any, count: int,
) -> int:  # fmt: skip
    """Compare command `n` with the latest of the interval's first command in `place`."""
    kind, back = interval[FROM], interval[WINDOW]
    if counts[place, kind] < back:
        return count
    slot = (counts[place, kind] - back) % HISTORY
    gap = at - cycles[place, kind, slot]
    if gap < interval[CYCLES]:
        return _report(found, count, rule, n, numbers[place, kind, slot], interval[CYCLES], gap)
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _intervals(
    n: int, at: int, kind: int, rank: int, bank: int, intervals: Any, par: Any, cycles: Any,
    numbers: Any, counts: Any, found: Any, count: int,
) -> int:  # fmt: skip
    """Compare command `n` with every interval that ends in its kind."""
    banks = par[P_GROUPS] * par[P_IN_GROUP]
    for rule in range(intervals.shape[0]):
        interval = intervals[rule]
        if interval[TO] != kind:
            continue
        if interval[PLACE] == SAME_BANK:
            first = rank * banks if bank < 0 else rank * banks + bank
            last = first + banks if bank < 0 else first + 1
        elif interval[PLACE] == SAME_GROUP:
            first = par[P_RANKS] * banks + rank * par[P_GROUPS] + bank // par[P_IN_GROUP]
            last = first + 1
        else:
            first = par[P_RANKS] * (banks + par[P_GROUPS]) + rank
            last = first + 1
        before = count
        for place in range(first, last):
            if count == before:  # of a command to all banks one is enough
                count = _interval(
                    rule, interval, at, n, place, cycles, numbers, counts, found, count
                )  # fmt: skip
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _state(
    n: int, kind: int, rank: int, bank: int, row: int, at: int, rows: Any, asleep: Any, opened: Any,
    par: Any, found: Any, count: int,
) -> int:  # fmt: skip
    """Check that the banks and the rank are in the state that the command needs."""
    banks = par[P_GROUPS] * par[P_IN_GROUP]
    leaves, sleeps = kind in (PDX, SRX), asleep[rank, 0] == 1
    if leaves != sleeps:
        count = _report(found, count, ASLEEP if sleeps else AWAKE, n, asleep[rank, 1], 0, 0)
    if kind in (RD, WR, RDA, WRA):
        if rows[rank * banks + bank] == NONE:
            count = _report(found, count, CLOSED, n, opened[rank * banks + bank], 0, 0)
        elif row != NONE and rows[rank * banks + bank] != row:
            held = rows[rank * banks + bank]
            count = _report(found, count, OTHER_ROW, n, opened[rank * banks + bank], row, held)
    elif kind == ACT and rows[rank * banks + bank] != NONE:
        count = _report(found, count, OPEN_BANK, n, opened[rank * banks + bank], 0, 0)
    elif kind == REFPB and rows[rank * banks + bank] != NONE:
        count = _report(found, count, REF_OPEN, n, opened[rank * banks + bank], 0, 0)
    elif kind in (REF, SRE):
        for b in range(rank * banks, (rank + 1) * banks):
            if rows[b] != NONE:
                count = _report(found, count, REF_OPEN, n, opened[b], 0, 0)
        if kind == SRE and asleep[rank, 4]:
            count = _report(found, count, UNREFRESHED, n, asleep[rank, 1], 0, 0)
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _command_bus(n: int, at: int, kind: int, bus: Any, par: Any, found: Any, count: int) -> int:
    """Check that no other command holds the bus; row and column commands may have one each."""
    if kind >= PDE:
        return count
    column = kind in (RD, WR, RDA, WRA)
    lane = 1 if par[P_DUAL] and column else 0
    if at < bus[lane, 0]:
        held, gap = bus[lane, 0] - bus[lane, 2], at - bus[lane, 2]
        count = _report(found, count, COMMAND_BUS, n, bus[lane, 1], held, gap)
    end = at + par[P_LENGTH + kind]
    if end >= bus[lane, 0]:
        bus[lane, 0], bus[lane, 1], bus[lane, 2] = end, n, at
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _data_bus(
    n: int, at: int, kind: int, rank: int, bursts: Any, par: Any, found: Any, count: int
) -> int:
    """Check that the burst meets no other, with tRTRS between ranks unless both are written."""
    write = kind in (WR, WRA)
    start = at + (par[P_CWL] if write else par[P_CL])
    for slot in range(HISTORY):
        if bursts[slot, 3] < 0:
            continue
        turn = bursts[slot, 1] != rank and not (write and bursts[slot, 2])
        apart = par[P_BURST] + (par[P_RTRS] if turn else 0)
        gap = abs(start - bursts[slot, 0])
        if gap < apart:
            count = _report(found, count, DATA_BUS, n, bursts[slot, 3], apart, gap)
    slot = bursts[HISTORY, 0] % HISTORY
    bursts[slot, 0], bursts[slot, 1], bursts[slot, 2], bursts[slot, 3] = start, rank, write, n
    bursts[HISTORY, 0] += 1
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _overdue(
    n: int, at: int, rank: int, first: int, last: int, refreshed: Any, asleep: Any, par: Any,
    found: Any, count: int,
) -> int:  # fmt: skip
    """Check that at most so many refreshes of the banks `first` to `last` are put off."""
    due = (at - asleep[rank, 2]) // par[P_REFI]
    for bank in range(first, last):
        late = due - refreshed[bank]
        if late > par[P_POSTPONED]:
            count = _report(found, count, OVERDUE, n, NONE, par[P_POSTPONED], late)
            refreshed[bank] = due  # said once
            if par[P_REFRESH] == ALL_BANK:
                refreshed[first:last] = due
        if par[P_REFRESH] == ALL_BANK:  # the banks are all the same
            break
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _refreshes(
    n: int, at: int, kind: int, rank: int, bank: int, refreshed: Any, asleep: Any, par: Any,
    found: Any, count: int,
) -> int:  # fmt: skip
    """Check that none is overdue, and count this one."""
    banks = par[P_GROUPS] * par[P_IN_GROUP]
    first, last = rank * banks, (rank + 1) * banks
    if par[P_REFRESH] and not asleep[rank, 0]:
        count = _overdue(n, at, rank, first, last, refreshed, asleep, par, found, count)
    if kind == REF:
        for b in range(first, last):
            refreshed[b] += 1
    elif kind == REFPB:
        refreshed[first + bank] += 1
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _close(n: int, bank: int, at: int, rows: Any, cycles: Any, numbers: Any, counts: Any) -> None:
    rows[bank] = NONE
    _remember(cycles, numbers, counts, bank, PRE, at, n)


@njit(cache=True, nogil=True, error_model="numpy")
def _apply(
    n: int, kind: int, rank: int, bank: int, row: int, at: int, rows: Any, opened: Any, asleep: Any,
    par: Any, cycles: Any, numbers: Any, counts: Any,
) -> None:  # fmt: skip
    """Take the command into the history of its bank, bank group and rank."""
    banks = par[P_GROUPS] * par[P_IN_GROUP]
    one = rank * banks + bank
    plain = RD if kind == RDA else WR if kind == WRA else PRE if kind == PREA else kind
    of_rank = par[P_RANKS] * (banks + par[P_GROUPS]) + rank
    _remember(cycles, numbers, counts, of_rank, plain, at, n)
    if kind == PREA:
        for b in range(rank * banks, (rank + 1) * banks):
            _close(n, b, at, rows, cycles, numbers, counts)
    if kind in (PDE, SRE, PDX, SRX):
        asleep[rank, 0], asleep[rank, 1] = 1 if kind in (PDE, SRE) else 0, n
        if kind == SRE:
            asleep[rank, 3] = at
        elif kind == SRX:  # it refreshed itself, and may have missed one as it woke
            asleep[rank, 2] += at - asleep[rank, 3]
            asleep[rank, 4] = 1
    elif kind == REF:
        asleep[rank, 4] = 0
    if bank < 0:
        return
    group = par[P_RANKS] * banks + rank * par[P_GROUPS] + bank // par[P_IN_GROUP]
    _remember(cycles, numbers, counts, group, plain, at, n)
    if kind == PRE:
        rows[one] = NONE
    _remember(cycles, numbers, counts, one, plain, at, n)
    if kind == ACT:
        rows[one], opened[one] = row, n
    elif kind in (RDA, WRA):
        wait = par[P_RTP] if kind == RDA else par[P_CWL_WR]
        slot = (counts[one, ACT] - 1) % HISTORY
        least = cycles[one, ACT, slot] + par[P_RAS] if counts[one, ACT] else at
        _close(n, one, max(at + wait, least), rows, cycles, numbers, counts)


@njit(cache=True, nogil=True, error_model="numpy")
def check(
    commands: Any, base: int, intervals: Any, par: Any, rows: Any, opened: Any, asleep: Any,
    refreshed: Any, bus: Any, bursts: Any, cycles: Any, numbers: Any, counts: Any, found: Any,
) -> int:  # fmt: skip
    """Check `commands`, int64 (n, COMMAND_COLUMNS); returns the number of violations.

    `base` is the number of the first command; all others are the state that carries over
    from batch to batch, and `found`, which takes the violations.
    """
    count = 0
    for i in range(commands.shape[0]):
        n, at, kind = base + i, commands[i, CYCLE], commands[i, KIND]
        rank, bank, row = commands[i, RANK], commands[i, BANK], commands[i, ROW]
        if kind in (PREA, REF) or kind >= PDE:
            bank = NONE
        plain = RD if kind == RDA else WR if kind == WRA else PRE if kind == PREA else kind
        count = _command_bus(n, at, kind, bus, par, found, count)
        count = _state(n, kind, rank, bank, row, at, rows, asleep, opened, par, found, count)
        count = _intervals(
            n, at, plain, rank, bank, intervals, par, cycles, numbers, counts, found, count
        )
        if plain in (RD, WR):
            count = _data_bus(n, at, kind, rank, bursts, par, found, count)
        count = _refreshes(n, at, kind, rank, bank, refreshed, asleep, par, found, count)
        _apply(n, kind, rank, bank, row, at, rows, opened, asleep, par, cycles, numbers, counts)
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def finish(base: int, at: int, par: Any, asleep: Any, refreshed: Any, found: Any) -> int:
    """Check at the end that no refresh is overdue; returns the number of violations."""
    count = 0
    banks = par[P_GROUPS] * par[P_IN_GROUP]
    for rank in range(par[P_RANKS]):
        first, last = rank * banks, (rank + 1) * banks
        if par[P_REFRESH] and not asleep[rank, 0]:
            count = _overdue(
                base, at, rank, first, last, refreshed, asleep, par, found, count
            )  # fmt: skip
    return count
