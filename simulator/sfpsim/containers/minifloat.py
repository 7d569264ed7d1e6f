"""Any small float 1-e-m as integer codes: formats as data, rounding once, in kernels.

A code is sign | exponent field | mantissa field. Values come in as FP32 words (every source
type widens to FP32 exactly) and may be scaled by a power of two on the way, so that each is
rounded once, to nearest even, from its exact value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sfpsim.containers.vector import (
    Row,
    below,
    bit_lengths,
    equal,
    larger,
    largest,
    load,
    prefetch,
    smaller,
    splat,
    store,
    unequal,
)

Specials = Literal["inf-nan", "nan", "none"]
Words = NDArray[Any]
AHEAD = 4_096
OFFSET = 1_024
"""Added to exponents, so that they stay positive in unsigned lanes."""
compiled = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)


@dataclass(frozen=True, kw_only=True)
class MiniFormat:
    """A float format of one sign bit, e exponent and m mantissa bits, with subnormals.

    `specials` says which codes are no numbers: ``inf-nan`` as IEEE 754 (the top exponent),
    ``nan`` the code of all ones only, ``none`` none.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    specials: Specials = "inf-nan"
    source: str = "IEEE 754"

    @property
    def bits(self) -> int:
        """Bits of one value."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        """2^(e-1) - 1."""
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def largest_code(self) -> int:
        """The code of the largest finite magnitude."""
        ones = (1 << (self.bits - 1)) - 1
        if self.specials == "inf-nan":
            return ones - (1 << self.mantissa_bits)
        return ones - (self.specials == "nan")

    @property
    def emax(self) -> int:
        """The exponent of the largest magnitude, as the MX specification calls it."""
        return (self.largest_code >> self.mantissa_bits) - self.bias

    @property
    def largest(self) -> float:
        """The largest finite magnitude."""
        fraction = self.largest_code & ((1 << self.mantissa_bits) - 1)
        return float((1 + fraction * 2.0**-self.mantissa_bits) * 2.0**self.emax)


OCP = "OCP 8-bit Floating Point Specification 1.0, 2023"
MX = "OCP Microscaling Formats (MX) Specification 1.0, 2023"
E4M3 = MiniFormat(name="e4m3", exponent_bits=4, mantissa_bits=3, specials="nan", source=OCP)
E5M2 = MiniFormat(name="e5m2", exponent_bits=5, mantissa_bits=2, source=OCP)
E3M2 = MiniFormat(name="e3m2", exponent_bits=3, mantissa_bits=2, specials="none", source=MX)
E2M3 = MiniFormat(name="e2m3", exponent_bits=2, mantissa_bits=3, specials="none", source=MX)
E2M1 = MiniFormat(name="e2m1", exponent_bits=2, mantissa_bits=1, specials="none", source=MX)
TF32 = MiniFormat(
    name="tf32", exponent_bits=8, mantissa_bits=10, source="NVIDIA A100 white paper, 2020"
)


class Rounding(NamedTuple):
    """What the kernels need of a format and of how it is rounded.

    `largest` is the code of the largest number, `over` what a larger one becomes,
    `infinite` what Inf becomes, `nan` the code that a NaN's kept payload is put into
    (`nan_payload` its mask), `quiet` a bit that is set in every NaN, `bare` the payload of
    a NaN that has none. `away` rounds ties away from zero.
    """

    exponent_bits: int
    mantissa_bits: int
    largest: int
    over: int
    infinite: int
    nan: int
    nan_payload: int
    quiet: int
    bare: int
    away: int


def rounding_of(
    fmt: MiniFormat, *, saturate: bool, away: bool = False, exact: bool = False
) -> Rounding:
    """Return how values are rounded to `fmt`; Inf and what overflows saturates, or not.

    A format without NaN turns NaN into its largest number, one without mantissa into Inf.
    `exact` says that the source fits whole, so that NaNs are not made quiet.
    """
    ones, top = (1 << (fmt.bits - 1)) - 1, fmt.largest_code
    infinite = top + 1 if fmt.specials == "inf-nan" else ones
    special = top if saturate or fmt.specials == "none" else infinite
    quiet = 1 << (fmt.mantissa_bits - 1) if fmt.mantissa_bits else 0
    return Rounding(
        exponent_bits=fmt.exponent_bits,
        mantissa_bits=fmt.mantissa_bits,
        largest=top,
        over=special,
        infinite=special,
        nan=infinite if fmt.specials == "inf-nan" else ones,
        nan_payload=(1 << fmt.mantissa_bits) - 1 if fmt.specials == "inf-nan" else 0,
        quiet=quiet if fmt.specials == "inf-nan" and not exact else 0,
        bare=quiet if fmt.specials == "nan" else 0,
        away=int(away),
    )


@compiled
def code_row(word: Row, scale: int, r: Rounding) -> Row:
    """Return the codes of eight FP32 words times 2^-scale, -300 <= scale <= 300."""
    magnitude = word & 0x7FFFFFFF
    field = magnitude >> 23
    hidden = unequal(field, 0)
    significand = (magnitude & 0x7FFFFF) | (hidden << 23)
    # The value is significand * 2^(unit - OFFSET); its leading one stands at `lead`.
    unit = field + (OFFSET - 149 - scale) - hidden
    lead = unit + bit_lengths(significand) - 1
    least = OFFSET + 2 - (1 << (r.exponent_bits - 1))
    exponent = larger(lead, least)
    grid = exponent - r.mantissa_bits
    finer = splat(0) - below(grid, unit)
    left = smaller((unit - grid) & finer, 31)
    right = smaller((grid - unit) & (finer ^ 0xFFFFFFFF), 31)
    steps = significand << left
    kept = steps >> right
    half = (splat(1) << right) >> 1
    odd = (kept & 1) | r.away
    rounded = (steps + half - (unequal(half, 0) & (odd ^ 1))) >> right
    code = ((exponent - least) << r.mantissa_bits) + rounded
    code = code & (splat(0) - unequal(significand, 0))
    code = _with_specials(code, magnitude, r)
    return code | ((word >> 31) << (r.exponent_bits + r.mantissa_bits))


@compiled
def _with_specials(code: Row, magnitude: Row, r: Rounding) -> Row:
    """Replace the codes of what overflows, of Inf and of NaN."""
    over = splat(0) - below(splat(r.largest), code)
    code = (code & (over ^ 0xFFFFFFFF)) | (over & r.over)
    infinite = splat(0) - equal(magnitude, 0x7F800000)
    code = (code & (infinite ^ 0xFFFFFFFF)) | (infinite & r.infinite)
    nan = splat(0) - below(splat(0x7F800000), magnitude)
    payload = ((magnitude >> (23 - r.mantissa_bits)) & r.nan_payload) | r.quiet
    return (code & (nan ^ 0xFFFFFFFF)) | (nan & (payload | r.nan))


@compiled
def value_row(code: Row, scale: int, r: Rounding) -> Row:
    """Return the FP32 words of eight codes times 2^scale; Inf where that overflows."""
    magnitude = code & ((1 << (r.exponent_bits + r.mantissa_bits)) - 1)
    field = magnitude >> r.mantissa_bits
    hidden = unequal(field, 0)
    significand = (magnitude & ((1 << r.mantissa_bits) - 1)) | (hidden << r.mantissa_bits)
    unit = field - hidden + (OFFSET + scale + 2 - (1 << (r.exponent_bits - 1)) - r.mantissa_bits)
    length = bit_lengths(significand)
    lead = unit + length - 1
    normal = significand << smaller(splat(24) - length, 31)
    # Below FP32's least normal exponent the significand moves right (exactly: codes are short).
    least = OFFSET - 126
    missing = smaller((larger(lead, least) - lead), 31)
    field32 = (larger(lead, least) - (least - 1)) & (splat(0) - equal(missing, 0))
    fraction = (normal >> missing) & 0x7FFFFF
    word = (field32 << 23) | fraction
    word = smaller(word & (splat(0) - unequal(significand, 0)), 0x7F800000)
    word = _special_words(word, magnitude, r)
    return word | ((code >> (r.exponent_bits + r.mantissa_bits)) << 31)


@compiled
def _special_words(word: Row, magnitude: Row, r: Rounding) -> Row:
    """Replace the words of the codes above the largest number: Inf and NaN."""
    beyond = splat(0) - below(splat(r.largest), magnitude)
    payload = (magnitude & r.nan_payload) | r.bare
    special = splat(0x7F800000) | (payload << (23 - r.mantissa_bits))
    return (word & (beyond ^ 0xFFFFFFFF)) | (beyond & special)


@compiled
def encode_groups(
    words: Words, scales: NDArray[np.int16], group_rows: int, r: Rounding, codes: Words
) -> None:
    """Write the codes of whole rows of FP32 words; `scales` holds one exponent a group."""
    for row in range(words.size // 8):
        prefetch(words, row * 8 + AHEAD)
        scale = np.int64(scales[row // group_rows])
        store(code_row(load(words, row * 8), scale, r), codes, row * 8)


@compiled
def decode_groups(
    codes: Words, scales: NDArray[np.int16], group_rows: int, r: Rounding, words: Words
) -> None:
    """Write the FP32 words of whole rows of codes; the reverse of `encode_groups`."""
    for row in range(codes.size // 8):
        prefetch(codes, row * 8 + AHEAD)
        scale = np.int64(scales[row // group_rows])
        store(value_row(load(codes, row * 8), scale, r), words, row * 8)


@compiled
def fixed_row(word: Row, grid: int, most: int) -> Row:
    """Return eight FP32 words as whole multiples of 2^grid, nearest even, sign at bit 31.

    Magnitudes above `most`, Inf and NaN become `most`.
    """
    magnitude = word & 0x7FFFFFFF
    field = magnitude >> 23
    hidden = unequal(field, 0)
    significand = (magnitude & 0x7FFFFF) | (hidden << 23)
    unit, step = field + (OFFSET - 149) - hidden, splat(OFFSET + grid)
    finer = splat(0) - below(step, unit)
    left, right = (unit - step) & finer, smaller((step - unit) & (finer ^ 0xFFFFFFFF), 31)
    steps = significand << smaller(left, 7)
    half = (splat(1) << right) >> 1
    odd = (steps >> right) & 1
    rounded = (steps + half - (unequal(half, 0) & (odd ^ 1))) >> right
    huge = splat(0) - (below(splat(7), left) & unequal(significand, 0))
    beyond = huge | (splat(0) - equal(field, 255))
    count = smaller(rounded | (beyond & 0x7FFFFFFF), most)
    return count | ((word >> 31) << 31)


@compiled
def whole_row(count: Row, grid: int) -> Row:
    """Return the FP32 words of magnitudes below 2^24 times 2^grid, signs at bit 31."""
    magnitude = count & 0x7FFFFFFF
    length = bit_lengths(magnitude)
    lead = length + (OFFSET + grid - 1)
    least = splat(OFFSET - 126)
    missing = smaller(larger(lead, least) - lead, 31)
    field = (larger(lead, least) - (OFFSET - 127)) & (splat(0) - equal(missing, 0))
    fraction = ((magnitude << smaller(splat(24) - length, 31)) >> missing) & 0x7FFFFF
    word = smaller((field << 23) | fraction, 0x7F800000)
    return (word & (splat(0) - unequal(magnitude, 0))) | (count & 0x80000000)


@compiled
def largest_in_groups(words: Words, group_rows: int, most: NDArray[np.uint32]) -> None:
    """Write the largest magnitude word of each group of whole rows; NaN is above Inf."""
    rows = words.size // 8
    for group in range(most.size):
        found = splat(0)
        for row in range(group * group_rows, min((group + 1) * group_rows, rows)):
            prefetch(words, row * 8 + AHEAD)
            found = larger(found, load(words, row * 8) & 0x7FFFFFFF)
        most[group] = largest(found)


def exponents_of(most: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return floor(log2) of magnitude words, from their bits; 128 for Inf and NaN.

    Zero gives -150, below every number.
    """
    field = (most >> np.uint32(23)).astype(np.int64)
    length = np.frexp(most.astype(np.float64))[1].astype(np.int64)
    return np.where(field > 0, field - 127, length - 150)


@compiled
def fix_groups(
    words: Words, grids: NDArray[np.int16], group_rows: int, most: int, counts: Words
) -> None:
    """Write whole rows of FP32 words as multiples of their group's 2^grid."""
    for row in range(words.size // 8):
        prefetch(words, row * 8 + AHEAD)
        grid = np.int64(grids[row // group_rows])
        store(fixed_row(load(words, row * 8), grid, most), counts, row * 8)


@compiled
def unfix_groups(counts: Words, grids: NDArray[np.int16], group_rows: int, words: Words) -> None:
    """Write the FP32 words of whole rows of `fix_groups`' multiples."""
    for row in range(counts.size // 8):
        prefetch(counts, row * 8 + AHEAD)
        grid = np.int64(grids[row // group_rows])
        store(whole_row(load(counts, row * 8), grid), words, row * 8)
