"""The kernels of `ebpc`: zero runs and coded bit planes of 8 words; see `codes`."""

from __future__ import annotations

import numpy as np

from sfpsim.containers.coded import MANTISSA, METADATA
from sfpsim.containers.codes import Bytes, Int64s, Words, compiled, get, put
from sfpsim.containers.vector import as_int

BLOCK_WORDS, DELTAS, POSITION_BITS = 8, 7, 3
MOST_ZEROS, ZEROS_BITS = 16, 4


@compiled
def _turned(value: int, count: int) -> int:
    """Return the low `count` bits in reverse: the authors' streams begin with the high bit."""
    out = 0
    for bit in range(count):
        out |= ((value >> bit) & 1) << (count - 1 - bit)
    return out


@compiled
def _run_bits(size: int) -> int:
    """Return the bits that count 2 to `size` + 1 planes: log2 of the word's bits."""
    return 5 if size == 32 else 4


@compiled
def _put_planes_run(out: Bytes, position: int, run: int, size: int) -> int:
    """Write that `run` planes are those below them."""
    if run == 0:
        return position
    if run == 1:
        return put(out, position, 0b10, 2)
    count = _run_bits(size)
    return put(out, put(out, position, 0b100, 3), _turned(run - 2, count), count)


@compiled
def _put_plane(out: Bytes, position: int, crossed: int, plane: int) -> int:
    """Write a plane's XOR, which is not zero, with the plane below."""
    lowest, ones = 0, 0
    for i in range(DELTAS - 1, -1, -1):
        if (crossed >> i) & 1:
            lowest, ones = i, ones + 1
    if ones == DELTAS:
        return put(out, position, 0b00000, 5)
    if plane == 0:
        return put(out, position, 0b10000, 5)
    if ones == 1 or (ones == 2 and crossed >> lowest == 3):
        position = put(out, position, 0b11000 if ones == 1 else 0b01000, 5)
        return put(out, position, _turned(lowest, POSITION_BITS), POSITION_BITS)
    return put(out, put(out, position, 1, 1), crossed, DELTAS)


@compiled
def _eight_planes(block: Int64s, bit: int) -> int:
    """Return bits `bit` .. `bit` + 7 of the 7 differences: a byte a plane, a bit a difference.

    The bytes of the differences are a matrix of 8 x 8 bits, which is transposed by halves.
    """
    square = 0
    for i in range(DELTAS):
        square |= (((block[i + 1] - block[i]) >> bit) & 0xFF) << (8 * i)
    low = (square ^ square >> 7) & 0x00AA00AA00AA00AA
    square ^= low ^ low << 7
    low = (square ^ square >> 14) & 0x0000CCCC0000CCCC
    square ^= low ^ low << 14
    low = (square ^ square >> 28) & 0x00000000F0F0F0F0
    return square ^ low ^ low << 28


@compiled
def _put_block(out: Bytes, position: int, block: Int64s, size: int) -> int:
    """Write 8 words: the first as it is, the bit planes of the 7 differences, lowest first."""
    first = _turned(block[0], size) if out.size else 0
    position = put(out, position, first, size)
    below, run, eight = 0, 0, 0
    for bit in range(size + 1):
        eight = eight >> 8 if bit & 7 else _eight_planes(block, bit)
        plane = eight & 0x7F
        if plane == below:
            run += 1
            continue
        position = _put_planes_run(out, position, run, size)
        position = _put_plane(out, position, plane ^ below, plane)
        below, run = plane, 0
    return _put_planes_run(out, position, run, size)


@compiled
def _gather(words: Words, at: int, size: int, block: Int64s) -> None:
    """Take the next 8 words that are not 0, as two's complement; zeros where they end."""
    sign, count = 1 << (size - 1), 0
    block[:] = 0
    while at < words.size and count < BLOCK_WORDS:
        word = as_int(words[np.uint64(at)])
        if word:
            block[count] = (word ^ sign) - sign
            count += 1
        at += 1


@compiled
def write_ebpc(words: Words, size: int, block: Int64s, out: Bytes, bits: Int64s) -> int:
    """Zero runs and ones in order; behind a one that begins 8 words, the coded words."""
    position, run, left, planes = 0, 0, 0, 0
    for i in range(words.size):
        word = as_int(words[np.uint64(i)])
        run += int(word == 0)
        if run and (word or run == MOST_ZEROS or i + 1 == words.size):
            zeros = _turned(run - 1, ZEROS_BITS) << 1
            position, run = put(out, position, zeros, ZEROS_BITS + 1), 0
        if word:
            position = put(out, position, 1, 1)
            if left == 0:
                _gather(words, i, size, block)
                begin, left = position, BLOCK_WORDS
                position = _put_block(out, position, block, size)
                planes += position - begin
            left -= 1
    bits[MANTISSA] += planes
    bits[METADATA] += position - planes
    return position


@compiled
def _get_plane(data: Bytes, position: int, below: int) -> tuple[int, int]:
    """Return a plane that differs from the one below, and the next position."""
    if get(data, position, 1):
        return get(data, position + 1, DELTAS) ^ below, position + 1 + DELTAS
    kind = get(data, position, 5)
    if kind == 0b00000:
        return below ^ ((1 << DELTAS) - 1), position + 5
    if kind == 0b10000:
        return 0, position + 5
    pattern = 3 if kind == 0b01000 else 1
    place = _turned(get(data, position + 5, POSITION_BITS), POSITION_BITS)
    plane = below ^ ((pattern << place) & ((1 << DELTAS) - 1))
    return plane, position + 5 + POSITION_BITS


@compiled
def _get_block(data: Bytes, position: int, block: Int64s, size: int) -> int:
    """Read 8 words; return the next position, -1 where a run is too long."""
    block[:] = 0
    block[0] = _turned(get(data, position, size), size)
    position, below, bit = position + size, 0, 0
    while bit <= size:
        run = 0
        if get(data, position, 2) == 0b10:
            run, position = 1, position + 2
        elif get(data, position, 3) == 0b100:
            count = _run_bits(size)
            run = _turned(get(data, position + 3, count), count) + 2
            position += 3 + count
        else:
            below, position = _get_plane(data, position, below)
            run = 1
        if bit + run > size + 1:
            return -1
        for _ in range(run):
            for i in range(DELTAS):
                block[i + 1] |= ((below >> i) & 1) << bit
            bit += 1
    for i in range(DELTAS):
        block[i + 1] = (block[i + 1] + block[i]) & ((1 << size) - 1)
    return position


@compiled
def read_ebpc(data: Bytes, size: int, block: Int64s, out: Words) -> int:
    """Read what `write_ebpc` wrote."""
    position, at, left = 0, 0, 0
    while at < out.size:
        if get(data, position, 1) == 0:
            run = _turned(get(data, position + 1, ZEROS_BITS), ZEROS_BITS) + 1
            position += ZEROS_BITS + 1
            if run > out.size - at:
                return -1
            for _ in range(run):
                out[np.uint64(at)] = 0
                at += 1
            continue
        position += 1
        if left == 0:
            position, left = _get_block(data, position, block, size), BLOCK_WORDS
            if position < 0 or position > 8 * data.size:
                return -1
        out[np.uint64(at)] = block[BLOCK_WORDS - left]
        at, left = at + 1, left - 1
    return position
