"""What a sweep shows: its table, its results as CSV and JSON, and the Pareto figure."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from sfpsim._version import __version__
from sfpsim.experiment.sweep import PointResult, SweepResult, pareto, results_table
from sfpsim.report import palette
from sfpsim.report.figures import FEW, Figure, save, styled
from sfpsim.report.table import short_name
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
    figure = Canvas(figsize=(8.6, 4.0), layout="constrained")
    axis = figure.subplots()
    names = list(dict.fromkeys(_label(r) for r in sound))
    best = pareto(results)
    for number, name in enumerate(names):
        mine = [_place(r) for r in sound if _label(r) == name]
        few = len(names) <= FEW
        axis.plot(*zip(*mine, strict=True), "o", ms=4.5 if few else 3, zorder=3, ls="",
                  color=palette.container_colour(number) if few else "#aaaaaa",
                  label=short_name(name) if few else None)  # fmt: skip
    line = [_place(r) for r in best]
    axis.step(*zip(*line, strict=True), where="post", color="black", lw=1, zorder=2,
              label="no other is better in both")  # fmt: skip
    if len(names) > FEW:
        _name_best(axis, best)
    for axis_name, most in zip("xy", map(max, zip(*map(_place, sound), strict=True)), strict=True):
        getattr(axis, f"set_{axis_name}lim")(0, 1.05 * most)
    axis.set_xlabel("time, ms")
    axis.set_ylabel("energy, mJ")
    figure.legend(loc="outside right upper")
    rows: list[list[Any]] = [["container", "time_ns", "energy_pj", "pareto"]]
    chosen = {r.point.hash for r in best}
    rows += [[_label(r), r.time_ns, r.energy_pj, r.point.hash in chosen] for r in sound]
    return Figure(
        name="pareto",
        title="Time and energy of every point",
        caption="Every point of the sweep, a colour a container where there are few; the line "
        "joins those that no other beats in both time and energy. Points of other networks or "
        "batches are other work: compare within one. A lossy container is no rival of an exact "
        "one: see sqnr_db.",
        figure=figure,
        rows=rows,
    )


def _place(r: PointResult) -> tuple[float, float]:
    return (r.time_ns or 0) / 1e6, (r.energy_pj or 0) / 1e9


def _name_best(axis: Any, best: list[PointResult]) -> None:
    """Name the containers of the line's points, each once."""
    named: set[str] = set()
    for r in best:
        if _label(r) not in named:
            named.add(_label(r))
            axis.annotate(short_name(_label(r)), _place(r), (5, 5), fontsize=7,
                          textcoords="offset points")  # fmt: skip


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
