"""Reads device files of DRAMsim3 (``.ini``) as they are."""

from __future__ import annotations

import configparser
from fractions import Fraction
from pathlib import Path

from sfpsim.errors import InputError
from sfpsim.hardware.dram.device import CommandCycles, Controller, Currents, Device

SECTIONS = ("dram_structure", "timing", "power", "system", "other", "thermal", "hmc")
STANDARDS = {
    "DDR3", "DDR4", "GDDR5", "GDDR5X", "GDDR6", "LPDDR", "LPDDR3", "LPDDR4", "HBM", "HBM2",
}  # fmt: skip
GDDR_TRANSFERS = {"GDDR5": 4, "GDDR5X": 8, "GDDR6": 16}  # a burst, per cycle counted

# Every key of the files that come with DRAMsim3; those that nothing reads are accepted.
KEYS = {
    "dram_structure": """protocol bankgroups banks_per_group rows columns device_width BL num_dies
        bankgroup_enable hbm_dual_cmd""",
    "timing": """tCK AL CL CWL tCCD_L tCCD_S tRTRS tRTP tRTP_L tRTP_S tWTR_L tWTR_S tWR tWR2 tRP
        tRRD_L tRRD_S tRAS tRCD tRCDRD tRCDWR tRFC tRFC2 tRFC4 tRFCb tRFCPB tREFI tREFIb tRREFD
        REFI tFAW tRPRE tWPRE tCKE tCKESR tCKSRE tXS tXP tPPD t32AW tCWD tCMD tCAS
        activation_window_depth REFRESH_PERIOD ideal_memory_latency tRTP""",
    "power": """VDD IDD0 IDD1 IPP0 IDD2P IDD2N IDD2Q IDD3P IDD3Pf IDD3Ps IDD3N IDD4W IDD4R IDD5
        IDD5AB IDD5PB IDD6 IDD6L IDD6x IDD7""",
    "system": """channel_size channels bus_width address_mapping queue_structure refresh_policy
        row_buf_policy cmd_queue_size trans_queue_size unified_queue write_buf_size
        enable_self_refresh sref_threshold aggressive_precharging_enabled""",
}
REFRESH = {"RANK_LEVEL_STAGGERED": "all-bank", "BANK_LEVEL_STAGGERED": "per-bank"}
PAGE = {"OPEN_PAGE": "open", "CLOSE_PAGE": "closed"}


class _Reader:
    """The keys of a file; remembers which took DRAMsim3's own default."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self.defaults: list[str] = []
        parser = configparser.ConfigParser(
            comment_prefixes=(";", "#"), inline_comment_prefixes=(";", "#"), interpolation=None
        )
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        try:
            parser.read_string(text)
        except configparser.Error as error:
            raise InputError(f"{where}: {' '.join(str(error).split())}") from error
        self.parser = parser
        for section in parser.sections():
            if section not in SECTIONS:
                raise self.error(f"unknown section {section!r}: known are {', '.join(SECTIONS)}")
            known = KEYS.get(section, "").split()
            for key in parser[section] if known else ():
                if key not in known:
                    raise self.error(f"unknown key {key!r} in [{section}]")

    def error(self, text: str) -> InputError:
        return InputError(f"{self.where}: {text}")

    def text(self, section: str, key: str, default: str | None = None) -> str:
        """Return a key's text; without a default of DRAMsim3's it must be there."""
        found = self.parser.get(section, key, fallback=None)
        if found is None and default is None:
            raise self.error(f"[{section}] {key} is missing")
        if found is None:
            self.defaults.append(f"{key}={default}")
            return str(default)
        return str(found).strip()

    def whole(self, section: str, key: str, default: int | None = None) -> int:
        text = self.text(section, key, None if default is None else str(default))
        try:
            return int(text)
        except ValueError as error:
            raise self.error(f"[{section}] {key}={text!r} must be a whole number") from error

    def number(self, section: str, key: str) -> float:
        text = self.text(section, key)
        try:
            return float(Fraction(text))
        except (ValueError, ZeroDivisionError) as error:
            raise self.error(f"[{section}] {key}={text!r} must be a number") from error

    def maybe(self, section: str, key: str) -> float | None:
        return self.number(section, key) if self.parser.has_option(section, key) else None

    def flag(self, section: str, key: str, default: bool) -> bool:
        text = str(self.parser.get(section, key, fallback=str(default))).strip().lower()
        if text not in ("true", "false", "yes", "no", "on", "off", "1", "0"):
            raise self.error(f"[{section}] {key}={text!r} must be true or false")
        return text in ("true", "yes", "on", "1")

    def choice(self, section: str, key: str, allowed: dict[str, str], default: str) -> str:
        text = str(self.parser.get(section, key, fallback=default)).strip()
        if text not in allowed:
            raise self.error(f"[{section}] {key}={text!r}: supported are {', '.join(allowed)}")
        return allowed[text]


def read_ini(text: str, where: str) -> Device:
    """Return the device in DRAMsim3's file `text`; `where` names it in messages.

    Keys that DRAMsim3 itself has a default for and that the file leaves out are named in the
    device's `source`.

    Raises
    ------
    InputError
        If a key is unknown, missing or impossible, or the file asks for what is not
        supported (HMC, one queue for reads and writes, a queue a rank).
    """
    reader = _Reader(text, where)
    protocol = reader.text("dram_structure", "protocol")
    if protocol not in STANDARDS:
        known = ", ".join(sorted(STANDARDS))
        raise reader.error(f"[dram_structure] protocol={protocol!r}: supported are {known}")
    reader.choice("system", "queue_structure", {"PER_BANK": ""}, "PER_BANK")
    if reader.flag("system", "unified_queue", False):
        raise reader.error("[system] unified_queue=True is not supported")
    geometry = _geometry(reader, protocol)
    timings = _timings(reader, protocol, int(geometry["burst_cycles"]))
    currents = _currents(reader)
    controller = _controller(reader)
    source = "DRAMsim3 device file"
    if reader.defaults:
        source += "; DRAMsim3's defaults for " + ", ".join(reader.defaults)
    return Device(
        name=Path(where).stem,
        summary=f"{protocol}, {geometry['bus_bits']} bits wide, read from {Path(where).name}",
        kind=protocol.lower(),
        source=source,
        refresh=reader.choice("system", "refresh_policy", REFRESH, "RANK_LEVEL_STAGGERED"),
        page=reader.choice("system", "row_buf_policy", PAGE, "OPEN_PAGE"),
        mapping=reader.text("system", "address_mapping"),
        command_cycles=CommandCycles(act=1, column=1, pre=1),
        idd=currents,
        controller=controller,
        dual_command=protocol.startswith("HBM")
        and reader.flag("dram_structure", "hbm_dual_cmd", True),
        **geometry,  # type: ignore[arg-type]
        **timings,  # type: ignore[arg-type]
    )


def _geometry(reader: _Reader, protocol: str) -> dict[str, int]:
    def whole(key: str, default: int | None = None) -> int:
        value = reader.whole("dram_structure", key, default)
        if value <= 0:
            raise reader.error(f"[dram_structure] {key}={value} must be positive")
        return value

    groups, in_group = whole("bankgroups"), whole("banks_per_group")
    if not reader.flag("dram_structure", "bankgroup_enable", True):
        groups, in_group = 1, groups * in_group
    width, burst, columns, rows = (whole(key) for key in ("device_width", "BL", "columns", "rows"))
    if protocol in GDDR_TRANSFERS:
        columns *= burst  # a column is a burst there
    elif protocol.startswith("HBM"):
        columns *= 2
    bus = reader.whole("system", "bus_width")
    if bus <= 0 or bus % width:
        raise reader.error(f"[system] bus_width={bus} must be a multiple of device_width={width}")
    devices = bus // width
    banks = groups * in_group
    rank = banks * rows * columns * bus // 8 >> 20
    size = reader.whole("system", "channel_size")
    return {
        "bus_bits": bus,
        "devices": devices,
        "burst_cycles": max(1, burst // GDDR_TRANSFERS.get(protocol, 2)),
        "access_bytes": bus // 8 * burst,
        "channels": reader.whole("system", "channels", 1),
        "ranks": max(1, size // rank) if rank else 1,
        "bank_groups": groups,
        "banks": banks,
        "rows": rows,
        "row_bytes": columns * bus // 8,
    }


def _timings(reader: _Reader, protocol: str, burst: int) -> dict[str, int]:
    def cycles(key: str, default: int | None = None) -> int:
        return reader.whole("timing", key, default)

    gddr = protocol in GDDR_TRANSFERS
    split = gddr or protocol.startswith("HBM")
    period = Fraction(reader.text("timing", "tCK")) * 1000
    latency = cycles("AL", 0)
    cl, cwl = latency + cycles("CL"), latency + cycles("CWL")
    trcd = cycles("tRCDRD") if split else cycles("tRCD") - latency
    trtrs = cycles("tRTRS", 2)
    one_group = reader.whole("dram_structure", "bankgroups") == 1 or not reader.flag(
        "dram_structure", "bankgroup_enable", True
    )
    found = {
        "tck_ps": period.numerator,
        "tck_den": period.denominator,
        "cl": cl,
        "cwl": cwl,
        "trcd": trcd,
        "trcd_wr": cycles("tRCDWR") if split else trcd,
        "trp": cycles("tRP"),
        "tras": cycles("tRAS"),
        "tfaw": cycles("tFAW"),
        "t32aw": cycles("t32AW", 330) if gddr else 0,
        "twr": cycles("tWR"),
        "trtp": latency + cycles("tRTP", 5),
        "trtw": cl + burst - cwl + trtrs,
        "trtrs": trtrs,
        "tppd": cycles("tPPD", 0) if gddr or protocol == "LPDDR4" else 0,
        "trfc": cycles("tRFC"),
        "trefi": cycles("tREFI"),
        "txp": cycles("tXP", 8),
        "tcke": cycles("tCKE", 6),
        "txs": cycles("tXS", 432),
        "tckesr": cycles("tCKESR", 12),
    }
    if reader.choice("system", "refresh_policy", REFRESH, "RANK_LEVEL_STAGGERED") == "per-bank":
        found |= {"trfcpb": cycles("tRFCb", 20), "trefipb": cycles("tREFIb", 1950)}
    for name, least in (("tRRD", 1), ("tWTR", 1), ("tCCD", burst)):
        short = cycles(f"{name}_S")
        long = short if one_group else cycles(f"{name}_L")
        found[f"{name.lower()}_s"] = max(least, short)
        found[f"{name.lower()}_l"] = max(least, long)
    return found


def _currents(reader: _Reader) -> Currents:
    names = ("VDD", "IDD0", "IDD2N", "IDD3N", "IDD4R", "IDD4W", "IDD5AB")
    return Currents(
        **{name.lower(): reader.number("power", name) for name in names},
        idd5pb=reader.maybe("power", "IDD5PB"),
        idd2p=reader.maybe("power", "IDD2P"),
        idd3p=reader.maybe("power", "IDD3P"),
        idd6=reader.maybe("power", "IDD6x"),
    )


def _controller(reader: _Reader) -> Controller:
    queue = reader.whole("system", "trans_queue_size", 32)
    if queue < 2:
        raise reader.error(f"[system] trans_queue_size={queue} must be at least 2")
    sleeps = reader.flag("system", "enable_self_refresh", False)
    return Controller(
        queue=queue,
        write_queue=queue,
        bank_queue=reader.whole("system", "cmd_queue_size", 16),
        drain_high=max(1, queue * 4 // 5),
        drain_low=queue // 5,
        hit_cap=32,
        turn=64,
        self_refresh=reader.whole("system", "sref_threshold", 1000) if sleeps else 0,
        source="queue sizes of the file; drain between 0.8 and 0.2, as Ramulator 2.1",
    )
