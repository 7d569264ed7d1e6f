"""A second reader of `.sfp` files, from docs/container-format.md and its sister pages alone.

Slow, whole numbers and strings of bits, no sfpsim: ``read(data)`` gives the words of all
values, ``read(data, block)`` those of one block from its own bytes.
"""

import json
import zlib

E_AND_M = {"float32": (8, 23), "bfloat16": (8, 7), "float16": (5, 10)}


def number(data):
    return int.from_bytes(data, "little")


class Bits:
    """A stream of bits, the lowest of each byte first."""

    def __init__(self, data):
        self.text = "".join(f"{byte:08b}"[::-1] for byte in data)
        self.at = 0

    def take(self, count):
        """The next bits as they come."""
        piece = self.text[self.at : self.at + count].ljust(count, "0")
        self.at += count
        return piece

    def low(self, count):
        """A number, lowest bit first."""
        return int(self.take(count)[::-1] or "0", 2)

    def high(self, count):
        """A number, highest bit first."""
        return int(self.take(count) or "0", 2)


def front(data):
    """Return header, table and the three streams, everything checked that the page names."""
    magic, version, zero, length = data[:4], data[4:6], data[6:8], number(data[8:12])
    assert (magic, number(version), number(zero)) == (b"SFPT", 1, 0)
    text = data[16 : 16 + length]
    assert number(data[12:16]) == zlib.crc32(data[:12] + text)
    header, at = json.loads(text), 16 + length
    count = 1
    for size in header["shape"]:
        count *= size
    assert header["blocks"] == -(-count // header.get("block_values", 16384))
    table = data[at : at + 12 * header["blocks"]]
    at += len(table) + 4
    index = data[at : at + header["index_bytes"]]
    assert number(data[at - 4 : at]) == zlib.crc32(table + index)
    at += len(index)
    payload = data[at : at + header["payload_bytes"]]
    metadata = data[at + len(payload) :]
    assert len(metadata) == header["metadata_bytes"]
    entries = [
        [number(table[i + j : i + j + 4]) for j in (0, 4, 8)] for i in range(0, len(table), 12)
    ]
    return header, count, entries, index, payload, metadata


def read(data, block=None):
    header, count, entries, index, payload, metadata = front(data)
    out, at, meta_at = [], 0, 0
    for i, (size, meta_size, crc) in enumerate(entries):
        mine, meta = payload[at : at + size], metadata[meta_at : meta_at + meta_size]
        at, meta_at = at + size, meta_at + meta_size
        if block is not None and i != block:
            continue
        assert zlib.crc32(mine + meta) == crc
        entry = number(index[8 * i : 8 * i + 8])
        block_values = header.get("block_values", 16384)
        values = min(block_values, count - block_values * i)
        out += one_block(header, mine, meta, entry >> 63, values)
    return out


def one_block(header, payload, metadata, raw, values):
    e, m = E_AND_M[header["dtype"]]
    if raw:
        size = (1 + e + m) // 8
        return [number(payload[i : i + size]) for i in range(0, size * values, size)]
    name, _, rest = header["container"].partition(":")
    keys = dict(piece.split("=") for piece in rest.split(",")) if rest else {}
    if name == "ebpc":
        return ebpc(Bits(payload), e, m, values)
    kept, sign = int(keys.get("m", m)), int(header["signed"])
    widths = crest_rows if name == "crest" else gecko_rows
    name = keys.get("exponent", name)
    rows = widths(name, Bits(metadata), e, -(-values // 8))
    out = lanes(payload, rows, (e, m, kept, sign))
    return out[:values]


def lanes(payload, rows, layout):
    """Rows of (bits of the exponent part, how 8 of these become exponent fields)."""
    e, m, kept, sign = layout
    beats = [payload[i : i + 32] for i in range(0, len(payload), 32)]
    lane = [Bits(b"".join(beat[4 * i : 4 * i + 4] for beat in beats)) for i in range(8)]
    out = []
    for bits, exponents in rows:
        parts, rest = [], []
        for one in lane:
            parts.append(one.low(bits))
            rest.append((one.low(kept) << (m - kept), one.low(sign)))
        for field, (mantissa, negative) in zip(exponents(parts), rest, strict=True):
            out.append(mantissa | field << m | negative << (e + m))
    return out


def gecko_rows(name, metadata, e, rows):
    bias, period = 2 ** (e - 1) - 1, 2**e - 1
    base = [bias] * 8

    def coded(width):
        def exponents(parts):
            fields = []
            for part, b in zip(parts, base, strict=True):
                magnitude, flag = part % 2**width, part >> width
                if flag and magnitude == 0:
                    fields.append(0)
                elif name == "gecko-bias" and flag and magnitude == bias:
                    fields.append(period)
                else:
                    distance = -magnitude if flag else magnitude
                    fields.append((b + distance - 1) % period + 1)
            return fields

        return exponents

    def plain(parts):
        base[:] = [part or bias for part in parts]
        return parts

    for row in range(rows):
        if name == "gecko-delta" and row % 8 == 0:
            yield e, plain
        else:
            width = metadata.low(3)
            yield width + 1, coded(width)


def crest_rows(_, metadata, e, rows):
    for _ in range(0, rows, 4):
        mode = metadata.low(3)
        if mode == 7:
            for _ in range(4):
                yield e, lambda parts: parts
            continue
        top = metadata.low(e)
        zeros = metadata.low(1) if top else 0
        for _ in range(4):
            mask = metadata.take(8) if zeros else "0" * 8
            quotients = [None] * 8
            for lane in range(8):
                if top and mask[lane] == "0":
                    quotients[lane] = 0
                    while metadata.take(1) == "0":
                        quotients[lane] += 1

            def exponents(parts, quotients=quotients, mode=mode, top=top):
                return [
                    0 if q is None else top - (part + (q << mode))
                    for part, q in zip(parts, quotients, strict=True)
                ]

            yield mode, exponents


def ebpc(bits, e, m, values):
    size, out, waiting = 1 + e + m, [], []
    while len(out) < values:
        if bits.take(1) == "0":
            out += [0] * (bits.high(4) + 1)
            continue
        if not waiting:
            waiting = ebpc_words(bits, size)
        out.append(waiting.pop(0))
    return out


def ebpc_words(bits, size):
    first, planes, below = bits.high(size), [], "0" * 7
    while len(planes) < size + 1:
        run = 1
        if bits.take(1) == "1":
            crossed = bits.take(7)
        elif bits.take(1) == "1":
            crossed = "0" * 7
        elif bits.take(1) == "1":
            crossed, run = "0" * 7, bits.high({32: 5, 16: 4}[size]) + 2
        else:
            crossed = {"00": "1" * 7, "01": below, "10": "11", "11": "1"}[bits.take(2)]
            if len(crossed) < 7:
                crossed = ("0" * bits.high(3) + crossed).ljust(7, "0")
        for _ in range(run):
            below = "".join("01"[a != b] for a, b in zip(below, crossed, strict=True))
            planes.append(below)
    words = [first]
    for i in range(7):
        difference = sum(int(plane[i]) << at for at, plane in enumerate(planes))
        words.append((words[-1] + difference) % 2**size)
    return words
