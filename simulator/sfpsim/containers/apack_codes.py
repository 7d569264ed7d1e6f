"""The kernels of `apack`: the search for ranges, and the arithmetic coder; see `codes`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.coded import EXPONENT, MANTISSA, METADATA, SIGN, Widths
from sfpsim.containers.codes import Bytes, Int64s, Words, compiled, get, put
from sfpsim.containers.vector import as_int

RANGES, COUNT_BITS, REGISTER_BITS, LENGTH_BITS = 16, 10, 16, 24
TOP_COUNT = (1 << COUNT_BITS) - 1
HALF, QUARTER = 1 << (REGISTER_BITS - 1), 1 << (REGISTER_BITS - 2)


@compiled
def offset_bits(size: int) -> int:
    """Return the bits that tell the symbols of a range apart."""
    count = 0
    while size - 1 >> count:
        count += 1
    return count


@compiled
def range_costs(counts: Int64s, symbols: int, bits_of: Int64s, costs: NDArray[np.int64]) -> None:
    """Write costs[a, b]: what the values of range a .. b - 1 take, in 2^-16 bits.

    ``bits_of[p]`` is the length of a range's code of share p / 2^10, p rounded.
    """
    total = 0
    for symbol in range(symbols):
        total += counts[symbol]
    for first in range(symbols):
        held = 0
        for last in range(first + 1, symbols + 1):
            held += counts[last - 1]
            share = max(1, ((held << COUNT_BITS) + total // 2) // total)
            costs[first, last] = held * ((offset_bits(last - first) << 16) + bits_of[share])


@compiled
def _best_move(costs: NDArray[np.int64], ends: Int64s, cost: int, move: Int64s) -> int:
    """Return the least cost with one boundary, or one and a neighbour, elsewhere; note which."""
    best = cost
    for c in range(1, RANGES):
        low, high = ends[c - 1], ends[c + 1]
        without = cost - costs[low, ends[c]] - costs[ends[c], high]
        for place in range(low + 1, high):
            moved = without + costs[low, place] + costs[place, high]
            if moved < best:
                best = moved
                move[0], move[1], move[2], move[3] = c, place, c, place
            for other in (c - 1, c + 1):
                if other < 1 or other >= RANGES:
                    continue
                left = place if other > c else ends[other - 1]
                right = place if other < c else ends[other + 1]
                rest = moved - costs[left, ends[other]] - costs[ends[other], right]
                for there in range(left + 1, right):
                    both = rest + costs[left, there] + costs[there, right]
                    if both < best:
                        best = both
                        move[0], move[1], move[2], move[3] = c, place, other, there
    return best


@compiled
def search(costs: NDArray[np.int64], symbols: int, ends: Int64s, move: Int64s) -> int:
    """Move boundaries from equal ranges on until a round gains less than 1 %; return the cost."""
    cost = 0
    for i in range(RANGES + 1):
        ends[i] = i * (symbols // RANGES)
    for i in range(RANGES):
        cost += costs[ends[i], ends[i + 1]]
    while True:
        move[:] = 0
        before, cost = cost, _best_move(costs, ends, cost, move)
        if cost < before:
            ends[move[0]], ends[move[2]] = move[1], move[3]
        if 100 * cost >= 99 * before:
            return cost


@compiled
def _put_bit(out: Bytes, position: int, bit: int, pending: int) -> int:
    """Write a bit and the opposite ones that waited for it."""
    position = put(out, position, bit, 1)
    for _ in range(pending):
        position = put(out, position, 1 - bit, 1)
    return position


@compiled
def _write_symbols(
    words: Words, w: Widths, range_of: Int64s, highs: Int64s, out: Bytes, position: int
) -> int:
    """Write the ranges of all exponents as one arithmetic code, all of LO at its end."""
    low, high, pending = 0, (1 << REGISTER_BITS) - 1, 0
    top = (1 << w.exponent_bits) - 1
    for i in range(words.size):
        held = range_of[(as_int(words[np.uint64(i)]) >> w.mantissa_bits) & top]
        span = high - low + 1
        high = low + (span * highs[held + 1] >> COUNT_BITS) - 1
        low += span * highs[held] >> COUNT_BITS
        while True:
            if high < HALF or low >= HALF:
                bit = int(low >= HALF)
                position, pending = _put_bit(out, position, bit, pending), 0
                low, high = low - bit * HALF, high - bit * HALF
            elif low >= QUARTER and high < HALF + QUARTER:
                pending += 1
                low, high = low - QUARTER, high - QUARTER
            else:
                break
            low, high = 2 * low, 2 * high + 1
    position = _put_bit(out, position, 0, pending)  # LO is below half here
    for bit in range(REGISTER_BITS - 2, -1, -1):
        position = put(out, position, (low >> bit) & 1, 1)
    return position


@compiled
def write_apack(
    words: Words, w: Widths, ends: Int64s, highs: Int64s, range_of: Int64s, out: Bytes,
    bits: Int64s,
) -> int:  # fmt: skip
    """Table, length of the arithmetic code, the code; then offset, mantissa, sign of each.

    `highs` has 17 entries, from 0 to 2^10 - 1: range i has the counts from highs[i] up to
    highs[i + 1].
    """
    position, top = 0, (1 << w.exponent_bits) - 1
    for i in range(RANGES):
        position = put(out, position, ends[i], w.exponent_bits)
        position = put(out, position, highs[i + 1], COUNT_BITS)
        for symbol in range(ends[i], ends[i + 1]):
            range_of[symbol] = i
    begin = position + LENGTH_BITS
    bits[METADATA] += begin
    end = _write_symbols(words, w, range_of, highs, out, begin)
    put(out, position, end - begin, LENGTH_BITS)
    position = end
    for i in range(words.size):
        word = as_int(words[np.uint64(i)])
        symbol = (word >> w.mantissa_bits) & top
        held = range_of[symbol]
        count = offset_bits(ends[held + 1] - ends[held])
        position = put(out, position, symbol - ends[held], count)
        position = put(out, position, word & ((1 << w.mantissa_bits) - 1), w.mantissa_bits)
        position = put(out, position, word >> (w.mantissa_bits + w.exponent_bits), 1)
    bits[SIGN] += words.size
    bits[MANTISSA] += words.size * w.mantissa_bits
    bits[EXPONENT] += position - begin - words.size * (1 + w.mantissa_bits)
    return position


@compiled
def _read_table(data: Bytes, w: Widths, ends: Int64s, highs: Int64s, range_of: Int64s) -> int:
    """Read the table; `range_of`, of 2^10 entries, gets the range of each count."""
    position, size = 0, w.exponent_bits + COUNT_BITS
    for i in range(RANGES):
        ends[i] = get(data, position, w.exponent_bits)
        highs[i + 1] = get(data, position + w.exponent_bits, COUNT_BITS)
        position += size
        rises = ends[i] == 0 if i == 0 else ends[i] > ends[i - 1]
        if not rises or highs[i + 1] < highs[i]:
            return -1
        for count in range(highs[i], highs[i + 1]):
            range_of[count] = i
    ends[RANGES] = 1 << w.exponent_bits
    return position if highs[RANGES] == TOP_COUNT else -1


@compiled
def _read_symbols(data: Bytes, position: int, highs: Int64s, range_of: Int64s, out: Words) -> int:
    """Write the range of every value into `out`; return the next position, or -1."""
    low, high, code = 0, (1 << REGISTER_BITS) - 1, 0
    for _ in range(REGISTER_BITS):
        code = 2 * code + get(data, position, 1)
        position += 1
    for i in range(out.size):
        span = high - low + 1
        count = ((code - low + 1 << COUNT_BITS) - 1) // span
        if count >= TOP_COUNT:
            return -1
        held = range_of[count]
        out[np.uint64(i)] = held
        high = low + (span * highs[held + 1] >> COUNT_BITS) - 1
        low += span * highs[held] >> COUNT_BITS
        while True:
            if high < HALF or low >= HALF:
                less = HALF if low >= HALF else 0
            elif low >= QUARTER and high < HALF + QUARTER:
                less = QUARTER
            else:
                break
            low, high = 2 * (low - less), 2 * (high - less) + 1
            code = 2 * (code - less) + get(data, position, 1)
            position += 1
    return position


@compiled
def read_apack(
    data: Bytes, w: Widths, ends: Int64s, highs: Int64s, range_of: Int64s, out: Words
) -> int:
    """Read what `write_apack` wrote; `ends`, `highs` and `range_of` are zeros."""
    position = _read_table(data, w, ends, highs, range_of)
    if position < 0:
        return -1
    end = get(data, position, LENGTH_BITS) + position + LENGTH_BITS
    position = _read_symbols(data, position + LENGTH_BITS, highs, range_of, out)
    if position != end:
        return -1
    for i in range(out.size):
        held = as_int(out[np.uint64(i)])
        count = offset_bits(ends[held + 1] - ends[held])
        symbol = ends[held] + get(data, position, count)
        if symbol >= ends[held + 1]:
            return -1
        fraction = get(data, position + count, w.mantissa_bits)
        sign = get(data, position + count + w.mantissa_bits, 1)
        out[np.uint64(i)] = fraction | (symbol | sign << w.exponent_bits) << w.mantissa_bits
        position += count + w.mantissa_bits + 1
    return position
