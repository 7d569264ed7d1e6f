"""Machines as data: the accelerator's units, buffers, codec units, channels and device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from sfpsim.containers.integers import Uniform
from sfpsim.containers.raw import Plain
from sfpsim.containers.registry import parse_container
from sfpsim.containers.sfp import SfpFromTrace
from sfpsim.errors import InputError
from sfpsim.formats import CHIP_FORMATS, FP32, ChipFormat, FloatFormat
from sfpsim.hardware.dram.device import Device, Struct, decode_yaml, load_device

Detail = Literal["bandwidth", "detailed"]
ArrayKind = Literal["mapped", "systolic", "stripes", "loom", "bit-fusion"]
MOST_CHANNELS = 1024
MOST_UNITS = 256
MOST_OUTSTANDING = 65_536
DETAILS: tuple[Detail, ...] = ("bandwidth", "detailed")


class Compute(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The array: `rows` x `columns` units of `macs_per_unit` MACs a cycle.

    `formats` are the types that it computes in, narrow to wide; values expand on arrival
    to the first that holds them. `kind` says how products are laid on it (see
    `sfpsim.hardware.array`); `bits` is the widest operand of the kinds whose time goes with
    the bits, and what they take where a container holds no integers. Their MACs are of one
    bit by one (``loom``), by a whole weight (``stripes``) or of `bits` / 2 (``bit-fusion``).
    """

    rows: int
    columns: int
    macs_per_unit: int
    clock_mhz: int
    formats: tuple[str, ...]
    source: str
    kind: ArrayKind = "mapped"
    bits: int = 16

    @property
    def chip_formats(self) -> list[ChipFormat]:
        """The types that it computes in, narrow to wide."""
        return [CHIP_FORMATS[name] for name in self.formats]

    @property
    def is_integer(self) -> bool:
        """Whether it computes in integers."""
        return not isinstance(self.chip_formats[-1], FloatFormat)

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-accumulates a cycle at full utilisation."""
        return self.rows * self.columns * self.macs_per_unit


class Buffer(Struct, frozen=True, kw_only=True):
    """The on-chip memory: `bytes` in all, arrays of `bank_bytes`, at `node_nm`.

    Half holds the operand that stays; tiles of `tile_bytes` stream through the other half,
    as many loading as draining.
    """

    bytes: int
    bank_bytes: int
    tile_bytes: int
    node_nm: int
    source: str

    @property
    def tiles(self) -> int:
        """Tiles that may load, and as many that may drain: two at least."""
        return max(2, self.bytes // 4 // self.tile_bytes)


class Codec(Struct, frozen=True, kw_only=True):
    """Codec units of each channel, compressors and decompressors apart.

    `fifo_bytes` lies between a unit and the controller for payload, `metadata_fifo_bytes`
    for metadata.
    """

    compressors: int
    decompressors: int
    clock_mhz: int
    fifo_bytes: int
    metadata_fifo_bytes: int
    source: str

    @property
    def period_ps(self) -> int:
        """One clock cycle, ps."""
        return 1_000_000 // self.clock_mhz


class Dma(Struct, frozen=True, kw_only=True):
    """Plain streams of each channel, and the bursts each may have outstanding."""

    streams: int
    outstanding: int
    source: str


class IndexCache(Struct, frozen=True, kw_only=True):
    """Lines of index entries, a channel (pooled where striped); the next is fetched ahead."""

    lines: int
    line_bytes: int
    source: str


class Memory(Struct, frozen=True, kw_only=True):
    """Channels of one device, what lies where in them and the default level of detail.

    `placement`: `block` (each block in one channel, codec units in front of every
    controller) or `stripe` (every `stripe_bytes` in the next channel, the codec units of all
    channels above the interleaver). `extents`: `stack` (the stash on a bump stack, the rest
    at its worst case), `worst-case` (everything at its worst case) or `paged` (pages of
    4 KiB).
    """

    device: str
    channels: int
    detail: Detail
    placement: Literal["block", "stripe"]
    extents: Literal["stack", "worst-case", "paged"]
    source: str
    stripe_bytes: int | None = None

    @property
    def groups(self) -> int:
        """Groups of codec units and plain streams: one a channel, or one above all."""
        return self.channels if self.placement == "block" else 1


class Machine(Struct, frozen=True, kw_only=True):
    """An accelerator and its off-chip memory. See docs/hardware.md.

    `baseline` is the container of roles that a policy leaves alone.
    """

    name: str
    summary: str
    source: str
    baseline: str
    compute: Compute
    buffer: Buffer
    codec: Codec
    dma: Dma
    index_cache: IndexCache
    memory: Memory

    def __post_init__(self) -> None:
        for key, value in _numbers(msgspec.to_builtins(self)):
            if value <= 0:
                raise InputError(f"machine {self.name}: {key}={value} must be positive")
        self._check_compute()
        self._check_tile()
        if isinstance(parse_container(self.baseline), SfpFromTrace):
            raise InputError(
                f"machine {self.name}: baseline {self.baseline!r} needs its lengths (m=, e=)"
            )
        most = {
            "memory.channels": (self.memory.channels, MOST_CHANNELS),
            "codec.compressors": (self.codec.compressors, MOST_UNITS),
            "codec.decompressors": (self.codec.decompressors, MOST_UNITS),
            "dma.streams": (self.dma.streams, MOST_UNITS),
            "dma.outstanding": (self.dma.outstanding, MOST_OUTSTANDING),
        }
        for key, (value, limit) in most.items():
            if value > limit:
                raise InputError(f"machine {self.name}: {key}={value} is above {limit}")
        _check_clock(self.name, self.codec.clock_mhz)
        _check_clock(self.name, self.compute.clock_mhz)
        self._check_stripe()

    def _check_compute(self) -> None:
        array, where = self.compute, f"machine {self.name}: compute"
        for name in array.formats:
            if name not in CHIP_FORMATS:
                raise InputError(
                    f"machine {self.name}: format {name!r}: allowed are {', '.join(CHIP_FORMATS)}"
                )
        if not array.formats:
            raise InputError(f"{where}.formats is empty")
        if len({isinstance(f, FloatFormat) for f in array.chip_formats}) > 1:
            raise InputError(f"{where}.formats={list(array.formats)} mixes integers and floats")
        if array.kind in ("stripes", "loom", "bit-fusion") and not array.is_integer:
            raise InputError(f"{where}.kind {array.kind} takes integers: formats int8, int16")
        if array.kind in ("systolic", "bit-fusion") and array.macs_per_unit != 1:
            raise InputError(f"{where}.kind {array.kind} has one unit a place: macs_per_unit 1")

    def _check_tile(self) -> None:
        room, tile = self.buffer.bytes // 4, self.buffer.tile_bytes
        if tile > room:
            raise InputError(
                f"machine {self.name}: buffer.tile_bytes={tile}: a quarter of the buffer of "
                f"{self.buffer.bytes} bytes loads tiles, and {room} bytes do not hold one"
            )

    def _check_stripe(self) -> None:
        size, burst = self.memory.stripe_bytes, self.device.burst_bytes
        where = f"machine {self.name}: memory.stripe_bytes={size}"
        if self.memory.placement == "block":
            if size is not None:
                raise InputError(f"{where} goes with placement stripe, not block")
        elif size is None or size < burst or size & (size - 1):
            raise InputError(
                f"{where}: placement stripe takes a power of two of at least a burst "
                f"({burst} bytes)"
            )

    @property
    def device(self) -> Device:
        """The device of its channels."""
        return load_device(self.memory.device)

    @property
    def baseline_bytes(self) -> float:
        """Bytes of a value in the baseline; FP32's where that has no fixed number of bits."""
        container = parse_container(self.baseline)
        if isinstance(container, Uniform):
            return container.bits / 8
        return container.fmt.bytes if isinstance(container, Plain) else FP32.bytes

    @property
    def peak_gbps(self) -> float:
        """Peak memory bandwidth over all channels, 10^9 bytes a second."""
        return self.memory.channels * self.device.peak_gbps

    @property
    def hash(self) -> str:
        """Twelve hex digits over everything that the machine and its device say."""
        text = msgspec.json.encode([self, self.device], order="deterministic")
        return hashlib.sha256(text).hexdigest()[:12]


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, int):
        yield name, value


def _check_clock(machine: str, mhz: int) -> None:
    if 1_000_000 % mhz:
        raise InputError(
            f"machine {machine}: a clock of {mhz} MHz has no period of whole picoseconds"
        )


@cache
def _texts() -> dict[str, str]:
    folder = resources.files("sfpsim.hardware") / "presets"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {f.name.removesuffix(".yaml"): f.read_text("utf-8") for f in files}


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in change.items():
        inner = out.get(key)
        if isinstance(value, dict) and isinstance(inner, dict):
            out[key] = _merged(inner, value)
        else:
            out[key] = value
    return out


def _resolved(text: str, where: str, depth: int = 0) -> dict[str, Any]:
    """Read a machine's YAML; ``base: NAME`` takes the rest from that preset."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InputError(f"{where}: a machine is a mapping of keys, not {type(data).__name__}")
    base = data.pop("base", None)
    if base is None:
        return data
    if not isinstance(base, str) or base not in _texts() or depth > 4:
        raise InputError(f"{where}: base {base!r}: allowed are {', '.join(_texts())}")
    return _merged(_resolved(_texts()[base], base, depth + 1), data)


def _decoded(text: str, where: str) -> Machine:
    machine = decode_yaml(yaml.safe_dump(_resolved(text, where)), Machine, where)
    assert isinstance(machine, Machine)
    _ = machine.device
    return machine


def load_machine(name: str | Machine) -> Machine:
    """Return the preset called `name`, or the machine in the YAML file at that path.

    Raises
    ------
    InputError
        If there is neither, a key is unknown or missing, or a value is not allowed.
    """
    if isinstance(name, Machine):
        return name
    if name in _texts():
        return _decoded(_texts()[name], f"machine {name}")
    path = Path(name)
    if not path.is_file():
        raise InputError(f"unknown machine {name!r}: known are {', '.join(_texts())}, or a file")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not a text file") from error
    return _decoded(text, name)


def machines() -> list[tuple[str, str, str]]:
    """Return (name, summary, source) of every machine in the package."""
    found = [load_machine(name) for name in _texts()]
    return [(m.name, m.summary, m.source) for m in found]
