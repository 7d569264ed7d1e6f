"""Where the blocks of a tensor lie, and the jobs that move them.

Block i of a tensor lies in channel (h + i) mod C, its streams one after the other with
those of the tensor's other blocks in that channel: payload, metadata, index. Where memory is
striped there is one such room over all channels. A burst that two blocks share is written
once (write combining) and fetched for each. The last burst of a stream in a channel may be
partial: it costs a read and a write.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.base import ROW_VALUES, Container
from sfpsim.containers.sampled import Stored
from sfpsim.hardware import kernels as k
from sfpsim.hardware.machine import Machine

I64 = NDArray[np.int64]
INDEX_BYTES = 8
ADDRESSES = (k.J_PADDR, k.J_MADDR, k.J_IADDR)
COUNTS = (k.J_PBURSTS, k.J_MBURSTS, k.J_IBURSTS)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One of a tensor's streams: per block, its start in its group's extent and length."""

    start: I64
    length: I64
    last: NDArray[np.bool_]

    def read_bursts(self, burst: int) -> I64:
        """Bursts that fetch each block, edges included."""
        end = self.start + self.length
        return np.where(end > self.start, -(-end // burst) - self.start // burst, 0)

    def write_bursts(self, burst: int) -> tuple[I64, NDArray[np.bool_]]:
        """Bursts that leave the combining buffer at each block, and whether one is partial."""
        end = self.start + self.length
        partial = self.last & (end % burst != 0)
        return end // burst - self.start // burst + partial, partial


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A tensor in memory: its streams and the jobs that move its blocks.

    Attributes
    ----------
    group
        int64, the group of slots that moves each block: its channel, or 0 (striped).
    payload, metadata, index
        Where each block lies in its group's extents.
    base
        int64 (3, groups): addresses of the payload, metadata and index extents.
    reads, writes
        int64 (blocks, `JOB_COLUMNS`): what fetches and what writes each block; the index
        lines of a read depend on the cache and are left out.
    partial
        bool (blocks, 3): where a write leaves a partial burst in a stream.
    """

    name: str
    group: I64
    payload: Stream
    metadata: Stream
    index: Stream
    base: I64
    reads: I64
    writes: I64
    partial: NDArray[np.bool_]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.group)

    @property
    def bytes(self) -> int:
        """Bytes stored: payload, metadata and index."""
        return int(sum(s.length.sum() for s in (self.payload, self.metadata, self.index)))


def _stream(lengths: I64, group: I64, groups: int) -> Stream:
    start = np.zeros_like(lengths)
    last = np.zeros(len(lengths), np.bool_)
    for c in range(min(groups, len(lengths))):
        mine = np.flatnonzero(group == group[c])
        start[mine] = np.cumsum(lengths[mine]) - lengths[mine]
        last[mine[-1]] = True
    return Stream(start=start, length=lengths, last=last)


def extent_bytes(stored: Stored, first_group: int, groups: int) -> I64:
    """Bytes of the payload, metadata and index extents, int64 (3, groups)."""
    blocks = stored.blocks
    index = np.full(len(blocks.values), blocks.index_bits_per_block // 8, np.int64)
    group = (first_group + np.arange(len(index))) % groups
    out = np.zeros((3, groups), np.int64)
    for row, lengths in enumerate((blocks.payload_bytes, blocks.metadata_bytes, index)):
        np.add.at(out[row], group, lengths)
    return out


def place(
    name: str, stored: Stored, container: Container, machine: Machine, *,
    first_group: int, row_base: int, base: I64,
) -> Placed:  # fmt: skip
    """Lay the blocks of `stored` out over the machine's groups from `first_group` on.

    `row_base` is where its rows begin in the row store.
    """
    blocks = stored.blocks
    groups = machine.memory.groups
    group = (first_group + np.arange(len(blocks.values), dtype=np.int64)) % groups
    index = np.full(len(group), blocks.index_bits_per_block // 8, np.int64)
    lengths = (blocks.payload_bytes, blocks.metadata_bytes, index)
    streams = [_stream(length, group, groups) for length in lengths]
    burst = machine.device.burst_bytes
    jobs = _jobs(stored, container, streams, base[:, group], burst)
    jobs[:, k.J_ROWBASE] = row_base
    writes, partial = _write_jobs(jobs, container, machine, streams)
    return Placed(
        name=name, group=group, payload=streams[0], metadata=streams[1], index=streams[2],
        base=base, reads=_read_jobs(jobs, container, machine, streams), writes=writes,
        partial=partial,
    )  # fmt: skip


def _jobs(
    stored: Stored, container: Container, streams: list[Stream], base: I64, burst: int
) -> I64:
    """What a block's read and write have in common; `base` is (3, blocks)."""
    blocks = stored.blocks
    jobs = np.zeros((len(blocks.values), k.JOB_COLUMNS), np.int64)
    for column, stream, address in zip(ADDRESSES, streams, base, strict=True):
        jobs[:, column] = (address + stream.start) // burst * burst
    jobs[:, k.J_PHEAD] = streams[0].start % burst * 8
    jobs[:, k.J_MHEAD] = streams[1].start % burst * 8
    jobs[:, k.J_ROWSTART] = stored.row_start
    jobs[:, k.J_ROWLEN] = max(stored.row_count, 1)
    coded = not container.timing.bypass
    jobs[:, k.J_ROWS] = np.where(blocks.raw | (not coded), 0, -(-blocks.values // ROW_VALUES))
    jobs[:, k.J_PACE] = container.timing.cycles_per_row
    return jobs


def _read_jobs(jobs: I64, container: Container, machine: Machine, streams: list[Stream]) -> I64:
    jobs = jobs.copy()
    burst = machine.device.burst_bytes
    jobs[:, k.J_PBURSTS] = streams[0].read_bursts(burst)
    jobs[:, k.J_MBURSTS] = streams[1].read_bursts(burst)
    jobs[:, k.J_LATENCY] = container.timing.decode_latency_cycles * machine.codec.period_ps
    jobs[:, k.J_CLASS] = np.where(jobs[:, k.J_ROWS] > 0, k.DECODE, k.PLAIN_READ)
    return jobs


def _write_jobs(
    jobs: I64, container: Container, machine: Machine, streams: list[Stream]
) -> tuple[I64, NDArray[np.bool_]]:
    jobs, partial = jobs.copy(), np.zeros((len(jobs), 3), np.bool_)
    for number, (column, stream) in enumerate(zip(COUNTS, streams, strict=True)):
        jobs[:, column], partial[:, number] = stream.write_bursts(machine.device.burst_bytes)
    jobs[:, k.J_DELAY] = jobs[:, k.J_ROWS] * jobs[:, k.J_PACE] * (container.timing.passes - 1)
    jobs[:, k.J_LATENCY] = container.timing.encode_latency_cycles * machine.codec.period_ps
    jobs[:, k.J_CLASS] = np.where(jobs[:, k.J_ROWS] > 0, k.ENCODE, k.PLAIN_WRITE)
    return jobs, partial


class IndexCache:
    """Least recently used lines of index entries of one group.

    The next line is fetched ahead, so that only a jump waits for memory.
    """

    def __init__(self, lines: int, line_bytes: int) -> None:
        self.capacity = lines
        self.entries = line_bytes // INDEX_BYTES
        self.lines: OrderedDict[int, None] = OrderedDict()

    def look_up(self, address: int) -> tuple[int, bool]:
        """Return (lines fetched, whether the reader waits) for the entry at `address`."""
        line = address // (self.entries * INDEX_BYTES)
        fetched = 0
        waits = line not in self.lines
        for wanted in (line, line + 1):
            if wanted not in self.lines:
                fetched += 1
            self.lines[wanted] = None
            self.lines.move_to_end(wanted)
        while len(self.lines) > self.capacity:
            self.lines.popitem(last=False)
        return fetched, waits


def read_jobs(placed: Placed, blocks: I64, caches: list[IndexCache], burst: int) -> I64:
    """Jobs that fetch `blocks`, in order, one row of int64 columns each."""
    jobs = placed.reads[blocks]
    if len(blocks) and placed.index.length[0]:
        addresses = placed.base[2, placed.group[blocks]] + placed.index.start[blocks]
        for i, (group, address) in enumerate(
            zip(placed.group[blocks].tolist(), addresses.tolist(), strict=True)
        ):
            lines, waits = caches[group].look_up(address)
            jobs[i, k.J_IBURSTS] = -(-lines * caches[group].entries * INDEX_BYTES // burst)
            jobs[i, k.J_DEPENDENT] = waits
    return jobs


def bursts_by_channel(jobs: I64, group: I64, machine: Machine) -> I64:
    """Bursts of each job's payload, metadata and index in each channel, int64 (3, jobs, C)."""
    channels, burst = machine.memory.channels, machine.device.burst_bytes
    out = np.zeros((3, len(jobs), channels), np.int64)
    stripe = machine.memory.stripe_bytes
    for number, (address, count) in enumerate(zip(ADDRESSES, COUNTS, strict=True)):
        if stripe is None:
            out[number, np.arange(len(jobs)), group] = jobs[:, count]
            continue
        width = stripe // burst
        first = jobs[:, address] // burst
        ends = np.stack([first + jobs[:, count], first])[:, :, np.newaxis]
        rounds, rest = np.divmod(ends, width * channels)
        below = rounds * width + np.clip(rest - np.arange(channels) * width, 0, width)
        out[number] = below[0] - below[1]
    return out


def write_jobs(placed: Placed, blocks: I64, burst: int) -> tuple[I64, I64]:
    """Jobs that write `blocks`, and the one-burst reads that their partial bursts cost.

    The second array has one row a read; its column `J_ROWSTART` is the block's position
    in `blocks`.
    """
    jobs = placed.writes[blocks]
    positions, streams = np.nonzero(placed.partial[blocks])
    extra = np.zeros((len(positions), k.JOB_COLUMNS), np.int64)
    extra[:, k.J_CLASS] = k.PLAIN_READ
    extra[:, k.J_PBURSTS] = 1
    extra[:, k.J_ROWLEN] = 1
    columns, counts = np.array(ADDRESSES)[streams], np.array(COUNTS)[streams]
    extra[:, k.J_PADDR] = jobs[positions, columns] + (jobs[positions, counts] - 1) * burst
    extra[:, k.J_ROWSTART] = positions
    return jobs, extra
