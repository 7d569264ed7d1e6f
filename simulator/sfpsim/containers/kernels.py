"""The kernels of the row containers: codes, row widths, packing into lanes and back.

They see flat arrays of bit patterns (uint16 or uint32) and a `Layout`; everything is
checked before they are called. A row is 8 values, a group 8 rows, a block 16,384 values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

FIXED, BIAS, DELTA = 0, 1, 2
BLOCK_VALUES = 16_384
BLOCK_ROWS = 2_048

Words = NDArray[Any]


class Layout(NamedTuple):
    """How one value is written: the exponent's code and the widths of the fields, bits.

    `code` is FIXED, BIAS or DELTA; `exponent_bits` and `mantissa_bits` are the source
    type's, `kept` the mantissa bits stored, `field_bits` the fixed exponent field.
    """

    code: int
    exponent_bits: int
    mantissa_bits: int
    kept: int
    field_bits: int


class Limits(NamedTuple):
    """Magnitude words between which values stay; `half` is Vmin / 2, below it is zero."""

    vmax: int
    vmin: int
    half: int


@njit(cache=True, nogil=True)
def _bias_codes(exponents: NDArray[np.uint8], bias: int, codes: NDArray[np.uint8]) -> None:
    """Write magnitude | flag << 7 of every exponent against the bias.

    All in 8 bits, so that the loop fills whole vector registers.
    """
    middle = np.uint8(bias)
    top = np.uint8(2 * bias + 1)
    for i in range(exponents.size):
        exponent = exponents[i]
        distance = np.uint8(max(exponent, middle) - min(exponent, middle))
        magnitude = min(distance, middle) if exponent != 0 else np.uint8(0)
        flag = np.uint8(exponent < middle) | np.uint8(exponent == top)
        codes[i] = np.uint8(magnitude | np.uint8(flag << np.uint8(7)))


@njit(cache=True, nogil=True)
def _exponents(words: Words, lay: Layout, exponents: NDArray[np.uint8]) -> np.int64:
    """Write the exponent field of every word; return the OR of all words."""
    shift = np.uint32(lay.mantissa_bits)
    top = np.uint32((1 << lay.exponent_bits) - 1)
    seen = np.uint32(0)
    for i in range(words.size):
        word = np.uint32(words[i])
        seen |= word
        exponents[i] = np.uint8((word >> shift) & top)
    return np.int64(seen)


@njit(cache=True, nogil=True)
def _spread_bases(
    exponents: NDArray[np.uint8], values: int, bias: int, bases: NDArray[np.uint8]
) -> None:
    """Write each value's base: its lane's exponent in row 0 of the group, `bias` for 0."""
    from_rows = exponents.view(np.uint64)
    to_rows = bases.view(np.uint64)
    for group in range((values + 63) // 64):
        first = from_rows[group * 8]
        for row in range(8):
            to_rows[group * 8 + row] = first
    for i in range(bases.size):
        bases[i] = bases[i] if bases[i] != 0 else np.uint8(bias)


@njit(cache=True, nogil=True)
def _delta_codes(
    exponents: NDArray[np.uint8], bases: NDArray[np.uint8], bias: int, codes: NDArray[np.uint8]
) -> None:
    """Write magnitude | flag << 7 of every exponent against its base, in 8 bits."""
    half = np.uint8(bias)
    modulus = np.uint8(2 * bias + 1)
    for i in range(exponents.size):
        exponent, base = exponents[i], bases[i]
        distance = np.uint8(max(exponent, base) - min(exponent, base))
        nearer = min(distance, np.uint8(modulus - distance))
        magnitude = nearer if exponent != 0 else np.uint8(0)
        flag = np.uint8(exponent < base) ^ np.uint8(distance > half)
        flag |= np.uint8(exponent == 0)
        codes[i] = np.uint8(magnitude | np.uint8(flag << np.uint8(7)))


@njit(cache=True, nogil=True)
def _row_widths(codes: NDArray[np.uint8], widths: NDArray[np.uint8]) -> np.int64:
    """Write the bit length of each row's largest magnitude; return their sum."""
    rows = codes.view(np.uint64)
    for row in range(widths.size):
        both = rows[row] | (rows[row] >> np.uint64(32))
        both |= both >> np.uint64(16)
        both |= both >> np.uint64(8)
        widths[row] = np.uint8(both & np.uint64(0x7F))
    for row in range(widths.size):
        bits = widths[row]
        width = np.uint8(bits > 0) + np.uint8(bits > 1) + np.uint8(bits > 3) + np.uint8(bits > 7)
        width += np.uint8(bits > 15) + np.uint8(bits > 31) + np.uint8(bits > 63)
        widths[row] = np.uint8(width)
    total = np.int64(0)
    for row in range(widths.size):
        total += np.int64(widths[row])
    return total


@njit(cache=True, nogil=True)
def _block_codes(
    words: Words,
    lay: Layout,
    codes: NDArray[np.uint8],
    exponents: NDArray[np.uint8],
    bases: NDArray[np.uint8],
) -> np.int64:
    """Write the Gecko codes of one block, zero in the rest of its last row."""
    rows = (words.size + 7) // 8
    bias = (1 << (lay.exponent_bits - 1)) - 1
    seen = _exponents(words, lay, exponents)
    exponents[words.size : rows * 8] = 0
    if lay.code == BIAS:
        _bias_codes(exponents[: words.size], bias, codes)
    else:
        _spread_bases(exponents, words.size, bias, bases)
        _delta_codes(exponents[: rows * 8], bases[: rows * 8], bias, codes[: rows * 8])
    codes[words.size : rows * 8] = 0
    return seen


@njit(cache=True, nogil=True)
def row_widths(
    words: Words, lay: Layout, widths: NDArray[np.uint8], sums: NDArray[np.int64]
) -> np.int64:
    """Write the Gecko width of every row (0 in gecko-delta's row 0) and each block's sum.

    Returns the OR of all words, whose top bit says whether any sign bit is set.
    """
    codes = np.zeros(BLOCK_VALUES, np.uint8)
    exponents = np.zeros(BLOCK_VALUES, np.uint8)
    bases = np.zeros(BLOCK_VALUES, np.uint8)
    seen = np.int64(0)
    for block in range(sums.size):
        part = words[block * BLOCK_VALUES : min((block + 1) * BLOCK_VALUES, words.size)]
        seen |= _block_codes(part, lay, codes, exponents, bases)
        rows = (part.size + 7) // 8
        first = block * BLOCK_ROWS
        sums[block] = _row_widths(codes[: rows * 8], widths[first : first + rows])
    return seen


@njit(cache=True, nogil=True)
def any_bits(words: Words) -> np.int64:
    """Return the OR of all words."""
    seen = np.uint32(0)
    for i in range(words.size):
        seen |= np.uint32(words[i])
    return np.int64(seen)


@njit(cache=True, nogil=True)
def cut(words: Words, lay: Layout, out: Words) -> np.int64:
    """Keep the top mantissa bits; NaN stays NaN where a bit is left; return NaNs lost."""
    gone = np.uint32(lay.mantissa_bits - lay.kept)
    keep = np.uint32(0xFFFFFFFF) << gone
    fraction = np.uint32((1 << lay.mantissa_bits) - 1)
    infinite = np.uint32(((1 << lay.exponent_bits) - 1) << lay.mantissa_bits)
    magnitude_bits = infinite | fraction
    lowest = np.uint32(1 << gone) if lay.kept > 0 else np.uint32(0)
    lost = np.int64(0)
    for i in range(words.size):
        word = np.uint32(words[i])
        kept = np.uint32(word & keep)
        broken = ((word & magnitude_bits) > infinite) & ((kept & magnitude_bits) == infinite)
        out[i] = kept | (lowest if broken else np.uint32(0))
        lost += np.int64(broken)
    return lost if lay.kept == 0 else np.int64(0)


@njit(cache=True, nogil=True)
def limit(words: Words, lay: Layout, limits: Limits, out: Words) -> np.int64:
    """Bring magnitudes into the limits, then cut; return NaNs lost."""
    keep = np.uint32(0xFFFFFFFF) << np.uint32(lay.mantissa_bits - lay.kept)
    sign = np.uint32(1) << np.uint32(lay.exponent_bits + lay.mantissa_bits)
    infinite = np.uint32(((1 << lay.exponent_bits) - 1) << lay.mantissa_bits)
    vmax, vmin, half = np.uint32(limits.vmax), np.uint32(limits.vmin), np.uint32(limits.half)
    lost = np.int64(0)
    for i in range(words.size):
        word = np.uint32(words[i])
        magnitude = np.uint32(word & (sign - np.uint32(1)))
        lost += np.int64(magnitude > infinite)
        inside = np.uint32(max(np.uint32(min(magnitude, vmax)), vmin))
        inside = inside if magnitude >= half else np.uint32(0)
        out[i] = (word & sign) | (inside & keep)
    return lost


@njit(cache=True, nogil=True)
def _tails(words: Words, lay: Layout, signed: int, tails: NDArray[np.uint32]) -> None:
    """Write mantissa and sign of every word as they follow the exponent symbol."""
    fraction = np.uint32((1 << lay.mantissa_bits) - 1)
    gone = np.uint32(lay.mantissa_bits - lay.kept)
    top = np.uint32(lay.exponent_bits + lay.mantissa_bits)
    stored, kept = np.uint32(signed), np.uint32(lay.kept)
    for i in range(words.size):
        word = np.uint32(words[i])
        tails[i] = ((word & fraction) >> gone) | (((word >> top) & stored) << kept)


@njit(cache=True, nogil=True)
def _fixed_codes(exponents: NDArray[np.uint8], lay: Layout, codes: NDArray[np.uint8]) -> None:
    """Write fixed fields: raw at full width, else around their own middle, 0 for zero."""
    limited = lay.field_bits != lay.exponent_bits
    shift = (1 << (lay.exponent_bits - 1)) - 1 - (1 << (lay.field_bits - 1))
    offset = np.int32(shift if limited else 0)
    for i in range(exponents.size):
        exponent = np.int32(exponents[i])
        codes[i] = np.uint8((exponent - offset) & 0xFF) if exponent != 0 else np.uint8(0)


@njit(cache=True, nogil=True)
def _plain_and_gecko_codes(words: Words, lay: Layout, codes: NDArray[np.uint8]) -> None:
    """Write the codes of whole rows: plain ones for fixed fields and gecko-delta's row 0."""
    exponents = np.empty((words.size + 63) // 64 * 64, np.uint8)
    bases = np.empty(exponents.size if lay.code == DELTA else 0, np.uint8)
    if lay.code == FIXED:
        _exponents(words, lay, exponents)
        _fixed_codes(exponents[: words.size], lay, codes)
        return
    _block_codes(words, lay, codes, exponents, bases)
    if lay.code == DELTA:
        rows, first_rows = codes.view(np.uint64), exponents.view(np.uint64)
        for row in range(0, rows.size, 8):
            rows[row] = first_rows[row]


@njit(cache=True, nogil=True)
def _row_places(
    lay: Layout,
    signed: int,
    widths: NDArray[np.uint8],
    places: NDArray[np.int64],
    spread: NDArray[np.uint64],
) -> int:
    """Write where each row begins in its lanes; return the bits used of each lane.

    `spread`, (3, rows), repeats in 8 bytes the row's flag position, its exponent bits and
    its shift in the first word. Plain rows have the flag at 7, where codes have it too.
    """
    ones = np.uint64(0x0101010101010101)
    plain_bits = lay.field_bits if lay.code == FIXED else lay.exponent_bits
    position = 0
    for row in range(widths.size):
        width, exponent_bits = int(widths[row]), int(widths[row]) + 1
        if lay.code == FIXED or (lay.code == DELTA and row % 8 == 0):
            width, exponent_bits = 7, plain_bits
        places[row] = position
        spread[0, row] = np.uint64(width) * ones
        spread[1, row] = np.uint64(exponent_bits) * ones
        spread[2, row] = np.uint64(position & 31) * ones
        position += exponent_bits + lay.kept + signed
    return position


@njit(cache=True, nogil=True)
def _place_symbols(
    codes: NDArray[np.uint8],
    tails: NDArray[np.uint32],
    spread: NDArray[np.uint8],
    low: NDArray[np.uint32],
    high: NDArray[np.uint32],
) -> None:
    """Write every value's bits as they fall into its lane's word and the next one."""
    flags, exponent_bits, shifts = spread[0], spread[1], spread[2]
    for i in range(codes.size):
        code = np.uint64(codes[i])
        symbol = (code & np.uint64(0x7F)) | ((code >> np.uint64(7)) << np.uint64(flags[i]))
        symbol |= np.uint64(tails[i]) << np.uint64(exponent_bits[i])
        wide = symbol << np.uint64(shifts[i])
        low[i] = np.uint32(wide & np.uint64(0xFFFFFFFF))
        high[i] = np.uint32(wide >> np.uint64(32))


@njit(cache=True, nogil=True)
def _merge_rows(
    places: NDArray[np.int64],
    end: int,
    low: NDArray[np.uint64],
    high: NDArray[np.uint64],
    out: NDArray[np.uint64],
) -> None:
    """OR rows into beats; a beat is four 64-bit words, two lanes in each."""
    a = b = c = d = np.uint64(0)
    for row in range(places.size):
        following = places[row + 1] if row + 1 < places.size else end
        beat, at = (places[row] >> 5) * 4, row * 4
        a, b = a | low[at], b | low[at + 1]
        c, d = c | low[at + 2], d | low[at + 3]
        if (following >> 5) != (places[row] >> 5):
            out[beat], out[beat + 1], out[beat + 2], out[beat + 3] = a, b, c, d
            a, b, c, d = high[at], high[at + 1], high[at + 2], high[at + 3]
    beat = (end >> 5) * 4
    out[beat], out[beat + 1], out[beat + 2], out[beat + 3] = a, b, c, d


@njit(cache=True, nogil=True)
def pack_block(
    words: Words,
    lay: Layout,
    signed: int,
    widths: NDArray[np.uint8],
    out: NDArray[np.uint32],
) -> int:
    """Pack one block of whole rows into `out`; return the bits used of each lane.

    `out` has one beat (8 words) more than the packed lanes need.
    """
    codes, tails = np.empty(words.size, np.uint8), np.empty(words.size, np.uint32)
    _plain_and_gecko_codes(words, lay, codes)
    _tails(words, lay, signed, tails)
    places = np.empty(widths.size, np.int64)
    spread = np.empty((3, widths.size), np.uint64)
    end = _row_places(lay, signed, widths, places, spread)
    low, high = np.empty(words.size, np.uint32), np.empty(words.size, np.uint32)
    _place_symbols(codes, tails, spread.view(np.uint8), low, high)
    _merge_rows(places, end, low.view(np.uint64), high.view(np.uint64), out.view(np.uint64))
    return end


@njit(cache=True, nogil=True)
def pack_widths(widths: NDArray[np.uint8], delta: bool, out: NDArray[np.uint8]) -> int:
    """Write the rows' 3-bit widths into zeroed `out`, without row 0 of delta's groups.

    Returns the bits written.
    """
    position = 0
    for row in range(widths.size):
        if delta and row % 8 == 0:
            continue
        wide = np.int64(widths[row]) << (position & 7)
        out[position >> 3] |= np.uint8(wide & 0xFF)
        if wide > 0xFF:
            out[(position >> 3) + 1] |= np.uint8(wide >> 8)
        position += 3
    return position


@njit(cache=True, nogil=True)
def unpack_widths(stream: NDArray[np.uint8], delta: bool, widths: NDArray[np.uint8]) -> int:
    """Read the widths that `pack_widths` wrote; return the bits read."""
    position = 0
    for row in range(widths.size):
        if delta and row % 8 == 0:
            widths[row] = 0
            continue
        at = position >> 3
        wide = np.int64(stream[at])
        if at + 1 < stream.size:
            wide |= np.int64(stream[at + 1]) << 8
        widths[row] = np.uint8((wide >> (position & 7)) & 7)
        position += 3
    return position


@njit(cache=True, nogil=True)
def _split_symbols(
    lanes: NDArray[np.uint64],
    lay: Layout,
    signed: int,
    spread: NDArray[np.uint8],
    codes: NDArray[np.uint8],
    tails: NDArray[np.uint32],
) -> None:
    """Split every value's bits (from bit 0 on, more above) into code and sign | mantissa."""
    flags, exponent_bits, shifts = spread[0], spread[1], spread[2]
    one, kept, stored = np.uint64(1), np.uint64(lay.kept), np.uint64(signed)
    fraction = (one << kept) - one
    gone = np.uint64(lay.mantissa_bits - lay.kept)
    top = np.uint64(lay.exponent_bits + lay.mantissa_bits)
    for i in range(codes.size):
        value = lanes[i] >> np.uint64(shifts[i])
        symbol = value & ((one << np.uint64(exponent_bits[i])) - one)
        flag = symbol >> np.uint64(flags[i])
        magnitude = symbol & ((one << np.uint64(flags[i])) - one)
        codes[i] = np.uint8(magnitude | (flag << np.uint64(7)))
        rest = value >> np.uint64(exponent_bits[i])
        sign = (rest >> kept) & stored
        tails[i] = np.uint32(((rest & fraction) << gone) | (sign << top))


@njit(cache=True, nogil=True)
def _gather_rows(
    lanes: NDArray[np.uint32], places: NDArray[np.int64], wide: NDArray[np.uint64]
) -> None:
    """Write for every value its lane's word and the next one as 64 bits."""
    for row in range(places.size):
        beat = (places[row] >> 5) * 8
        here, after = lanes[beat : beat + 8], lanes[beat + 8 : beat + 16]
        out = wide[row * 8 : row * 8 + 8]
        for lane in range(8):
            out[lane] = np.uint64(here[lane]) | (np.uint64(after[lane]) << np.uint64(32))


@njit(cache=True, nogil=True)
def _open_fixed(codes: NDArray[np.uint8], tails: Words, lay: Layout, out: Words) -> None:
    """Write words from fixed codes; a limited code 0 with mantissa 0 is zero."""
    limited = lay.field_bits != lay.exponent_bits
    shift = (1 << (lay.exponent_bits - 1)) - 1 - (1 << (lay.field_bits - 1))
    offset = np.int32(shift if limited else 0)
    fraction = np.uint32((1 << lay.mantissa_bits) - 1)
    for i in range(codes.size):
        zero = (codes[i] == 0) & ((tails[i] & fraction) == 0)
        exponent = np.int32(codes[i]) + (np.int32(0) if zero else offset)
        out[i] = np.uint32(tails[i]) | np.uint32(exponent << lay.mantissa_bits)


@njit(cache=True, nogil=True)
def _open_gecko(
    codes: NDArray[np.uint8], bases: NDArray[np.uint8], tails: Words, lay: Layout, out: Words
) -> None:
    """Write words from Gecko codes against their bases, the bias or gecko-delta's row 0."""
    top = np.int32((1 << lay.exponent_bits) - 1)
    for i in range(codes.size):
        magnitude, flag = np.int32(codes[i] & 0x7F), (codes[i] >> 7) != 0
        d = np.int32(-magnitude if flag else magnitude)
        exponent = np.int32(np.int32(bases[i]) + d)
        exponent = np.int32(exponent + (top if exponent < 1 else np.int32(0)))
        exponent = np.int32(exponent - (top if exponent > top else np.int32(0)))
        exponent = np.int32(0) if flag & (magnitude == 0) else exponent
        out[i] = np.uint32(tails[i]) | np.uint32(exponent << lay.mantissa_bits)


@njit(cache=True, nogil=True)
def unpack_block(
    lanes: NDArray[np.uint32],
    lay: Layout,
    signed: int,
    widths: NDArray[np.uint8],
    out: Words,
) -> None:
    """Read the rows that `pack_block` wrote into `out` (whole rows).

    `lanes` has one beat (8 words) more than the packed lanes need.
    """
    places, spread = np.empty(widths.size, np.int64), np.empty((3, widths.size), np.uint64)
    _row_places(lay, signed, widths, places, spread)
    wide, tails = np.empty(out.size, np.uint64), np.empty(out.size, np.uint32)
    _gather_rows(lanes, places, wide)
    codes = np.empty((out.size + 63) // 64 * 64, np.uint8)
    _split_symbols(wide, lay, signed, spread.view(np.uint8), codes[: out.size], tails)
    if lay.code == FIXED:
        _open_fixed(codes[: out.size], tails, lay, out)
        return
    bias = (1 << (lay.exponent_bits - 1)) - 1
    bases = np.full(codes.size, bias, np.uint8)
    if lay.code == DELTA:
        _spread_bases(codes, out.size, bias, bases)
    _open_gecko(codes[: out.size], bases, tails, lay, out)
    if lay.code == DELTA:
        for first in range(0, out.size, 64):
            for lane in range(8):
                exponent = np.uint32(codes[first + lane])
                out[first + lane] = tails[first + lane] | (exponent << np.uint32(lay.mantissa_bits))
