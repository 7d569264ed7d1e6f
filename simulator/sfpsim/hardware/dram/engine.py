"""The DRAM engine: timing state of a channel and the commands that change it.

A channel's state is a handful of int64 arrays: `st` holds scalars and each rank's sleep, `bk`
banks, `rk` ranks, `tm` the first cycle in which each bank may take each command. The only
thing that a command does to timing is to move such entries, always up; they hold what other
banks, groups and ranks did and the activate windows, so a command is legal from its entry
on, and choosing is a minimum over contiguous rows.

The controllers that choose commands stand in this file's second half and in
`sfpsim.hardware.kernels`; all issue through the functions here. Times are clock cycles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

FAR = 1 << 62
NEVER = 1 << 54  # as FAR, where a number shares its word

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
ST_TAKEN = 37  # requests taken in cycle ST_ACCEPTED
ST_WHICH = 38  # the request that the chosen command is for
ST_NEXTREFB = 40  # earliest per-bank refresh
ST_COLUMNS = 48

# st again, from ST_COLUMNS + SLEEP_COLUMNS * rank on: how a rank sleeps.
SL_QUEUED = 0  # requests that wait for it
SL_USED = 1  # its last command for a request, SL_LAST: of any kind
SL_LAST = 2
SL_QUIET = 3  # from when on what it last did lets it power down
SL_ACTIVE = 4  # counts: cycles in power-down with a row open, with none, in self-refresh
SL_PRECHARGED = 5
SL_SELF = 6
SL_OWES = 7  # whether it refreshed itself since its last refresh on the way to that
SLEEP_COLUMNS = 8

# bk: a bank.
B_ROW = 0  # open row, -1: none
B_ACT = 1  # earliest activate or refresh by the bank's own commands
B_HITS = 2  # columns since the activate
B_GROUP = 3
B_RANK = 4
B_PASSED = 5  # hits past an older request
B_LAST = 6  # last activate or column
B_ACTIVE = 7  # the request that the row was opened for, until it is served; -1: none
B_COUNT = 8  # requests that a command could be chosen for: DRAMsim3's in its own queue, else all
# Chains of requests, the first and the last of each; -1: none.
B_HEAD = 9  # 3: waiting reads, waiting writes, the bank's own queue
B_TAIL = 12
B_HIT = 16  # 2: oldest read, write to the open row; -1: none
B_MISS = 18  # 2: oldest waiting read, write to another row
BANK_COLUMNS = 32
OWN = 2  # the chain that is the bank's own queue

# tm: by command, one entry a bank. The first four rows are when the bank may take it, with
# all that other banks, groups and ranks did; the others are 0 where the bank's controller
# wants the command and FAR where it does not.
TM_ACT, TM_PRE, TM_RD, TM_WR = 0, 1, 2, 3
WANT_ACT, WANT_PRE, WANT_RD, WANT_WR = 4, 5, 6, 7
# By bank: how old a request is, above `AGE_SHIFT`, and the bank; FAR: none. What goes first is
# the least of a row, and names its bank.
KEYS = 8
WANT_AGE = 8  # of the command that a bank wants
WANT_KEY = 9  # as that, its kind above `KIND_SHIFT`
MOVE = 8  # DRAMsim3's: 2, oldest waiting read, write, where the bank's queue has room
WANT_LENGTH = 12  # cycles on the command bus of the command that a bank wants
# Ramulator's, in place of WANT_ACT and so on: of the request that each command may go for.
KEY_ACT, KEY_PRE, KEY_RD, KEY_WR = 8, 9, 10, 11
ACTIVE_FIRST = -(1 << 61)  # added to the key of a request that the row was opened for
TM_ROWS = 13
AGE_SHIFT = 8  # there are up to 256 banks
BANKS = (1 << AGE_SHIFT) - 1
KIND_SHIFT = 56
NO_AGE = (1 << KIND_SHIFT - AGE_SHIFT) - 1

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
T_TIMEOUT = 48  # idle cycles after which a row is closed; 0: never
T_AUTO = 49  # a row is closed with the last access that waits for it
T_PBR = 50  # per-bank refresh to per-bank refresh
T_OLDEST = 51  # the command that is over first goes first, then the oldest request's
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
T_POWERDOWN = 94  # idle cycles after which a rank powers down, or refreshes itself; 0: never
T_SELF = 95
T_XP, T_CKE, T_XS, T_CKESR = 96, 97, 98, 99
T_ALLGROUPS = 100  # of all ranks
TIMING_COLUMNS = 104
# Behind them, for reads, then writes, and each group: after such a command in that group, how
# long until each bank may be read, then written (`column_distances`).
T_DISTANCES = TIMING_COLUMNS

# rq: a request.
Q_KEY, Q_ROW, Q_BANK, Q_WRITE, Q_AT, Q_MANY, Q_AGE, Q_NEXT = range(8)
REQUEST_COLUMNS = 8
FILTER = 4096  # buckets that tell whether an address may be pending

# Commands in a log, in the order of `sfpsim.hardware.dram.simulate.COMMANDS`.
(
    C_READ, C_WRITE, C_ACT, C_PRE, C_PREA, C_REF, C_REFB, C_READA, C_WRITEA, C_PDE, C_PDX, C_SRE,
    C_SRX,
) = range(13)  # fmt: skip
LOG_COLUMNS = 5  # cycle, command, bank (of all; a rank's first for its commands), row, column


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _check_shapes(bk: Any, rk: Any, rq: Any, ft: Any) -> None:
    """Raise ValueError where the rows of the state are not as long as they have to be.

    Asked before a kernel's loop, this tells the compiler that they are: an element's address
    is then a shift and an addition, not a product with a number held in memory.
    """
    if (
        bk.shape[1] != BANK_COLUMNS
        or rk.shape[1] != RANK_COLUMNS
        or rq.shape[1] != REQUEST_COLUMNS
        or ft.shape[1] != FILTER
    ):
        raise ValueError("the state's arrays are not those that ChannelState makes")


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def field(acc: int, which: int, tim: Any) -> int:
    """A field of access number `acc`."""
    at = T_MAP + 6 * which
    low = ((acc >> tim[at]) & tim[at + 1]) << tim[at + 2]
    if tim[at + 4]:
        low |= ((acc >> tim[at + 3]) & tim[at + 4]) << tim[at + 5]
    return low


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def bank_of(acc: int, row: int, tim: Any) -> int:
    """The bank, of all ranks and groups, that access `acc` to `row` lies in."""
    bank = field(acc, M_BANK, tim) ^ (row & tim[T_XOR])
    group = field(acc, M_GROUP, tim) ^ ((row >> tim[T_XORSHIFT]) & tim[T_XORG])
    rank = field(acc, M_RANK, tim)
    return (((rank << tim[T_GROUPBITS]) | group) << tim[T_BANKBITS]) | bank


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def write_log(
    at: int, command: int, bank: int, row: int, key: int, st: Any, tim: Any, log: Any
) -> None:
    """Note a command where a log is kept."""
    if log.shape[0]:
        n = st[ST_LOG]
        st[ST_LOG] = n + 1
        log[n, 0], log[n, 1], log[n, 2], log[n, 3] = at, command, bank, row
        log[n, 4] = (
            field(key, M_COL, tim) if command in (C_READ, C_WRITE, C_READA, C_WRITEA) else -1
        )


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _log_column(
    at: int, write: int, closes: bool, b: int, key: int, st: Any, bk: Any, tim: Any, log: Any
) -> None:
    command = (C_READA if closes else C_READ) + write
    write_log(at, command, b, bk[b, B_ROW], key, st, tim, log)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _not_before(kind: int, first: int, end: int, when: int, tm: Any) -> None:
    """Banks `first` to `end` may take commands of `kind` from `when` on at the earliest."""
    row = tm[kind, first:end]
    for i in range(row.shape[0]):
        row[i] = max(row[i], when)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _hold_bus(at: int, cycles: int, is_column: bool, st: Any, tm: Any, tim: Any) -> None:
    """A command holds its command bus; every command takes one cycle, some more."""
    rows, columns = not is_column or not tim[T_DUAL], is_column or not tim[T_DUAL]
    if rows:
        st[ST_ROWBUS] = at + cycles
    if columns:
        st[ST_COLBUS] = at + cycles
    if cycles == 1:
        return
    for kind in range(TM_ACT, TM_RD) if rows else range(0):
        _not_before(kind, 0, tm.shape[1], at + cycles, tm)
    for kind in range(TM_RD, WANT_ACT) if columns and not is_column else range(0):
        _not_before(kind, 0, tm.shape[1], at + cycles, tm)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _ready_after(b: int, when: int, bk: Any, tm: Any) -> None:
    """Bank `b` may be activated or refreshed from `when` on at the earliest."""
    bk[b, B_ACT] = max(bk[b, B_ACT], when)
    tm[TM_ACT, b] = max(tm[TM_ACT, b], when)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _is_busy(rank: int, at: int, quiet: int, st: Any, tim: Any) -> None:
    """`rank` took a command; it may not power down before `quiet`."""
    if tim[T_POWERDOWN] or tim[T_SELF]:
        sleep = ST_COLUMNS + SLEEP_COLUMNS * rank
        st[sleep + SL_LAST] = at
        st[sleep + SL_QUIET] = max(st[sleep + SL_QUIET], quiet)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _is_used(rank: int, at: int, quiet: int, st: Any, tim: Any) -> None:
    """As `_is_busy`, for a command that serves a request."""
    if tim[T_POWERDOWN] or tim[T_SELF]:
        _is_busy(rank, at, quiet, st, tim)
        st[ST_COLUMNS + SLEEP_COLUMNS * rank + SL_USED] = at


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def activate(b: int, row: int, at: int, st: Any, bk: Any, tm: Any, rk: Any, tim: Any) -> None:
    """Open `row` of bank `b`."""
    group, rank = bk[b, B_GROUP], bk[b, B_RANK]
    bk[b, B_ROW] = row
    bk[b, B_HITS] = 0
    place = rk[rank, R_FAWP]
    rk[rank, R_FAW + place] = at
    place = (place + 1) & 3
    rk[rank, R_FAWP] = place
    other = max(at + tim[T_RRDS], rk[rank, R_FAW + place] + tim[T_FAW])
    if tim[T_32AW]:
        place = rk[rank, R_32P]
        rk[rank, R_32 + place] = at
        place = (place + 1) & 31
        rk[rank, R_32P] = place
        other = max(other, rk[rank, R_32 + place] + tim[T_32AW])
    first = rank * tim[T_BANKS]
    _not_before(TM_ACT, first, first + tim[T_BANKS], other, tm)
    size = tim[T_BANKS] // tim[T_GROUPS]
    _not_before(TM_ACT, group * size, (group + 1) * size, at + tim[T_RRDL], tm)
    bk[b, B_ACT] = at + tim[T_RAS] + tim[T_RP]
    tm[TM_ACT, b] = max(tm[TM_ACT, b], bk[b, B_ACT], at + tim[T_RRDL])
    tm[TM_PRE, b] = max(tm[TM_PRE, b], at + tim[T_RAS])
    tm[TM_RD, b] = max(tm[TM_RD, b], at + tim[T_RCDRD])
    tm[TM_WR, b] = max(tm[TM_WR, b], at + tim[T_RCDWR])
    _hold_bus(at, tim[T_CMDACT], False, st, tm, tim)
    if not rk[rank, R_OPEN]:
        rk[rank, R_SINCE] = at
    rk[rank, R_OPEN] += 1
    _is_used(rank, at, at + tim[T_CMDACT], st, tim)
    st[ST_ACT] += 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _closed(b: int, at: int, bk: Any, rk: Any) -> None:
    """Bank `b` has no open row from `at` on."""
    rank = bk[b, B_RANK]
    bk[b, B_ROW] = -1
    bk[b, B_HITS] = 0
    rk[rank, R_OPEN] -= 1
    if not rk[rank, R_OPEN]:
        rk[rank, R_OPENCYCLES] += at - rk[rank, R_SINCE]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def precharge(b: int, at: int, st: Any, bk: Any, tm: Any, rk: Any, tim: Any) -> None:
    """Close the row of bank `b`."""
    _ready_after(b, at + tim[T_RP], bk, tm)
    _closed(b, at, bk, rk)
    if tim[T_PPD]:
        first = bk[b, B_RANK] * tim[T_BANKS]
        _not_before(TM_PRE, first, first + tim[T_BANKS], at + tim[T_PPD], tm)
    _hold_bus(at, tim[T_CMDPRE], False, st, tm, tim)
    _is_used(bk[b, B_RANK], at, at + tim[T_CMDPRE], st, tim)
    st[ST_PRE] += 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def column(
    b: int, write: int, at: int, closes: bool, st: Any, bk: Any, tm: Any, rk: Any, tim: Any
) -> int:
    """Read or write the open row of bank `b`, and close it by itself where `closes`.

    Returns the cycle after its data.
    """
    # The rows of reads and writes lie one behind the other, and so do the distances.
    both = 2 * tm.shape[1]
    first = T_DISTANCES + (write * tim[T_ALLGROUPS] + bk[b, B_GROUP]) * both
    distances, columns = tim[first : first + both], tm.reshape(tm.size)[both : 2 * both]
    for i in range(both):
        columns[i] = max(columns[i], at + distances[i])
    closing = max(tm[TM_PRE, b], at + (tim[T_WRPRE] if write else tim[T_RTP]))
    tm[TM_PRE, b] = closing
    bk[b, B_HITS] += 1
    if closes:
        after = at + (tim[T_WRAP] if write else tim[T_RDAP])
        _ready_after(b, max(after, closing + tim[T_RP]), bk, tm)
        _closed(b, at, bk, rk)
    _hold_bus(at, tim[T_CMDCOL], True, st, tm, tim)  # of columns: part of the distances
    st[ST_RD + write] += 1
    end = at + (tim[T_CWL] if write else tim[T_CL]) + tim[T_BURST]
    _is_used(bk[b, B_RANK], at, 1 + (at + tim[T_WRPRE] if write else end), st, tim)
    if not write:
        st[ST_LAST] = max(st[ST_LAST], end)
    return end


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def refresh_rank(rank: int, at: int, st: Any, bk: Any, tm: Any, tim: Any) -> None:
    """Refresh all banks of `rank`."""
    for b in range(rank * tim[T_BANKS], (rank + 1) * tim[T_BANKS]):
        _ready_after(b, at + tim[T_RFC], bk, tm)
    _hold_bus(at, tim[T_CMDPRE], False, st, tm, tim)
    _is_busy(rank, at, at + tim[T_CMDPRE], st, tim)
    st[ST_REF] += 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def refresh_next(st: Any, tim: Any) -> None:
    """The refresh at hand is done: turn to the next rank or bank."""
    st[ST_PENDING] -= 1
    st[ST_TARGET] += 1
    if not tim[T_PERBANK] and st[ST_TARGET] == tim[T_RANKS]:
        st[ST_TARGET] = 0
    if tim[T_PERBANK] and st[ST_TARGET] == tim[T_RANKS] * tim[T_BANKS]:
        st[ST_TARGET] = 0


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def taken(cycle: int, st: Any, tim: Any) -> None:
    """A request was taken in `cycle`: note when the next one may be."""
    st[ST_TAKEN] = 1 if st[ST_ACCEPTED] < cycle else st[ST_TAKEN] + 1
    st[ST_ACCEPTED] = cycle
    if st[ST_TAKEN] >= tim[T_INTAKE]:
        st[ST_ACCEPTED], st[ST_TAKEN] = cycle + 1, 0


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def close_counts(end: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, tim: Any, log: Any) -> None:
    """Count the cycles with open rows, and asleep, up to `end`."""
    for rank in range(tim[T_RANKS]):
        wake(rank, end, True, st, bk, tm, rk, rq, tim, log)
        if rk[rank, R_OPEN]:
            rk[rank, R_OPENCYCLES] += end - rk[rank, R_SINCE]
            rk[rank, R_SINCE] = end


# Requests that wait are chained, in the order in which they came.


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _append(b: int, queue: int, request: int, bk: Any, rq: Any) -> None:
    """Put a request at the end of a chain of bank `b`."""
    rq[request, Q_NEXT] = -1
    tail = bk[b, B_TAIL + queue]
    if tail < 0:
        bk[b, B_HEAD + queue] = request
    else:
        rq[tail, Q_NEXT] = request
    bk[b, B_TAIL + queue] = request


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _unlink(b: int, queue: int, request: int, bk: Any, rq: Any) -> bool:
    """Take a request out of a chain of bank `b`; returns whether an older one stays in it."""
    before, at = -1, bk[b, B_HEAD + queue]
    while at != request:
        before, at = at, rq[at, Q_NEXT]
    after = rq[request, Q_NEXT]
    if before < 0:
        bk[b, B_HEAD + queue] = after
    else:
        rq[before, Q_NEXT] = after
    if after < 0:
        bk[b, B_TAIL + queue] = before
    return bool(before >= 0)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _find_hit(b: int, kind: int, request: int, bk: Any, rq: Any) -> None:
    """Keep the oldest read or write to the open row of bank `b`, searched from `request` on."""
    row = bk[b, B_ROW]
    while request >= 0 and (rq[request, Q_ROW] != row or rq[request, Q_WRITE] != kind):
        request = rq[request, Q_NEXT]
    bk[b, B_HIT + kind] = request


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _chained(request: int, key: int, rq: Any) -> int:
    """The first request of address `key` from `request` of a chain on; -1: none."""
    while request >= 0 and rq[request, Q_KEY] != key:
        request = rq[request, Q_NEXT]
    return request


# DRAMsim3's controller. Reads and writes wait in two transaction queues (here: chained by
# bank, in order of age), one a cycle moves to the queue of its bank, if that has room. A
# bank's queue is served first ready, first come; banks take turns.


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_wants(b: int, bk: Any, tm: Any, rq: Any) -> None:
    """Note which commands bank `b` wants."""
    row, head = bk[b, B_ROW], bk[b, B_HEAD + OWN]
    act = pre = read = write = FAR
    if head >= 0 and row < 0:
        act = 0
    elif head >= 0:
        read = 0 if bk[b, B_HIT] >= 0 else FAR
        write = 0 if bk[b, B_HIT + 1] >= 0 else FAR
        if rq[head, Q_ROW] != row and (bk[b, B_HITS] >= 4 or (read and write)):
            pre = 0
    tm[WANT_ACT, b], tm[WANT_PRE, b], tm[WANT_RD, b], tm[WANT_WR, b] = act, pre, read, write


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def ready(b: int, tm: Any) -> int:
    """The first cycle in which bank `b` could take a command that it wants."""
    return min(
        max(tm[TM_ACT, b], tm[WANT_ACT, b]),
        max(tm[TM_PRE, b], tm[WANT_PRE, b]),
        max(tm[TM_RD, b], tm[WANT_RD, b]),
        max(tm[TM_WR, b], tm[WANT_WR, b]),
    )


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_first(first: int, end: int, clock: int, turn: int, tm: Any) -> int:
    """When, not before `clock`, a bank from `first` to before `end` is ready, and its distance.

    The cycle stands above `AGE_SHIFT`, the distance from `turn` below it, so that the least is
    what goes first: the banks take turns.
    """
    act, pre = tm[TM_ACT, first:end], tm[TM_PRE, first:end]
    rd, wr = tm[TM_RD, first:end], tm[TM_WR, first:end]
    want_act, want_pre = tm[WANT_ACT, first:end], tm[WANT_PRE, first:end]
    want_rd, want_wr = tm[WANT_RD, first:end], tm[WANT_WR, first:end]
    offset, wrap = first - turn, tm.shape[1] - 1  # there is a power of two of banks
    best = NEVER << AGE_SHIFT
    for i in range(act.shape[0]):
        row = min(max(act[i], want_act[i]), max(pre[i], want_pre[i]))
        when = min(row, max(rd[i], want_rd[i]), max(wr[i], want_wr[i]))
        when = min(max(when, clock), NEVER)
        best = min(best, when << AGE_SHIFT | ((offset + i) & wrap))
    return best


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_choose(clock: int, st: Any, bk: Any, tm: Any, tim: Any) -> None:
    """Choose the first bank, from the turn on, that is ready first, not before `clock`."""
    banks, turn = tm.shape[1], st[ST_TURN] + 1
    alone = bk[turn - 1, B_COUNT] == st[ST_QUEUED]  # the bank of the last command, or none, waits
    if alone and not st[ST_PENDING]:
        when = min(max(ready(turn - 1, tm), clock), NEVER)
        first = when << AGE_SHIFT | (banks - 1)
    elif st[ST_PENDING]:  # without the banks that are being refreshed
        low = st[ST_TARGET] if tim[T_PERBANK] else st[ST_TARGET] * tim[T_BANKS]
        high = low + (1 if tim[T_PERBANK] else tim[T_BANKS])
        first = min(_d3_first(0, low, clock, turn, tm), _d3_first(high, banks, clock, turn, tm))
    else:
        first = _d3_first(0, banks, clock, turn, tm)
    never = first >> AGE_SHIFT >= NEVER
    st[ST_BESTAT], st[ST_VALID] = FAR if never else first >> AGE_SHIFT, 1
    st[ST_BEST] = -1 if never else (first + turn) & (banks - 1)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_refresh(st: Any, bk: Any, tm: Any, tim: Any) -> tuple[int, int]:
    """Cycle and bank of the command that brings the pending refresh on; bank -1: itself."""
    if tim[T_PERBANK]:
        first, last = st[ST_TARGET], st[ST_TARGET] + 1
    else:
        first = st[ST_TARGET] * tim[T_BANKS]
        last = first + tim[T_BANKS]
    now = max(st[ST_CLOCK], st[ST_ROWBUS])
    best, which, closed = FAR, -1, now
    for b in range(first, last):
        if bk[b, B_ROW] < 0:
            closed = max(closed, bk[b, B_ACT])
        else:
            when = max(tm[TM_PRE, b], now)
            if when < best:
                best, which = when, b
    return (closed, -1) if which < 0 else (best, which)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_pending_read(b: int, key: int, bk: Any, rq: Any, ft: Any) -> tuple[int, bool]:
    """The pending read of address `key` in bank `b`, -1: none; whether it is in its queue."""
    if not ft[0, key & (FILTER - 1)]:
        return -1, False
    request = _chained(bk[b, B_HEAD], key, rq)
    if request >= 0:
        return request, False
    request = bk[b, B_HEAD + OWN]
    while request >= 0 and (rq[request, Q_KEY] != key or rq[request, Q_WRITE]):
        request = rq[request, Q_NEXT]
    return request, True


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_is_write_pending(b: int, key: int, bk: Any, rq: Any, ft: Any) -> bool:
    if not ft[1, key & (FILTER - 1)]:
        return False
    if _chained(bk[b, B_HEAD + 1], key, rq) >= 0:
        return True
    request = bk[b, B_HEAD + OWN]
    while request >= 0 and (rq[request, Q_KEY] != key or not rq[request, Q_WRITE]):
        request = rq[request, Q_NEXT]
    return bool(request >= 0)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_movable(b: int, kind: int, st: Any, bk: Any, tm: Any, rq: Any, tim: Any) -> None:
    """Note whether the oldest waiting read or write of bank `b` can move to its queue."""
    head, key = bk[b, B_HEAD + kind], FAR
    if head >= 0 and bk[b, B_COUNT] < tim[T_BANKQUEUE]:
        key = rq[head, Q_AGE] << AGE_SHIFT | b
    more = (1 if key < FAR else 0) - (1 if tm[MOVE + kind, b] < FAR else 0)
    st[ST_MOVES + kind] += more
    st[ST_MOVESUM + kind] += more * b
    tm[MOVE + kind, b] = key


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_accept(
    acc: int, write: int, cycle: int, st: Any, bk: Any, tm: Any, rq: Any, fr: Any, ft: Any, tim: Any
) -> None:
    """Take a request into the transaction queue, merge it or answer it."""
    row = field(acc, M_ROW, tim)
    b = bank_of(acc, row, tim)
    if _d3_is_write_pending(b, acc, bk, rq, ft):
        if write:
            st[ST_MERGED] += 1
        else:
            st[ST_FORWARDED] += 1
            st[ST_REPLIES] += 1
            st[ST_LATENCY] += 1
            st[ST_LAST] = max(st[ST_LAST], cycle + 1)
        return
    if not write:
        other, _ = _d3_pending_read(b, acc, bk, rq, ft)
        if other >= 0:
            rq[other, Q_MANY] += 1
            rq[other, Q_AT] += cycle
            return
    st[ST_FREE] -= 1
    request = fr[st[ST_FREE]]
    rq[request, Q_KEY], rq[request, Q_ROW], rq[request, Q_BANK] = acc, row, b
    rq[request, Q_WRITE], rq[request, Q_AT], rq[request, Q_MANY] = write, cycle, 1
    rq[request, Q_AGE] = st[ST_AGE]
    st[ST_AGE] += 1
    _append(b, write, request, bk, rq)
    if bk[b, B_HEAD + write] == request:
        _d3_movable(b, write, st, bk, tm, rq, tim)
    st[ST_READS + write] += 1
    ft[write, acc & (FILTER - 1)] += 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_wants_drain(st: Any, tim: Any) -> bool:
    writes = st[ST_WRITES]
    return bool(writes >= tim[T_WRITES] or (writes > 8 and not st[ST_QUEUED]))


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_oldest(kind: int, st: Any, tm: Any) -> int:
    """The bank whose waiting read or write is the oldest of those that can move."""
    if st[ST_MOVES + kind] == 1:
        return st[ST_MOVESUM + kind]
    keys, best = tm[MOVE + kind], FAR
    for b in range(keys.shape[0]):
        best = min(best, keys[b])
    return best & BANKS


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_move(st: Any, bk: Any, tm: Any, rq: Any, ft: Any, tim: Any) -> int:
    """Move one request to its bank's queue; returns the bank, -1: none moved.

    A write to an address that a read still waits for ends the drain; so no write is in a
    bank's queue behind a read of its address. Where the drain would start again at once and
    that read is not in its bank's queue yet, DRAMsim3 stops for good; here a read moves.
    """
    if not st[ST_DRAIN] and _d3_wants_drain(st, tim):
        st[ST_DRAIN] = st[ST_WRITES]
    kind = 1 if st[ST_DRAIN] > 0 else 0
    if not st[ST_MOVES + kind]:
        return -1
    b = _d3_oldest(kind, st, tm)
    request = bk[b, B_HEAD + kind]
    if kind:
        reader, is_queued = _d3_pending_read(b, rq[request, Q_KEY], bk, rq, ft)
        if reader >= 0:
            st[ST_DRAIN] = 0
            if is_queued or not _d3_wants_drain(st, tim) or not st[ST_MOVES]:
                return -1
            kind = 0
            b = _d3_oldest(kind, st, tm)
            request = bk[b, B_HEAD]
        else:
            st[ST_DRAIN] -= 1
    _unlink(b, kind, request, bk, rq)
    _append(b, OWN, request, bk, rq)
    st[ST_READS + kind] -= 1
    st[ST_QUEUED] += 1
    bk[b, B_COUNT] += 1
    _d3_movable(b, kind, st, bk, tm, rq, tim)
    if bk[b, B_COUNT] == tim[T_BANKQUEUE]:
        _d3_movable(b, 1 - kind, st, bk, tm, rq, tim)
    if bk[b, B_HIT + kind] < 0 and rq[request, Q_ROW] == bk[b, B_ROW]:
        bk[b, B_HIT + kind] = request
    _d3_wants(b, bk, tm, rq)
    return b


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_will_move(st: Any, tim: Any) -> bool:
    """Whether a request would move in a cycle in which nothing else happens."""
    write = 1 if st[ST_DRAIN] > 0 or _d3_wants_drain(st, tim) else 0
    return bool(st[ST_MOVES + write])


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_issue(
    b: int, cycle: int, allowed: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, fr: Any,
    ft: Any, tim: Any, log: Any,
) -> int:  # fmt: skip
    """Let bank `b` do its first ready command; returns 1 for a column, 0 for others.

    `allowed`: 0 only others, 1 only columns, 2 any; -1 is returned where that forbids it.
    """
    row_command = min(max(tm[TM_ACT, b], tm[WANT_ACT, b]), max(tm[TM_PRE, b], tm[WANT_PRE, b]))
    if row_command <= cycle:
        if allowed == 1:
            return -1
        if bk[b, B_ROW] < 0:
            head = bk[b, B_HEAD + OWN]
            activate(b, rq[head, Q_ROW], cycle, st, bk, tm, rk, tim)
            write_log(cycle, C_ACT, b, rq[head, Q_ROW], 0, st, tim, log)
            for k in range(2):
                _find_hit(b, k, head, bk, rq)
            _d3_wants(b, bk, tm, rq)
        else:
            _d3_close(b, cycle, st, bk, tm, rk, rq, tim, log)
        return 0
    if allowed == 0:
        return -1
    read = max(tm[TM_RD, b], tm[WANT_RD, b]) <= cycle
    kind = 1 if max(tm[TM_WR, b], tm[WANT_WR, b]) <= cycle else 0
    if read and kind:  # what stands first in the queue
        request = bk[b, B_HEAD + OWN]
        while request != bk[b, B_HIT] and request != bk[b, B_HIT + 1]:
            request = rq[request, Q_NEXT]
        kind = rq[request, Q_WRITE]
    request = bk[b, B_HIT + kind]
    closes = tim[T_CLOSED] != 0
    _log_column(cycle, kind, closes, b, rq[request, Q_KEY], st, bk, tim, log)
    end = column(b, kind, cycle, closes, st, bk, tm, rk, tim)
    if not kind:
        many = rq[request, Q_MANY]
        st[ST_REPLIES] += many
        st[ST_LATENCY] += many * end - rq[request, Q_AT]
    ft[kind, rq[request, Q_KEY] & (FILTER - 1)] -= 1
    fr[st[ST_FREE]] = request
    st[ST_FREE] += 1
    _unlink(b, OWN, request, bk, rq)
    _find_hit(b, kind, rq[request, Q_NEXT], bk, rq)
    st[ST_QUEUED] -= 1
    bk[b, B_COUNT] -= 1
    if bk[b, B_COUNT] == tim[T_BANKQUEUE] - 1:
        for waiting in range(2):
            _d3_movable(b, waiting, st, bk, tm, rq, tim)
    if closes:
        bk[b, B_HIT] = bk[b, B_HIT + 1] = -1
    _d3_wants(b, bk, tm, rq)
    return 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_close(
    b: int, cycle: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, tim: Any, log: Any
) -> None:
    precharge(b, cycle, st, bk, tm, rk, tim)
    write_log(cycle, C_PRE, b, -1, 0, st, tim, log)
    bk[b, B_HIT] = bk[b, B_HIT + 1] = -1
    _d3_wants(b, bk, tm, rq)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_command(
    cycle: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, fr: Any, ft: Any, tim: Any, log: Any,
) -> None:  # fmt: skip
    """Issue the command of `cycle`, if one is ready; on dual-command devices two."""
    kind = -1
    if st[ST_PENDING]:
        when, b = _d3_refresh(st, bk, tm, tim)
        if when <= cycle:
            kind = 0
            if b >= 0:
                _d3_close(b, cycle, st, bk, tm, rk, rq, tim, log)
            else:
                _d3_do_refresh(cycle, st, bk, tm, tim, log)
            st[ST_VALID] = 0
    if kind < 0:
        if not st[ST_VALID]:
            _d3_choose(cycle, st, bk, tm, tim)
        if st[ST_BESTAT] > cycle:
            return
        kind = _d3_issue(
            st[ST_BEST], cycle, 2, st, bk, tm, rk, rq, fr, ft, tim, log
        )  # fmt: skip
        st[ST_TURN] = st[ST_BEST]
        st[ST_VALID] = 0
    st[ST_LAST] = max(st[ST_LAST], cycle)
    if tim[T_DUAL]:
        _d3_choose(cycle, st, bk, tm, tim)
        if st[ST_BESTAT] <= cycle:
            st[ST_TURN] = st[ST_BEST]
            _d3_issue(
                st[ST_BEST], cycle, 1 - kind, st, bk, tm, rk, rq, fr, ft, tim, log
            )  # fmt: skip
            st[ST_VALID] = 0


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _d3_do_refresh(cycle: int, st: Any, bk: Any, tm: Any, tim: Any, log: Any) -> None:
    if tim[T_PERBANK]:
        # Its timings: tRFCb in the bank, tRFC (sic) in the others of the rank.
        target = st[ST_TARGET]
        rank = bk[target, B_RANK]
        for b in range(rank * tim[T_BANKS], (rank + 1) * tim[T_BANKS]):
            if b != target:
                _ready_after(b, cycle + tim[T_RFC], bk, tm)
        _hold_bus(cycle, tim[T_CMDPRE], False, st, tm, tim)
        st[ST_REFB] += 1
        write_log(cycle, C_REFB, target, -1, 0, st, tim, log)
    else:
        rank = st[ST_TARGET]
        refresh_rank(rank, cycle, st, bk, tm, tim)
        write_log(cycle, C_REF, rank * tim[T_BANKS], -1, 0, st, tim, log)
    refresh_next(st, tim)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _d3_moved(b: int, clock: int, st: Any, bk: Any, tm: Any) -> None:
    """Bank `b` has a request more: see whether the choice, not before `clock`, still stands."""
    if not st[ST_VALID]:
        return
    best = st[ST_BEST]
    if b == best or st[ST_PENDING]:
        st[ST_VALID] = 0
        return
    when = max(ready(b, tm), clock)
    other = max(st[ST_BESTAT], clock)
    wrap, turn = tm.shape[1] - 1, st[ST_TURN] + 1
    mine, its = (b - turn) & wrap, (best - turn) & wrap
    if when < other or (when == other and mine < its):
        st[ST_BESTAT], st[ST_BEST] = when, b


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def run_dramsim3(
    address: Any, is_write: Any, arrival: Any, final: bool, st: Any, bk: Any, tm: Any, rk: Any,
    rq: Any, fr: Any, ft: Any, tim: Any, log: Any,
) -> bool:  # fmt: skip
    """Run a channel on a batch; returns whether it is done with it (else the log is full).

    Without `final` it stops in the cycle in which the last request was taken, so that what
    comes next can come in the cycle after; with it, when nothing is left to do.
    """
    _check_shapes(bk, rk, rq, ft)
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
                cycle = min(cycle, _d3_refresh(st, bk, tm, tim)[0])
            if not st[ST_VALID]:
                _d3_choose(clock, st, bk, tm, tim)
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
            acc = np.int64(address[n]) >> shift
            _d3_accept(acc, write, cycle, st, bk, tm, rq, fr, ft, tim)
            st[ST_NEXTIN] = n + 1
            taken(cycle, st, tim)
            if st[ST_ACCEPTED] == cycle:
                continue
        _d3_command(cycle, st, bk, tm, rk, rq, fr, ft, tim, log)
        b = _d3_move(st, bk, tm, rq, ft, tim)
        if b >= 0:
            _d3_moved(b, cycle + 1, st, bk, tm)
        st[ST_CLOCK] = cycle + 1


# Our controller, and with other rules of draining that of Ramulator and DRAMSys: one queue
# for reads and one for writes, chained by bank, the oldest hit of each bank kept at hand.

# SKIP stands for a refresh of a rank that refreshes itself.
NONE, COLUMN, ACTIVATE, PRECHARGE, PRECHARGE_ALL, REFRESH, SKIP = range(7)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def mode_of(st: Any, tim: Any) -> int:
    """Whether reads (0) or writes (1) are to be served now.

    Reads give way where none waits, or where the high watermark of writes is reached and a
    turn of reads is over; writes where the low watermark or the turn's end is reached and a
    read waits. Without turns (0) the watermarks alone decide.
    """
    reads, writes = st[ST_READS], st[ST_WRITES]
    over = st[ST_SERVED] >= tim[T_TURN]
    if st[ST_MODE]:
        ends = (over and tim[T_TURN] > 0) or writes <= tim[T_LOW]
        return 0 if not writes or (reads and ends) else 1
    return 1 if writes and (not reads or (over and writes >= tim[T_HIGH])) else 0


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _held(b: int, st: Any, bk: Any, tim: Any) -> bool:
    """Whether bank `b` is to be refreshed next."""
    if tim[T_PERBANK]:
        return bool(b == st[ST_TARGET])
    return bool(bk[b, B_RANK] == st[ST_TARGET])


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _wants(b: int, st: Any, bk: Any, tm: Any, rq: Any, tim: Any) -> None:
    """Note which command bank `b` wants, in the kind that is being served."""
    mode = st[ST_MODE]
    tm[WANT_ACT, b] = tm[WANT_PRE, b] = tm[WANT_RD, b] = tm[WANT_WR, b] = FAR
    tm[WANT_KEY, b] = FAR
    head = bk[b, B_HEAD + mode]
    if head < 0:
        if tim[T_TIMEOUT] and bk[b, B_ROW] >= 0 and bk[b, B_HEAD + 1 - mode] < 0:
            tm[WANT_PRE, b] = bk[b, B_LAST] + tim[T_TIMEOUT]
            _note_wanted(b, PRECHARGE, NO_AGE, T_CMDPRE, tm, tim)
    elif bk[b, B_ROW] < 0:
        tm[WANT_ACT, b] = 0
        _note_wanted(b, ACTIVATE, rq[head, Q_AGE], T_CMDACT, tm, tim)
    elif bk[b, B_HIT + mode] >= 0 and bk[b, B_PASSED] < tim[T_CAP]:
        tm[WANT_RD + mode, b] = 0
        _note_wanted(b, COLUMN, rq[bk[b, B_HIT + mode], Q_AGE], T_CMDCOL, tm, tim)
    else:
        tm[WANT_PRE, b] = 0
        _note_wanted(b, PRECHARGE, rq[head, Q_AGE], T_CMDPRE, tm, tim)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _note_wanted(b: int, kind: int, age: int, length: int, tm: Any, tim: Any) -> None:
    key = age << AGE_SHIFT | b
    tm[WANT_AGE, b], tm[WANT_KEY, b] = key, kind << KIND_SHIFT | key
    tm[WANT_LENGTH, b] = tim[length]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _candidate(b: int, row_from: int, column_from: int, st: Any, bk: Any, tm: Any) -> int:
    """The cycle of the command that bank `b` wants; FAR: none."""
    mode = st[ST_MODE]
    return min(
        max(tm[TM_ACT, b], tm[WANT_ACT, b], row_from),
        max(tm[TM_PRE, b], tm[WANT_PRE, b], row_from),
        max(tm[TM_RD + mode, b], tm[WANT_RD + mode, b], column_from),
    )


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _command(b: int, st: Any, bk: Any, tm: Any) -> tuple[int, int]:
    """The command that bank `b` wants and its request."""
    mode = st[ST_MODE]
    if tm[WANT_RD + mode, b] == 0:
        return COLUMN, bk[b, B_HIT + mode]
    return (ACTIVATE if bk[b, B_ROW] < 0 else PRECHARGE), bk[b, B_HEAD + mode]


# Power-down and self-refresh. A rank that nothing is asked of takes no command, so when it fell
# asleep can be worked out when it is woken: by a request or by its refresh.


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _due_rank(st: Any, tim: Any) -> int:
    """The rank that the next refresh is for."""
    return st[ST_TARGET] // tim[T_BANKS] if tim[T_PERBANK] else st[ST_TARGET]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _sleep(
    rank: int, at: int, st: Any, bk: Any, tm: Any, tim: Any
) -> tuple[int, int, int, int, int, int]:
    """How `rank` slept until it is woken in cycle `at`; FAR: that did not come before.

    The cycles of power-down's entry and exit, of the precharge of what is open, of a refresh,
    of self-refresh's entry and exit. A rank goes from power-down to self-refresh by waking
    up, and to a second self-refresh by the extra refresh that the standards ask for; one
    that is woken on the way is awake.
    """
    sl = ST_COLUMNS + SLEEP_COLUMNS * rank
    if st[sl + SL_QUEUED]:
        return FAR, FAR, FAR, FAR, FAR, FAR
    pde = begins = FAR
    if tim[T_POWERDOWN]:
        pde = max(st[sl + SL_LAST] + tim[T_POWERDOWN], st[sl + SL_QUIET])
    if tim[T_SELF]:
        begins = max(st[sl + SL_USED] + tim[T_SELF], st[sl + SL_LAST] + 1, st[sl + SL_QUIET])
    until, pdx, following = min(at, begins), FAR, begins
    if pde < until:
        pdx = max(until, pde + tim[T_CKE])
        following = pdx + tim[T_XP]
    else:
        pde = FAR
    if begins >= at:
        return pde, pdx, FAR, FAR, FAR, FAR
    prea, closes, closed = FAR, -1, following
    for b in range(rank * tim[T_BANKS], (rank + 1) * tim[T_BANKS]):
        if bk[b, B_ROW] >= 0:
            closes = max(closes, tm[TM_PRE, b])
        closed = max(closed, bk[b, B_ACT])
    if closes >= 0:
        prea = max(following, closes)
        if prea >= at:
            return pde, pdx, FAR, FAR, FAR, FAR
        closed = max(closed, prea + tim[T_RP])
    ref, sre = FAR, closed
    if st[sl + SL_OWES] and closed < at:
        ref, sre = closed, closed + tim[T_RFC]
    if sre >= at:
        return pde, pdx, prea, ref, FAR, FAR
    return pde, pdx, prea, ref, sre, max(at, sre + tim[T_CKESR])


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def wake(
    rank: int, at: int, ends: bool, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, tim: Any, log: Any
) -> None:
    """Count how `rank` slept until it is woken in cycle `at`, and when it is ready again.

    Where `ends`, the run ends in that cycle and leaves the rank asleep.
    """
    if not tim[T_POWERDOWN] and not tim[T_SELF]:
        return
    pde, pdx, prea, ref, sre, srx = _sleep(rank, at, st, bk, tm, tim)
    sl, first = ST_COLUMNS + SLEEP_COLUMNS * rank, rank * tim[T_BANKS]
    if pde < FAR:
        stays = ends and pdx >= at
        which = SL_ACTIVE if rk[rank, R_OPEN] else SL_PRECHARGED
        st[sl + which] += (at if stays else pdx) - pde
        write_log(pde, C_PDE, first, -1, 0, st, tim, log)
        if not stays:
            write_log(pdx, C_PDX, first, -1, 0, st, tim, log)
        _all_ready_after(rank, pdx + tim[T_XP], st, bk, tm, tim)
    if prea < FAR:
        close_rank(first, prea, st, bk, tm, rk, rq, tim)
        write_log(prea, C_PREA, first, -1, 0, st, tim, log)
        _all_ready_after(rank, prea + tim[T_RP], st, bk, tm, tim)
    if ref < FAR:
        refresh_rank(rank, ref, st, bk, tm, tim)
        write_log(ref, C_REF, first, -1, 0, st, tim, log)
        st[sl + SL_OWES] = 0
    if sre < FAR:
        st[sl + SL_SELF] += (at if ends else srx) - sre
        st[sl + SL_OWES] = 1
        write_log(sre, C_SRE, first, -1, 0, st, tim, log)
        if not ends:
            write_log(srx, C_SRX, first, -1, 0, st, tim, log)
        _all_ready_after(rank, srx + tim[T_XS], st, bk, tm, tim)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _all_ready_after(rank: int, ready: int, st: Any, bk: Any, tm: Any, tim: Any) -> None:
    """`rank` takes commands, and may power down, from `ready` on at the earliest."""
    sl, first = ST_COLUMNS + SLEEP_COLUMNS * rank, rank * tim[T_BANKS]
    st[sl + SL_LAST] = max(st[sl + SL_LAST], ready)
    for b in range(first, first + tim[T_BANKS]):
        _ready_after(b, ready, bk, tm)
    for kind in range(TM_PRE, WANT_ACT):
        _not_before(kind, first, first + tim[T_BANKS], ready, tm)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def rouse(b: int, at: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, tim: Any, log: Any) -> None:
    """A request for bank `b` comes in cycle `at`: its rank wakes, if no refresh woke it before."""
    if not tim[T_POWERDOWN] and not tim[T_SELF]:
        return
    rank = bk[b, B_RANK]
    if rank == _due_rank(st, tim):
        at = min(at, st[ST_DUE])
    wake(rank, at, False, st, bk, tm, rk, rq, tim, log)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def next_refresh(st: Any, bk: Any, tm: Any, tim: Any) -> tuple[int, int]:
    """The command that brings the due refresh on, and its cycle."""
    at = max(st[ST_DUE], st[ST_ROWBUS], st[ST_CLOCK])
    closed = False  # on the way to self-refresh
    if tim[T_POWERDOWN] or tim[T_SELF]:
        _, pdx, prea, ref, _, srx = _sleep(_due_rank(st, tim), st[ST_DUE], st, bk, tm, tim)
        if srx < FAR:
            return SKIP, max(st[ST_DUE], st[ST_CLOCK])
        if pdx < FAR:
            at = max(at, pdx + tim[T_XP])
        if prea < FAR:
            closed, at = True, max(at, prea + tim[T_RP])
        if ref < FAR:
            at = max(at, ref + tim[T_RFC])
    if tim[T_PERBANK]:
        b = st[ST_TARGET]
        if bk[b, B_ROW] >= 0 and not closed:
            return PRECHARGE, max(at, tm[TM_PRE, b])
        return REFRESH, max(at, bk[b, B_ACT], st[ST_NEXTREFB])
    first = st[ST_TARGET] * tim[T_BANKS]
    opened = False
    closes, refreshes = at, at
    for b in range(first, first + tim[T_BANKS]):
        if bk[b, B_ROW] >= 0:
            opened = True
            closes = max(closes, tm[TM_PRE, b])
        else:  # a precharge of its own may still be under way
            closes = max(closes, bk[b, B_ACT] - tim[T_RP])
        refreshes = max(refreshes, bk[b, B_ACT])
    return (PRECHARGE_ALL, closes) if opened and not closed else (REFRESH, refreshes)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _earliest(row_from: int, column_from: int, mode: int, tm: Any) -> int:
    """The first cycle in which any bank could take a command that it wants.

    Whole rows, so that the compiler makes vector code of it; so in the functions below.
    """
    act, pre, col = tm[TM_ACT], tm[TM_PRE], tm[TM_RD + mode]
    want_act, want_pre, want_col = tm[WANT_ACT], tm[WANT_PRE], tm[WANT_RD + mode]
    at = FAR
    for b in range(act.shape[0]):
        row = min(max(act[b], want_act[b]), max(pre[b], want_pre[b]))
        at = min(at, max(row, row_from), max(col[b], want_col[b], column_from))
    return at


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _least_key(at: int, row_from: int, column_from: int, mode: int, tm: Any) -> int:
    """The least key of the commands that could go in cycle `at`."""
    act, pre, col = tm[TM_ACT], tm[TM_PRE], tm[TM_RD + mode]
    want_act, want_pre, want_col = tm[WANT_ACT], tm[WANT_PRE], tm[WANT_RD + mode]
    keys, best = tm[WANT_KEY], FAR
    for b in range(act.shape[0]):
        row = min(max(act[b], want_act[b]), max(pre[b], want_pre[b]))
        when = min(max(row, row_from), max(col[b], want_col[b], column_from))
        best = min(best, keys[b] if when <= at else FAR)
    return best


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _least_over(row_from: int, column_from: int, mode: int, tm: Any) -> int:
    """When the command is over that leaves the command bus first."""
    act, pre, col = tm[TM_ACT], tm[TM_PRE], tm[TM_RD + mode]
    want_act, want_pre, want_col = tm[WANT_ACT], tm[WANT_PRE], tm[WANT_RD + mode]
    length, over = tm[WANT_LENGTH], FAR
    for b in range(act.shape[0]):
        row = min(max(act[b], want_act[b]), max(pre[b], want_pre[b]))
        when = min(max(row, row_from), max(col[b], want_col[b], column_from))
        over = min(over, when + length[b])
    return over


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _least_age(over: int, row_from: int, column_from: int, mode: int, tm: Any) -> int:
    """The least age of the commands that are over at `over`."""
    act, pre, col = tm[TM_ACT], tm[TM_PRE], tm[TM_RD + mode]
    want_act, want_pre, want_col = tm[WANT_ACT], tm[WANT_PRE], tm[WANT_RD + mode]
    length, ages, best = tm[WANT_LENGTH], tm[WANT_AGE], FAR
    for b in range(act.shape[0]):
        row = min(max(act[b], want_act[b]), max(pre[b], want_pre[b]))
        when = min(max(row, row_from), max(col[b], want_col[b], column_from))
        best = min(best, ages[b] if when + length[b] == over else FAR)
    return best


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def choose(st: Any, bk: Any, tm: Any, rq: Any, tim: Any) -> None:
    """Choose the next command and its cycle: first ready, then first come.

    Of commands that could go in the same cycle a column goes before an activate, an
    activate before a precharge, an older request before a younger one. A row is closed
    only where no request to it waits, or `hit_cap` hits went past an older request. A
    bank that would get a command on or after its refresh is due waits for the refresh.
    """
    mode = mode_of(st, tim)
    if mode != st[ST_MODE]:
        st[ST_MODE], st[ST_SERVED] = mode, 0
        for b in range(tm.shape[1]):
            if bk[b, B_COUNT]:  # others want what they did
                _wants(b, st, bk, tm, rq, tim)
    row_from = max(st[ST_CLOCK], st[ST_ROWBUS])
    column_from = max(st[ST_CLOCK], st[ST_COLBUS])
    last = st[ST_BEST]
    alone = bk[last, B_COUNT] == st[ST_READS] + st[ST_WRITES] and not tim[T_TIMEOUT]
    if alone:  # no other bank wants a command
        at = _candidate(last, row_from, column_from, st, bk, tm)
    else:
        at = _earliest(row_from, column_from, mode, tm)
    if at >= st[ST_DUE] and (st[ST_READS] or st[ST_WRITES] or at < FAR):
        _choose_or_refresh(row_from, column_from, st, bk, tm, rq, tim)
        return
    st[ST_VALID], st[ST_BESTAT] = NONE, at
    if at == FAR:
        return
    if alone and (not tim[T_OLDEST] or at + tm[WANT_LENGTH, last] < st[ST_DUE]):
        _note_chosen(last, at, st, bk, tm)
        return
    if tim[T_OLDEST]:
        _choose_over_first(row_from, column_from, st, bk, tm, rq, tim)
        return
    _note_chosen(_least_key(at, row_from, column_from, mode, tm) & BANKS, at, st, bk, tm)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _note_chosen(b: int, at: int, st: Any, bk: Any, tm: Any) -> None:
    """The command that bank `b` wants is the next one, at cycle `at`."""
    kind, request = _command(b, st, bk, tm)
    st[ST_VALID], st[ST_BESTAT], st[ST_BEST], st[ST_WHICH] = kind, at, b, request


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _choose_or_refresh(
    row_from: int, column_from: int, st: Any, bk: Any, tm: Any, rq: Any, tim: Any
) -> None:  # fmt: skip
    """As `choose`, where nothing can go before the next refresh is due."""
    at = FAR
    banks = tm.shape[1]
    for b in range(banks):
        if not _held(b, st, bk, tim):
            at = min(at, _candidate(b, row_from, column_from, st, bk, tm))
    kind, when = next_refresh(st, bk, tm, tim)
    if when <= at:
        bank = st[ST_TARGET] if tim[T_PERBANK] else st[ST_TARGET] * tim[T_BANKS]
        st[ST_VALID], st[ST_BESTAT], st[ST_BEST], st[ST_WHICH] = kind, when, bank, -1
        return
    st[ST_VALID], st[ST_BESTAT] = NONE, at
    if tim[T_OLDEST]:
        _choose_near_refresh(True, row_from, column_from, st, bk, tm, rq, tim)
        return
    best = FAR
    for b in range(banks):
        when = _candidate(b, row_from, column_from, st, bk, tm)
        if when <= at and tm[WANT_KEY, b] < best and not _held(b, st, bk, tim):
            best = tm[WANT_KEY, b]
            _note_chosen(b, at, st, bk, tm)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _choose_over_first(
    row_from: int, column_from: int, st: Any, bk: Any, tm: Any, rq: Any, tim: Any
) -> None:  # fmt: skip
    """Choose the command that leaves the command bus first, then the oldest request's."""
    mode = st[ST_MODE]
    over = _least_over(row_from, column_from, mode, tm)
    if over >= st[ST_DUE]:
        _choose_near_refresh(False, row_from, column_from, st, bk, tm, rq, tim)
        return
    b = _least_age(over, row_from, column_from, mode, tm) & BANKS
    _note_chosen(b, over - tm[WANT_LENGTH, b], st, bk, tm)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _choose_near_refresh(
    refreshing: bool, row_from: int, column_from: int, st: Any, bk: Any, tm: Any, rq: Any, tim: Any
) -> None:
    """As `_choose_over_first`, without banks that a refresh which falls due before waits for."""
    best, age = FAR, FAR
    for b in range(tm.shape[1]):
        when = _candidate(b, row_from, column_from, st, bk, tm)
        late = refreshing or when >= st[ST_DUE]
        if when == FAR or (late and _held(b, st, bk, tim)):
            continue
        kind, request = _command(b, st, bk, tm)
        length = tim[T_CMDCOL] if kind == COLUMN else tim[T_CMDACT]
        over = when + (tim[T_CMDPRE] if kind == PRECHARGE else length)
        mine = rq[request, Q_AGE] if request >= 0 else FAR
        if over < best or (over == best and mine < age):
            best, age = over, mine
            st[ST_VALID], st[ST_BESTAT], st[ST_BEST], st[ST_WHICH] = kind, when, b, request


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def queued(b: int, kind: int, st: Any, bk: Any, tm: Any, rq: Any, tim: Any) -> None:
    """A request of `kind` joined bank `b`: see whether it changes the choice."""
    mode = st[ST_MODE]
    _wants(b, st, bk, tm, rq, tim)
    at = st[ST_BESTAT]
    if (
        mode_of(st, tim) != mode
        or st[ST_VALID] == NONE
        or st[ST_BEST] == b
        or at >= st[ST_DUE]
        or tim[T_TIMEOUT]
        or (tim[T_OLDEST] and at + tm[WANT_LENGTH, st[ST_BEST]] >= st[ST_DUE])
    ):
        choose(st, bk, tm, rq, tim)
        return
    if kind != mode:
        return
    row_from = max(st[ST_CLOCK], st[ST_ROWBUS])
    column_from = max(st[ST_CLOCK], st[ST_COLBUS])
    when = _candidate(b, row_from, column_from, st, bk, tm)
    if tim[T_OLDEST]:
        best = st[ST_BEST]
        over, least = when + tm[WANT_LENGTH, b], at + tm[WANT_LENGTH, best]
        if over < least or (over == least and tm[WANT_AGE, b] < tm[WANT_AGE, best]):
            _note_chosen(b, when, st, bk, tm)
    elif when < at or (when == at and tm[WANT_KEY, b] >> KIND_SHIFT < st[ST_VALID]):
        _note_chosen(b, when, st, bk, tm)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def enqueue(
    acc: int, row: int, b: int, kind: int, st: Any, bk: Any, rq: Any, fr: Any, ft: Any
) -> int:
    """Put an access into the read (kind 0) or write (1) queue; returns its place."""
    st[ST_FREE] -= 1
    request = fr[st[ST_FREE]]
    rq[request, Q_KEY], rq[request, Q_ROW], rq[request, Q_BANK] = acc, row, b
    rq[request, Q_WRITE] = kind
    rq[request, Q_AT], rq[request, Q_AGE] = st[ST_CLOCK], st[ST_AGE]
    st[ST_AGE] += 1
    st[ST_READS + kind] += 1
    bk[b, B_COUNT] += 1
    st[ST_COLUMNS + SLEEP_COLUMNS * bk[b, B_RANK] + SL_QUEUED] += 1
    _append(b, kind, request, bk, rq)
    if bk[b, B_HIT + kind] < 0 and bk[b, B_ROW] == row:
        bk[b, B_HIT + kind] = request
    if kind:
        ft[1, acc & (FILTER - 1)] += 1
    return request


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def is_queued(acc: int, b: int, bk: Any, rq: Any, ft: Any) -> bool:
    """Whether a write to access `acc` of bank `b` waits."""
    if not ft[1, acc & (FILTER - 1)]:
        return False
    return bool(_chained(bk[b, B_HEAD + 1], acc, rq) >= 0)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _take(request: int, kind: int, b: int, st: Any, bk: Any, rq: Any, fr: Any) -> None:
    """Take a request out of its bank's queue; count it where it went past an older one."""
    if _unlink(b, kind, request, bk, rq):
        bk[b, B_PASSED] += 1
    st[ST_READS + kind] -= 1
    bk[b, B_COUNT] -= 1
    st[ST_COLUMNS + SLEEP_COLUMNS * bk[b, B_RANK] + SL_QUEUED] -= 1
    fr[st[ST_FREE]] = request
    st[ST_FREE] += 1
    _find_hit(b, kind, rq[request, Q_NEXT], bk, rq)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def issue_column(
    at: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, fr: Any, ft: Any, tim: Any, log: Any
) -> int:
    """Issue the chosen read or write; returns the cycle after its data."""
    request, kind, b = st[ST_WHICH], st[ST_MODE], st[ST_BEST]
    _take(request, kind, b, st, bk, rq, fr)
    if kind:
        ft[1, rq[request, Q_KEY] & (FILTER - 1)] -= 1
    last = tim[T_AUTO] != 0 and bk[b, B_HIT] < 0 and bk[b, B_HIT + 1] < 0
    _log_column(at, kind, last, b, rq[request, Q_KEY], st, bk, tim, log)
    end = column(b, kind, at, last, st, bk, tm, rk, tim)
    bk[b, B_LAST] = at
    _wants(b, st, bk, tm, rq, tim)
    st[ST_SERVED] += 1
    return end


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def issue_row(at: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, tim: Any, log: Any) -> None:
    """Issue the chosen activate, precharge or refresh."""
    kind, b = st[ST_VALID], st[ST_BEST]
    if kind == ACTIVATE:
        row = rq[st[ST_WHICH], Q_ROW]
        activate(b, row, at, st, bk, tm, rk, tim)
        write_log(at, C_ACT, b, row, 0, st, tim, log)
        bk[b, B_PASSED] = 0
        bk[b, B_LAST] = at
        for k in range(2):
            _find_hit(b, k, bk[b, B_HEAD + k], bk, rq)
        _wants(b, st, bk, tm, rq, tim)
    elif kind == PRECHARGE:
        if tim[T_PERBANK] and b == st[ST_TARGET] and at >= st[ST_DUE]:
            wake(bk[b, B_RANK], st[ST_DUE], False, st, bk, tm, rk, rq, tim, log)
        precharge(b, at, st, bk, tm, rk, tim)
        write_log(at, C_PRE, b, -1, 0, st, tim, log)
        bk[b, B_HIT] = bk[b, B_HIT + 1] = -1
        _wants(b, st, bk, tm, rq, tim)
    elif kind == PRECHARGE_ALL:
        wake(bk[b, B_RANK], st[ST_DUE], False, st, bk, tm, rk, rq, tim, log)
        close_rank(b, at, st, bk, tm, rk, rq, tim)
        write_log(at, C_PREA, b, -1, 0, st, tim, log)
    elif kind == SKIP:
        st[ST_DUE] += tim[T_REFI]
        refresh_next(st, tim)
    elif kind == REFRESH:
        wake(bk[b, B_RANK], st[ST_DUE], False, st, bk, tm, rk, rq, tim, log)
        do_refresh(b, at, st, bk, tm, tim)
        write_log(at, C_REFB if tim[T_PERBANK] else C_REF, b, -1, 0, st, tim, log)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def close_rank(
    first: int, at: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, tim: Any
) -> None:  # fmt: skip
    """Precharge all banks of the rank that begins with bank `first`."""
    for b in range(first, first + tim[T_BANKS]):
        if bk[b, B_ROW] >= 0:
            _ready_after(b, at + tim[T_RP], bk, tm)
            bk[b, B_HIT] = bk[b, B_HIT + 1] = -1
            _closed(b, at, bk, rk)
            _wants(b, st, bk, tm, rq, tim)
    _hold_bus(at, tim[T_CMDPRE], False, st, tm, tim)
    _is_busy(bk[first, B_RANK], at, at + tim[T_CMDPRE], st, tim)
    st[ST_PRE] += 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def do_refresh(b: int, at: int, st: Any, bk: Any, tm: Any, tim: Any) -> None:
    """Refresh what is due; the next falls due an interval after this one did."""
    if tim[T_PERBANK]:
        _ready_after(b, at + tim[T_RFCPB], bk, tm)
        st[ST_NEXTREFB] = at + tim[T_PBR]
        first = bk[b, B_RANK] * tim[T_BANKS]
        _not_before(TM_ACT, first, first + tim[T_BANKS], at + tim[T_RRDL], tm)
        _hold_bus(at, tim[T_CMDPRE], False, st, tm, tim)
        _is_busy(bk[b, B_RANK], at, at + tim[T_CMDPRE], st, tim)
        st[ST_REFB] += 1
    else:
        refresh_rank(bk[b, B_RANK], at, st, bk, tm, tim)
    st[ST_DUE] += tim[T_REFI]
    refresh_next(st, tim)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def refresh_idle(
    cycle: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, tim: Any, log: Any
) -> None:
    """Do the refreshes that fell due up to `cycle` while nothing was queued."""
    while st[ST_DUE] <= cycle:
        kind, at = next_refresh(st, bk, tm, tim)
        st[ST_VALID] = kind
        st[ST_BEST] = st[ST_TARGET] if tim[T_PERBANK] else st[ST_TARGET] * tim[T_BANKS]
        issue_row(at, st, bk, tm, rk, rq, tim, log)
        st[ST_VALID], st[ST_BESTAT] = NONE, FAR
        if log.shape[0] and st[ST_LOG] + 8 > log.shape[0]:
            return


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _accept(
    acc: int, kind: int, cycle: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, fr: Any, ft: Any,
    tim: Any, log: Any,
) -> None:  # fmt: skip
    """Take a request of a trace into its queue, or answer it from a queued write."""
    row = field(acc, M_ROW, tim)
    b = bank_of(acc, row, tim)
    if not kind and is_queued(acc, b, bk, rq, ft):
        st[ST_FORWARDED] += 1
        st[ST_REPLIES] += 1
        st[ST_LATENCY] += 1
        st[ST_LAST] = max(st[ST_LAST], cycle + 1)
        return
    rouse(b, cycle, st, bk, tm, rk, rq, tim, log)
    enqueue(acc, row, b, kind, st, bk, rq, fr, ft)
    queued(b, kind, st, bk, tm, rq, tim)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def run_default(
    address: Any, is_write: Any, arrival: Any, final: bool, st: Any, bk: Any, tm: Any, rk: Any,
    rq: Any, fr: Any, ft: Any, tim: Any, log: Any,
) -> bool:  # fmt: skip
    """Run a channel on a batch as `run_dramsim3` does, under our own controller."""
    _check_shapes(bk, rk, rq, ft)
    total = address.shape[0]
    timed = arrival.shape[0] > 0
    shift = tim[T_SHIFT]
    while True:
        if log.shape[0] and st[ST_LOG] + 8 > log.shape[0]:
            return False
        n = st[ST_NEXTIN]
        if n == total and not final:
            return True
        takes, kind = FAR, np.int64(0)
        if n < total:
            kind = np.int64(is_write[n])
            if st[ST_READS + kind] < (tim[T_WRITES] if kind else tim[T_QUEUE]):
                takes = max(st[ST_ACCEPTED], st[ST_CLOCK])
                if timed:
                    takes = max(takes, np.int64(arrival[n]))
        cycle = min(takes, st[ST_BESTAT])
        if cycle >= FAR:
            return True
        if takes <= cycle:
            if not st[ST_READS] and not st[ST_WRITES]:
                refresh_idle(cycle, st, bk, tm, rk, rq, tim, log)
                if log.shape[0] and st[ST_LOG] + 8 > log.shape[0]:
                    return False
            st[ST_CLOCK] = cycle
            acc = np.int64(address[n]) >> shift
            _accept(acc, kind, cycle, st, bk, tm, rk, rq, fr, ft, tim, log)
            st[ST_NEXTIN] = n + 1
            taken(cycle, st, tim)
            continue
        st[ST_CLOCK] = cycle
        st[ST_LAST] = max(st[ST_LAST], cycle)
        if st[ST_VALID] == COLUMN:
            request = st[ST_WHICH]
            end = issue_column(cycle, st, bk, tm, rk, rq, fr, ft, tim, log)
            if not st[ST_MODE]:
                st[ST_REPLIES] += 1
                st[ST_LATENCY] += end - rq[request, Q_AT]
        else:
            issue_row(cycle, st, bk, tm, rk, rq, tim, log)
        choose(st, bk, tm, rq, tim)


# Ramulator 2.1's controller. An activate takes its request out of the queue: that goes before
# everything else, and its row stays open until it is served. Otherwise the oldest request
# whose next command is ready, whatever that is. While a refresh waits nothing else starts.


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _r2_wants(b: int, st: Any, bk: Any, tm: Any, rq: Any) -> None:
    """Note for which requests bank `b` wants commands."""
    mode, active, head = st[ST_MODE], bk[b, B_ACTIVE], bk[b, B_HEAD + st[ST_MODE]]
    act = pre = hit = FAR
    if head >= 0 and not st[ST_PENDING]:
        if bk[b, B_ROW] < 0:
            act = _key(b, head, rq)
        else:
            if bk[b, B_HIT + mode] >= 0:
                hit = _key(b, bk[b, B_HIT + mode], rq)
            if active < 0 and bk[b, B_MISS + mode] >= 0:
                pre = _key(b, bk[b, B_MISS + mode], rq)
    tm[KEY_ACT, b], tm[KEY_PRE, b] = act, pre
    tm[KEY_RD + mode, b], tm[KEY_WR - mode, b] = hit, FAR
    if active >= 0:
        tm[KEY_RD + rq[active, Q_WRITE], b] = _key(b, active, rq) + ACTIVE_FIRST


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _key(b: int, request: int, rq: Any) -> int:
    return rq[request, Q_AGE] << AGE_SHIFT | b


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _r2_mode(st: Any, bk: Any, tm: Any, rq: Any, tim: Any) -> None:
    reads, writes, mode = st[ST_READS], st[ST_WRITES], st[ST_MODE]
    if not mode and (writes > tim[T_HIGH] or not reads):
        mode = 1
    elif mode and writes <= tim[T_LOW] and reads:
        mode = 0
    if mode == st[ST_MODE]:
        return
    st[ST_MODE] = mode
    if not reads and not writes:
        return
    st[ST_VALID] = 0
    for b in range(tm.shape[1]):
        if bk[b, B_COUNT]:  # others want what they did
            _r2_wants(b, st, bk, tm, rq)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _r2_refresh(st: Any, bk: Any, tm: Any, tim: Any) -> tuple[int, int]:
    """The command that brings the pending refresh on and its cycle; FAR: a request is active."""
    first = st[ST_TARGET] * tim[T_BANKS]
    opened = False
    closes = refreshes = max(st[ST_CLOCK], st[ST_ROWBUS])
    for b in range(first, first + tim[T_BANKS]):
        if bk[b, B_ACTIVE] >= 0:
            return NONE, FAR
        if bk[b, B_ROW] >= 0:
            opened = True
            closes = max(closes, tm[TM_PRE, b])
        refreshes = max(refreshes, bk[b, B_ACT])
    return (PRECHARGE_ALL, closes) if opened else (REFRESH, refreshes)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _r2_ready(b: int, tm: Any) -> int:
    """The first cycle in which bank `b` could take a command that it wants."""
    return min(
        tm[TM_ACT, b] if tm[KEY_ACT, b] < FAR else FAR,
        tm[TM_PRE, b] if tm[KEY_PRE, b] < FAR else FAR,
        tm[TM_RD, b] if tm[KEY_RD, b] < FAR else FAR,
        tm[TM_WR, b] if tm[KEY_WR, b] < FAR else FAR,
    )


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _r2_earliest(tm: Any) -> int:
    """The first cycle in which any bank could take a command that it wants."""
    act, pre, rd, wr = tm[TM_ACT], tm[TM_PRE], tm[TM_RD], tm[TM_WR]
    key_act, key_pre, key_rd, key_wr = tm[KEY_ACT], tm[KEY_PRE], tm[KEY_RD], tm[KEY_WR]
    at = FAR
    for b in range(act.shape[0]):
        row = min(act[b] if key_act[b] < FAR else FAR, pre[b] if key_pre[b] < FAR else FAR)
        column = min(rd[b] if key_rd[b] < FAR else FAR, wr[b] if key_wr[b] < FAR else FAR)
        at = min(at, row, column)
    return at


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _r2_is_alone(st: Any, bk: Any, fr: Any) -> bool:
    """Whether all requests are for the bank of the last one that came."""
    return bool(bk[st[ST_BEST], B_COUNT] == fr.shape[0] - st[ST_FREE])


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _r2_least(kind: int, first: int, end: int, cycle: int, tm: Any) -> int:
    """The least key of commands of `kind`, or the one behind it, that could go in `cycle`.

    Of banks `first` to before `end`.
    """
    one, other = tm[kind, first:end], tm[kind + 1, first:end]
    key_one, key_other = tm[KEYS + kind, first:end], tm[KEYS + kind + 1, first:end]
    best = FAR
    for b in range(one.shape[0]):
        best = min(best, key_one[b] if one[b] <= cycle else FAR)
        best = min(best, key_other[b] if other[b] <= cycle else FAR)
    return best


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _r2_pick(cycle: int, part: int, st: Any, bk: Any, tm: Any, fr: Any) -> tuple[int, int, int]:
    """The command of `cycle`: kind, bank, request. `part` 0: any, 1: columns, 2: others."""
    first, end, key = 0, tm.shape[1], FAR
    if _r2_is_alone(st, bk, fr):
        first, end = st[ST_BEST], st[ST_BEST] + 1
    if part < 2:
        key = _r2_least(TM_RD, first, end, cycle, tm)
    if part != 1 and key >= 0:
        key = min(key, _r2_least(TM_ACT, first, end, cycle, tm))
    if key == FAR:
        return NONE, -1, -1
    b, mode = key & BANKS, st[ST_MODE]
    if key < 0:
        return COLUMN, b, bk[b, B_ACTIVE]
    if key == tm[KEY_RD + mode, b]:
        return COLUMN, b, bk[b, B_HIT + mode]
    if bk[b, B_ROW] < 0:
        return ACTIVATE, b, bk[b, B_HEAD + mode]
    return PRECHARGE, b, bk[b, B_MISS + mode]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _r2_find_miss(b: int, kind: int, bk: Any, rq: Any) -> None:
    """Keep the oldest waiting read or write of bank `b` to another row than the open one."""
    request, row = bk[b, B_HEAD + kind], bk[b, B_ROW]
    while request >= 0 and rq[request, Q_ROW] == row:
        request = rq[request, Q_NEXT]
    bk[b, B_MISS + kind] = request


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _r2_issue(
    kind: int, b: int, request: int, at: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any,
    fr: Any, ft: Any, tim: Any, log: Any,
) -> None:  # fmt: skip
    st[ST_LAST] = max(st[ST_LAST], at)
    if kind == COLUMN:
        write = rq[request, Q_WRITE]
        key = rq[request, Q_KEY]
        closes = tim[T_CLOSED] != 0
        _log_column(at, write, closes, b, key, st, bk, tim, log)
        if bk[b, B_ACTIVE] == request:
            bk[b, B_ACTIVE] = -1
            bk[b, B_COUNT] -= 1
            fr[st[ST_FREE]] = request
            st[ST_FREE] += 1
        else:
            _take(request, write, b, st, bk, rq, fr)
            if write:
                ft[1, key & (FILTER - 1)] -= 1
        end = column(b, write, at, closes, st, bk, tm, rk, tim)
        if not write:
            st[ST_REPLIES] += 1
            st[ST_LATENCY] += end - rq[request, Q_AT]
    elif kind == ACTIVATE:
        write_log(at, C_ACT, b, rq[request, Q_ROW], 0, st, tim, log)
        write = rq[request, Q_WRITE]
        activate(b, rq[request, Q_ROW], at, st, bk, tm, rk, tim)
        _take(request, write, b, st, bk, rq, fr)
        st[ST_FREE] -= 1  # it keeps its place
        bk[b, B_COUNT] += 1
        if write:
            ft[1, rq[request, Q_KEY] & (FILTER - 1)] -= 1
        bk[b, B_ACTIVE] = request
        for k in range(2):
            _find_hit(b, k, bk[b, B_HEAD + k], bk, rq)
            _r2_find_miss(b, k, bk, rq)
    else:
        precharge(b, at, st, bk, tm, rk, tim)
        write_log(at, C_PRE, b, -1, 0, st, tim, log)
        bk[b, B_HIT] = bk[b, B_HIT + 1] = -1
    _r2_wants(b, st, bk, tm, rq)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _r2_command(
    cycle: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, fr: Any, ft: Any, tim: Any, log: Any
) -> None:
    for part in range(1, 3) if tim[T_DUAL] else range(1):
        kind, b, request = _r2_pick(cycle, part, st, bk, tm, fr)
        if kind != NONE:
            _r2_issue(kind, b, request, cycle, st, bk, tm, rk, rq, fr, ft, tim, log)
        elif st[ST_PENDING] and part != 1:
            kind, when = _r2_refresh(st, bk, tm, tim)
            if when > cycle:
                continue
            st[ST_LAST] = max(st[ST_LAST], cycle)
            first = st[ST_TARGET] * tim[T_BANKS]
            if kind == PRECHARGE_ALL:
                close_rank(first, cycle, st, bk, tm, rk, rq, tim)
                write_log(cycle, C_PREA, first, -1, 0, st, tim, log)
            else:
                refresh_rank(st[ST_TARGET], cycle, st, bk, tm, tim)
                write_log(cycle, C_REF, first, -1, 0, st, tim, log)
                refresh_next(st, tim)
            for bank in range(tm.shape[1]):
                _r2_wants(bank, st, bk, tm, rq)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def run_ramulator(
    address: Any, is_write: Any, arrival: Any, final: bool, st: Any, bk: Any, tm: Any, rk: Any,
    rq: Any, fr: Any, ft: Any, tim: Any, log: Any,
) -> bool:  # fmt: skip
    """Run a channel on a batch as `run_dramsim3` does, under Ramulator's controller."""
    _check_shapes(bk, rk, rq, ft)
    total = address.shape[0]
    timed = arrival.shape[0] > 0
    shift = tim[T_SHIFT]
    while True:
        if log.shape[0] and st[ST_LOG] + 8 > log.shape[0]:
            return False
        n = st[ST_NEXTIN]
        if n == total and not final:
            return True
        takes, kind = FAR, np.int64(0)
        if n < total:
            kind = np.int64(is_write[n])
            if st[ST_READS + kind] < tim[T_QUEUE]:
                takes = max(st[ST_ACCEPTED], st[ST_CLOCK])
                if timed:
                    takes = max(takes, np.int64(arrival[n]))
        if not st[ST_PENDING]:
            _r2_mode(st, bk, tm, rq, tim)
        cycle = takes
        if takes > st[ST_CLOCK]:  # else nothing can come before
            if not st[ST_VALID]:
                alone = _r2_is_alone(st, bk, fr)
                st[ST_BESTAT] = _r2_ready(st[ST_BEST], tm) if alone else _r2_earliest(tm)
                st[ST_VALID] = 1
            cycle = st[ST_BESTAT]
            if st[ST_PENDING]:
                cycle = min(cycle, _r2_refresh(st, bk, tm, tim)[1])
            cycle = min(takes, max(cycle, st[ST_CLOCK]))
        if cycle >= FAR and st[ST_DUE] >= st[ST_LAST]:
            return True
        if st[ST_DUE] <= cycle:
            st[ST_CLOCK] = max(st[ST_DUE], st[ST_CLOCK])
            st[ST_DUE] += tim[T_REFI]
            st[ST_PENDING] += 1
            for b in range(tm.shape[1]):
                _r2_wants(b, st, bk, tm, rq)
            st[ST_VALID] = 0
            continue
        st[ST_CLOCK] = cycle
        if takes <= cycle:
            acc = np.int64(address[n]) >> shift
            row = field(acc, M_ROW, tim)
            b = bank_of(acc, row, tim)
            st[ST_NEXTIN] = n + 1
            taken(cycle, st, tim)
            if is_queued(acc, b, bk, rq, ft):
                if kind:
                    st[ST_MERGED] += 1
                else:
                    st[ST_FORWARDED] += 1
                    st[ST_REPLIES] += 1
                    st[ST_LATENCY] += 1
                    st[ST_LAST] = max(st[ST_LAST], cycle + 1)
            else:
                request = enqueue(acc, row, b, kind, st, bk, rq, fr, ft)
                st[ST_BEST] = b
                if bk[b, B_MISS + kind] < 0 and row != bk[b, B_ROW]:
                    bk[b, B_MISS + kind] = request
                st[ST_VALID] = st[ST_VALID] and _r2_ready(b, tm) > st[ST_BESTAT]
                _r2_wants(b, st, bk, tm, rq)
                if st[ST_VALID]:  # it was not what comes first
                    st[ST_BESTAT] = min(st[ST_BESTAT], _r2_ready(b, tm))
            continue
        _r2_command(cycle, st, bk, tm, rk, rq, fr, ft, tim, log)
        st[ST_VALID] = 0
        st[ST_CLOCK] = cycle + 1
