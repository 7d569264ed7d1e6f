"""The DRAM engine beside reference runs: ``python -m sfpsim.testing.validate_dram FOLDER``.

The folder holds ``results.csv`` (one row a run of DRAMsim3, Ramulator or DRAMSys) and
``devices/*.ini``. The traces are made here, by the rules that the reference runs used: 64 MiB
or 200,000 accesses, saturating or (``_50``) at half the peak rate. Each row is run under the
policy of its simulator and printed with its relative errors; the summary has the worst and
the median of each column.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sfpsim.errors import InputError
from sfpsim.hardware.dram.device import CommandCycles, Device, load_device
from sfpsim.hardware.dram.simulate import DramResult, Policy, Requests, simulate

MIB = 1 << 20
SPAN = 256 * MIB  # of the random and strided patterns
TILE = 4096
ACCESSES = 200_000
SIMULATORS: dict[str, Policy] = {
    "DRAMsim3": "dramsim3", "Ramulator2.1": "ramulator", "DRAMSys5.1": "dramsys",
}  # fmt: skip
SLOT_CYCLES = {"ddr4": 4, "lpddr4": 8, "hbm2": 2, "gddr6": 3}
# Ramulator ran with its own order of address fields.
RAMULATOR_MAPPING = {
    "ddr4_3200_1r_bg": "ro ba co bg", "ddr4_3200_1r": "ro ba bg co",
    "hbm2_1ch": "ro bg ba co", "gddr6_x32": "ro ba bg co",
}  # fmt: skip
ENERGIES = {
    "act": "e_act_pj", "rd": "e_rd_pj", "wr": "e_wr_pj", "ref": "e_ref_pj",
    "active_standby": "e_actstb_pj", "precharge_standby": "e_prestb_pj",
}  # fmt: skip

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Byte addresses, whether each is a write, and the burst slot in which it arrives."""

    address: I64
    is_write: NDArray[np.uint8]
    slot: I64

    def requests(self, slot_cycles: int) -> Requests:
        """Return it as the engine takes it, a slot lasting `slot_cycles`."""
        timed = bool(self.slot.any())
        return Requests(
            address=self.address.astype(np.uint64),
            is_write=self.is_write,
            cycle=(self.slot * slot_cycles).astype(np.uint64) if timed else None,
        )


def _saturating(address: Any, is_write: Any) -> Trace:
    address = np.asarray(address, np.int64)
    writes = np.broadcast_to(np.asarray(is_write), address.shape).astype(np.uint8)
    return Trace(address=address, is_write=writes, slot=np.zeros(len(address), np.int64))


def _cover(start: I64, size: I64, access: int) -> tuple[I64, I64]:
    """Addresses of the accesses that byte ranges touch, and the range of each."""
    first = start // access
    count = (start + size - 1) // access - first + 1
    which = np.repeat(np.arange(len(start)), count)
    inside = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    return (first[which] + inside) * access, which


def _copy(access: int) -> Trace:
    """Two tiles read and one written in turn, of three buffers 64 MiB apart."""
    tiles = ACCESSES * access // (3 * TILE)
    offsets = np.array([0, 64 * MIB + 3 * TILE, 128 * MIB + 5 * TILE])
    start = (np.arange(tiles)[:, None] * TILE + offsets).ravel()
    address, which = _cover(start, np.full(len(start), TILE), access)
    return _saturating(address, which % 3 == 2)


def _random(access: int, writes: float, rng: np.random.Generator) -> Trace:
    address = rng.integers(0, SPAN // access, ACCESSES) * access
    return _saturating(address, rng.random(ACCESSES) < writes)


def _compressed(access: int, rng: np.random.Generator) -> Trace:
    """Tiles of 30-60 % of 4 KiB, packed; written in order, read transposed a batch later.

    A batch is 8 by 8 tiles; its writes alternate, tile by tile, with the reads of the batch
    before. A writer sends a shared edge access once, a reader fetches it for both tiles.
    """
    side = 8
    batch = side * side
    tiles = int(ACCESSES * access / (2 * 0.45 * TILE)) // batch * batch
    size = rng.integers(int(0.3 * TILE), int(0.6 * TILE) + 1, tiles)
    address, which = _cover(np.cumsum(size) - size, size, access)
    reads = np.split(address, np.flatnonzero(np.diff(which)) + 1)
    again = np.append(False, address[1:] == address[:-1])
    writes = [
        part[~shared]
        for part, shared in zip(
            reads, np.split(again, np.flatnonzero(np.diff(which)) + 1), strict=True
        )
    ]
    order = np.arange(batch).reshape(side, side).T.ravel()
    parts: list[I64] = []
    kinds: list[int] = []
    for first in range(0, tiles + batch, batch):
        for tile in range(batch):
            if first < tiles:
                parts.append(writes[first + tile])
                kinds.append(1)
            if first:
                parts.append(reads[first - batch + order[tile]])
                kinds.append(0)
    is_write = np.repeat(np.array(kinds), [len(part) for part in parts])
    return _saturating(np.concatenate(parts)[:ACCESSES], is_write[:ACCESSES])


def _bursty(access: int, rng: np.random.Generator) -> Trace:
    """512 accesses back to back in a random region, then 1,536 idle slots; every fourth writes."""
    run, gap = 512, 1536
    runs = ACCESSES // 2 // run
    base = rng.integers(0, SPAN // (run * access), runs) * (run * access)
    inside = np.tile(np.arange(run), runs)
    number = np.repeat(np.arange(runs), run)
    return Trace(
        address=base[number] + inside * access,
        is_write=(number % 4 == 3).astype(np.uint8),
        slot=number * (run + gap) + inside,
    )


def traces(access: int) -> dict[str, Trace]:
    """Return the traces of the reference runs for accesses of `access` bytes."""
    rng = np.random.default_rng(1)
    stride = -(-(1024 + 64) // access) * access
    found = {
        "seq_rd": _saturating(np.arange(64 * MIB // access) * access, 0),
        "seq_wr": _saturating(np.arange(ACCESSES) * access, 1),
        "copy21": _copy(access),
        "stride": _saturating(np.arange(ACCESSES) * stride % SPAN, 0),
        "rand_rd": _random(access, 0.0, rng),
        "rand_mix70": _random(access, 0.3, rng),
        "compressed": _compressed(access, rng),
    }
    for name, trace in list(found.items()):
        half = np.arange(min(ACCESSES, len(trace.address)))
        found[f"{name}_50"] = Trace(
            address=trace.address[half], is_write=trace.is_write[half], slot=half * 2
        )
    found["bursty"] = _bursty(access, rng)
    return found


def reference_device(folder: Path, row: dict[str, str]) -> Device:
    """Return the device that the reference run of `row` had."""
    device = load_device(str(folder / "devices" / f"{row['config']}.ini"))
    if row["simulator"] == "Ramulator2.1":
        changes: dict[str, Any] = {"mapping": RAMULATOR_MAPPING[row["config"]], "t32aw": 0}
        if row["config"] == "gddr6_x32":
            changes["bank_groups"] = 4
        device = msgspec.structs.replace(device, **changes)
    if row["simulator"] == "DRAMSys5.1":
        cycles = CommandCycles(act=4, column=4, pre=2)
        device = msgspec.structs.replace(device, command_cycles=cycles)
    return device


def errors(result: DramResult, row: dict[str, str]) -> dict[str, float]:
    """Return the relative errors of a run against its reference."""
    pairs: dict[str, tuple[float, str]] = {
        "cycles": (result.cycles, row["cycles"]),
        "latency": (result.avg_read_latency_ns or 0.0, row["avg_read_latency_ns"]),
        "act": (result.counts.act, row["n_act"]),
    }
    energy = {key: getattr(result.energy_pj, key) for key in ENERGIES}
    if row["e_total_pj"]:
        pairs |= {f"e_{key}": (energy[key], row[column]) for key, column in ENERGIES.items()}
        pairs["e_total"] = (sum(energy.values()), row["e_total_pj"])
    return {
        key: ours / float(theirs) - 1 for key, (ours, theirs) in pairs.items() if float(theirs or 0)
    }


def run(
    folder: Path, row: dict[str, str], trace: Trace, policy: Policy | None = None
) -> DramResult:
    """Run the reference run of `row` under its policy, or under another."""
    kind = row["config"].split("_")[0]
    requests = trace.requests(SLOT_CYCLES[kind])
    return simulate(requests, reference_device(folder, row), policy or SIMULATORS[row["simulator"]])


def main(arguments: list[str]) -> None:
    """Print every row's errors, and the worst and the median of each column."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="results.csv and devices/*.ini")
    parser.add_argument("--simulator", choices=list(SIMULATORS), help="only its rows")
    parser.add_argument("--match", default="", help="only rows whose device and trace hold this")
    parser.add_argument("--policy", help="run this policy instead of the reference's own")
    given = parser.parse_args(arguments)
    path = given.folder / "results.csv"
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the folder with results.csv and devices/")
    made: dict[str, dict[str, Trace]] = {}
    columns: dict[str, list[tuple[float, str]]] = {}
    speeds = []
    print("simulator,device,trace,cycles,errors %,million requests/s")
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            label = f"{row['simulator']} {row['config']} {row['trace']}"
            if given.simulator not in (None, row["simulator"]) or given.match not in label:
                continue
            access = row["access_bytes"]
            if access not in made:
                made[access] = traces(int(access))
            result = run(given.folder, row, made[access][row["trace"]], given.policy)
            found = errors(result, row)
            for key, value in found.items():
                columns.setdefault(key, []).append((abs(value), label))
            speeds.append(result.requests / result.cpu_s / 1e6)
            text = " ".join(f"{key}={value * 100:+.3f}" for key, value in found.items())
            print(f"{label},{result.cycles},{text},{speeds[-1]:.1f}", flush=True)
    for key, pairs in columns.items():
        worst, label = max(pairs)
        median = float(np.median([value for value, _ in pairs]))
        print(f"{key}: worst {worst:.3%} ({label}), median {median:.4%} of {len(pairs)} runs")
    if speeds:
        print(f"million requests/s: median {np.median(speeds):.1f}, least {min(speeds):.1f}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
