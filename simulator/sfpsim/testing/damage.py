"""Damaged `.sfp` files: ``python -m sfpsim.testing.damage [TRIALS]`` (20,000 by default).

Bits are flipped, files cut or lengthened, headers forged with right checksums to ask for
sizes up to 2^60. Each must end as an `InputError`: never as a value, another exception, a
crash, or with more than 100 MB of memory beyond the start. Exit 0 where all do, else 1.
"""

from __future__ import annotations

import resource
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from sfpsim.containers.bitstream import Header, read_sfp, verify_sfp, write_sfp
from sfpsim.containers.registry import parse_container
from sfpsim.errors import InputError

SPECS = (
    "bf16",
    "gecko-bias",
    "gecko-delta",
    "sfp:m=4,e=5",
    "crest",
    "mxfp8-e4m3",
    "int8",
    "zvc",
    "js+crest",
    "ebpc",
    "apack",
)
MOST_MEMORY_BYTES = 100_000_000
Damage = Callable[[bytes, np.random.Generator], bytes]


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip one to four different bits."""
    bad = bytearray(data)
    for place in rng.choice(8 * len(bad), rng.integers(1, 5), replace=False):
        bad[place // 8] ^= 1 << (place % 8)
    return bytes(bad)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """Keep a beginning, leave out a middle, or append a byte."""
    first, last = np.sort(rng.integers(0, len(data), 2))
    kinds = (data[:first], data[:first] + data[last + 1 :], data + b"\0")
    return kinds[rng.integers(3)]


def forge(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace one size of the header by a wrong one, with right checksums."""
    length = struct.unpack("<I", data[8:12])[0]
    header = msgspec.json.decode(data[16 : 16 + length], type=Header)
    size = int(rng.choice([1 << 60, 1 << 47, 1 << 31, 3, -1, int(rng.integers(1 << 40))]))
    key = str(rng.choice(["shape", "blocks", "payload_bytes", "metadata_bytes", "index_bytes"]))
    value = (size,) if key == "shape" else size
    text = msgspec.json.encode(msgspec.structs.replace(header, **{key: value}))
    first = data[:8] + struct.pack("<I", len(text))
    checksum = struct.pack("<I", zlib.crc32(text, zlib.crc32(first)))
    return first + checksum + text + data[16 + length :]


DAMAGES: tuple[Damage, ...] = (flip, cut, forge)


def _is_refused(read: Callable[[Path], object], path: Path) -> bool:
    try:
        read(path)
    except InputError:
        return True
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return False


def _memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(trials: int, folder: Path, seed: int = 0) -> tuple[int, int]:
    """Damage files `trials` times; return how many were not refused, and the memory gained."""
    rng = np.random.default_rng(seed)
    tensor = rng.standard_normal(16384 + 700).astype(np.float32)
    good = []
    for i, spec in enumerate(SPECS):
        path = folder / f"{i}.sfp"
        write_sfp(path, parse_container(spec), tensor)
        read_sfp(path)
        good.append(path.read_bytes())
    before, accepted, path = _memory_bytes(), 0, folder / "damaged.sfp"
    for trial in range(trials):
        data = good[trial % len(good)]
        bad = DAMAGES[trial // len(good) % len(DAMAGES)](data, rng)
        if bad == data:
            continue
        path.write_bytes(bad)
        accepted += not (_is_refused(verify_sfp, path) and _is_refused(read_sfp, path))
    return accepted, _memory_bytes() - before


def main(arguments: list[str]) -> int:
    """Run as many trials as the one argument says; return the exit status."""
    trials = int(arguments[0]) if arguments else 20_000
    with tempfile.TemporaryDirectory() as folder:
        accepted, memory = run(trials, Path(folder))
    print(f"damage: {trials} inputs, {accepted} not refused, {memory / 1e6:.0f} MB more memory")
    return int(accepted > 0 or memory > MOST_MEMORY_BYTES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
