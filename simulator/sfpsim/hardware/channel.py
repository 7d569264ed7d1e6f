"""The channels of a memory with their codec units, as one simpy component around a kernel.

The kernel runs up to the next thing that anybody else does, or up to the end of a set of
jobs that somebody waits for, whichever is earlier; so it never runs past something that
could have changed it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from sfpsim.errors import InputError
from sfpsim.hardware import kernels as k
from sfpsim.hardware.dram import engine as e
from sfpsim.hardware.dram.device import Device, Fit
from sfpsim.hardware.dram.simulate import ChannelState, Requests, slept_cycles, timings
from sfpsim.hardware.machine import Detail, Machine

I64 = NDArray[np.int64]
TAKEN_BURSTS = 1 << 16


def parameters(machine: Machine, fit: Fit | None) -> I64:
    """Return the kernels' parameters of `machine`, int64; without a `fit` at the peak."""
    par = np.zeros(k.PARAMETER_COLUMNS, np.int64)
    codec, dma, memory, device = machine.codec, machine.dma, machine.memory, machine.device
    par[k.P_CODEC_PS] = codec.period_ps
    par[k.P_FIFO] = max(2, codec.fifo_bytes // device.burst_bytes)
    par[k.P_MFIFO] = max(2, codec.metadata_fifo_bytes // device.burst_bytes)
    par[k.P_WINDOW] = dma.outstanding
    units = [0, codec.decompressors, dma.streams, codec.compressors, dma.streams]
    together = memory.channels // memory.groups
    par[k.P_SLOT : k.P_SLOT + k.CLASSES + 1] = np.cumsum(units) * together
    par[k.P_CHANNELS] = memory.channels
    stripe = memory.stripe_bytes
    par[k.P_STRIPE] = (stripe // device.burst_bytes).bit_length() - 1 if stripe else -1
    _fitted(par, device, fit)
    if stripe:
        par[k.P_QUEUE_PS] = device.controller.queue * par[k.P_READ_PS]
    par[k.P_BURST_SHIFT] = (device.burst_bytes * 8).bit_length() - 1
    par[k.P_TCK_NUM], par[k.P_TCK_DEN] = device.tck_ps, device.tck_den
    return par


def _fitted(par: I64, device: Device, fit: Fit | None) -> None:
    read, write, mixed = (fit.read, fit.write, fit.mixed) if fit else (1.0, 1.0, 1.0)
    par[k.P_READ_PS] = round(device.burst_ps / read)
    par[k.P_WRITE_PS] = round(device.burst_ps / write)
    par[k.P_MIXED_PS] = round(device.burst_ps / mixed)
    par[k.P_LATENCY_PS] = fit.latency_ps if fit else device.idle_latency_ps


class BurstObserver(Protocol):
    """Is told of every burst that a channel's controller takes, in order."""

    def add(self, channel: int, requests: Requests) -> None:
        """Note bursts of `channel`: addresses in it, in cycles counted from the step's start."""

    def next_step(self, cycles: int) -> None:
        """End a step that took `cycles`."""


@dataclass(frozen=True, kw_only=True)
class ChannelCounts:
    """What each channel did, int64 arrays of one entry a channel.

    `reads`, `writes` are bursts on the bus, `forwarded` reads that a queued write
    answered; `busy_ps` the time of data on the bus; `act`, `pre`, `ref` commands and
    `open_cycles` clock cycles with a row open (zeros in `bandwidth` detail); `slept_cycles`,
    (channels, 3), those in active and precharge power-down and in self-refresh.
    """

    reads: I64
    writes: I64
    forwarded: I64
    busy_ps: I64
    act: I64
    pre: I64
    ref: I64
    open_cycles: I64
    slept_cycles: I64


class Channels:
    """All channels: queues of jobs by class, codec units, controllers, DRAM.

    Codec units and plain streams, the slots, come in groups: one a channel or, where blocks
    are striped over the channels, one for all of them. ``submit(jobs, group)`` returns an
    event that fires, at its time, when the last job is done.
    """

    def __init__(
        self, env: simpy.Environment, machine: Machine, rows_p: Any, rows_m: Any, detail: Detail,
        fit: Fit | None, observer: BurstObserver | None = None,
    ) -> None:  # fmt: skip
        self.env = env
        self.par = parameters(machine, fit)
        self.detail = detail
        self._check_rows(rows_p, rows_m)
        count, groups = machine.memory.channels, machine.memory.groups
        slots = int(self.par[k.P_SLOT + k.CLASSES])
        self.state = np.zeros((count, k.CHANNEL_COLUMNS), np.int64)
        self.slots = np.zeros((groups * slots, k.SLOT_COLUMNS), np.int64)
        self.slots[:, k.S_JOB] = -1
        self.slots[:, k.S_OFFER] = np.arange(groups * slots)
        self.slots[:, k.S_CHANNEL] = np.arange(groups * slots) // slots
        self.offer = np.full(count * slots, k.FAR, np.int64)
        deepest = int(self.par[[k.P_FIFO, k.P_MFIFO, k.P_WINDOW]].max())
        self.times = np.zeros((groups * slots, 4, 1 << (deepest - 1).bit_length()), np.int64)
        self.rows = (rows_p, rows_m)
        self.dram = dram_state(count, machine.device)
        self.observer = observer
        self.taken = np.zeros((count, TAKEN_BURSTS if observer else 0, k.TAKEN_COLUMNS), np.int64)
        self.queue = np.zeros((groups, k.CLASSES, 64), np.int64)
        self.jobs = np.zeros((0, k.JOB_COLUMNS), np.int64)
        self.free_jobs: list[int] = []
        self.tickets = np.zeros((64, 2), np.int64)
        self.finished = np.zeros(65, np.int64)
        self.free_tickets = list(range(64))
        self.waiting: dict[int, tuple[simpy.Event, list[int]]] = {}
        self.wake = env.event()
        env.process(self._run())

    def _check_rows(self, rows_p: Any, rows_m: Any) -> None:
        """A FIFO that cannot hold a row and the burst that it ends in would never move."""
        for rows, depth, what in ((rows_p, k.P_FIFO, "payload"), (rows_m, k.P_MFIFO, "metadata")):
            widest = int(rows.max(initial=0))
            bits = (int(self.par[depth]) - 1) << int(self.par[k.P_BURST_SHIFT])
            if widest > bits:
                raise InputError(
                    f"a row of {widest} {what} bits does not fit the codec's FIFO of "
                    f"{self.par[depth]} bursts: it takes rows of up to {bits} bits"
                )

    def submit(self, jobs: I64, group: I64) -> simpy.Event:
        """Queue `jobs` (rows of the kernels' columns), each in its group, in order.

        The event fires when all of them are done.
        """
        event = self.env.event()
        moves = jobs[:, k.J_PBURSTS] + jobs[:, k.J_MBURSTS] + jobs[:, k.J_IBURSTS] > 0
        jobs, group = jobs[moves], group[moves]
        if not len(jobs):
            return event.succeed()
        ids = self._places(len(jobs))
        ticket = self._ticket()
        self.jobs[ids] = jobs
        self.jobs[ids, k.J_READY] = self.env.now
        self.jobs[ids, k.J_TICKET] = ticket
        self.tickets[ticket] = len(jobs), 0
        self.waiting[ticket] = event, ids
        kinds = jobs[:, k.J_CLASS]
        where = group * k.CLASSES + kinds
        for pair in np.unique(where).tolist():
            number, kind = divmod(pair, k.CLASSES)
            self._enqueue(number, kind, np.array(ids)[where == pair])
        if not self.wake.triggered:
            self.wake.succeed()
        return event

    def _enqueue(self, group: int, kind: int, ids: I64) -> None:
        head, tail = (int(self.state[group, c + kind]) for c in (k.C_HEAD, k.C_TAIL))
        while tail - head + len(ids) > self.queue.shape[2]:
            self._grow_queue()
        self.queue[group, kind, (tail + np.arange(len(ids))) % self.queue.shape[2]] = ids
        self.state[group, k.C_TAIL + kind] += len(ids)

    def _grow_queue(self) -> None:
        """Double every ring, each unrolled from its head on."""
        size = self.queue.shape[2]
        larger = np.zeros((*self.queue.shape[:2], 2 * size), np.int64)
        for group, kind in np.ndindex(*self.queue.shape[:2]):
            head, tail = (int(self.state[group, c + kind]) for c in (k.C_HEAD, k.C_TAIL))
            at = np.arange(head, tail)
            larger[group, kind, at % (2 * size)] = self.queue[group, kind, at % size]
        self.queue = larger

    def _places(self, count: int) -> list[int]:
        if len(self.free_jobs) < count:
            old = len(self.jobs)
            more = np.zeros((max(256, old, count), k.JOB_COLUMNS), np.int64)
            self.jobs = np.concatenate([self.jobs, more])
            self.free_jobs += range(old, len(self.jobs))
        taken = self.free_jobs[-count:]
        del self.free_jobs[-count:]
        return taken

    def _ticket(self) -> int:
        if not self.free_tickets:
            old = len(self.tickets)
            self.tickets = np.concatenate([self.tickets, np.zeros_like(self.tickets)])
            self.finished = np.zeros(2 * old + 1, np.int64)
            self.free_tickets = list(range(old, 2 * old))
        return self.free_tickets.pop()

    def advance(self, until: int) -> int:
        """Run the kernel up to `until`, ps, at most; return the time reached."""
        self.finished[0] = 0
        shared = (
            until, self.jobs, self.queue, self.slots, self.offer, self.state, self.par,
            self.tickets, self.finished, *self.rows, self.times, self.taken,
        )  # fmt: skip
        if self.detail == "detailed":
            reached = int(k.run_detailed(*shared, *self.dram))
        else:
            reached = int(k.run_bandwidth(*shared))
        if self.observer is not None:
            self._hand_over(self.observer)
        return reached

    def _hand_over(self, observer: BurstObserver) -> None:
        shift = int(self.par[k.P_BURST_SHIFT]) - 3
        for channel, count in enumerate(self.state[:, k.C_TAKEN].tolist()):
            cycle, burst = self.taken[channel, :count].T
            found = Requests(
                address=(burst >> 1 << shift).astype(np.uint64),
                is_write=(burst & 1).astype(np.uint8),
                cycle=cycle.astype(np.uint64),
            )
            observer.add(channel, found)
        self.state[:, k.C_TAKEN] = 0

    def _run(self) -> Generator[simpy.Event, Any, None]:
        while True:
            if not self.waiting:
                self.wake = self.env.event()
                yield self.wake
            following = self.env.peek()
            if following <= self.env.now:  # what others do at this very time comes first
                yield self.env.timeout(0)
                continue
            until = k.FAR if following == float("inf") else int(following)
            reached = self.advance(until)
            self._announce()
            if reached == k.FAR:
                raise RuntimeError("jobs are waiting and nothing can move: a defect in the kernel")
            yield self.env.timeout(reached - self.env.now)

    def _announce(self) -> None:
        for ticket in self.finished[1 : 1 + self.finished[0]].tolist():
            event, ids = self.waiting.pop(ticket)
            self.free_jobs += ids
            self.free_tickets.append(ticket)
            later = self.env.timeout(int(self.tickets[ticket, 1]) - self.env.now)
            later.callbacks.append(partial(_fire, event))

    def finish(self) -> int:
        """Let queued writes drain; return when the last data or command ended, ps."""
        while self.advance(k.FAR) < k.FAR:
            pass
        end = max(int(self.env.now), int(self.state[:, k.C_LAST].max()))
        if self.detail == "detailed":
            st, bk, tm, rk, rq, _, _, tim, log = self.dram
            k.close_detailed(end, self.par, st, bk, tm, rk, rq, tim, log)
        return end

    def moved_bytes(self) -> int:
        """Return the bytes of all bursts so far."""
        bursts = int(self.state[:, k.C_READS].sum() + self.state[:, k.C_WRITES].sum())
        return bursts << (int(self.par[k.P_BURST_SHIFT]) - 3)

    def jobs_held(self) -> int:
        """Return the jobs that wait or are at work."""
        return sum(len(ids) for _, ids in self.waiting.values())

    def moved_ps(self) -> I64:
        """Return the time that each channel's bursts so far take alone, ps, int64."""
        state, par = self.state, self.par
        return np.asarray(
            state[:, k.C_READS] * par[k.P_READ_PS] + state[:, k.C_WRITES] * par[k.P_WRITE_PS]
        )

    def counts(self) -> ChannelCounts:
        """Return what each channel did so far."""
        state, dram = self.state, self.dram[0]
        return ChannelCounts(
            reads=state[:, k.C_READS],
            writes=state[:, k.C_WRITES],
            forwarded=dram[:, e.ST_FORWARDED],
            busy_ps=state[:, k.C_BUSY],
            act=dram[:, e.ST_ACT],
            pre=dram[:, e.ST_PRE],
            ref=dram[:, e.ST_REF] + dram[:, e.ST_REFB],
            open_cycles=self.dram[3][:, :, e.R_OPENCYCLES].sum(axis=1),
            slept_cycles=np.array([slept_cycles(st) for st in dram], np.int64),
        )


def dram_state(count: int, device: Device) -> tuple[I64, ...]:
    """Return the engine's arrays of `count` channels: one more axis, in front."""
    tim = timings(device)
    states = [ChannelState(device, tim) for _ in range(count)]
    st, bk, tm, rk, rq, fr, ft = (
        np.stack(arrays) for arrays in zip(*(s.arrays for s in states), strict=True)
    )
    wide = np.zeros((*rq.shape[:2], k.REQUEST_COLUMNS), np.int64)
    return st, bk, tm, rk, wide, fr, ft, tim, np.zeros((0, e.LOG_COLUMNS), np.int64)


def _fire(event: simpy.Event, _: simpy.Event) -> None:
    event.succeed()
