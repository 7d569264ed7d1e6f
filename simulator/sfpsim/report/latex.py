"""Tables for papers: LaTeX with booktabs, each with the hash of the configuration it is from."""

from __future__ import annotations

from collections.abc import Sequence

from sfpsim.experiment.network import NetworkResult
from sfpsim.report.table import significant

SPECIAL = {"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}, "~": r"\~{}",
           "^": r"\^{}"}  # fmt: skip


def escaped(text: str) -> str:
    """Return `text` as LaTeX sets it."""
    return "".join(SPECIAL.get(c, c) for c in text)


def tabular(head: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    """Return a table whose first column is text; `note` stands over it as a comment."""
    lines = [f"% {note}", rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule"]
    lines.append(" & ".join(map(escaped, head)) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join(map(escaped, row)) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def network_latex(result: NetworkResult) -> str:
    """Return the containers of a step: traffic, time, energy, and gains against the bases."""
    bases = [g.base for g in result.containers[0].gains]
    head = ["container", "traffic, GB", "time, ms", "energy, mJ"]
    head += [f"{what}, {b.upper()}" for b in bases for what in ("speed-up", "energy eff.")]
    rows = []
    for c in result.containers:
        gains = [f"{x:.2f}" for g in c.gains for x in (g.speed_up, g.energy_middle)]
        rows.append(
            [c.container, significant(c.traffic_bytes / 1e9), significant(c.time_ns / 1e6),
             significant(c.energy_pj.total / 1e9), *gains]
        )  # fmt: skip
    note = (
        f"sfpsim {result.sfpsim}, configuration {result.config_hash}: {result.network}, batch "
        f"{result.batch}, {result.mode}, {result.machine} ({result.machine_hash}), "
        f"{result.memory_detail}; needs booktabs"
    )
    return tabular(head, rows, note)
