"""The kernels of the row containers: codes, row widths, packing into lanes and back.

They see flat arrays of bit patterns (uint16 or uint32) and a `Layout`; everything is
checked before they are called. A row is 8 values, a group 8 rows, a block some groups.
Kernels work on a range of blocks, so that threads can share a tensor. What is to be read
soon is prefetched by hand: the loops are too long for the processor to look ahead.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sfpsim.containers.vector import (
    Row,
    any_bits,
    any_bits_of_8,
    any_halves_of_4,
    as_int,
    below,
    bit_length,
    bit_lengths,
    equal,
    first_lanes,
    funnel,
    lane_sum,
    larger,
    larger_halves,
    largest,
    last_lanes,
    load,
    load_halves,
    minus_halves,
    plus_halves,
    prefetch,
    smaller,
    smaller_halves,
    smallest,
    splat,
    store,
    unequal,
    zero_halves,
)

FIXED, BIAS, DELTA = 0, 1, 2
GROUP_ROWS = 8
AHEAD = 4_096
"""Values between what is prefetched and what is worked on."""

# Eight small numbers in the bytes of a word: all ones, all eights, and which bits hold pairs,
# fours and eights of 3-bit numbers as they are brought together.
ONES, EIGHTS = 0x0101010101010101, 0x0808080808080808
SINGLES, PAIRS, FOURS = 0x0707070707070707, 0x003F003F003F003F, 0x00000FFF00000FFF

Words = NDArray[Any]
Bytes = NDArray[np.uint8]
Int64s = NDArray[np.int64]
compiled = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)


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


@compiled
def _code(exponent: Row, base: Row, top: int) -> tuple[Row, Row]:
    """Return magnitude and flag of a row's exponents against their bases, modulo `top`.

    gecko-bias is the same with the bias as everybody's base.
    """
    difference = exponent - base
    up = smaller(difference, difference + top)  # unsigned: the one that did not wrap
    number = splat(0) - unequal(exponent, 0)
    flag = below(splat(top >> 1), up) | equal(exponent, 0)
    return smaller(up, splat(top) - up) & number, flag


@compiled
def _base_of(exponent: Row, bias: int) -> Row:
    """Return the bases that a group's row 0 gives: its exponents, the bias where 0."""
    return exponent | ((splat(0) - equal(exponent, 0)) & bias)


@compiled
def _look(
    words: Words, row: int, lay: Layout, base: Row, seen: Row, ends: tuple[Row, Row]
) -> tuple[Row, Row, tuple[Row, Row]]:
    """Return a row's magnitudes; add its words to `seen` and its exponents to `ends`.

    `ends` is the largest exponent and the least that is not 0, less 1.
    """
    top = (1 << lay.exponent_bits) - 1
    prefetch(words, row * 8 + AHEAD)
    word = load(words, row * 8)
    exponent = (word >> lay.mantissa_bits) & top
    ends = larger(ends[0], exponent), smaller(ends[1], exponent - 1)
    magnitude, _ = _code(exponent, base, top)
    return magnitude, seen | word, ends


@compiled
def _scan_coded(words: Words, lay: Layout, widths: Bytes) -> tuple[int, Row, tuple[Row, Row]]:
    """Write the widths of whole rows, 0 in gecko-delta's row 0.

    Returns their sum, all bits and the ends of `_look`. Eight rows share a transposition,
    which is cheaper than one reduction a row.
    """
    top = (1 << lay.exponent_bits) - 1
    base, seen, total = splat(top >> 1), splat(0), splat(0)
    ends = splat(0), splat(0xFFFFFFFF)
    whole = widths.size // GROUP_ROWS * GROUP_ROWS
    for row in range(0, whole, GROUP_ROWS):
        if lay.code == DELTA:
            base = _base_of((load(words, row * 8) >> lay.mantissa_bits) & top, top >> 1)
        m0, seen, ends = _look(words, row, lay, base, seen, ends)
        m1, seen, ends = _look(words, row + 1, lay, base, seen, ends)
        m2, seen, ends = _look(words, row + 2, lay, base, seen, ends)
        m3, seen, ends = _look(words, row + 3, lay, base, seen, ends)
        m4, seen, ends = _look(words, row + 4, lay, base, seen, ends)
        m5, seen, ends = _look(words, row + 5, lay, base, seen, ends)
        m6, seen, ends = _look(words, row + 6, lay, base, seen, ends)
        m7, seen, ends = _look(words, row + 7, lay, base, seen, ends)
        m0 = m0 if lay.code == BIAS else splat(0)
        width = bit_lengths(any_bits_of_8(m0, m1, m2, m3, m4, m5, m6, m7))
        store(width, widths, row)
        total = total + width
    rest, seen, ends = _scan_rest(words, whole, lay, widths, seen, ends)
    return as_int(lane_sum(total)) + rest, seen, ends


@compiled
def _look_at_two(
    words: Words, row: int, lay: Layout, base: Row, seen: Row, ends: tuple[Row, Row]
) -> tuple[Row, Row, tuple[Row, Row]]:
    """As `_look`, for two rows of 16-bit words as halves; `base`, `ends` are of halves too."""
    top = splat(((1 << lay.exponent_bits) - 1) * 0x10001)
    word = load_halves(words, row * 8)
    exponent = (word >> lay.mantissa_bits) & top
    less = minus_halves(exponent, splat(0x10001))
    ends = larger_halves(ends[0], exponent), smaller_halves(ends[1], less)
    difference = minus_halves(exponent, base)
    up = smaller_halves(difference, plus_halves(difference, top))
    magnitude = smaller_halves(up, minus_halves(top, up))
    return magnitude & (zero_halves(exponent) ^ 0xFFFFFFFF), seen | word, ends


@compiled
def _scan_halves(words: Words, lay: Layout, widths: Bytes) -> tuple[int, Row, tuple[Row, Row]]:
    """As `_scan_coded`, for 16-bit words, two rows at once."""
    top = (1 << lay.exponent_bits) - 1
    base, seen, total = splat((top >> 1) * 0x10001), splat(0), splat(0)
    ends = splat(0), splat(0xFFFFFFFF)
    whole = widths.size // GROUP_ROWS * GROUP_ROWS
    for row in range(0, whole, GROUP_ROWS):
        prefetch(words, row * 8 + AHEAD)
        prefetch(words, row * 8 + 32 + AHEAD)
        if lay.code == DELTA:
            exponent = (load_halves(words, row * 8) >> lay.mantissa_bits) & (top * 0x10001)
            bases = exponent | (zero_halves(exponent) & ((top >> 1) * 0x10001))
            base = first_lanes(bases)
        m0, seen, ends = _look_at_two(words, row, lay, base, seen, ends)
        m1, seen, ends = _look_at_two(words, row + 2, lay, base, seen, ends)
        m2, seen, ends = _look_at_two(words, row + 4, lay, base, seen, ends)
        m3, seen, ends = _look_at_two(words, row + 6, lay, base, seen, ends)
        m0 = m0 if lay.code == BIAS else last_lanes(m0)
        width = bit_lengths(any_halves_of_4(m0, m1, m2, m3))
        store(width, widths, row)
        total = total + width
    seen = (seen | (seen >> 16)) & 0xFFFF
    ends = larger(ends[0] & 0xFFFF, ends[0] >> 16), smaller(ends[1] & 0xFFFF, ends[1] >> 16)
    rest, seen, ends = _scan_rest(words, whole, lay, widths, seen, ends)
    return as_int(lane_sum(total)) + rest, seen, ends


@compiled
def _scan_rest(
    words: Words, whole: int, lay: Layout, widths: Bytes, seen: Row, ends: tuple[Row, Row]
) -> tuple[int, Row, tuple[Row, Row]]:
    """As `_scan_coded`, row by row, for the rows behind the last whole group."""
    top = (1 << lay.exponent_bits) - 1
    base, total = splat(top >> 1), 0
    if lay.code == DELTA and whole < widths.size:
        base = _base_of((load(words, whole * 8) >> lay.mantissa_bits) & top, top >> 1)
    for row in range(whole, widths.size):
        magnitude, seen, ends = _look(words, row, lay, base, seen, ends)
        plain = lay.code == DELTA and row == whole
        width = 0 if plain else bit_length(any_bits(magnitude))
        widths[np.uint64(row)] = np.uint8(width)
        total += width
    return total, seen, ends


@compiled
def _scan_fixed(words: Words, lay: Layout, rows: int) -> tuple[int, Row, tuple[Row, Row]]:
    """As `_scan_coded`, for fixed fields, which have no widths."""
    shift, top = lay.mantissa_bits, (1 << lay.exponent_bits) - 1
    seen, most = splat(0), splat(0)
    for row in range(rows):
        prefetch(words, row * 8 + AHEAD)
        word = load(words, row * 8)
        seen, most = seen | word, larger(most, (word >> shift) & top)
    return 0, seen, (most, most)


@compiled
def cut(words: Words, lay: Layout, out: Words) -> int:
    """Keep the top mantissa bits; NaN stays NaN where a bit is left; return NaNs lost."""
    gone = np.uint32(lay.mantissa_bits - lay.kept)
    keep = np.uint32(0xFFFFFFFF) << gone
    fraction = np.uint32((1 << lay.mantissa_bits) - 1)
    infinite = np.uint32(((1 << lay.exponent_bits) - 1) << lay.mantissa_bits)
    magnitude_bits = infinite | fraction
    lowest = np.uint32(1 << gone) if lay.kept > 0 else np.uint32(0)
    lost = 0
    for i in range(words.size):
        word = np.uint32(words[i])
        kept = np.uint32(word & keep)
        broken = ((word & magnitude_bits) > infinite) & ((kept & magnitude_bits) == infinite)
        out[i] = kept | (lowest if broken else np.uint32(0))
        lost += int(broken)
    return lost if lay.kept == 0 else 0


@compiled
def limit(words: Words, lay: Layout, limits: Limits, out: Words) -> int:
    """Bring magnitudes into the limits, then cut; return NaNs lost."""
    keep = 0xFFFFFFFF ^ ((1 << (lay.mantissa_bits - lay.kept)) - 1)
    sign = 1 << (lay.exponent_bits + lay.mantissa_bits)
    infinite = ((1 << lay.exponent_bits) - 1) << lay.mantissa_bits
    lost, whole = splat(0), words.size // 8 * 8
    for at in range(0, whole, 8):
        prefetch(words, at + AHEAD)
        word = load(words, at)
        magnitude = word & (sign - 1)
        lost = lost + below(splat(infinite), magnitude)
        inside = larger(smaller(magnitude, limits.vmax), limits.vmin) & keep
        inside = inside & (below(magnitude, limits.half) - 1)
        store((word & sign) | inside, out, at)
    return as_int(lane_sum(lost)) + _limit_rest(words, whole, limits, keep, infinite, out)


@compiled
def _limit_rest(
    words: Words, first: int, limits: Limits, keep: int, infinite: int, out: Words
) -> int:
    """As `limit`, for the values behind the last whole row."""
    lost = 0
    for i in range(first, words.size):
        word = as_int(words[i])
        magnitude = word & (infinite | ((infinite & -infinite) - 1))
        inside = max(min(magnitude, limits.vmax), limits.vmin) & keep
        out[i] = (word - magnitude) | (inside if magnitude >= limits.half else 0)
        lost += int(magnitude > infinite)
    return lost


@compiled
def _quantized(words: Words, lay: Layout, limits: Limits, out: Words) -> int:
    """Quantize into `out`; limits whose vmax is 0 are none. Return NaNs lost."""
    if limits.vmax:
        return limit(words, lay, limits, out)
    return cut(words, lay, out)


@compiled
def _fill_row(words: Words, count: int, lay: Layout) -> None:
    """Fill the last row behind `count` values: exponent B, or the lane's base in delta."""
    bias, top = (1 << (lay.exponent_bits - 1)) - 1, (1 << lay.exponent_bits) - 1
    row = count // 8
    first = row - row % GROUP_ROWS
    for i in range(count, (count + 7) // 8 * 8):
        exponent = bias
        if lay.code == DELTA and row != first:
            exponent = (as_int(words[first * 8 + i % 8]) >> lay.mantissa_bits) & top
            exponent = exponent if exponent else bias
        words[i] = exponent << lay.mantissa_bits


@compiled
def _copy(source: Words, target: Words) -> None:
    """Copy `source` to the beginning of `target`; slices would take a detour by the heap."""
    for i in range(source.size):
        target[i] = source[i]


@compiled
def _copy_whole(words: Words, lay: Layout, scratch: Words) -> None:
    """Copy a part to `scratch`, where it may lie already, and fill its last row."""
    _copy(words, scratch)
    _fill_row(scratch, words.size, lay)


@compiled
def _scan_part(words: Words, lay: Layout, widths: Bytes) -> tuple[int, Row, tuple[Row, Row]]:
    """Scan whole rows with the loop of their code."""
    if lay.code == FIXED:
        return _scan_fixed(words, lay, words.size // 8)
    if lay.exponent_bits + lay.mantissa_bits == 15:
        return _scan_halves(words, lay, widths)
    return _scan_coded(words, lay, widths)


@compiled
def _is_near(lay: Layout, most: int, least: int) -> bool:
    """Whether no distance of exponents within `least` (not 0) to `most` wraps."""
    top = (1 << lay.exponent_bits) - 1
    bias = top >> 1
    if lay.code == BIAS:
        return most < top
    return max(most, bias) - min(least, bias) <= bias


@compiled
def scan(
    words: Words,
    lay: Layout,
    limits: Limits,
    widths: Bytes,
    sums: Int64s,
    tops: Int64s,
    near: NDArray[np.bool_],
    scratch: Words,
    first: int,
    last: int,
) -> tuple[int, int]:
    """Find the row widths of blocks `first` to `last` (excluded) without packing them.

    Writes `widths` (0 in gecko-delta's row 0; not touched for fixed fields), their `sums`
    and the largest exponent field, after limiting, of each block in `tops`; `near` says
    where no distance of a block wraps. `scratch` has the length of a block. Returns the OR of
    all words, whose top bit says whether any sign bit is set, and the NaNs that limiting loses.
    """
    size, seen, lost = scratch.size, splat(0), 0
    top = (1 << lay.exponent_bits) - 1
    for block in range(first, last):
        part = words[block * size : min((block + 1) * size, words.size)]
        rows = (part.size + 7) >> 3
        mine = widths[block * (size // 8) : block * (size // 8) + rows]
        if limits.vmax:
            lost += limit(part, lay, limits, scratch[: part.size])
            part = scratch[: part.size]
        if part.size & 7:
            _copy_whole(part, lay, scratch)
            part = scratch[: rows * 8]
        sums[block], some, ends = _scan_part(part, lay, mine)
        seen, tops[block] = seen | some, largest(ends[0])
        near[block] = _is_near(lay, tops[block], as_int(smallest(ends[1])) + 1)
        if not limits.vmax and not lay.kept and tops[block] == top:
            lost += cut(part, lay, scratch[: part.size])
    return any_bits(seen), lost


@compiled
def _append(
    symbol: Row, bits: int, lanes: Row, position: int, out: NDArray[np.uint32]
) -> tuple[Row, int]:
    """Add a row of symbols of `bits` bits to the lanes; store the beat that they are in.

    Returns what the lanes hold of their next word, and the next position.
    """
    shift = position & 31
    here = lanes | (symbol << shift)
    store(here, out, (position >> 5) * 8)
    over = funnel(splat(0), symbol, 31 - shift) >> 1
    return (over if shift + bits >= 32 else here), position + bits


@compiled
def _tail(word: Row, lay: Layout, signed: int) -> Row:
    """Return mantissa and sign as they follow the exponent symbol."""
    gone = lay.mantissa_bits - lay.kept
    fraction = (word >> gone) & ((1 << lay.kept) - 1)
    return fraction | ((word >> (gone + lay.exponent_bits)) & (signed << lay.kept))


@compiled
def _pack_bias(
    words: Words, lay: Layout, signed: int, widths: Bytes, out: NDArray[np.uint32]
) -> int:
    """Pack whole rows in gecko-bias; return the bits used of each lane."""
    top = (1 << lay.exponent_bits) - 1
    base, rest = splat(top >> 1), lay.kept + signed
    lanes, position = splat(0), 0
    for row in range(widths.size):
        prefetch(words, row * 8 + AHEAD)
        word, width = load(words, row * 8), as_int(widths[np.uint64(row)])
        magnitude, flag = _code((word >> lay.mantissa_bits) & top, base, top)
        symbol = magnitude | ((flag | (_tail(word, lay, signed) << 1)) << width)
        lanes, position = _append(symbol, width + 1 + rest, lanes, position, out)
    if position & 31:
        store(lanes, out, (position >> 5) * 8)
    return position


@compiled
def _pack_delta(
    words: Words, lay: Layout, signed: int, widths: Bytes, out: NDArray[np.uint32]
) -> int:
    """Pack whole rows in gecko-delta; return the bits used of each lane."""
    top = (1 << lay.exponent_bits) - 1
    rest = lay.kept + signed
    lanes, position = splat(0), 0
    for first in range(0, widths.size, GROUP_ROWS):
        word = load(words, first * 8)
        exponent = (word >> lay.mantissa_bits) & top
        base = _base_of(exponent, top >> 1)
        symbol = exponent | (_tail(word, lay, signed) << lay.exponent_bits)
        lanes, position = _append(symbol, lay.exponent_bits + rest, lanes, position, out)
        for row in range(first + 1, min(first + GROUP_ROWS, widths.size)):
            prefetch(words, row * 8 + AHEAD)
            word, width = load(words, row * 8), as_int(widths[np.uint64(row)])
            magnitude, flag = _code((word >> lay.mantissa_bits) & top, base, top)
            symbol = magnitude | ((flag | (_tail(word, lay, signed) << 1)) << width)
            lanes, position = _append(symbol, width + 1 + rest, lanes, position, out)
    if position & 31:
        store(lanes, out, (position >> 5) * 8)
    return position


@compiled
def _near_symbol(word: Row, width: int, base: Row, lay: Layout, signed: int) -> Row:
    """Return all bits of a row's values, no distance of which wraps, exponent first."""
    exponent = (word >> lay.mantissa_bits) & ((1 << lay.exponent_bits) - 1)
    difference = exponent - base
    magnitude = smaller(difference, splat(0) - difference)
    magnitude = magnitude & (splat(0) - unequal(exponent, 0))
    # The flag is the difference's sign; bases are above 0, so a zero exponent has it too.
    return magnitude | (funnel(_tail(word, lay, signed), difference, 31) << width)


@compiled
def _pack_near(
    words: Words, lay: Layout, signed: int, widths: Bytes, out: NDArray[np.uint32]
) -> int:
    """Pack whole groups no distance of which wraps; return the bits used of each lane.

    Two rows that fit into 32 bits a lane together are appended as one.
    """
    rest, delta = lay.kept + signed, lay.code == DELTA
    together = 2 * (lay.exponent_bits + rest) <= 32
    top = (1 << lay.exponent_bits) - 1
    base, lanes, position = splat(top >> 1), splat(0), 0
    for first in range(0, widths.size, GROUP_ROWS):
        for row in range(first, first + GROUP_ROWS, 2):
            prefetch(words, row * 8 + AHEAD)
            prefetch(words, row * 8 + 8 + AHEAD)
            word, width = load(words, row * 8), as_int(widths[np.uint64(row)])
            bits = width + 1 + rest
            if delta and row == first:
                exponent = (word >> lay.mantissa_bits) & top
                base, bits = _base_of(exponent, top >> 1), lay.exponent_bits + rest
                symbol = exponent | (_tail(word, lay, signed) << lay.exponent_bits)
            else:
                symbol = _near_symbol(word, width, base, lay, signed)
            word, width = load(words, row * 8 + 8), as_int(widths[np.uint64(row + 1)])
            second = _near_symbol(word, width, base, lay, signed)
            if together:
                symbol = symbol | (second << bits)
                lanes, position = _append(symbol, bits + width + 1 + rest, lanes, position, out)
            else:
                lanes, position = _append(symbol, bits, lanes, position, out)
                lanes, position = _append(second, width + 1 + rest, lanes, position, out)
    if position & 31:
        store(lanes, out, (position >> 5) * 8)
    return position


@compiled
def _pack_fixed(words: Words, lay: Layout, signed: int, rows: int, out: NDArray[np.uint32]) -> int:
    """Pack whole rows with fixed exponent fields; a limited 0 has the code 0."""
    top, bits = (1 << lay.exponent_bits) - 1, lay.field_bits + lay.kept + signed
    offset = _fixed_offset(lay)
    lanes, position = splat(0), 0
    for row in range(rows):
        prefetch(words, row * 8 + AHEAD)
        word = load(words, row * 8)
        exponent = (word >> lay.mantissa_bits) & top
        code = (exponent - offset) & (splat(0) - unequal(exponent, 0))
        symbol = code | (_tail(word, lay, signed) << lay.field_bits)
        lanes, position = _append(symbol, bits, lanes, position, out)
    if position & 31:
        store(lanes, out, (position >> 5) * 8)
    return position


@compiled
def _fixed_offset(lay: Layout) -> int:
    """Return what is taken from an exponent field to get its limited code."""
    if lay.field_bits == lay.exponent_bits:
        return 0
    return (1 << (lay.exponent_bits - 1)) - 1 - (1 << (lay.field_bits - 1))


@compiled
def pack_block(
    words: Words, lay: Layout, signed: int, widths: Bytes, near: bool, out: NDArray[np.uint32]
) -> int:
    """Pack one block of whole rows into `out`; return the bits used of each lane."""
    if lay.code != FIXED and near and widths.size % GROUP_ROWS == 0:
        return _pack_near(words, lay, signed, widths, out)
    if lay.code == BIAS:
        return _pack_bias(words, lay, signed, widths, out)
    if lay.code == DELTA:
        return _pack_delta(words, lay, signed, widths, out)
    return _pack_fixed(words, lay, signed, words.size // 8, out)


@compiled
def pack_widths(widths: Bytes, delta: bool, out: Bytes) -> None:
    """Write the rows' 3-bit widths, without row 0 of delta's groups, zeros behind them.

    `out` has a multiple of 4 bytes. The bytes of a group's widths are brought together two
    and two, four and four.
    """
    begin = 1 if delta else 0
    size, whole = 3 * (GROUP_ROWS - begin), widths.size // GROUP_ROWS
    groups, words = widths[: whole * GROUP_ROWS].view(np.uint64), out.view(np.uint32)
    waiting, held, at = 0, 0, 0
    for group in range(whole):
        wide = as_int(groups[np.uint64(group)])
        wide = (wide | wide >> 5) & PAIRS
        wide = (wide | wide >> 10) & FOURS
        wide = ((wide | wide >> 20) & 0xFFFFFF) >> (3 * begin)
        waiting |= wide << held
        held += size
        if held >= 32:
            words[np.uint64(at)] = waiting & 0xFFFFFFFF
            waiting, held, at = waiting >> 32, held - 32, at + 1
    for row in range(whole * GROUP_ROWS + begin, widths.size):
        waiting |= as_int(widths[np.uint64(row)]) << held
        held += 3
    while at < words.size:
        words[np.uint64(at)] = waiting & 0xFFFFFFFF
        waiting, at = waiting >> 32, at + 1


@compiled
def _unpack_widths(stream: Bytes, begin: int, limit: int, widths: Bytes) -> tuple[int, int]:
    """Read what `pack_widths` wrote; return the sum and, not 0, whether any reaches `limit`."""
    size, whole = 3 * (GROUP_ROWS - begin), widths.size // GROUP_ROWS
    groups, words = widths[: whole * GROUP_ROWS].view(np.uint64), stream.view(np.uint32)
    waiting, held, at, total, reached = 0, 0, 0, 0, 0
    for group in range(whole):
        if held < size:
            waiting |= as_int(words[np.uint64(at)]) << held
            held, at = held + 32, at + 1
        wide = (waiting & ((1 << size) - 1)) << (3 * begin)
        waiting, held = waiting >> size, held - size
        wide = (wide | wide << 20) & FOURS
        wide = (wide | wide << 10) & PAIRS
        wide = (wide | wide << 5) & SINGLES
        groups[np.uint64(group)] = wide
        total += (wide * ONES >> 56) & 0xFF
        reached |= (wide + (8 - limit) * ONES) & EIGHTS
    for row in range(whole * GROUP_ROWS + begin, widths.size):
        if held < 3:
            waiting |= as_int(words[np.uint64(at)]) << held
            held, at = held + 32, at + 1
        width = waiting & 7
        waiting, held = waiting >> 3, held - 3
        widths[np.uint64(row)] = np.uint8(width)
        total, reached = total + width, reached | int(width >= limit)
    return total, reached


@compiled
def unpack_widths(
    stream: Bytes,
    lay: Layout,
    values: Int64s,
    block_rows: int,
    starts: Int64s,
    lengths: Int64s,
    widths: Bytes,
    sums: Int64s,
    reached: Int64s,
    first: int,
    last: int,
) -> None:
    """Read the widths of blocks `first` to `last` (excluded) that have metadata.

    `starts` and `lengths` are bytes, multiples of 4; `reached` is not 0 where a width is too
    large for the exponents.
    """
    delta = int(lay.code == DELTA)
    for block in range(first, last):
        rows = (values[block] + 7) // 8
        if not lengths[block] or lengths[block] * 8 < 3 * (rows - (rows + 7) // 8 * delta):
            continue
        mine = widths[block * block_rows : block * block_rows + rows]
        part = stream[starts[block] : starts[block] + lengths[block]]
        sums[block], reached[block] = _unpack_widths(part, delta, lay.exponent_bits, mine)


@compiled
def pack(
    words: Words,
    lay: Layout,
    limits: Limits,
    signed: int,
    widths: Bytes,
    tops: Int64s,
    near: NDArray[np.bool_],
    raw: NDArray[np.bool_],
    extents: Int64s,
    payload: Bytes,
    metadata: Bytes,
    scratch: Words,
    first: int,
    last: int,
) -> None:
    """Write blocks `first` to `last` (excluded) into their places of the streams.

    `widths`, `tops` and `near` are those of `scan`; `extents`, (4, blocks): payload start and
    length, metadata start and length, in bytes. `scratch` has the length of a block.
    """
    size, top = scratch.size, (1 << lay.exponent_bits) - 1
    lossy = lay.kept < lay.mantissa_bits
    for block in range(first, last):
        part = words[block * size : min((block + 1) * size, words.size)]
        start, meta = extents[0, block], extents[2, block]
        mine = payload[start : start + extents[1, block]]
        if limits.vmax or (lossy and (raw[block] or tops[block] == top)):
            _quantized(part, lay, limits, scratch[: part.size])
            part = scratch[: part.size]
        if raw[block]:
            _copy(part.view(np.uint8), mine)
            mine[part.size * part.itemsize :] = 0
            continue
        if part.size & 7:
            _copy_whole(part, lay, scratch)
            part = scratch[: (part.size + 7) // 8 * 8]
        own = widths[block * (size // 8) : block * (size // 8) + part.size // 8]
        bits = pack_block(part, lay, signed, own, near[block], mine.view(np.uint32))
        mine[(bits + 31) // 32 * 32 :] = 0
        if lay.code != FIXED:
            pack_widths(own, lay.code == DELTA, metadata[meta : meta + extents[3, block]])


@compiled
def _value(lanes: NDArray[np.uint32], position: int, ends: int) -> Row:
    """Return the 32 bits of every lane from `position` on; beats end at word `ends`."""
    at = (position >> 5) * 8
    after = load(lanes, min(at + 8, ends - 8))
    return funnel(after, load(lanes, at), position & 31)


@compiled
def _open_tail(rest: Row, lay: Layout, signed: int) -> Row:
    """Return sign and mantissa of words from what follows the exponent symbol."""
    gone = lay.mantissa_bits - lay.kept
    fraction = (rest & ((1 << lay.kept) - 1)) << gone
    sign = signed << (lay.exponent_bits + lay.mantissa_bits)
    return fraction | ((rest << (gone + lay.exponent_bits)) & sign)


@compiled
def _open_code(value: Row, width: int, base: Row, top: int) -> Row:
    """Return the exponent fields of Gecko codes against their bases."""
    code = value & ((2 << width) - 1)
    negative = splat(0) - (code >> width)
    distance = ((code & ((1 << width) - 1)) ^ negative) - negative
    less = base - 1 + distance  # one less than the exponent, so that 0 to top - 1 are right
    less = smaller(less, less + top)  # unsigned: below 0 is large
    less = smaller(less, less - top)
    return (less + 1) & (splat(0) - unequal(code, 1 << width))


@compiled
def _unpack_bias(
    lanes: NDArray[np.uint32], lay: Layout, signed: int, widths: Bytes, out: Words
) -> None:
    """Read whole rows of gecko-bias."""
    top, rest = (1 << lay.exponent_bits) - 1, lay.kept + signed + 1
    base, position = splat(top >> 1), 0
    for row in range(widths.size):
        prefetch(lanes, (position >> 5) * 8 + AHEAD)
        width = as_int(widths[np.uint64(row)])
        value = _value(lanes, position, lanes.size)
        exponent = _open_code(value, width, base, top)
        tail = _open_tail(value >> (width + 1), lay, signed)
        store(tail | (exponent << lay.mantissa_bits), out, row * 8)
        position += width + rest


@compiled
def _unpack_delta(
    lanes: NDArray[np.uint32], lay: Layout, signed: int, widths: Bytes, out: Words
) -> None:
    """Read whole rows of gecko-delta."""
    top, rest = (1 << lay.exponent_bits) - 1, lay.kept + signed + 1
    position = 0
    for first in range(0, widths.size, GROUP_ROWS):
        value = _value(lanes, position, lanes.size)
        exponent = value & top
        tail = _open_tail(value >> lay.exponent_bits, lay, signed)
        store(tail | (exponent << lay.mantissa_bits), out, first * 8)
        position += lay.exponent_bits + rest - 1
        base = _base_of(exponent, top >> 1)
        for row in range(first + 1, min(first + GROUP_ROWS, widths.size)):
            prefetch(lanes, (position >> 5) * 8 + AHEAD)
            width = as_int(widths[np.uint64(row)])
            value = _value(lanes, position, lanes.size)
            exponent = _open_code(value, width, base, top)
            tail = _open_tail(value >> (width + 1), lay, signed)
            store(tail | (exponent << lay.mantissa_bits), out, row * 8)
            position += width + rest


@compiled
def _unpack_pairs(
    lanes: NDArray[np.uint32], lay: Layout, signed: int, widths: Bytes, out: Words
) -> None:
    """Read whole groups of Gecko, two rows of which lie in 32 bits a lane."""
    top, rest, delta = (1 << lay.exponent_bits) - 1, lay.kept + signed + 1, lay.code == DELTA
    base, position = splat(top >> 1), 0
    for first in range(0, widths.size, GROUP_ROWS):
        for row in range(first, first + GROUP_ROWS, 2):
            prefetch(lanes, (position >> 5) * 8 + AHEAD)
            value, bits = _value(lanes, position, lanes.size), as_int(widths[np.uint64(row)]) + 1
            if delta and row == first:
                exponent, bits = value & top, lay.exponent_bits
                base = _base_of(exponent, top >> 1)
            else:
                exponent = _open_code(value, bits - 1, base, top)
            tail = _open_tail(value >> bits, lay, signed)
            store(tail | (exponent << lay.mantissa_bits), out, row * 8)
            value, width = value >> (bits + rest - 1), as_int(widths[np.uint64(row + 1)])
            exponent = _open_code(value, width, base, top)
            tail = _open_tail(value >> (width + 1), lay, signed)
            store(tail | (exponent << lay.mantissa_bits), out, row * 8 + 8)
            position += bits - 1 + rest + width + rest


@compiled
def _unpack_fixed(
    lanes: NDArray[np.uint32], lay: Layout, signed: int, rows: int, out: Words
) -> None:
    """Read whole rows with fixed fields; a limited code 0 with mantissa 0 is zero."""
    bits, position = lay.field_bits + lay.kept + signed, 0
    offset, fraction = _fixed_offset(lay), (1 << lay.mantissa_bits) - 1
    for row in range(rows):
        prefetch(lanes, (position >> 5) * 8 + AHEAD)
        value = _value(lanes, position, lanes.size)
        code = value & ((1 << lay.field_bits) - 1)
        tail = _open_tail(value >> lay.field_bits, lay, signed)
        number = splat(0) - unequal(code | (tail & fraction), 0)
        exponent = code + (number & offset)
        store(tail | (exponent << lay.mantissa_bits), out, row * 8)
        position += bits


@compiled
def unpack_block(
    lanes: NDArray[np.uint32], lay: Layout, signed: int, widths: Bytes, out: Words
) -> None:
    """Read the whole rows that `pack_block` wrote from `lanes` into `out`."""
    paired = widths.size % GROUP_ROWS == 0 and lay.exponent_bits + lay.kept + signed <= 16
    if lay.code != FIXED and paired:
        return _unpack_pairs(lanes, lay, signed, widths, out)
    if lay.code == BIAS:
        _unpack_bias(lanes, lay, signed, widths, out)
    elif lay.code == DELTA:
        _unpack_delta(lanes, lay, signed, widths, out)
    else:
        _unpack_fixed(lanes, lay, signed, out.size // 8, out)


@compiled
def unpack(
    payload: Bytes,
    lay: Layout,
    signed: int,
    widths: Bytes,
    raw: NDArray[np.bool_],
    extents: Int64s,
    out: Words,
    scratch: Words,
    first: int,
    last: int,
) -> None:
    """Read blocks `first` to `last` (excluded); the arguments are those of `pack`."""
    size = scratch.size
    for block in range(first, last):
        part = out[block * size : min((block + 1) * size, out.size)]
        mine = payload[extents[0, block] : extents[0, block] + extents[1, block]]
        if raw[block]:
            plain = part.view(np.uint8)
            _copy(mine[: plain.size], plain)
            continue
        rows = (part.size + 7) >> 3
        own = widths[block * (size // 8) : block * (size // 8) + rows]
        whole = part if part.size == rows * 8 else scratch[: rows * 8]
        unpack_block(mine.view(np.uint32), lay, signed, own, whole)
        if part.size != rows * 8:
            _copy(whole[: part.size], part)
