"""The kernels of `zeros`, `exponents` and `lines`: bit strings of one block.

A writer counts sign, exponent, mantissa and metadata bits in `bits` and writes where `out`
is not empty, so that measuring and encoding cannot differ. A reader returns the bits read,
or -1. Bits run from the least significant one on; behind the end of `data` there are zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sfpsim.containers.coded import EXPONENT, MANTISSA, METADATA, SIGN, Widths
from sfpsim.containers.vector import as_int

Words = NDArray[Any]
Bytes = NDArray[np.uint8]
Int64s = NDArray[np.int64]
compiled = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)


@compiled
def put(out: Bytes, position: int, value: int, count: int) -> int:
    """Write `count` bits, at most 48, of a value below 2^count; return the next position."""
    if out.size:
        left, at = value << (position & 7), position >> 3
        while left:
            out[np.uint64(at)] |= np.uint8(left & 0xFF)
            left >>= 8
            at += 1
    return position + count


@compiled
def get(data: Bytes, position: int, count: int) -> int:
    """Return `count` bits, at most 48."""
    value, at = 0, position >> 3
    for byte in range(min((count + 14) >> 3, data.size - at)):
        value |= as_int(data[np.uint64(at + byte)]) << (8 * byte)
    return (value >> (position & 7)) & ((1 << count) - 1)


@compiled
def _word(words: Words, i: int) -> int:
    return as_int(words[np.uint64(i)])


@compiled
def _count_word(w: Widths, bits: Int64s) -> None:
    bits[SIGN] += 1
    bits[EXPONENT] += w.exponent_bits
    bits[MANTISSA] += w.mantissa_bits


@compiled
def write_mask(words: Words, w: Widths, group: int, out: Bytes, bits: Int64s) -> int:
    """A bit a value of each group (1: not all bits zero), then the words with a 1."""
    size, position = 1 + w.exponent_bits + w.mantissa_bits, 0
    for first in range(0, words.size, group):
        last = min(first + group, words.size)
        for i in range(first, last):
            position = put(out, position, int(_word(words, i) != 0), 1)
            bits[METADATA] += 1
        for i in range(first, last):
            if _word(words, i):
                position = put(out, position, _word(words, i), size)
                _count_word(w, bits)
    return position


@compiled
def read_mask(data: Bytes, w: Widths, group: int, out: Words) -> int:
    """Read what `write_mask` wrote."""
    size, position = 1 + w.exponent_bits + w.mantissa_bits, 0
    for first in range(0, out.size, group):
        last = min(first + group, out.size)
        mask, position = position, position + last - first
        for i in range(first, last):
            word = 0
            if get(data, mask + i - first, 1):
                word = get(data, position, size)
                position += size
            out[np.uint64(i)] = word
    return position


@compiled
def write_csr(words: Words, w: Widths, columns: int, out: Bytes, bits: Int64s) -> int:
    """A row of 256 columns after the other: count (9 bits), then column and word each."""
    size, position = 1 + w.exponent_bits + w.mantissa_bits, 0
    for first in range(0, words.size, columns):
        last, count = min(first + columns, words.size), 0
        for i in range(first, last):
            count += int(_word(words, i) != 0)
        position = put(out, position, count, 9)
        bits[METADATA] += 9 + 8 * count
        for i in range(first, last):
            if _word(words, i):
                position = put(out, position, i - first, 8)
                position = put(out, position, _word(words, i), size)
                _count_word(w, bits)
    return position


@compiled
def read_csr(data: Bytes, w: Widths, columns: int, out: Words) -> int:
    """Read what `write_csr` wrote; columns rise."""
    size, position = 1 + w.exponent_bits + w.mantissa_bits, 0
    for first in range(0, out.size, columns):
        last = min(first + columns, out.size)
        for i in range(first, last):
            out[np.uint64(i)] = 0
        count, before = get(data, position, 9), -1
        position += 9
        for _ in range(count):
            column = get(data, position, 8)
            if column <= before or first + column >= last:
                return -1
            out[np.uint64(first + column)] = get(data, position + 8, size)
            before, position = column, position + 8 + size
    return position


@compiled
def _code(exponent: int, base: int, w: Widths) -> tuple[int, int]:
    """Return magnitude and flag of an exponent against a base, as gecko-delta has them."""
    top = (1 << w.exponent_bits) - 1
    if exponent == 0:
        return 0, 1
    difference = (exponent - base + top) % top
    if difference > top >> 1:
        return top - difference, 1
    return difference, 0


@compiled
def _open(magnitude: int, flag: int, base: int, w: Widths) -> int:
    """Return the exponent of a code."""
    top = (1 << w.exponent_bits) - 1
    if magnitude == 0 and flag:
        return 0
    exponent = base - magnitude if flag else base + magnitude
    if exponent < 1:
        return exponent + top
    return exponent - top if exponent > top else exponent


@compiled
def _length(value: int) -> int:
    count = 0
    while value >> count:
        count += 1
    return count


@compiled
def _put_value(
    out: Bytes, position: int, word: int, base: int, width: int, w: Widths, bits: Int64s
) -> int:
    """Write exponent code, mantissa and sign of a word."""
    fraction = word & ((1 << w.mantissa_bits) - 1)
    exponent = (word >> w.mantissa_bits) & ((1 << w.exponent_bits) - 1)
    magnitude, flag = _code(exponent, base, w)
    position = put(out, position, magnitude | flag << width, width + 1)
    position = put(out, position, fraction, w.mantissa_bits)
    bits[SIGN] += 1
    bits[EXPONENT] += width + 1
    bits[MANTISSA] += w.mantissa_bits
    return put(out, position, word >> (w.mantissa_bits + w.exponent_bits), 1)


@compiled
def _get_value(data: Bytes, position: int, base: int, width: int, w: Widths) -> int:
    """Return the word that `_put_value` wrote."""
    magnitude = get(data, position, width)
    exponent = _open(magnitude, get(data, position + width, 1), base, w)
    fraction = get(data, position + width + 1, w.mantissa_bits)
    sign = get(data, position + width + 1 + w.mantissa_bits, 1)
    return fraction | (exponent | sign << w.exponent_bits) << w.mantissa_bits


@compiled
def _base_of(word: int, w: Widths) -> int:
    exponent = (word >> w.mantissa_bits) & ((1 << w.exponent_bits) - 1)
    return exponent if exponent else (1 << (w.exponent_bits - 1)) - 1


@compiled
def _width(words: Words, first: int, last: int, base: int, w: Widths, zeros: int) -> int:
    """Return the bit length of the largest magnitude; zero words count where `zeros`."""
    most = 0
    for i in range(first, last):
        word = _word(words, i)
        if word or zeros:
            exponent = (word >> w.mantissa_bits) & ((1 << w.exponent_bits) - 1)
            most = max(most, _code(exponent, base, w)[0])
    return _length(most)


@compiled
def write_base_delta(words: Words, w: Widths, group: int, out: Bytes, bits: Int64s) -> int:
    """A whole word, a width (3 bits), the other words with codes against its exponent."""
    size, position = 1 + w.exponent_bits + w.mantissa_bits, 0
    for first in range(0, words.size, group):
        last, word = min(first + group, words.size), _word(words, first)
        base = _base_of(word, w)
        width = _width(words, first + 1, last, base, w, 1)
        position = put(out, put(out, position, word, size), width, 3)
        _count_word(w, bits)
        bits[METADATA] += 3
        for i in range(first + 1, last):
            position = _put_value(out, position, _word(words, i), base, width, w, bits)
    return position


@compiled
def read_base_delta(data: Bytes, w: Widths, group: int, out: Words) -> int:
    """Read what `write_base_delta` wrote."""
    size, position = 1 + w.exponent_bits + w.mantissa_bits, 0
    for first in range(0, out.size, group):
        word, width = get(data, position, size), get(data, position + size, 3)
        out[np.uint64(first)] = word
        base, position = _base_of(word, w), position + size + 3
        if width >= w.exponent_bits:
            return -1
        for i in range(first + 1, min(first + group, out.size)):
            out[np.uint64(i)] = _get_value(data, position, base, width, w)
            position += width + 2 + w.mantissa_bits
    return position


@compiled
def write_shapeshifter(words: Words, w: Widths, group: int, out: Bytes, bits: Int64s) -> int:
    """A zero mask, a width (3 bits), the words that are not zero with codes to the bias."""
    base, position = (1 << (w.exponent_bits - 1)) - 1, 0
    for first in range(0, words.size, group):
        last = min(first + group, words.size)
        width = _width(words, first, last, base, w, 0)
        for i in range(first, last):
            position = put(out, position, int(_word(words, i) != 0), 1)
        position = put(out, position, width, 3)
        bits[METADATA] += last - first + 3
        for i in range(first, last):
            if _word(words, i):
                position = _put_value(out, position, _word(words, i), base, width, w, bits)
    return position


@compiled
def read_shapeshifter(data: Bytes, w: Widths, group: int, out: Words) -> int:
    """Read what `write_shapeshifter` wrote."""
    base, position = (1 << (w.exponent_bits - 1)) - 1, 0
    for first in range(0, out.size, group):
        last = min(first + group, out.size)
        mask, position = position, position + last - first
        width = get(data, position, 3)
        position += 3
        if width >= w.exponent_bits:
            return -1
        for i in range(first, last):
            word = 0
            if get(data, mask + i - first, 1):
                word = _get_value(data, position, base, width, w)
                position += width + 2 + w.mantissa_bits
            out[np.uint64(i)] = word
    return position
