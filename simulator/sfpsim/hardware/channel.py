"""A memory channel with its codec units as a simpy component around a kernel."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from sfpsim.hardware import kernels as k
from sfpsim.hardware.dram.device import Device
from sfpsim.hardware.machine import Machine

I64 = NDArray[np.int64]
COMPACT_ABOVE = 4096


def parameters(machine: Machine) -> I64:
    """Return the kernel's parameters of one channel of `machine`, int64."""
    device = machine.device
    par = np.zeros(k.PARAMETER_COLUMNS, np.int64)
    fit = device.fit
    read, write, mixed = (fit.read, fit.write, fit.mixed) if fit else (1.0, 1.0, 1.0)
    par[k.P_CODEC_PS] = 1_000_000 // machine.codec.clock_mhz
    par[k.P_FIFO] = max(2, machine.codec.fifo_bytes // device.burst_bytes)
    par[k.P_MFIFO] = max(2, machine.codec.metadata_fifo_bytes // device.burst_bytes)
    par[k.P_WINDOW] = machine.dma.outstanding
    par[k.P_BURST_BITS] = device.burst_bytes * 8
    par[k.P_READ_PS] = round(device.burst_ps / read)
    par[k.P_WRITE_PS] = round(device.burst_ps / write)
    par[k.P_MIXED_PS] = round(device.burst_ps / mixed)
    par[k.P_LATENCY_PS] = fit.latency_ps if fit else idle_latency_ps(device)
    codec, dma = machine.codec, machine.dma
    units = [codec.decompressors, dma.streams, codec.compressors, dma.streams]
    par[k.P_SLOT : k.P_SLOT + k.CLASSES + 1] = np.cumsum([0, *units])
    return par


def idle_latency_ps(device: Device) -> int:
    """Time from a request to the last data of its burst in an idle bank, less the burst."""
    return (device.trcd + device.cl) * device.tck_ps


class Channel:
    """One channel: queues of jobs by class, codec units, controller, DRAM.

    ``submit(jobs)`` returns an event that fires, at its time, when the last job is done.
    """

    def __init__(self, env: simpy.Environment, machine: Machine, rows_p: Any, rows_m: Any) -> None:
        self.env = env
        self.par = parameters(machine)
        self.window = machine.window_ns * 1000
        self.state = np.zeros(k.CHANNEL_COLUMNS, np.int64)
        slots = int(self.par[k.P_SLOT + k.CLASSES])
        self.slots = np.zeros((slots, k.SLOT_COLUMNS), np.int64)
        self.slots[:, k.S_JOB] = -1
        self.slots[:, k.S_OFFER] = k.FAR
        depth = int(max(self.par[k.P_FIFO], self.par[k.P_MFIFO], self.par[k.P_WINDOW]))
        self.times = np.zeros((slots, 4, depth), np.int64)
        self.rows = (rows_p, rows_m)
        self._reserve(1024)
        self.wake = env.event()
        env.process(self._run())

    def _reserve(self, capacity: int) -> None:
        self.jobs = np.zeros((capacity, k.JOB_COLUMNS), np.int64)
        self.queue = np.zeros((k.CLASSES, capacity), np.int64)
        self.tickets = np.zeros((capacity, 2), np.int64)
        self.finished = np.zeros(capacity, np.int64)
        self.count = 0
        self.ticket = 0
        self.events: dict[int, simpy.Event] = {}

    @property
    def busy(self) -> bool:
        """Whether a job is at work or waits."""
        heads = self.state[k.C_HEAD : k.C_HEAD + k.CLASSES]
        tails = self.state[k.C_TAIL : k.C_TAIL + k.CLASSES]
        return bool(self.state[k.C_ACTIVE]) or bool((heads < tails).any())

    def submit(self, jobs: I64) -> simpy.Event:
        """Queue `jobs` (rows of the kernel's columns); the event fires when all are done."""
        event = self.env.event()
        bursts = jobs[:, k.J_PBURSTS] + jobs[:, k.J_MBURSTS] + jobs[:, k.J_IBURSTS]
        jobs = jobs[bursts > 0]
        if not len(jobs):
            return event.succeed()
        self._make_room(len(jobs))
        self.tickets[self.ticket] = len(jobs), 0
        self.events[self.ticket] = event
        first = self.count
        self.jobs[first : first + len(jobs)] = jobs
        self.jobs[first : first + len(jobs), k.J_READY] = self.env.now
        self.jobs[first : first + len(jobs), k.J_TICKET] = self.ticket
        for kind in range(k.CLASSES):
            mine = first + np.flatnonzero(jobs[:, k.J_CLASS] == kind)
            tail = self.state[k.C_TAIL + kind]
            self.queue[kind, tail : tail + len(mine)] = mine
            self.state[k.C_TAIL + kind] += len(mine)
        self.count += len(jobs)
        self.ticket += 1
        if not self.wake.triggered:
            self.wake.succeed()
        return event

    def _make_room(self, more: int) -> None:
        """Drop what is done and grow where that is not enough."""
        if self.count + more <= len(self.jobs):
            return
        old = (self.jobs, self.queue, self.tickets, self.events)
        heads = self.state[k.C_HEAD : k.C_HEAD + k.CLASSES].copy()
        tails = self.state[k.C_TAIL : k.C_TAIL + k.CLASSES].copy()
        waiting = [old[1][kind, heads[kind] : tails[kind]] for kind in range(k.CLASSES)]
        running = self.slots[self.slots[:, k.S_JOB] >= 0, k.S_JOB]
        live = np.unique(np.concatenate([*waiting, running]))
        self._reserve(max(1024, 2 * (len(live) + more)))
        self.count = len(live)
        self.jobs[: len(live)] = old[0][live]
        for kind, ids in enumerate(waiting):
            self.queue[kind, : len(ids)] = np.searchsorted(live, ids)
            self.state[k.C_HEAD + kind], self.state[k.C_TAIL + kind] = 0, len(ids)
        at_work = self.slots[:, k.S_JOB] >= 0
        self.slots[at_work, k.S_JOB] = np.searchsorted(live, self.slots[at_work, k.S_JOB])
        pending = sorted(t for t in old[3] if old[2][t, 0] > 0)
        renumber = {t: i for i, t in enumerate(pending)}
        self.ticket = len(pending)
        for t, i in renumber.items():
            self.tickets[i], self.events[i] = old[2][t], old[3][t]
        self.jobs[: len(live), k.J_TICKET] = [
            renumber[int(t)] for t in self.jobs[: len(live), k.J_TICKET]
        ]

    def _run(self) -> Generator[simpy.Event, Any, None]:
        while True:
            if not self.busy:
                self.wake = self.env.event()
                yield self.wake
            k.run_bandwidth(
                int(self.env.now) + self.window, self.jobs, self.queue, self.slots, self.state,
                self.par, self.tickets, self.finished, *self.rows, self.times,
            )  # fmt: skip
            self._announce()
            if self.busy:
                yield self.env.timeout(self.window)

    def _announce(self) -> None:
        for ticket in self.finished[: self.state[k.C_FINISHED]].tolist():
            event = self.events.pop(ticket)
            delay = max(0, int(self.tickets[ticket, 1]) - int(self.env.now))
            later = self.env.timeout(delay)
            later.callbacks.append(partial(_fire, event))
        self.state[k.C_FINISHED] = 0


def _fire(event: simpy.Event, _: simpy.Event) -> None:
    event.succeed()
