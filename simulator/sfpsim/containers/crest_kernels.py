"""The kernels of crest: best modes, unary codes, lanes; docs/container-crest.md has the bits.

They see one block of whole rows of quantized words. A group is 4 rows; its mode is the
number of low bits k of a distance that stand in the lanes, or PLAIN. Helpers of the lanes
(`kernels._append`, `kernels._value`) are repeated calls, not copies: clear numba's cache
after a change there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.kernels import (
    Bytes,
    Layout,
    Words,
    _append,
    _open_tail,
    _tail,
    _value,
    compiled,
)
from sfpsim.containers.vector import as_int, load, splat, store, unequal

GROUP_ROWS, GROUP_VALUES = 4, 32
PLAIN = 7
MODE_BITS = 3
MOST_QUOTIENT = 7


@compiled
def _exponent(words: Words, i: int, lay: Layout) -> int:
    return (as_int(words[np.uint64(i)]) >> lay.mantissa_bits) & ((1 << lay.exponent_bits) - 1)


@compiled
def _costs(
    words: Words, first: int, count: int, lay: Layout, sums: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Sum the quotients of every mode; return crest, number of zeros, largest distance."""
    crest = 0
    for i in range(first, first + count):
        crest = max(crest, _exponent(words, i, lay))
    sums[:] = 0
    zeros, far = 0, 0
    for i in range(first, first + count):
        exponent = _exponent(words, i, lay)
        if exponent == 0:
            zeros += 1
            continue
        distance = crest - exponent
        far = max(far, distance)
        for k in range(PLAIN):
            sums[k] += distance >> k
    return crest, zeros, far


@compiled
def _choose(
    lay: Layout, count: int, crest: int, zeros: int, far: int, sums: NDArray[np.int64]
) -> tuple[int, int]:
    """Return the cheapest mode, the smallest of equals, and its metadata bits."""
    plain_bits = MODE_BITS + GROUP_VALUES * lay.exponent_bits
    if crest == 0:
        return 0, MODE_BITS + lay.exponent_bits
    head = MODE_BITS + lay.exponent_bits + 1 + (GROUP_VALUES if zeros else 0)
    filled = GROUP_VALUES - count
    mode, least, metadata = PLAIN, plain_bits, MODE_BITS
    for k in range(PLAIN):
        unary = head + sums[k] + count - zeros + filled
        cost = unary + GROUP_VALUES * k
        if (far >> k) <= MOST_QUOTIENT and cost < least:
            mode, least, metadata = k, cost, unary
    return mode, metadata


@compiled
def scan_block(
    words: Words, lay: Layout, modes: Bytes, crests: Bytes, widths: Bytes,
    sums: NDArray[np.int64], metadata: NDArray[np.int64],
) -> tuple[int, int]:  # fmt: skip
    """Find the groups' modes and crests, the rows' lane bits and metadata bits.

    A last group of fewer values counts as filled to 32. `sums` is scratch of 7 entries;
    `metadata` and `widths` have an entry a row of whole groups. Returns the sums of both.
    """
    lane_bits, total = 0, 0
    for group in range(modes.size):
        first = group * GROUP_VALUES
        count = min(GROUP_VALUES, words.size - first)
        crest, zeros, far = _costs(words, first, count, lay, sums)
        mode, bits = _choose(lay, count, crest, zeros, far, sums)
        modes[group], crests[group] = np.uint8(mode), np.uint8(crest)
        width = lay.exponent_bits if mode == PLAIN else mode
        total += bits
        for row in range(GROUP_ROWS):
            widths[group * GROUP_ROWS + row] = np.uint8(width)
            metadata[group * GROUP_ROWS + row] = bits // GROUP_ROWS
            lane_bits += width
        metadata[group * GROUP_ROWS] += bits % GROUP_ROWS
    return lane_bits, total


@compiled
def _put(out: Bytes, position: int, value: int, bits: int) -> int:
    """Write the low bits of a value into zeroed `out`; return the next position."""
    left, at = value << (position & 7), position >> 3
    while left:
        out[np.uint64(at)] |= np.uint8(left & 0xFF)
        left >>= 8
        at += 1
    return position + bits


@compiled
def _put_group(
    words: Words, first: int, lay: Layout, mode: int, crest: int, out: Bytes, position: int
) -> int:
    """Write one group's metadata."""
    position = _put(out, position, mode, MODE_BITS)
    if mode == PLAIN:
        return position
    position = _put(out, position, crest, lay.exponent_bits)
    if crest == 0:
        return position
    zeros = 0
    for i in range(first, first + GROUP_VALUES):
        zeros += int(_exponent(words, i, lay) == 0)
    position = _put(out, position, int(zeros > 0), 1)
    for row in range(first, first + GROUP_VALUES, 8):
        if zeros:
            for lane in range(8):
                zero = int(_exponent(words, row + lane, lay) == 0)
                position = _put(out, position, zero, 1)
        for lane in range(8):
            exponent = _exponent(words, row + lane, lay)
            if exponent:
                quotient = (crest - exponent) >> mode
                position = _put(out, position, 1 << quotient, quotient + 1)
    return position


@compiled
def pack_block(
    words: Words, lay: Layout, signed: int, modes: Bytes, crests: Bytes,
    lanes_out: NDArray[np.uint32], metadata: Bytes,
) -> None:  # fmt: skip
    """Write whole groups into lanes and zeroed metadata."""
    top = (1 << lay.exponent_bits) - 1
    lanes, position, at = splat(0), 0, 0
    for row in range(words.size // 8):
        group = row // GROUP_ROWS
        mode, crest = as_int(modes[np.uint64(group)]), as_int(crests[np.uint64(group)])
        if row % GROUP_ROWS == 0:
            at = _put_group(words, row * 8, lay, mode, crest, metadata, at)
        word = load(words, row * 8)
        field, width = (word >> lay.mantissa_bits) & top, lay.exponent_bits
        if mode != PLAIN:
            known = splat(0) - unequal(field, 0)
            field, width = (splat(crest) - field) & known & ((1 << mode) - 1), mode
        bits = width + lay.kept + signed
        if bits:
            symbol = field | (_tail(word, lay, signed) << width)
            lanes, position = _append(symbol, bits, lanes, position, lanes_out)
    if position & 31:
        store(lanes, lanes_out, (position >> 5) * 8)


@compiled
def _get(data: Bytes, position: int, bits: int) -> int:
    """Return bits of `data` from `position` on, zeros behind its end; at most 48."""
    value, at = 0, position >> 3
    for byte in range(min((bits + 14) >> 3, data.size - at)):
        value |= as_int(data[np.uint64(at + byte)]) << (8 * byte)
    return (value >> (position & 7)) & ((1 << bits) - 1)


@compiled
def _get_row(data: Bytes, position: int, flag: int, mode: int, crest: int, tops: Bytes) -> int:
    """Read a row's zero mask and quotients into `tops` (0: zero); -1 where impossible."""
    mask = 0
    if flag:
        mask = _get(data, position, 8)
        position += 8
    for lane in range(8):
        tops[np.uint64(lane)] = np.uint8(0)
        if (mask >> lane) & 1:
            continue
        window = _get(data, position, MOST_QUOTIENT + 1)
        if window == 0:
            return -1
        quotient = 0
        while not (window >> quotient) & 1:
            quotient += 1
        if crest <= quotient << mode:
            return -1
        tops[np.uint64(lane)] = np.uint8(crest - (quotient << mode))
        position += quotient + 1
    return position


@compiled
def read_metadata(data: Bytes, lay: Layout, tops: Bytes, widths: Bytes, plain: Bytes) -> int:
    """Read the metadata of a block's whole groups; return the bits read, -1 where impossible.

    `tops`, one a value: the exponent less its low bits, 0 for zero; `widths` and `plain`,
    one a row: exponent bits in the lanes, and whether they are the exponent itself.
    """
    position = 0
    for row in range(0, widths.size, GROUP_ROWS):
        mode = _get(data, position, MODE_BITS)
        position += MODE_BITS
        width = lay.exponent_bits if mode == PLAIN else mode
        for i in range(row, row + GROUP_ROWS):
            widths[np.uint64(i)], plain[np.uint64(i)] = np.uint8(width), np.uint8(mode == PLAIN)
        part = tops[row * 8 : (row + GROUP_ROWS) * 8]
        part[:] = 0
        if mode == PLAIN:
            continue
        crest = _get(data, position, lay.exponent_bits)
        position += lay.exponent_bits
        if crest == 0:
            continue
        flag = _get(data, position, 1)
        position += 1
        for at in range(0, GROUP_VALUES, 8):
            position = _get_row(data, position, flag, mode, crest, part[at : at + 8])
            if position < 0 or position > 8 * data.size:
                return -1
    return position


@compiled
def unpack_block(
    lanes: NDArray[np.uint32], lay: Layout, signed: int, tops: Bytes, widths: Bytes,
    plain: Bytes, out: Words,
) -> None:  # fmt: skip
    """Read whole rows; lengths are checked before."""
    position = 0
    for row in range(widths.size):
        width = as_int(widths[np.uint64(row)])
        bits = width + lay.kept + signed
        value = _value(lanes, position, lanes.size) if bits else splat(0)
        field = value & ((1 << width) - 1)
        if not plain[np.uint64(row)]:
            top = load(tops, row * 8)
            field = (top - field) & (splat(0) - unequal(top, 0))
        tail = _open_tail(value >> width, lay, signed)
        store(tail | (field << lay.mantissa_bits), out, row * 8)
        position += bits
