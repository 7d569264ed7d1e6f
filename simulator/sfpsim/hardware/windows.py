"""Sampled windows: a few tiles of every task simulated, the rest extrapolated.

Of every task the first tile (cold start, the operand that stays), the last one (drain,
partial bursts) and a window between them run, in the order and with the overlap of the whole
step. What a whole step takes more is told by the estimate of `sfpsim.hardware.coalesced`,
which runs both the whole step and the windows: the whole step's estimate is scaled by what
the windows took over what was estimated for them, for each limiter apart.

Two sets of windows run, at other places and of two lengths. The longer ones give the result.
Its error has two parts. What depends on the length, as cold starts do, shows in how far the
shorter windows are off, and in what comes out if only what the longer ones took more is
scaled (Richardson's way); the larger counts. What differs from task to task is twice the
standard error of the ratio, from the sums of successive tasks, since a task's loading runs
ahead into the one before (batch means; ratio estimator: Cochran, Sampling Techniques, 6.4).
To both come 0.05 % of what was not simulated, which the estimate is not told apart better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpsim.hardware.channel import ChannelCounts
from sfpsim.hardware.coalesced import Outcome, run_tasks
from sfpsim.hardware.machine import Detail, Machine
from sfpsim.hardware.path import MemoryPath, Report, Run, Task, work_of_task

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
LENGTHS = ((2, 1 / 3), (4, 2 / 3))  # tiles at least, and share of the fraction asked for
BATCHES = 8
MOST = 0.85  # of all bytes: from there on windows are hardly cheaper than everything
# Lines of the index of blocks of 16,384 values are up to a thousandth of the bytes, and the
# estimate leaves them out; what those of smaller blocks cost more, the windows show.
RESOLUTION = 0.0005
PARTS = ("dram", "decoder", "encoder", "metadata")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What was simulated: the share of the bursts, and the error of the time, ps."""

    fraction: float
    error_ps: float


def choose(tiles: int, least: int, fraction: float, seed: int) -> I64:
    """Return the tiles of a task that run: the first, the last, and a window between them."""
    wanted = max(least, round(fraction * tiles))
    if wanted >= tiles:
        return np.arange(tiles, dtype=np.int64)
    inside = wanted - 2
    begin = 1 + int(np.random.default_rng(seed).integers(tiles - 1 - inside))
    return np.array([0, *range(begin, begin + inside), tiles - 1], np.int64)


@dataclass(frozen=True, kw_only=True)
class _Windows:
    """One set of windows: what each task took in them (ps), and what was estimated."""

    run: Run
    took: F64
    estimated: F64
    bursts: int


class Sampler:
    """Runs the tasks of a step in windows.

    Parameters
    ----------
    machine, rows_p, rows_m, detail
        As of `MemoryPath`.
    fraction
        Share of the tiles to simulate, above 0; short tasks run whole.
    """

    def __init__(
        self, machine: Machine, rows_p: Any, rows_m: Any, detail: Detail, fraction: float
    ) -> None:
        self.machine, self.detail, self.fraction = machine, detail, fraction
        self.rows = rows_p, rows_m

    def _path(self) -> MemoryPath:
        return MemoryPath(self.machine, *self.rows, self.detail)

    def run(
        self, tasks: Sequence[Task], progress: Callable[[int], None] | None = None
    ) -> tuple[Run, Sampling]:
        """Return the run of all tasks, extrapolated, and how well it is known."""
        whole = self._path()
        whole.find_writers(tasks)
        waits = [list(writers.values()) for writers in whole.writers]
        tiles = [whole.tiles_of(task) for task in tasks]
        works = [work_of_task(task, count) for task, count in zip(tasks, tiles, strict=True)]
        par = whole.channels.par
        windows = [
            [choose(n, least, share * self.fraction, 2 * i + number) for i, n in enumerate(tiles)]
            for number, (least, share) in enumerate(LENGTHS)
        ]
        reports = [Report.for_channels(self.machine.memory.channels) for _ in tasks]
        for task, report in zip(tasks, reports, strict=True):
            whole.dma.count(task, report)
        if sum(_share(tasks, reports, tiles, chosen) for chosen in windows) >= MOST:
            return self._path().run(tasks, progress), Sampling(fraction=1.0, error_ps=0.0)
        estimate = run_tasks(works, waits, self.machine, par)
        sets = []
        for number, chosen in enumerate(windows):
            part = [replace(w, chosen=c) for w, c in zip(works, chosen, strict=True)]
            expected = run_tasks(part, waits, self.machine, par)
            run = self._path().run(tasks, progress if number else None, chosen)
            sets.append(_windows(run, expected))
        return self._extrapolate(tasks, reports, _spans(estimate), sets, par)

    def _extrapolate(
        self, tasks: Sequence[Task], reports: list[Report], estimated: F64, sets: list[_Windows],
        par: I64,
    ) -> tuple[Run, Sampling]:  # fmt: skip
        strata = np.array([_limiter(t, r) for t, r in zip(tasks, reports, strict=True)])
        spans = [_scaled(estimated, w, strata) for w in sets]
        best = sets[-1]
        totals = [span.sum() for span in spans]
        bias = max(abs(totals[0] - totals[1]), abs(_from_growth(estimated, *sets) - totals[1]))
        beyond = max(0.0, totals[1] - best.took.sum())
        error = bias + 2 * _standard_error(estimated, best, strata) + RESOLUTION * beyond
        bursts = [r.read_bytes + r.write_bytes for r in reports]
        size = self.machine.device.burst_bytes
        total = sum(bursts) / size
        ends = np.cumsum(spans[-1]).round().astype(np.int64)
        for report, ours, end in zip(reports, best.run.reports, ends.tolist(), strict=True):
            report.end_ps = end
            report.wait_ps, report.wait_encoder_ps = ours.wait_ps, ours.wait_encoder_ps
        end = int(ends[-1]) if len(ends) else 0
        run = Run(
            end_ps=end, reports=reports, counts=self._counts(best.run, reports, end, par),
            slices=[], samples=[],
        )  # fmt: skip
        simulated = sum(w.bursts for w in sets) / total if total else 1.0
        return run, Sampling(fraction=min(1.0, simulated), error_ps=float(error))

    def _counts(self, run: Run, reports: list[Report], end: int, par: I64) -> ChannelCounts:
        """Scale what the channels did: commands go with bursts, refreshes with time."""
        size = self.machine.device.burst_bytes
        reads, writes = (
            sum(getattr(r, f) for r in reports) // size for f in ("read_bytes", "write_bytes")
        )
        done = run.counts
        bursts = max(1, int(done.reads.sum() + done.writes.sum() + done.forwarded.sum()))
        more, longer = (reads + writes) / bursts, end / max(1, run.end_ps)

        def scaled(counts: I64, factor: float) -> I64:
            return np.asarray(np.rint(counts * factor), np.int64)

        by_read = reads / max(1, int(done.reads.sum() + done.forwarded.sum()))
        return ChannelCounts(
            reads=scaled(done.reads, by_read),
            writes=scaled(done.writes, writes / max(1, int(done.writes.sum()))),
            forwarded=scaled(done.forwarded, by_read), busy_ps=scaled(done.busy_ps, more),
            act=scaled(done.act, more), pre=scaled(done.pre, more), ref=scaled(done.ref, longer),
            open_cycles=scaled(done.open_cycles, longer),
            slept_cycles=scaled(done.slept_cycles, longer),
        )  # fmt: skip


def _share(
    tasks: Sequence[Task], reports: Sequence[Report], tiles: Sequence[int], chosen: Sequence[I64]
) -> float:
    """Share of all bytes that a set of windows moves, about."""
    moved = total = 0.0
    for task, report, count, mine in zip(tasks, reports, tiles, chosen, strict=True):
        size = report.read_bytes + report.write_bytes
        resident = min(size, sum(m.tensor.bytes for m in task.reads if m.resident))
        moved += resident + (size - resident) * len(mine) / count
        total += size
    return moved / total if total else 1.0


def _spans(outcome: Outcome) -> F64:
    """What each task takes: from the end of those before it to its own, ps."""
    return _differences(outcome.ends_ps)


def _differences(ends: I64) -> F64:
    latest = np.maximum.accumulate(ends)
    return np.diff(latest, prepend=0).astype(np.float64)


def _windows(run: Run, expected: Outcome) -> _Windows:
    done = run.counts
    return _Windows(
        run=run, took=_differences(np.array([r.end_ps for r in run.reports], np.int64)),
        estimated=_spans(expected),
        bursts=int(done.reads.sum() + done.writes.sum() + done.forwarded.sum()),
    )  # fmt: skip


def _limiter(task: Task, report: Report) -> int:
    """Number the part that alone would need the most time: the array or one of `PARTS`."""
    needs = [task.compute_ps, *(int(report.busy[part].max(initial=0)) for part in PARTS)]
    return int(np.argmax(needs))


def _scaled(estimated: F64, windows: _Windows, strata: Any) -> F64:
    """Scale each task's estimate by what its stratum's windows took over their estimate."""
    out = estimated.copy()
    for stratum in np.unique(strata):
        mine = strata == stratum
        expected = windows.estimated[mine].sum()
        if expected:
            out[mine] *= windows.took[mine].sum() / expected
    return out


def _from_growth(estimated: F64, shorter: _Windows, longer: _Windows) -> float:
    """The whole time if only what the longer windows took more is scaled, ps."""
    more = longer.estimated.sum() - shorter.estimated.sum()
    took, left = longer.took.sum(), estimated.sum() - longer.estimated.sum()
    if more <= 0 or left <= 0:
        return float(took + max(0.0, left))
    return float(took + left * (took - shorter.took.sum()) / more)


def _standard_error(estimated: F64, windows: _Windows, strata: Any) -> float:
    """Standard error of the time, ps, from the ratio in batches of successive tasks."""
    rest = windows.took - _scaled(windows.estimated, windows, strata)
    batches = [part.sum() for part in np.array_split(rest, BATCHES) if len(part)]
    expected = windows.estimated.sum()
    if len(batches) < 2 or not expected:
        return 0.0
    spread = sum(b * b for b in batches) * len(batches) / (len(batches) - 1)
    beyond = max(0.0, estimated.sum() - expected) / expected
    return float(spread**0.5 * beyond)
