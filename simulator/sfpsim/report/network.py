"""What is shown of a network's step beyond a comparison."""

from __future__ import annotations

from rich.table import Table

from sfpsim.experiment.network import NetworkContainer, NetworkResult
from sfpsim.report.table import plain_table, short_name, significant

FULL = {
    "none": "everything, nothing fused",
    "producer": "everything, fused into the layer before but for normalisations",
    "full": "everything, all but products fused",
}


def traffic_table(result: NetworkResult) -> Table:
    """Return what the step moves in the machine's baseline type, from least to most."""
    t = result.traffic
    rows = {
        "products, each value once (compulsory)": t.compulsory_bytes,
        "products, no order of work moves less (bound)": t.bound_bytes,
        "products, best reuse in the buffer (operands)": t.operand_bytes,
    }
    for fusion, moved in reversed(t.full_bytes.items()):
        mark = "  <- simulated" if fusion == result.fusion else ""
        rows[f"{FULL[fusion]} (full){mark}"] = moved
    rows["stash at the end of the forward pass"] = t.stash_bytes
    table = plain_table(
        ("what moves in the baseline type", "MB", "of compulsory"),
        "traffic of a step, whatever the container",
    )
    for name, moved in rows.items():
        share = f"{moved / t.compulsory_bytes:.2f}" if t.compulsory_bytes else "-"
        table.add_row(name, significant(moved / 1e6), share)
    return table


def gains_table(result: NetworkResult) -> Table:
    """Return how many times less each container takes than each base."""
    columns = (
        "container", "against", "speed-up", "at 100 / 70 / 50 %", "energy",
        "low .. high", "traffic", "its bound", "break-even\nGB/s",
    )  # fmt: skip
    table = plain_table(columns, "times less than in a base", text=2)
    for c in result.containers:
        for g in c.gains:
            band = g.speed_up_band
            table.add_row(
                short_name(c.container), g.base, f"{g.speed_up:.2f}",
                f"{band.u100:.2f} / {band.u70:.2f} / {band.u50:.2f}", f"{g.energy_middle:.2f}",
                " .. ".join(f"{x:.2f}" for x in sorted((g.energy_low, g.energy_high))),
                f"{g.traffic:.2f}", "-" if c.bound is None else f"{c.bound:.2f}",
                "-" if c.break_even_gbps is None else f"{c.break_even_gbps:.1f}",
            )  # fmt: skip
    table.caption = (
        "Both sides at the same utilisation of the array; its bound is against the machine's "
        "baseline, where what the policy compresses shrinks by its ratio; above break-even the "
        "array limits."
    )
    table.caption_justify = "left"
    return table


def step_table(container: NetworkContainer) -> Table:
    """Return one row a layer and pass: time, limiter, traffic, bandwidth, energy."""
    columns = ("layer", "pass", "limiter", "time\nµs", "traffic\nMB", "of com-\npulsory", "GB/s",
               "energy\nµJ")  # fmt: skip
    table = plain_table(columns, f"layers and passes in {container.container}", text=3)
    for x in container.layers:
        moved = x.read_bytes + x.write_bytes
        table.add_row(
            x.name or "(top)", x.pass_, x.limiter, significant(x.time_ns / 1e3),
            significant(moved / 1e6),
            f"{moved / x.compulsory_bytes:.2f}" if x.compulsory_bytes else "-",
            f"{moved / x.time_ns:.1f}" if x.time_ns else "-", significant(x.energy_pj / 1e6),
        )  # fmt: skip
    table.caption = (
        "A pass takes the time by which it ends later than the pass before, under which its own "
        "loading may run: its GB/s are its bytes over that, and may exceed the memory's peak."
    )
    table.caption_justify = "left"
    return table
