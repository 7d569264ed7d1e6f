"""Tasks through the memory in `bandwidth` detail, many bursts at a time.

On a channel whose controller always finds a burst, one follows another at a fixed cost, the
slots in turn, until a job ends or another slot joins: a *phase*, whose bursts need not be
served one by one. What `MemoryPath` does with tiles is done here in one kernel as well.

For plain streams this is the schedule of `sfpsim.hardware.kernels.run_bandwidth` burst by
burst, to the picosecond (`exact` says whether that is so, and a test runs both). For streams
through codec units it is an estimate: a unit takes its bursts evenly over the cycles that its
rows need. Estimates are what sampled windows are compared with, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sfpsim.hardware import kernels as k
from sfpsim.hardware.machine import Machine
from sfpsim.hardware.placement import Placed

I64 = NDArray[np.int64]
FAR = 1 << 62

# A task, a move of it, a block: one row of int64 each.
T_TILES, T_COMPUTE, T_FIRST, T_LAST, T_WAITS, T_WAITED = 0, 1, 2, 3, 4, 5  # moves; waits
M_WRITE, M_RESIDENT, M_TIMES, M_FIRST, M_BLOCKS = 0, 1, 2, 3, 4
B_CHANNEL, B_READ, B_WRITE, B_PARTIAL, B_ROWS, B_DELAY, B_RLATENCY, B_WLATENCY = range(8)
BLOCK_COLUMNS = 8

# A job, a slot, a channel.
J_BURSTS, J_READY, J_TICKET, J_NEXT, J_PACE, J_BUSY, J_LATENCY, JOB_COLUMNS = range(8)
S_LEFT, S_OFFER, S_FREE, S_TICKET, S_PACE, S_UNTIL, S_LATENCY, SLOT_COLUMNS = range(8)
C_BUS, C_TURN, C_READS, C_WRITES, C_BUSY, C_LAST, C_END, C_BURSTS, C_COST, C_NOW, C_HEAD = range(11)
CHANNEL_COLUMNS = C_HEAD + 2 * k.CLASSES


def never_starves(par: I64) -> bool:
    """Whether a plain stream's window is deep enough that it always has a burst to ask for.

    Burst n waits for the data of burst n - W; W bursts at the least cost later they are there.
    """
    costs = par[[k.P_READ_PS, k.P_WRITE_PS, k.P_MIXED_PS]]
    return bool(par[k.P_WINDOW] * costs.min() >= costs.max() + par[k.P_LATENCY_PS])


def exact(placed: Sequence[Placed], machine: Machine, par: I64) -> bool:
    """Whether `run_tasks` is the schedule of the bursts one by one."""
    plain = all(not p.reads[:, k.J_ROWS].any() and not p.index.length.any() for p in placed)
    return plain and machine.memory.placement == "block" and never_starves(par)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """When each task ended and how long it waited (ps), and what each channel did."""

    end_ps: int
    ends_ps: I64
    waits_ps: I64
    reads: I64
    writes: I64
    busy_ps: I64


@dataclass(frozen=True, kw_only=True)
class Work:
    """A task's moves and tiles; `chosen` are the tiles that run, in order."""

    reads: Sequence[tuple[Placed, int, bool]]
    writes: Sequence[Placed]
    compute_ps: int
    tiles: int
    chosen: I64


def run_tasks(works: Sequence[Work], waits: Sequence[Sequence[int]], machine: Machine, par: I64
              ) -> Outcome:  # fmt: skip
    """Run the tasks in order, as `MemoryPath` does; `waits` names the tasks each waits for."""
    tensors: dict[str, tuple[int, Placed]] = {}
    count = 0
    for work in works:
        for placed in (*(r[0] for r in work.reads), *work.writes):
            if placed.name not in tensors:
                tensors[placed.name] = count, placed
                count += placed.blocks
    blocks = np.zeros((count, BLOCK_COLUMNS), np.int64)
    for first, placed in tensors.values():
        _fill(blocks[first : first + placed.blocks], placed)
    tasks = np.zeros((len(works), 6), np.int64)
    moves: list[tuple[int, int, int, int, int]] = []
    for row, work in zip(tasks, works, strict=True):
        row[T_TILES], row[T_COMPUTE], row[T_FIRST] = work.tiles, work.compute_ps, len(moves)
        for placed, times, resident in work.reads:
            moves.append((0, int(resident), times, tensors[placed.name][0], placed.blocks))
        moves += [(1, 0, 1, tensors[p.name][0], p.blocks) for p in work.writes]
        row[T_LAST] = len(moves)
    flat = [w for row in waits for w in row]
    tasks[:, T_WAITED] = np.cumsum([len(row) for row in waits])
    tasks[:, T_WAITS] = tasks[:, T_WAITED] - [len(row) for row in waits]
    tiles = [(number, tile) for number, work in enumerate(works) for tile in work.chosen.tolist()]
    held = machine.buffer.tiles
    channels = np.zeros((machine.memory.channels, CHANNEL_COLUMNS), np.int64)
    ends, waited = np.zeros(len(works), np.int64), np.zeros(len(works), np.int64)
    moved = np.array(moves, np.int64).reshape(-1, 5)
    par = par.copy()
    if machine.memory.placement == "stripe":  # one room over all channels (an estimate)
        par[[k.P_READ_PS, k.P_WRITE_PS, k.P_MIXED_PS]] //= machine.memory.channels
    end = _run(
        np.array(tiles, np.int64).reshape(-1, 2), tasks, moved, blocks,
        np.array(flat or [0], np.int64), channels, par, held,
        _most_jobs(works) * (2 * held + 4), ends, waited,
    )  # fmt: skip
    if len(ends):
        ends[-1] = end
    return Outcome(
        end_ps=int(end), ends_ps=ends, waits_ps=waited, reads=channels[:, C_READS].copy(),
        writes=channels[:, C_WRITES].copy(), busy_ps=channels[:, C_BUSY].copy(),
    )  # fmt: skip


def _fill(rows: I64, placed: Placed) -> None:
    """Note what moves each block; the lines of an index that is read in order."""
    streams = (k.J_PBURSTS, k.J_MBURSTS, k.J_IBURSTS)
    rows[:, B_CHANNEL] = placed.group
    rows[:, B_READ] = placed.reads[:, streams].sum(axis=1)
    rows[:, B_WRITE] = placed.writes[:, streams].sum(axis=1)
    rows[:, B_PARTIAL] = placed.partial.sum(axis=1)
    rows[:, B_ROWS] = placed.reads[:, k.J_ROWS]
    rows[:, B_DELAY] = placed.writes[:, k.J_DELAY]
    rows[:, B_RLATENCY] = placed.reads[:, k.J_LATENCY]
    rows[:, B_WLATENCY] = placed.writes[:, k.J_LATENCY]


def _most_jobs(works: Sequence[Work]) -> int:
    """The most jobs that a tile of any task submits on one side."""
    most = 1
    for work in works:
        load = sum(
            p.blocks if resident else p.blocks * times // work.tiles + 1
            for p, times, resident in work.reads
        )
        drain = sum(4 * (p.blocks // work.tiles + 1) for p in work.writes)
        most = max(most, load, drain)
    return most


@njit(cache=True, nogil=True, error_model="numpy")
def _phase(c: int, chan: Any, slots: Any, par: Any) -> None:
    """Find the next phase of channel `c`: its cost and bursts, and when the last is taken."""
    per, writers = par[k.P_SLOT + k.CLASSES], par[k.P_SLOT + k.ENCODE]
    first = FAR
    for i in range(per):
        if slots[c, i, S_LEFT]:
            first = min(first, slots[c, i, S_OFFER])
    if first == FAR:
        chan[c, C_END] = FAR
        return
    now = max(first, chan[c, C_BUS])
    other, ready, reading, writing, pace = FAR, 0, False, False, 0
    for i in range(per):
        if slots[c, i, S_LEFT]:
            if slots[c, i, S_OFFER] <= now:
                ready += 1
                reading |= i < writers
                writing |= i >= writers
                pace = max(pace, slots[c, i, S_PACE])
            else:
                other = min(other, slots[c, i, S_OFFER])
    cost = par[k.P_READ_PS] if reading else par[k.P_WRITE_PS]
    if reading and writing:
        cost = par[k.P_MIXED_PS]
    if pace > ready * cost:  # the codec units are slower than the bus (an estimate)
        cost = (pace + ready - 1) // ready
    bursts, place = FAR, _place(c, chan, slots, now, par)
    for i in range(per):
        if slots[c, i, S_LEFT] and slots[c, i, S_OFFER] <= now:
            position = _position(c, i, place, slots, now, per, ready)
            bursts = min(bursts, position + 1 + (slots[c, i, S_LEFT] - 1) * ready)
    if other < FAR:
        bursts = min(bursts, (other - now + cost - 1) // cost)
    chan[c, C_NOW], chan[c, C_COST], chan[c, C_BURSTS] = now, cost, bursts
    chan[c, C_END] = now + (bursts - 1) * cost


@njit(cache=True, nogil=True, error_model="numpy")
def _place(c: int, chan: Any, slots: Any, now: int, par: Any) -> int:
    """The slot that goes first: the first that is ready from the turn on."""
    best, turn = -1, chan[c, C_TURN]
    for i in range(par[k.P_SLOT + k.CLASSES]):
        if slots[c, i, S_LEFT] and slots[c, i, S_OFFER] <= now and (best < 0 or best < turn <= i):
            best = i
    return best


@njit(cache=True, nogil=True, error_model="numpy")
def _position(c: int, i: int, first: int, slots: Any, now: int, per: int, ready: int) -> int:
    """How many slots go before slot `i` where `first` goes first."""
    before = 0
    for j in range(per):
        if slots[c, j, S_LEFT] and slots[c, j, S_OFFER] <= now:
            if first <= i:
                before += first <= j < i
            else:
                before += j >= first or j < i
    return before


@njit(cache=True, nogil=True, error_model="numpy")
def _serve(
    c: int, bursts: int, chan: Any, slots: Any, jobs: Any, par: Any, left: Any, done: Any,
    free: Any, heap: Any,
) -> None:  # fmt: skip
    """Serve `bursts` of the phase that `_phase` found; end a job with the last one."""
    per, writers = par[k.P_SLOT + k.CLASSES], par[k.P_SLOT + k.ENCODE]
    now, cost = chan[c, C_NOW], chan[c, C_COST]
    first = _place(c, chan, slots, now, par)
    ready = 0
    for i in range(per):
        ready += slots[c, i, S_LEFT] > 0 and slots[c, i, S_OFFER] <= now
    last, order = -1, 0
    reads = 0
    for n in range(per):
        i = (first + n) % per
        if slots[c, i, S_LEFT] and slots[c, i, S_OFFER] <= now:
            share = (bursts - order + ready - 1) // ready
            slots[c, i, S_LEFT] -= share
            if order == (bursts - 1) % ready:
                last = i
            if i < writers:
                reads += share
            order += 1
    taken = now + (bursts - 1) * cost
    chan[c, C_BUS] = taken + cost
    chan[c, C_BUSY] += bursts * cost
    chan[c, C_READS] += reads
    chan[c, C_WRITES] += bursts - reads
    chan[c, C_TURN] = last + 1 if last + 1 < per else 0
    # Reads end before their tickets do, so only what a write leaves on the bus counts here.
    data = taken + cost + (par[k.P_LATENCY_PS] if last < writers else 0)
    chan[c, C_LAST] = max(chan[c, C_LAST], data)
    if slots[c, last, S_LEFT] == 0:
        end = max(data, slots[c, last, S_UNTIL]) + slots[c, last, S_LATENCY]
        slots[c, last, S_FREE] = max(data, slots[c, last, S_UNTIL]) if last < writers else max(
            taken, slots[c, last, S_UNTIL]
        )  # fmt: skip
        ticket = slots[c, last, S_TICKET]
        left[ticket] -= 1
        done[ticket] = max(done[ticket], end)
        if left[ticket] == 0:
            heap[0] += 1
            heap[heap[0]] = ticket
        kind = 0
        while last >= par[k.P_SLOT + kind + 1]:
            kind += 1
        _start(c, kind, taken + 1, chan, slots, jobs, par, free)


@njit(cache=True, nogil=True, error_model="numpy")
def _start(
    c: int, kind: int, now: int, chan: Any, slots: Any, jobs: Any, par: Any, free: Any
) -> None:
    """Give waiting jobs of a class to its free slots, the one free the longest first."""
    while chan[c, C_HEAD + 2 * kind] >= 0:
        g = -1
        for i in range(par[k.P_SLOT + kind], par[k.P_SLOT + kind + 1]):
            if slots[c, i, S_LEFT] == 0 and (g < 0 or slots[c, i, S_FREE] < slots[c, g, S_FREE]):
                g = i
        if g < 0:
            return
        job = chan[c, C_HEAD + 2 * kind]
        chan[c, C_HEAD + 2 * kind] = jobs[job, J_NEXT]
        start = max(jobs[job, J_READY], slots[c, g, S_FREE])
        slots[c, g, S_LEFT] = jobs[job, J_BURSTS]
        slots[c, g, S_OFFER] = max(start, now)
        slots[c, g, S_TICKET] = jobs[job, J_TICKET]
        slots[c, g, S_PACE] = jobs[job, J_PACE]
        slots[c, g, S_UNTIL] = start + jobs[job, J_BUSY] if jobs[job, J_BUSY] else 0
        slots[c, g, S_LATENCY] = jobs[job, J_LATENCY]
        free[0] += 1
        free[free[0]] = job


@njit(cache=True, nogil=True, error_model="numpy")
def _queue(
    c: int, kind: int, bursts: int, ready: int, ticket: int, busy: int, latency: int, chan: Any,
    jobs: Any, free: Any,
) -> None:  # fmt: skip
    job = free[free[0]]
    free[0] -= 1
    jobs[job, J_BURSTS], jobs[job, J_READY], jobs[job, J_TICKET] = bursts, ready, ticket
    jobs[job, J_BUSY], jobs[job, J_LATENCY] = busy, latency
    jobs[job, J_PACE] = busy // bursts
    jobs[job, J_NEXT] = -1
    if chan[c, C_HEAD + 2 * kind] < 0:
        chan[c, C_HEAD + 2 * kind] = job
    else:
        jobs[chan[c, C_HEAD + 2 * kind + 1], J_NEXT] = job
    chan[c, C_HEAD + 2 * kind + 1] = job


@njit(cache=True, nogil=True, error_model="numpy")
def _synchronise(
    t: int, chan: Any, slots: Any, jobs: Any, par: Any, left: Any, done: Any, free: Any, heap: Any
) -> None:
    """Serve every burst that is taken before `t`; no job ends by that."""
    for c in range(chan.shape[0]):
        if chan[c, C_END] < FAR and chan[c, C_NOW] < t:
            bursts = (t - chan[c, C_NOW] + chan[c, C_COST] - 1) // chan[c, C_COST]
            bursts = min(bursts, chan[c, C_BURSTS])
            _serve(c, bursts, chan, slots, jobs, par, left, done, free, heap)
            _phase(c, chan, slots, par)


@njit(cache=True, nogil=True, error_model="numpy")
def _submit(
    t: int, ticket: int, task: int, tile: int, write: int, tasks: Any, moves: Any, blocks: Any,
    chan: Any, slots: Any, jobs: Any, par: Any, left: Any, free: Any,
) -> None:  # fmt: skip
    """Queue the jobs of one side of a tile at time `t`, and give them to free slots."""
    tiles, period = tasks[task, T_TILES], par[k.P_CODEC_PS]
    for m in range(tasks[task, T_FIRST], tasks[task, T_LAST]):
        if moves[m, M_WRITE] != write:
            continue
        total = moves[m, M_BLOCKS] * moves[m, M_TIMES]
        begin, end = total * tile // tiles, total * (tile + 1) // tiles
        if moves[m, M_RESIDENT]:
            begin, end = 0, moves[m, M_BLOCKS] if tile == 0 else 0
        for n in range(begin, end):
            b = moves[m, M_FIRST] + n % moves[m, M_BLOCKS]
            c, rows = blocks[b, B_CHANNEL], blocks[b, B_ROWS]
            bursts = blocks[b, B_WRITE] if write else blocks[b, B_READ]
            if bursts:
                kind = (2 if write else 0) + (0 if rows else 1)
                busy = rows * period + (blocks[b, B_DELAY] * period if write else 0)
                latency = blocks[b, B_WLATENCY if write else B_RLATENCY] if rows else 0
                _queue(c, kind, bursts, t, ticket, busy, latency, chan, jobs, free)
                left[ticket] += 1
        for n in range(begin, end if write else begin):
            b = moves[m, M_FIRST] + n % moves[m, M_BLOCKS]
            for _ in range(blocks[b, B_PARTIAL]):
                _queue(blocks[b, B_CHANNEL], k.PLAIN_READ, 1, t, ticket, 0, 0, chan, jobs, free)
                left[ticket] += 1
    for c in range(chan.shape[0]):
        for kind in range(k.CLASSES):
            _start(c, kind, 0, chan, slots, jobs, par, free)
        _phase(c, chan, slots, par)


@njit(cache=True, nogil=True, error_model="numpy")
def _moved(chan: Any, par: Any, out: Any) -> None:
    for c in range(chan.shape[0]):
        out[c] = chan[c, C_READS] * par[k.P_READ_PS] + chan[c, C_WRITES] * par[k.P_WRITE_PS]


@njit(cache=True, nogil=True, error_model="numpy")
def _run(
    tiles: Any, tasks: Any, moves: Any, blocks: Any, waits: Any, chan: Any, par: Any, held: int,
    room: int, ends: Any, waited: Any,
) -> int:  # fmt: skip
    """Run all tiles; a tile's load is ticket 2 x number, its drain the next one."""
    count = tiles.shape[0]
    slots = np.zeros((chan.shape[0], par[k.P_SLOT + k.CLASSES], SLOT_COLUMNS), np.int64)
    jobs = np.zeros((room, JOB_COLUMNS), np.int64)
    free = np.arange(-1, room)
    free[0] = room
    left, done = np.zeros(2 * count, np.int64), np.zeros(2 * count, np.int64)
    over = np.zeros(2 * count, np.bool_)
    heap = np.zeros(2 * count + 2, np.int64)  # tickets whose end is known and has not come
    written = np.full(tasks.shape[0], FAR)
    chan[:, C_END] = FAR
    chan[:, C_HEAD:] = -1
    before, after = np.zeros(chan.shape[0], np.int64), np.zeros(chan.shape[0], np.int64)
    t, loading, computing, drained = 0, 0, 0, 0
    until, began, waiting = FAR, 0, -1
    arriving, leaving = held, held
    while True:
        acted = True
        while acted:
            acted = False
            if until == t:  # a tile is computed
                task = tiles[computing, 0]
                _synchronise(t, chan, slots, jobs, par, left, done, free, heap)
                ticket = 2 * computing + 1
                _submit(t, ticket, task, tiles[computing, 1], 1, tasks, moves, blocks, chan, slots,
                        jobs, par, left, free)  # fmt: skip
                if left[ticket] == 0:
                    done[ticket] = t
                    heap[0] += 1
                    heap[heap[0]] = ticket
                ends[task] = t
                arriving += 1
                computing += 1
                until, acted = FAR, True
            n = 1
            while n <= heap[0]:  # loads and drains that end now
                ticket = heap[n]
                if done[ticket] > t:
                    n += 1
                    continue
                heap[n] = heap[heap[0]]
                heap[0] -= 1
                over[ticket], acted = True, True
                if ticket & 1:
                    leaving += 1
                    drained += 1
                    number = ticket >> 1
                    task = tiles[number, 0]
                    if number + 1 == count or tiles[number + 1, 0] != task:
                        written[task] = t
            if loading < count and (arriving or waiting >= 0):
                task = tiles[loading, 0]
                if waiting < 0:
                    arriving -= 1
                    waiting = tasks[task, T_WAITS]
                    began = -1
                while waiting < tasks[task, T_WAITED]:
                    if written[waits[waiting]] == FAR:
                        if began < 0:
                            began = t
                            _synchronise(t, chan, slots, jobs, par, left, done, free, heap)
                            _moved(chan, par, before)
                        break
                    if began >= 0:
                        _synchronise(t, chan, slots, jobs, par, left, done, free, heap)
                        _moved(chan, par, after)
                        waited[task] += max(0, t - began - (after - before).max())
                        began = -1
                    waiting += 1
                if waiting == tasks[task, T_WAITED]:
                    _synchronise(t, chan, slots, jobs, par, left, done, free, heap)
                    ticket = 2 * loading
                    _submit(t, ticket, task, tiles[loading, 1], 0, tasks, moves, blocks, chan,
                            slots, jobs, par, left, free)  # fmt: skip
                    if left[ticket] == 0:
                        done[ticket] = t
                        heap[0] += 1
                        heap[heap[0]] = ticket
                    loading += 1
                    waiting, acted = -1, True
            if until == FAR and computing < loading and over[2 * computing] and leaving:
                task, tile = tiles[computing]
                whole, parts = tasks[task, T_COMPUTE], tasks[task, T_TILES]
                leaving -= 1
                until = t + whole * (tile + 1) // parts - whole * tile // parts
                acted = True
        following = until
        for n in range(1, heap[0] + 1):
            following = min(following, done[heap[n]])
        c = 0
        for i in range(1, chan.shape[0]):
            if chan[i, C_END] < chan[c, C_END]:
                c = i
        if chan[c, C_END] < following:
            _serve(c, chan[c, C_BURSTS], chan, slots, jobs, par, left, done, free, heap)
            _phase(c, chan, slots, par)
        elif following == FAR:
            break
        else:
            t = following
    return max(t, chan[:, C_LAST].max())
