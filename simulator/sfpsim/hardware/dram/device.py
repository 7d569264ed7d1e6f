"""Memory devices as data: one channel of a standard, with its timings, currents and source."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

import msgspec

from sfpsim.energy.model import DramTiming, IddCurrents
from sfpsim.errors import InputError

MAPPINGS = ("row bank column", "row bank^row column")


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen keyword-only record; unknown keys are errors."""


class CommandCycles(Struct, frozen=True, kw_only=True):
    """Cycles for which each command holds the command bus."""

    act: int
    column: int
    pre: int


class Currents(Struct, frozen=True, kw_only=True):
    """Supply voltage, V, and datasheet currents of one device, mA."""

    vdd: float
    idd0: float
    idd2n: float
    idd3n: float
    idd4r: float
    idd4w: float
    idd5ab: float


class Controller(Struct, frozen=True, kw_only=True):
    """Queues of the channel's controller, in bursts.

    Writes are drained once `drain_high` wait (or no read does) until `drain_low` are left;
    while both wait each kind has a turn of `turn` bursts. At most `hit_cap` row hits go past
    an older request to another row of the bank.
    """

    queue: int
    drain_high: int
    drain_low: int
    hit_cap: int
    turn: int
    source: str


class Fit(Struct, frozen=True, kw_only=True):
    """Efficiency of `bandwidth` detail, fitted to `detailed` by `sfpsim.hardware.dram.fit`.

    Shares of the peak for reads alone, writes alone and both together; `latency_ps` from
    request to data; activations a burst; `residual` is the largest relative error of time
    over the fitted patterns.
    """

    read: float
    write: float
    mixed: float
    latency_ps: int
    activations: float
    residual: float


class Device(Struct, frozen=True, kw_only=True):
    """One channel of a memory: geometry, timings in clock cycles, currents.

    `bus_bits` is the channel's width, `devices` the chips that form it, `row_bytes` a row
    over all of them. Timing names are those of the datasheet; `trtw` is read command to
    write command. `mapping` names the fields of an address, high bits first; ``bank^row``
    is the bank field XORed with the row's low bits, so that streams that lie a power of two
    apart do not meet in one bank (Zhang, Zhu and Zhang, MICRO 2000).
    """

    name: str
    summary: str
    kind: str
    source: str
    mapping: str
    bus_bits: int
    devices: int
    tck_ps: int
    burst_cycles: int
    banks: int
    rows: int
    row_bytes: int
    cl: int
    cwl: int
    trcd: int
    trp: int
    tras: int
    trrd: int
    tfaw: int
    twtr: int
    twr: int
    trtp: int
    tccd: int
    trtw: int
    trfc: int
    trefi: int
    command_cycles: CommandCycles
    idd: Currents
    controller: Controller
    fit: Fit | None = None

    @property
    def burst_bytes(self) -> int:
        """Bytes of one burst: two transfers a cycle."""
        return self.burst_cycles * 2 * self.bus_bits // 8

    @property
    def burst_ps(self) -> int:
        """Time of one burst on the data bus, ps."""
        return self.burst_cycles * self.tck_ps

    @property
    def idle_latency_ps(self) -> int:
        """From a read of an idle bank to the start of its data, ps."""
        return (self.trcd + self.cl) * self.tck_ps

    @property
    def peak_gbps(self) -> float:
        """Peak bandwidth of the channel, 10^9 bytes a second."""
        return self.burst_bytes * 1000 / self.burst_ps

    @property
    def capacity_bytes(self) -> int:
        """Bytes that the channel holds."""
        return self.banks * self.rows * self.row_bytes

    @property
    def currents(self) -> IddCurrents:
        """The currents as the energy model takes them."""
        return IddCurrents(**msgspec.structs.asdict(self.idd))

    @property
    def energy_timing(self) -> DramTiming:
        """The timings that the energy model needs."""
        return DramTiming(
            tck_ns=self.tck_ps / 1000,
            tras=self.tras,
            trp=self.trp,
            trfc=self.trfc,
            burst_cycles=self.burst_cycles,
            devices=self.devices,
        )

    def __post_init__(self) -> None:
        numbers = {
            key: value
            for key, value in msgspec.structs.asdict(self).items()
            if isinstance(value, int)
        }
        for key, value in numbers.items():
            if value <= 0:
                raise InputError(f"device {self.name}: {key}={value} must be positive")
        for key in ("banks", "rows", "row_bytes", "burst_bytes"):
            value = getattr(self, key)
            if value & (value - 1):
                raise InputError(f"device {self.name}: {key}={value} must be a power of two")
        if self.tras < self.trcd:
            raise InputError(
                f"device {self.name}: tras={self.tras} must not be below trcd={self.trcd}"
            )
        if not self.controller.drain_low < self.controller.drain_high <= self.controller.queue:
            raise InputError(
                f"device {self.name}: controller: drain_low < drain_high <= queue must hold"
            )
        if self.mapping not in MAPPINGS:
            raise InputError(
                f"device {self.name}: mapping {self.mapping!r} is not supported: allowed are "
                + ", ".join(map(repr, MAPPINGS))
            )


@cache
def presets() -> dict[str, str]:
    """Return the YAML text of every device in the package by name."""
    folder = resources.files("sfpsim.hardware.dram") / "presets"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {f.name.removesuffix(".yaml"): f.read_text("utf-8") for f in files}


def decode_yaml(text: str, kind: type[msgspec.Struct], where: str) -> msgspec.Struct:
    """Decode YAML `text` into struct `kind`, strictly.

    Raises
    ------
    InputError
        If the text is no YAML, a key is unknown or missing, or a value has the wrong type.
    """
    import yaml

    try:
        return msgspec.convert(yaml.safe_load(text), kind)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}") from error


@cache
def _preset(name: str) -> Device:
    found = decode_yaml(presets()[name], Device, f"device {name}")
    assert isinstance(found, Device)
    return found


def load_device(name: str) -> Device:
    """Return the preset called `name`, or the device in the YAML file at that path.

    Raises
    ------
    InputError
        If there is neither, or the file is no device.
    """
    if name in presets():
        return _preset(name)
    path = Path(name)
    if not path.is_file():
        raise InputError(f"unknown device {name!r}: known are {', '.join(presets())}, or a file")
    found = decode_yaml(path.read_text("utf-8"), Device, name)
    assert isinstance(found, Device)
    return found


def devices() -> list[tuple[str, str, str]]:
    """Return (name, summary, source) of every device in the package."""
    return [(d.name, d.summary, d.source) for d in map(_preset, presets())]
