"""The kernels of the row containers: codes, row widths, packing into lanes and back.

They see flat arrays of bit patterns (uint16 or uint32) and a `Layout`; everything is
checked before they are called. A row is 8 values, a group 8 rows, a block 16,384 values.
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
    as_int,
    below,
    bit_length,
    bit_lengths,
    equal,
    funnel,
    lane_sum,
    larger,
    largest,
    load,
    prefetch,
    smaller,
    splat,
    store,
    unequal,
)

FIXED, BIAS, DELTA = 0, 1, 2
BLOCK_VALUES = 16_384
BLOCK_ROWS = 2_048
GROUP_ROWS = 8
AHEAD = 4_096
"""Values between what is prefetched and what is worked on."""

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
    words: Words, row: int, lay: Layout, base: Row, seen: Row, most: Row
) -> tuple[Row, Row, Row]:
    """Return a row's magnitudes; add its words to `seen` and its exponents to `most`."""
    top = (1 << lay.exponent_bits) - 1
    prefetch(words, row * 8 + AHEAD)
    word = load(words, row * 8)
    exponent = (word >> lay.mantissa_bits) & top
    seen, most = seen | word, larger(most, exponent)
    magnitude, _ = _code(exponent, base, top)
    return magnitude, seen, most


@compiled
def _scan_coded(words: Words, lay: Layout, widths: Bytes) -> tuple[int, Row, Row]:
    """Write the widths of whole rows, 0 in gecko-delta's row 0.

    Returns their sum, all bits and the largest exponents. Eight rows share a transposition,
    which is cheaper than one reduction a row.
    """
    top = (1 << lay.exponent_bits) - 1
    base, seen, most, total = splat(top >> 1), splat(0), splat(0), splat(0)
    whole = widths.size // GROUP_ROWS * GROUP_ROWS
    for row in range(0, whole, GROUP_ROWS):
        if lay.code == DELTA:
            base = _base_of((load(words, row * 8) >> lay.mantissa_bits) & top, top >> 1)
        m0, seen, most = _look(words, row, lay, base, seen, most)
        m1, seen, most = _look(words, row + 1, lay, base, seen, most)
        m2, seen, most = _look(words, row + 2, lay, base, seen, most)
        m3, seen, most = _look(words, row + 3, lay, base, seen, most)
        m4, seen, most = _look(words, row + 4, lay, base, seen, most)
        m5, seen, most = _look(words, row + 5, lay, base, seen, most)
        m6, seen, most = _look(words, row + 6, lay, base, seen, most)
        m7, seen, most = _look(words, row + 7, lay, base, seen, most)
        m0 = m0 if lay.code == BIAS else splat(0)
        width = bit_lengths(any_bits_of_8(m0, m1, m2, m3, m4, m5, m6, m7))
        store(width, widths, row)
        total = total + width
    rest, seen, most = _scan_rest(words, whole, lay, widths, seen, most)
    return as_int(lane_sum(total)) + rest, seen, most


@compiled
def _scan_rest(
    words: Words, whole: int, lay: Layout, widths: Bytes, seen: Row, most: Row
) -> tuple[int, Row, Row]:
    """As `_scan_coded`, row by row, for the rows behind the last whole group."""
    top = (1 << lay.exponent_bits) - 1
    base, total = splat(top >> 1), 0
    if lay.code == DELTA and whole < widths.size:
        base = _base_of((load(words, whole * 8) >> lay.mantissa_bits) & top, top >> 1)
    for row in range(whole, widths.size):
        magnitude, seen, most = _look(words, row, lay, base, seen, most)
        plain = lay.code == DELTA and row == whole
        width = 0 if plain else bit_length(any_bits(magnitude))
        widths[np.uint64(row)] = np.uint8(width)
        total += width
    return total, seen, most


@compiled
def _scan_fixed(words: Words, lay: Layout, rows: int) -> tuple[int, Row, Row]:
    """As `_scan_coded`, for fixed fields, which have no widths."""
    shift, top = lay.mantissa_bits, (1 << lay.exponent_bits) - 1
    seen, most = splat(0), splat(0)
    for row in range(rows):
        prefetch(words, row * 8 + AHEAD)
        word = load(words, row * 8)
        seen, most = seen | word, larger(most, (word >> shift) & top)
    return 0, seen, most


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
def _scan_part(words: Words, lay: Layout, widths: Bytes) -> tuple[int, Row, Row]:
    """Scan whole rows with the loop of their code."""
    if lay.code == FIXED:
        return _scan_fixed(words, lay, words.size // 8)
    return _scan_coded(words, lay, widths)


@compiled
def scan(
    words: Words,
    lay: Layout,
    limits: Limits,
    widths: Bytes,
    sums: Int64s,
    tops: Int64s,
    scratch: Words,
    first: int,
    last: int,
) -> tuple[int, int]:
    """Find the row widths of blocks `first` to `last` (excluded) without packing them.

    Writes `widths` (0 in gecko-delta's row 0; not touched for fixed fields), their `sums`
    and the largest exponent field, after limiting, of each block in `tops`. `scratch`
    is a block of words. Returns the OR of all words, whose top bit says whether any sign
    bit is set, and the NaNs that limiting loses.
    """
    seen, lost = splat(0), 0
    top = (1 << lay.exponent_bits) - 1
    for block in range(first, last):
        part = words[block * BLOCK_VALUES : min((block + 1) * BLOCK_VALUES, words.size)]
        rows = (part.size + 7) >> 3
        mine = widths[block * BLOCK_ROWS : block * BLOCK_ROWS + rows]
        if limits.vmax:
            lost += limit(part, lay, limits, scratch[: part.size])
            part = scratch[: part.size]
        if part.size & 7:
            _copy_whole(part, lay, scratch)
            part = scratch[: rows * 8]
        sums[block], some, most = _scan_part(part, lay, mine)
        seen, tops[block] = seen | some, largest(most)
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
    words: Words, lay: Layout, signed: int, widths: Bytes, out: NDArray[np.uint32]
) -> int:
    """Pack one block of whole rows into `out`; return the bits used of each lane."""
    if lay.code == BIAS:
        return _pack_bias(words, lay, signed, widths, out)
    if lay.code == DELTA:
        return _pack_delta(words, lay, signed, widths, out)
    return _pack_fixed(words, lay, signed, words.size // 8, out)


@compiled
def pack_widths(widths: Bytes, delta: bool, out: Bytes) -> None:
    """Write the rows' 3-bit widths into zeroed `out`, without row 0 of delta's groups.

    `out` has room for whole groups: 3 bytes a group of 8 rows and one more.
    """
    begin = 1 if delta else 0
    position = 0
    for first in range(0, widths.size, GROUP_ROWS):
        wide = np.int64(0)
        for row in range(begin, min(GROUP_ROWS, widths.size - first)):
            wide |= np.int64(widths[np.uint64(first + row)]) << (3 * (row - begin))
        at = np.uint64(position >> 3)
        wide <<= position & 7
        out[at] |= np.uint8(wide & 0xFF)
        for byte in range(1, 4):
            if wide >> (8 * byte):
                out[at + np.uint64(byte)] |= np.uint8((wide >> (8 * byte)) & 0xFF)
        position += 3 * (GROUP_ROWS - begin)


@compiled
def _unpack_widths(stream: Bytes, begin: int, widths: Bytes) -> tuple[int, int]:
    """Read what `pack_widths` wrote; return the sum and the largest of the widths."""
    total, most, position = 0, 0, 0
    for first in range(0, widths.size, GROUP_ROWS):
        at, wide = position >> 3, 0
        for byte in range(min(4, stream.size - at)):
            wide |= as_int(stream[np.uint64(at + byte)]) << (8 * byte)
        wide = (wide >> (position & 7)) << (3 * begin)
        for row in range(min(GROUP_ROWS, widths.size - first)):
            width = (wide >> (3 * row)) & 7 if row >= begin else 0
            widths[np.uint64(first + row)] = np.uint8(width)
            total, most = total + width, max(most, width)
        position += 3 * (GROUP_ROWS - begin)
    return total, most


@compiled
def unpack_widths(
    stream: Bytes,
    delta: bool,
    values: Int64s,
    starts: Int64s,
    lengths: Int64s,
    widths: Bytes,
    sums: Int64s,
    largest_width: Int64s,
) -> None:
    """Read the widths of all blocks that have metadata; `starts`, `lengths` in bytes."""
    for block in range(values.size):
        rows = (values[block] + 7) // 8
        if not lengths[block] or lengths[block] * 8 < 3 * (rows - (rows + 7) // 8 * int(delta)):
            continue
        mine = widths[block * BLOCK_ROWS : block * BLOCK_ROWS + rows]
        part = stream[starts[block] : starts[block] + lengths[block]]
        sums[block], largest_width[block] = _unpack_widths(part, int(delta), mine)


@compiled
def pack(
    words: Words,
    lay: Layout,
    limits: Limits,
    signed: int,
    widths: Bytes,
    tops: Int64s,
    raw: NDArray[np.bool_],
    extents: Int64s,
    payload: Bytes,
    metadata: Bytes,
    scratch: Words,
    first: int,
    last: int,
) -> None:
    """Write blocks `first` to `last` (excluded) into their places of the streams.

    `widths` and `tops` are those of `scan`; `extents`, (4, blocks): payload start and
    length, metadata start and length, in bytes. `scratch` is a block of words.
    """
    top = (1 << lay.exponent_bits) - 1
    lossy = lay.kept < lay.mantissa_bits
    for block in range(first, last):
        part = words[block * BLOCK_VALUES : min((block + 1) * BLOCK_VALUES, words.size)]
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
        own = widths[block * BLOCK_ROWS : block * BLOCK_ROWS + part.size // 8]
        bits = pack_block(part, lay, signed, own, mine.view(np.uint32))
        mine[(bits + 31) // 32 * 32 :] = 0
        if lay.code != FIXED:
            stream = metadata[meta : meta + extents[3, block]]
            stream[:] = 0
            pack_widths(own, lay.code == DELTA, stream)


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
    magnitude, flag = value & ((1 << width) - 1), (value >> width) & 1
    up, down = base + magnitude, base - magnitude
    up = up - ((splat(0) - below(splat(top), up)) & top)
    down = down + ((splat(0) - (below(splat(top), down) | equal(down, 0))) & top)
    negative = splat(0) - flag
    exponent = (up & (negative ^ 0xFFFFFFFF)) | (down & negative)
    return exponent & (splat(0) - (unequal(magnitude, 0) | (flag ^ 1)))


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
    for block in range(first, last):
        part = out[block * BLOCK_VALUES : min((block + 1) * BLOCK_VALUES, out.size)]
        mine = payload[extents[0, block] : extents[0, block] + extents[1, block]]
        if raw[block]:
            plain = part.view(np.uint8)
            _copy(mine[: plain.size], plain)
            continue
        rows = (part.size + 7) >> 3
        own = widths[block * BLOCK_ROWS : block * BLOCK_ROWS + rows]
        whole = part if part.size == rows * 8 else scratch[: rows * 8]
        unpack_block(mine.view(np.uint32), lay, signed, own, whole)
        if part.size != rows * 8:
            _copy(whole[: part.size], part)
