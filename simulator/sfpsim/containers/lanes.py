"""What Gecko and SFP share: rows of 8 values in 8 lanes, three streams, blocks and index.

The layout in memory and the 64-bit index entry are described in docs/containers.md.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import prod
from typing import ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers import kernels
from sfpsim.containers.base import (
    ROW_VALUES,
    STREAM_ALIGNMENT_BYTES,
    Array,
    BlockContainer,
    BlockSizes,
    Encoded,
    Rows,
)
from sfpsim.containers.kernels import DELTA, FIXED, Layout, Limits
from sfpsim.errors import InputError
from sfpsim.formats import FORMATS, FP32, FloatFormat, format_of, words_of

GROUP_ROWS = 8
BEAT_BYTES = 32
Int64s = NDArray[np.int64]
Length = TypeVar("Length", int, Int64s)
T = TypeVar("T")
NO_LIMITS = Limits(0, 0, 0)


def block_counts(values: int, block_values: int) -> Int64s:
    """Return how many of a tensor's `values` values each of its blocks holds, int64."""
    blocks = -(-values // block_values)
    counts = np.full(blocks, block_values, np.int64)
    if blocks:
        counts[-1] = values - (blocks - 1) * block_values
    return counts


def aligned(lengths: Length) -> Length:
    """Return lengths in bytes, filled up to the stream alignment of 64 bytes."""
    return -(-lengths // STREAM_ALIGNMENT_BYTES) * STREAM_ALIGNMENT_BYTES


def format_named(dtype: str) -> FloatFormat:
    """Return the format whose dtype is called `dtype`.

    Raises
    ------
    InputError
        If no supported format is stored as `dtype`.
    """
    for fmt in FORMATS.values():
        if fmt.dtype.name == dtype:
            return fmt
    allowed = ", ".join(fmt.dtype.name for fmt in FORMATS.values())
    raise InputError(f"dtype {dtype!r} is not supported here: allowed are {allowed}")


class IndexEntry(NamedTuple):
    """Widths of the fields of a block's 64-bit index entry, from bit 0 up; bit 63 is raw.

    `start`: where the payload begins; `slot`: blocks with metadata before this one;
    `payload` and `metadata`: the streams' lengths. Starts and lengths count 64 bytes.
    """

    start: int
    slot: int
    payload: int
    metadata: int

    @property
    def most_blocks(self) -> int:
        """Blocks that entries can tell apart."""
        return 1 << self.slot


@cache
def index_entry(block_values: int) -> IndexEntry:
    """Return the entry of blocks of so many values.

    Lengths are as wide as the longest need, a raw block of FP32 and three bits a row; start
    and slot share the rest so that the most blocks can be told apart.
    """
    longest = -(-block_values * FP32.bytes // STREAM_ALIGNMENT_BYTES)
    payload = longest.bit_length()
    metadata = (_most_metadata_bytes(block_values) // STREAM_ALIGNMENT_BYTES).bit_length()
    rest = 63 - payload - metadata
    slot = (rest - (longest - 1).bit_length()) // 2
    return IndexEntry(rest - slot, slot, payload, metadata)


def _most_metadata_bytes(block_values: int) -> int:
    return aligned(-(-3 * block_values // (8 * ROW_VALUES)))


def pack_index(blocks: BlockSizes, block_values: int) -> bytes:
    """Write one little-endian `index_entry` a block.

    Raises
    ------
    InputError
        If the tensor has more blocks than an entry can address.
    """
    fields = index_entry(block_values)
    if len(blocks.values) > fields.most_blocks:
        raise InputError(
            f"a tensor of {len(blocks.values)} blocks is too long for the index: "
            f"at most {fields.most_blocks} blocks of {block_values} values"
        )
    payload = blocks.payload_bytes // STREAM_ALIGNMENT_BYTES
    metadata = blocks.metadata_bytes // STREAM_ALIGNMENT_BYTES
    start = np.cumsum(payload) - payload
    slot: Int64s = np.cumsum(metadata > 0) - (metadata > 0)
    place = fields.start + fields.slot
    entry = start | slot << fields.start | payload << place
    entry |= metadata << (place + fields.payload)
    unsigned = entry.astype(np.uint64) | (blocks.raw.astype(np.uint64) << np.uint64(63))
    return unsigned.astype("<u8").tobytes()


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Where each block lies: byte lengths of its two streams, and whether it is raw."""

    payload_bytes: Int64s
    metadata_bytes: Int64s
    raw: NDArray[np.bool_]


def unpack_index(stored: Encoded, values: int, block_values: int) -> Extent:
    """Read the index of `stored` and check it against its streams.

    Raises
    ------
    InputError
        If lengths or starts do not agree with each other.
    """
    blocks = -(-values // block_values)
    if len(stored.index) != blocks * 8:
        raise InputError(
            f"the index has {len(stored.index)} bytes, {values} values need {blocks * 8}"
        )
    entry = np.frombuffer(stored.index, "<u8")
    low = (entry & np.uint64((1 << 63) - 1)).astype(np.int64)
    fields = index_entry(block_values)
    place = fields.start + fields.slot
    payload = (low >> place) & ((1 << fields.payload) - 1)
    metadata = low >> (place + fields.payload)
    slot = (low >> fields.start) & ((1 << fields.slot) - 1)
    starts_agree = np.array_equal(low & ((1 << fields.start) - 1), np.cumsum(payload) - payload)
    slots_agree = np.array_equal(slot, np.cumsum(metadata > 0) - (metadata > 0))
    extent = Extent(
        payload_bytes=payload * STREAM_ALIGNMENT_BYTES,
        metadata_bytes=metadata * STREAM_ALIGNMENT_BYTES,
        raw=(entry >> np.uint64(63)).astype(np.bool_),
    )
    lengths_agree = extent.payload_bytes.sum() == len(stored.payload)
    lengths_agree &= extent.metadata_bytes.sum() == len(stored.metadata)
    if not (starts_agree and slots_agree and lengths_agree):
        raise InputError("the index does not agree with the lengths of the streams")
    return extent


@dataclass(frozen=True, kw_only=True)
class Streams:
    """Destinations of an encoder, uint8, written from their beginning."""

    payload: NDArray[np.uint8]
    metadata: NDArray[np.uint8]

    @classmethod
    def room_for(cls, x: Array, block_values: int) -> Streams:
        """Return streams that hold any encoding of `x` in blocks of `block_values` values."""
        counts = block_counts(x.size, block_values)
        plain = int(aligned(counts * x.dtype.itemsize).sum())
        most = _most_metadata_bytes(block_values)
        return cls(
            payload=np.empty(plain, np.uint8), metadata=np.empty(counts.size * most, np.uint8)
        )


class _Scan(NamedTuple):
    """What a pass finds: row widths, their block sums, tops and near (see kernels), sign, NaNs."""

    widths: NDArray[np.uint8]
    sums: Int64s
    tops: Int64s
    near: NDArray[np.bool_]
    seen: bool
    nan_lost: int


@cache
def _helpers(count: int) -> ThreadPoolExecutor:
    """Return threads that stay: starting them took up to a tenth of the work on 64 MiB.

    A forked process has the pool without its threads, so it makes its own.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_helpers.cache_clear)
    return ThreadPoolExecutor(count, thread_name_prefix="sfpsim-blocks")


def over_blocks(work: Callable[[int, int], T], blocks: int, threads: int) -> list[T]:
    """Call ``work(first, last)`` on equal ranges of blocks, one a thread; the GIL is free.

    The calling thread takes the first range.

    Raises
    ------
    InputError
        If `threads` is not positive.
    """
    if threads < 1:
        raise InputError(f"threads={threads} is not allowed: 1 or more")
    if threads == 1:
        return [work(0, blocks)]
    cuts = [blocks * i // threads for i in range(threads + 1)]
    others = [_helpers(threads - 1).submit(work, *ends) for ends in pairwise(cuts[1:])]
    try:
        mine = work(cuts[0], cuts[1])
    finally:
        wait(others)
    return [mine, *(other.result() for other in others)]


@dataclass(frozen=True, kw_only=True)
class LaneContainer(BlockContainer):
    """A container of rows in lanes; a subclass gives the layout and the limiting.

    ``needs`` is tensor: whether signs are stored is decided before the first block.
    """

    needs: ClassVar[Literal["none", "block", "tensor"]] = "tensor"
    blockwise: ClassVar[bool] = True

    def index_alone(self, entry: bytes) -> bytes:
        """Return the entry with both starts at 0."""
        fields = index_entry(self.block_values)
        place = fields.start + fields.slot
        return (int.from_bytes(entry, "little") >> place << place).to_bytes(8, "little")

    @abc.abstractmethod
    def layout(self, fmt: FloatFormat) -> Layout:
        """Return how a value of `fmt` is written."""

    def limits(self, fmt: FloatFormat) -> Limits | None:
        """Return the magnitudes between which values of `fmt` are brought, or None."""
        return None

    def lossless_for(self, fmt: FloatFormat) -> bool:
        """Whether every mantissa bit is kept and no range limited."""
        return self.layout(fmt).kept == fmt.mantissa_bits and self.limits(fmt) is None

    def _quantized(self, x: Array) -> tuple[NDArray[np.unsignedinteger], int]:
        fmt = format_of(x.dtype)
        words = words_of(x)
        if self.lossless_for(fmt):
            return words, 0
        out = np.empty_like(words)
        limits = self.limits(fmt)
        if limits is None:
            return out, int(kernels.cut(words, self.layout(fmt), out))
        return out, int(kernels.limit(words, self.layout(fmt), limits, out))

    def quantize(self, x: Array) -> Array:
        """Limit the range, then cut the mantissa; same dtype and shape as `x`."""
        words, _ = self._quantized(x)
        if self.lossless_for(format_of(x.dtype)):
            words = words.copy()
        return words.view(x.dtype).reshape(x.shape)

    def _scan(self, x: Array, threads: int = 1) -> _Scan:
        """Find row widths and signs of `x`, one pass."""
        fmt, words = format_of(x.dtype), words_of(x)
        lay, limits = self.layout(fmt), self.limits(fmt) or NO_LIMITS
        blocks = -(-words.size // self.block_values)
        widths = np.zeros(-(-words.size // ROW_VALUES), np.uint8)
        sums, tops = np.zeros((2, blocks), np.int64)
        near = np.zeros(blocks, np.bool_)

        def work(first: int, last: int) -> tuple[int, int]:
            scratch = np.empty(self.block_values, words.dtype)
            return kernels.scan(words, lay, limits, widths, sums, tops, near, scratch, first, last)

        found = over_blocks(work, blocks, threads)
        seen = any(bits >> (fmt.bits - 1) for bits, _ in found)
        return _Scan(widths, sums, tops, near, seen, int(sum(lost for _, lost in found)))

    def widths_of(self, x: Array, *, signed: bool | None = None) -> tuple[NDArray[np.uint8], bool]:
        """Return the Gecko width of each row (uint8) and whether signs are stored."""
        found = self._scan(x)
        return found.widths, _signed(signed, found.seen)

    def blocks_from_widths(
        self, sums: Int64s, values: Int64s, fmt: FloatFormat, *, signed: bool, nan_lost: int = 0
    ) -> BlockSizes:
        """Return the sizes of blocks from the sums of their row widths.

        Parameters
        ----------
        sums, values
            int64, one entry a block: sum of the Gecko widths of its rows; its values.
        fmt
            The source's format.
        signed
            Whether signs are stored.
        nan_lost
            NaNs that quantizing lost, kept with the result.
        """
        lay = self.layout(fmt)
        rows = -(-values // ROW_VALUES)
        coded = rows - (-(-rows // GROUP_ROWS) if lay.code == DELTA else 0)
        lane = sums + coded + (rows - coded) * lay.exponent_bits
        if lay.code == FIXED:
            lane, coded = rows * lay.field_bits, np.zeros_like(rows)
        rest = rows * (lay.kept + int(signed))
        payload = aligned(-(-(lane + rest) // 32) * BEAT_BYTES)
        metadata = aligned(-(-3 * coded // 8))
        plain = aligned(values * fmt.bytes)
        raw = payload + metadata >= plain
        sign = np.where(raw, values, 8 * rows * int(signed))
        exponent = np.where(raw, values * fmt.exponent_bits, 8 * lane)
        mantissa = np.where(raw, values * fmt.mantissa_bits, 8 * rows * lay.kept)
        widths = np.where(raw, 0, 3 * coded)
        payload, metadata = np.where(raw, plain, payload), np.where(raw, 0, metadata)
        used = sign + exponent + mantissa + widths
        return BlockSizes(
            values=values,
            sign_bits=sign,
            exponent_bits=exponent,
            mantissa_bits=mantissa,
            metadata_bits=widths,
            padding_bits=8 * (payload + metadata) - used,
            payload_bytes=payload,
            metadata_bytes=metadata,
            raw=raw,
            nan_lost=nan_lost,
        )

    def measure_blocks(
        self, x: Array, *, signed: bool | None = None, threads: int = 1
    ) -> BlockSizes:
        """Count the sizes of every block; one pass over `x`, shared by `threads`.

        Raises
        ------
        InputError
            If `signed` is False and a value has its sign bit set, or if the dtype or the
            lengths do not fit.
        """
        return self._sizes(x, self._scan(x, threads), signed)[0]

    def _sizes(self, x: Array, found: _Scan, signed: bool | None) -> tuple[BlockSizes, bool]:
        stored = _signed(signed, found.seen)
        blocks = self.blocks_from_widths(
            found.sums,
            block_counts(x.size, self.block_values),
            format_of(x.dtype),
            signed=stored,
            nan_lost=found.nan_lost,
        )
        return blocks, stored

    def rows(self, x: Array, *, signed: bool | None = None) -> Rows:
        """Return the width of every row: 8 lanes of L bits, 3 bits where a width is stored."""
        widths, store_signs = self.widths_of(x, signed=signed)
        return self.rows_from_widths(widths, format_of(x.dtype), signed=store_signs)

    def rows_from_widths(
        self, widths: NDArray[np.uint8], fmt: FloatFormat, *, signed: bool
    ) -> Rows:
        """Return the rows whose Gecko widths are `widths` (uint8, in memory order)."""
        lay = self.layout(fmt)
        lane = widths.astype(np.uint16) + np.uint16(1)
        metadata = np.full(widths.size, 3, np.uint8)
        if lay.code == FIXED:
            lane[:], metadata[:] = lay.field_bits, 0
        elif lay.code == DELTA:
            lane[::GROUP_ROWS], metadata[::GROUP_ROWS] = lay.exponent_bits, 0
        payload = (lane + np.uint16(lay.kept + int(signed))) * np.uint16(ROW_VALUES)
        return Rows(payload_bits=payload, metadata_bits=metadata)

    def encode(self, x: Array, *, signed: bool | None = None) -> Encoded:
        """Write `x` as payload, metadata and index; errors as `measure_blocks`."""
        streams = Streams.room_for(x, self.block_values)
        blocks, store_signs = self.encode_into(x, streams, signed=signed)
        return Encoded(
            payload=streams.payload[: int(blocks.payload_bytes.sum())].tobytes(),
            metadata=streams.metadata[: int(blocks.metadata_bytes.sum())].tobytes(),
            index=pack_index(blocks, self.block_values),
            shape=tuple(x.shape),
            dtype=x.dtype.name,
            signed=store_signs,
        )

    def encode_into(
        self, x: Array, streams: Streams, *, signed: bool | None = None, threads: int = 1
    ) -> tuple[BlockSizes, bool]:
        """Write payload and metadata of `x` into the beginning of `streams`.

        Returns the block sizes, whose stream lengths say how much was written, and
        whether signs are stored. Blocks are shared by `threads`.

        Raises
        ------
        InputError
            As `measure_blocks`, or if `streams` is too small.
        """
        found = self._scan(x, threads)
        blocks, store_signs = self._sizes(x, found, signed)
        most = index_entry(self.block_values).most_blocks
        if len(blocks.values) > most:
            raise InputError(f"a tensor of {len(blocks.values)} blocks is too long: {most}")
        need = int(blocks.payload_bytes.sum()), int(blocks.metadata_bytes.sum())
        if need[0] > streams.payload.size or need[1] > streams.metadata.size:
            raise InputError(f"the streams need {need} bytes: use Streams.room_for")
        self._fill(x, found, blocks, store_signs, streams, threads)
        return blocks, store_signs

    def _fill(
        self,
        x: Array,
        found: _Scan,
        blocks: BlockSizes,
        signed: bool,
        streams: Streams,
        threads: int,
    ) -> None:
        fmt, words = format_of(x.dtype), words_of(x)
        lay, limits = self.layout(fmt), self.limits(fmt) or NO_LIMITS
        places = _places(blocks.payload_bytes, blocks.metadata_bytes)
        payload, metadata = streams.payload, streams.metadata

        def work(first: int, last: int) -> None:
            scratch = np.empty(self.block_values, words.dtype)
            kernels.pack(
                words, lay, limits, int(signed), found.widths, found.tops, found.near,
                blocks.raw, places, payload, metadata, scratch, first, last,
            )  # fmt: skip

        over_blocks(work, len(blocks.values), threads)

    def decode(self, stored: Encoded) -> Array:
        """Read back what `encode` wrote.

        Raises
        ------
        InputError
            If the streams, the index and the shape do not agree.
        """
        fmt, values = format_named(stored.dtype), prod(stored.shape)
        unpack_index(stored, values, self.block_values)
        out = np.empty(values, fmt.dtype)
        self.decode_into(stored, out)
        return out.reshape(stored.shape)

    def decode_into(self, stored: Encoded, out: Array, *, threads: int = 1) -> None:
        """Read back what `encode` wrote into `out`, 1-D, of the source's dtype and size.

        Raises
        ------
        InputError
            As `decode`, or if `out` does not fit.
        """
        fmt = format_named(stored.dtype)
        if out.dtype != fmt.dtype or out.shape != (prod(stored.shape),):
            raise InputError(f"out is {out.dtype} {out.shape}, stored {fmt.dtype} {stored.shape}")
        extent = unpack_index(stored, out.size, self.block_values)
        widths = self._checked_widths(stored, extent, fmt, out.size, threads)
        places = _places(extent.payload_bytes, extent.metadata_bytes)
        words, lay = out.view(fmt.word_dtype), self.layout(fmt)
        payload = np.frombuffer(stored.payload, np.uint8)

        def work(first: int, last: int) -> None:
            scratch = np.empty(self.block_values, words.dtype)
            kernels.unpack(
                payload, lay, int(stored.signed), widths, extent.raw, places, words, scratch,
                first, last,
            )  # fmt: skip

        over_blocks(work, len(extent.raw), threads)

    def _checked_widths(
        self, stored: Encoded, extent: Extent, fmt: FloatFormat, size: int, threads: int
    ) -> NDArray[np.uint8]:
        """Return the row widths; every block's lengths are those that its widths need."""
        lay, values = self.layout(fmt), block_counts(size, self.block_values)
        widths = np.zeros(-(-size // ROW_VALUES), np.uint8)
        sums, reached = np.zeros((2, values.size), np.int64)
        starts = np.cumsum(extent.metadata_bytes) - extent.metadata_bytes
        stream = np.frombuffer(stored.metadata, np.uint8)
        block_rows = self.block_values // ROW_VALUES

        def work(first: int, last: int) -> None:
            kernels.unpack_widths(
                stream, lay, values, block_rows, starts, extent.metadata_bytes, widths, sums,
                reached, first, last,
            )  # fmt: skip

        if lay.code != FIXED:
            over_blocks(work, values.size, threads)
        need = self.blocks_from_widths(sums, values, fmt, signed=stored.signed)
        plain = aligned(values * fmt.bytes)
        payload = np.where(extent.raw, plain, need.payload_bytes)
        metadata = np.where(extent.raw, 0, need.metadata_bytes)
        wrong = (payload != extent.payload_bytes) | (metadata != extent.metadata_bytes)
        wrong |= ~extent.raw & (need.raw | (reached != 0))
        if wrong.any():
            raise InputError(
                f"block {int(wrong.argmax())} does not have the lengths that its row widths need"
            )
        return widths


def _places(payload_bytes: Int64s, metadata_bytes: Int64s) -> Int64s:
    """Return start and length of every block's streams, int64 (4, blocks)."""
    return np.stack(
        [
            np.cumsum(payload_bytes) - payload_bytes,
            payload_bytes,
            np.cumsum(metadata_bytes) - metadata_bytes,
            metadata_bytes,
        ]
    )


def _signed(asked: bool | None, seen: bool) -> bool:
    if asked is False and seen:
        raise InputError("signed=False was given, but a value has its sign bit set")
    return seen if asked is None else asked
