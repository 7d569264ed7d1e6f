"""Fits the efficiency of `bandwidth` detail to `detailed`: ``python -m sfpsim.hardware.dram.fit``.

Each pattern is a few plain streams, each a run of consecutive blocks, that keep the memory
busy. Where blocks lie whole in a channel the fit is the device's: the command prints the
``fit:`` block of its file. Where they are striped it depends on the machine, since every
channel serves a part of every stream, and is measured when first asked for. ``--table``
prints every pattern's time in both levels.
"""

from __future__ import annotations

import argparse
import functools
import sys
from dataclasses import dataclass

import msgspec
import numpy as np
import simpy

from sfpsim.containers.base import DEFAULT_BLOCK_VALUES
from sfpsim.hardware import kernels as k
from sfpsim.hardware.channel import ChannelCounts, Channels
from sfpsim.hardware.dram.device import Device, Fit, presets
from sfpsim.hardware.machine import Detail, Machine, load_machine

BLOCK_BYTES = DEFAULT_BLOCK_VALUES * 4
BLOCKS = 48


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Streams that run at the same time: so many read, so many write.

    `block_bytes` is what a job moves: small ones (a compressed block, its metadata) change
    rows more often.
    """

    name: str
    reads: int
    writes: int
    block_bytes: int = BLOCK_BYTES


PATTERNS = (
    Pattern(name="one read stream", reads=1, writes=0),
    Pattern(name="two read streams", reads=2, writes=0),
    Pattern(name="two read streams, blocks of 8 KiB", reads=2, writes=0, block_bytes=8192),
    Pattern(name="one write stream", reads=0, writes=1),
    Pattern(name="two write streams", reads=0, writes=2),
    Pattern(name="copy", reads=1, writes=1),
    Pattern(name="two reads, one write", reads=2, writes=1),
    Pattern(name="copy, blocks of 8 KiB", reads=1, writes=1, block_bytes=8192),
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A pattern on a machine: time, ps, and what its channels did."""

    pattern: Pattern
    ps: int
    counts: ChannelCounts

    @property
    def bursts(self) -> int:
        """Bursts on all buses."""
        return int((self.counts.reads + self.counts.writes).sum())

    def share(self, burst_ps: float) -> float:
        """Bursts over what the channels could carry at their peak, one every `burst_ps`."""
        return self.bursts * burst_ps / (self.ps * len(self.counts.reads))


def _jobs(
    pattern: Pattern, burst: int, stride: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """The pattern's blocks, stream by stream in turn; each stream has an extent of its own.

    Streams begin an odd number of rows apart, so that they do not start in the same bank.
    """
    kinds = [k.PLAIN_READ] * pattern.reads + [k.PLAIN_WRITE] * pattern.writes
    blocks = BLOCKS * BLOCK_BYTES // pattern.block_bytes
    jobs = np.zeros((blocks, len(kinds), k.JOB_COLUMNS), np.int64)
    for stream, kind in enumerate(kinds):
        jobs[:, stream, k.J_CLASS] = kind
        base = stream * (2 * BLOCKS * BLOCK_BYTES + 3 * stride)
        jobs[:, stream, k.J_PADDR] = base + np.arange(blocks) * pattern.block_bytes
    jobs[:, :, k.J_PBURSTS] = pattern.block_bytes // burst
    jobs[:, :, k.J_ROWLEN] = 1
    return jobs.reshape(-1, k.JOB_COLUMNS)


def _channels(
    env: simpy.Environment, machine: Machine, detail: Detail, known: Fit | None
) -> Channels:
    return Channels(env, machine, np.zeros(0, np.uint16), np.zeros(0, np.uint8), detail, known)


def run(pattern: Pattern, machine: Machine, detail: Detail, known: Fit | None = None) -> Measured:
    """Run `pattern` on the first group of `machine`; `known` is the fit for ``bandwidth``."""
    env = simpy.Environment()
    channels = _channels(env, machine, detail, known)
    together = machine.memory.channels // machine.memory.groups
    jobs = _jobs(pattern, machine.device.burst_bytes, machine.device.row_bytes * together)
    channels.submit(jobs, np.zeros(len(jobs), np.int64))
    env.run()
    return Measured(pattern=pattern, ps=channels.finish(), counts=channels.counts())


def one_channel(device: str) -> Machine:
    """Return a machine with one channel of `device`."""
    machine = load_machine("sfp-2024")
    memory = msgspec.structs.replace(machine.memory, device=device, channels=1)
    return msgspec.structs.replace(machine, memory=memory)


def fit_of(machine: Machine) -> Fit | None:
    """Return the fit that `machine` runs with: its device's or, where striped, its own."""
    device = machine.device
    return _striped(machine, device) if machine.memory.placement == "stripe" else device.fit


@functools.lru_cache
def _striped(machine: Machine, _: Device) -> Fit:
    """Measure it once, and again where the device's file says something else by now."""
    return fit(machine)


def fit(machine: Machine) -> Fit:
    """Measure the fit of `machine`: of one channel, or of a striped memory.

    Reads and writes alone come from their streams; mixed from the patterns with both. The
    patterns of a kind share one efficiency, the middle of their extremes, so the residual
    is the least that one number a kind can reach.

    Raises
    ------
    InputError
        If there is no such device.
    """
    found = machine.device
    measured = [run(pattern, machine, "detailed") for pattern in PATTERNS]

    def efficiency(kind: list[Measured]) -> float:
        shares = [m.share(found.burst_ps) for m in kind]
        return 2 / (1 / min(shares) + 1 / max(shares))

    reads = [m for m in measured if not m.pattern.writes]
    writes = [m for m in measured if not m.pattern.reads]
    mixed = [m for m in measured if m.pattern.reads and m.pattern.writes]
    first = Pattern(name="one burst", reads=1, writes=0, block_bytes=found.burst_bytes)
    latency = _latency(first, machine) - found.burst_ps
    activations = sum(int(m.counts.act.sum()) for m in measured) / sum(m.bursts for m in measured)
    shares = {"read": efficiency(reads), "write": efficiency(writes), "mixed": efficiency(mixed)}
    errors = [
        abs(m.share(found.burst_ps) / shares[kind] - 1)
        for kind, group in (("read", reads), ("write", writes), ("mixed", mixed))
        for m in group
    ]
    return Fit(
        **{kind: round(share, 4) for kind, share in shares.items()},
        latency_ps=latency,
        activations=round(activations, 5),
        residual=round(max(errors), 4),
    )


def _latency(pattern: Pattern, machine: Machine) -> int:
    """Time of one burst in idle memory, ps."""
    env = simpy.Environment()
    channels = _channels(env, machine, "detailed", None)
    jobs = _jobs(pattern, machine.device.burst_bytes, machine.device.row_bytes)[:1]
    done = channels.submit(jobs, np.zeros(1, np.int64))
    env.run(until=done)
    return int(env.now)


def _table(machine: Machine) -> str:
    known = fit_of(machine)
    lines = ["pattern,detailed_ns,bandwidth_ns,error"]
    for pattern in PATTERNS:
        exact, quick = (run(pattern, machine, d, known).ps for d in ("detailed", "bandwidth"))
        lines.append(
            f"{pattern.name!r},{exact / 1000:.1f},{quick / 1000:.1f},{quick / exact - 1:.4f}"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Print the fit of every device named, of all presets by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("devices", nargs="*", help="presets or files; all presets by default")
    parser.add_argument("--machine", help="a striped machine instead: a preset or a file")
    parser.add_argument("--table", action="store_true", help="print every pattern instead")
    given = parser.parse_args(arguments)
    machines = {name: one_channel(name) for name in given.devices or presets()}
    if given.machine:
        machines = {given.machine: load_machine(given.machine)}
    for name, machine in machines.items():
        print(f"# {name}")
        if given.table:
            print(_table(machine))
            continue
        values = msgspec.to_builtins(fit(machine))
        print("fit: {" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}")


if __name__ == "__main__":
    main(sys.argv[1:])
