"""Memory devices as data: one channel of a standard, with its timings, currents and source."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec

from sfpsim.energy.model import DramTiming, IddCurrents
from sfpsim.errors import InputError

REFRESHES = ("all-bank", "per-bank", "none")
PAGES = ("open", "closed", "time-out")


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen keyword-only record; unknown keys are errors."""


class CommandCycles(Struct, frozen=True, kw_only=True):
    """Cycles for which each command holds the command bus; a refresh holds it as a precharge."""

    act: int
    column: int
    pre: int


class Currents(Struct, frozen=True, kw_only=True):
    """Supply voltage, V, and datasheet currents of one device, mA; None: not in the source."""

    vdd: float
    idd0: float
    idd2n: float
    idd3n: float
    idd4r: float
    idd4w: float
    idd5ab: float
    idd5pb: float | None = None
    idd2p: float | None = None
    idd3p: float | None = None
    idd6: float | None = None


class Controller(Struct, frozen=True, kw_only=True):
    """Queues of the channel's controller, in bursts.

    Writes are drained once `drain_high` wait (or no read does) until `drain_low` are left;
    while both wait each kind has a turn of `turn` bursts. At most `hit_cap` row hits go past
    an older request to another row of the bank. `write_queue` is the places for writes
    where they are not as many as those for reads (0); `bank_queue` is DRAMsim3's command queue of
    a bank. A rank that nothing was asked of for `power_down` cycles powers down, one that
    served no request for `self_refresh` cycles refreshes itself (0: never).
    """

    queue: int
    drain_high: int
    drain_low: int
    hit_cap: int
    turn: int
    source: str
    write_queue: int = 0
    bank_queue: int = 8
    power_down: int = 0
    self_refresh: int = 0


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

    `bus_bits` is the channel's width, `devices` the chips that form a rank, `banks` those of
    a rank (in all its bank groups), `row_bytes` a row over all chips, `access_bytes` what a
    column command moves in `burst_cycles`. The clock period is ``tck_ps / tck_den`` ps.

    Timing names are those of the datasheet, ``_s`` between bank groups, ``_l`` within one
    (equal where there are none). `trcd` is that of reads, `trcd_wr` of writes where it
    differs; `trtw` read command to write command of a rank; `trtrs` the bus's turn between
    ranks; `tppd` precharge to precharge; `t32aw` the window of 32 activates; `trefipb`
    per-bank refresh to per-bank refresh (0: trefi / banks), `tpbr2pbr` the least between
    two; `txp` and `tcke` from power-down's exit to a command and from its entry to its exit,
    `txs` and `tckesr` those of self-refresh; 0 where a device has no such limit. With
    `dual_command` a column and a row command may go in one cycle (HBM). `page` is what
    happens to a row that nothing waits for: ``open``, ``closed`` (with its last access) or
    ``time-out`` (`page_timeout` idle cycles).

    `mapping` names the fields of an address, high bits first: ``ro`` row, ``ra`` rank, ``bg``
    bank group, ``ba`` bank in its group, ``co`` column (in accesses), ``ch`` channel; with
    or without spaces. A number after a field is its bits, so that a field may come in
    pieces (``ro ba bg co4 ch co3``); ``ba^ro`` and ``bg^ro`` are XORed with the row's low
    bits, so that streams that lie a power of two apart do not meet in one bank (Zhang, Zhu
    and Zhang, MICRO 2000).
    """

    name: str
    summary: str
    kind: str
    source: str
    mapping: str
    bus_bits: int
    devices: int
    tck_ps: int
    tck_den: int = 1
    burst_cycles: int
    access_bytes: int
    channels: int = 1
    ranks: int = 1
    bank_groups: int = 1
    banks: int
    rows: int
    row_bytes: int
    cl: int
    cwl: int
    trcd: int
    trcd_wr: int | None = None
    trp: int
    tras: int
    trrd_s: int
    trrd_l: int
    tfaw: int
    t32aw: int = 0
    twtr_s: int
    twtr_l: int
    twr: int
    trtp: int
    tccd_s: int
    tccd_l: int
    trtw: int
    trtrs: int = 0
    tppd: int = 0
    trfc: int
    trfcpb: int = 0
    trefi: int
    trefipb: int = 0
    tpbr2pbr: int = 0
    txp: int = 0
    tcke: int = 0
    txs: int = 0
    tckesr: int = 0
    refresh: str = "all-bank"
    page: str = "open"
    page_timeout: int = 0
    dual_command: bool = False
    command_cycles: CommandCycles
    idd: Currents
    controller: Controller
    fit: Fit | None = None

    @property
    def burst_bytes(self) -> int:
        """Bytes of one burst."""
        return self.access_bytes

    @property
    def slot_cycles(self) -> int:
        """Cycles from one burst to the next at the peak rate."""
        return max(self.burst_cycles, self.tccd_s)

    @property
    def burst_ps(self) -> int:
        """Time of one burst on the data bus, ps."""
        return self.slot_cycles * self.tck_ps // self.tck_den

    @property
    def idle_latency_ps(self) -> int:
        """From a read of an idle bank to the start of its data, ps."""
        return (self.trcd + self.cl) * self.tck_ps // self.tck_den

    @property
    def peak_gbps(self) -> float:
        """Peak bandwidth of the channel, 10^9 bytes a second."""
        return self.access_bytes * 1000 * self.tck_den / (self.slot_cycles * self.tck_ps)

    @property
    def capacity_bytes(self) -> int:
        """Bytes that the channel holds."""
        return self.ranks * self.banks * self.rows * self.row_bytes

    @property
    def currents(self) -> IddCurrents:
        """The currents as the energy model takes them."""
        return IddCurrents(**msgspec.structs.asdict(self.idd))

    @property
    def sleeps(self) -> bool:
        """Whether its controller lets ranks power down or refresh themselves."""
        return self.controller.power_down > 0 or self.controller.self_refresh > 0

    @property
    def energy_timing(self) -> DramTiming:
        """The timings that the energy model needs."""
        return DramTiming(
            tck_ns=self.tck_ps / self.tck_den / 1000,
            tras=self.tras,
            trp=self.trp,
            trfc=self.trfc,
            trfcpb=self.trfcpb,
            banks=self.banks,
            burst_cycles=self.burst_cycles,
            devices=self.devices,
        )

    def field_bits(self) -> dict[str, int]:
        """Bits of each field of an address."""
        sizes = {
            "ro": self.rows,
            "ra": self.ranks,
            "bg": self.bank_groups,
            "ba": self.banks // self.bank_groups,
            "co": self.row_bytes // self.access_bytes,
            "ch": self.channels,
        }
        return {name: size.bit_length() - 1 for name, size in sizes.items()}

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_timings(self)
        _check_choices(self)
        address_pieces(self)


MAY_BE_ZERO = {
    "t32aw", "trtrs", "tppd", "trfcpb", "trefipb", "tpbr2pbr", "txp", "tcke", "txs", "tckesr",
    "page_timeout",
}  # fmt: skip
POWERS = ("channels", "ranks", "bank_groups", "banks", "rows", "row_bytes", "access_bytes")


def _fail(device: Device, text: str) -> InputError:
    return InputError(f"device {device.name}: {text}")


def _check_numbers(device: Device) -> None:
    for key, value in msgspec.structs.asdict(device).items():
        if isinstance(value, int) and not isinstance(value, bool):
            if value < (0 if key in MAY_BE_ZERO else 1):
                least = "not be negative" if key in MAY_BE_ZERO else "be positive"
                raise _fail(device, f"{key}={value} must {least}")
            if value >= 1 << 31:
                raise _fail(device, f"{key}={value} must be below 2^31")
    for key in POWERS:
        value = getattr(device, key)
        if value & (value - 1):
            raise _fail(device, f"{key}={value} must be a power of two")
    for part in (device.command_cycles, device.idd):
        for key, value in msgspec.structs.asdict(part).items():
            if value is not None and not 0 < value < 1e6:
                raise _fail(device, f"{key}={value} must be positive")


# What cannot be: the first must not be below the second.
ORDER = (
    ("tras", "trcd"), ("trrd_l", "trrd_s"), ("twtr_l", "twtr_s"), ("tccd_l", "tccd_s"),
    ("tfaw", "trrd_s"), ("trefi", "trfc"), ("row_bytes", "access_bytes"), ("banks", "bank_groups"),
)  # fmt: skip


def _check_timings(device: Device) -> None:
    for above, below in ORDER:
        high, low = getattr(device, above), getattr(device, below)
        if high < low:
            raise _fail(device, f"{above}={high} must not be below {below}={low}")
    if device.ranks * device.banks > MOST_BANKS:
        found = device.ranks * device.banks
        raise _fail(device, f"ranks * banks = {found}: at most {MOST_BANKS} are supported")


def _check_choices(device: Device) -> None:
    for key, allowed in (("refresh", REFRESHES), ("page", PAGES)):
        value = getattr(device, key)
        if value not in allowed:
            raise _fail(device, f"{key} {value!r}: allowed are {', '.join(allowed)}")
    if device.refresh == "per-bank" and not device.trfcpb:
        raise _fail(device, "refresh per-bank needs trfcpb")
    if device.page == "time-out" and not device.page_timeout:
        raise _fail(device, "page time-out needs page_timeout")
    queues = device.controller
    for key in ("queue", "bank_queue", "hit_cap", "turn"):
        if not 0 < getattr(queues, key) <= MOST_QUEUED:
            raise _fail(device, f"controller: {key} must be from 1 to {MOST_QUEUED}")
    if not 0 <= queues.drain_low < queues.drain_high <= queues.queue:
        raise _fail(device, "controller: drain_low < drain_high <= queue must hold")
    _check_sleep(device)


# What a controller that lets ranks sleep needs to know of its device.
SLEEP_NEEDS = {
    "power_down": (("txp", "tcke"), ("idd2p", "idd3p")),
    "self_refresh": (("txs", "tckesr"), ("idd6",)),
}


def _check_sleep(device: Device) -> None:
    for key, (timings, currents) in SLEEP_NEEDS.items():
        cycles = getattr(device.controller, key)
        if not 0 <= cycles < 1 << 31:
            raise _fail(device, f"controller: {key}={cycles} must be from 0 (never) to 2^31 - 1")
        missing = [name for name in timings if not getattr(device, name)]
        missing += [name for name in currents if getattr(device.idd, name) is None]
        if cycles and missing:
            raise _fail(device, f"controller: {key}={cycles} needs {', '.join(missing)}")
        if cycles and device.page == "time-out" and cycles <= device.page_timeout:
            raise _fail(
                device,
                f"controller: {key}={cycles} must be above page_timeout={device.page_timeout}",
            )
    if device.controller.self_refresh and device.ranks > 1:
        raise _fail(device, f"controller: self_refresh needs one rank, not {device.ranks}")


MOST_BANKS = 256
MOST_QUEUED = 1024


class Piece(Struct, frozen=True, kw_only=True):
    """`bits` bits of a field: from bit `at` of the access number to bit `to` of the field."""

    field: str
    at: int
    to: int
    bits: int


def _tokens(mapping: str) -> list[str]:
    found = mapping.split()
    if len(found) == 1:
        found = re.findall(r"[a-z]{2}(?:\^ro)?\d*|.+", mapping)
    return found


def address_pieces(device: Device) -> tuple[list[Piece], int]:
    """Return the pieces of an access number (address / access_bytes), and the fields XORed.

    The second is a bit mask: 1 for ``ba^ro``, 2 for ``bg^ro``.

    Raises
    ------
    InputError
        If the mapping names something else, or does not cover the address exactly.
    """
    bits = device.field_bits()
    parsed, xored = [], 0
    for token in _tokens(device.mapping):
        match = re.fullmatch(r"(ro|ra|bg|ba|co|ch|ba\^ro|bg\^ro)(\d*)", token)
        if not match:
            allowed = "ro, ra, bg, ba, co, ch, ba^ro and bg^ro, each with a number of bits if split"
            raise _fail(device, f"mapping {device.mapping!r}: {token!r} is no field: {allowed}")
        name = match[1][:2]
        xored |= {"ba^ro": 1, "bg^ro": 2}.get(match[1], 0)
        parsed.append((name, int(match[2]) if match[2] else None))
    pieces: list[Piece] = []
    at, filled = 0, dict.fromkeys(bits, 0)
    for name, width in reversed(parsed):
        width = bits[name] - filled[name] if width is None else width
        if width < 0 or filled[name] + width > bits[name]:
            raise _fail(
                device, f"mapping {device.mapping!r} has more bits of {name} than the {bits[name]}"
            )
        if width:
            pieces.append(Piece(field=name, at=at, to=filled[name], bits=width))
        at, filled[name] = at + width, filled[name] + width
    for name, need in bits.items():
        if filled[name] < need:
            raise _fail(
                device,
                f"mapping {device.mapping!r} does not cover the address: it has {filled[name]} "
                f"of {need} bits of {name}",
            )
    return pieces, xored


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
    """Return the preset called `name`, or the device in the file at that path.

    A file is ours (YAML) or, where its name ends in ``.ini``, one of DRAMsim3's.

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
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not a text file: {error}") from error
    if path.suffix.lower() == ".ini":
        from sfpsim.hardware.dram.ini import read_ini

        return read_ini(text, name)
    found = decode_yaml(text, Device, name)
    assert isinstance(found, Device)
    return found


def devices() -> list[tuple[str, str, str]]:
    """Return (name, summary, source) of every device in the package."""
    return [(d.name, d.summary, d.source) for d in map(_preset, presets())]
