"""A replay as a timeline that Perfetto opens: parts as tracks, the memory as counters.

The file is in Chrome's trace event format, gzipped where its name ends in ``.gz``. Each
policy is a process; loads, computation and drains of tiles are slices on its tracks, each
with the pass it belongs to and the bytes it moves; bandwidth and jobs are counters. Times
are those of the simulation, in microseconds.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sfpsim.experiment.compare import Timeline
from sfpsim.experiment.step import StepRun
from sfpsim.trace.writer import write_atomically

PS_PER_US = 1_000_000
PARTS = ("load", "compute", "drain")
Event = dict[str, Any]


def _lanes(step: StepRun, part: str) -> Iterator[tuple[int, Any]]:
    """Yield (lane, slice) so that the slices of a lane do not overlap."""
    free: list[int] = []
    for piece in sorted((s for s in step.run.slices if s.part == part), key=lambda s: s.start_ps):
        lane = next((i for i, end in enumerate(free) if end <= piece.start_ps), len(free))
        if lane == len(free):
            free.append(0)
        free[lane] = piece.end_ps
        yield lane, piece


def _slices(step: StepRun, process: int, begin: int) -> Iterator[Event]:
    for number, part in enumerate(PARTS):
        for lane, piece in _lanes(step, part):
            plan = step.plans[piece.task]
            yield {
                "ph": "X",
                "pid": process,
                "tid": number * 1000 + lane,
                "ts": (begin + piece.start_ps) / PS_PER_US,
                "dur": (piece.end_ps - piece.start_ps) / PS_PER_US,
                "name": f"{plan.layer} {plan.pass_}",
                "cat": part,
                "args": {"bytes": piece.bytes, "step": plan.step},
            }


def _counters(step: StepRun, process: int, begin: int) -> Iterator[Event]:
    before_ps, before_bytes = 0, 0
    for s in step.run.samples:
        if s.at_ps == before_ps:
            continue
        rate = (s.moved_bytes - before_bytes) * 1000 / (s.at_ps - before_ps)
        at = {"ph": "C", "pid": process, "ts": (begin + before_ps) / PS_PER_US}
        yield at | {"name": "bandwidth, GB/s", "args": {"GB/s": round(rate, 3)}}
        yield at | {"name": "jobs", "args": {"waiting or at work": s.jobs}}
        before_ps, before_bytes = s.at_ps, s.moved_bytes


def _ratios(step: StepRun, process: int, begin: int) -> Iterator[Event]:
    """Yield the compression ratio of each pass from its first load on, 1 for a pass of none."""
    first: dict[int, int] = {}
    for piece in step.run.slices:
        first[piece.task] = min(piece.start_ps, first.get(piece.task, piece.start_ps))
    for task, start in sorted(first.items()):
        plan = step.plans[task]
        moved = [(step.kept[t.record.name].sizes, t.times) for t in (*plan.reads, *plan.writes)]
        stored = sum(sizes.total_bits * times for sizes, times in moved)
        raw = sum(sizes.raw_bits * times for sizes, times in moved)
        yield {
            "ph": "C", "pid": process, "ts": (begin + start) / PS_PER_US,
            "name": "compression ratio", "args": {"raw / stored": round(raw / (stored or 1), 4)},
        }  # fmt: skip


def _names(process: int, policy: str, tracks: set[int]) -> Iterator[Event]:
    yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": policy}}
    for track in sorted(tracks):
        name = f"{PARTS[track // 1000]} {track % 1000}"
        about = {"ph": "M", "pid": process, "tid": track}
        yield about | {"name": "thread_name", "args": {"name": name}}
        yield about | {"name": "thread_sort_index", "args": {"sort_index": track}}


def timeline_events(timeline: Timeline) -> list[Event]:
    """Return the events of every policy; its steps follow one another."""
    out: list[Event] = []
    for process, (policy, steps) in enumerate(timeline.items(), 1):
        begin, events = 0, []
        for step in steps:
            events += [*_slices(step, process, begin), *_counters(step, process, begin)]
            events += _ratios(step, process, begin)
            begin += step.run.end_ps
        out += [*_names(process, policy, {e["tid"] for e in events if "tid" in e}), *events]
    return out


def write_timeline(timeline: Timeline, path: Path) -> None:
    """Write the timeline to `path`, gzipped where its name ends in ``.gz``."""
    body = {"traceEvents": timeline_events(timeline), "displayTimeUnit": "ns"}
    data = json.dumps(body, separators=(",", ":")).encode()
    write_atomically(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
