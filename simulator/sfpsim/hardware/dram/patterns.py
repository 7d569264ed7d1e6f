"""Address traces that exercise a memory: streams, copies, strides, random, codec output.

They are those of the reference runs (`sfpsim.testing.validate_dram`) and of ``sfpsim bench
dram``: 64 MiB or 200,000 accesses, always the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpsim.hardware.dram.device import Device, address_pieces
from sfpsim.hardware.dram.simulate import Requests

MIB = 1 << 20
SPAN = 256 * MIB  # of the random and strided patterns
TILE = 4096
ACCESSES = 200_000
ROW_HITS = 1_000_000

I64 = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Byte addresses, whether each is a write, and the burst slot in which it arrives."""

    address: I64
    is_write: NDArray[np.uint8]
    slot: I64

    def requests(self, slot_cycles: int) -> Requests:
        """Return it as the engine takes it, a slot lasting `slot_cycles`."""
        timed = bool(self.slot.any())
        return Requests(
            address=self.address.astype(np.uint64),
            is_write=self.is_write,
            cycle=(self.slot * slot_cycles).astype(np.uint64) if timed else None,
        )


def row_hits(device: Device, count: int = ROW_HITS, write: bool = False) -> Requests:
    """Return requests that go round eight banks (or all), column by column, in one row of each."""
    bits = device.field_bits()
    banks = min(8, device.banks)
    i = np.arange(count)
    number, column = i % banks, i // banks % (1 << bits["co"])
    parts = {
        "bg": number & ((1 << bits["bg"]) - 1), "ba": number >> bits["bg"], "co": column,
    }  # fmt: skip
    access = np.zeros(count, np.int64)
    for piece in address_pieces(device)[0]:  # row 0: an XOR with it changes nothing
        if piece.field in parts:
            access |= (parts[piece.field] >> piece.to & ((1 << piece.bits) - 1)) << piece.at
    return Requests(
        address=(access * device.access_bytes).astype(np.uint64),
        is_write=np.full(count, write, np.uint8),
    )


def _saturating(address: Any, is_write: Any) -> Trace:
    address = np.asarray(address, np.int64)
    writes = np.broadcast_to(np.asarray(is_write), address.shape).astype(np.uint8)
    return Trace(address=address, is_write=writes, slot=np.zeros(len(address), np.int64))


def _cover(start: I64, size: I64, access: int) -> tuple[I64, I64]:
    """Addresses of the accesses that byte ranges touch, and the range of each."""
    first = start // access
    count = (start + size - 1) // access - first + 1
    which = np.repeat(np.arange(len(start)), count)
    inside = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    return (first[which] + inside) * access, which


def _copy(access: int) -> Trace:
    """Two tiles read and one written in turn, of three buffers 64 MiB apart."""
    tiles = ACCESSES * access // (3 * TILE)
    offsets = np.array([0, 64 * MIB + 3 * TILE, 128 * MIB + 5 * TILE])
    start = (np.arange(tiles)[:, None] * TILE + offsets).ravel()
    address, which = _cover(start, np.full(len(start), TILE), access)
    return _saturating(address, which % 3 == 2)


def _random(access: int, writes: float, rng: np.random.Generator) -> Trace:
    address = rng.integers(0, SPAN // access, ACCESSES) * access
    return _saturating(address, rng.random(ACCESSES) < writes)


def _compressed(access: int, rng: np.random.Generator) -> Trace:
    """Tiles of 30-60 % of 4 KiB, packed; written in order, read transposed a batch later.

    A batch is 8 by 8 tiles; its writes alternate, tile by tile, with the reads of the batch
    before. A writer sends a shared edge access once, a reader fetches it for both tiles.
    """
    side = 8
    batch = side * side
    tiles = int(ACCESSES * access / (2 * 0.45 * TILE)) // batch * batch
    size = rng.integers(int(0.3 * TILE), int(0.6 * TILE) + 1, tiles)
    address, which = _cover(np.cumsum(size) - size, size, access)
    reads = np.split(address, np.flatnonzero(np.diff(which)) + 1)
    again = np.append(False, address[1:] == address[:-1])
    writes = [
        part[~shared]
        for part, shared in zip(
            reads, np.split(again, np.flatnonzero(np.diff(which)) + 1), strict=True
        )
    ]
    order = np.arange(batch).reshape(side, side).T.ravel()
    parts: list[I64] = []
    kinds: list[int] = []
    for first in range(0, tiles + batch, batch):
        for tile in range(batch):
            if first < tiles:
                parts.append(writes[first + tile])
                kinds.append(1)
            if first:
                parts.append(reads[first - batch + order[tile]])
                kinds.append(0)
    is_write = np.repeat(np.array(kinds), [len(part) for part in parts])
    return _saturating(np.concatenate(parts)[:ACCESSES], is_write[:ACCESSES])


def _bursty(access: int, rng: np.random.Generator) -> Trace:
    """512 accesses back to back in a random region, then 1,536 idle slots; every fourth writes."""
    run, gap = 512, 1536
    runs = ACCESSES // 2 // run
    base = rng.integers(0, SPAN // (run * access), runs) * (run * access)
    inside = np.tile(np.arange(run), runs)
    number = np.repeat(np.arange(runs), run)
    return Trace(
        address=base[number] + inside * access,
        is_write=(number % 4 == 3).astype(np.uint8),
        slot=number * (run + gap) + inside,
    )


def traces(access: int) -> dict[str, Trace]:
    """Return the traces of the reference runs for accesses of `access` bytes."""
    rng = np.random.default_rng(1)
    stride = -(-(1024 + 64) // access) * access
    found = {
        "seq_rd": _saturating(np.arange(64 * MIB // access) * access, 0),
        "seq_wr": _saturating(np.arange(ACCESSES) * access, 1),
        "copy21": _copy(access),
        "stride": _saturating(np.arange(ACCESSES) * stride % SPAN, 0),
        "rand_rd": _random(access, 0.0, rng),
        "rand_mix70": _random(access, 0.3, rng),
        "compressed": _compressed(access, rng),
    }
    for name, trace in list(found.items()):
        half = np.arange(min(ACCESSES, len(trace.address)))
        found[f"{name}_50"] = Trace(
            address=trace.address[half], is_write=trace.is_write[half], slot=half * 2
        )
    found["bursty"] = _bursty(access, rng)
    return found
