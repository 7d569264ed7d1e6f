"""Address traces of DRAMsim3, Ramulator and DRAMSys, in and out, plain or gzip.

Files are read and written in chunks, so a trace of any length takes constant memory.

=============  ==================================================================
format         a line
=============  ==================================================================
``dramsim3``   ``0xADDRESS READ|WRITE CYCLE``
``ramulator``  ``LD|ST ADDRESS`` (Ramulator 2), ``R|W C,R,B,...`` (its address
               vectors), ``ADDRESS R|W`` (Ramulator 1); no times
``stl``        ``CYCLE: [(BYTES)] read|write 0xADDRESS [DATA]`` (DRAMSys)
``rstl``       the same, each cycle counted from the request before
=============  ==================================================================
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from sfpsim.errors import InputError, one_of
from sfpsim.hardware.dram.device import Device, address_pieces
from sfpsim.hardware.dram.simulate import Requests
from sfpsim.interop import trace_kernels as k

Format = Literal["dramsim3", "ramulator", "stl", "rstl"]
FORMATS: tuple[Format, ...] = get_args(Format)
CODES = {"dramsim3": k.DRAMSIM3, "ramulator": k.RAMULATOR, "stl": k.STL, "rstl": k.RSTL}
TIMED = ("dramsim3", "stl", "rstl")
EXAMPLES = {
    "dramsim3": "0x1a40 READ 12",
    "ramulator": "LD 0x1a40, ST 0x1a40, R 0,0,1,2,100,3 or 0x1a40 W",
    "stl": "12: read 0x1a40",
    "rstl": "12: read 0x1a40",
}
COMMANDS = {
    "dramsim3": (b" READ ", b" WRITE "),
    "ramulator": (b"LD ", b"ST "),
    "stl": (b":\tread\t", b":\twrite\t"),
    "rstl": (b":\tread\t", b":\twrite\t"),
}
REASONS = {
    k.ADDRESS: "no address",
    k.COMMAND: "no command",
    k.CYCLE: "no cycle",
    k.LENGTH: "no length",
    k.DATA: "data is not hexadecimal",
    k.MORE: "something after the request",
    k.LARGE: "a number of more than 63 bits",
    k.VECTOR: "no address vector",
}
CHUNK_BYTES = 1 << 22
GZIP_MAGIC = b"\x1f\x8b"
SHOWN = 60

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class VectorLayout:
    """How the fields of an address vector make an address; `vector_layout` makes one.

    `fields` index `trace_kernels.FIELD_NAMES`, in the vector's order, with the number of
    values of each; `pieces` are rows of field, bit of the access number, bit of the field
    and bits; `xored` the row's bits XORed onto bank and bank group, the first bit of the
    latter, and the bits of a byte's place in an access.
    """

    fields: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    pieces: tuple[tuple[int, int, int, int], ...] = ()
    xored: tuple[int, int, int, int] = (0, 0, 0, 0)

    def arrays(self) -> tuple[I64, I64, I64, I64]:
        """Return the four as the kernel takes them."""
        pieces = np.array(self.pieces, np.int64).reshape(-1, 4)
        rest = (np.array(x, np.int64) for x in (self.fields, self.counts, self.xored))
        fields, counts, xored = rest
        return fields, counts, pieces, xored


NO_VECTORS = VectorLayout()
# Ramulator's address vectors; all others have the six levels.
LEVELS = {
    "ddr3": ("ch", "ra", "ba", "ro", "co"),
    "lpddr4": ("ch", "ra", "ba", "ro", "co"),
    "gddr6": ("ch", "bg", "ba", "ro", "co"),
}


def vector_layout(device: Device) -> VectorLayout:
    """Return the layout of Ramulator's address vectors on `device`.

    The levels are channel, rank (HBM: pseudo channel), bank group, bank, row and column,
    without rank on GDDR6 and without bank group on DDR3 and LPDDR4; a column is an access.
    """
    sizes = device.field_bits()
    pieces, xored = address_pieces(device)
    names = k.FIELD_NAMES
    levels = LEVELS.get(device.kind, names)
    if device.bank_groups > 1 and "bg" not in levels:
        levels = names
    bank, group = sizes["ba"], sizes["bg"]
    return VectorLayout(
        fields=tuple(names.index(level) for level in levels),
        counts=tuple(1 << sizes[level] for level in levels),
        pieces=tuple((names.index(p.field), p.at, p.to, p.bits) for p in pieces),
        xored=(
            (1 << bank) - 1 if xored & 1 else 0,
            (1 << group) - 1 if xored & 2 else 0,
            bank if xored & 1 else 0,
            device.access_bytes.bit_length() - 1,
        ),
    )


def _open(path: Path) -> IO[bytes]:
    """Open `path` for reading, through gzip where its first bytes say so."""
    try:
        with path.open("rb") as file:
            magic = file.read(2)
        return cast(IO[bytes], gzip.open(path)) if magic == GZIP_MAGIC else path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _chunks(path: Path, file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield whole lines, and how many bytes of the file as stored are read."""
    rest = b""
    while True:
        try:
            data = file.read(CHUNK_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: damaged gzip: {error}") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        raw = getattr(file, "fileobj", None) or file
        if not data:
            if rest:
                yield rest, raw.tell()
            return
        cut = data.rfind(b"\n") + 1
        if not cut:
            rest += data
            if len(rest) > CHUNK_BYTES:
                raise InputError(f"{path}: no line ends within {CHUNK_BYTES} bytes: no trace")
            continue
        yield rest + data[:cut], raw.tell()
        rest = data[cut:]


def detect_format(path: Path) -> Format:
    """Return the format of a trace from its name (``.stl``, ``.rstl``) or its first line.

    Raises
    ------
    InputError
        If it cannot be read, or is in none of the formats.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix in (".stl", ".rstl"):
        return one_of("unknown trace format", suffix[1:], FORMATS)
    with _open(path) as file:
        first = next((line for line in _first_lines(path, file) if line), b"")
    if not first:
        raise InputError(f"{path}: no request in it")
    words = first.split()
    if b":" in words[0] or b"read" in words[1:3] or b"write" in words[1:3]:
        return "stl" if b":" in words[0] else "dramsim3"
    return "dramsim3" if len(words) == 3 else "ramulator"


def _first_lines(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines without blanks and comments."""
    for chunk, _ in _chunks(path, file):
        for line in chunk.split(b"\n"):
            stripped = line.strip()
            if not stripped.startswith(b"#"):
                yield stripped


def read_trace(
    path: Path,
    form: Format,
    limit_bytes: int = k.LARGEST,
    burst_bytes: int = 0,
    vectors: VectorLayout = NO_VECTORS,
    progress: Callable[[float, str], None] | None = None,
) -> Iterator[Requests]:
    """Yield the requests of a trace in chunks; `cycle` is None where a format has no times.

    Parameters
    ----------
    path
        The file, plain or gzip.
    form
        Its format.
    limit_bytes
        Addresses lie below; the device's capacity.
    burst_bytes
        A request with a length (``stl``) becomes one request for each burst of this size
        that it touches; 0 keeps it as one.
    vectors
        Where the fields of Ramulator's address vectors lie; without, they are errors.
    progress
        Called with (share of the file, label).

    Raises
    ------
    InputError
        If the file cannot be read, is damaged gzip, has a line that is no request or an
        address beyond `limit_bytes`, or holds no request.
    """
    line, last, seen = 1, 0, False
    size = max(1, path.stat().st_size) if path.is_file() else 1
    with _open(path) as file:
        for data, done in _chunks(path, file):
            found, lines = _parse(path, data, line, form, limit_bytes, vectors)
            address, write, cycle, length = found
            if form == "rstl":
                cycle, last = _absolute(path, cycle, last)
            line += lines
            if len(address):
                seen = True
                yield _requests(*_spread(address, write, cycle, length, burst_bytes), form)
            if progress is not None:
                progress(min(1.0, done / size), f"{path.name}, line {line - 1}")
    if not seen:
        raise InputError(f"{path}: no request in it")


def _parse(
    path: Path, data: bytes, line: int, form: Format, limit: int, vectors: VectorLayout
) -> tuple[tuple[I64, U8, I64, I64], int]:
    """Return address, direction, cycle and length of the requests, and the number of lines."""
    most = data.count(b"\n") + 1
    address, cycle, length = (np.empty(most, np.int64) for _ in range(3))
    write = np.empty(most, np.uint8)
    n, lines, wrong, where = k.parse(
        np.frombuffer(data, np.uint8), CODES[form], limit, vectors.arrays(), address, write,
        cycle, length, np.zeros(k.RECORD, np.int64),
    )  # fmt: skip
    if wrong != k.FINE:
        raise _error(f"{path}:{line + lines}", data[where:], wrong, form, limit, vectors)
    return (address[:n], write[:n], cycle[:n], length[:n]), lines


def _requests(address: I64, write: U8, cycle: I64, form: Format) -> Requests:
    return Requests(
        address=address.view(np.uint64),
        is_write=write,
        cycle=cycle.view(np.uint64) if form in TIMED else None,
    )


def _error(
    where: str, rest: bytes, wrong: int, form: Format, limit: int, vectors: VectorLayout
) -> InputError:
    text = rest[: SHOWN + 1].split(b"\n")[0].strip().decode("ascii", "replace")
    shown = repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
    if wrong == k.BEYOND:
        held = f"addresses 0 to {hex(limit - 1)}"
        if vectors.counts and "," in text:
            held = f"vectors below {','.join(map(str, vectors.counts))}"
        return InputError(f"{where}: {shown}: beyond the device, which has {held}")
    reason = REASONS[wrong]
    if wrong == k.VECTOR and vectors.counts:
        reason += f" of {len(vectors.counts)} fields"
    elif wrong == k.VECTOR:
        reason = "an address vector, which needs a device to place it"
    return InputError(f"{where}: {shown}: {reason}: {form} lines are like {EXAMPLES[form]}")


def _spread(address: I64, write: U8, cycle: I64, length: I64, burst: int) -> tuple[I64, U8, I64]:
    """Cut requests with a length into the bursts that they touch."""
    if not burst or not length.any():
        return address, write, cycle
    first = address // burst
    count = np.where(length > 0, (address + np.maximum(length, 1) - 1) // burst - first + 1, 1)
    at = np.repeat(np.arange(len(address)), count)
    step = np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
    spread = np.where(step > 0, (first[at] + step) * burst, address[at])
    return spread, write[at], cycle[at]


def _absolute(path: Path, cycle: I64, last: int) -> tuple[I64, int]:
    """Count cycles from the start instead of from the request before."""
    if not len(cycle):
        return cycle, last
    if last + float(cycle.sum(dtype=np.float64)) >= k.LARGEST:
        raise InputError(f"{path}: cycles of more than 63 bits in all")
    counted = last + np.cumsum(cycle)
    return counted, int(counted[-1])


class TraceWriter:
    """Writes a trace, gzip where the name ends in ``.gz``; it appears whole or not at all.

    Use as a context manager; leaving it by an error leaves no file.

    Parameters
    ----------
    path
        The file.
    form
        Its format.

    Raises
    ------
    InputError
        If the file cannot be written.
    """

    def __init__(self, path: Path, form: Format) -> None:
        self.path, self.form = path, form
        self.requests, self._last = 0, 0
        self._temporary = path.with_name(f".tmp-{path.name}")
        try:
            self._raw = self._temporary.open("wb")
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from error
        self._file: IO[bytes] = self._raw
        if path.suffix == ".gz":  # no name and time in it, so that equal traces are equal files
            self._file = cast(IO[bytes], gzip.GzipFile("", "wb", 6, self._raw, mtime=0))

    def add(self, requests: Requests) -> None:
        """Append requests; of a relative format the cycles must not go down."""
        count = len(requests.address)
        given = requests.cycle
        cycle = np.zeros(count, np.int64) if given is None else given.view(np.int64)
        if self.form == "rstl" and count:
            last, self._last = self._last, int(cycle[-1])
            cycle = np.diff(cycle, prepend=np.int64(last))
            if (cycle < 0).any():
                raise InputError(f"{self.path}: rstl needs requests in the order of their cycles")
        texts: Sequence[Any] = [np.frombuffer(t, np.uint8) for t in COMMANDS[self.form]]
        out = np.empty(count * k.LINE_BYTES, np.uint8)
        address = requests.address.view(np.int64)
        size = k.render(out, CODES[self.form], address, requests.is_write, cycle, *texts)
        try:
            self._file.write(out[:size].data)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from error
        self.requests += count

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._file is not self._raw:
                self._file.close()
            self._raw.close()
            if kind is None:
                self._temporary.replace(self.path)
        except OSError as wrong:
            raise InputError(f"{self.path}: cannot be written: {wrong.strerror}") from wrong
        finally:
            self._temporary.unlink(missing_ok=True)


def write_trace(path: Path, form: Format, requests: Iterator[Requests] | Sequence[Requests]) -> int:
    """Write chunks of requests to `path`; return how many there were.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with TraceWriter(path, form) as writer:
        for chunk in requests:
            writer.add(chunk)
    return writer.requests
