"""The DRAM engine: timing state of a channel and the commands that change it.

A channel's state is a handful of int64 arrays. `st` holds scalars, `bk` banks, `gr` bank
groups, `rk` ranks; an entry "earliest X" is the first cycle in which X may go, and the only
thing that a command does is to move such entries. `tim` holds the device's timings. The
group entries are complete (they hold what other groups and ranks did, and the activate
windows), so a command is legal from the maximum of one bank entry and one group entry on.

The controllers that choose commands stand in this file's second half and in
`sfpsim.hardware.kernels`; all issue through the functions here. Times are clock cycles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

FAR = 1 << 62

# st: scalars of a channel.
ST_CLOCK = 0  # the next cycle to look at
ST_ROWBUS = 1  # command bus free from, for row commands
ST_COLBUS = 2  # and for columns (apart from the other only on dual-command devices)
ST_DUE = 3  # next refresh falls due
ST_TARGET = 4  # rank (all-bank) or rank * banks + bank (per-bank) that it is for
ST_PENDING = 5  # refreshes due and not done
ST_TURN = 6  # round-robin pointer over banks
ST_DRAIN = 7  # writes left to drain
ST_BESTAT = 8  # command chosen: cycle, bank; ST_VALID: the choice stands
ST_BEST = 9
ST_VALID = 10
ST_ACCEPTED = 11  # the cycle in which the next request may be taken, if it was offered
ST_READS = 12  # requests waiting in the transaction queues
ST_WRITES = 13
ST_QUEUED = 14  # requests in the banks' queues
ST_MOVES = 15  # 2: banks that have a waiting read / write and room for it
ST_MOVESUM = 17  # 2: sum of their numbers
ST_AGE = 19
ST_FREE = 20  # free places of the request pool
ST_ACT = 21  # counts
ST_PRE = 22
ST_RD = 23
ST_WR = 24
ST_REF = 25
ST_REFB = 26
ST_FORWARDED = 27
ST_MERGED = 28
ST_REPLIES = 29  # reads answered, and the sum of their latencies
ST_LATENCY = 30
ST_LAST = 31  # end of the last data or command
ST_NEXTIN = 32  # next request of the batch
ST_LOG = 33  # commands logged
ST_MODE = 34  # 0: reads are being served, 1: writes
ST_SERVED = 35  # bursts served since reads and writes last took turns
ST_MISSING = 36  # writes merged into a queued one
ST_TAKEN = 37  # requests taken in cycle ST_ACCEPTED
ST_COLUMNS = 48

# bk: a bank. B_LA.. are the cached choice of its controller: earliest by the bank alone.
B_ROW = 0  # open row, -1: none
B_ACT = 1
B_PRE = 2
B_RD = 3
B_WR = 4
B_HITS = 5  # columns since the activate (or hits that went past an older request)
B_GROUP = 6
B_RANK = 7
B_LA = 8  # activate or precharge; FAR: none
B_LR = 9  # read
B_LW = 10  # write
B_SHARED = 11  # where the limit of the row command lies: group (activate) or groups + rank
B_IR = 12  # the read and the write meant: positions in the bank's queue
B_IW = 13
B_COUNT = 14  # requests in the bank's queue
B_HEAD = 16  # 2: oldest waiting read, write; -1: none
B_TAIL = 18
B_WAIT = 20  # 2: how many
BANK_COLUMNS = 24

# gr: a bank group of a rank; rows from `groups` on are ranks: G_ACT is their next precharge.
G_ACT, G_RD, G_WR = 0, 1, 2
GROUP_COLUMNS = 4

# rk: a rank.
R_OPEN = 0  # banks with an open row
R_SINCE = 1
R_OPENCYCLES = 2
R_FAWP = 3
R_FAW = 4  # 4: the last activates
R_32P = 8
R_32 = 9  # 32
RANK_COLUMNS = 41

# tim: timings and geometry.
T_RANKS = 0
T_GROUPS = 1
T_BANKS = 2
T_BURST = 3
T_CL = 4
T_CWL = 5
T_RCDRD = 6
T_RCDWR = 7
T_RP = 8
T_RAS = 9
T_RRDS = 10
T_RRDL = 11
T_FAW = 12
T_32AW = 13
T_RTP = 14
T_WRPRE = 15
T_PPD = 16
T_RFC = 17
T_RFCPB = 18
T_REFI = 19
T_PERBANK = 20
T_RR, T_RW, T_WR, T_WW = 21, 24, 27, 30  # 3 each
T_CMDACT = 33
T_CMDCOL = 34
T_CMDPRE = 35
T_DUAL = 36
T_QUEUE = 37
T_BANKQUEUE = 38
T_HIGH = 39
T_LOW = 40
T_CAP = 41
T_TURN = 42
T_CLOSED = 43
T_RDAP = 44
T_WRAP = 45
T_WRITES = 46  # places of the write queue
T_INTAKE = 47  # requests that may be taken in a cycle
# Of a command to a column: after the same group, another group, another rank (3 each):
# T_RR read after read, T_RW write after read, T_WR read after write, T_WW.
T_MAP = 52  # 6 pieces a field: at, bits' mask, to; twice
M_ROW, M_RANK, M_GROUP, M_BANK, M_COL, M_CHANNEL = range(6)
T_XOR = 88  # masks of the row bits XORed onto bank and group, and the shift of the second
T_XORG = 89
T_XORSHIFT = 90
T_SHIFT = 91  # log2 of an access's bytes
T_BANKBITS = 92
T_GROUPBITS = 93
TIMING_COLUMNS = 96

# rq: a request.
Q_KEY, Q_ROW, Q_BANK, Q_WRITE, Q_AT, Q_MANY, Q_AGE, Q_NEXT = range(8)
REQUEST_COLUMNS = 8
FILTER = 4096  # buckets that tell whether an address may be pending

# Commands in a log, in the order of `sfpsim.hardware.dram.simulate.COMMANDS`.
C_READ, C_WRITE, C_ACT, C_PRE, C_PREA, C_REF, C_REFB = range(7)
LOG_COLUMNS = 5  # cycle, command, bank (of all; a rank's first for its commands), row, column


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def field(acc: int, which: int, tim: Any) -> int:
    """A field of access number `acc`."""
    at = T_MAP + 6 * which
    low = ((acc >> tim[at]) & tim[at + 1]) << tim[at + 2]
    if tim[at + 4]:
        low |= ((acc >> tim[at + 3]) & tim[at + 4]) << tim[at + 5]
    return low  # type: ignore[no-any-return]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def bank_of(acc: int, row: int, tim: Any) -> int:
    """The bank, of all ranks and groups, that access `acc` to `row` lies in."""
    bank = field(acc, M_BANK, tim) ^ (row & tim[T_XOR])
    group = field(acc, M_GROUP, tim) ^ ((row >> tim[T_XORSHIFT]) & tim[T_XORG])
    rank = field(acc, M_RANK, tim)
    return (((rank << tim[T_GROUPBITS]) | group) << tim[T_BANKBITS]) | bank


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def write_log(
    at: int, command: int, bank: int, row: int, key: int, st: Any, tim: Any, log: Any
) -> None:
    """Note a command where a log is kept."""
    if log.shape[0]:
        n = st[ST_LOG]
        st[ST_LOG] = n + 1
        log[n, 0], log[n, 1], log[n, 2], log[n, 3] = at, command, bank, row
        log[n, 4] = field(key, M_COL, tim) if command <= C_WRITE else -1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _hold_bus(at: int, cycles: int, is_column: bool, st: Any, tim: Any) -> None:
    if not tim[T_DUAL]:
        st[ST_ROWBUS] = st[ST_COLBUS] = at + cycles
    elif is_column:
        st[ST_COLBUS] = at + cycles
    else:
        st[ST_ROWBUS] = at + cycles


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def activate(b: int, row: int, at: int, st: Any, bk: Any, gr: Any, rk: Any, tim: Any) -> None:
    """Open `row` of bank `b`."""
    group, rank = bk[b, B_GROUP], bk[b, B_RANK]
    bk[b, B_ROW] = row
    bk[b, B_HITS] = 0
    bk[b, B_RD] = at + tim[T_RCDRD]
    bk[b, B_WR] = at + tim[T_RCDWR]
    bk[b, B_PRE] = at + tim[T_RAS]
    bk[b, B_ACT] = at + tim[T_RAS] + tim[T_RP]
    place = rk[rank, R_FAWP]
    rk[rank, R_FAW + place] = at
    place = (place + 1) & 3
    rk[rank, R_FAWP] = place
    window = rk[rank, R_FAW + place] + tim[T_FAW]
    if tim[T_32AW]:
        place = rk[rank, R_32P]
        rk[rank, R_32 + place] = at
        place = (place + 1) & 31
        rk[rank, R_32P] = place
        window = max(window, rk[rank, R_32 + place] + tim[T_32AW])
    first = rank * tim[T_GROUPS]
    for g in range(first, first + tim[T_GROUPS]):
        after = at + (tim[T_RRDL] if g == group else tim[T_RRDS])
        gr[g, G_ACT] = max(gr[g, G_ACT], after, window)
    _hold_bus(at, tim[T_CMDACT], False, st, tim)
    if not rk[rank, R_OPEN]:
        rk[rank, R_SINCE] = at
    rk[rank, R_OPEN] += 1
    st[ST_ACT] += 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _closed(b: int, at: int, bk: Any, rk: Any) -> None:
    """Bank `b` has no open row from `at` on."""
    rank = bk[b, B_RANK]
    bk[b, B_ROW] = -1
    bk[b, B_HITS] = 0
    rk[rank, R_OPEN] -= 1
    if not rk[rank, R_OPEN]:
        rk[rank, R_OPENCYCLES] += at - rk[rank, R_SINCE]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def precharge(b: int, at: int, st: Any, bk: Any, gr: Any, rk: Any, tim: Any) -> None:
    """Close the row of bank `b`."""
    bk[b, B_ACT] = max(bk[b, B_ACT], at + tim[T_RP])
    _closed(b, at, bk, rk)
    gr[tim[T_RANKS] * tim[T_GROUPS] + bk[b, B_RANK], G_ACT] = at + tim[T_PPD]
    _hold_bus(at, tim[T_CMDPRE], False, st, tim)
    st[ST_PRE] += 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def column(b: int, write: int, at: int, st: Any, bk: Any, gr: Any, rk: Any, tim: Any) -> int:
    """Read or write the open row of bank `b`; returns the cycle after its data."""
    group, rank = bk[b, B_GROUP], bk[b, B_RANK]
    groups = tim[T_GROUPS]
    to_rd, to_wr = (T_WR, T_WW) if write else (T_RR, T_RW)
    if tim[T_RANKS] == 1:
        rd, wr = at + tim[to_rd + 1], at + tim[to_wr + 1]
        for g in range(groups):
            gr[g, G_RD] = max(gr[g, G_RD], rd)
            gr[g, G_WR] = max(gr[g, G_WR], wr)
    else:
        for g in range(groups * tim[T_RANKS]):
            other = 1 if g // groups == rank else 2
            gr[g, G_RD] = max(gr[g, G_RD], at + tim[to_rd + other])
            gr[g, G_WR] = max(gr[g, G_WR], at + tim[to_wr + other])
    gr[group, G_RD] = max(gr[group, G_RD], at + tim[to_rd])
    gr[group, G_WR] = max(gr[group, G_WR], at + tim[to_wr])
    bk[b, B_PRE] = max(bk[b, B_PRE], at + (tim[T_WRPRE] if write else tim[T_RTP]))
    bk[b, B_HITS] += 1
    if tim[T_CLOSED]:
        bk[b, B_ACT] = max(
            bk[b, B_ACT], bk[b, B_PRE] + tim[T_RP], at + (tim[T_WRAP] if write else tim[T_RDAP])
        )
        _closed(b, at, bk, rk)
    _hold_bus(at, tim[T_CMDCOL], True, st, tim)
    st[ST_RD + write] += 1
    end = at + (tim[T_CWL] if write else tim[T_CL]) + tim[T_BURST]
    if not write:
        st[ST_LAST] = max(st[ST_LAST], end)
    return end  # type: ignore[no-any-return]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def refresh_rank(rank: int, at: int, st: Any, bk: Any, tim: Any) -> None:
    """Refresh all banks of `rank`."""
    for b in range(rank * tim[T_BANKS], (rank + 1) * tim[T_BANKS]):
        bk[b, B_ACT] = max(bk[b, B_ACT], at + tim[T_RFC])
    _hold_bus(at, tim[T_CMDPRE], False, st, tim)
    st[ST_REF] += 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def refresh_next(st: Any, tim: Any) -> None:
    """The refresh at hand is done: turn to the next rank or bank."""
    st[ST_PENDING] -= 1
    st[ST_TARGET] += 1
    if not tim[T_PERBANK] and st[ST_TARGET] == tim[T_RANKS]:
        st[ST_TARGET] = 0
    if tim[T_PERBANK] and st[ST_TARGET] == tim[T_RANKS] * tim[T_BANKS]:
        st[ST_TARGET] = 0


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def taken(cycle: int, st: Any, tim: Any) -> None:
    """A request was taken in `cycle`: note when the next one may be."""
    st[ST_TAKEN] = 1 if st[ST_ACCEPTED] < cycle else st[ST_TAKEN] + 1
    st[ST_ACCEPTED] = cycle
    if st[ST_TAKEN] >= tim[T_INTAKE]:
        st[ST_ACCEPTED], st[ST_TAKEN] = cycle + 1, 0


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def close_counts(end: int, st: Any, rk: Any, tim: Any) -> None:
    """Count the cycles with open rows up to `end`."""
    for rank in range(tim[T_RANKS]):
        if rk[rank, R_OPEN]:
            rk[rank, R_OPENCYCLES] += end - rk[rank, R_SINCE]
            rk[rank, R_SINCE] = end


# DRAMsim3's controller. Reads and writes wait in two transaction queues (here: chained by
# bank, in order of age), one a cycle moves to the queue of its bank, if that has room. A
# bank's queue is served first ready, first come; banks take turns.


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_candidates(b: int, st: Any, bk: Any, gr: Any, rq: Any, bq: Any, tim: Any) -> None:
    """Find what bank `b` would do next, as far as the bank alone decides it."""
    bk[b, B_LA] = bk[b, B_LR] = bk[b, B_LW] = FAR
    count = bk[b, B_COUNT]
    if not count:
        return
    row = bk[b, B_ROW]
    if row < 0:
        bk[b, B_LA], bk[b, B_SHARED] = bk[b, B_ACT], bk[b, B_GROUP]
        return
    hits = False
    for i in range(count):
        request = bq[b, i]
        if rq[request, Q_ROW] != row:
            continue
        hits = True
        if not rq[request, Q_WRITE]:
            if bk[b, B_LR] == FAR:
                bk[b, B_LR], bk[b, B_IR] = bk[b, B_RD], i
        elif bk[b, B_LW] == FAR:
            free = True
            for j in range(i):
                before = bq[b, j]
                if not rq[before, Q_WRITE] and rq[before, Q_KEY] == rq[request, Q_KEY]:
                    free = False
            if free:
                bk[b, B_LW], bk[b, B_IW] = bk[b, B_WR], i
    if rq[bq[b, 0], Q_ROW] != row and (not hits or bk[b, B_HITS] >= 4):
        bk[b, B_LA] = bk[b, B_PRE]
        bk[b, B_SHARED] = tim[T_RANKS] * tim[T_GROUPS] + bk[b, B_RANK]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_ready(b: int, bk: Any, gr: Any) -> int:
    """The first cycle in which bank `b` could do something."""
    group = bk[b, B_GROUP]
    when = max(bk[b, B_LA], gr[bk[b, B_SHARED], G_ACT])
    when = min(when, max(bk[b, B_LR], gr[group, G_RD]))
    return min(when, max(bk[b, B_LW], gr[group, G_WR]))


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_choose(clock: int, st: Any, bk: Any, gr: Any, tim: Any) -> None:
    """Choose the first bank, from the turn on, that is ready first, not before `clock`."""
    banks = bk.shape[0]
    best, which = FAR, -1
    low = high = -1  # banks that are being refreshed
    if st[ST_PENDING]:
        if tim[T_PERBANK]:
            low, high = st[ST_TARGET], st[ST_TARGET]
        else:
            low = st[ST_TARGET] * tim[T_BANKS]
            high = low + tim[T_BANKS] - 1
    turn = st[ST_TURN]
    for start, end in ((turn + 1, banks), (0, turn + 1)):
        for b in range(start, end):
            if not bk[b, B_COUNT] or low <= b <= high:
                continue
            when = max(_d3_ready(b, bk, gr), clock)
            if when < best:
                best, which = when, b
    st[ST_BESTAT], st[ST_BEST] = best, which
    st[ST_VALID] = 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_refresh(st: Any, bk: Any, gr: Any, tim: Any) -> tuple[int, int]:
    """Cycle and bank of the command that brings the pending refresh on; bank -1: itself."""
    if tim[T_PERBANK]:
        first, last = st[ST_TARGET], st[ST_TARGET] + 1
    else:
        first = st[ST_TARGET] * tim[T_BANKS]
        last = first + tim[T_BANKS]
    shared = gr[tim[T_RANKS] * tim[T_GROUPS] + bk[first, B_RANK], G_ACT]
    best, which, closed = FAR, -1, st[ST_CLOCK]
    for b in range(first, last):
        if bk[b, B_ROW] < 0:
            closed = max(closed, bk[b, B_ACT])
        else:
            when = max(bk[b, B_PRE], shared, st[ST_CLOCK])
            if when < best:
                best, which = when, b
    return (closed, -1) if which < 0 else (best, which)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_is_read_pending(b: int, key: int, bk: Any, rq: Any, bq: Any, ft: Any) -> int:
    """The pending read of address `key` in bank `b`, -1: none; -2 - it: in the bank's queue."""
    if not ft[0, key & (FILTER - 1)]:
        return -1
    request = bk[b, B_HEAD]
    while request >= 0:
        if rq[request, Q_KEY] == key:
            return request  # type: ignore[no-any-return]
        request = rq[request, Q_NEXT]
    for i in range(bk[b, B_COUNT]):
        if rq[bq[b, i], Q_KEY] == key and not rq[bq[b, i], Q_WRITE]:
            return -2 - bq[b, i]  # type: ignore[no-any-return]
    return -1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_is_write_pending(b: int, key: int, bk: Any, rq: Any, bq: Any, ft: Any) -> bool:
    if not ft[1, key & (FILTER - 1)]:
        return False
    request = bk[b, B_HEAD + 1]
    while request >= 0:
        if rq[request, Q_KEY] == key:
            return True
        request = rq[request, Q_NEXT]
    found = False
    for i in range(bk[b, B_COUNT]):
        found |= rq[bq[b, i], Q_KEY] == key and rq[bq[b, i], Q_WRITE] == 1
    return found


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_accept(
    acc: int, write: int, cycle: int, st: Any, bk: Any, rq: Any, bq: Any, fr: Any, ft: Any, tim: Any
) -> None:
    """Take a request into the transaction queue, merge it or answer it."""
    row = field(acc, M_ROW, tim)
    b = bank_of(acc, row, tim)
    if _d3_is_write_pending(b, acc, bk, rq, bq, ft):
        if write:
            st[ST_MERGED] += 1
        else:
            st[ST_FORWARDED] += 1
            st[ST_REPLIES] += 1
            st[ST_LATENCY] += 1
            st[ST_LAST] = max(st[ST_LAST], cycle + 1)
        return
    if not write:
        other = _d3_is_read_pending(b, acc, bk, rq, bq, ft)
        if other != -1:
            other = other if other >= 0 else -2 - other
            rq[other, Q_MANY] += 1
            rq[other, Q_AT] += cycle
            return
    st[ST_FREE] -= 1
    request = fr[st[ST_FREE]]
    rq[request, Q_KEY], rq[request, Q_ROW], rq[request, Q_BANK] = acc, row, b
    rq[request, Q_WRITE], rq[request, Q_AT], rq[request, Q_MANY] = write, cycle, 1
    rq[request, Q_AGE], rq[request, Q_NEXT] = st[ST_AGE], -1
    st[ST_AGE] += 1
    tail = bk[b, B_TAIL + write]
    if bk[b, B_WAIT + write]:
        rq[tail, Q_NEXT] = request
    else:
        bk[b, B_HEAD + write] = request
        if bk[b, B_COUNT] < tim[T_BANKQUEUE]:
            st[ST_MOVES + write] += 1
            st[ST_MOVESUM + write] += b
    bk[b, B_TAIL + write] = request
    bk[b, B_WAIT + write] += 1
    st[ST_READS + write] += 1
    ft[write, acc & (FILTER - 1)] += 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_wants_drain(st: Any, tim: Any) -> bool:
    writes = st[ST_WRITES]
    return bool(writes >= tim[T_WRITES] or (writes > 8 and not st[ST_QUEUED]))


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_oldest(write: int, st: Any, bk: Any, rq: Any, tim: Any) -> int:
    """The bank whose waiting read or write is the oldest of those that can move."""
    if st[ST_MOVES + write] == 1:
        return st[ST_MOVESUM + write]  # type: ignore[no-any-return]
    best, which = FAR, -1
    for b in range(bk.shape[0]):
        if bk[b, B_WAIT + write] and bk[b, B_COUNT] < tim[T_BANKQUEUE]:
            age = rq[bk[b, B_HEAD + write], Q_AGE]
            if age < best:
                best, which = age, b
    return which


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_move(st: Any, bk: Any, gr: Any, rq: Any, bq: Any, ft: Any, tim: Any) -> int:
    """Move one request to its bank's queue; returns the bank, -1: none moved.

    A write to an address that a read still waits for ends the drain. Where the drain would
    start again at once and that read is not in its bank's queue yet, DRAMsim3 stops for
    good; here a read moves instead.
    """
    if not st[ST_DRAIN] and _d3_wants_drain(st, tim):
        st[ST_DRAIN] = st[ST_WRITES]
    write = 1 if st[ST_DRAIN] > 0 else 0
    if not st[ST_MOVES + write]:
        return -1
    b = _d3_oldest(write, st, bk, rq, tim)
    request = bk[b, B_HEAD + write]
    if write:
        reader = _d3_is_read_pending(b, rq[request, Q_KEY], bk, rq, bq, ft)
        if reader != -1:
            st[ST_DRAIN] = 0
            if reader < 0 or not _d3_wants_drain(st, tim) or not st[ST_MOVES]:
                return -1
            write = 0
            b = _d3_oldest(write, st, bk, rq, tim)
            request = bk[b, B_HEAD]
        else:
            st[ST_DRAIN] -= 1
    bk[b, B_HEAD + write] = rq[request, Q_NEXT]
    bk[b, B_WAIT + write] -= 1
    st[ST_READS + write] -= 1
    place = bk[b, B_COUNT]
    bq[b, place] = request
    bk[b, B_COUNT] = place + 1
    st[ST_QUEUED] += 1
    if place + 1 == tim[T_BANKQUEUE]:  # full now: nothing waiting for it can move
        st[ST_MOVES + write] -= 1
        st[ST_MOVESUM + write] -= b
        if bk[b, B_WAIT + 1 - write]:
            st[ST_MOVES + 1 - write] -= 1
            st[ST_MOVESUM + 1 - write] -= b
    elif not bk[b, B_WAIT + write]:
        st[ST_MOVES + write] -= 1
        st[ST_MOVESUM + write] -= b
    _d3_candidates(b, st, bk, gr, rq, bq, tim)
    return b  # type: ignore[no-any-return]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_will_move(st: Any, tim: Any) -> bool:
    """Whether a request would move in a cycle in which nothing else happens."""
    write = 1 if st[ST_DRAIN] > 0 or _d3_wants_drain(st, tim) else 0
    return bool(st[ST_MOVES + write])


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_issue(
    b: int, cycle: int, allowed: int, st: Any, bk: Any, gr: Any, rk: Any, rq: Any, bq: Any,
    fr: Any, ft: Any, tim: Any, log: Any,
) -> int:  # fmt: skip
    """Let bank `b` do its first ready command; returns 1 for a column, 0 for others.

    `allowed`: 0 only others, 1 only columns, 2 any; -1 is returned where that forbids it.
    """
    group = bk[b, B_GROUP]
    if max(bk[b, B_LA], gr[bk[b, B_SHARED], G_ACT]) <= cycle:
        if allowed == 1:
            return -1
        if bk[b, B_ROW] < 0:
            row = rq[bq[b, 0], Q_ROW]
            activate(b, row, cycle, st, bk, gr, rk, tim)
            write_log(cycle, C_ACT, b, row, 0, st, tim, log)
        else:
            precharge(b, cycle, st, bk, gr, rk, tim)
            write_log(cycle, C_PRE, b, -1, 0, st, tim, log)
        _d3_candidates(b, st, bk, gr, rq, bq, tim)
        return 0
    if allowed == 0:
        return -1
    read = max(bk[b, B_LR], gr[group, G_RD]) <= cycle
    write = max(bk[b, B_LW], gr[group, G_WR]) <= cycle
    if read and write:
        write = bk[b, B_IW] < bk[b, B_IR]
    place = bk[b, B_IW] if write else bk[b, B_IR]
    request = bq[b, place]
    write_log(
        cycle, C_WRITE if write else C_READ, b, bk[b, B_ROW], rq[request, Q_KEY], st, tim, log
    )
    end = column(b, 1 if write else 0, cycle, st, bk, gr, rk, tim)
    if not write:
        many = rq[request, Q_MANY]
        st[ST_REPLIES] += many
        st[ST_LATENCY] += many * end - rq[request, Q_AT]
    ft[1 if write else 0, rq[request, Q_KEY] & (FILTER - 1)] -= 1
    fr[st[ST_FREE]] = request
    st[ST_FREE] += 1
    count = bk[b, B_COUNT] - 1
    for i in range(place, count):
        bq[b, i] = bq[b, i + 1]
    bk[b, B_COUNT] = count
    st[ST_QUEUED] -= 1
    if count == tim[T_BANKQUEUE] - 1:
        for kind in range(2):
            if bk[b, B_WAIT + kind]:
                st[ST_MOVES + kind] += 1
                st[ST_MOVESUM + kind] += b
    _d3_candidates(b, st, bk, gr, rq, bq, tim)
    return 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_command(
    cycle: int, st: Any, bk: Any, gr: Any, rk: Any, rq: Any, bq: Any, fr: Any, ft: Any, tim: Any,
    log: Any,
) -> None:  # fmt: skip
    """Issue the command of `cycle`, if one is ready; on dual-command devices two."""
    kind = -1
    if st[ST_PENDING]:
        when, b = _d3_refresh(st, bk, gr, tim)
        if when <= cycle:
            kind = 0
            if b >= 0:
                precharge(b, cycle, st, bk, gr, rk, tim)
                write_log(cycle, C_PRE, b, -1, 0, st, tim, log)
                _d3_candidates(b, st, bk, gr, rq, bq, tim)
            else:
                _d3_do_refresh(cycle, st, bk, gr, rq, bq, tim, log)
            st[ST_VALID] = 0
    if kind < 0:
        if not st[ST_VALID]:
            _d3_choose(cycle, st, bk, gr, tim)
        if st[ST_BESTAT] > cycle:
            return
        kind = _d3_issue(
            st[ST_BEST], cycle, 2, st, bk, gr, rk, rq, bq, fr, ft, tim, log
        )  # fmt: skip
        st[ST_TURN] = st[ST_BEST]
        st[ST_VALID] = 0
    st[ST_LAST] = max(st[ST_LAST], cycle)
    if tim[T_DUAL]:
        _d3_choose(cycle, st, bk, gr, tim)
        if st[ST_BESTAT] <= cycle:
            st[ST_TURN] = st[ST_BEST]
            _d3_issue(
                st[ST_BEST], cycle, 1 - kind, st, bk, gr, rk, rq, bq, fr, ft, tim, log
            )  # fmt: skip
            st[ST_VALID] = 0


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_do_refresh(
    cycle: int, st: Any, bk: Any, gr: Any, rq: Any, bq: Any, tim: Any, log: Any
) -> None:
    if tim[T_PERBANK]:
        # Its timings: tRFCb in the bank, tRFC (sic) in the others of the rank.
        target = st[ST_TARGET]
        rank = bk[target, B_RANK]
        for b in range(rank * tim[T_BANKS], (rank + 1) * tim[T_BANKS]):
            if b != target:
                bk[b, B_ACT] = max(bk[b, B_ACT], cycle + tim[T_RFC])
        _hold_bus(cycle, tim[T_CMDPRE], False, st, tim)
        st[ST_REFB] += 1
        write_log(cycle, C_REFB, target, -1, 0, st, tim, log)
    else:
        rank = st[ST_TARGET]
        refresh_rank(rank, cycle, st, bk, tim)
        write_log(cycle, C_REF, rank * tim[T_BANKS], -1, 0, st, tim, log)
    for b in range(rank * tim[T_BANKS], (rank + 1) * tim[T_BANKS]):
        _d3_candidates(b, st, bk, gr, rq, bq, tim)
    refresh_next(st, tim)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_moved(b: int, clock: int, st: Any, bk: Any, gr: Any) -> None:
    """Bank `b` has a request more: see whether the choice, not before `clock`, still stands."""
    if not st[ST_VALID]:
        return
    best = st[ST_BEST]
    if b == best or st[ST_PENDING]:
        st[ST_VALID] = 0
        return
    when = max(_d3_ready(b, bk, gr), clock)
    other = max(st[ST_BESTAT], clock)
    banks, turn = bk.shape[0], st[ST_TURN]
    mine, its = (b - turn - 1) % banks, (best - turn - 1) % banks
    if when < other or (when == other and mine < its):
        st[ST_BESTAT], st[ST_BEST] = when, b


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def run_dramsim3(
    address: Any, is_write: Any, arrival: Any, final: bool, st: Any, bk: Any, gr: Any, rk: Any,
    rq: Any, bq: Any, fr: Any, ft: Any, tim: Any, log: Any,
) -> bool:  # fmt: skip
    """Run a channel on a batch; returns whether it is done with it (else the log is full).

    Without `final` it stops in the cycle in which the last request was taken, so that what
    comes next can come in the cycle after; with it, when nothing is left to do.
    """
    total = address.shape[0]
    timed = arrival.shape[0] > 0
    shift = tim[T_SHIFT]
    while True:
        if log.shape[0] and st[ST_LOG] + 8 > log.shape[0]:
            return False
        n = st[ST_NEXTIN]
        if n == total and not final:
            return True
        clock = st[ST_CLOCK]
        takes, write = FAR, 0
        if n < total:
            write = np.int64(is_write[n])  # type: ignore[assignment]
            if st[ST_READS + write] < (tim[T_WRITES] if write else tim[T_QUEUE]):
                takes = max(st[ST_ACCEPTED], clock)
                if timed:
                    takes = max(takes, np.int64(arrival[n]) + 1)
        cycle = takes
        if _d3_will_move(st, tim):
            cycle = min(cycle, clock)
        if cycle > clock:
            if st[ST_PENDING]:
                cycle = min(cycle, _d3_refresh(st, bk, gr, tim)[0])
            if not st[ST_VALID]:
                _d3_choose(clock, st, bk, gr, tim)
            cycle = min(cycle, max(st[ST_BESTAT], clock))
        idle = n == total and not st[ST_QUEUED] and not st[ST_READS]
        if idle and min(cycle, st[ST_DUE]) >= st[ST_LAST] and not _d3_will_move(st, tim):
            return True
        if st[ST_DUE] <= cycle:
            cycle = max(st[ST_DUE], clock)
            st[ST_DUE] += tim[T_REFI]
            st[ST_PENDING] += 1
            st[ST_VALID] = 0
        st[ST_CLOCK] = cycle
        if takes <= cycle:
            acc = np.int64(address[n] >> shift)
            _d3_accept(acc, write, cycle, st, bk, rq, bq, fr, ft, tim)
            st[ST_NEXTIN] = n + 1
            taken(cycle, st, tim)
            if st[ST_ACCEPTED] == cycle:
                continue
        _d3_command(cycle, st, bk, gr, rk, rq, bq, fr, ft, tim, log)
        b = _d3_move(st, bk, gr, rq, bq, ft, tim)
        if b >= 0:
            _d3_moved(b, cycle + 1, st, bk, gr)
        st[ST_CLOCK] = cycle + 1
