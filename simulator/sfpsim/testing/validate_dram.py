"""The DRAM engine beside reference runs: ``python -m sfpsim.testing.validate_dram FOLDER``.

The folder holds ``results*.csv`` (one row a run of DRAMsim3, Ramulator or DRAMSys) and
``devices/*.ini``; runs of Ramulator's LPDDR5-6400 are compared with the preset of that name.
The traces are made here, by the rules that the reference runs used: 64 MiB or 200,000
accesses, saturating or (``_50``) at half the peak rate. Each row is run under the policy of
its simulator and printed with its relative errors; the summary has the worst and the median
of each column. What the errors may be is in `BOUNDS`; a run beyond them makes the exit status 1.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sfpsim.errors import InputError
from sfpsim.hardware.dram.device import CommandCycles, Device, load_device
from sfpsim.hardware.dram.patterns import Trace, traces
from sfpsim.hardware.dram.simulate import DramResult, Policy, simulate

SIMULATORS: dict[str, Policy] = {
    "DRAMsim3": "dramsim3", "Ramulator2.1": "ramulator", "DRAMSys5.1": "dramsys",
}  # fmt: skip
SLOT_CYCLES = {"ddr4": 4, "lpddr4": 8, "hbm2": 2, "gddr6": 3, "lpddr5": 2}
# Ramulator ran with its own order of address fields.
RAMULATOR_MAPPING = {
    "ddr4_3200_1r_bg": "ro ba co bg", "ddr4_3200_1r": "ro ba bg co",
    "hbm2_1ch": "ro bg ba co", "gddr6_x32": "ro ba bg co", "lpddr5_6400_x16": "ro ba co bg",
}  # fmt: skip
PRESETS = {"lpddr5_6400_x16": "lpddr5-6400-x16"}  # run without a file of DRAMsim3's
ENERGIES = {
    "act": "e_act_pj", "rd": "e_rd_pj", "wr": "e_wr_pj", "ref": "e_ref_pj",
    "active_standby": "e_actstb_pj", "precharge_standby": "e_prestb_pj",
}  # fmt: skip


def reference_rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of every ``results*.csv`` of `folder`.

    Raises
    ------
    InputError
        If there is none.
    """
    rows: list[dict[str, str]] = []
    for path in sorted(folder.glob("results*.csv")):
        with path.open(newline="") as file:
            rows += csv.DictReader(file)
    if not rows:
        raise InputError(f"{folder}: no results*.csv with reference runs and devices/ there")
    return rows


def reference_device(folder: Path, row: dict[str, str]) -> Device:
    """Return the device that the reference run of `row` had."""
    file = str(folder / "devices" / f"{row['config']}.ini")
    device = load_device(PRESETS.get(row["config"], file))
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


def bound(row: dict[str, str], quantity: str) -> float | None:
    """Return the largest relative error of `quantity` that is allowed in `row`; None: any.

    DRAMsim3's runs are to be repeated; Ramulator's and DRAMSys' controllers are modelled, so
    what depends on the order of mixed traffic may differ more than streams.
    """
    half, pattern = row["trace"].endswith("_50"), row["trace"].removesuffix("_50")
    if row["simulator"] == "DRAMsim3":
        if quantity in ("cycles", "e_total"):
            return 0.005
        if quantity == "latency":
            return 0.03 if half or pattern == "bursty" else 0.05
        return 0.05 if quantity == "act" or (quantity == "e_act" and half) else 0.02
    if quantity != "cycles":
        return None
    if row["config"] in PRESETS:
        return 0.05
    if row["simulator"] == "Ramulator2.1":
        return 0.05 if pattern in ("copy21", "compressed") else 0.02
    return 0.05 if pattern.startswith("rand") else 0.015


def run(
    folder: Path, row: dict[str, str], trace: Trace, policy: Policy | None = None
) -> DramResult:
    """Run the reference run of `row` under its policy, or under another."""
    kind = row["config"].split("_")[0]
    requests = trace.requests(SLOT_CYCLES[kind])
    return simulate(requests, reference_device(folder, row), policy or SIMULATORS[row["simulator"]])


def main(arguments: list[str]) -> int:
    """Print every row's errors, and the worst and the median of each column."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="results*.csv and devices/*.ini")
    parser.add_argument("--simulator", choices=list(SIMULATORS), help="only its rows")
    parser.add_argument("--match", default="", help="only rows whose device and trace hold this")
    parser.add_argument("--policy", help="run this policy instead of the reference's own")
    given = parser.parse_args(arguments)
    made: dict[str, dict[str, Trace]] = {}
    columns: dict[str, list[tuple[float, str]]] = {}
    speeds, beyond = [], []
    print("simulator,device,trace,cycles,errors %,million requests/s")
    for row in reference_rows(given.folder):
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
            allowed = bound(row, key)
            if allowed is not None and abs(value) > allowed and not given.policy:
                beyond.append(f"{label}: {key} {value:+.3%}, at most {allowed:.1%} is allowed")
        speeds.append(result.requests / result.cpu_s / 1e6)
        text = " ".join(f"{key}={value * 100:+.3f}" for key, value in found.items())
        print(f"{label},{result.cycles},{text},{speeds[-1]:.1f}", flush=True)
    _summary(columns, speeds, beyond)
    return 1 if beyond else 0


def _summary(
    columns: dict[str, list[tuple[float, str]]], speeds: list[float], beyond: list[str]
) -> None:
    for key, pairs in columns.items():
        worst, label = max(pairs)
        median = float(np.median([value for value, _ in pairs]))
        print(f"{key}: worst {worst:.3%} ({label}), median {median:.4%} of {len(pairs)} runs")
    if speeds:
        print(f"million requests/s: median {np.median(speeds):.1f}, least {min(speeds):.1f}")
    for line in beyond:
        print(line)
    print(f"validate: {len(speeds)} runs, {len(beyond)} errors beyond their bounds")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
