"""An address trace on one memory device: requests in, cycles, counts and energy out.

`Memory` takes batches of requests and keeps its state between them, so a trace of any
length runs in the memory of one batch, and where it is cut does not change the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfpsim.hardware.dram.device import Device, Struct

Policy = Literal["default", "dramsim3", "ramulator", "dramsys"]
POLICIES: tuple[Policy, ...] = ("default", "dramsim3", "ramulator", "dramsys")

# Commands in a log.
READ, WRITE, ACTIVATE, PRECHARGE, PRECHARGE_ALL, REFRESH, REFRESH_BANK = range(7)
POWERDOWN_ENTER, POWERDOWN_EXIT, SELFREFRESH_ENTER, SELFREFRESH_EXIT = range(7, 11)
COMMANDS = (
    "read", "write", "activate", "precharge", "precharge_all", "refresh", "refresh_bank",
    "powerdown_enter", "powerdown_exit", "selfrefresh_enter", "selfrefresh_exit",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Requests:
    """A batch of requests in trace order.

    `address` is uint64 bytes (the access that holds the byte is moved), `is_write` uint8,
    `cycle` the memory cycle from which a request is offered (uint64, not falling), or None:
    saturating, every request is offered as soon as the one before it was taken.
    """

    address: NDArray[np.uint64]
    is_write: NDArray[np.uint8]
    cycle: NDArray[np.uint64] | None = None


class DramCommandCounts(Struct, frozen=True, kw_only=True):
    """Commands issued, reads answered from a queued write, writes never issued."""

    act: int
    pre: int
    rd: int
    wr: int
    ref: int
    forwarded: int
    unissued_writes: int


class DramTraceEnergy(Struct, frozen=True, kw_only=True):
    """Energy by component, pJ; None where it does not apply. `total` is the sum of the rest."""

    act: float
    rd: float
    wr: float
    ref: float
    active_standby: float
    precharge_standby: float
    active_powerdown: float | None = None
    precharge_powerdown: float | None = None
    self_refresh: float | None = None
    interface: float | None = None
    total: float


class DramResult(Struct, frozen=True, kw_only=True):
    """What ``sfpsim dram --json`` writes.

    `cycles` is that of the last read data or the last command, whichever is later; latency
    is from entry into the controller to data (None: no read); `wall_s` and `cpu_s` are the
    engine's on parsed requests, without compilation.
    """

    schema: int = 1
    device: str
    policy: str
    requests: int
    reads: int
    writes: int
    cycles: int
    time_ns: float
    bandwidth_gbps: float
    avg_read_latency_ns: float | None
    counts: DramCommandCounts
    energy_pj: DramTraceEnergy
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class CommandLog:
    """Commands of one channel in the order of issue, int64 arrays of one length.

    `command` is an index into `COMMANDS`; fields that a command does not name are -1 (a
    precharge-all or refresh names a rank only; `bank` is that within its group). `column`
    is the access in the row, -1 but for reads and writes.
    """

    cycle: NDArray[np.int64]
    command: NDArray[np.int64]
    rank: NDArray[np.int64]
    bank_group: NDArray[np.int64]
    bank: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]


def simulate(
    requests: Requests | Iterable[Requests],
    device: Device,
    policy: Policy = "default",
    threads: int = 1,
) -> DramResult:
    """Run `requests` (one batch, or batches in order) on `device` until all are served.

    Parameters
    ----------
    requests
        The trace.
    device
        One memory; `device.channels` of them share the trace by the mapping's ``ch``.
    policy
        Whose controller: ours (``default``), or that of a reference simulator.
    threads
        Channels that run at the same time.

    Raises
    ------
    InputError
        If the policy is unknown, an address is beyond the device, or arrays do not fit
        together.
    """
    raise NotImplementedError


def simulate_logged(
    requests: Requests | Iterable[Requests], device: Device, policy: Policy = "default"
) -> tuple[DramResult, list[CommandLog]]:
    """As `simulate`, with every command of every channel; memory grows with the trace."""
    raise NotImplementedError
