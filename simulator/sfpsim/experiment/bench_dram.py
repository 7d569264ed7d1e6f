"""``sfpsim bench dram``: million requests a second of the DRAM engine, one core, CPU time."""

from __future__ import annotations

from typing import Any

from sfpsim.hardware.dram.device import load_device, presets
from sfpsim.hardware.dram.patterns import traces
from sfpsim.hardware.dram.simulate import Policy, simulate

POLICIES: tuple[Policy, ...] = ("default", "dramsim3")
DEVICES = ("ddr4-3200-x64", "lpddr4-3200-x32", "hbm2-2000-x64", "gddr6-14000-x16")


def bench_dram() -> list[dict[str, Any]]:
    """Run the traces of the reference runs on a device of each kind; compilation excluded."""
    results = []
    made: dict[int, Any] = {}
    for name in (name for name in DEVICES if name in presets()):
        device = load_device(name)
        access = device.access_bytes
        if access not in made:
            made[access] = traces(access)
        for policy in POLICIES:
            for label, trace in made[access].items():
                run = simulate(trace.requests(device.slot_cycles), device, policy)
                results.append(
                    {
                        "bench": "dram",
                        "device": name,
                        "trace": label,
                        "level": f"detailed/{policy}",
                        "million_requests_per_s": run.requests / run.cpu_s / 1e6,
                    }
                )
    return results
