"""The kernels of `entropy`: Huffman and range ANS on exponents, block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.coded import EXPONENT, MANTISSA, METADATA, SIGN, Widths
from sfpsim.containers.codes import Bytes, Int64s, Words, compiled, get, put
from sfpsim.containers.vector import as_int

MOST_LENGTH, LENGTH_BITS = 15, 4
PRECISION = 12
LOWEST = 1 << 16
SYMBOLS = 256


@compiled
def count_exponents(words: Words, w: Widths, counts: Int64s) -> None:
    """Add every word's exponent field to zeroed `counts`."""
    top = (1 << w.exponent_bits) - 1
    for i in range(words.size):
        counts[(as_int(words[np.uint64(i)]) >> w.mantissa_bits) & top] += 1


@compiled
def put_table(
    out: Bytes, position: int, w: Widths, entries: Int64s, entry_bits: int, bits: Int64s
) -> int:
    """Write first and last used symbol, then an entry of each between them."""
    first, last = 0, 0
    for symbol in range(SYMBOLS - 1, -1, -1):
        first = symbol if entries[symbol] >= 0 else first
    for symbol in range(SYMBOLS):
        last = symbol if entries[symbol] >= 0 else last
    begin = position
    position = put(out, put(out, position, first, w.exponent_bits), last, w.exponent_bits)
    for symbol in range(first, last + 1):
        position = put(out, position, max(entries[symbol], 0), entry_bits)
    bits[METADATA] += position - begin
    return position


@compiled
def get_table(data: Bytes, position: int, w: Widths, entries: Int64s, entry_bits: int) -> int:
    """Read what `put_table` wrote into zeroed `entries`; -1 where it is impossible."""
    first = get(data, position, w.exponent_bits)
    last = get(data, position + w.exponent_bits, w.exponent_bits)
    position += 2 * w.exponent_bits
    if last < first:
        return -1
    for symbol in range(first, last + 1):
        entries[symbol] = get(data, position, entry_bits)
        position += entry_bits
    return position


@compiled
def canonical(lengths: Int64s, codes: Int64s) -> int:
    """Write canonical codes, first bit lowest; return the sum of 2^(15 - length)."""
    code, total = 0, 0
    for length in range(1, MOST_LENGTH + 1):
        code <<= 1
        for symbol in range(SYMBOLS):
            if lengths[symbol] == length:
                total += 1 << (MOST_LENGTH - length)
                turned = 0
                for bit in range(length):
                    turned |= ((code >> bit) & 1) << (length - 1 - bit)
                codes[symbol] = turned
                code += 1
    return total


@compiled
def _put_rest(out: Bytes, position: int, word: int, w: Widths, bits: Int64s) -> int:
    """Write mantissa and sign."""
    fraction = word & ((1 << w.mantissa_bits) - 1)
    position = put(out, position, fraction, w.mantissa_bits)
    bits[SIGN] += 1
    bits[MANTISSA] += w.mantissa_bits
    return put(out, position, word >> (w.mantissa_bits + w.exponent_bits), 1)


@compiled
def write_huffman(
    words: Words, w: Widths, lengths: Int64s, codes: Int64s, out: Bytes, bits: Int64s
) -> int:
    """Table of lengths (-1: not used), then code, mantissa and sign of every value."""
    position, top = put_table(out, 0, w, lengths, LENGTH_BITS, bits), (1 << w.exponent_bits) - 1
    for i in range(words.size):
        word = as_int(words[np.uint64(i)])
        symbol = (word >> w.mantissa_bits) & top
        count = lengths[symbol]
        position = put(out, position, codes[symbol], count)
        bits[EXPONENT] += count
        position = _put_rest(out, position, word, w, bits)
    return position


@compiled
def read_huffman(
    data: Bytes, w: Widths, lengths: Int64s, codes: Int64s, table: NDArray[np.int16], out: Words
) -> int:
    """Read what `write_huffman` wrote; `table` has 2^15 entries, the others are zeros."""
    position = get_table(data, 0, w, lengths, LENGTH_BITS)
    if position < 0:
        return -1
    alone = get(data, 0, w.exponent_bits)
    one_symbol = alone == get(data, w.exponent_bits, w.exponent_bits) and lengths[alone] == 0
    if not one_symbol and canonical(lengths, codes) != 1 << MOST_LENGTH:
        return -1
    for symbol in range(SYMBOLS):
        if lengths[symbol] > 0:
            for high in range(1 << (MOST_LENGTH - lengths[symbol])):
                table[codes[symbol] | high << lengths[symbol]] = np.int16(symbol)
    for i in range(out.size):
        symbol = alone
        if not one_symbol:
            symbol = as_int(table[get(data, position, MOST_LENGTH)])
        position += lengths[symbol]
        fraction = get(data, position, w.mantissa_bits)
        sign = get(data, position + w.mantissa_bits, 1)
        out[np.uint64(i)] = fraction | (symbol | sign << w.exponent_bits) << w.mantissa_bits
        position += w.mantissa_bits + 1
    return position


@compiled
def write_ans(
    words: Words, w: Widths, shares: Int64s, starts: Int64s, halves: Int64s, out: Bytes,
    bits: Int64s,
) -> int:  # fmt: skip
    """Table of shares - 1 of 2^12, the state (32 bits), halves, mantissas and signs.

    One state; encoded from the last value to the first, in halves of 16 bits that `halves`,
    an entry a value, gathers; read from the first on.
    """
    top, state, count = (1 << w.exponent_bits) - 1, LOWEST, 0
    for i in range(words.size - 1, -1, -1):
        symbol = (as_int(words[np.uint64(i)]) >> w.mantissa_bits) & top
        share = shares[symbol] + 1
        if state >= share << (32 - PRECISION):
            halves[count] = state & 0xFFFF
            state, count = state >> 16, count + 1
        state = state // share << PRECISION | (state % share + starts[symbol])
    position = put_table(out, 0, w, shares, PRECISION, bits)
    position = put(out, position, state, 32)
    for i in range(count - 1, -1, -1):
        position = put(out, position, halves[i], 16)
    bits[EXPONENT] += 32 + 16 * count
    for i in range(words.size):
        position = _put_rest(out, position, as_int(words[np.uint64(i)]), w, bits)
    return position


@compiled
def read_ans(
    data: Bytes, w: Widths, shares: Int64s, table: NDArray[np.int16], starts: Int64s, out: Words
) -> int:
    """Read what `write_ans` wrote; `table` has 2^12 entries, `shares` are zeros."""
    position = get_table(data, 0, w, shares, PRECISION)
    first, last = get(data, 0, w.exponent_bits), get(data, w.exponent_bits, w.exponent_bits)
    total = 0
    for symbol in range(first, last + 1 if position >= 0 else first):
        starts[symbol] = total
        for _ in range(shares[symbol] + 1):
            if total < 1 << PRECISION:
                table[total] = np.int16(symbol)
            total += 1
    if total != 1 << PRECISION:
        return -1
    state = get(data, position, 32)
    position += 32
    for i in range(out.size):
        low = state & ((1 << PRECISION) - 1)
        symbol = as_int(table[low])
        out[np.uint64(i)] = symbol << w.mantissa_bits
        state = (shares[symbol] + 1) * (state >> PRECISION) + low - starts[symbol]
        if state < LOWEST:
            state = state << 16 | get(data, position, 16)
            position += 16
    if state != LOWEST:
        return -1
    for i in range(out.size):
        fraction = get(data, position, w.mantissa_bits)
        sign = get(data, position + w.mantissa_bits, 1) << (w.mantissa_bits + w.exponent_bits)
        out[np.uint64(i)] = as_int(out[np.uint64(i)]) | fraction | sign
        position += w.mantissa_bits + 1
    return position
