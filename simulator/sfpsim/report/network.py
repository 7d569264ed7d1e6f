"""What is shown of a network's step beyond a comparison."""

from __future__ import annotations

from rich.table import Table

from sfpsim.experiment.network import NetworkResult
from sfpsim.report.table import plain_table, significant

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
    table = plain_table(("what moves in the baseline type", "MB", "of compulsory"),
                        "traffic of a step, whatever the container")  # fmt: skip
    for name, moved in rows.items():
        share = f"{moved / t.compulsory_bytes:.2f}" if t.compulsory_bytes else "-"
        table.add_row(name, significant(moved / 1e6), share)
    return table
