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
J_KIND = 0  # 0 read, 1 write
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
J_ROWS = 12  # rows of this block; 0: no codec (raw block, plain container)
J_LATENCY = 13  # ps, codec pipeline
J_PHEAD = 14  # bits of the first payload burst before the block starts
J_MHEAD = 15
J_DONE = 16  # out: ps
J_WAIT = 17  # out: ps that the slot's rows waited for memory
JOB_COLUMNS = 18

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
SLOT_COLUMNS = 17

# Columns of the channel's state.
C_CLOCK = 0  # ps: nothing is issued before
C_BUS = 1
C_TURN = 2  # round-robin pointer
C_READS = 3
C_WRITES = 4
C_NEXTJOB = 5
C_ACTIVE = 6  # slots at work
C_BUSY = 7  # ps of data on the bus
C_ACT = 8
C_PRE = 9
C_REF = 10
C_FORWARDED = 11
C_ACTIVE_CYCLES = 12  # DRAM cycles with a row open
C_LASTKIND = 13
C_OPENSINCE = 14
C_OPEN = 15
C_NEXTREF = 16
C_DRAIN = 17
C_RQ = 18
C_WQ = 19
C_CMD = 20
C_LASTDATA = 21
C_SEQ = 22
CHANNEL_COLUMNS = 24

# Columns of the parameters.
P_CODEC_PS = 0
P_FIFO = 1  # payload bursts a codec FIFO holds
P_MFIFO = 2
P_WINDOW = 3  # bursts outstanding of a plain stream
P_BURST_BITS = 4
P_READ_SLOTS = 5
P_WRITE_SLOTS = 6
P_READ_PS = 7  # bandwidth detail: a burst of reads alone
P_WRITE_PS = 8
P_MIXED_PS = 9
P_LATENCY_PS = 10
P_BURST_BYTES = 11
P_PLAIN_SLOTS = 12
PARAMETER_COLUMNS = 16

# DRAM timing, cycles.
T_CK_PS = 0
T_BURST = 1
T_CL = 2
T_CWL = 3
T_RCD = 4
T_RP = 5
T_RAS = 6
T_RRD = 7
T_FAW = 8
T_WTR = 9
T_WR = 10
T_RTP = 11
T_CCD = 12
T_RTW = 13
T_RFC = 14
T_REFI = 15
T_BANKS = 16
T_ROW_BYTES = 17
T_QUEUE = 18
T_HIGH = 19
T_LOW = 20
T_CAP = 21
T_CMD_ACT = 22
T_CMD_COL = 23
T_PPD = 24
TIMING_COLUMNS = 25

# Columns of a queue entry.
Q_BANK = 0
Q_ROW = 1
Q_ARRIVAL = 2  # cycles
Q_SLOT = 3
Q_STREAM = 4  # 0 payload, 1 metadata, 2 index
Q_NUMBER = 5
Q_ADDRESS = 6
QUEUE_COLUMNS = 7

FAR = 1 << 62


@njit(cache=True, nogil=True, inline="always")
def _align(time: int, period: int) -> int:
    return (time + period - 1) // period * period


@njit(cache=True, nogil=True)
def _start_jobs(
    jobs: Any, slots: Any, chan: Any, par: Any, rows_p: Any, rows_m: Any, times: Any
) -> None:
    """Give waiting jobs, in order and by kind, to free slots of their kind."""
    reads = par[P_READ_SLOTS]
    total = reads + par[P_WRITE_SLOTS]
    blocked_read = False
    blocked_write = False
    n = chan[C_NEXTJOB]
    position = n
    while position < jobs.shape[0] and not (blocked_read and blocked_write):
        if jobs[position, J_DONE] != -1:
            position += 1
            continue
        kind = jobs[position, J_KIND]
        if (kind == 0 and blocked_read) or (kind == 1 and blocked_write):
            position += 1
            continue
        first = np.int64(0) if kind == 0 else reads
        last = reads if kind == 0 else total
        best = -1
        for s in range(first, last):
            if slots[s, S_JOB] < 0 and (best < 0 or slots[s, S_FREE] < slots[best, S_FREE]):
                best = s
        if best < 0:
            if kind == 0:
                blocked_read = True
            else:
                blocked_write = True
        else:
            jobs[position, J_DONE] = -2
            start = max(jobs[position, J_READY], slots[best, S_FREE])
            for c in range(SLOT_COLUMNS):
                slots[best, c] = 0
            slots[best, S_JOB] = position
            slots[best, S_ROWTIME] = start
            slots[best, S_LAST] = start
            slots[best, S_START] = start
            slots[best, S_PBITS] = jobs[position, J_PHEAD]
            slots[best, S_MBITS] = jobs[position, J_MHEAD]
            slots[best, S_IREADY] = FAR if jobs[position, J_DEPENDENT] else start
            times[best, :, :] = start
            chan[C_ACTIVE] += 1
            if kind == 1:
                _encode(best, jobs, slots, par, rows_p, rows_m, times)
        position += 1
    while n < jobs.shape[0] and jobs[n, J_DONE] != -1:
        n += 1
    chan[C_NEXTJOB] = n


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
        pburst = (pneed + burst_bits - 1) // burst_bits
        mburst = (mneed + burst_bits - 1) // burst_bits
        if pburst > slots[s, S_PKNOWN] or mburst > slots[s, S_MKNOWN]:
            break
        ready = time + period
        if pburst > 0:
            ready = max(ready, times[s, 0, (pburst - 1) % fifo])
        if mburst > 0:
            ready = max(ready, times[s, 1, (mburst - 1) % mfifo])
        ready = _align(ready, period)
        jobs[job, J_WAIT] += ready - time - period
        time = ready
        pbits = pneed
        mbits = mneed
        while (pfreed + 1) * burst_bits <= pbits:
            times[s, 2, pfreed % fifo] = time
            pfreed += 1
        while (mfreed + 1) * burst_bits <= mbits:
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
        pmade = pneed // burst_bits
        mmade = mneed // burst_bits
        if pmade > plimit or mmade > mlimit:
            break
        ready = time + period
        if pmade > pknown:
            ready = max(ready, times[s, 2, (pmade - 1) % fifo])
        if mmade > mknown:
            ready = max(ready, times[s, 3, (mmade - 1) % mfifo])
        ready = _align(ready, period)
        jobs[job, J_WAIT] += ready - time - period
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
def _offer(s: int, jobs: Any, slots: Any, par: Any, times: Any) -> tuple[int, int]:
    """The next burst that slot `s` would send: (earliest time, stream); FAR: none."""
    job = slots[s, S_JOB]
    fifo = par[P_FIFO]
    mfifo = par[P_MFIFO]
    plain = jobs[job, J_ROWS] == 0
    if jobs[job, J_KIND] == 0:
        if slots[s, S_INEXT] < jobs[job, J_IBURSTS]:
            return slots[s, S_START], 2
        if slots[s, S_MNEXT] < jobs[job, J_MBURSTS]:
            number = slots[s, S_MNEXT]
            if number < slots[s, S_MFREED] + mfifo:
                return max(times[s, 3, number % mfifo], slots[s, S_IREADY]), 1
        number = slots[s, S_PNEXT]
        if number >= jobs[job, J_PBURSTS]:
            return FAR, 0
        if plain:
            window = par[P_WINDOW]
            if number >= slots[s, S_PKNOWN] + window:
                return FAR, 0
            return max(times[s, 2, number % window], slots[s, S_IREADY]), 0
        if number >= slots[s, S_PFREED] + fifo:
            return FAR, 0
        return max(times[s, 2, number % fifo], slots[s, S_IREADY]), 0
    if slots[s, S_MNEXT] < slots[s, S_MKNOWN]:
        return (slots[s, S_START] if plain else times[s, 1, slots[s, S_MNEXT] % mfifo]), 1
    if slots[s, S_PNEXT] < slots[s, S_PKNOWN]:
        return (slots[s, S_START] if plain else times[s, 0, slots[s, S_PNEXT] % fifo]), 0
    if slots[s, S_PNEXT] == jobs[job, J_PBURSTS] and slots[s, S_INEXT] < jobs[job, J_IBURSTS]:
        return slots[s, S_LAST], 2
    return FAR, 0


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
    if jobs[job, J_KIND] == 1:
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
    rows_p: Any, rows_m: Any, times: Any,
) -> None:  # fmt: skip
    """A burst's data is on the bus until `data`: hand it on; end the job after its last."""
    job = slots[s, S_JOB]
    slots[s, S_OUT] += 1
    slots[s, S_LAST] = max(slots[s, S_LAST], data)
    rows = jobs[job, J_ROWS]
    if jobs[job, J_KIND] == 0:
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
        done = slots[s, S_LAST]
        if jobs[job, J_KIND] == 0 and rows > 0:
            done = max(done, slots[s, S_ROWTIME] + jobs[job, J_LATENCY])
        jobs[job, J_DONE] = done
        slots[s, S_FREE] = slots[s, S_ROWTIME] if rows > 0 else slots[s, S_LAST]
        slots[s, S_JOB] = -1
        chan[C_ACTIVE] -= 1


@njit(cache=True, nogil=True)
def run_bandwidth(
    until: int, jobs: Any, slots: Any, chan: Any, par: Any, rows_p: Any, rows_m: Any, times: Any
) -> None:
    """Serve bursts at the fitted rate until the clock reaches `until` or nothing is left.

    One burst at a time on the data bus; the slot whose burst can go first goes first, the
    next in turn where several can.
    """
    total = par[P_READ_SLOTS] + par[P_WRITE_SLOTS]
    _start_jobs(jobs, slots, chan, par, rows_p, rows_m, times)
    while chan[C_ACTIVE] > 0:
        best = -1
        best_time = FAR
        best_stream = 0
        reading = False
        writing = False
        turn = chan[C_TURN]
        for i in range(total):
            s = turn + i
            if s >= total:
                s -= total
            if slots[s, S_JOB] >= 0:
                time, stream = _offer(s, jobs, slots, par, times)
                time = max(time, chan[C_BUS])
                if time <= chan[C_BUS]:
                    if s < par[P_READ_SLOTS]:
                        reading = True
                    else:
                        writing = True
                if time < best_time:
                    best_time = time
                    best = s
                    best_stream = stream
        if best_time >= until:
            chan[C_CLOCK] = until
            return
        read = best < par[P_READ_SLOTS]
        cost = par[P_READ_PS] if read else par[P_WRITE_PS]
        if reading and writing:
            cost = par[P_MIXED_PS]
        number = _accept(best, best_stream, best_time, jobs, slots, par, rows_p, rows_m, times)
        chan[C_BUS] = best_time + cost
        chan[C_BUSY] += cost
        chan[C_TURN] = best + 1 if best + 1 < total else 0
        data = chan[C_BUS]
        if read:
            chan[C_READS] += 1
            data += par[P_LATENCY_PS]
        else:
            chan[C_WRITES] += 1
        chan[C_LASTDATA] = max(chan[C_LASTDATA], data)
        active = chan[C_ACTIVE]
        _served(best, best_stream, number, data, jobs, slots, chan, par, rows_p, rows_m, times)
        if chan[C_ACTIVE] < active:
            _start_jobs(jobs, slots, chan, par, rows_p, rows_m, times)


