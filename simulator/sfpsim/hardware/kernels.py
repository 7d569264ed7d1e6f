"""What happens inside a channel: codec units, FIFOs, controller and DRAM, burst by burst.

simpy sees windows of time; everything finer is here. A channel has *slots*: a read slot is
a decompressor (or a plain DMA stream), a write slot a compressor (or a plain DMA stream).
A slot works on one *job*, a block of a tensor. The two kernels `run_bandwidth` and
`run_detailed` share the slots and differ in what serves a burst. docs/hardware.md says
what enters and leaves in each cycle. All times are integer picoseconds.

numba does not notice a changed helper in another file, so the helpers stand here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

I64 = NDArray[np.int64]

# Columns of a job (one row an int64 vector).
J_CLASS = 0  # DECODE, PLAIN_READ, ENCODE, PLAIN_WRITE
J_READY = 1  # ps; may not start before
J_PADDR = 2  # payload: byte address of the first burst in the channel
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
JOB_COLUMNS = 17

DECODE, PLAIN_READ, ENCODE, PLAIN_WRITE = 0, 1, 2, 3
CLASSES = 4

# Columns of a slot.
S_JOB = 0
S_PNEXT = 1  # payload bursts requested
S_PKNOWN = 2  # read: bursts whose data time is known; write: bursts produced
S_PFREED = 3  # read: bursts drained; write: bursts accepted
S_MNEXT = 4
S_MKNOWN = 5
S_MFREED = 6
S_INEXT = 7
S_IREADY = 8
S_ROW = 9
S_PBITS = 10
S_MBITS = 11
S_ROWTIME = 12
S_LAST = 13  # latest data time seen
S_FREE = 14  # slot free from
S_OUT = 15  # bursts served (with data times)
S_START = 16
S_OFFER = 17  # when its next burst could go
S_STREAM = 18
SLOT_COLUMNS = 19

# Columns of the channel's state.
C_BUS = 0  # ps: the data bus is taken until then
C_TURN = 1  # round-robin pointer
C_READS = 2
C_WRITES = 3
C_ACTIVE = 4  # slots at work
C_BUSY = 5  # ps of data on the bus
C_FINISHED = 6  # tickets in the list of finished ones
C_HEAD = 7  # first of CLASSES: next job of each class in its queue
C_TAIL = 11  # first of CLASSES: end of each class's queue
CHANNEL_COLUMNS = 15

# Columns of the parameters.
P_CODEC_PS = 0
P_FIFO = 1  # payload bursts a codec FIFO holds
P_MFIFO = 2
P_WINDOW = 3  # bursts outstanding of a plain stream
P_BURST_BITS = 4
P_READ_PS = 5  # bandwidth detail: a burst of reads alone
P_WRITE_PS = 6
P_MIXED_PS = 7
P_LATENCY_PS = 8
P_SLOT = 9  # first of CLASSES + 1: the first slot of each class
PARAMETER_COLUMNS = 14

FAR = 1 << 62


@njit(cache=True, nogil=True, inline="always")
def _align(time: int, period: int) -> int:
    return (time + period - 1) // period * period


@njit(cache=True, nogil=True)
def _start_jobs(
    kind: int, jobs: Any, queue: Any, slots: Any, chan: Any, par: Any,
    rows_p: Any, rows_m: Any, times: Any,
) -> None:  # fmt: skip
    """Give the waiting jobs of class `kind`, in order, to its free slots."""
    while chan[C_HEAD + kind] < chan[C_TAIL + kind]:
        best = -1
        for s in range(par[P_SLOT + kind], par[P_SLOT + kind + 1]):
            if slots[s, S_JOB] < 0 and (best < 0 or slots[s, S_FREE] < slots[best, S_FREE]):
                best = s
        if best < 0:
            return
        job = queue[kind, chan[C_HEAD + kind]]
        chan[C_HEAD + kind] += 1
        start = max(jobs[job, J_READY], slots[best, S_FREE])
        for c in range(SLOT_COLUMNS):
            slots[best, c] = 0
        slots[best, S_JOB] = job
        slots[best, S_ROWTIME] = start
        slots[best, S_LAST] = start
        slots[best, S_START] = start
        slots[best, S_PBITS] = jobs[job, J_PHEAD]
        slots[best, S_MBITS] = jobs[job, J_MHEAD]
        slots[best, S_IREADY] = FAR if jobs[job, J_DEPENDENT] else start
        times[best, :, :] = start
        chan[C_ACTIVE] += 1
        if kind >= ENCODE:
            _encode(best, jobs, slots, par, rows_p, rows_m, times)
        _offer(best, jobs, slots, par, times)


@njit(cache=True, nogil=True)
def _decode(s: int, jobs: Any, slots: Any, par: Any, rows_p: Any, rows_m: Any, times: Any) -> None:
    """Advance decompressor `s` over every row whose bits have arrived; free its FIFO.

    times[s, 0/1]: data time of payload / metadata bursts; times[s, 2/3]: when each FIFO
    place became free (rings).
    """
    job = slots[s, S_JOB]
    rows = jobs[job, J_ROWS]
    burst_bits = par[P_BURST_BITS]
    fifo = par[P_FIFO]
    mfifo = par[P_MFIFO]
    period = par[P_CODEC_PS]
    base = jobs[job, J_ROWBASE]
    length = jobs[job, J_ROWLEN]
    row = slots[s, S_ROW]
    pbits = slots[s, S_PBITS]
    mbits = slots[s, S_MBITS]
    time = slots[s, S_ROWTIME]
    pfreed = slots[s, S_PFREED]
    mfreed = slots[s, S_MFREED]
    at = base + (jobs[job, J_ROWSTART] + row) % length
    end = base + length
    while row < rows:
        pneed = pbits + np.int64(rows_p[at])
        mneed = mbits + np.int64(rows_m[at])
        pburst = min((pneed + burst_bits - 1) // burst_bits, jobs[job, J_PBURSTS])
        mburst = min((mneed + burst_bits - 1) // burst_bits, jobs[job, J_MBURSTS])
        if pburst > slots[s, S_PKNOWN] or mburst > slots[s, S_MKNOWN]:
            break
        ready = time + period
        if pburst > 0:
            ready = max(ready, times[s, 0, (pburst - 1) % fifo])
        if mburst > 0:
            ready = max(ready, times[s, 1, (mburst - 1) % mfifo])
        ready = _align(ready, period)
        time = ready
        pbits = pneed
        mbits = mneed
        while (pfreed + 1) * burst_bits <= pbits and pfreed < slots[s, S_PKNOWN]:
            times[s, 2, pfreed % fifo] = time
            pfreed += 1
        while (mfreed + 1) * burst_bits <= mbits and mfreed < slots[s, S_MKNOWN]:
            times[s, 3, mfreed % mfifo] = time
            mfreed += 1
        row += 1
        at += 1
        if at == end:
            at = base
    if row == rows:  # what is left is padding: it drains as it comes
        while pfreed < slots[s, S_PKNOWN]:
            times[s, 2, pfreed % fifo] = max(time, times[s, 0, pfreed % fifo])
            pfreed += 1
        while mfreed < slots[s, S_MKNOWN]:
            times[s, 3, mfreed % mfifo] = max(time, times[s, 1, mfreed % mfifo])
            mfreed += 1
    slots[s, S_ROW] = row
    slots[s, S_PBITS] = pbits
    slots[s, S_MBITS] = mbits
    slots[s, S_ROWTIME] = time
    slots[s, S_PFREED] = pfreed
    slots[s, S_MFREED] = mfreed


@njit(cache=True, nogil=True)
def _encode(s: int, jobs: Any, slots: Any, par: Any, rows_p: Any, rows_m: Any, times: Any) -> None:
    """Advance compressor `s` as far as its FIFOs have room.

    times[s, 0/1]: when each burst is complete; times[s, 2/3]: when each FIFO place was
    freed (the burst was accepted by the controller).
    """
    job = slots[s, S_JOB]
    rows = jobs[job, J_ROWS]
    if rows == 0:
        slots[s, S_PKNOWN] = jobs[job, J_PBURSTS]
        slots[s, S_MKNOWN] = jobs[job, J_MBURSTS]
        return
    burst_bits = par[P_BURST_BITS]
    fifo = par[P_FIFO]
    mfifo = par[P_MFIFO]
    period = par[P_CODEC_PS]
    latency = jobs[job, J_LATENCY]
    base = jobs[job, J_ROWBASE]
    length = jobs[job, J_ROWLEN]
    row = slots[s, S_ROW]
    pbits = slots[s, S_PBITS]
    mbits = slots[s, S_MBITS]
    time = slots[s, S_ROWTIME]
    pknown = slots[s, S_PKNOWN]
    mknown = slots[s, S_MKNOWN]
    plimit = slots[s, S_PFREED] + fifo
    mlimit = slots[s, S_MFREED] + mfifo
    at = base + (jobs[job, J_ROWSTART] + row) % length
    end = base + length
    while row < rows:
        pneed = pbits + np.int64(rows_p[at])
        mneed = mbits + np.int64(rows_m[at])
        pmade = min(pneed // burst_bits, jobs[job, J_PBURSTS])
        mmade = min(mneed // burst_bits, jobs[job, J_MBURSTS])
        if pmade > plimit or mmade > mlimit:
            break
        ready = time + period
        if pmade > pknown:
            ready = max(ready, times[s, 2, (pmade - 1) % fifo])
        if mmade > mknown:
            ready = max(ready, times[s, 3, (mmade - 1) % mfifo])
        ready = _align(ready, period)
        time = ready
        while pknown < pmade:
            times[s, 0, pknown % fifo] = time + latency
            pknown += 1
        while mknown < mmade:
            times[s, 1, mknown % mfifo] = time + latency
            mknown += 1
        pbits = pneed
        mbits = mneed
        row += 1
        at += 1
        if at == end:
            at = base
    if row == rows:  # the fill to a beat and to 64 bytes
        while pknown < jobs[job, J_PBURSTS] and pknown < plimit:
            times[s, 0, pknown % fifo] = max(time, times[s, 2, pknown % fifo]) + latency
            pknown += 1
        while mknown < jobs[job, J_MBURSTS] and mknown < mlimit:
            times[s, 1, mknown % mfifo] = max(time, times[s, 3, mknown % mfifo]) + latency
            mknown += 1
    slots[s, S_ROW] = row
    slots[s, S_PBITS] = pbits
    slots[s, S_MBITS] = mbits
    slots[s, S_ROWTIME] = time
    slots[s, S_PKNOWN] = pknown
    slots[s, S_MKNOWN] = mknown


@njit(cache=True, nogil=True)
def _offer(s: int, jobs: Any, slots: Any, par: Any, times: Any) -> None:
    """Note the next burst that slot `s` would send and when; FAR: none."""
    if jobs[slots[s, S_JOB], J_CLASS] < ENCODE:
        _offer_read(s, jobs, slots, par, times)
    else:
        _offer_write(s, jobs, slots, par, times)


@njit(cache=True, nogil=True)
def _offer_read(s: int, jobs: Any, slots: Any, par: Any, times: Any) -> None:
    job = slots[s, S_JOB]
    slots[s, S_OFFER] = FAR
    slots[s, S_STREAM] = 0
    if slots[s, S_INEXT] < jobs[job, J_IBURSTS]:
        slots[s, S_STREAM] = 2
        slots[s, S_OFFER] = slots[s, S_START]
        return
    number = slots[s, S_MNEXT]
    if number < jobs[job, J_MBURSTS] and number < slots[s, S_MFREED] + par[P_MFIFO]:
        slots[s, S_STREAM] = 1
        slots[s, S_OFFER] = max(times[s, 3, number % par[P_MFIFO]], slots[s, S_IREADY])
        return
    number = slots[s, S_PNEXT]
    if number >= jobs[job, J_PBURSTS]:
        return
    if jobs[job, J_ROWS] == 0:
        if number < slots[s, S_PKNOWN] + par[P_WINDOW]:
            slots[s, S_OFFER] = max(times[s, 2, number % par[P_WINDOW]], slots[s, S_IREADY])
    elif number < slots[s, S_PFREED] + par[P_FIFO]:
        slots[s, S_OFFER] = max(times[s, 2, number % par[P_FIFO]], slots[s, S_IREADY])


@njit(cache=True, nogil=True)
def _offer_write(s: int, jobs: Any, slots: Any, par: Any, times: Any) -> None:
    job = slots[s, S_JOB]
    slots[s, S_OFFER] = FAR
    slots[s, S_STREAM] = 0
    plain = jobs[job, J_ROWS] == 0
    if slots[s, S_MNEXT] < slots[s, S_MKNOWN]:
        number = slots[s, S_MNEXT] % par[P_MFIFO]
        slots[s, S_STREAM] = 1
        slots[s, S_OFFER] = slots[s, S_START] if plain else times[s, 1, number]
    elif slots[s, S_PNEXT] < slots[s, S_PKNOWN]:
        number = slots[s, S_PNEXT] % par[P_FIFO]
        slots[s, S_OFFER] = slots[s, S_START] if plain else times[s, 0, number]
    elif slots[s, S_PNEXT] == jobs[job, J_PBURSTS] and slots[s, S_INEXT] < jobs[job, J_IBURSTS]:
        slots[s, S_STREAM] = 2
        slots[s, S_OFFER] = slots[s, S_LAST]


@njit(cache=True, nogil=True)
def _accept(
    s: int, stream: int, time: int, jobs: Any, slots: Any, par: Any,
    rows_p: Any, rows_m: Any, times: Any,
) -> int:  # fmt: skip
    """The controller takes the offered burst at `time`; returns its number in its stream."""
    job = slots[s, S_JOB]
    column = S_PNEXT if stream == 0 else (S_MNEXT if stream == 1 else S_INEXT)
    number = slots[s, column]
    slots[s, column] = number + 1
    if jobs[job, J_CLASS] >= ENCODE:
        if stream == 0:
            times[s, 2, number % par[P_FIFO]] = time
            slots[s, S_PFREED] = number + 1
        elif stream == 1:
            times[s, 3, number % par[P_MFIFO]] = time
            slots[s, S_MFREED] = number + 1
        slots[s, S_LAST] = max(slots[s, S_LAST], time)
        if jobs[job, J_ROWS] > 0 and stream < 2:
            _encode(s, jobs, slots, par, rows_p, rows_m, times)
    return number


@njit(cache=True, nogil=True)
def _served(
    s: int, stream: int, number: int, data: int, jobs: Any, slots: Any, chan: Any, par: Any,
    tickets: Any, finished: Any, rows_p: Any, rows_m: Any, times: Any,
) -> None:  # fmt: skip
    """A burst's data is on the bus until `data`: hand it on; end the job after its last."""
    job = slots[s, S_JOB]
    slots[s, S_OUT] += 1
    slots[s, S_LAST] = max(slots[s, S_LAST], data)
    rows = jobs[job, J_ROWS]
    if jobs[job, J_CLASS] < ENCODE:
        if stream == 2:
            if slots[s, S_IREADY] == FAR:
                slots[s, S_IREADY] = data
        elif rows == 0:
            if stream == 0:
                times[s, 2, number % par[P_WINDOW]] = data
                slots[s, S_PKNOWN] += 1
        else:
            if stream == 0:
                times[s, 0, number % par[P_FIFO]] = data
                if number == slots[s, S_PKNOWN]:
                    slots[s, S_PKNOWN] = number + 1
            else:
                times[s, 1, number % par[P_MFIFO]] = data
                slots[s, S_MKNOWN] = number + 1
            _decode(s, jobs, slots, par, rows_p, rows_m, times)
    if slots[s, S_OUT] == jobs[job, J_PBURSTS] + jobs[job, J_MBURSTS] + jobs[job, J_IBURSTS]:
        _finish(s, jobs, slots, chan, tickets, finished)


@njit(cache=True, nogil=True)
def _finish(s: int, jobs: Any, slots: Any, chan: Any, tickets: Any, finished: Any) -> None:
    """End the job of slot `s` and count it on its ticket."""
    job = slots[s, S_JOB]
    rows = jobs[job, J_ROWS]
    done = slots[s, S_LAST]
    if jobs[job, J_CLASS] == DECODE and rows > 0:
        done = max(done, slots[s, S_ROWTIME] + jobs[job, J_LATENCY])
    slots[s, S_FREE] = slots[s, S_ROWTIME] if rows > 0 else slots[s, S_LAST]
    slots[s, S_JOB] = -1
    slots[s, S_OFFER] = FAR
    chan[C_ACTIVE] -= 1
    ticket = jobs[job, J_TICKET]
    tickets[ticket, 0] -= 1
    tickets[ticket, 1] = max(tickets[ticket, 1], done)
    if tickets[ticket, 0] == 0:
        finished[chan[C_FINISHED]] = ticket
        chan[C_FINISHED] += 1


@njit(cache=True, nogil=True)
def run_bandwidth(
    until: int, jobs: Any, queue: Any, slots: Any, chan: Any, par: Any, tickets: Any,
    finished: Any, rows_p: Any, rows_m: Any, times: Any,
) -> None:  # fmt: skip
    """Serve bursts at the fitted rate up to time `until` or until nothing is left.

    One burst at a time on the data bus; the slot whose burst can go first goes first, the
    next in turn where several can.
    """
    writers = par[P_SLOT + ENCODE]
    total = par[P_SLOT + CLASSES]
    for kind in range(CLASSES):
        _start_jobs(kind, jobs, queue, slots, chan, par, rows_p, rows_m, times)
    while chan[C_ACTIVE] > 0:
        bus = chan[C_BUS]
        best = -1
        best_time = FAR
        reading = False
        writing = False
        s = chan[C_TURN]
        for _ in range(total):
            time = slots[s, S_OFFER]
            if time <= bus:
                time = bus
                if s < writers:
                    reading = True
                else:
                    writing = True
            if time < best_time:
                best_time = time
                best = s
            s += 1
            if s == total:
                s = 0
        if best_time >= until:
            return
        kind = jobs[slots[best, S_JOB], J_CLASS]
        stream = slots[best, S_STREAM]
        cost = par[P_READ_PS] if kind < ENCODE else par[P_WRITE_PS]
        if reading and writing:
            cost = par[P_MIXED_PS]
        number = _accept(best, stream, best_time, jobs, slots, par, rows_p, rows_m, times)
        chan[C_BUS] = best_time + cost
        chan[C_BUSY] += cost
        chan[C_TURN] = best + 1 if best + 1 < total else 0
        data = chan[C_BUS]
        if kind < ENCODE:
            chan[C_READS] += 1
            data += par[P_LATENCY_PS]
        else:
            chan[C_WRITES] += 1
        _served(
            best, stream, number, data, jobs, slots, chan, par, tickets, finished,
            rows_p, rows_m, times,
        )  # fmt: skip
        if slots[best, S_JOB] < 0:
            _start_jobs(kind, jobs, queue, slots, chan, par, rows_p, rows_m, times)
        else:
            _offer(best, jobs, slots, par, times)
