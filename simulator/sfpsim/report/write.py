"""Writes everything about a comparison into a folder."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import msgspec

from sfpsim.errors import InputError
from sfpsim.experiment.result import Comparison
from sfpsim.report.figures import Figure, draw, rendered, save, table_bytes
from sfpsim.report.table import COLUMNS, table_row
from sfpsim.trace.writer import write_atomically


def html(comparison: Comparison, figures: list[Figure]) -> bytes:
    """Return one HTML file with the table and all figures that opens offline."""
    import jinja2

    text = (resources.files("sfpsim.report") / "report.html.j2").read_text("utf-8")
    template = jinja2.Environment(autoescape=True).from_string(text)
    first = comparison.containers[0].totals
    drawn = [
        {"svg": _inline(rendered(f.figure, "svg").decode()), "caption": f.caption} for f in figures
    ]
    return template.render(
        comparison=comparison,
        columns=COLUMNS,
        rows=[table_row(first, result) for result in comparison.containers],
        figures=drawn,
    ).encode()


def _inline(svg: str) -> str:
    return svg[svg.index("<svg") :]


def results_csv(comparison: Comparison) -> bytes:
    """Return the scalar totals, one row a container."""
    totals = [msgspec.to_builtins(result.totals) for result in comparison.containers]
    keys = [key for key, value in totals[0].items() if not isinstance(value, dict)]
    rows = [["container", *keys, "energy_pj"]]
    for result, values in zip(comparison.containers, totals, strict=True):
        rows.append([result.container, *(values[k] for k in keys), values["energy_pj"]["total"]])
    return table_bytes(rows)


def to_json(comparison: Comparison) -> bytes:
    """Return the result as JSON; infinities and missing values are null."""
    return msgspec.json.format(msgspec.json.encode(comparison)) + b"\n"


def write_report(comparison: Comparison, folder: str | Path) -> list[Path]:
    """Write results.json, results.csv, the figures and report.html; returns the paths.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    where = Path(folder)
    try:
        where.mkdir(parents=True, exist_ok=True)
        figures = draw(comparison)
        paths = save(figures, where)
        for name, data in (
            ("results.json", to_json(comparison)),
            ("results.csv", results_csv(comparison)),
            ("report.html", html(comparison, figures)),
        ):
            write_atomically(where / name, data)
            paths.append(where / name)
    except OSError as error:
        raise InputError(f"{where}: cannot be written: {error.strerror}") from error
    return paths
