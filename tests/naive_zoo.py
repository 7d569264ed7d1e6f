"""Slow, obvious references of the zoo: exact fractions, strings of bits, no shared code.

Each returns the payload and metadata bytes and the values read back, as Fractions or the
texts 'nan', 'inf', '-inf', '-0'.
"""

import functools
import itertools
import math
import struct
from fractions import Fraction

import numpy as np

import naive
from naive import fields, words
from sfpsim.formats import format_of

MINI = {  # exponent bits, mantissa bits, which codes are special
    "fp8-e4m3": (4, 3, "nan"),
    "fp8-e5m2": (5, 2, "ieee"),
    "fp6-e3m2": (3, 2, "none"),
    "fp6-e2m3": (2, 3, "none"),
    "fp4-e2m1": (2, 1, "none"),
    "tf32": (8, 10, "ieee"),
}
MX = {
    "mxfp8-e4m3": "fp8-e4m3",
    "mxfp8-e5m2": "fp8-e5m2",
    "mxfp6-e3m2": "fp6-e3m2",
    "mxfp6-e2m3": "fp6-e2m3",
    "mxfp4": "fp4-e2m1",
}


def number(word, fmt):
    """Return (sign, magnitude): a Fraction, 'inf', or ('nan', its top payload bits)."""
    sign, exponent, mantissa = fields(word, fmt)
    if exponent == fmt.exponent_max:
        return sign, ("nan", mantissa) if mantissa else "inf"
    hidden = 0 if exponent == 0 else 1 << fmt.mantissa_bits
    power = max(exponent, 1) - fmt.bias - fmt.mantissa_bits
    return sign, Fraction(mantissa + hidden) * Fraction(2) ** power


def numbers(x):
    fmt = format_of(x.dtype)
    return [number(w, fmt) for w in words(x)]


def bits_to_bytes(text):
    """A text of bits, first bit first, least significant bit of each byte first."""
    text += "0" * (-len(text) % 8)
    return bytes(int(text[at : at + 8][::-1], 2) for at in range(0, len(text), 8))


def low_first(value, count):
    return format(value, f"0{count}b")[::-1] if count else ""


def half_even(q):
    return round(q)


def half_away(q):
    return math.floor(q + Fraction(1, 2))


@functools.cache
def table_of(ebits, mbits, specials):
    """All magnitudes of a format by code: Fraction, 'inf' or 'nan'."""
    bias, values = 2 ** (ebits - 1) - 1, []
    for exponent in range(1 << ebits):
        for mantissa in range(1 << mbits):
            top = exponent == (1 << ebits) - 1
            if specials == "ieee" and top:
                values.append("nan" if mantissa else "inf")
            elif specials == "nan" and top and mantissa == (1 << mbits) - 1:
                values.append("nan")
            else:
                hidden = 1 if exponent else 0
                fraction = hidden + Fraction(mantissa, 1 << mbits)
                values.append(fraction * Fraction(2) ** (max(exponent, 1) - bias))
    return values


def floor_log2(q):
    power = q.numerator.bit_length() - q.denominator.bit_length()
    return power if Fraction(2) ** power <= q else power - 1


def mini_code(magnitude, ebits, mbits, specials, overflow, rounding, nan_quiet, source_mbits):
    """Return the code of a magnitude, unbounded rounding first, then the format's end."""
    top = (1 << ebits) - 1
    infinite = top << mbits
    largest = {"ieee": infinite - 1, "nan": (infinite | (1 << mbits) - 1) - 1}.get(
        specials, infinite | (1 << mbits) - 1
    )
    beyond = {"ieee": infinite, "nan": largest + 1, "none": largest}[specials]
    beyond = largest if overflow == "saturate" else beyond
    if isinstance(magnitude, tuple):
        if specials == "nan":
            return largest + 1
        if specials == "none":
            return largest
        payload = magnitude[1]
        shift = mbits - source_mbits
        kept = payload << shift if shift >= 0 else payload >> -shift
        if nan_quiet and mbits:
            kept |= 1 << (mbits - 1)
        return infinite | kept
    if magnitude == "inf":
        return beyond
    if magnitude == 0:
        return 0
    bias = 2 ** (ebits - 1) - 1
    power = max(floor_log2(magnitude), 1 - bias)
    steps = rounding(magnitude / Fraction(2) ** (power - mbits))
    code = ((power + bias - 1) << mbits) + steps
    return beyond if code > largest else code


def mini(spec, x):
    """Small floats, with or without a tensor's scale."""
    name, _, rest = spec.partition(":")
    options = dict(piece.split("=") for piece in rest.split(",")) if rest else {}
    fmt = format_of(x.dtype)
    if name == "float":
        ebits, mbits, specials = int(options["e"]), int(options["m"]), "ieee"
    else:
        ebits, mbits, specials = MINI[name]
    overflow = options.get("overflow", "saturate" if name.startswith("fp") else "special")
    values = numbers(x)
    exact = specials == "ieee" and overflow == "special" and "scale" not in options
    exact = exact and ebits >= fmt.exponent_bits and mbits >= fmt.mantissa_bits
    rounding = half_away if name == "tf32" else half_even
    scale, metadata = 0, b""
    if options.get("scale") == "tensor":
        finite = [m for _, m in values if isinstance(m, Fraction)]
        table = [v for v in table_of(ebits, mbits, specials) if isinstance(v, Fraction)]
        amax = max(finite, default=Fraction(0))
        scale = floor_log2(amax) - floor_log2(max(table)) if amax else -127
        scale = min(max(scale, -127), 127)
        metadata = bytes([scale + 127]) if values else b""
    text, back = "", []
    for sign, magnitude in values:
        scaled = magnitude / Fraction(2) ** scale if isinstance(magnitude, Fraction) else magnitude
        code = mini_code(
            scaled, ebits, mbits, specials, overflow, rounding, not exact, fmt.mantissa_bits
        )
        width = 1 + ebits + mbits
        if name == "tf32":
            text += "0" * (32 - width)
        text += low_first(code | sign << (width - 1), width)
        back.append((sign, read_code(code, ebits, mbits, specials, scale)))
    return bits_to_bytes(text), metadata, back


def read_code(code, ebits, mbits, specials, scale):
    value = table_of(ebits, mbits, specials)[code] if ebits + mbits < 20 else None
    if value is None:
        exponent, mantissa = code >> mbits, code % (1 << mbits)
        if exponent == (1 << ebits) - 1:
            value = "nan" if mantissa else "inf"
        else:
            fraction = (1 if exponent else 0) + Fraction(mantissa, 1 << mbits)
            value = fraction * Fraction(2) ** (max(exponent, 1) - (2 ** (ebits - 1) - 1))
    return value * Fraction(2) ** scale if isinstance(value, Fraction) else value


def groups(values, size):
    return [values[at : at + size] for at in range(0, len(values), size)]


def amax_power(block):
    """floor(log2) of the largest, 128 with an Inf, 'nan' with a NaN, None for zeros."""
    magnitudes = [m for _, m in block]
    if any(isinstance(m, tuple) for m in magnitudes):
        return "nan"
    if "inf" in magnitudes:
        return 128
    top = max(magnitudes)
    return floor_log2(top) if top else None


def mx(spec, x):
    ebits, mbits, specials = MINI[MX[spec]]
    table = [v for v in table_of(ebits, mbits, specials) if isinstance(v, Fraction)]
    emax = floor_log2(max(table))
    text, metadata, back = "", b"", []
    for block in groups(numbers(x), 32):
        power = amax_power(block)
        if power == "nan":
            scale = min(128 - emax, 127)  # elements as if the NaN were Inf
            metadata += b"\xff"
        else:
            scale = -127 if power is None else min(max(power - emax, -127), 127)
            metadata += bytes([scale + 127])
        for sign, magnitude in block:
            plain = isinstance(magnitude, Fraction)
            scaled = magnitude / Fraction(2) ** scale if plain else magnitude
            code = mini_code(scaled, ebits, mbits, specials, "saturate", half_even, True, 23)
            if isinstance(magnitude, tuple) and specials == "ieee":
                code = mini_code(
                    ("nan", magnitude[1] << (23 - format_of(x.dtype).mantissa_bits)),
                    ebits, mbits, specials, "saturate", half_even, True, 23,
                )  # fmt: skip
            text += low_first(code | sign << (ebits + mbits), 1 + ebits + mbits)
            value = read_code(code, ebits, mbits, specials, scale)
            back.append((0, "nan") if power == "nan" else (sign, value))
    return bits_to_bytes(text), metadata, back


def mxint8(spec, x):
    text, metadata, back = "", b"", []
    for block in groups(numbers(x), 32):
        power = amax_power(block)
        scale = {None: -127, "nan": 127}.get(power, power)
        scale = min(max(scale, -127), 127)
        metadata += b"\xff" if power == "nan" else bytes([scale + 127])
        for sign, magnitude in block:
            count = 127
            if isinstance(magnitude, Fraction):
                count = min(half_even(magnitude * 64 / Fraction(2) ** scale), 127)
            text += low_first((-count if sign else count) % 256, 8)
            value = Fraction(count, 64) * Fraction(2) ** scale
            sign = 0 if count == 0 else sign
            back.append((0, "nan") if power == "nan" else (sign, value))
    return bits_to_bytes(text), metadata, back


def msfp(spec, x):
    bits = int(spec[4:]) - 9
    text, metadata, back = "", b"", []
    for block in groups(numbers(x), 16):
        if any(not isinstance(m, Fraction) for _, m in block):
            exponent = 255
        else:
            top = max(m for _, m in block)
            exponent = max(floor_log2(top) + 127, 1) if top else 1
        metadata += bytes([exponent])
        unit = Fraction(2) ** (exponent - 127 - bits + 1)
        for sign, magnitude in block:
            count = (1 << bits) - 1
            if isinstance(magnitude, Fraction):
                count = min(half_even(magnitude / unit), count)
            text += low_first(count | sign << bits, bits + 1)
            back.append((sign, count * unit))
    return bits_to_bytes(text), metadata, back


def flexpoint(spec, x):
    values = numbers(x)
    top = max((m for _, m in values if isinstance(m, Fraction)), default=Fraction(0))
    exponent = min(max(14 - floor_log2(top), 0), 31) if top else 31
    text, back = "", []
    for sign, magnitude in values:
        count = 32767
        if isinstance(magnitude, Fraction):
            count = min(half_even(magnitude * 2**exponent), 32767)
        text += low_first((-count if sign else count) % 65536, 16)
        back.append((0 if count == 0 else sign, Fraction(count) / 2**exponent))
    return bits_to_bytes(text), bytes([exponent]) if values else b"", back


def nearest(table, value):
    """Index of the nearest entry, the even index of two; saturates."""
    at = 0
    while at + 1 < len(table) and (table[at] + table[at + 1]) / 2 < value:
        at += 1
    tie = at + 1 < len(table) and (table[at] + table[at + 1]) / 2 == value
    return at + 1 if tie and at % 2 else at


def nvfp4(spec, x):
    values = numbers(x)
    if not values:
        return b"", b"", []
    e4m3 = [v for v in table_of(4, 3, "nan") if v != "nan"]
    e2m1 = table_of(2, 1, "none")
    amax = max((m for _, m in values if isinstance(m, Fraction)), default=Fraction(0))
    tensor = np.float32(float(amax) / (6.0 * 448.0))
    text, metadata, back = "", struct.pack("<f", tensor), []
    for block in groups(values, 16):
        magnitudes = [m for _, m in block]
        nan = any(isinstance(m, tuple) for m in magnitudes)
        top = max((m for m in magnitudes if isinstance(m, Fraction)), default=Fraction(0))
        ideal = float(top) / (6.0 * float(tensor)) if tensor > 0 else 0.0
        code = 0x7F if nan else nearest(e4m3, Fraction(ideal))
        metadata += bytes([code])
        scale = math.nan if nan else float(e4m3[code]) * float(tensor)
        for sign, magnitude in block:
            element = 0
            if scale > 0:
                infinite = not isinstance(magnitude, Fraction)
                element = 7 if infinite else nearest(e2m1, Fraction(float(magnitude) / scale))
            text += low_first(element | sign << 3, 4)
            value = Fraction(float(e2m1[element]) * scale) if not nan else "nan"
            back.append((0 if nan else sign, value))
    return bits_to_bytes(text), metadata, back


def uniform(spec, x):
    options = dict(piece.split("=") for piece in spec.partition(":")[2].split(",") if piece)
    bits = int(options.get("n", spec[3:] if spec in ("int4", "int8") else 0))
    over = options.get("range", "tensor")
    values = [(-m if s else m) if isinstance(m, Fraction) else (s, m) for s, m in numbers(x)]
    channels = x.shape[0] if x.ndim > 1 else 1
    sizes = {"tensor": x.size, "channel": x.size // max(channels, 1)}
    size = sizes[over] if over in sizes else int(over)
    text, metadata, back = "", b"", []
    for block in groups(values, max(size, 1)):
        finite = [float(v) for v in block if isinstance(v, Fraction)]
        low, high = min(finite, default=0.0), max(finite, default=0.0)
        metadata += struct.pack("<ff", low, high)
        step = (high - low) / (2**bits - 1)
        for v in block:
            if isinstance(v, Fraction):
                count = round((float(v) - low) / step) if step > 0 else 0
            else:
                count = 2**bits - 1 if v == (0, "inf") and step > 0 else 0
            count = min(max(count, 0), 2**bits - 1)
            text += low_first(count, bits)
            q = low + step * count
            back.append((int(q < 0), abs(Fraction(q))))
    return bits_to_bytes(text), metadata, back


def crest_group(block, fmt):
    """Return (mode, crest, header text, unary text of each row, lane field widths)."""
    exponents = [fields(w, fmt)[1] for w in block]
    exponents += [max(exponents)] * (32 - len(exponents))
    crest, ebits = max(exponents), fmt.exponent_bits
    distances = [None if e == 0 else crest - e for e in exponents]
    plain = (3 + 32 * ebits, 7, low_first(7, 3))
    if crest == 0:
        return 0, 0, low_first(0, 3) + low_first(0, ebits), exponents
    choices = [plain]
    for k in range(7):
        if max((d >> k) for d in distances if d is not None) > 7:
            continue
        flag = None in distances
        text = low_first(k, 3) + low_first(crest, ebits) + str(int(flag))
        for row in range(0, 32, 8):
            part = distances[row : row + 8]
            text += "".join(str(int(d is None)) for d in part) if flag else ""
            text += "".join("0" * (d >> k) + "1" for d in part if d is not None)
        choices.append((len(text) + 32 * k, k, text))
    _, mode, text = min(choices, key=lambda c: (c[0], c[1] != 7, c[1]))
    return mode, crest, text, exponents


def crest_block(block, fmt, kept, signed):
    lanes, metadata = ["" for _ in range(8)], ""
    for group in groups(block, 32):
        mode, crest, text, exponents = crest_group(group, fmt)
        metadata += text
        for i in range(32):
            sign, _, mantissa = fields(group[i], fmt) if i < len(group) else (0, 0, 0)
            if mode == 7:
                field = low_first(exponents[i], fmt.exponent_bits)
            else:
                distance = crest - exponents[i] if exponents[i] else 0
                field = low_first(distance % (1 << mode), mode)
            tail = low_first(mantissa >> (fmt.mantissa_bits - kept), kept)
            lanes[i % 8] += field + tail + (str(sign) if signed else "")
    payload = b""
    for at in range(0, len(lanes[0]), 32):
        payload += b"".join(bits_to_bytes(lane[at : at + 32].ljust(32, "0")) for lane in lanes)
    payload = payload.ljust(-(-len(payload) // 64) * 64, b"\0")
    stream = bits_to_bytes(metadata)
    stream = stream.ljust(-(-len(stream) // 64) * 64, b"\0")
    size = -(-len(block) * fmt.bytes // 64) * 64
    if len(payload) + len(stream) >= size:
        raw = b"".join(w.to_bytes(fmt.bytes, "little") for w in block)
        return raw.ljust(size, b"\0"), b"", True
    return payload, stream, False


def crest(spec, x):
    """Payload, metadata and index of crest."""
    fmt = format_of(x.dtype)
    spec, block_values = naive.split_block(spec)
    sfp = "sfp" + spec[5:] if ":" in spec else "sfp:e=8"
    kept = naive.parse(sfp, fmt)[1]
    quantized = words(naive.quantize(sfp, x)[0])
    signed = any(w >> (fmt.bits - 1) for w in words(x))
    payload, metadata, index = b"", b"", b""
    for block in groups(quantized, block_values):
        data, heads, raw = crest_block(block, fmt, kept, signed)
        entry = len(payload) // 64 | len(metadata) // 64 << 31 | int(raw) << 63
        index += entry.to_bytes(8, "little")
        payload, metadata = payload + data, metadata + heads
    return payload, metadata, index


def encode(spec, x):
    """Return payload, metadata and values read back (sign, magnitude)."""
    name = spec.partition(":")[0]
    if name in MINI or name == "float":
        return mini(spec, x)
    if name in MX:
        return mx(spec, x)
    if name.startswith("msfp"):
        return msfp(spec, x)
    if name.startswith("int"):
        return uniform(spec, x)
    return {"mxint8": mxint8, "nvfp4": nvfp4, "flexpoint": flexpoint}[name](spec, x)


def same_value(got, want, fmt):
    """Whether a stored-back word is the naive value rounded once to FP32, then its type."""
    sign, magnitude = want
    value = number(got, fmt)[1]
    if magnitude == "nan":
        return isinstance(value, tuple)
    wanted = math.inf if magnitude == "inf" else float32(magnitude)
    if fmt.name != "fp32":
        single = np.array([wanted], np.float32)
        with np.errstate(all="ignore"):
            wanted = float(single.astype(fmt.dtype)[0])
    if wanted == 0:
        return value == 0
    if math.isinf(wanted):
        return value == "inf" and fields(got, fmt)[0] == sign
    return value == Fraction(wanted) and fields(got, fmt)[0] == sign


def float32(q):
    with np.errstate(all="ignore"):
        return float(np.float32(float(q)))


def text_of_word(word, fmt):
    return low_first(word, fmt.bits)


def masked_text(block, fmt, group):
    text = ""
    for part in groups(block, group):
        text += "".join("1" if w else "0" for w in part)
        text += "".join(text_of_word(w, fmt) for w in part if w)
    return text


def csr_text(block, fmt):
    text = ""
    for part in groups(block, 256):
        held = [(i, w) for i, w in enumerate(part) if w]
        text += low_first(len(held), 9)
        text += "".join(low_first(i, 8) + text_of_word(w, fmt) for i, w in held)
    return text


def value_text(word, base, width, fmt):
    sign, exponent, mantissa = fields(word, fmt)
    flag, magnitude = naive.gecko_symbol(exponent, base, "gecko-delta", fmt)
    code = low_first(magnitude, width) + str(flag)
    return code + low_first(mantissa, fmt.mantissa_bits) + str(sign)


def width_of(block, base, fmt):
    magnitudes = [naive.gecko_symbol(fields(w, fmt)[1], base, "gecko-delta", fmt)[1] for w in block]
    return max(magnitudes, default=0).bit_length()


def base_delta_text(block, fmt):
    text = ""
    for part in groups(block, 32):
        base = fields(part[0], fmt)[1] or fmt.bias
        width = width_of(part[1:], base, fmt)
        text += text_of_word(part[0], fmt) + low_first(width, 3)
        text += "".join(value_text(w, base, width, fmt) for w in part[1:])
    return text


def shapeshifter_text(block, fmt):
    text = ""
    for part in groups(block, 16):
        held = [w for w in part if w]
        width = width_of(held, fmt.bias, fmt)
        text += "".join("1" if w else "0" for w in part) + low_first(width, 3)
        text += "".join(value_text(w, fmt.bias, width, fmt) for w in held)
    return text


def signed(data):
    return int.from_bytes(data, "little", signed=True)


def fits(value, bits):
    return -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)


def byte_text(value, size):
    return low_first(value % 256**size, 8 * size)


def bdi_text(data, line):
    text = ""
    for part in groups(data, line):
        part = part.ljust(line, b"\0")
        if len(set(groups(part, 8))) == 1:
            zero = part == bytes(line)
            text += low_first(0 if zero else 1, 4)
            text += "0" * 8 if zero else byte_text(signed(part[:8]), 8)
            continue
        for tag, (size, delta) in enumerate([(8, 1), (4, 1), (8, 2), (2, 1), (4, 2), (8, 4)], 2):
            values = [signed(v) for v in groups(part, size)]
            far = [v for v in values if not fits(v, 8 * delta)]
            base = far[0] if far else 0
            wrapped = [signed((v - base).to_bytes(9, "little", signed=True)[:size]) for v in far]
            if all(fits(d, 8 * delta) for d in wrapped):
                near = ["0" if fits(v, 8 * delta) else "1" for v in values]
                text += low_first(tag, 4) + "".join(near) + byte_text(base, size)
                for v, m in zip(values, near, strict=True):
                    text += byte_text(v - base if m == "1" else v, delta)
                break
        else:
            text += "1111" + "".join(byte_text(b, 1) for b in part)
    return text


def words_of_bytes(data):
    return [signed(part.ljust(4, b"\0")) for part in groups(data, 4)]


def fpc_text(data):
    text, left = "", words_of_bytes(data)
    while left:
        word, run = left[0], 0
        while run < min(8, len(left)) and left[run] == 0:
            run += 1
        if run:
            text += "000" + low_first(run - 1, 3)
            left = left[run:]
            continue
        raw = word % 2**32
        halves = [signed(raw.to_bytes(4, "little")[at : at + 2]) for at in (0, 2)]
        sizes = [n for n in (4, 8, 16) if fits(word, n)]
        if sizes:
            text += low_first(sizes[0].bit_length() - 2, 3) + low_first(
                raw % 2 ** sizes[0], sizes[0]
            )
        elif halves[0] == 0:
            text += low_first(4, 3) + byte_text(halves[1], 2)
        elif all(fits(h, 8) for h in halves):
            text += low_first(5, 3) + byte_text(halves[0], 1) + byte_text(halves[1], 1)
        elif len(set(raw.to_bytes(4, "little"))) == 1:
            text += low_first(6, 3) + byte_text(raw, 1)
        else:
            text += low_first(7, 3) + byte_text(raw, 4)
        left = left[1:]
    return text


def bpc_text(data):
    text = ""
    for part in groups(words_of_bytes(data), 32):
        part = part + [0] * (32 - len(part))
        base = part[0]
        sizes = [n for n in (4, 8, 16) if fits(base, n)]
        if base == 0:
            text += "000"
        elif sizes:
            text += {4: "001", 8: "010", 16: "011"}[sizes[0]]
            text += low_first(base % 2 ** sizes[0], sizes[0])
        else:
            text += "1" + low_first(base % 2**32, 32)
        deltas = [(b - a) % 2**33 for a, b in itertools.pairwise(part)]
        planes = ["".join(str(d >> p & 1) for d in deltas) for p in range(32, -1, -1)]
        above, codes = "0" * 31, []
        for plane in planes:
            crossed = "".join(str(int(a != b)) for a, b in zip(plane, above, strict=True))
            above = plane
            if "1" not in crossed:
                codes.append("zero")
            elif "0" not in crossed:
                codes.append("00000")
            elif "1" not in plane:
                codes.append("00001")
            elif crossed.count("1") == 2 and "11" in crossed:
                codes.append("00010" + low_first(crossed.index("1"), 5))
            elif crossed.count("1") == 1:
                codes.append("00011" + low_first(crossed.index("1"), 5))
            else:
                codes.append("1" + crossed)
        while codes:
            run = 0
            while run < len(codes) and codes[run] == "zero":
                run += 1
            text += "01" + low_first(run - 2, 5) if run > 1 else "001" if run else codes[0]
            codes = codes[max(run, 1) :]
    return text


def high_first(value, count):
    return format(value % 2**count, f"0{count}b")


def ebpc_plane_text(crossed, plane):
    """A plane's symbol; 'zero' is joined to runs later."""
    at, ones = crossed.find("1"), crossed.count("1")
    if ones == 0:
        return "zero"
    if ones == len(crossed):
        return "00000"
    if "1" not in plane:
        return "00001"
    if ones == 1:
        return "00011" + high_first(at, 3)
    return "00010" + high_first(at, 3) if crossed.count("11") == ones - 1 == 1 else "1" + crossed


def ebpc_block_text(numbers, size):
    """Eight words: base, then symbols of the planes from the lowest up."""
    deltas = [high_first(b - a, size + 1) for a, b in itertools.pairwise(numbers)]
    planes = ["".join(bits) for bits in zip(*deltas, strict=True)][::-1]
    symbols = []
    for plane, below in zip(planes, ["0" * 7, *planes], strict=False):
        crossed = "".join("01"[a != b] for a, b in zip(plane, below, strict=True))
        symbols.append(ebpc_plane_text(crossed, plane))
    text = high_first(numbers[0], size)
    for zero, same in itertools.groupby(symbols, lambda symbol: symbol == "zero"):
        same = list(same)
        if not zero:
            text += "".join(same)
        elif len(same) == 1:
            text += "01"
        else:
            text += "001" + high_first(len(same) - 2, {32: 5, 16: 4}[size])
    return text


def ebpc_text(block, fmt):
    held = [signed(w.to_bytes(fmt.bytes, "little")) for w in block if w]
    coded = iter([ebpc_block_text(b + [0] * (8 - len(b)), fmt.bits) for b in groups(held, 8)])
    text, used = "", 0
    for zero, same in itertools.groupby(block, lambda w: w == 0):
        same = list(same)
        if zero:
            text += "".join("0" + high_first(len(run) - 1, 4) for run in groups(same, 16))
            continue
        for _ in same:
            text += "1" + (next(coded) if used % 8 == 0 else "")
            used += 1
    return text


def coded_text(spec, block, fmt):
    data = b"".join(w.to_bytes(fmt.bytes, "little") for w in block)
    return {
        "js": lambda: masked_text(block, fmt, 8),
        "zvc": lambda: masked_text(block, fmt, 32),
        "gist": lambda: csr_text(block, fmt),
        "gist++": lambda: masked_text(block, fmt, 8),
        "base-delta": lambda: base_delta_text(block, fmt),
        "shapeshifter": lambda: shapeshifter_text(block, fmt),
        "bdi": lambda: bdi_text(data, 64),
        "bdi:line=32": lambda: bdi_text(data, 32),
        "fpc": lambda: fpc_text(data),
        "bpc": lambda: bpc_text(data),
        "ebpc": lambda: ebpc_text(block, fmt),
    }[spec]()


def coded(spec, x):
    """Payload and index of a container whose blocks are coded on their own."""
    fmt = format_of(x.dtype)
    spec, block_values = naive.split_block(spec)
    payload, index = b"", b""
    for block in groups(words(x), block_values):
        data = bits_to_bytes(coded_text(spec, block, fmt))
        size = -(-len(data) // 64) * 64
        plain = -(-len(block) * fmt.bytes // 64) * 64
        raw = size >= plain
        if raw:
            data, size = b"".join(w.to_bytes(fmt.bytes, "little") for w in block), plain
        entry = len(payload) // 64 | size // 64 << 40 | int(raw) << 63
        index += entry.to_bytes(8, "little")
        payload += data.ljust(size, b"\0")
    return payload, index


def bits_of_bytes(data):
    return "".join(format(byte, "08b")[::-1] for byte in data)


def number_of(text):
    return int(text[::-1] or "0", 2)


def take(text, *counts):
    """Split a text into numbers of so many bits and what is left."""
    numbers = []
    for count in counts:
        numbers.append(number_of(text[:count]))
        text = text[count:]
    return *numbers, text


def table_of_block(text, fmt, entry_bits):
    first, last, text = take(text, fmt.exponent_bits, fmt.exponent_bits)
    *entries, text = take(text, *[entry_bits] * (last - first + 1))
    return dict(zip(range(first, last + 1), entries, strict=True)), text


def read_huffman(data, fmt, count):
    """Words of one block, read code by code with dictionaries."""
    lengths, text = table_of_block(bits_of_bytes(data), fmt, 4)
    used = sorted((n, s) for s, n in lengths.items() if n)
    codes, code, before = {}, 0, used[0][0] if used else 0
    for length, symbol in used:
        code <<= length - before
        codes[format(code, f"0{length}b")] = symbol
        code, before = code + 1, length
    out = []
    for _ in range(count):
        size = 0
        while used and text[:size] not in codes:
            size += 1
        symbol = codes[text[:size]] if used else next(iter(lengths))
        mantissa, sign, text = take(text[size:], fmt.mantissa_bits, 1)
        out.append(mantissa | symbol << fmt.mantissa_bits | sign << (fmt.bits - 1))
    return out


def read_ans(data, fmt, count):
    """Words of one block, by the definition of range ANS."""
    shares, text = table_of_block(bits_of_bytes(data), fmt, 12)
    slots = [s for s, share in shares.items() for _ in range(share + 1)]
    assert len(slots) == 4096
    state, text = take(text, 32)
    symbols = []
    for _ in range(count):
        symbol = slots[state % 4096]
        symbols.append(symbol)
        state = (shares[symbol] + 1) * (state // 4096) + state % 4096 - slots.index(symbol)
        if state < 1 << 16:
            half, text = take(text, 16)
            state = state << 16 | half
    assert state == 1 << 16
    out = []
    for symbol in symbols:
        mantissa, sign, text = take(text, fmt.mantissa_bits, 1)
        out.append(mantissa | symbol << fmt.mantissa_bits | sign << (fmt.bits - 1))
    return out


def read_apack(data, fmt, count):
    """Words of one block; the code's interval as fractions of the whole of 16-bit registers."""
    text = bits_of_bytes(data)
    rows = []
    for _ in range(16):
        least, end, text = take(text, fmt.exponent_bits, 10)
        rows.append((least, end))
    assert (rows[0][0], rows[-1][1]) == (0, 1023)
    ends = [end for _, end in rows]
    sizes = [b - a for (a, _), (b, _) in itertools.pairwise([*rows, (1 << fmt.exponent_bits, 0)])]
    length, text = take(text, 24)
    code, text = text[:length], text[length:]
    point = Fraction(int(code, 2), 1 << length)
    unit, low, high = Fraction(1, 1 << 16), Fraction(0), Fraction(1)
    out, shifts = [], 0
    for _ in range(count):
        span = (high - low) / unit
        bounds = [low + unit * (int(span * end) >> 10) for end in [0, *ends]]
        at = next(i for i in range(16) if bounds[i] <= point < bounds[i + 1])
        low, high = bounds[at], bounds[at + 1]
        while True:  # double about 0, 1 or the middle
            if high <= Fraction(1, 2):
                away = Fraction(0)
            elif low >= Fraction(1, 2):
                away = Fraction(1, 2)
            elif low >= Fraction(1, 4) and high <= Fraction(3, 4):
                away = Fraction(1, 4)
            else:
                break
            low, high, point = (2 * (v - away) for v in (low, high, point))
            shifts += 1
        out.append(at)
    assert shifts + 16 == length
    words_out = []
    for at in out:
        offset, mantissa, sign, text = take(
            text, (sizes[at] - 1).bit_length(), fmt.mantissa_bits, 1
        )
        assert offset < sizes[at]
        symbol = rows[at][0] + offset
        words_out.append(mantissa | symbol << fmt.mantissa_bits | sign << (fmt.bits - 1))
    return words_out
