"""Number formats as data: the floating-point types in which tensors are captured.

A format is a constant made of named fields; every other fact about it is a property.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from sfpsim.errors import InputError


class UnsupportedDtypeError(InputError):
    """An array's dtype is not one that the asked-for operation can hold."""


@dataclass(frozen=True, kw_only=True)
class FloatFormat:
    """An IEEE-like binary format: one sign bit, an exponent field and a mantissa field.

    Attributes
    ----------
    name
        Lower-case name used in specifications (``fp32``).
    exponent_bits, mantissa_bits
        Field widths, bits. The mantissa field does not count the hidden one.
    dtype
        The numpy (or ml_dtypes) dtype that stores the format.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    dtype: np.dtype[np.generic]

    @property
    def bits(self) -> int:
        """Bits of one value."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bytes(self) -> int:
        """Bytes of one value in memory."""
        return self.bits // 8

    @property
    def bias(self) -> int:
        """The exponent bias B = 2^(e-1) - 1."""
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def exponent_max(self) -> int:
        """The exponent field of Inf and NaN, 2^e - 1."""
        return (1 << self.exponent_bits) - 1

    @property
    def word_dtype(self) -> np.dtype[np.generic]:
        """The unsigned integer dtype of a value's bit pattern."""
        return np.dtype(f"<u{self.bytes}")


FP32 = FloatFormat(name="fp32", exponent_bits=8, mantissa_bits=23, dtype=np.dtype(np.float32))
BF16 = FloatFormat(
    name="bf16", exponent_bits=8, mantissa_bits=7, dtype=np.dtype(ml_dtypes.bfloat16)
)
FP16 = FloatFormat(name="fp16", exponent_bits=5, mantissa_bits=10, dtype=np.dtype(np.float16))

FORMATS: dict[str, FloatFormat] = {f.name: f for f in (FP32, BF16, FP16)}


@dataclass(frozen=True, kw_only=True)
class IntegerFormat:
    """A type that an array computes in, of `bits` bits; tensors are never captured in it."""

    name: str
    bits: int

    @property
    def bytes(self) -> int:
        """Bytes of one value on chip."""
        return self.bits // 8


ChipFormat = FloatFormat | IntegerFormat
INTEGERS = (IntegerFormat(name="int8", bits=8), IntegerFormat(name="int16", bits=16))
CHIP_FORMATS: dict[str, ChipFormat] = {**FORMATS, **{f.name: f for f in INTEGERS}}


def format_of(dtype: np.dtype[np.generic] | type) -> FloatFormat:
    """Return the format that `dtype` stores.

    Raises
    ------
    UnsupportedDtypeError
        If `dtype` is none of float32, bfloat16, float16.
    """
    wanted = np.dtype(dtype)
    for known in FORMATS.values():
        if known.dtype == wanted:
            return known
    raise UnsupportedDtypeError(
        f"dtype {wanted} is not supported here: allowed are "
        + ", ".join(str(f.dtype) for f in FORMATS.values())
    )


def words_of(values: NDArray[np.generic]) -> NDArray[np.unsignedinteger]:
    """Return the bit patterns of `values`, flat in C order, without a copy where possible."""
    fmt = format_of(values.dtype)
    return np.ascontiguousarray(values).reshape(-1).view(fmt.word_dtype)


CHUNK_VALUES = 1 << 18


def any_sign(values: NDArray[np.generic]) -> bool:
    """Return whether any value has its sign bit set (-0.0 and negative NaNs included)."""
    fmt, words = format_of(values.dtype), words_of(values)
    top = words.dtype.type(1 << (fmt.bits - 1))
    parts = range(0, words.size, CHUNK_VALUES)
    return any(bool((words[at : at + CHUNK_VALUES] >= top).any()) for at in parts)


def nan_count(values: NDArray[np.generic]) -> int:
    """Return the number of NaNs, from bit patterns; little memory at any size."""
    fmt, words = format_of(values.dtype), words_of(values)
    magnitude = words.dtype.type((1 << (fmt.bits - 1)) - 1)
    infinite = words.dtype.type(fmt.exponent_max << fmt.mantissa_bits)
    parts = (words[at : at + CHUNK_VALUES] for at in range(0, words.size, CHUNK_VALUES))
    return sum(int(((part & magnitude) > infinite).sum()) for part in parts)


def exponent_counts(values: NDArray[np.generic]) -> NDArray[np.int64]:
    """Count the exponent fields of `values`, int64 of 256 entries; little memory at any size."""
    flat = values.reshape(-1)
    counts = np.zeros(256, np.int64)
    for at in range(0, flat.size, CHUNK_VALUES):
        counts += np.bincount(split(flat[at : at + CHUNK_VALUES])[1], minlength=256)
    return counts


def split(
    values: NDArray[np.generic],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint32]]:
    """Split `values` into sign (0/1), exponent field and mantissa field, flat, C order.

    Examples
    --------
    >>> import numpy as np
    >>> sign, exponent, mantissa = split(np.array([-1.5], np.float32))
    >>> int(sign[0]), int(exponent[0]), hex(mantissa[0])
    (1, 127, '0x400000')
    """
    fmt = format_of(values.dtype)
    words = words_of(values).astype(np.uint32)
    sign = (words >> np.uint32(fmt.bits - 1)).astype(np.uint8)
    exponent = ((words >> np.uint32(fmt.mantissa_bits)) & np.uint32(fmt.exponent_max)).astype(
        np.uint8
    )
    mantissa = words & np.uint32((1 << fmt.mantissa_bits) - 1)
    return sign, exponent, mantissa


def join(
    sign: NDArray[np.uint8],
    exponent: NDArray[np.uint8],
    mantissa: NDArray[np.uint32],
    fmt: FloatFormat,
) -> NDArray[np.generic]:
    """Join the three fields of `split` back into values of format `fmt`, flat."""
    words = (
        (sign.astype(np.uint32) << np.uint32(fmt.bits - 1))
        | (exponent.astype(np.uint32) << np.uint32(fmt.mantissa_bits))
        | mantissa
    )
    return words.astype(fmt.word_dtype).view(fmt.dtype)
