"""``sfpsim bench dram``: million requests a second of the DRAM engine, one core, CPU time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sfpsim.hardware.dram.device import Device, load_device, presets
from sfpsim.hardware.dram.patterns import Trace, row_hits, traces
from sfpsim.hardware.dram.simulate import POLICIES, Requests, simulate

DEVICES = ("ddr4-3200-x64", "lpddr4-3200-x32", "hbm2-2000-x64", "gddr6-14000-x16")


def _requests(device: Device, made: dict[str, Trace]) -> Iterator[tuple[str, Requests]]:
    """Yield the traces of the reference runs, and hits on open rows."""
    for label, trace in made.items():
        yield label, trace.requests(device.slot_cycles)
    for label, write in (("row_hits_rd", False), ("row_hits_wr", True)):
        yield label, row_hits(device, write=write)


def bench_dram() -> list[dict[str, Any]]:
    """Run traces on a device of each kind under every policy; compilation excluded."""
    results = []
    made: dict[int, dict[str, Trace]] = {}
    for name in (name for name in DEVICES if name in presets()):
        device = load_device(name)
        access = device.access_bytes
        if access not in made:
            made[access] = traces(access)
        for policy in POLICIES:
            for label, requests in _requests(device, made[access]):
                run = simulate(requests, device, policy)
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
