"""Containers of fixed rate: a code of so many bits a value, side information a group.

Sizes follow from the number of values alone, so there is no index. Payload: the codes, least
significant bit first, one after the other; metadata: what the tensor has once (`head`),
then an entry a group. Both streams end with zeros up to a byte.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sfpsim.containers.base import Array, BlockContainer, BlockSizes, Encoded
from sfpsim.containers.lanes import block_counts, format_named
from sfpsim.containers.raw import convert, narrow_back
from sfpsim.errors import InputError
from sfpsim.formats import FP32, FloatFormat, format_of, words_of

Int64s = NDArray[np.int64]
Words = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Bits of one value by what they are for, and of one filling up to whole words."""

    sign: int
    exponent: int
    mantissa: int
    filling: int = 0

    @property
    def bits(self) -> int:
        """Bits of one value in memory."""
        return self.sign + self.exponent + self.mantissa + self.filling


@dataclass(frozen=True, kw_only=True)
class Coded:
    """Codes of the values, an entry of each group, what the tensor has once.

    `codes` and `side` are unsigned integers of any width; codes beyond the tensor's values
    are left out.
    """

    codes: Words
    side: Words
    head: bytes = b""


@njit(cache=True, nogil=True)
def pack_codes(codes: Words, bits: int, out: NDArray[np.uint8]) -> None:
    """Write the low `bits` bits of every code, least significant bit first."""
    held, have, at = np.uint64(0), 0, 0
    mask = np.uint64((1 << bits) - 1)
    for i in range(codes.size):
        held |= (np.uint64(codes[i]) & mask) << np.uint64(have)
        have += bits
        while have >= 8:
            out[at] = np.uint8(held & np.uint64(0xFF))
            held >>= np.uint64(8)
            have -= 8
            at += 1
    if have:
        out[at] = np.uint8(held & np.uint64(0xFF))


@njit(cache=True, nogil=True)
def unpack_codes(data: NDArray[np.uint8], bits: int, codes: Words) -> None:
    """Read what `pack_codes` wrote."""
    held, have, at = np.uint64(0), 0, 0
    mask = np.uint64((1 << bits) - 1)
    for i in range(codes.size):
        while have < bits:
            held |= np.uint64(data[at]) << np.uint64(have)
            have += 8
            at += 1
        codes[i] = held & mask
        held >>= np.uint64(bits)
        have -= bits


def as_fp32(x: Array, multiple: int = 8) -> Words:
    """Return `x` as FP32 words, exactly, filled with zeros to a multiple of values."""
    fmt = format_of(x.dtype)
    if fmt.exponent_bits == FP32.exponent_bits:  # the same number, with a shorter mantissa
        words = words_of(x)
        if fmt != FP32:
            words = np.left_shift(words, FP32.bits - fmt.bits, dtype=np.uint32)
    else:
        words = words_of(convert(x, FP32))
    missing = -words.size % multiple
    return np.concatenate([words, np.zeros(missing, np.uint32)]) if missing else words


def from_fp32(words: Words, count: int, fmt: FloatFormat) -> Array:
    """Return the first `count` FP32 words as values of `fmt`, rounded to nearest even."""
    values = words[:count].view(np.float32)
    return values if fmt == FP32 else narrow_back(values, fmt)


@dataclass(frozen=True, kw_only=True)
class PackedContainer(BlockContainer):
    """A container of fixed rate; a subclass codes whole tensors and opens them."""

    head_bits: ClassVar[int] = 0

    @abc.abstractmethod
    def fields(self, fmt: FloatFormat) -> Fields:
        """Return the bits of one value of `fmt` as stored."""

    @abc.abstractmethod
    def code(self, x: Array) -> Coded:
        """Return the codes of `x`, which holds at least one value."""

    @abc.abstractmethod
    def open(self, coded: Coded, shape: tuple[int, ...], fmt: FloatFormat) -> Array:
        """Return the values, flat, that `coded` stands for; at least one."""

    def counts(self, shape: tuple[int, ...]) -> Int64s:
        """Return how many values each block of a tensor holds."""
        return block_counts(prod(shape), self.block_values)

    def side(self, shape: tuple[int, ...]) -> tuple[np.dtype[Any], Int64s]:
        """Return the type of a group's entry and how many entries begin in each block."""
        return np.dtype(np.uint8), np.zeros_like(self.counts(shape))

    def nan_lost(self, x: Array) -> int:
        """Return how many NaNs of `x` become numbers or Inf."""
        return 0

    def lossless_for(self, fmt: FloatFormat) -> bool:
        """Return False: values are rounded."""
        return False

    def _blocks(self, shape: tuple[int, ...], fmt: FloatFormat, nan_lost: int = 0) -> BlockSizes:
        values, fields = self.counts(shape), self.fields(fmt)
        dtype, entries = self.side(shape)
        metadata = entries * (8 * dtype.itemsize)
        metadata[:1] += self.head_bits
        payload_bytes, metadata_bytes = -(-values * fields.bits // 8), -(-metadata // 8)
        used = values * (fields.bits - fields.filling) + metadata
        return BlockSizes(
            values=values,
            sign_bits=values * fields.sign,
            exponent_bits=values * fields.exponent,
            mantissa_bits=values * fields.mantissa,
            metadata_bits=metadata,
            padding_bits=8 * (payload_bytes + metadata_bytes) - used,
            payload_bytes=payload_bytes,
            metadata_bytes=metadata_bytes,
            raw=np.zeros(values.size, np.bool_),
            index_bits_per_block=0,
            nan_lost=nan_lost,
        )

    def measure_blocks(self, x: Array, *, signed: bool | None = None) -> BlockSizes:
        """Count the sizes, which follow from the number of values."""
        return self._blocks(tuple(x.shape), format_of(x.dtype), self.nan_lost(x))

    def quantize(self, x: Array) -> Array:
        """Return the values that the codes stand for; same dtype and shape as `x`."""
        fmt = format_of(x.dtype)
        if not x.size:
            return x.copy()
        return self.open(self.code(x), tuple(x.shape), fmt).reshape(x.shape)

    def encode(self, x: Array, *, signed: bool | None = None) -> Encoded:
        """Write codes and side information."""
        fmt = format_of(x.dtype)
        payload, metadata = b"", b""
        if x.size:
            coded = self.code(x)
            payload = _packed(coded.codes[: x.size], self.fields(fmt).bits)
            metadata = coded.head + coded.side.tobytes()
        return Encoded(
            payload=payload,
            metadata=metadata,
            index=b"",
            shape=tuple(x.shape),
            dtype=x.dtype.name,
            signed=True,
        )

    def decode(self, stored: Encoded) -> Array:
        """Read back what `encode` wrote.

        Raises
        ------
        InputError
            If the streams do not have the lengths that the shape needs.
        """
        fmt, count = format_named(stored.dtype), prod(stored.shape)
        blocks = self._blocks(stored.shape, fmt)
        need = int(blocks.payload_bytes.sum()), int(blocks.metadata_bytes.sum())
        if (len(stored.payload), len(stored.metadata), len(stored.index)) != (*need, 0):
            raise InputError(f"a tensor of shape {stored.shape} needs streams of {need} bytes")
        if not count:
            return np.zeros(stored.shape, fmt.dtype)
        head = -(-self.head_bits // 8)
        coded = Coded(
            codes=_unpacked(stored.payload, self.fields(fmt).bits, count),
            side=np.frombuffer(stored.metadata[head:], self.side(stored.shape)[0]),
            head=stored.metadata[:head],
        )
        return self.open(coded, stored.shape, fmt).reshape(stored.shape)


def _packed(codes: Words, bits: int) -> bytes:
    if bits in (8, 16, 32):
        return codes.astype(f"<u{bits // 8}", copy=False).tobytes()
    out = np.empty(-(-codes.size * bits // 8), np.uint8)
    pack_codes(codes, bits, out)
    return out.tobytes()


def _unpacked(data: bytes, bits: int, count: int) -> Words:
    if bits in (8, 16, 32):
        return np.frombuffer(data, f"<u{bits // 8}")
    codes = np.empty(count, np.uint8 if bits < 8 else np.uint32)
    unpack_codes(np.frombuffer(data, np.uint8), bits, codes)
    return codes


def whole_rows(codes: Words, multiple: int = 8) -> Words:
    """Return codes filled with zeros to a multiple, without a copy where they are."""
    missing = -codes.size % multiple
    return np.concatenate([codes, np.zeros(missing, codes.dtype)]) if missing else codes
