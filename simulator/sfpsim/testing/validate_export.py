"""Exported traffic, run as a trace: ``python -m sfpsim.testing.validate_export TRACE [TRACE ...]``.

Each trace is replayed in ``detailed`` under a few containers, its DRAM traffic exported and
run through the controller alone. One line each: by what share time and DRAM energy then
differ from the replay's. Exit 0 where they differ by at most 1 % and 2 %, else 1.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfpsim.errors import InputError
from sfpsim.experiment.compare import replay
from sfpsim.experiment.result import Comparison
from sfpsim.hardware.dram.simulate import DramResult, simulate
from sfpsim.hardware.machine import Detail, Machine, load_machine
from sfpsim.interop.address_trace import Format, read_trace
from sfpsim.interop.traffic import TrafficExport
from sfpsim.trace.reader import open_trace

CONTAINERS = ("bf16", "gecko-bias", "sfp:m=2,e=4")
MOST_TIME, MOST_ENERGY = 0.01, 0.02


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A replay's result, and what each channel's exported traffic gives alone."""

    replayed: Comparison
    alone: list[DramResult]

    @property
    def time_error(self) -> float:
        """By what share the traffic alone takes longer than the replay."""
        totals = self.replayed.containers[0].totals
        return max(a.time_ns for a in self.alone) / totals.time_ns - 1

    @property
    def energy_error(self) -> float:
        """By what share the traffic alone costs more DRAM energy than the replay."""
        energy = self.replayed.containers[0].totals.energy_pj.dram
        return sum(a.energy_pj.total for a in self.alone) / energy.total - 1


def exported(
    trace: Any, policy: str, machine: Machine, folder: Path, *, detail: Detail = "detailed",
    form: Format = "dramsim3",
) -> Exported:  # fmt: skip
    """Replay `trace`, export its traffic to files in `folder` and run those."""
    with TrafficExport(folder / "traffic", form, machine.memory.channels) as export:
        found = replay(trace, policy, machine=machine, detail=detail, observer=export)
    alone = [simulate(read_trace(path, form), machine.device) for path in export.paths]
    return Exported(replayed=found, alone=alone)


def main(arguments: list[str]) -> int:
    """Check the traces at the paths given; return the exit status."""
    if not arguments:
        print("usage: python -m sfpsim.testing.validate_export TRACE [TRACE ...]", file=sys.stderr)
        return 2
    machine, off = load_machine("sfp-2024"), False
    for path in map(Path, arguments):
        for container in CONTAINERS:
            try:
                with tempfile.TemporaryDirectory() as folder:
                    found = exported(open_trace(path), container, machine, Path(folder))
            except (InputError, OSError) as error:
                print(f"sfpsim: {error}", file=sys.stderr)
                return 2
            time, energy = found.time_error, found.energy_error
            print(f"{path} {container}: time {time:+.3%}, DRAM energy {energy:+.3%}", flush=True)
            off |= abs(time) > MOST_TIME or abs(energy) > MOST_ENERGY
    return int(off)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
