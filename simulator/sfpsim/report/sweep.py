"""What a sweep shows: its table, its results as CSV and JSON, and the Pareto figure."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from sfpsim._version import __version__
from sfpsim.experiment.sweep import PointResult, SweepResult, pareto, results_table
from sfpsim.report.figures import Figure, save, styled
from sfpsim.trace.writer import write_atomically

MOST_ROWS = 30


def _label(r: PointResult) -> str:
    return r.point.container


def sweep_table(results: list[PointResult]) -> Table:
    """Return the Pareto points, by time: no other is both faster and cheaper."""
    table = Table(title="points that no other beats in both time and energy", title_justify="left")
    keys = list(dict.fromkeys(key for r in results for key in r.point.keys))
    for key in (*keys, "time ms", "energy mJ", "traffic MB"):
        table.add_column(key, justify="left" if key in keys else "right")
    for r in pareto(results)[:MOST_ROWS]:
        table.add_row(
            *(str(r.point.keys.get(key, "-")) for key in keys),
            f"{(r.time_ns or 0) / 1e6:.4g}",
            f"{(r.energy_pj or 0) / 1e9:.4g}",
            f"{(r.traffic_bytes or 0) / 1e6:.4g}",
        )
    return table


def pareto_figure(results: list[PointResult]) -> Figure:
    """Draw every point by time and energy, a colour a container, and the Pareto line."""
    from matplotlib.figure import Figure as Canvas

    sound = [r for r in results if r.error is None and r.time_ns is not None]
    figure = Canvas(figsize=(6.5, 4.0), layout="constrained")
    axis = figure.subplots()
    for name in dict.fromkeys(_label(r) for r in sound):
        mine = [r for r in sound if _label(r) == name]
        axis.scatter(
            [(r.time_ns or 0) / 1e6 for r in mine], [(r.energy_pj or 0) / 1e9 for r in mine],
            s=22, label=name, zorder=3,
        )  # fmt: skip
    best = pareto(results)
    axis.step(
        [(r.time_ns or 0) / 1e6 for r in best], [(r.energy_pj or 0) / 1e9 for r in best],
        where="post", color="black", lw=1, label="no other is better in both", zorder=2,
    )  # fmt: skip
    axis.set_xlim(0, 1.05 * max((r.time_ns or 0) for r in sound) / 1e6)
    axis.set_ylim(0, 1.05 * max((r.energy_pj or 0) for r in sound) / 1e9)
    axis.set_xlabel("time, ms")
    axis.set_ylabel("energy, mJ")
    figure.legend(loc="outside right upper")
    rows: list[list[Any]] = [["container", "time_ns", "energy_pj", "pareto"]]
    chosen = {r.point.hash for r in best}
    rows += [[_label(r), r.time_ns, r.energy_pj, r.point.hash in chosen] for r in sound]
    return Figure(
        name="pareto",
        title="Time and energy of every point",
        caption="Every point of the sweep, a colour a container; the line joins those that no "
        "other beats in both time and energy. A lossy container is no rival of an exact one: see "
        "sqnr_db.",
        figure=figure,
        rows=rows,
    )


def write_sweep(results: list[PointResult], folder: str | Path) -> SweepResult:
    """Write results.csv, results.json and the figure into `folder`; return the result."""
    where = Path(folder)
    found = SweepResult(
        sfpsim=__version__, points=results, pareto=[r.point.hash for r in pareto(results)]
    )
    write_atomically(where / "results.csv", results_table(results))
    write_atomically(
        where / "results.json", msgspec.json.format(msgspec.json.encode(found)) + b"\n"
    )
    if found.pareto:
        save(styled([partial(pareto_figure, results)]), where)
    return found
