"""The memory path of a machine: buffer, DMA, channels with codec units, compute array.

A `Task` is one pass of one layer. It is cut into tiles; while one tile is computed the
next ones load and the last ones drain. Tiles of all tasks go through in order.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from sfpsim.containers.base import ROW_VALUES
from sfpsim.errors import InputError
from sfpsim.hardware import kernels as k
from sfpsim.hardware.channel import BurstObserver, ChannelCounts, Channels
from sfpsim.hardware.coalesced import Work, exact, run_tasks
from sfpsim.hardware.dram.fit import fit_of
from sfpsim.hardware.machine import Detail, Machine
from sfpsim.hardware.placement import (
    IndexCache,
    Placed,
    bursts_by_channel,
    read_jobs,
    write_jobs,
)

I64 = NDArray[np.int64]
MAX_TILES = 512


@dataclass(frozen=True, kw_only=True)
class Move:
    """A tensor read `times` times, or written once; `resident` is loaded before the rest."""

    tensor: Placed
    times: int = 1
    resident: bool = False


@dataclass(frozen=True, kw_only=True)
class Task:
    """One pass of a layer: what it reads, computes (ps) and writes.

    `onchip_bytes` is what streams through the buffer, in the type of the chip; it decides
    the number of tiles.
    """

    name: str
    reads: tuple[Move, ...]
    writes: tuple[Move, ...]
    compute_ps: int
    onchip_bytes: int


@dataclass(kw_only=True)
class Report:
    """What a task did: end (ps), bytes moved and each part's time alone (ps).

    `busy` holds int64 arrays: of ``dram`` and ``metadata`` by channel, of ``decoder`` and
    ``encoder`` by group of codec units (one a channel; striped: all in the first entry).

    `wait_ps` is how long its reads waited for earlier passes' writes beyond the time in which
    the busiest channel moved data, `wait_encoder_ps` that part of it in which the writing
    pass was held up by its compressors.
    """

    end_ps: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    wait_ps: int = 0
    wait_encoder_ps: int = 0
    codec_values: int = 0
    busy: dict[str, I64] = field(default_factory=dict)

    @staticmethod
    def for_channels(count: int) -> Report:
        """Return an empty report of a machine with `count` channels."""
        parts = ("dram", "decoder", "encoder", "metadata")
        return Report(busy={part: np.zeros(count, np.int64) for part in parts})


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What one tile did on one part: ``load``, ``compute`` or ``drain``; times are ps."""

    part: str
    task: int
    start_ps: int
    end_ps: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The memory at one moment: bytes moved so far, jobs waiting or at work."""

    at_ps: int
    moved_bytes: int
    jobs: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """A whole simulation: a report a task, what each channel did, and when things happened."""

    end_ps: int
    reports: list[Report]
    counts: ChannelCounts
    slices: list[Slice]
    samples: list[Sample]


def _spread(move: Move, tiles: int, tile: int) -> I64:
    """The blocks of `move` that tile number `tile` of `tiles` needs."""
    blocks = move.tensor.blocks
    if move.resident:
        return np.arange(blocks if tile == 0 else 0, dtype=np.int64)
    total = blocks * move.times
    return np.arange(total * tile // tiles, total * (tile + 1) // tiles, dtype=np.int64) % max(
        blocks, 1
    )


class Dma:
    """Turns the blocks of a tile into jobs of the groups, and counts them on a report."""

    def __init__(self, machine: Machine, channels: Channels) -> None:
        self.channels = channels
        self.machine = machine
        self.burst = machine.device.burst_bytes
        cache, groups = machine.index_cache, machine.memory.groups
        lines = cache.lines * (machine.memory.channels // groups)
        self.caches = [IndexCache(lines, cache.line_bytes) for _ in range(groups)]

    def read(self, task: Task, report: Report, tile: int, tiles: int) -> simpy.Event:
        """Fetch what a tile needs; the event fires when it is in the buffer."""
        jobs = []
        for move in task.reads:
            blocks = _spread(move, tiles, tile)
            found = read_jobs(move.tensor, blocks, self.caches, self.burst)
            jobs.append((found, move.tensor.group[blocks]))
        return self._submit(jobs, report)

    def write(self, task: Task, report: Report, tile: int, tiles: int) -> simpy.Event:
        """Write a tile's results; the event fires when the controllers have taken them."""
        jobs = []
        for move in task.writes:
            blocks = _spread(move, tiles, tile)
            group = move.tensor.group[blocks]
            found, extra = write_jobs(move.tensor, blocks, self.burst)
            jobs += [(found, group), (extra, group[extra[:, k.J_ROWSTART]])]
        return self._submit(jobs, report)

    def count(self, task: Task, report: Report) -> None:
        """Count all jobs of a task, without running any."""
        for move in task.reads:
            rows, where = self._with_index(move.tensor), move.tensor.group
            self._count(report, rows, where, move.times)
        for move in task.writes:
            blocks = np.arange(move.tensor.blocks, dtype=np.int64)
            found, extra = write_jobs(move.tensor, blocks, self.burst)
            self._count(report, found, move.tensor.group)
            self._count(report, extra, move.tensor.group[extra[:, k.J_ROWSTART]])

    def _with_index(self, tensor: Placed) -> I64:
        """Jobs that read all blocks in order, with the lines of the index that this takes."""
        rows = tensor.reads
        if tensor.blocks and tensor.index.length[0]:
            cache, groups = self.machine.index_cache, self.machine.memory.groups
            entries = cache.line_bytes // int(tensor.index.length[0])
            first = np.arange(tensor.blocks) // groups % entries == 0
            rows = rows.copy()
            rows[first, k.J_IBURSTS] = -(-cache.line_bytes // self.burst)
        return rows

    def _submit(self, jobs: list[tuple[I64, I64]], report: Report) -> simpy.Event:
        if not jobs:
            return self.channels.env.event().succeed()
        rows = np.concatenate([rows for rows, _ in jobs])
        where = np.concatenate([group for _, group in jobs])
        self._count(report, rows, where)
        return self.channels.submit(rows, where)

    def _count(self, report: Report, jobs: I64, where: I64, times: int = 1) -> None:
        par = self.channels.par
        reading = jobs[:, k.J_CLASS] < k.ENCODE
        payload, *extra = bursts_by_channel(jobs, where, self.machine)
        beside = sum(extra)
        bursts = payload + beside
        report.read_bytes += int(bursts[reading].sum()) * self.burst * times
        report.write_bytes += int(bursts[~reading].sum()) * self.burst * times
        cost = np.where(reading, par[k.P_READ_PS], par[k.P_WRITE_PS])
        report.busy["dram"] += cost @ bursts * times
        report.busy["metadata"] += cost @ beside * times
        for part, kind in (("decoder", k.DECODE), ("encoder", k.ENCODE)):
            mine = jobs[:, k.J_CLASS] == kind
            rows = jobs[mine, k.J_ROWS]
            cycles = rows * jobs[mine, k.J_PACE] + jobs[mine, k.J_DELAY]
            units = par[k.P_SLOT + kind + 1] - par[k.P_SLOT + kind]
            busy = cycles * par[k.P_CODEC_PS] // units * times
            np.add.at(report.busy[part], where[mine], busy)
            report.codec_values += int(rows.sum()) * ROW_VALUES * times


def work_of_task(task: Task, tiles: int) -> Work:
    """Return a task as `run_tasks` takes it, all its tiles chosen."""
    return Work(
        reads=[(m.tensor, m.times, m.resident) for m in task.reads],
        writes=[m.tensor for m in task.writes],
        compute_ps=task.compute_ps, tiles=tiles, chosen=np.arange(tiles, dtype=np.int64),
    )  # fmt: skip


class OnChipBuffer:
    """Room for tiles: so many may load or wait for the array, so many may drain."""

    def __init__(self, env: simpy.Environment, tiles: int) -> None:
        self.arriving = simpy.Container(env, tiles, tiles)
        self.leaving = simpy.Container(env, tiles, tiles)
        self.loaded = simpy.Store(env, tiles)


class MemoryPath:
    """Runs tasks on a machine. ``run(tasks)`` may be called once.

    Parameters
    ----------
    machine
        The machine.
    rows_p, rows_m
        uint16 and uint8, the row store: payload and metadata bits of every held row.
    detail
        What serves a burst: ``bandwidth`` or ``detailed``.
    observer
        Is told of every burst that a controller takes.
    tiles
        Whether slices and samples of tiles are wanted; where not, and where it gives the
        same, tasks run with many bursts at a time.
    """

    def __init__(
        self, machine: Machine, rows_p: Any, rows_m: Any, detail: Detail,
        observer: BurstObserver | None = None, tiles: bool = True,
    ) -> None:  # fmt: skip
        if detail == "bandwidth" and machine.device.sleeps:
            raise InputError(
                f"device {machine.device.name} lets ranks power down or refresh themselves, which "
                "only detailed memory models: use --detail detailed"
            )
        self.machine = machine
        self.coalesces = detail == "bandwidth" and observer is None and not tiles
        self.env = simpy.Environment()
        fit = fit_of(machine)
        self.channels = Channels(self.env, machine, rows_p, rows_m, detail, fit, observer)
        self.dma = Dma(machine, self.channels)
        self.buffer = OnChipBuffer(self.env, machine.buffer.tiles)
        self.written: dict[tuple[str, int], simpy.Event] = {}
        self.writers: list[dict[str, int]] = []
        self.slices: list[Slice] = []
        self.samples: list[Sample] = []

    def run(
        self, tasks: Sequence[Task], progress: Callable[[int], None] | None = None,
        chosen: Sequence[I64] | None = None,
    ) -> Run:  # fmt: skip
        """Simulate `tasks` in order; `progress` is called with the tasks done.

        `chosen` names the tiles of each task that run, its last one among them; all by
        default.
        """
        self.progress = progress
        self.chosen = chosen or [np.arange(self.tiles_of(t), dtype=np.int64) for t in tasks]
        count = self.machine.memory.channels
        self.reports = [Report.for_channels(count) for _ in tasks]
        self.find_writers(tasks)
        placed = [move.tensor for task in tasks for move in (*task.reads, *task.writes)]
        if self.coalesces and tasks and exact(placed, self.machine, self.channels.par):
            return self._run_coalesced(tasks)
        self.env.process(self._load(tasks))
        self.env.process(self._compute(tasks))
        self.env.run()
        if self.remaining:
            raise RuntimeError(f"the simulation stopped with {self.remaining} tiles to do")
        end = self.channels.finish()
        if self.reports:
            self.reports[-1].end_ps = end
        return Run(
            end_ps=end, reports=self.reports, counts=self.channels.counts(), slices=self.slices,
            samples=self.samples,
        )  # fmt: skip

    def _run_coalesced(self, tasks: Sequence[Task]) -> Run:
        """Run tasks of plain streams many bursts at a time: the same times and counts."""
        found = run_tasks(
            [work_of_task(task, self.tiles_of(task)) for task in tasks],
            [list(writers.values()) for writers in self.writers], self.machine, self.channels.par,
        )  # fmt: skip
        for number, task in enumerate(tasks):
            report = self.reports[number]
            self.dma.count(task, report)
            report.end_ps, report.wait_ps = int(found.ends_ps[number]), int(found.waits_ps[number])
            if self.progress:
                self.progress(number + 1)
        nothing = np.zeros_like(found.reads)
        counts = ChannelCounts(
            reads=found.reads, writes=found.writes, forwarded=nothing, busy_ps=found.busy_ps,
            act=nothing, pre=nothing, ref=nothing, open_cycles=nothing,
            slept_cycles=np.zeros((len(nothing), 3), np.int64),
        )  # fmt: skip
        return Run(end_ps=found.end_ps, reports=self.reports, counts=counts, slices=[], samples=[])

    def _note(self, part: str, task: int, start_ps: int, moved: int) -> None:
        """Note a tile's slice that ends now, and the memory's state."""
        now = int(self.env.now)
        self.slices.append(Slice(part=part, task=task, start_ps=start_ps, end_ps=now, bytes=moved))
        self.samples.append(
            Sample(
                at_ps=now, moved_bytes=self.channels.moved_bytes(), jobs=self.channels.jobs_held()
            )
        )

    def find_writers(self, tasks: Sequence[Task]) -> None:
        """Note, for every task, which earlier task wrote what it reads last."""
        latest: dict[str, int] = {}
        for number, task in enumerate(tasks):
            names = dict.fromkeys(move.tensor.name for move in task.reads)
            self.writers.append({name: latest[name] for name in names if name in latest})
            for move in task.writes:
                latest[move.tensor.name] = number
                self.written[move.tensor.name, number] = self.env.event()

    def tiles_of(self, task: Task) -> int:
        """Return the number of tiles of a task."""
        return max(1, min(MAX_TILES, -(-task.onchip_bytes // self.machine.buffer.tile_bytes)))

    def _load(self, tasks: Sequence[Task]) -> Generator[simpy.Event, Any, None]:
        for number, task in enumerate(tasks):
            tiles = self.tiles_of(task)
            for tile in self.chosen[number].tolist():
                yield self.buffer.arriving.get(1)
                yield from self._wait_written(number)
                report, began = self.reports[number], int(self.env.now)
                before = report.read_bytes + report.write_bytes
                ready = self.dma.read(task, report, tile, tiles)
                moved = report.read_bytes + report.write_bytes - before
                ready.callbacks.append(
                    lambda _, n=number, t=began, m=moved: self._note("load", n, t, m)
                )
                yield self.buffer.loaded.put((number, tile, tiles, ready))

    def _wait_written(self, number: int) -> Generator[simpy.Event, Any, None]:
        report = self.reports[number]
        for name, writer in self.writers[number].items():
            event = self.written[name, writer]
            if event.processed:
                continue
            began, before = self.env.now, self.channels.moved_ps()
            yield event
            at_work = int((self.channels.moved_ps() - before).max())
            waited = max(0, int(self.env.now - began) - at_work)
            report.wait_ps += waited
            busy = self.reports[writer].busy
            if busy["encoder"].max(initial=0) > busy["dram"].max(initial=0):
                report.wait_encoder_ps += waited

    def _compute(self, tasks: Sequence[Task]) -> Generator[simpy.Event, Any, None]:
        """The array: one tile after the other, each once it is loaded and has room to leave."""
        self.remaining = sum(map(len, self.chosen))
        while self.remaining:
            number, tile, tiles, ready = yield self.buffer.loaded.get()
            task, report = tasks[number], self.reports[number]
            yield ready
            yield self.buffer.leaving.get(1)
            share = task.compute_ps * (tile + 1) // tiles - task.compute_ps * tile // tiles
            began = int(self.env.now)
            yield self.env.timeout(share)
            self._note("compute", number, began, 0)
            yield self.buffer.arriving.put(1)
            before = report.read_bytes + report.write_bytes
            done = self.dma.write(task, report, tile, tiles)
            moved = report.read_bytes + report.write_bytes - before
            self.env.process(self._drained(number, task, done, tile == tiles - 1, moved))
            self.remaining -= 1
            if tile == tiles - 1:
                report.end_ps = int(self.env.now)
                if self.progress:
                    self.progress(number + 1)

    def _drained(
        self, number: int, task: Task, done: simpy.Event, last: bool, moved: int
    ) -> Generator[simpy.Event, Any, None]:
        began = int(self.env.now)
        yield done
        self._note("drain", number, began, moved)
        yield self.buffer.leaving.put(1)
        if last:
            for move in task.writes:
                self.written[move.tensor.name, number].succeed()
