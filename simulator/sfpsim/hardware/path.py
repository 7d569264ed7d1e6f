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

from sfpsim.hardware import kernels as k
from sfpsim.hardware.channel import Channel
from sfpsim.hardware.machine import Machine
from sfpsim.hardware.placement import IndexCache, Placed, read_jobs, write_jobs

I64 = NDArray[np.int64]
TILES_AT_ONCE = 2
MAX_TILES = 512


@dataclass(frozen=True, kw_only=True)
class Move:
    """A tensor read `times` times, or written once; `resident` is loaded before the rest."""

    tensor: Placed
    times: int = 1
    resident: bool = False
    tile_bytes: int = 0


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
    """What a task did: end (ps), bytes moved and each part's time alone (ps)."""

    end_ps: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    wait_ps: int = 0
    decoder_values: int = 0
    encoder_values: int = 0
    busy: dict[str, I64] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A whole simulation: a report a task, and what each channel moved.

    `reads`, `writes` are bursts a channel; `busy_ps` the time of data on its bus.
    """

    end_ps: int
    reports: list[Report]
    reads: I64
    writes: I64
    busy_ps: I64


def _spread(move: Move, tiles: int, tile: int) -> I64:
    """The blocks of `move` that tile number `tile` of `tiles` needs."""
    blocks = move.tensor.blocks
    if move.resident:
        return np.arange(blocks if tile == 0 else 0, dtype=np.int64)
    total = blocks * move.times
    return np.arange(total * tile // tiles, total * (tile + 1) // tiles, dtype=np.int64) % max(
        blocks, 1
    )


class MemoryPath:
    """Runs tasks on a machine. ``run(tasks)`` may be called once."""

    def __init__(self, machine: Machine, rows_p: Any, rows_m: Any) -> None:
        self.machine = machine
        self.env = simpy.Environment()
        number = machine.memory.channels
        self.channels = [Channel(self.env, machine, rows_p, rows_m) for _ in range(number)]
        cache = machine.index_cache
        self.caches = [IndexCache(cache.lines, cache.line_bytes) for _ in range(number)]
        self.burst = machine.device.burst_bytes
        self.written: dict[tuple[str, int], simpy.Event] = {}
        self.writers: list[dict[str, int]] = []
        self.free_in = simpy.Container(self.env, TILES_AT_ONCE, TILES_AT_ONCE)
        self.free_out = simpy.Container(self.env, TILES_AT_ONCE, TILES_AT_ONCE)
        self.loaded = simpy.Store(self.env, TILES_AT_ONCE)

    def run(self, tasks: Sequence[Task], progress: Callable[[int], None] | None = None) -> Run:
        """Simulate `tasks` in order; `progress` is called with the tasks done."""
        self.progress = progress
        self.reports = [Report() for _ in tasks]
        for report in self.reports:
            zeros = np.zeros(len(self.channels), np.int64)
            parts = ("dram", "decoder", "encoder", "metadata")
            report.busy = {part: zeros.copy() for part in parts}
        self._find_writers(tasks)
        self.env.process(self._load(tasks))
        self.env.process(self._compute(tasks))
        self.env.run()
        if self.remaining:
            raise RuntimeError(f"the simulation stopped with {self.remaining} tiles to do")
        if self.reports:
            self.reports[-1].end_ps = int(self.env.now)
        states = np.array([channel.state for channel in self.channels])
        return Run(
            end_ps=int(self.env.now),
            reports=self.reports,
            reads=states[:, k.C_READS],
            writes=states[:, k.C_WRITES],
            busy_ps=states[:, k.C_BUSY],
        )

    def _find_writers(self, tasks: Sequence[Task]) -> None:
        """Note, for every task, which earlier task wrote what it reads last."""
        latest: dict[str, int] = {}
        for number, task in enumerate(tasks):
            names = {move.tensor.name for move in task.reads}
            self.writers.append({name: latest[name] for name in names if name in latest})
            for move in task.writes:
                latest[move.tensor.name] = number
                self.written[move.tensor.name, number] = self.env.event()

    def _tiles(self, task: Task) -> int:
        return max(1, min(MAX_TILES, -(-task.onchip_bytes // self.machine.buffer.tile_bytes)))

    def _load(self, tasks: Sequence[Task]) -> Generator[simpy.Event, Any, None]:
        for number, task in enumerate(tasks):
            tiles = self._tiles(task)
            for tile in range(tiles):
                yield self.free_in.get(1)
                yield from self._wait_written(number)
                yield self.loaded.put((number, tile, tiles, self._fetch(task, number, tile, tiles)))

    def _wait_written(self, number: int) -> Generator[simpy.Event, Any, None]:
        began = self.env.now
        for name, writer in self.writers[number].items():
            event = self.written[name, writer]
            if not event.processed:
                yield event
        self.reports[number].wait_ps += int(self.env.now - began)

    def _fetch(self, task: Task, number: int, tile: int, tiles: int) -> simpy.Event:
        jobs = []
        for move in task.reads:
            blocks = _spread(move, tiles, tile)
            found = read_jobs(move.tensor, blocks, self.caches, self.burst)
            self._count(self.reports[number], found, move.tensor.channel[blocks])
            jobs.append((found, move.tensor.channel[blocks]))
        return self._submit(jobs)

    def _drain(self, task: Task, number: int, tile: int, tiles: int) -> simpy.Event:
        jobs = []
        for move in task.writes:
            blocks = _spread(move, tiles, tile)
            channel = move.tensor.channel[blocks]
            found, extra = write_jobs(move.tensor, blocks, self.burst)
            where = channel[extra[:, k.J_ROWSTART]]
            self._count(self.reports[number], found, channel)
            self._count(self.reports[number], extra, where)
            jobs += [(found, channel), (extra, where)]
        return self._submit(jobs)

    def _submit(self, jobs: list[tuple[I64, I64]]) -> simpy.Event:
        """Hand each channel its jobs; the event fires when all are done."""
        if not jobs:
            return self.env.event().succeed()
        rows = np.concatenate([rows for rows, _ in jobs])
        where = np.concatenate([channel for _, channel in jobs])
        parts = [self.channels[c].submit(rows[where == c]) for c in np.unique(where).tolist()]
        return simpy.AllOf(self.env, parts)

    def _count(self, report: Report, jobs: I64, where: I64) -> None:
        par = self.channels[0].par
        reading = jobs[:, k.J_CLASS] < k.ENCODE
        extra = jobs[:, k.J_MBURSTS] + jobs[:, k.J_IBURSTS]
        bursts = jobs[:, k.J_PBURSTS] + extra
        report.read_bytes += int(bursts[reading].sum()) * self.burst
        report.write_bytes += int(bursts[~reading].sum()) * self.burst
        cost = np.where(reading, par[k.P_READ_PS], par[k.P_WRITE_PS])
        np.add.at(report.busy["dram"], where, bursts * cost)
        np.add.at(report.busy["metadata"], where, extra * cost)
        for part, kind, units in (
            ("decoder", k.DECODE, self.machine.codec.decompressors),
            ("encoder", k.ENCODE, self.machine.codec.compressors),
        ):
            mine = jobs[:, k.J_CLASS] == kind
            rows = jobs[mine, k.J_ROWS]
            np.add.at(report.busy[part], where[mine], rows * par[k.P_CODEC_PS] // units)
            values = int(rows.sum()) * 8
            if kind == k.DECODE:
                report.decoder_values += values
            else:
                report.encoder_values += values

    def _compute(self, tasks: Sequence[Task]) -> Generator[simpy.Event, Any, None]:
        self.remaining = sum(self._tiles(task) for task in tasks)
        while self.remaining:
            number, tile, tiles, ready = yield self.loaded.get()
            task = tasks[number]
            yield ready
            yield self.free_out.get(1)
            share = task.compute_ps * (tile + 1) // tiles - task.compute_ps * tile // tiles
            yield self.env.timeout(share)
            yield self.free_in.put(1)
            done = self._drain(task, number, tile, tiles)
            self.env.process(self._drained(number, task, done, tile == tiles - 1))
            self.remaining -= 1
            if tile == tiles - 1:
                self.reports[number].end_ps = int(self.env.now)
                if self.progress:
                    self.progress(number + 1)

    def _drained(
        self, number: int, task: Task, done: simpy.Event, last: bool
    ) -> Generator[simpy.Event, Any, None]:
        yield done
        yield self.free_out.put(1)
        if last:
            for move in task.writes:
                self.written[move.tensor.name, number].succeed()
