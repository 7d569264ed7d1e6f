"""Block floating point: MX, NVFP4, MSFP and Flexpoint.

Values of a block share a scale. Special values follow one rule where a format leaves them
open: see each class.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers import minifloat
from sfpsim.containers.base import Array, CodecTiming
from sfpsim.containers.minifloat import E2M1, E4M3, MiniFormat, exponents_of, rounding_of
from sfpsim.containers.packed import (
    Coded,
    Fields,
    Int64s,
    PackedContainer,
    Words,
    as_fp32,
    from_fp32,
    whole_rows,
)
from sfpsim.formats import FloatFormat, nan_count

MX_GROUP, NV_GROUP, MSFP_GROUP = 32, 16, 16
NAN_SCALE, NAN_WORD, INFINITE = 255, 0x7FC00000, 0x7F800000


def _timing(group: int, source: str) -> CodecTiming:
    """Return the timing of a codec that holds a group until its maximum is known."""
    rows = group // 8
    return CodecTiming(encode_latency_cycles=rows + 3, decode_latency_cycles=2, source=source)


def _largest(words: Words, group: int) -> NDArray[np.uint32]:
    most = np.empty(words.size // group, np.uint32)
    minifloat.largest_in_groups(words, group // 8, most)
    return most


def _mx_scales(most: NDArray[np.uint32], emax: int) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Return E8M0 codes and exponents; a NaN in a block makes its scale NaN."""
    exponent = np.clip(exponents_of(most) - emax, -127, 127)
    code = np.where(most > INFINITE, NAN_SCALE, exponent + 127)
    return code.astype(np.uint8), exponent.astype(np.int16)


def _exponents(side: Words) -> NDArray[np.int16]:
    return np.minimum(side.astype(np.int16) - np.int16(127), np.int16(127))


def _with_nan_blocks(words: Words, side: Words) -> Words:
    """Set all words of the blocks whose scale is NaN."""
    nan = np.flatnonzero(side == NAN_SCALE)
    words.reshape(-1, MX_GROUP)[nan] = NAN_WORD
    return words


@dataclass(frozen=True, kw_only=True)
class MxFloat(PackedContainer):
    """OCP MX with float elements: 32 values share a power of two (E8M0).

    Scale: floor(log2 max) - emax of the element, from exponent bits, never from a float
    logarithm. Elements round to nearest even and saturate. A NaN makes its block NaN; Inf
    counts as 2^128.
    """

    family: ClassVar[str] = "mx"
    source: ClassVar[str] = minifloat.MX
    summary: ClassVar[str] = "lossy: 32 values share a power of two, small float elements"
    needs: ClassVar[Literal["none", "block", "tensor"]] = "block"
    timing: ClassVar[CodecTiming] = _timing(
        MX_GROUP, "a choice: four rows wait for the maximum, then align and round"
    )
    blockwise: ClassVar[bool] = True

    element: MiniFormat
    name: str

    @property
    def base_spec(self) -> str:
        """The name."""
        return self.name

    @property
    def value_mantissa_bits(self) -> int | None:
        """The element's mantissa bits."""
        return self.element.mantissa_bits

    def fields(self, fmt: FloatFormat) -> Fields:
        """The element's fields."""
        return Fields(
            sign=1, exponent=self.element.exponent_bits, mantissa=self.element.mantissa_bits
        )

    def side(self, shape: tuple[int, ...]) -> tuple[np.dtype[Any], Int64s]:
        """One E8M0 byte for every 32 values."""
        return np.dtype(np.uint8), -(-self.counts(shape) // MX_GROUP)

    def code(self, x: Array) -> Coded:
        """Find each block's scale, then round its elements."""
        words = as_fp32(x, MX_GROUP)
        side, exponents = _mx_scales(_largest(words, MX_GROUP), self.element.emax)
        codes = np.empty(words.size, np.uint8)
        rounding = rounding_of(self.element, saturate=True)
        minifloat.encode_groups(words, exponents, MX_GROUP // 8, rounding, codes)
        return Coded(codes=codes, side=side)

    def open(self, coded: Coded, shape: tuple[int, ...], fmt: FloatFormat) -> Array:
        """Multiply elements by their scale."""
        codes = whole_rows(coded.codes, MX_GROUP)
        words = np.empty(codes.size, np.uint32)
        rounding = rounding_of(self.element, saturate=True)
        minifloat.decode_groups(codes, _exponents(coded.side), MX_GROUP // 8, rounding, words)
        return from_fp32(_with_nan_blocks(words, coded.side), prod(shape), fmt)


@dataclass(frozen=True, kw_only=True)
class MxInt8(PackedContainer):
    """OCP MXINT8: 32 two's complement bytes, units of 2^-6, share a power of two.

    -2.0 (the byte 0x80) is not used, so that the range is symmetric.
    """

    family: ClassVar[str] = "mxint8"
    source: ClassVar[str] = minifloat.MX
    summary: ClassVar[str] = "lossy: 32 bytes share a power of two"
    needs: ClassVar[Literal["none", "block", "tensor"]] = "block"
    timing: ClassVar[CodecTiming] = MxFloat.timing
    blockwise: ClassVar[bool] = True

    @property
    def base_spec(self) -> str:
        """``mxint8``."""
        return self.family

    @property
    def value_mantissa_bits(self) -> int | None:
        """Seven bits, of which the first is hidden."""
        return 6

    def fields(self, fmt: FloatFormat) -> Fields:
        """A sign and seven bits."""
        return Fields(sign=1, exponent=0, mantissa=7)

    def side(self, shape: tuple[int, ...]) -> tuple[np.dtype[Any], Int64s]:
        """One E8M0 byte for every 32 values."""
        return np.dtype(np.uint8), -(-self.counts(shape) // MX_GROUP)

    def code(self, x: Array) -> Coded:
        """Find each block's scale, then round its elements."""
        words = as_fp32(x, MX_GROUP)
        side, exponents = _mx_scales(_largest(words, MX_GROUP), 0)
        counts = np.empty(words.size, np.uint32)
        minifloat.fix_groups(words, exponents - np.int16(6), MX_GROUP // 8, 127, counts)
        return Coded(codes=_twos_complement(counts, 8).astype(np.uint8), side=side)

    def open(self, coded: Coded, shape: tuple[int, ...], fmt: FloatFormat) -> Array:
        """Multiply elements by their scale."""
        counts = whole_rows(_sign_magnitude(coded.codes, 8), MX_GROUP)
        words, exponents = np.empty(counts.size, np.uint32), _exponents(coded.side)
        minifloat.unfix_groups(counts, exponents - np.int16(6), MX_GROUP // 8, words)
        return from_fp32(_with_nan_blocks(words, coded.side), prod(shape), fmt)


def _twos_complement(counts: Words, bits: int) -> Words:
    """Return sign (bit 31) and magnitude as two's complement of `bits` bits, uint32."""
    magnitude = counts & np.uint32(0x7FFFFFFF)
    negative = np.uint32(0) - magnitude
    return np.where(counts >> np.uint32(31), negative, magnitude) & np.uint32((1 << bits) - 1)


def _sign_magnitude(codes: Words, bits: int) -> Words:
    """Return two's complement codes as magnitude with the sign at bit 31, uint32."""
    wide = codes.astype(np.uint32)
    negative = wide >> np.uint32(bits - 1) != 0
    return np.where(negative, (np.uint32(1 << bits) - wide) | np.uint32(1 << 31), wide)


@dataclass(frozen=True, kw_only=True)
class Nvfp4(PackedContainer):
    """NVFP4: 16 values of E2M1 share an E4M3 scale, the tensor one FP32 scale.

    Tensor scale: largest finite magnitude / (6 * 448), FP32. Block scale: the block's
    largest / (6 * tensor scale), rounded to E4M3, saturating. Elements are x / (block scale
    * tensor scale) in float64, rounded once to nearest even, saturating. Scales are found
    from finite values; Inf becomes the largest element, a NaN makes its block's scale NaN.
    Storing what was read back can change it (the scales are no powers of two).
    """

    family: ClassVar[str] = "nvfp4"
    source: ClassVar[str] = "NVIDIA, Pretraining Large Language Models with NVFP4, 2025"
    summary: ClassVar[str] = "lossy: 16 values of E2M1 share an E4M3 scale, the tensor one FP32"
    needs: ClassVar[Literal["none", "block", "tensor"]] = "tensor"
    stable: ClassVar[bool] = False
    head_bits: ClassVar[int] = 32
    timing: ClassVar[CodecTiming] = CodecTiming(
        encode_latency_cycles=8,
        decode_latency_cycles=3,
        passes=2,
        source="a choice: two rows wait for the maximum, a divider of four stages; one pass "
        "finds the tensor's maximum",
    )

    @property
    def base_spec(self) -> str:
        """``nvfp4``."""
        return self.family

    def fields(self, fmt: FloatFormat) -> Fields:
        """The fields of E2M1."""
        return Fields(sign=1, exponent=2, mantissa=1)

    def side(self, shape: tuple[int, ...]) -> tuple[np.dtype[Any], Int64s]:
        """One E4M3 byte for every 16 values."""
        return np.dtype(np.uint8), -(-self.counts(shape) // NV_GROUP)

    def code(self, x: Array) -> Coded:
        """Find the tensor's scale, the blocks' scales, then round the elements."""
        words = as_fp32(x, NV_GROUP)
        magnitude = words & np.uint32(0x7FFFFFFF)
        finite = np.where(magnitude < INFINITE, magnitude, 0).astype(np.uint32)
        most = _largest(finite, NV_GROUP).view(np.float32).astype(np.float64)
        tensor = np.float32(most.max() / (E2M1.largest * E4M3.largest))
        with np.errstate(divide="ignore", invalid="ignore"):
            ideal = np.where(tensor > 0, most / (E2M1.largest * np.float64(tensor)), 0.0)
        side = _to_e4m3(ideal.astype(np.float64))
        nan = (magnitude.reshape(-1, NV_GROUP) > INFINITE).any(axis=1)
        side[nan] = 0x7F
        scale = _from_e4m3(side) * np.float64(tensor)
        codes = _e2m1_codes(words, np.repeat(scale, NV_GROUP))
        return Coded(codes=codes, side=side, head=np.float32(tensor).tobytes())

    def open(self, coded: Coded, shape: tuple[int, ...], fmt: FloatFormat) -> Array:
        """Multiply elements by both scales in float64, then round to FP32 once."""
        tensor = np.float64(np.frombuffer(coded.head, "<f4")[0])
        scale = np.repeat(_from_e4m3(coded.side) * tensor, NV_GROUP)
        codes = whole_rows(coded.codes, NV_GROUP)
        with np.errstate(all="ignore"):
            values = (E2M1_VALUES[codes] * scale).astype(np.float32)
        words = values.view(np.uint32)
        words[np.isnan(values)] = NAN_WORD
        return from_fp32(words, prod(shape), fmt)


E2M1_VALUES = np.array([s * v for s in (1.0, -1.0) for v in (0, 0.5, 1, 1.5, 2, 3, 4, 6)])
E4M3_VALUES = np.array(
    [m * 2.0**-9 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7) for e in range(16) for m in range(8)]
)
E4M3_VALUES[0x7F] = np.nan


def _nearest_even(values: NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the index of the entry nearest to each value, the even one of two; saturates."""
    middles = (table[1:] + table[:-1]) / 2
    low = np.searchsorted(middles, values, side="left")
    tie = middles[np.minimum(low, middles.size - 1)] == values
    return (low + (tie & (low % 2 == 1))).astype(np.uint8)


def _to_e4m3(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return _nearest_even(values, E4M3_VALUES[:0x7F])


def _from_e4m3(codes: Words) -> NDArray[np.float64]:
    return E4M3_VALUES[codes & np.uint8(0x7F)]


def _e2m1_codes(words: Words, scale: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the E2M1 codes of FP32 words over their scale; 0 where the scale is 0."""
    with np.errstate(all="ignore"):
        magnitude = np.abs(words.view(np.float32).astype(np.float64)) / scale
    magnitude[~(scale > 0)] = 0.0
    code = _nearest_even(magnitude, E2M1_VALUES[:8])
    return code | ((words >> np.uint32(31)) << np.uint32(3)).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Msfp(PackedContainer):
    """Microsoft floating point: 16 values share an 8-bit exponent, the block's largest.

    Each has a sign and m magnitude bits without a hidden one, in units of 2^(E - 127 - m +
    1), nearest even, saturating. E is the FP32 exponent field of the largest, 1 where that
    is subnormal. Inf and NaN become the largest magnitude at E = 255, which reads as Inf.
    """

    family: ClassVar[str] = "msfp"
    source: ClassVar[str] = "Darvish Rouhani et al., Pushing the Limits of Narrow Precision, 2020"
    summary: ClassVar[str] = "lossy: 16 values share an exponent, sign and magnitude elements"
    needs: ClassVar[Literal["none", "block", "tensor"]] = "block"
    timing: ClassVar[CodecTiming] = _timing(
        MSFP_GROUP, "a choice: two rows wait for the largest exponent, then align and round"
    )
    blockwise: ClassVar[bool] = True

    total_bits: int

    @property
    def mantissa_bits(self) -> int:
        """Magnitude bits: 3 for MSFP12 to 7 for MSFP16."""
        return self.total_bits - 9

    @property
    def base_spec(self) -> str:
        """``msfp12`` to ``msfp16``."""
        return f"msfp{self.total_bits}"

    @property
    def value_mantissa_bits(self) -> int | None:
        """Of the magnitude's bits the first is hidden."""
        return self.mantissa_bits - 1

    def fields(self, fmt: FloatFormat) -> Fields:
        """A sign and the magnitude."""
        return Fields(sign=1, exponent=0, mantissa=self.mantissa_bits)

    def side(self, shape: tuple[int, ...]) -> tuple[np.dtype[Any], Int64s]:
        """One exponent byte for every 16 values."""
        return np.dtype(np.uint8), -(-self.counts(shape) // MSFP_GROUP)

    def nan_lost(self, x: Array) -> int:
        """Return the NaNs of `x`."""
        return nan_count(x)

    def _grids(self, side: Words) -> NDArray[np.int16]:
        return side.astype(np.int16) - np.int16(127 + self.mantissa_bits - 1)

    def code(self, x: Array) -> Coded:
        """Find each block's exponent, then round its elements."""
        words, bits = as_fp32(x, MSFP_GROUP), self.mantissa_bits
        side = np.maximum(_largest(words, MSFP_GROUP) >> np.uint32(23), 1).astype(np.uint8)
        counts = np.empty(words.size, np.uint32)
        most = (1 << bits) - 1
        minifloat.fix_groups(words, self._grids(side), MSFP_GROUP // 8, most, counts)
        codes = (counts & np.uint32(most)) | (counts >> np.uint32(31)) << np.uint32(bits)
        return Coded(codes=codes.astype(np.uint8), side=side)

    def open(self, coded: Coded, shape: tuple[int, ...], fmt: FloatFormat) -> Array:
        """Multiply elements by their unit."""
        codes = whole_rows(coded.codes, MSFP_GROUP).astype(np.uint32)
        bits = np.uint32(self.mantissa_bits)
        counts = (codes & ((np.uint32(1) << bits) - np.uint32(1))) | (codes >> bits) << np.uint32(
            31
        )
        words = np.empty(counts.size, np.uint32)
        minifloat.unfix_groups(counts, self._grids(coded.side), MSFP_GROUP // 8, words)
        return from_fp32(words, prod(shape), fmt)


@dataclass(frozen=True, kw_only=True)
class Flexpoint(PackedContainer):
    """flex16+5: 16-bit integers share one 5-bit exponent a tensor.

    A value is M * 2^-e, e = 14 - floor(log2 of the largest finite magnitude), limited to 0
    .. 31; M has 15 magnitude bits and a sign, nearest even, saturating (Inf and NaN too).
    Autoflex predicts e from earlier steps; here the tensor's own maximum is taken, which is
    what a right prediction gives.
    """

    family: ClassVar[str] = "flexpoint"
    source: ClassVar[str] = "Köster et al., Flexpoint, NeurIPS 2017"
    summary: ClassVar[str] = "lossy: 16-bit integers, one 5-bit exponent a tensor"
    needs: ClassVar[Literal["none", "block", "tensor"]] = "tensor"
    head_bits: ClassVar[int] = 5
    timing: ClassVar[CodecTiming] = CodecTiming(
        encode_latency_cycles=2,
        decode_latency_cycles=2,
        source="a choice: align and round; the exponent is predicted, so one pass",
    )

    @property
    def base_spec(self) -> str:
        """``flexpoint``."""
        return self.family

    def fields(self, fmt: FloatFormat) -> Fields:
        """A sign and 15 bits."""
        return Fields(sign=1, exponent=0, mantissa=15)

    def nan_lost(self, x: Array) -> int:
        """Return the NaNs of `x`."""
        return nan_count(x)

    def code(self, x: Array) -> Coded:
        """Find the exponent, then round."""
        words = as_fp32(x)
        magnitude = words & np.uint32(0x7FFFFFFF)
        top = magnitude[magnitude < INFINITE].max(initial=0)
        e = int(np.clip(14 - exponents_of(np.array([top], np.uint32))[0], 0, 31))
        counts = np.empty(words.size, np.uint32)
        minifloat.fix_groups(words, np.array([-e], np.int16), words.size, 32767, counts)
        codes = _twos_complement(counts, 16)
        return Coded(codes=codes.astype(np.uint16), side=np.zeros(0, np.uint8), head=bytes([e]))

    def open(self, coded: Coded, shape: tuple[int, ...], fmt: FloatFormat) -> Array:
        """Multiply by the tensor's power of two."""
        counts = whole_rows(_sign_magnitude(coded.codes, 16))
        words, grid = np.empty(counts.size, np.uint32), np.array([-(coded.head[0] & 31)], np.int16)
        minifloat.unfix_groups(counts, grid, counts.size, words)
        return from_fp32(words, prod(shape), fmt)


MXFP8_E4M3 = MxFloat(element=E4M3, name="mxfp8-e4m3")
MXFP8_E5M2 = MxFloat(element=minifloat.E5M2, name="mxfp8-e5m2")
MXFP6_E3M2 = MxFloat(element=minifloat.E3M2, name="mxfp6-e3m2")
MXFP6_E2M3 = MxFloat(element=minifloat.E2M3, name="mxfp6-e2m3")
MXFP4 = MxFloat(element=E2M1, name="mxfp4")
