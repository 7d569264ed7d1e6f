"""crest: exponents as distances below their group's largest, low bits in lanes, rest unary.

A container of our own; docs/container-crest.md has format, circuit and comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers import crest_kernels as kernels
from sfpsim.containers.base import (
    ROW_VALUES,
    Array,
    BlockContainer,
    BlockSizes,
    CodecTiming,
    Encoded,
    Rows,
    block_parts,
)
from sfpsim.containers.crest_kernels import GROUP_ROWS, GROUP_VALUES
from sfpsim.containers.kernels import FIXED, Layout
from sfpsim.containers.lanes import BEAT_BYTES, Int64s, aligned, block_counts, format_named
from sfpsim.containers.sfp import Sfp
from sfpsim.errors import InputError
from sfpsim.formats import FloatFormat, any_sign, format_of, words_of

Words = NDArray[np.unsignedinteger]
START_BITS = 31
WHOLE = Sfp()


class _Block(NamedTuple):
    """A block's quantized words in whole groups, and what its scan found."""

    words: Words
    values: int
    modes: NDArray[np.uint8]
    crests: NDArray[np.uint8]
    widths: NDArray[np.uint8]
    row_metadata: Int64s
    lane_bits: int
    metadata_bits: int


@dataclass(frozen=True, kw_only=True)
class Crest(BlockContainer):
    """Groups of 32 exponents below their crest, after `quantizer` cut and limited them.

    Attributes
    ----------
    quantizer
        Which mantissa bits are kept and how exponents are limited; its exponent code plays
        no part.
    """

    family: ClassVar[str] = "crest"
    source: ClassVar[str] = "sfpsim, docs/container-crest.md"
    summary: ClassVar[str] = "lossless: 32 exponents below their largest, Rice coded in lanes"
    needs: ClassVar[Literal["none", "block", "tensor"]] = "tensor"
    blockwise: ClassVar[bool] = True
    timing: ClassVar[CodecTiming] = CodecTiming(
        encode_latency_cycles=8,
        decode_latency_cycles=5,
        source="four rows wait for crest and mode, then as Gecko; a stage more to find the "
        "ends of eight unary codes (docs/container-crest.md)",
    )

    quantizer: Sfp = WHOLE

    @property
    def base_spec(self) -> str:
        """``crest`` or ``crest:m=M,e=E``."""
        if self.quantizer == WHOLE:
            return self.family
        return self.family + self.quantizer.base_spec.removeprefix(Sfp.family)

    @property
    def value_mantissa_bits(self) -> int | None:
        """Mantissa bits that are kept."""
        return self.quantizer.value_mantissa_bits

    def lossless_for(self, fmt: FloatFormat) -> bool:
        """Whether every mantissa bit is kept and no range limited."""
        return self.quantizer.lossless_for(fmt)

    def quantize(self, x: Array) -> Array:
        """Limit the range, then cut the mantissa."""
        return self.quantizer.quantize(x)

    def index_alone(self, entry: bytes) -> bytes:
        """Return the entry with both starts at 0."""
        return (int.from_bytes(entry, "little") >> 63 << 63).to_bytes(8, "little")

    def _layout(self, fmt: FloatFormat) -> Layout:
        return self.quantizer.layout(fmt)._replace(code=FIXED)

    def _signed(self, x: Array, asked: bool | None) -> bool:
        seen = any_sign(x)
        if asked is False and seen:
            raise InputError("signed=False was given, but a value has its sign bit set")
        return seen if asked is None else asked

    def _scan(self, x: Array) -> list[_Block]:
        words, lay = words_of(self.quantize(x)), self._layout(format_of(x.dtype))
        return [_scanned(part, lay) for part in block_parts(words, self.block_values)]

    def _sizes(
        self, x: Array, scanned: list[_Block], signed: bool, nan_lost: int = 0
    ) -> BlockSizes:
        fmt, values = format_of(x.dtype), block_counts(x.size, self.block_values)
        lay = self._layout(fmt)
        rows = np.array([block.widths.size for block in scanned], np.int64)
        lane = np.array([block.lane_bits for block in scanned], np.int64)
        metadata = np.array([block.metadata_bits for block in scanned], np.int64)
        unary = metadata - _fixed_metadata(scanned, fmt)
        used_lanes = lane + rows * (lay.kept + int(signed))
        payload_bytes = aligned(-(-used_lanes // 32) * BEAT_BYTES)
        metadata_bytes = aligned(-(-metadata // 8))
        plain = aligned(values * fmt.bytes)
        raw = payload_bytes + metadata_bytes >= plain
        sign = np.where(raw, values, 8 * rows * int(signed))
        exponent = np.where(raw, values * fmt.exponent_bits, 8 * lane + unary)
        mantissa = np.where(raw, values * fmt.mantissa_bits, 8 * rows * lay.kept)
        heads = np.where(raw, 0, metadata - unary)
        payload_bytes = np.where(raw, plain, payload_bytes)
        metadata_bytes = np.where(raw, 0, metadata_bytes)
        used = sign + exponent + mantissa + heads
        return BlockSizes(
            values=values,
            sign_bits=sign,
            exponent_bits=exponent,
            mantissa_bits=mantissa,
            metadata_bits=heads,
            padding_bits=8 * (payload_bytes + metadata_bytes) - used,
            payload_bytes=payload_bytes,
            metadata_bytes=metadata_bytes,
            raw=raw,
            nan_lost=nan_lost,
        )

    def measure_blocks(self, x: Array, *, signed: bool | None = None) -> BlockSizes:
        """Count the sizes of every block; unary codes count as exponent bits."""
        store_signs = self._signed(x, signed)
        lost = self.quantizer.measure_blocks(x).nan_lost
        return self._sizes(x, self._scan(x), store_signs, lost)

    def rows(self, x: Array, *, signed: bool | None = None) -> Rows:
        """Return lane bits and metadata bits of every row; a group's are spread evenly."""
        store_signs, lay = self._signed(x, signed), self._layout(format_of(x.dtype))
        payload, metadata = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for block in self._scan(x):
            rows = -(-block.values // ROW_VALUES)
            lane = block.widths[:rows].astype(np.int64) + lay.kept + int(store_signs)
            payload.append(ROW_VALUES * lane)
            metadata.append(block.row_metadata[:rows])
        return Rows(
            payload_bits=np.concatenate(payload).astype(np.uint16),
            metadata_bits=np.concatenate(metadata).astype(np.uint8),
        )

    def encode(self, x: Array, *, signed: bool | None = None) -> Encoded:
        """Write lanes, metadata and an index of the blocks' starts."""
        fmt, store_signs = format_of(x.dtype), self._signed(x, signed)
        scanned, lay = self._scan(x), self._layout(format_of(x.dtype))
        sizes = self._sizes(x, scanned, store_signs)
        payload, metadata = [], []
        for i, block in enumerate(scanned):
            data = np.zeros(int(sizes.payload_bytes[i]), np.uint8)
            heads = np.zeros(int(sizes.metadata_bytes[i]) + 8, np.uint8)
            if sizes.raw[i]:
                data[: block.values * fmt.bytes] = block.words[: block.values].view(np.uint8)
            else:
                kernels.pack_block(
                    block.words, lay, int(store_signs), block.modes, block.crests,
                    data.view(np.uint32), heads,
                )  # fmt: skip
            payload.append(data.tobytes())
            metadata.append(heads[: int(sizes.metadata_bytes[i])].tobytes())
        return Encoded(
            payload=b"".join(payload),
            metadata=b"".join(metadata),
            index=_index(sizes),
            shape=tuple(x.shape),
            dtype=x.dtype.name,
            signed=store_signs,
        )

    def decode(self, stored: Encoded) -> Array:
        """Read back what `encode` wrote.

        Raises
        ------
        InputError
            If streams, index and shape do not agree, or a code is impossible.
        """
        fmt, count = format_named(stored.dtype), prod(stored.shape)
        out = np.empty(count, fmt.word_dtype)
        parts = block_parts(out, self.block_values)
        starts, meta_starts, raw = _read_index(stored, len(parts))
        for i, part in enumerate(parts):
            data = np.frombuffer(stored.payload[starts[i] : starts[i + 1]], np.uint8)
            heads = np.frombuffer(stored.metadata[meta_starts[i] : meta_starts[i + 1]], np.uint8)
            if raw[i]:
                if (data.size, heads.size) != (aligned(part.nbytes), 0):
                    raise InputError(f"raw block {i} has {data.size} + {heads.size} bytes")
                part.view(np.uint8)[:] = data[: part.nbytes]
            else:
                self._decode_block(data, heads, part, fmt, stored.signed)
        return out.view(fmt.dtype).reshape(stored.shape)

    def _decode_block(
        self,
        data: NDArray[np.uint8],
        heads: NDArray[np.uint8],
        out: Words,
        fmt: FloatFormat,
        signed: bool,
    ) -> None:
        lay, groups = self._layout(fmt), -(-out.size // GROUP_VALUES)
        tops = np.zeros(groups * GROUP_VALUES, np.uint8)
        widths, plain = np.zeros((2, groups * GROUP_ROWS), np.uint8)
        bits = kernels.read_metadata(heads, lay, tops, widths, plain)
        lane = int(widths.sum(dtype=np.int64)) + widths.size * (lay.kept + int(signed))
        need = aligned(-(-lane // 32) * BEAT_BYTES), aligned(-(-int(bits) // 8))
        if bits < 0 or need != (data.size, heads.size):
            raise InputError("a block's metadata does not fit its streams")
        whole = np.zeros(groups * GROUP_VALUES, out.dtype)
        lanes = data.view(np.uint32) if data.size else np.zeros(8, np.uint32)
        kernels.unpack_block(lanes, lay, int(signed), tops, widths, plain, whole)
        out[:] = whole[: out.size]


def _scanned(words: Words, lay: Layout) -> _Block:
    groups = -(-words.size // GROUP_VALUES)
    modes, crests = np.zeros((2, groups), np.uint8)
    widths, metadata = np.zeros(groups * GROUP_ROWS, np.uint8), np.zeros(groups * 4, np.int64)
    lane_bits, bits = kernels.scan_block(
        words, lay, modes, crests, widths, np.zeros(kernels.PLAIN, np.int64), metadata
    )
    missing = -words.size % GROUP_VALUES
    filler = words.dtype.type(int(crests[-1]) << lay.mantissa_bits)
    whole = np.concatenate([words, np.full(missing, filler, words.dtype)]) if missing else words
    return _Block(whole, words.size, modes, crests, widths, metadata, int(lane_bits), int(bits))


def _fixed_metadata(scanned: list[_Block], fmt: FloatFormat) -> Int64s:
    """Return the bits of modes, crests and flags of each block; masks and codes are the rest."""
    heads = []
    for block in scanned:
        coded = block.modes != kernels.PLAIN
        flags = coded & (block.crests > 0)
        bits = kernels.MODE_BITS * coded.size + fmt.exponent_bits * coded.sum() + flags.sum()
        heads.append(int(bits))
    return np.array(heads, np.int64)


def _index(sizes: BlockSizes) -> bytes:
    """Write an entry a block: payload start, metadata start, raw flag (1 bit).

    Starts count units of 64 bytes, in 31 and 32 bits; a length is the next entry's start
    less one's own.
    """
    payload, metadata = sizes.payload_bytes // 64, sizes.metadata_bytes // 64
    if len(payload) and int(payload.sum()) >> START_BITS:
        raise InputError(f"a tensor of {len(payload)} blocks is too long for the index")
    start, meta_start = np.cumsum(payload) - payload, np.cumsum(metadata) - metadata
    entry = (start | meta_start << START_BITS).astype(np.uint64)
    return (entry | sizes.raw.astype(np.uint64) << np.uint64(63)).astype("<u8").tobytes()


def _read_index(stored: Encoded, blocks: int) -> tuple[list[int], list[int], list[bool]]:
    if len(stored.index) != 8 * blocks:
        raise InputError(f"the index has {len(stored.index)} bytes, not {8 * blocks}")
    entry = np.frombuffer(stored.index, "<u8")
    low = (entry & np.uint64((1 << 63) - 1)).astype(np.int64)
    starts = np.append((low & ((1 << START_BITS) - 1)) * 64, len(stored.payload))
    meta_starts = np.append((low >> START_BITS) * 64, len(stored.metadata))
    for places in (starts, meta_starts):
        if places[0] or (np.diff(places) < 0).any():
            raise InputError("the index does not agree with the lengths of the streams")
    return starts.tolist(), meta_starts.tolist(), (entry >> np.uint64(63)).astype(bool).tolist()
