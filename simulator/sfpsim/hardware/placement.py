"""Where the blocks of a tensor lie, and the jobs that move them.

Block i of a tensor lies in channel (h + i) mod C, its streams one after the other with
those of the tensor's other blocks in that channel: payload, metadata, index. A burst that
two blocks share is written once (write combining) and fetched for each. The last burst of
a stream in a channel may be partial: it costs a read and a write.
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


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One of a tensor's streams: per block, its start in its channel's extent and length."""

    start: I64
    length: I64
    last: NDArray[np.bool_]

    def read_bursts(self, blocks: I64, burst: int) -> I64:
        """Bursts that fetch each of `blocks`, edges included."""
        start = self.start[blocks]
        end = start + self.length[blocks]
        return np.where(end > start, -(-end // burst) - start // burst, 0)

    def write_bursts(self, blocks: I64, burst: int) -> tuple[I64, I64]:
        """Bursts that leave the combining buffer at each of `blocks`, and partial ones."""
        start = self.start[blocks]
        end = start + self.length[blocks]
        partial = (self.last[blocks] & (end % burst != 0)).astype(np.int64)
        return end // burst - start // burst + partial, partial


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A tensor in memory: its streams, its rows in the row store and its extents.

    Attributes
    ----------
    channel
        int64, the channel of each block.
    rows
        int64, rows of 8 values that a codec unit works through; 0 where there is none.
    row_start, row_base, row_count
        The first row of each block among the tensor's held rows (int64), where these begin
        in the row store and how many they are.
    base
        int64 (3, channels): addresses of the payload, metadata and index extents.
    latency_ps
        Encoder and decoder pipeline.
    """

    name: str
    channel: I64
    payload: Stream
    metadata: Stream
    index: Stream
    rows: I64
    row_start: I64
    row_base: int
    row_count: int
    base: I64
    latency_ps: tuple[int, int]
    passes: int

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.channel)

    @property
    def bytes(self) -> int:
        """Bytes stored: payload, metadata and index."""
        return int(sum(s.length.sum() for s in (self.payload, self.metadata, self.index)))


def _stream(lengths: I64, channel: I64, channels: int) -> Stream:
    start = np.zeros_like(lengths)
    last = np.zeros(len(lengths), np.bool_)
    for c in range(min(channels, len(lengths))):
        mine = np.flatnonzero(channel == channel[c])
        start[mine] = np.cumsum(lengths[mine]) - lengths[mine]
        last[mine[-1]] = True
    return Stream(start=start, length=lengths, last=last)


def extent_bytes(stored: Stored, first_channel: int, channels: int) -> I64:
    """Bytes of the payload, metadata and index extents, int64 (3, channels)."""
    blocks = stored.blocks
    index = np.full(len(blocks.values), blocks.index_bits_per_block // 8, np.int64)
    channel = (first_channel + np.arange(len(index))) % channels
    out = np.zeros((3, channels), np.int64)
    for row, lengths in enumerate((blocks.payload_bytes, blocks.metadata_bytes, index)):
        np.add.at(out[row], channel, lengths)
    return out


def place(
    name: str, stored: Stored, container: Container, machine: Machine, *,
    first_channel: int, row_base: int, base: I64,
) -> Placed:  # fmt: skip
    """Lay the blocks of `stored` out over the machine's channels from `first_channel` on."""
    blocks = stored.blocks
    channels = machine.memory.channels
    channel = (first_channel + np.arange(len(blocks.values), dtype=np.int64)) % channels
    index = np.full(len(channel), blocks.index_bits_per_block // 8, np.int64)
    coded = not container.timing.bypass
    rows = np.where(blocks.raw | (not coded), 0, -(-blocks.values // ROW_VALUES))
    period = 1_000_000 // machine.codec.clock_mhz
    timing = container.timing
    return Placed(
        name=name,
        channel=channel,
        payload=_stream(blocks.payload_bytes, channel, channels),
        metadata=_stream(blocks.metadata_bytes, channel, channels),
        index=_stream(index, channel, channels),
        rows=rows,
        row_start=stored.row_start,
        row_base=row_base,
        row_count=stored.row_count,
        base=base,
        latency_ps=(timing.encode_latency_cycles * period, timing.decode_latency_cycles * period),
        passes=timing.passes,
    )


class IndexCache:
    """Least recently used lines of index entries of one channel.

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


def _jobs(placed: Placed, blocks: I64, burst: int) -> I64:
    jobs = np.zeros((len(blocks), k.JOB_COLUMNS), np.int64)
    channel = placed.channel[blocks]
    for column, stream, row in (
        (k.J_PADDR, placed.payload, 0),
        (k.J_MADDR, placed.metadata, 1),
        (k.J_IADDR, placed.index, 2),
    ):
        jobs[:, column] = (placed.base[row, channel] + stream.start[blocks]) // burst * burst
    jobs[:, k.J_PHEAD] = placed.payload.start[blocks] % burst * 8
    jobs[:, k.J_MHEAD] = placed.metadata.start[blocks] % burst * 8
    jobs[:, k.J_ROWBASE] = placed.row_base
    jobs[:, k.J_ROWSTART] = placed.row_start[blocks] % max(placed.row_count, 1)
    jobs[:, k.J_ROWLEN] = max(placed.row_count, 1)
    jobs[:, k.J_ROWS] = placed.rows[blocks]
    return jobs


def read_jobs(placed: Placed, blocks: I64, caches: list[IndexCache], burst: int) -> I64:
    """Jobs that fetch `blocks`, in order, one row of int64 columns each."""
    jobs = _jobs(placed, blocks, burst)
    jobs[:, k.J_PBURSTS] = placed.payload.read_bursts(blocks, burst)
    jobs[:, k.J_MBURSTS] = placed.metadata.read_bursts(blocks, burst)
    if len(blocks) and placed.index.length[0]:
        for i, block in enumerate(blocks):
            channel = placed.channel[block]
            address = int(placed.base[2, channel] + placed.index.start[block])
            lines, waits = caches[channel].look_up(address)
            jobs[i, k.J_IBURSTS] = -(-lines * caches[channel].entries * INDEX_BYTES // burst)
            jobs[i, k.J_DEPENDENT] = waits
    jobs[:, k.J_LATENCY] = placed.latency_ps[1]
    jobs[:, k.J_CLASS] = np.where(jobs[:, k.J_ROWS] > 0, k.DECODE, k.PLAIN_READ)
    return jobs


def write_jobs(placed: Placed, blocks: I64, burst: int) -> tuple[I64, I64]:
    """Jobs that write `blocks`, and the one-burst reads that their partial bursts cost.

    The second array has one row a read; its column `J_ROWSTART` is the block's position
    in `blocks`.
    """
    jobs = _jobs(placed, blocks, burst)
    partial = np.zeros((3, len(blocks)), np.int64)
    for row, (column, stream) in enumerate(
        (
            (k.J_PBURSTS, placed.payload),
            (k.J_MBURSTS, placed.metadata),
            (k.J_IBURSTS, placed.index),
        )
    ):
        jobs[:, column], partial[row] = stream.write_bursts(blocks, burst)
    jobs[:, k.J_DELAY] = jobs[:, k.J_ROWS] * (placed.passes - 1)
    jobs[:, k.J_LATENCY] = placed.latency_ps[0]
    jobs[:, k.J_CLASS] = np.where(jobs[:, k.J_ROWS] > 0, k.ENCODE, k.PLAIN_WRITE)
    streams, positions = np.nonzero(partial)
    extra = np.zeros((len(positions), k.JOB_COLUMNS), np.int64)
    extra[:, k.J_CLASS] = k.PLAIN_READ
    extra[:, k.J_PBURSTS] = 1
    extra[:, k.J_ROWLEN] = 1
    columns = np.array([k.J_PADDR, k.J_MADDR, k.J_IADDR])[streams]
    counts = np.array([k.J_PBURSTS, k.J_MBURSTS, k.J_IBURSTS])[streams]
    extra[:, k.J_PADDR] = jobs[positions, columns] + (jobs[positions, counts] - 1) * burst
    extra[:, k.J_ROWSTART] = positions
    return jobs, extra
