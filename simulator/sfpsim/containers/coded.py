"""Containers whose blocks are coded on their own, of any length, in one stream.

A block is a string of bits, least significant bit first, filled with zeros
to 64 bytes; where that is not shorter than the block's words filled alike, the words are
stored. Index, one 64-bit entry a block: bits 0-39 where it starts, 40-62 its length, both in
units of 64 bytes, 63 raw.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.base import Array, BlockContainer, BlockSizes, Encoded, block_parts
from sfpsim.containers.lanes import aligned, block_counts, format_named
from sfpsim.errors import InputError
from sfpsim.formats import FloatFormat, format_of, words_of

START_BITS, LENGTH_BITS, UNIT = 40, 23, 64
SIGN, EXPONENT, MANTISSA, METADATA = 0, 1, 2, 3
NO_BYTES = np.zeros(0, np.uint8)
Words = NDArray[Any]


class Widths(NamedTuple):
    """Widths of a word's fields, bits, for kernels."""

    exponent_bits: int
    mantissa_bits: int


def widths_of(fmt: FloatFormat) -> Widths:
    """Return the field widths of `fmt`."""
    return Widths(fmt.exponent_bits, fmt.mantissa_bits)


@dataclass(frozen=True, kw_only=True)
class CodedContainer(BlockContainer):
    """A lossless container; a subclass writes and reads the bits of one block."""

    needs: ClassVar[Literal["none", "block", "tensor"]] = "none"
    blockwise: ClassVar[bool] = True

    @abc.abstractmethod
    def write(
        self, words: Words, fmt: FloatFormat, out: NDArray[np.uint8], bits: NDArray[np.int64]
    ) -> None:
        """Write one block.

        Parameters
        ----------
        words
            1 .. `block_values` words of `fmt`.
        out
            Zeros, twice as long as the words and 1 KiB; or empty: then only count.
        bits
            int64, 4 entries, set to the sign, exponent, mantissa and metadata bits.
        """

    @abc.abstractmethod
    def read(self, data: NDArray[np.uint8], fmt: FloatFormat, out: Words) -> int:
        """Read one block into `out`; return the bits read, -1 where they are impossible."""

    @property
    def base_spec(self) -> str:
        """The family's name."""
        return self.family

    def index_alone(self, entry: bytes) -> bytes:
        """Return the entry with its start at 0."""
        value = int.from_bytes(entry, "little")
        return (value >> START_BITS << START_BITS).to_bytes(8, "little")

    def lossless_for(self, fmt: FloatFormat) -> bool:
        """Return True: every bit comes back."""
        return True

    def quantize(self, x: Array) -> Array:
        """Return a copy of `x`."""
        format_of(x.dtype)
        return np.array(x, order="C")

    def _sizes(self, bits: NDArray[np.int64], size: int, fmt: FloatFormat) -> BlockSizes:
        values = block_counts(size, self.block_values)
        length, plain = aligned(-(-bits.sum(axis=1) // 8)), aligned(values * fmt.bytes)
        raw = length >= plain
        length = np.where(raw, plain, length)
        fields = (values, values * fmt.exponent_bits, values * fmt.mantissa_bits, 0 * values)
        used = np.where(raw[:, None], np.stack(fields, axis=1), bits)
        return BlockSizes(
            values=values,
            sign_bits=used[:, SIGN],
            exponent_bits=used[:, EXPONENT],
            mantissa_bits=used[:, MANTISSA],
            metadata_bits=used[:, METADATA],
            padding_bits=8 * length - used.sum(axis=1),
            payload_bytes=length,
            metadata_bytes=np.zeros_like(values),
            raw=raw,
        )

    def measure_blocks(self, x: Array, *, signed: bool | None = None) -> BlockSizes:
        """Count the sizes of every block; writes no stream."""
        fmt, parts = format_of(x.dtype), block_parts(words_of(x), self.block_values)
        bits = np.zeros((len(parts), 4), np.int64)
        for part, counts in zip(parts, bits, strict=True):
            self.write(part, fmt, NO_BYTES, counts)
        return self._sizes(bits, x.size, fmt)

    def encode(self, x: Array, *, signed: bool | None = None) -> Encoded:
        """Write the blocks and their index."""
        fmt, parts = format_of(x.dtype), block_parts(words_of(x), self.block_values)
        bits = np.zeros((len(parts), 4), np.int64)
        written = []
        for part, counts in zip(parts, bits, strict=True):
            out = np.zeros(2 * part.nbytes + 1024, np.uint8)
            self.write(part, fmt, out, counts)
            written.append(out)
        sizes = self._sizes(bits, x.size, fmt)
        payload = [
            (_filled(part.view(np.uint8), length) if raw else out[:length]).tobytes()
            for part, out, raw, length in zip(
                parts, written, sizes.raw, sizes.payload_bytes, strict=True
            )
        ]
        return Encoded(
            payload=b"".join(payload),
            metadata=b"",
            index=_index(sizes),
            shape=tuple(x.shape),
            dtype=x.dtype.name,
            signed=True,
        )

    def decode(self, stored: Encoded) -> Array:
        """Read back what `encode` wrote.

        Raises
        ------
        InputError
            If stream, index and shape do not agree, or a code is impossible.
        """
        fmt, count = format_named(stored.dtype), prod(stored.shape)
        out = np.empty(count, fmt.word_dtype)
        parts = block_parts(out, self.block_values)
        starts, raw = _read_index(stored, len(parts))
        for i, part in enumerate(parts):
            data = np.frombuffer(stored.payload, np.uint8)[starts[i] : starts[i + 1]]
            if raw[i]:
                bits, length = 8 * part.nbytes, part.nbytes
                part.view(np.uint8)[:] = _filled(data[:length], length)
            else:
                bits = int(self.read(data, fmt, part))
            if bits < 0 or aligned(-(-bits // 8)) != data.size:
                raise InputError(f"block {i} does not have the length that its codes need")
        return out.view(fmt.dtype).reshape(stored.shape)


def _filled(data: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    return np.concatenate([data, np.zeros(length - data.size, np.uint8)])


def _index(sizes: BlockSizes) -> bytes:
    length = sizes.payload_bytes // UNIT
    entry = ((np.cumsum(length) - length) | length << START_BITS).astype(np.uint64)
    return (entry | sizes.raw.astype(np.uint64) << np.uint64(63)).astype("<u8").tobytes()


def _read_index(stored: Encoded, blocks: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    if len(stored.index) != 8 * blocks or stored.metadata:
        raise InputError(f"the index has {len(stored.index)} bytes, not {8 * blocks}")
    entry = np.frombuffer(stored.index, "<u8")
    low = (entry & np.uint64((1 << 63) - 1)).astype(np.int64)
    length = (low >> START_BITS) * UNIT
    starts = np.concatenate([[0], np.cumsum(length)])
    agree = np.array_equal((low & ((1 << START_BITS) - 1)) * UNIT, starts[:-1])
    if not agree or starts[-1] != len(stored.payload):
        raise InputError("the index does not agree with the length of the stream")
    return starts, (entry >> np.uint64(63)).astype(np.bool_)
