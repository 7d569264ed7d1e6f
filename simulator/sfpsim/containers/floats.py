"""Small floats, one code a value: TF32, FP8, FP6, FP4 and any 1-e-m."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from sfpsim.containers import minifloat
from sfpsim.containers.base import Array, CodecTiming, with_key
from sfpsim.containers.minifloat import MiniFormat, Rounding, rounding_of
from sfpsim.containers.packed import (
    Coded,
    Fields,
    PackedContainer,
    Words,
    as_fp32,
    from_fp32,
    whole_rows,
)
from sfpsim.errors import InputError
from sfpsim.formats import FloatFormat, format_of, nan_count

Overflow = Literal["saturate", "special"]
OVERFLOWS: tuple[Overflow, ...] = ("saturate", "special")
ROUNDER = CodecTiming(
    encode_latency_cycles=2,
    decode_latency_cycles=1,
    source="a choice: align and round, pack; decoding is wiring and a short shift",
)


@dataclass(frozen=True, kw_only=True)
class MiniFloat(PackedContainer):
    """Values rounded to a small float, nearest even.

    Attributes
    ----------
    fmt
        The format.
    name
        What specifications call it.
    overflow
        ``saturate``: Inf and what overflows become the largest number; ``special``: Inf,
        or NaN where the format has no Inf.
    ties_away
        Ties go away from zero instead of to even.
    word_bits
        Bits of a value in memory, where they are more than the format's.
    """

    family: ClassVar[str] = "float"
    source: ClassVar[str] = "OCP 8-bit Floating Point Specification 1.0, 2023; IEEE 754"
    summary: ClassVar[str] = "lossy: values rounded to a small float"
    timing: ClassVar[CodecTiming] = ROUNDER
    blockwise: ClassVar[bool] = True

    fmt: MiniFormat
    name: str
    overflow: Overflow = "saturate"
    ties_away: bool = False
    word_bits: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overflow not in OVERFLOWS:
            raise InputError(
                f"{self.name}: overflow={self.overflow} is not allowed: {', '.join(OVERFLOWS)}"
            )

    @property
    def base_spec(self) -> str:
        """The name, with ``overflow=special`` where it is not the default."""
        if self.overflow == default_overflow(self.name):
            return self.name
        return with_key(self.name, "overflow", self.overflow)

    @property
    def value_mantissa_bits(self) -> int | None:
        """The format's mantissa bits."""
        return self.fmt.mantissa_bits

    def lossless_for(self, fmt: FloatFormat) -> bool:
        """Whether the format holds every value of `fmt`, Inf and NaN included."""
        return (
            self.fmt.specials == "inf-nan"
            and self.overflow == "special"
            and self.fmt.exponent_bits >= fmt.exponent_bits
            and self.fmt.mantissa_bits >= fmt.mantissa_bits
        )

    def fields(self, fmt: FloatFormat) -> Fields:
        """One sign bit, the format's exponent and mantissa, filling up to a word."""
        mine = self.fmt
        return Fields(
            sign=1,
            exponent=mine.exponent_bits,
            mantissa=mine.mantissa_bits,
            filling=max(self.word_bits - mine.bits, 0),
        )

    def _rounding(self, fmt: FloatFormat) -> Rounding:
        return rounding_of(
            self.fmt,
            saturate=self.overflow == "saturate",
            away=self.ties_away,
            exact=self.lossless_for(fmt),
        )

    def nan_lost(self, x: Array) -> int:
        """Return the NaNs of `x` where the format has none."""
        keeps = self.fmt.specials == "nan" or (
            self.fmt.specials == "inf-nan" and self.fmt.mantissa_bits > 0
        )
        return 0 if keeps else nan_count(x)

    def scale_of(self, x: Array) -> int:
        """Return the exponent of the power of two by which values are divided."""
        return 0

    def code(self, x: Array) -> Coded:
        """Round every value once."""
        words, scale = as_fp32(x), self.scale_of(x)
        codes: Words = np.empty(words.size, np.uint8 if self.fmt.bits <= 8 else np.uint32)
        scales = np.array([scale], np.int16)
        minifloat.encode_groups(
            words, scales, words.size, self._rounding(format_of(x.dtype)), codes
        )
        if self.word_bits:
            codes <<= self.word_bits - self.fmt.bits
        return Coded(codes=codes, side=np.zeros(0, np.uint8), head=self.head_of(scale))

    def head_of(self, scale: int) -> bytes:
        """Return what the tensor has once: nothing without a scale."""
        return b""

    def scale_from(self, head: bytes) -> int:
        """Return the scale that `head_of` wrote."""
        return 0

    def open(self, coded: Coded, shape: tuple[int, ...], fmt: FloatFormat) -> Array:
        """Return the values of the codes, rounded to a narrower source where they must."""
        codes = whole_rows(coded.codes)
        if self.word_bits:
            codes = codes >> (self.word_bits - self.fmt.bits)
        words = np.empty(codes.size, np.uint32)
        scales = np.array([self.scale_from(coded.head)], np.int16)
        minifloat.decode_groups(codes, scales, words.size, self._rounding(fmt), words)
        return from_fp32(words, int(np.prod(shape, dtype=np.int64)), fmt)


def default_overflow(name: str) -> Overflow:
    """Return what overflowing values become by default: FP8 saturates, IEEE formats do not."""
    return "saturate" if name.startswith("fp") else "special"


@dataclass(frozen=True, kw_only=True)
class ScaledMiniFloat(MiniFloat):
    """Values divided by a power of two of the whole tensor, then rounded.

    The scale brings the largest finite magnitude into the format's top binade, as MX does
    for a block; it is one E8M0 byte.
    """

    summary: ClassVar[str] = "lossy: values over a power of two of the tensor, rounded"
    needs: ClassVar[Literal["none", "block", "tensor"]] = "tensor"
    blockwise: ClassVar[bool] = False
    head_bits: ClassVar[int] = 8
    timing: ClassVar[CodecTiming] = CodecTiming(
        encode_latency_cycles=3,
        decode_latency_cycles=2,
        passes=2,
        source="as without a scale, an exponent adder more; one pass finds the maximum",
    )

    @property
    def base_spec(self) -> str:
        """The name with ``scale=tensor``."""
        return with_key(super().base_spec, "scale", "tensor")

    def lossless_for(self, fmt: FloatFormat) -> bool:
        """Return False: a scaled value may leave the format's range."""
        return False

    def scale_of(self, x: Array) -> int:
        """Return the exponent that brings the largest finite value into the top binade."""
        words = as_fp32(x) & np.uint32(0x7FFFFFFF)
        finite = words[words < 0x7F800000]
        top = np.array([finite.max(initial=0)], np.uint32)
        scale = int(minifloat.exponents_of(top)[0]) - self.fmt.emax
        return min(max(scale, -127), 127)

    def head_of(self, scale: int) -> bytes:
        """Return the scale as an E8M0 code."""
        return bytes([scale + 127])

    def scale_from(self, head: bytes) -> int:
        """Return the scale of an E8M0 code.

        Raises
        ------
        InputError
            If it is the code of NaN, which is never written.
        """
        if head[0] == 0xFF:
            raise InputError("a tensor's scale is NaN")
        return head[0] - 127


FP8_E4M3 = MiniFloat(fmt=minifloat.E4M3, name="fp8-e4m3")
FP8_E5M2 = MiniFloat(fmt=minifloat.E5M2, name="fp8-e5m2")
FP6_E3M2 = MiniFloat(fmt=minifloat.E3M2, name="fp6-e3m2")
FP6_E2M3 = MiniFloat(fmt=minifloat.E2M3, name="fp6-e2m3")
FP4_E2M1 = MiniFloat(fmt=minifloat.E2M1, name="fp4-e2m1")
TF32 = MiniFloat(fmt=minifloat.TF32, name="tf32", overflow="special", ties_away=True, word_bits=32)


def any_float(exponent_bits: int, mantissa_bits: int, overflow: Overflow = "special") -> MiniFloat:
    """Return the container of the IEEE-like format 1-e-m.

    Raises
    ------
    InputError
        If e is outside 2 .. 8 or m outside 0 .. 23.
    """
    if not (2 <= exponent_bits <= 8 and 0 <= mantissa_bits <= 23):
        raise InputError(
            f"float: e={exponent_bits},m={mantissa_bits} is not allowed: e 2 to 8, m 0 to 23"
        )
    name = f"float:e={exponent_bits},m={mantissa_bits}"
    fmt = MiniFormat(
        name=f"e{exponent_bits}m{mantissa_bits}",
        exponent_bits=exponent_bits,
        mantissa_bits=mantissa_bits,
    )
    return MiniFloat(fmt=fmt, name=name, overflow=overflow)
