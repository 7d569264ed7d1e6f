"""Text of address traces to arrays and back, byte by byte.

`parse` reads whole lines of one chunk; it stops at the first line that is wrong and says
which and why. `render_*` write into a buffer that is large enough. numba does not notice a
changed helper in another file, so all helpers stand here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

DRAMSIM3, RAMULATOR, STL, RSTL = 0, 1, 2, 3
FIELD_NAMES = ("ch", "ra", "bg", "ba", "ro", "co")  # of an address vector, as in a mapping
RANK, GROUP, BANK, ROW, COLUMN = range(1, 6)
RECORD = 4 + len(FIELD_NAMES)  # address, write, cycle, length, and the fields of a vector
LINE_BYTES = 64  # no rendered line is longer

# Why a line is wrong.
FINE, ADDRESS, COMMAND, CYCLE, LENGTH, DATA, MORE, LARGE, BEYOND, VECTOR = range(10)

LARGEST = (1 << 63) - 1
NO_DIGIT, TOO_LARGE = -1, -2


def _word(text: str) -> int:
    return int.from_bytes(text.encode(), "big")


W_READ, W_WRITE = _word("READ"), _word("WRITE")
W_SMALL_READ, W_SMALL_WRITE = _word("read"), _word("write")
# What DRAMsim3 also takes: the names of its older traces.
W_FETCH, W_MEM_RD, W_MEM_WR, W_BOFF = map(_word, ("P_FETCH", "P_MEM_RD", "P_MEM_WR", "BOFF"))
W_LD, W_ST, W_R, W_W = map(_word, ("LD", "ST", "R", "W"))

TAB, NEWLINE, RETURN, SPACE, HASH = 9, 10, 13, 32, 35
OPEN, CLOSE, COMMA, COLON, ZERO, SMALL_X = 40, 41, 44, 58, 48, 120


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _skip(data: Any, i: int, end: int) -> int:
    """Return the first place from `i` on that is no blank."""
    while i < end and (data[i] == SPACE or data[i] == TAB or data[i] == RETURN):
        i += 1
    return i


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _decimal(data: Any, i: int, end: int) -> Any:
    """Return the number at `i` and the place after it."""
    value, first = np.int64(0), i
    while i < end:
        digit = np.int64(data[i]) - ZERO
        if digit < 0 or digit > 9:
            break
        if value > (LARGEST - digit) // 10:
            return TOO_LARGE, i
        value = value * 10 + digit
        i += 1
    return (value if i > first else NO_DIGIT), i


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _nibble(byte: Any) -> int:
    """Return the value of a hexadecimal digit, -1 of anything else."""
    code: Any = np.int64(byte)
    if 48 <= code <= 57:
        return code - 48
    small = code | 32
    return small - 87 if 97 <= small <= 102 else -1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _prefixed(data: Any, i: int, end: int) -> bool:
    """Whether a number in the form 0x... begins at `i`."""
    return i + 1 < end and data[i] == ZERO and (np.int64(data[i + 1]) | 32) == SMALL_X


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _hex(data: Any, i: int, end: int) -> Any:
    """Return the hexadecimal number at `i`, with or without 0x, and the place after it."""
    if _prefixed(data, i, end):
        i += 2
    value, first = np.int64(0), i
    while i < end:
        digit = _nibble(data[i])
        if digit < 0:
            break
        if value >> 59:
            return TOO_LARGE, i
        value = (value << 4) | digit
        i += 1
    return (value if i > first else NO_DIGIT), i


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _name(data: Any, i: int, end: int) -> Any:
    """Return the word at `i`, packed (0: longer than 8 bytes, or none), and the place after."""
    packed, first = np.int64(0), i
    while i < end and data[i] != SPACE and data[i] != TAB and data[i] != RETURN:
        packed = (packed << 8) | np.int64(data[i])
        i += 1
    return (packed if i - first <= 8 else 0), i


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _ended(data: Any, i: int, end: int) -> bool:
    """Whether a word ends at `i`."""
    return i >= end or data[i] == SPACE or data[i] == TAB or data[i] == RETURN


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _dramsim3(data: Any, i: int, end: int, record: Any) -> int:
    """Read ``0xADDRESS READ|WRITE CYCLE`` into `record`; return why it is wrong."""
    record[0], i = _hex(data, i, end)
    if record[0] < 0 or not _ended(data, i, end):
        return LARGE if record[0] == TOO_LARGE else ADDRESS
    word, i = _name(data, _skip(data, i, end), end)
    record[1] = word in (W_WRITE, W_SMALL_WRITE, W_MEM_WR, W_BOFF)
    read = word in (W_READ, W_SMALL_READ, W_MEM_RD, W_FETCH)
    if not read and not record[1]:
        return COMMAND
    record[2], i = _decimal(data, _skip(data, i, end), end)
    if record[2] < 0 or not _ended(data, i, end):
        return LARGE if record[2] == TOO_LARGE else CYCLE
    record[3] = 0
    return FINE if _skip(data, i, end) == end else MORE


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _stl(data: Any, i: int, end: int, record: Any) -> int:
    """Read ``CYCLE: [(BYTES)] read|write 0xADDRESS [DATA]`` into `record`."""
    record[2], i = _decimal(data, i, end)
    if record[2] < 0:
        return LARGE if record[2] == TOO_LARGE else CYCLE
    i += i < end and data[i] == COLON
    if not _ended(data, i, end):
        return CYCLE
    i, record[3] = _skip(data, i, end), 0
    if i < end and data[i] == OPEN:
        record[3], i = _decimal(data, i + 1, end)
        if record[3] <= 0 or i >= end or data[i] != CLOSE:
            return LENGTH
        i = _skip(data, i + 1, end)
    word, i = _name(data, i, end)
    record[1] = word == W_SMALL_WRITE
    if word != W_SMALL_READ and word != W_SMALL_WRITE:
        return COMMAND
    record[0], i = _hex(data, _skip(data, i, end), end)
    if record[0] < 0 or not _ended(data, i, end):
        return LARGE if record[0] == TOO_LARGE else ADDRESS
    return _payload(data, _skip(data, i, end), end)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _payload(data: Any, i: int, end: int) -> int:
    """Check the data of a request, which is not kept."""
    if i == end:
        return FINE
    i += 2 if _prefixed(data, i, end) else 0
    first = i
    while i < end and _nibble(data[i]) >= 0:
        i += 1
    if i == first or not _ended(data, i, end):
        return DATA
    return FINE if _skip(data, i, end) == end else MORE


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _ramulator(data: Any, i: int, end: int, record: Any, vectors: Any) -> int:
    """Read ``LD|ST|R|W ADDRESS``, ``R|W VECTOR`` or ``ADDRESS R|W`` into `record`."""
    record[2] = record[3] = 0
    leading = np.int64(data[i]) - ZERO
    if 0 <= leading <= 9:
        record[0], i = _address(data, i, end)
        if record[0] < 0 or not _ended(data, i, end):
            return LARGE if record[0] == TOO_LARGE else ADDRESS
        i = _skip(data, i, end)
    word, after = _name(data, i, end)
    record[1] = word in (W_W, W_ST)
    if not record[1] and word != W_R and word != W_LD:
        return COMMAND
    i = _skip(data, after, end)
    if 0 <= leading <= 9:
        if word in (W_LD, W_ST):
            return COMMAND
        return FINE if i == end else MORE
    start = i
    record[0], i = _address(data, i, end)
    if i < end and data[i] == COMMA and word in (W_R, W_W):
        return _vector(data, start, end, record, vectors)
    if record[0] < 0 or not _ended(data, i, end):
        return LARGE if record[0] == TOO_LARGE else ADDRESS
    return FINE if _skip(data, i, end) == end else MORE


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _address(data: Any, i: int, end: int) -> Any:
    """Return the number at `i`, hexadecimal after 0x and else decimal, and the place after."""
    return _hex(data, i, end) if _prefixed(data, i, end) else _decimal(data, i, end)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _vector(data: Any, i: int, end: int, record: Any, vectors: Any) -> int:
    """Put the address of the vector at `i` together; see `parse` for `vectors`."""
    order, counts = vectors[0], vectors[1]
    fields = record[4:]
    fields[:] = 0
    for n in range(len(order)):
        value, i = _decimal(data, i, end)
        if value == NO_DIGIT:
            return VECTOR
        if value < 0 or value >= counts[n]:
            return BEYOND
        fields[order[n]] = value
        if n + 1 < len(order):
            if i >= end or data[i] != COMMA:
                return VECTOR
            i += 1
    if not len(order) or not _ended(data, i, end):
        return VECTOR
    record[0] = _placed(fields, vectors[2], vectors[3])
    return FINE if _skip(data, i, end) == end else MORE


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _placed(fields: Any, pieces: Any, xored: Any) -> int:
    """Return the address of a channel's fields."""
    fields[BANK] ^= fields[ROW] & xored[0]
    fields[GROUP] ^= (fields[ROW] >> xored[2]) & xored[1]
    access = np.int64(0)
    for n in range(len(pieces)):
        field, at, to, bits = pieces[n, 0], pieces[n, 1], pieces[n, 2], pieces[n, 3]
        access |= ((fields[field] >> to) & ((1 << bits) - 1)) << at
    return access << xored[3]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def parse(
    data: Any, form: int, limit: int, vectors: Any, address: Any, write: Any, cycle: Any,
    length: Any, record: Any,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Parse the lines of `data`, uint8; returns (requests, lines, why wrong, where).

    Blank lines and lines that begin with ``#`` hold no request. Of a wrong line `lines`
    counts the lines before it and `where` is its first byte. `limit` is the first address
    beyond the device.

    Parameters
    ----------
    data
        Bytes of whole lines.
    form
        DRAMSIM3, RAMULATOR, STL or RSTL.
    limit
        Bytes that may be addressed.
    vectors
        Of address vectors, int64 arrays: which of `FIELD_NAMES` each place holds, how many
        values it has; rows of field, bit of the access number, bit of the field and number
        of bits; and four numbers: the row bits XORed onto bank and bank group, where the
        latter begin, the bits of a byte's place in an access.
    address, write, cycle, length
        Filled: int64, uint8, int64, int64; a length of 0 is one burst.
    record
        int64 (RECORD,), scratch.
    """
    n = lines = i = 0
    size = len(data)
    while i < size:
        end = i
        while end < size and data[end] != NEWLINE:
            end += 1
        at = _skip(data, i, end)
        if at < end and data[at] != HASH:
            if form == DRAMSIM3:
                wrong = _dramsim3(data, at, end, record)
            elif form == RAMULATOR:
                wrong = _ramulator(data, at, end, record, vectors)
            else:
                wrong = _stl(data, at, end, record)
            if wrong == FINE and (record[0] >= limit or record[3] > limit - record[0]):
                wrong = BEYOND
            if wrong != FINE:
                return n, lines, wrong, i
            address[n], write[n], cycle[n], length[n] = record[0], record[1], record[2], record[3]
            n += 1
        lines += 1
        i = end + 1
    return n, lines, FINE, 0


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _put_decimal(out: Any, i: int, value: int) -> int:
    digits, rest = 1, value // 10
    while rest:
        digits, rest = digits + 1, rest // 10
    for place in range(i + digits - 1, i - 1, -1):
        out[place] = ZERO + value % 10
        value //= 10
    return i + digits


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _put_hex(out: Any, i: int, value: int) -> int:
    out[i], out[i + 1] = ZERO, SMALL_X
    digits, rest = 1, value >> 4
    while rest:
        digits, rest = digits + 1, rest >> 4
    for place in range(i + digits + 1, i + 1, -1):
        nibble = value & 15
        out[place] = ZERO + nibble if nibble < 10 else 87 + nibble
        value >>= 4
    return i + 2 + digits


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _put(out: Any, i: int, text: Any) -> int:
    for place in range(len(text)):
        out[i + place] = text[place]
    return i + len(text)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def render(
    out: Any, form: int, address: Any, write: Any, cycle: Any, read_text: Any, write_text: Any
) -> int:
    """Write the lines of the requests into `out`, uint8; returns their bytes.

    `read_text` and `write_text` are the bytes of the command with the blanks around it.
    """
    i = 0
    for n in range(len(address)):
        text = write_text if write[n] else read_text
        if form == DRAMSIM3:
            i = _put_decimal(out, _put(out, _put_hex(out, i, address[n]), text), cycle[n])
        elif form == RAMULATOR:
            i = _put_hex(out, _put(out, i, text), address[n])
        else:
            i = _put_hex(out, _put(out, _put_decimal(out, i, cycle[n]), text), address[n])
        out[i] = NEWLINE
        i += 1
    return i
