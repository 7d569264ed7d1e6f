"""What happens inside the channels, burst by burst: codec units, FIFOs, controllers, DRAM.

simpy sees blocks; everything finer is here. A channel has *slots*: a read slot is a
decompressor (or a plain DMA stream), a write slot a compressor (or a plain DMA stream).
A slot works on one *job*, a block of a tensor. Where blocks are striped over the channels
all slots form one *group* above them; else each channel has a group of its own.
`run_bandwidth` and `run_detailed` share the slots and differ in what serves a burst. Both
always take the earliest event of all channels and stop where a ticket (a set of jobs that
somebody waits for) is done, so that nothing happens later than something that could have
changed it: cutting a run into batches does not change it. docs/hardware.md says what
enters and leaves in each cycle.

Times are integer picoseconds at the edges; codec units count codec cycles, DRAM its own
clock's. What happens behind a controller's queues is in `sfpsim.hardware.dram.engine`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from sfpsim.hardware.dram import engine as e

# A job, one row of int64.
J_CLASS = 0  # DECODE, PLAIN_READ, ENCODE, PLAIN_WRITE
J_READY = 1  # ps; may not start before
J_PADDR = 2  # payload: byte address of the first burst, in its channel or over all (striped)
J_PBURSTS = 3
J_MADDR = 4  # metadata
J_MBURSTS = 5
J_IADDR = 6  # index
J_IBURSTS = 7
J_DEPENDENT = 8  # payload waits for the index entry
J_ROWBASE = 9  # where the tensor's rows begin in the row store
J_ROWSTART = 10
J_ROWLEN = 11  # rows held; they repeat cyclically
J_ROWS = 12  # rows of this block; 0: it passes as it is (raw block, plain container)
J_LATENCY = 13  # ps, codec pipeline
J_PHEAD = 14  # bits of the first payload burst before the block starts
J_MHEAD = 15
J_TICKET = 16
J_DELAY = 17  # codec cycles before the first row (a pass that only looks)
J_PACE = 18  # codec cycles that a row takes
JOB_COLUMNS = 19

DECODE, PLAIN_READ, ENCODE, PLAIN_WRITE = 0, 1, 2, 3
CLASSES = 4
PAYLOAD, METADATA, INDEX = 0, 1, 2

# A slot. "Known": reads whose data time is known, in order; writes that are complete.
S_JOB = 0
S_PNEXT = 1  # payload bursts requested
S_PKNOWN = 2
S_PFREED = 3  # FIFO places freed: read, drained by the rows; write, taken by the controller
S_MNEXT = 4
S_MKNOWN = 5
S_MFREED = 6
S_INEXT = 7
S_IREADY = 8  # ps; the index entry is there
S_ROW = 9
S_PBITS = 10  # bits of the streams up to the last row, from the first burst on
S_MBITS = 11
S_CYCLE = 12  # codec cycle of the last row
S_LAST = 13  # ps; reads: latest data time; writes: when the last burst was taken
S_FREE = 14  # ps; free from
S_OUT = 15  # bursts served
S_START = 16
S_STREAM = 17  # which stream its next burst is of
S_AT = 18  # where in the row store the next row is
S_OFFER = 19  # where in `offer` its next burst stands; this and the next outlive the job
S_CHANNEL = 20  # the channel that sees it there
SLOT_COLUMNS = 21

# times[slot, T_*]: rings by burst number.
T_PDATA, T_MDATA, T_PFREE, T_MFREE = 0, 1, 2, 3

# A channel.
C_NEXT = 0  # ps; its next event
C_BUS = 1  # ps; the data bus is taken until then, by what was taken so far
C_TURN = 2  # round-robin pointer
C_READS = 3
C_WRITES = 4
C_BUSY = 5  # ps of data on the bus
C_HEAD = 6  # first of CLASSES, of a group: next job in each class's queue (a ring)
C_TAIL = 10
C_LAST = 14  # ps; end of the last data or command
C_TAKES = 15  # detailed only: the DRAM cycle in which the next burst could be taken
C_READEND = 16  # bandwidth only: ps; until then the last read, the last write is on the bus
C_WRITEEND = 17
C_TAKEN = 18  # rows of `taken` in use
CHANNEL_COLUMNS = 19

# taken[channel, number]: the bursts that a channel took, where somebody asks for them.
B_CYCLE = 0  # the DRAM cycle
B_BURST = 1  # twice the number of the burst in its channel, by address; one more: a write
TAKEN_COLUMNS = 2

# A request of the DRAM engine, beyond its own columns.
Q_SLOT, Q_STREAM, Q_NUMBER = e.REQUEST_COLUMNS, e.REQUEST_COLUMNS + 1, e.REQUEST_COLUMNS + 2
REQUEST_COLUMNS = e.REQUEST_COLUMNS + 3

# Parameters.
P_CODEC_PS = 0
P_FIFO = 1  # payload bursts a codec FIFO holds
P_MFIFO = 2
P_WINDOW = 3  # bursts outstanding of a plain stream
P_BURST_SHIFT = 4  # log2 of a burst's bits
P_READ_PS = 5  # bandwidth detail: a burst of reads alone
P_WRITE_PS = 6
P_MIXED_PS = 7
P_LATENCY_PS = 8
P_SLOT = 9  # first of CLASSES + 1: the first slot of each class in a group; the last: all
P_TCK_NUM = 14  # clock period = NUM / DEN ps
P_TCK_DEN = 15
P_CHANNELS = 16
P_STRIPE = 17  # log2 of the bursts that lie in a channel before the next one's; -1: all
P_QUEUE_PS = 18  # bandwidth detail: the bursts that a channel takes ahead of its bus, as time
PARAMETER_COLUMNS = 19

FAR = 1 << 62


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _start(
    group: int, kind: int, now: int, jobs: Any, queue: Any, slots: Any, offer: Any, chan: Any,
    par: Any, rows_p: Any, rows_m: Any, times: Any,
) -> None:  # fmt: skip
    """Give the waiting jobs of a class, in order, to its free slots in a group."""
    first = group * par[P_SLOT + CLASSES]
    mask = queue.shape[2] - 1
    while chan[group, C_HEAD + kind] < chan[group, C_TAIL + kind]:
        g = -1
        for s in range(first + par[P_SLOT + kind], first + par[P_SLOT + kind + 1]):
            if slots[s, S_JOB] < 0 and (g < 0 or slots[s, S_FREE] < slots[g, S_FREE]):
                g = s
        if g < 0:
            return
        job = queue[group, kind, chan[group, C_HEAD + kind] & mask]
        chan[group, C_HEAD + kind] += 1
        start = max(jobs[job, J_READY], slots[g, S_FREE])
        for column in range(S_OFFER):
            slots[g, column] = 0
        slots[g, S_JOB] = job
        period = par[P_CODEC_PS]
        slots[g, S_CYCLE] = (start + period - 1) // period + jobs[job, J_DELAY]
        slots[g, S_LAST] = start
        slots[g, S_START] = start
        slots[g, S_PBITS] = jobs[job, J_PHEAD]
        slots[g, S_MBITS] = jobs[job, J_MHEAD]
        slots[g, S_AT] = jobs[job, J_ROWBASE] + jobs[job, J_ROWSTART]
        slots[g, S_IREADY] = FAR if jobs[job, J_DEPENDENT] else start
        if kind >= ENCODE:
            _encode(g, jobs, slots, par, rows_p, rows_m, times)
        _offer(g, max(start, now), jobs, slots, offer, par, times)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _decode(g: int, jobs: Any, slots: Any, par: Any, rows_p: Any, rows_m: Any, times: Any) -> None:
    """Advance decompressor `g` over every row whose bits have arrived; free its FIFO."""
    job = slots[g, S_JOB]
    rows, row = jobs[job, J_ROWS], slots[g, S_ROW]
    shift, period = par[P_BURST_SHIFT], par[P_CODEC_PS]
    fill = (1 << shift) - 1
    ring = times.shape[2] - 1
    pmost, mmost = jobs[job, J_PBURSTS], jobs[job, J_MBURSTS]
    pknown, mknown = slots[g, S_PKNOWN], slots[g, S_MKNOWN]
    pfreed, mfreed = slots[g, S_PFREED], slots[g, S_MFREED]
    pbits, mbits = slots[g, S_PBITS], slots[g, S_MBITS]
    cycle = slots[g, S_CYCLE]
    phave = min((pbits + fill) >> shift, pmost) if row else 0
    mhave = min((mbits + fill) >> shift, mmost) if row else 0
    base, length, pace = jobs[job, J_ROWBASE], jobs[job, J_ROWLEN], jobs[job, J_PACE]
    end = base + length
    at = slots[g, S_AT]
    while row < rows:
        pneed = pbits + np.int64(rows_p[at])
        mneed = mbits + np.int64(rows_m[at])
        pburst = min((pneed + fill) >> shift, pmost)
        mburst = min((mneed + fill) >> shift, mmost)
        if pburst > pknown or mburst > mknown:
            break
        cycle += pace
        while phave < pburst:
            cycle = max(cycle, times[g, T_PDATA, phave & ring])
            phave += 1
        while mhave < mburst:
            cycle = max(cycle, times[g, T_MDATA, mhave & ring])
            mhave += 1
        pbits, mbits = pneed, mneed
        while pfreed < pknown and (pfreed + 1) << shift <= pbits:
            times[g, T_PFREE, pfreed & ring] = cycle * period
            pfreed += 1
        while mfreed < mknown and (mfreed + 1) << shift <= mbits:
            times[g, T_MFREE, mfreed & ring] = cycle * period
            mfreed += 1
        row += 1
        at += 1
        if at == end:
            at = base
    if row == rows:  # what is left is padding: it drains as it comes
        while pfreed < pknown:
            times[g, T_PFREE, pfreed & ring] = max(cycle, times[g, T_PDATA, pfreed & ring]) * period
            pfreed += 1
        while mfreed < mknown:
            times[g, T_MFREE, mfreed & ring] = max(cycle, times[g, T_MDATA, mfreed & ring]) * period
            mfreed += 1
    slots[g, S_ROW], slots[g, S_AT] = row, at
    slots[g, S_PBITS], slots[g, S_MBITS] = pbits, mbits
    slots[g, S_CYCLE] = cycle
    slots[g, S_PFREED], slots[g, S_MFREED] = pfreed, mfreed


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _encode(g: int, jobs: Any, slots: Any, par: Any, rows_p: Any, rows_m: Any, times: Any) -> None:
    """Advance compressor `g` as far as its FIFOs have room.

    times[g, T_PDATA]: ps at which a burst is complete; times[g, T_PFREE]: the codec cycle
    from which the place of a burst that the controller took is free.
    """
    job = slots[g, S_JOB]
    rows, row = jobs[job, J_ROWS], slots[g, S_ROW]
    pmost, mmost = jobs[job, J_PBURSTS], jobs[job, J_MBURSTS]
    if rows == 0:
        slots[g, S_PKNOWN], slots[g, S_MKNOWN] = pmost, mmost
        return
    shift, period, latency = par[P_BURST_SHIFT], par[P_CODEC_PS], jobs[job, J_LATENCY]
    ring = times.shape[2] - 1
    fifo, mfifo = par[P_FIFO], par[P_MFIFO]
    pbits, mbits = slots[g, S_PBITS], slots[g, S_MBITS]
    pmade, mmade = slots[g, S_PKNOWN], slots[g, S_MKNOWN]
    plimit, mlimit = slots[g, S_PFREED] + fifo, slots[g, S_MFREED] + mfifo
    cycle = slots[g, S_CYCLE]
    base, length, pace = jobs[job, J_ROWBASE], jobs[job, J_ROWLEN], jobs[job, J_PACE]
    end = base + length
    at = slots[g, S_AT]
    while row < rows:
        pneed = pbits + np.int64(rows_p[at])
        mneed = mbits + np.int64(rows_m[at])
        pfull = min(pneed >> shift, pmost)
        mfull = min(mneed >> shift, mmost)
        if pfull > plimit or mfull > mlimit:
            break
        cycle += pace
        while pmade < pfull:
            if pmade >= fifo:
                cycle = max(cycle, times[g, T_PFREE, (pmade - fifo) & ring])
            times[g, T_PDATA, pmade & ring] = cycle * period + latency
            pmade += 1
        while mmade < mfull:
            if mmade >= mfifo:
                cycle = max(cycle, times[g, T_MFREE, (mmade - mfifo) & ring])
            times[g, T_MDATA, mmade & ring] = cycle * period + latency
            mmade += 1
        pbits, mbits = pneed, mneed
        row += 1
        at += 1
        if at == end:
            at = base
    if row == rows:  # the fill to a beat and to 64 bytes
        while pmade < min(pmost, plimit):
            if pmade >= fifo:
                cycle = max(cycle, times[g, T_PFREE, (pmade - fifo) & ring])
            times[g, T_PDATA, pmade & ring] = cycle * period + latency
            pmade += 1
        while mmade < min(mmost, mlimit):
            if mmade >= mfifo:
                cycle = max(cycle, times[g, T_MFREE, (mmade - mfifo) & ring])
            times[g, T_MDATA, mmade & ring] = cycle * period + latency
            mmade += 1
    slots[g, S_ROW], slots[g, S_AT] = row, at
    slots[g, S_PBITS], slots[g, S_MBITS] = pbits, mbits
    slots[g, S_CYCLE] = cycle
    slots[g, S_PKNOWN], slots[g, S_MKNOWN] = pmade, mmade


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _stripe(burst: int, par: Any) -> tuple[int, int]:
    """Channel and burst number within it of burst number `burst` of striped memory."""
    stripe = burst >> par[P_STRIPE]
    within = burst & ((1 << par[P_STRIPE]) - 1)
    return stripe % par[P_CHANNELS], (stripe // par[P_CHANNELS] << par[P_STRIPE]) + within


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _place(burst: int, par: Any) -> int:
    """The number within its channel of the burst that a slot knows as `burst`."""
    if par[P_STRIPE] < 0:
        return burst
    _, within = _stripe(burst, par)
    return within


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _burst(g: int, jobs: Any, slots: Any, par: Any) -> int:
    """The number of the burst that slot `g` offers, by address."""
    stream = slots[g, S_STREAM]
    column = S_PNEXT if stream == PAYLOAD else (S_MNEXT if stream == METADATA else S_INEXT)
    first = jobs[slots[g, S_JOB], J_PADDR + 2 * stream] >> (par[P_BURST_SHIFT] - 3)
    return first + slots[g, column]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _note(c: int, cycle: int, burst: int, writes: int, chan: Any, taken: Any) -> None:
    """Note that channel `c` takes a burst."""
    at = chan[c, C_TAKEN]
    taken[c, at, B_CYCLE], taken[c, at, B_BURST] = cycle, burst << 1 | writes
    chan[c, C_TAKEN] = at + 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _offer(g: int, now: int, jobs: Any, slots: Any, offer: Any, par: Any, times: Any) -> None:
    """Note the next burst that slot `g` would send from `now` on, and when; FAR: none yet.

    ``offer[channel * slots + slot]`` is where the channel sees it.
    """
    if jobs[slots[g, S_JOB], J_CLASS] < ENCODE:
        when = _next_read(g, now, jobs, slots, par, times)
    else:
        when = _next_write(g, now, jobs, slots, times)
    at = slots[g, S_OFFER]
    if par[P_STRIPE] >= 0 and when < FAR:
        offer[at] = FAR
        channel, _ = _stripe(_burst(g, jobs, slots, par), par)
        at = channel * par[P_SLOT + CLASSES] + g
        slots[g, S_OFFER], slots[g, S_CHANNEL] = at, channel
    offer[at] = max(when, now)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _next_read(g: int, now: int, jobs: Any, slots: Any, par: Any, times: Any) -> int:
    """When a reading slot asks for its next burst, noting the stream; FAR: not known yet.

    The index goes first; metadata go before payload where they can go as soon.
    """
    job = slots[g, S_JOB]
    ring = times.shape[2] - 1
    first = FAR
    if slots[g, S_INEXT] < jobs[job, J_IBURSTS]:
        slots[g, S_STREAM] = INDEX
        return slots[g, S_START]
    depth, mdepth = par[P_FIFO] if jobs[job, J_ROWS] else par[P_WINDOW], par[P_MFIFO]
    number = slots[g, S_PNEXT]
    if number < jobs[job, J_PBURSTS] and number < slots[g, S_PFREED] + depth:
        room = times[g, T_PFREE, (number - depth) & ring]
        slots[g, S_STREAM] = PAYLOAD
        first = max(slots[g, S_IREADY], room if number >= depth else 0)
    number = slots[g, S_MNEXT]
    if number < jobs[job, J_MBURSTS] and number < slots[g, S_MFREED] + mdepth:
        room = times[g, T_MFREE, (number - mdepth) & ring]
        when = max(slots[g, S_IREADY], room if number >= mdepth else 0)
        if when <= max(now, first):
            slots[g, S_STREAM] = METADATA
            first = when
    return first


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _next_write(g: int, now: int, jobs: Any, slots: Any, times: Any) -> int:
    """When a writing slot has its next burst, noting the stream; FAR: not known yet."""
    job = slots[g, S_JOB]
    ring = times.shape[2] - 1
    plain = jobs[job, J_ROWS] == 0
    first = FAR
    if slots[g, S_PNEXT] < slots[g, S_PKNOWN]:
        slots[g, S_STREAM] = PAYLOAD
        first = slots[g, S_START] if plain else times[g, T_PDATA, slots[g, S_PNEXT] & ring]
    if slots[g, S_MNEXT] < slots[g, S_MKNOWN]:
        when = slots[g, S_START] if plain else times[g, T_MDATA, slots[g, S_MNEXT] & ring]
        if when <= max(now, first):
            slots[g, S_STREAM] = METADATA
            first = when
    elif slots[g, S_PNEXT] == jobs[job, J_PBURSTS] and slots[g, S_INEXT] < jobs[job, J_IBURSTS]:
        slots[g, S_STREAM] = INDEX
        first = slots[g, S_LAST]
    return first


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _accept(
    g: int, time: int, jobs: Any, slots: Any, par: Any, rows_p: Any, rows_m: Any, times: Any
) -> int:
    """The controller takes the offered burst at `time`; returns its number in its stream."""
    job, stream = slots[g, S_JOB], slots[g, S_STREAM]
    column = S_PNEXT if stream == PAYLOAD else (S_MNEXT if stream == METADATA else S_INEXT)
    number = slots[g, column]
    slots[g, column] = number + 1
    ring = times.shape[2] - 1
    if jobs[job, J_CLASS] < ENCODE:
        if stream < INDEX:
            times[g, stream, number & ring] = FAR
        return number
    slots[g, S_LAST] = max(slots[g, S_LAST], time)
    if jobs[job, J_ROWS] and stream < INDEX:
        period = par[P_CODEC_PS]
        times[g, T_PFREE + stream, number & ring] = (time + period - 1) // period
        slots[g, S_PFREED if stream == PAYLOAD else S_MFREED] = number + 1
        _encode(g, jobs, slots, par, rows_p, rows_m, times)
    return number


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _arrived(
    g: int, stream: int, number: int, data: int, jobs: Any, slots: Any, par: Any,
    rows_p: Any, rows_m: Any, times: Any,
) -> None:  # fmt: skip
    """The data of a read burst are there at `data`: hand them to the slot's FIFO."""
    job = slots[g, S_JOB]
    ring = times.shape[2] - 1
    if stream == INDEX:
        if number == 0 and slots[g, S_IREADY] == FAR:  # the entry's own line
            slots[g, S_IREADY] = data
        return
    if jobs[job, J_ROWS] == 0:
        # A plain stream has no unit behind it: its place is free when its data are there.
        times[g, stream, number & ring] = data
        times[g, T_PFREE + stream, number & ring] = data
        known = S_PKNOWN if stream == PAYLOAD else S_MKNOWN
        asked = slots[g, S_PNEXT if stream == PAYLOAD else S_MNEXT]
        while slots[g, known] < asked and times[g, stream, slots[g, known] & ring] != FAR:
            slots[g, known] += 1
        slots[g, S_PFREED if stream == PAYLOAD else S_MFREED] = slots[g, known]
        return
    period = par[P_CODEC_PS]
    times[g, stream, number & ring] = (data + period - 1) // period
    known = S_PKNOWN if stream == PAYLOAD else S_MKNOWN
    asked = slots[g, S_PNEXT if stream == PAYLOAD else S_MNEXT]
    before = slots[g, known]
    while slots[g, known] < asked and times[g, stream, slots[g, known] & ring] != FAR:
        slots[g, known] += 1
    if slots[g, known] > before:
        _decode(g, jobs, slots, par, rows_p, rows_m, times)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _served(
    g: int, data: int, jobs: Any, slots: Any, offer: Any, par: Any, tickets: Any, finished: Any
) -> int:
    """Count a burst of slot `g`; after the last one end its job.

    A decompressor is free after the last row, a compressor when the controller took its
    last burst, a plain stream when all its data are there or taken. Returns when the job's
    ticket is done, FAR while it is not.
    """
    job = slots[g, S_JOB]
    reads = jobs[job, J_CLASS] < ENCODE
    slots[g, S_OUT] += 1
    if reads:
        slots[g, S_LAST] = max(slots[g, S_LAST], data)
    if slots[g, S_OUT] < jobs[job, J_PBURSTS] + jobs[job, J_MBURSTS] + jobs[job, J_IBURSTS]:
        return FAR
    done = max(slots[g, S_LAST], data)
    slots[g, S_FREE] = slots[g, S_LAST]
    if reads and jobs[job, J_ROWS]:
        slots[g, S_FREE] = slots[g, S_CYCLE] * par[P_CODEC_PS]
        done = max(done, slots[g, S_FREE] + jobs[job, J_LATENCY])
    slots[g, S_JOB] = -1
    offer[slots[g, S_OFFER]] = FAR
    ticket = jobs[job, J_TICKET]
    tickets[ticket, 0] -= 1
    tickets[ticket, 1] = max(tickets[ticket, 1], done)
    if tickets[ticket, 0]:
        return FAR
    finished[0] += 1
    finished[finished[0]] = ticket
    return tickets[ticket, 1]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _first_offer(c: int, offer: Any, chan: Any, par: Any) -> int:
    per = par[P_SLOT + CLASSES]
    first = FAR
    for at in range(c * per, (c + 1) * per):
        first = min(first, offer[at])
    return max(first, chan[c, C_BUS] - par[P_QUEUE_PS]) if first < FAR else first


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _slot(c: int, i: int, par: Any) -> int:
    """The slot of offer number `i` to channel `c`."""
    return i if par[P_STRIPE] >= 0 else c * par[P_SLOT + CLASSES] + i


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def run_bandwidth(
    until: int, jobs: Any, queue: Any, slots: Any, offer: Any, chan: Any, par: Any, tickets: Any,
    finished: Any, rows_p: Any, rows_m: Any, times: Any, taken: Any,
) -> int:  # fmt: skip
    """Serve bursts at the fitted rate; return the time reached.

    That is `until`, or the end of the first ticket that is done before (``finished[0]`` of
    them, from ``finished[1]`` on), or when `taken` is full (no columns: nobody asks for the
    bursts), or FAR if nothing is left. One burst at a time is on a channel's data bus; the
    slot whose burst can go first goes first, the next in turn where several can.
    """
    per = par[P_SLOT + CLASSES]
    writers = par[P_SLOT + ENCODE]
    channels = chan.shape[0]
    horizon = until
    for group in range(queue.shape[0]):
        for kind in range(CLASSES):
            _start(group, kind, 0, jobs, queue, slots, offer, chan, par, rows_p, rows_m, times)
    for c in range(channels):
        chan[c, C_NEXT] = _first_offer(c, offer, chan, par)
    while True:
        c = 0
        for i in range(1, channels):
            if chan[i, C_NEXT] < chan[c, C_NEXT]:
                c = i
        now = chan[c, C_NEXT]
        if now >= horizon:
            return horizon
        if taken.shape[1] and chan[c, C_TAKEN] == taken.shape[1]:
            return now
        first = c * per
        best = -1
        reading, writing = chan[c, C_READEND] > now, chan[c, C_WRITEEND] > now
        turn = chan[c, C_TURN]
        for i in range(per):
            if offer[first + i] <= now:
                reading |= i < writers
                writing |= i >= writers
                if best < 0 or (best < turn <= i):
                    best = i
        g = _slot(c, best, par)
        if taken.shape[1]:
            burst = _place(_burst(g, jobs, slots, par), par)
            _note(c, _cycle(now, par), burst, best >= writers, chan, taken)
        stream = slots[g, S_STREAM]
        number = _accept(g, now, jobs, slots, par, rows_p, rows_m, times)
        cost = par[P_READ_PS] if best < writers else par[P_WRITE_PS]
        if reading and writing:
            cost = par[P_MIXED_PS]
        data = max(now, chan[c, C_BUS]) + cost
        chan[c, C_BUS] = data
        chan[c, C_BUSY] += cost
        chan[c, C_TURN] = best + 1 if best + 1 < per else 0
        if best < writers:
            chan[c, C_READS] += 1
            chan[c, C_READEND] = data
            data += par[P_LATENCY_PS]
            _arrived(g, stream, number, data, jobs, slots, par, rows_p, rows_m, times)
        else:
            chan[c, C_WRITES] += 1
            chan[c, C_WRITEEND] = data
        chan[c, C_LAST] = max(chan[c, C_LAST], data)
        kind = jobs[slots[g, S_JOB], J_CLASS]
        done = _served(g, data, jobs, slots, offer, par, tickets, finished)
        horizon = min(horizon, done)
        if slots[g, S_JOB] < 0:
            group = g // per
            _start(
                group, kind, now + 1, jobs, queue, slots, offer, chan, par, rows_p, rows_m, times
            )
        else:
            _offer(g, now + 1, jobs, slots, offer, par, times)
        chan[c, C_NEXT] = _first_offer(c, offer, chan, par)
        following = slots[g, S_CHANNEL]
        if following != c:
            chan[following, C_NEXT] = _first_offer(following, offer, chan, par)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _ps(cycle: int, par: Any) -> int:
    ps = cycle * par[P_TCK_NUM]
    return ps if par[P_TCK_DEN] == 1 else ps // par[P_TCK_DEN]  # a division takes long


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _cycle(ps: int, par: Any) -> int:
    """The first clock edge at or after `ps`."""
    return (ps * par[P_TCK_DEN] + par[P_TCK_NUM] - 1) // par[P_TCK_NUM]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _next_accept(c: int, offer: Any, st: Any, par: Any, tim: Any) -> int:
    """The cycle in which the controller could take a burst: one a cycle, where it has room."""
    per, writers = par[P_SLOT + CLASSES], par[P_SLOT + ENCODE]
    first = FAR
    if st[c, e.ST_READS] < tim[e.T_QUEUE]:
        for at in range(c * per, c * per + writers):
            first = min(first, offer[at])
    if st[c, e.ST_WRITES] < tim[e.T_QUEUE]:
        for at in range(c * per + writers, (c + 1) * per):
            first = min(first, offer[at])
    if first == FAR:
        return first
    following = st[c, e.ST_CLOCK] + 1
    if first * par[P_TCK_DEN] <= following * par[P_TCK_NUM]:  # as `_cycle`, undivided
        return following
    return _cycle(first, par)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _ready_slot(c: int, now: int, offer: Any, chan: Any, st: Any, par: Any, tim: Any) -> int:
    """The slot, in turn, whose burst the controller takes at `now` (ps)."""
    per, writers = par[P_SLOT + CLASSES], par[P_SLOT + ENCODE]
    best, turn = -1, chan[c, C_TURN]
    for i in range(per):
        room = st[c, e.ST_READS if i < writers else e.ST_WRITES] < tim[e.T_QUEUE]
        if room and offer[c * per + i] <= now and (best < 0 or (best < turn <= i)):
            best = i
    chan[c, C_TURN] = best + 1 if best + 1 < per else 0
    return _slot(c, best, par)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _plan(c: int, offer: Any, chan: Any, st: Any, par: Any, tim: Any) -> None:
    """Note when channel `c` takes its next burst and when anything happens in it."""
    takes = _next_accept(c, offer, st, par, tim)
    chan[c, C_TAKES] = takes
    cycle = min(takes, st[c, e.ST_BESTAT])
    chan[c, C_NEXT] = _ps(cycle, par) if cycle < FAR else FAR


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def run_detailed(
    until: int, jobs: Any, queue: Any, slots: Any, offer: Any, chan: Any, par: Any, tickets: Any,
    finished: Any, rows_p: Any, rows_m: Any, times: Any, taken: Any, st: Any, bk: Any, tm: Any,
    rk: Any, rq: Any, fr: Any, ft: Any, tim: Any, log: Any,
) -> int:  # fmt: skip
    """Serve bursts command by command; return the time reached, as `run_bandwidth` does.

    In a cycle the controller first takes one burst of the slots, in turn, then issues one
    command. A write is done for its slot when it is taken; a read of an address whose
    write waits is answered from the queue a cycle later.
    """
    channels = chan.shape[0]
    horizon = until
    for group in range(queue.shape[0]):
        for kind in range(CLASSES):
            _start(group, kind, 0, jobs, queue, slots, offer, chan, par, rows_p, rows_m, times)
    for c in range(channels):
        _plan(c, offer, chan, st, par, tim)
    while True:
        c = 0
        for i in range(1, channels):
            if chan[i, C_NEXT] < chan[c, C_NEXT]:
                c = i
        if chan[c, C_NEXT] >= horizon:
            return horizon
        if taken.shape[1] and chan[c, C_TAKEN] == taken.shape[1]:
            return chan[c, C_NEXT]
        cycle = min(chan[c, C_TAKES], st[c, e.ST_BESTAT])
        if chan[c, C_TAKES] == cycle:
            done = _take_burst(
                c, cycle, jobs, queue, slots, offer, chan, par, tickets, finished, rows_p, rows_m,
                times, taken, st, bk, tm, rk, rq, fr, ft, tim, log,
            )  # fmt: skip
            horizon = min(horizon, done)
        st[c, e.ST_CLOCK] = cycle
        if st[c, e.ST_BESTAT] == cycle:
            request, kind = st[c, e.ST_WHICH], st[c, e.ST_MODE]
            chan[c, C_LAST] = max(chan[c, C_LAST], _ps(cycle, par))
            if st[c, e.ST_VALID] != e.COLUMN:
                e.issue_row(cycle, st[c], bk[c], tm[c], rk[c], rq[c], tim, log)
            else:
                end = e.issue_column(
                    cycle, st[c], bk[c], tm[c], rk[c], rq[c], fr[c], ft[c], tim, log
                )
                chan[c, C_WRITES if kind else C_READS] += 1
                chan[c, C_BUSY] += _ps(end, par) - _ps(end - tim[e.T_BURST], par)
                chan[c, C_LAST] = max(chan[c, C_LAST], _ps(end, par))
                if not kind:
                    done = _deliver(
                        c, request, _ps(cycle, par), _ps(end, par), jobs, queue, slots, offer,
                        chan, par, tickets, finished, rows_p, rows_m, times, st, rq, tim,
                    )  # fmt: skip
                    horizon = min(horizon, done)
            e.choose(st[c], bk[c], tm[c], rq[c], tim)
        _plan(c, offer, chan, st, par, tim)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _take_burst(
    c: int, cycle: int, jobs: Any, queue: Any, slots: Any, offer: Any, chan: Any, par: Any,
    tickets: Any, finished: Any, rows_p: Any, rows_m: Any, times: Any, taken: Any, st: Any,
    bk: Any, tm: Any, rk: Any, rq: Any, fr: Any, ft: Any, tim: Any, log: Any,
) -> int:  # fmt: skip
    """Take a burst into the controller; returns when a ticket is done by that, or FAR."""
    now = _ps(cycle, par)
    if not st[c, e.ST_READS] and not st[c, e.ST_WRITES]:
        e.refresh_idle(cycle, st[c], bk[c], tm[c], rk[c], rq[c], tim, log)
    st[c, e.ST_CLOCK] = cycle
    g = _ready_slot(c, now, offer, chan, st, par, tim)
    job, stream = slots[g, S_JOB], slots[g, S_STREAM]
    kind = jobs[job, J_CLASS]
    acc = _place(_burst(g, jobs, slots, par), par)
    number = _accept(g, now, jobs, slots, par, rows_p, rows_m, times)
    row = e.field(acc, e.M_ROW, tim)
    bank = e.bank_of(acc, row, tim)
    writes = 1 if kind >= ENCODE else 0
    if taken.shape[1]:
        _note(c, cycle, acc, writes, chan, taken)
    done = FAR
    if not writes and e.is_queued(acc, bank, bk[c], rq[c], ft[c]):
        st[c, e.ST_FORWARDED] += 1
        data = _ps(cycle + 1, par)
        chan[c, C_LAST] = max(chan[c, C_LAST], data)
        _arrived(g, stream, number, data, jobs, slots, par, rows_p, rows_m, times)
        done = _served(g, data, jobs, slots, offer, par, tickets, finished)
    else:
        e.rouse(bank, cycle, st[c], bk[c], tm[c], rk[c], rq[c], tim, log)
        request = e.enqueue(acc, row, bank, writes, st[c], bk[c], rq[c], fr[c], ft[c])
        rq[c, request, Q_SLOT], rq[c, request, Q_STREAM] = g, stream
        rq[c, request, Q_NUMBER] = number
        e.queued(bank, writes, st[c], bk[c], tm[c], rq[c], tim)
        if writes:
            done = _served(g, now, jobs, slots, offer, par, tickets, finished)
    if slots[g, S_JOB] < 0:
        group = g // par[P_SLOT + CLASSES]
        _start(group, kind, now + 1, jobs, queue, slots, offer, chan, par, rows_p, rows_m, times)
    else:
        _offer(g, now + 1, jobs, slots, offer, par, times)
    following = slots[g, S_CHANNEL]
    if following != c:
        _plan(following, offer, chan, st, par, tim)
    return done


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _deliver(
    c: int, request: int, now: int, data: int, jobs: Any, queue: Any, slots: Any, offer: Any,
    chan: Any, par: Any, tickets: Any, finished: Any, rows_p: Any, rows_m: Any, times: Any,
    st: Any, rq: Any, tim: Any,
) -> int:  # fmt: skip
    """Hand the data of a read to its slot; returns when a ticket is done by that, or FAR."""
    g = rq[c, request, Q_SLOT]
    stream, number = rq[c, request, Q_STREAM], rq[c, request, Q_NUMBER]
    kind = jobs[slots[g, S_JOB], J_CLASS]
    _arrived(g, stream, number, data, jobs, slots, par, rows_p, rows_m, times)
    done = _served(g, data, jobs, slots, offer, par, tickets, finished)
    before = slots[g, S_CHANNEL]
    if slots[g, S_JOB] < 0:
        group = g // par[P_SLOT + CLASSES]
        _start(group, kind, now, jobs, queue, slots, offer, chan, par, rows_p, rows_m, times)
    else:
        _offer(g, now, jobs, slots, offer, par, times)
    following = slots[g, S_CHANNEL]
    if before != c:
        _plan(before, offer, chan, st, par, tim)
    if following not in (before, c):
        _plan(following, offer, chan, st, par, tim)
    return done


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def close_detailed(
    end: int, par: Any, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, tim: Any, log: Any
) -> None:
    """Count what falls due up to time `end` (ps): refreshes, cycles asleep and with open rows."""
    cycle = end * par[P_TCK_DEN] // par[P_TCK_NUM]
    for c in range(st.shape[0]):
        e.refresh_idle(cycle, st[c], bk[c], tm[c], rk[c], rq[c], tim, log)
        for rank in range(tim[e.T_RANKS]):
            e.wake(rank, cycle, True, st[c], bk[c], tm[c], rk[c], rq[c], tim, log)
        for rank in range(tim[e.T_RANKS]):
            if rk[c, rank, e.R_OPEN]:
                opened = max(0, cycle - rk[c, rank, e.R_SINCE])
                rk[c, rank, e.R_OPENCYCLES] += opened
                rk[c, rank, e.R_SINCE] = max(rk[c, rank, e.R_SINCE], cycle)
