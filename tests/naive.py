"""Slow, obvious references of every container, bit by bit; they share no code with the kernels."""

import math

import numpy as np

from sfpsim.formats import format_of


def split_block(spec):
    """Return a specification without its block size, and the size."""
    for sign in ",:":
        plain, found, size = spec.partition(f"{sign}block=")
        if found:
            return plain, int(size)
    return spec, 16384


def words(x):
    fmt = format_of(x.dtype)
    flat = np.ascontiguousarray(x).reshape(-1).view(fmt.word_dtype)
    return [int(w) for w in flat]


def fields(word, fmt):
    mantissa = word % (1 << fmt.mantissa_bits)
    exponent = (word >> fmt.mantissa_bits) % (1 << fmt.exponent_bits)
    return word >> (fmt.bits - 1), exponent, mantissa


def value_of(exponent, mantissa, fmt):
    """The magnitude as an exact pair of integers would be heavy: float64 holds it exactly."""
    if exponent == 0:
        return math.ldexp(mantissa, 1 - fmt.bias - fmt.mantissa_bits)
    return math.ldexp(mantissa + (1 << fmt.mantissa_bits), exponent - fmt.bias - fmt.mantissa_bits)


def parse(spec, fmt):
    """Return (code, kept mantissa bits, exponent bits)."""
    if spec in ("gecko-bias", "gecko-delta"):
        return spec, fmt.mantissa_bits, 8
    options = dict(piece.split("=") for piece in spec.partition(":")[2].split(","))
    kept = int(options.get("m", fmt.mantissa_bits))
    return options.get("exponent", "fixed"), kept, int(options.get("e", 8))


def quantize_word(word, fmt, kept, ebits):
    """Return the quantized word and whether a NaN was lost."""
    sign, exponent, mantissa = fields(word, fmt)
    special = exponent == fmt.exponent_max
    nan = special and mantissa != 0
    gone = fmt.mantissa_bits - kept
    if ebits < fmt.exponent_bits:
        emin, emax = -(2 ** (ebits - 1)), 2 ** (ebits - 1) - 1
        vmin = (1 + 2.0**-kept) * 2.0**emin
        vmax = (2 - 2.0**-kept) * 2.0**emax
        v = math.inf if special else value_of(exponent, mantissa, fmt)
        if v > vmax:
            v = vmax
        elif v < vmin / 2:
            v = 0.0
        elif v < vmin:
            v = vmin
        if v == 0:
            exponent, mantissa = 0, 0
        else:
            fraction, power = math.frexp(v)
            exponent = power - 1 + fmt.bias
            mantissa = int((2 * fraction - 1) * (1 << fmt.mantissa_bits))
        mantissa = mantissa >> gone << gone
        lost = nan
    else:
        mantissa = mantissa >> gone << gone
        lost = nan and mantissa == 0 and kept == 0
        if nan and mantissa == 0 and kept > 0:
            mantissa = 1 << gone
    return sign << (fmt.bits - 1) | exponent << fmt.mantissa_bits | mantissa, lost


def quantize(spec, x):
    fmt = format_of(x.dtype)
    _, kept, ebits = parse(spec, fmt)
    pairs = [quantize_word(w, fmt, kept, ebits) for w in words(x)]
    flat = np.array([p[0] for p in pairs], fmt.word_dtype).view(fmt.dtype)
    return flat.reshape(x.shape), sum(p[1] for p in pairs)


def gecko_symbol(exponent, base, code, fmt):
    """Return (flag, magnitude)."""
    bias, top = fmt.bias, fmt.exponent_max
    if exponent == 0:
        return 1, 0
    if code == "gecko-bias":
        if exponent == top:
            return 1, bias
        d = exponent - bias
    else:
        d = ((exponent - base + bias) % top) - bias
    return int(d < 0), abs(d)


def align(n, to):
    return -(-n // to) * to


def low_bits(number, count):
    return [(number >> i) & 1 for i in range(count)]


def as_bytes(bits):
    bits = bits + [0] * (-len(bits) % 8)
    return bytes(
        sum(bit << i for i, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8)
    )


def encode_block(block, spec, fmt, signed):
    """Return (payload, metadata, raw, sizes by field, row lengths L) of quantized words."""
    code, kept, ebits = parse(spec, fmt)
    block = list(block)
    count = len(block)
    while len(block) % 8:
        at = len(block)
        row = at // 8
        exponent = fmt.bias
        if code == "gecko-delta" and row % 8:
            exponent = fields(block[(row - row % 8) * 8 + at % 8], fmt)[1] or fmt.bias
        block.append(exponent << fmt.mantissa_bits)
    lanes = [[] for _ in range(8)]
    metadata, lengths = [], []
    sizes = {"sign_bits": 0, "exponent_bits": 0, "mantissa_bits": 0, "metadata_bits": 0}
    base = [0] * 8
    for row in range(len(block) // 8):
        parts = [fields(w, fmt) for w in block[8 * row : 8 * row + 8]]
        plain = code == "fixed" or (code == "gecko-delta" and row % 8 == 0)
        if code == "gecko-delta" and row % 8 == 0:
            base = [e or fmt.bias for _, e, _ in parts]
        symbols = [gecko_symbol(e, b, code, fmt) for (_, e, _), b in zip(parts, base, strict=True)]
        width = max(m for _, m in symbols).bit_length()
        if not plain:
            metadata += low_bits(width, 3)
        for lane, (sign, exponent, mantissa) in enumerate(parts):
            flag, magnitude = symbols[lane]
            if code == "fixed" and ebits < fmt.exponent_bits:
                shown = 0 if exponent == 0 else exponent - fmt.bias + 2 ** (ebits - 1)
                symbol = low_bits(shown, ebits)
            elif plain:
                symbol = low_bits(exponent, fmt.exponent_bits)
            else:
                symbol = [*low_bits(magnitude, width), flag]
            tail = low_bits(mantissa >> (fmt.mantissa_bits - kept), kept)
            tail_sign = [sign] if signed else []
            lanes[lane] += symbol + tail + tail_sign
            sizes["exponent_bits"] += len(symbol)
            sizes["mantissa_bits"] += kept
            sizes["sign_bits"] += len(tail_sign)
        lengths.append(len(symbol) + kept + int(signed))
    sizes["metadata_bits"] = len(metadata)
    payload = b""
    for at in range(0, len(lanes[0]), 32):
        for lane in lanes:
            payload += as_bytes(lane[at : at + 32]).ljust(4, b"\0")
    payload = payload.ljust(align(len(payload), 64), b"\0")
    stream = as_bytes(metadata)
    stream = stream.ljust(align(len(stream), 64), b"\0")
    plain_bytes = align(count * fmt.bytes, 64)
    if len(payload) + len(stream) >= plain_bytes:
        raw = b"".join(w.to_bytes(fmt.bytes, "little") for w in block[:count])
        sizes = {
            "sign_bits": count,
            "exponent_bits": count * fmt.exponent_bits,
            "mantissa_bits": count * fmt.mantissa_bits,
            "metadata_bits": 0,
        }
        return raw.ljust(plain_bytes, b"\0"), b"", True, sizes, lengths
    return payload, stream, False, sizes, lengths


def index_fields(block_values):
    """Return the widths of an index entry's start, slot and payload length, by trial."""
    longest, metadata = (
        align(4 * block_values, 64) // 64,
        align(-(-3 * block_values // 64), 64) // 64,
    )
    length, rest = len(f"{longest:b}"), 63 - len(f"{longest:b}") - len(f"{metadata:b}")
    slots = max(n for n in range(rest) if ((1 << n) * longest - 1).bit_length() <= rest - n)
    return rest - slots, slots, length


def encode(spec, x):
    """Return payload, metadata, index, sizes and the rows' lengths."""
    fmt = format_of(x.dtype)
    spec, block_values = split_block(spec)
    start, slots, length = index_fields(block_values)
    quantized, nan_lost = quantize(spec, x)
    all_words = words(quantized)
    signed = any(w >> (fmt.bits - 1) for w in words(x))
    payload, metadata, index, lengths = b"", b"", b"", []
    names = ("sign_bits", "exponent_bits", "mantissa_bits", "metadata_bits")
    total = dict.fromkeys(names, 0)
    raw_blocks, slot = 0, 0
    for at in range(0, len(all_words), block_values):
        block = encode_block(all_words[at : at + block_values], spec, fmt, signed)
        entry = len(payload) // 64 + (slot << start) + (len(block[0]) // 64 << start + slots)
        entry += (len(block[1]) // 64 << start + slots + length) + (int(block[2]) << 63)
        index += entry.to_bytes(8, "little")
        payload, metadata = payload + block[0], metadata + block[1]
        slot += len(block[1]) > 0
        raw_blocks += block[2]
        total = {name: total[name] + block[3][name] for name in names}
        lengths += block[4]
    used = sum(total.values())
    total["padding_bits"] = 8 * (len(payload) + len(metadata)) - used
    total |= {"index_bits": 8 * len(index), "raw_blocks": raw_blocks, "nan_lost": nan_lost}
    total |= {"values": len(all_words), "raw_bits": len(all_words) * fmt.bits}
    return payload, metadata, index, total, lengths


def paper_exponent_bits(x):
    fmt = format_of(x.dtype)
    exponents = [fields(w, fmt)[1] for w in words(x)]
    total = 0
    for at in range(0, len(exponents), 8):
        distances = [abs(e - fmt.bias) for e in exponents[at : at + 8] if e != 0]
        total += 8 * max(distances, default=0).bit_length() + 3
    return total


def round_word(word, source, target):
    """Round one word to another format: nearest even on exact integers; NaN rules."""
    sign, exponent, mantissa = fields(word, source)
    wider = (
        target.exponent_bits >= source.exponent_bits
        and target.mantissa_bits >= source.mantissa_bits
    )
    out_sign = sign << (target.bits - 1)
    infinite = target.exponent_max << target.mantissa_bits
    shift = target.mantissa_bits - source.mantissa_bits
    if exponent == source.exponent_max:
        if mantissa == 0:
            return out_sign | infinite
        moved = mantissa << shift if shift >= 0 else mantissa >> -shift
        if not wider:
            moved |= 1 << (target.mantissa_bits - 1)
        return out_sign | infinite | moved
    v = value_of(exponent, mantissa, source)
    power = math.frexp(v)[1] - 1 if v else 1 - target.bias
    power = max(power, 1 - target.bias)
    steps = math.ldexp(v, target.mantissa_bits - power)
    rounded = round(steps)
    magnitude = ((power + target.bias - 1) << target.mantissa_bits) + rounded
    return out_sign | min(magnitude, infinite)
