"""fp32, bf16 and fp16: plain words in memory order; and tensors that are no floats."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.base import (
    DEFAULT_BLOCK_VALUES,
    Array,
    BlockContainer,
    BlockSizes,
    CodecTiming,
    Encoded,
    Sizes,
)
from sfpsim.containers.lanes import block_counts, format_named
from sfpsim.errors import InputError
from sfpsim.formats import BF16, FORMATS, FP16, FP32, FloatFormat, format_of, words_of

BYPASS = CodecTiming(
    encode_latency_cycles=0,
    decode_latency_cycles=0,
    bypass=True,
    source="plain words: nothing between buffer and memory",
)
Words = NDArray[np.unsignedinteger]


def plain_blocks(
    values: int,
    sign_bits: int,
    exponent_bits: int,
    mantissa_bits: int,
    block_values: int = DEFAULT_BLOCK_VALUES,
) -> BlockSizes:
    """Return the blocks of a tensor stored as plain words with fields of these widths.

    Blocks of `block_values` values, so that the hardware can place them; no index, no padding
    beyond the last whole byte.
    """
    counts = block_counts(values, block_values)
    nothing = np.zeros_like(counts)
    return BlockSizes(
        values=counts,
        sign_bits=counts * sign_bits,
        exponent_bits=counts * exponent_bits,
        mantissa_bits=counts * mantissa_bits,
        metadata_bits=nothing,
        padding_bits=nothing,
        payload_bytes=counts * (sign_bits + exponent_bits + mantissa_bits) // 8,
        metadata_bytes=nothing,
        raw=np.zeros(counts.size, np.bool_),
        index_bits_per_block=0,
    )


def holds(container: FloatFormat, source: FloatFormat) -> bool:
    """Whether every value of `source` is a value of `container`."""
    return (
        container.exponent_bits >= source.exponent_bits
        and container.mantissa_bits >= source.mantissa_bits
    )


def _is_nan(words: Words, fmt: FloatFormat) -> NDArray[np.bool_]:
    magnitude = words & words.dtype.type((1 << (fmt.bits - 1)) - 1)
    return magnitude > words.dtype.type(fmt.exponent_max << fmt.mantissa_bits)


def _convert_nan(words: Words, source: FloatFormat, target: FloatFormat, quiet: bool) -> Words:
    """Move sign and top payload bits of NaN words; `quiet` sets the quiet bit."""
    wide = words.astype(np.uint32)
    payload = wide & np.uint32((1 << source.mantissa_bits) - 1)
    shift = target.mantissa_bits - source.mantissa_bits
    moved = payload << np.uint32(shift) if shift >= 0 else payload >> np.uint32(-shift)
    quiet_bit = np.uint32(1 << (target.mantissa_bits - 1))
    moved = np.where((moved == 0) | quiet, moved | quiet_bit, moved)
    sign = (wide >> np.uint32(source.bits - 1)) << np.uint32(target.bits - 1)
    infinite = np.uint32(target.exponent_max << target.mantissa_bits)
    return (sign | infinite | moved).astype(target.word_dtype)


def _round_bf16(words: Words) -> Words:
    """Round FP32 words to BF16, nearest even; NaN words come out arbitrary."""
    odd = (words >> np.uint32(16)) & np.uint32(1)
    return ((words + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(BF16.word_dtype)


def convert(values: Array, target: FloatFormat) -> Array:
    """Round `values` (float32, bfloat16 or float16) to `target`, any shape.

    Nearest even, overflow to Inf; a NaN keeps its sign and top payload bits and becomes
    quiet, unless `target` holds every value of the source (or the other way round: a
    stored narrower value comes back as it was).
    """
    source = format_of(values.dtype)
    if source == target:
        return values.copy()
    words = words_of(values)
    nan = _is_nan(words, source)
    any_nan = bool(nan.any())
    numbers = np.where(nan, words.dtype.type(0), words) if any_nan else words
    with np.errstate(all="ignore"):
        single = numbers.view(source.dtype).astype(np.float32, copy=False)
        if target == BF16:
            out = _round_bf16(single.view(np.uint32))
        else:
            out = single.astype(target.dtype).view(target.word_dtype)
    if any_nan:
        out[nan] = _convert_nan(words[nan], source, target, not holds(target, source))
    return out.view(target.dtype).reshape(values.shape)


def narrow_back(values: Array, target: FloatFormat) -> Array:
    """Convert stored words to the narrower source type; NaN payloads as they were."""
    out = words_of(convert(values, target))
    source = format_of(values.dtype)
    words = words_of(values)
    nan = _is_nan(words, source)
    if nan.any():
        out[nan] = _convert_nan(words[nan], source, target, quiet=False)
    return out.view(target.dtype).reshape(values.shape)


@dataclass(frozen=True, kw_only=True)
class Plain(BlockContainer):
    """Little-endian words of one format, in memory order, nothing else."""

    family: ClassVar[str] = "plain"
    source: ClassVar[str] = "IEEE 754 and bfloat16"
    summary: ClassVar[str] = "plain words of one type"
    timing: ClassVar[CodecTiming] = BYPASS
    blockwise: ClassVar[bool] = True

    fmt: FloatFormat

    @property
    def base_spec(self) -> str:
        """The format's name."""
        return self.fmt.name

    @property
    def value_mantissa_bits(self) -> int | None:
        """The format's mantissa bits."""
        return self.fmt.mantissa_bits

    def lossless_for(self, fmt: FloatFormat) -> bool:
        """Whether `fmt` is held exactly."""
        return holds(self.fmt, fmt)

    def measure_blocks(self, x: Array, *, signed: bool | None = None) -> BlockSizes:
        """Return values times bits, block by block."""
        format_of(x.dtype)
        fmt, block = self.fmt, self.block_values
        return plain_blocks(x.size, 1, fmt.exponent_bits, fmt.mantissa_bits, block)

    def quantize(self, x: Array) -> Array:
        """Round to the format and back to the dtype of `x`."""
        source = format_of(x.dtype)
        if self.lossless_for(source):
            return np.array(x, order="C")
        return narrow_back(convert(x, self.fmt), source)

    def encode(self, x: Array, *, signed: bool | None = None) -> Encoded:
        """Write the rounded words, little-endian."""
        words = words_of(convert(x, self.fmt))
        return Encoded(
            payload=words.tobytes(),
            metadata=b"",
            index=b"",
            shape=tuple(x.shape),
            dtype=x.dtype.name,
            signed=True,
        )

    def decode(self, stored: Encoded) -> Array:
        """Read the words and return them in the source's dtype.

        Raises
        ------
        InputError
            If the payload's length is not values times bytes, or another stream is there.
        """
        source = format_named(stored.dtype)
        _check_length(stored, self.fmt.bytes)
        words = np.frombuffer(stored.payload, self.fmt.word_dtype)
        values = words.view(self.fmt.dtype).reshape(stored.shape)
        return narrow_back(values, source) if source != self.fmt else values.copy()


@dataclass(frozen=True, kw_only=True)
class AsIs(BlockContainer):
    """A tensor that is no float (int, bool): its own bytes, all counted as mantissa."""

    family: ClassVar[str] = "raw"
    source: ClassVar[str] = "a choice: what is no float is not compressed"
    summary: ClassVar[str] = "the tensor's own bytes, for tensors that are no floats"
    timing: ClassVar[CodecTiming] = BYPASS
    blockwise: ClassVar[bool] = True

    @property
    def base_spec(self) -> str:
        """``raw``."""
        return self.family

    def lossless_for(self, fmt: FloatFormat) -> bool:
        """Return True: nothing changes."""
        return True

    def measure_blocks(self, x: Array, *, signed: bool | None = None) -> BlockSizes:
        """Return values times the item size, block by block."""
        return plain_blocks(x.size, 0, 0, 8 * x.dtype.itemsize, self.block_values)

    def measure(self, x: Array, *, signed: bool | None = None) -> Sizes:
        """Count the tensor's own bytes."""
        return self.measure_blocks(x).total(8 * x.nbytes)

    def quantize(self, x: Array) -> Array:
        """Return a copy of `x`."""
        return np.array(x, order="C")

    def encode(self, x: Array, *, signed: bool | None = None) -> Encoded:
        """Write the tensor's bytes in C order."""
        return Encoded(
            payload=np.ascontiguousarray(x).tobytes(),
            metadata=b"",
            index=b"",
            shape=tuple(x.shape),
            dtype=x.dtype.name,
            signed=True,
        )

    def decode(self, stored: Encoded) -> Array:
        """Read the bytes back.

        Raises
        ------
        InputError
            If the dtype is none that numpy or ml_dtypes names, or the length is wrong.
        """
        dtype = as_is_dtype(stored.dtype)
        _check_length(stored, dtype.itemsize)
        return np.frombuffer(stored.payload, dtype).reshape(stored.shape).copy()


def as_is_dtype(name: str) -> np.dtype[np.generic]:
    """Return the dtype called `name`.

    Raises
    ------
    InputError
        If it is no bool, integer or float of fixed size.
    """
    known = {fmt.dtype.name: fmt.dtype for fmt in FORMATS.values()}
    if name in known:
        return known[name]
    integers = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
    allowed = ["bool", *integers, "float64"]
    if name not in allowed:
        raise InputError(f"dtype {name!r} is not supported: allowed are {', '.join(allowed)}")
    return np.dtype(name)


def _check_length(stored: Encoded, item_bytes: int) -> None:
    need = prod(stored.shape) * item_bytes
    if len(stored.payload) != need or stored.metadata or stored.index:
        raise InputError(
            f"a tensor of shape {stored.shape} needs {need} payload bytes and no more, "
            f"there are {len(stored)}"
        )


PLAIN = {fmt.name: Plain(fmt=fmt) for fmt in (FP32, BF16, FP16)}
AS_IS = AsIs()
