"""The kernels of `lines`: BDI, FPC and BPC on the bytes of one block; see `codes`."""

from __future__ import annotations

import numpy as np

from sfpsim.containers.coded import MANTISSA, METADATA
from sfpsim.containers.codes import Bytes, Int64s, compiled, get, put
from sfpsim.containers.vector import as_int

ZEROS, REPEATED, RAW_LINE = 0, 1, 15
BPC_WORDS, PLANES = 32, 33
LOW32 = 0xFFFFFFFF


@compiled
def _signed(value: int, bits: int) -> int:
    """Return the low bits as two's complement, 1 to 64 of them; also in plain Python."""
    sign = 1 << (bits - 1)
    return ((value & (((sign - 1) << 1) | 1)) ^ sign) - sign


@compiled
def _element(data: Bytes, at: int, size: int) -> int:
    """Return a little-endian element, sign-extended, 0 behind the end."""
    value = 0
    for byte in range(size):
        if at + byte < data.size:
            value |= as_int(data[np.uint64(at + byte)]) << (8 * byte)
    return _signed(value, 8 * size)


@compiled
def _fits(value: int, bits: int) -> bool:
    return _signed(value, bits) == value


@compiled
def _put_bytes(out: Bytes, position: int, value: int, size: int) -> int:
    for byte in range(size):
        position = put(out, position, (value >> (8 * byte)) & 0xFF, 8)
    return position


@compiled
def _set_bytes(out: Bytes, at: int, value: int, size: int) -> None:
    for byte in range(size):
        if at + byte < out.size:
            out[np.uint64(at + byte)] = np.uint8((value >> (8 * byte)) & 0xFF)


@compiled
def _bdi_pair(tag: int) -> tuple[int, int]:
    """Return base and delta bytes of tags 2 .. 7, cheapest first."""
    if tag == 2:
        return 8, 1
    if tag == 3:
        return 4, 1
    if tag == 4:
        return 8, 2
    if tag == 5:
        return 2, 1
    return (4, 2) if tag == 6 else (8, 4)


@compiled
def _bdi_base(data: Bytes, first: int, line: int, size: int, delta: int) -> tuple[bool, int]:
    """Return whether all elements lie near zero or near one base, and the base."""
    base, found = 0, False
    for at in range(first, first + line, size):
        value = _element(data, at, size)
        if _fits(value, 8 * delta):
            continue
        if not found:
            base, found = value, True
        distance = _signed(value - base, 8 * size)
        if not _fits(distance, 8 * delta):
            return False, 0
    return True, base


@compiled
def _bdi_tag(data: Bytes, first: int, line: int) -> tuple[int, int]:
    """Return the cheapest tag of a line and its base."""
    start, same = _element(data, first, 8), True
    for at in range(first, first + line, 8):
        same &= _element(data, at, 8) == start
    if same:
        return (REPEATED if start else ZEROS), start
    for tag in range(2, 8):
        size, delta = _bdi_pair(tag)
        fits, base = _bdi_base(data, first, line, size, delta)
        if fits:
            return tag, base
    return RAW_LINE, 0


@compiled
def write_bdi(data: Bytes, line: int, out: Bytes, bits: Int64s) -> int:
    """Per line a tag of 4 bits; a mask (1: the base, 0: zero), the base, the deltas."""
    position = 0
    for first in range(0, data.size, line):
        tag, base = _bdi_tag(data, first, line)
        position, begin = put(out, position, tag, 4), position
        bits[METADATA] += 4
        if tag == ZEROS:
            position = put(out, position, 0, 8)
        elif tag == REPEATED:
            position = _put_bytes(out, position, base, 8)
        elif tag == RAW_LINE:
            for at in range(first, first + line):
                position = put(out, position, _element(data, at, 1) & 0xFF, 8)
        else:
            size, delta = _bdi_pair(tag)
            for at in range(first, first + line, size):
                near = int(not _fits(_element(data, at, size), 8 * delta))
                position = put(out, position, near, 1)
            bits[METADATA] += line // size
            position = _put_bytes(out, position, base, size)
            for at in range(first, first + line, size):
                value = _element(data, at, size)
                near = value if _fits(value, 8 * delta) else value - base
                position = _put_bytes(out, position, near, delta)
        bits[MANTISSA] += position - begin
    bits[MANTISSA] -= bits[METADATA]
    return position


@compiled
def _get_bytes(data: Bytes, position: int, size: int) -> int:
    value = 0
    for byte in range(size):
        value |= get(data, position + 8 * byte, 8) << (8 * byte)
    return _signed(value, 8 * size)


@compiled
def read_bdi(data: Bytes, line: int, out: Bytes) -> int:
    """Read what `write_bdi` wrote."""
    position = 0
    for first in range(0, out.size, line):
        tag = get(data, position, 4)
        position += 4
        if tag <= REPEATED:
            value = _get_bytes(data, position, 8) if tag else 0
            for at in range(first, first + line, 8):
                _set_bytes(out, at, value, 8)
            position += 64 if tag else 8
        elif tag == RAW_LINE:
            for at in range(first, first + line):
                _set_bytes(out, at, get(data, position, 8), 1)
                position += 8
        elif tag < 8:
            size, delta = _bdi_pair(tag)
            mask, position = position, position + line // size
            base, position = _get_bytes(data, position, size), position + 8 * size
            for i in range(line // size):
                value = _get_bytes(data, position, delta)
                value += base if get(data, mask + i, 1) else 0
                _set_bytes(out, first + i * size, value, size)
                position += 8 * delta
        else:
            return -1
    return position


@compiled
def _fpc_pattern(word: int) -> tuple[int, int, int]:
    """Return prefix, payload and payload bits of a word (sign-extended) that is not 0."""
    low, high = _signed(word, 16), word >> 16
    if _fits(word, 4):
        return 1, word & 0xF, 4
    if _fits(word, 8):
        return 2, word & 0xFF, 8
    if _fits(word, 16):
        return 3, word & 0xFFFF, 16
    if low == 0:
        return 4, high & 0xFFFF, 16
    if _fits(low, 8) and _fits(high, 8):
        return 5, (low & 0xFF) | (high & 0xFF) << 8, 16
    if (word & LOW32) == (word & 0xFF) * 0x01010101:
        return 6, word & 0xFF, 8
    return 7, word & LOW32, 32


@compiled
def write_fpc(data: Bytes, out: Bytes, bits: Int64s) -> int:
    """Per 32-bit word a prefix of 3 bits and its payload; up to 8 zero words share one."""
    position, at = 0, 0
    while at < data.size:
        word, run = _element(data, at, 4), 0
        while run < 8 and at + 4 * run < data.size and not _element(data, at + 4 * run, 4):
            run += 1
        bits[METADATA] += 3
        if run:
            position = put(out, position, (run - 1) << 3, 6)
            bits[MANTISSA] += 3
            at += 4 * run
            continue
        prefix, payload, count = _fpc_pattern(word)
        position = put(out, put(out, position, prefix, 3), payload, count)
        bits[MANTISSA] += count
        at += 4
    return position


@compiled
def _fpc_word(prefix: int, data: Bytes, position: int) -> tuple[int, int]:
    """Return the word of a prefix other than the zero run, and its payload bits."""
    if prefix <= 3:
        count = 2 << prefix
        value = get(data, position, count)
        return _signed(value, count), count
    if prefix == 4:
        return get(data, position, 16) << 16, 16
    if prefix == 5:
        low, high = get(data, position, 8), get(data, position + 8, 8)
        low, high = _signed(low, 8), _signed(high, 8)
        return (low & 0xFFFF) | (high & 0xFFFF) << 16, 16
    if prefix == 6:
        return get(data, position, 8) * 0x01010101, 8
    return get(data, position, 32), 32


@compiled
def read_fpc(data: Bytes, out: Bytes) -> int:
    """Read what `write_fpc` wrote."""
    position, at = 0, 0
    while at < out.size:
        prefix = get(data, position, 3)
        position += 3
        if prefix == 0:
            run = get(data, position, 3) + 1
            position += 3
            for _ in range(run):
                _set_bytes(out, at, 0, 4)
                at += 4
            continue
        word, count = _fpc_word(prefix, data, position)
        _set_bytes(out, at, word, 4)
        position, at = position + count, at + 4
    return position if at < out.size + 4 else -1


@compiled
def _planes(data: Bytes, first: int, planes: Int64s) -> None:
    """Write the 33 bit planes of the 31 differences of a block's words, lowest first."""
    planes[:] = 0
    before = _element(data, first, 4)
    for i in range(1, BPC_WORDS):
        word = _element(data, first + 4 * i, 4)
        difference, before = word - before, word
        for plane in range(PLANES):
            planes[plane] |= ((difference >> plane) & 1) << (i - 1)


@compiled
def _put_base(out: Bytes, position: int, word: int) -> int:
    """Write a block's first word: 000, 001 + 4, 010 + 8, 011 + 16 or 1 + 32 bits.

    Codes are written with their first bit in the lowest place.
    """
    if word == 0:
        return put(out, position, 0, 3)
    if _fits(word, 4):
        return put(out, put(out, position, 4, 3), word & 0xF, 4)
    if _fits(word, 8):
        return put(out, put(out, position, 2, 3), word & 0xFF, 8)
    if _fits(word, 16):
        return put(out, put(out, position, 6, 3), word & 0xFFFF, 16)
    return put(out, put(out, position, 1, 1), word & LOW32, 32)


@compiled
def _put_plane(out: Bytes, position: int, crossed: int, plane: int) -> int:
    """Write a plane's XOR that is not zero."""
    ones, lowest, count = (1 << 31) - 1, 0, 0
    if crossed == ones:
        return put(out, position, 0b00000, 5)
    if plane == 0:
        return put(out, position, 0b10000, 5)
    while not (crossed >> lowest) & 1:
        lowest += 1
    for i in range(31):
        count += (crossed >> i) & 1
    if count == 2 and (crossed >> lowest) == 3:
        return put(out, put(out, position, 0b01000, 5), lowest, 5)
    if count == 1:
        return put(out, put(out, position, 0b11000, 5), lowest, 5)
    return put(out, put(out, position, 1, 1), crossed, 31)


@compiled
def write_bpc(data: Bytes, planes: Int64s, out: Bytes, bits: Int64s) -> int:
    """Per 128 bytes the first word, then the XORs of neighbouring planes, highest first."""
    position = 0
    for first in range(0, data.size, 4 * BPC_WORDS):
        position = _put_base(out, position, _element(data, first, 4))
        _planes(data, first, planes)
        plane, above = PLANES - 1, 0
        while plane >= 0:
            run = 0
            while plane - run >= 0 and planes[plane - run] == above:
                run += 1
            if run > 1:
                position = put(out, put(out, position, 0b10, 2), run - 2, 5)
            elif run == 1:
                position = put(out, position, 0b100, 3)
            else:
                run, crossed = 1, planes[plane] ^ above
                position = _put_plane(out, position, crossed, planes[plane])
                above = planes[plane]
            plane -= run
    bits[MANTISSA] += position
    return position


@compiled
def _get_base(data: Bytes, position: int) -> tuple[int, int]:
    """Return a block's first word and the next position."""
    if get(data, position, 1):
        return get(data, position + 1, 32), position + 33
    kind = get(data, position, 3)
    if kind == 0:
        return 0, position + 3
    count = 4 if kind == 4 else (8 if kind == 2 else 16)
    value = get(data, position + 3, count)
    return _signed(value, count), position + 3 + count


@compiled
def _get_plane(data: Bytes, position: int, above: int) -> tuple[int, int]:
    """Return a plane whose XOR with the one above is not zero, and the next position."""
    if get(data, position, 1):
        return get(data, position + 1, 31) ^ above, position + 32
    kind = get(data, position, 5)
    if kind == 0b00000:
        return above ^ ((1 << 31) - 1), position + 5
    if kind == 0b10000:
        return 0, position + 5
    pattern = 3 if kind == 0b01000 else 1
    return above ^ (pattern << get(data, position + 5, 5)), position + 10


@compiled
def _read_planes(data: Bytes, position: int, planes: Int64s) -> int:
    """Read the 33 planes of a block; -1 where a run is too long."""
    plane, above = PLANES - 1, 0
    while plane >= 0:
        run = 0
        if get(data, position, 2) == 0b10:
            run, position = get(data, position + 2, 5) + 2, position + 7
        elif get(data, position, 3) == 0b100:
            run, position = 1, position + 3
        if run > plane + 1:
            return -1
        for _ in range(run):
            planes[plane] = above
            plane -= 1
        if not run:
            above, position = _get_plane(data, position, above)
            planes[plane] = above
            plane -= 1
    return position


@compiled
def read_bpc(data: Bytes, planes: Int64s, out: Bytes) -> int:
    """Read what `write_bpc` wrote."""
    position = 0
    for first in range(0, out.size, 4 * BPC_WORDS):
        word, position = _get_base(data, position)
        position = _read_planes(data, position, planes)
        if position < 0 or position > 8 * data.size:
            return -1
        _set_bytes(out, first, word, 4)
        for i in range(1, BPC_WORDS):
            difference = 0
            for plane in range(PLANES):
                difference |= ((planes[plane] >> (i - 1)) & 1) << plane
            word += difference
            _set_bytes(out, first + 4 * i, word, 4)
    return position
