"""Writes everything about a comparison into a folder."""

from __future__ import annotations

import io
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from sfpsim.errors import InputError
from sfpsim.experiment.result import Comparison, ContainerResult, RoleResult
from sfpsim.report import palette
from sfpsim.report.figures import Figure, draw, save, table_bytes
from sfpsim.report.over_training import draw_over_training
from sfpsim.report.summary import headline, order_flips, sources
from sfpsim.report.table import (
    COLUMNS,
    TEXT_COLUMNS,
    grouped_layers,
    short_name,
    significant,
    table_row,
)
from sfpsim.trace.writer import write_atomically

MANY_ROWS = 40  # of a table that is folded up in the report


def html(comparison: Comparison, figures: list[Figure], files: dict[str, bytes]) -> bytes:
    """Return one HTML file with the table and all figures that opens offline.

    `files` holds the figures' SVGs as `save` returns them.
    """
    import jinja2

    text = (resources.files("sfpsim.report") / "report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"significant": significant, "short": short_name}
    return (
        environment.from_string(text)
        .render(
            comparison=comparison,
            headline=headline(comparison),
            columns=COLUMNS,
            text_columns=TEXT_COLUMNS,
            rows=_rows(comparison),
            figures=[_inline(f, files[f"{f.name}.svg"].decode()) for f in figures],
            flips=order_flips(comparison),
            lossy=[named for c in comparison.containers for named in _lossy(c)],
            many=MANY_ROWS,
            sources=sources(comparison),
            layers=[(c.container, _layer_rows(c)) for c in comparison.containers],
        )
        .encode()
    )


def _lossy(result: ContainerResult) -> list[tuple[str, RoleResult]]:
    """Return the roles that lose something, each by its policy or, by lengths, its container."""
    rows = [r for r in result.roles if r.max_rel_error is not None]
    times = Counter(r.role for r in rows)
    return [(r.container if times[r.role] > 1 else result.container, r) for r in rows]


def _inline(figure: Figure, svg: str) -> dict[str, str]:
    return {
        "name": figure.name,
        "title": figure.title,
        "caption": figure.caption,
        "svg": svg[svg.index("<svg") :].replace(
            "<svg", f'<svg role="img" aria-label="{figure.title}"', 1
        ),
    }


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    first = comparison.containers[0].totals
    longest = max(c.totals.time_ns for c in comparison.containers) or 1
    return [
        {
            "cells": table_row(first, c),
            "totals": c.totals,
            "share": 100 * c.totals.time_ns / longest,
            "colour": palette.container_colour(i),
        }
        for i, c in enumerate(comparison.containers)
    ]


def _layer_rows(result: ContainerResult) -> list[dict[str, Any]]:
    """Return one row a layer and pass, summed over the captured steps."""
    out = []
    for (name, pass_), layers in grouped_layers(result).items():
        limiters = list(dict.fromkeys(x.limiter for x in layers))
        out.append(
            {
                "name": name or "(top)",
                "pass_": pass_,
                "time_us": sum(x.time_ns for x in layers) / 1e3,
                "read_mb": sum(x.read_bytes for x in layers) / 1e6,
                "write_mb": sum(x.write_bytes for x in layers) / 1e6,
                "energy_uj": sum(x.energy_pj for x in layers) / 1e6,
                "utilisation": layers[0].utilisation,
                "macs": sum(x.macs for x in layers),
                "scheme": layers[0].scheme,
                "limiter": ", ".join(limiters),
            }
        )
    return out


def results_csv(comparison: Comparison) -> bytes:
    """Return the totals, one row a container; inner keys are joined with dots."""
    flat = [_flat(msgspec.to_builtins(result.totals)) for result in comparison.containers]
    keys = list(flat[0])
    rows: list[list[Any]] = [["container", "lossless", *keys]]
    for result, values in zip(comparison.containers, flat, strict=True):
        rows.append([result.container, result.lossless, *(values[k] for k in keys)])
    return table_bytes(rows)


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            out |= _flat(inner, f"{prefix}{key}.")
        else:
            out[prefix + key] = inner
    return out


def to_json(comparison: Comparison) -> bytes:
    """Return the result as JSON; infinities and missing values are null."""
    return msgspec.json.format(msgspec.json.encode(comparison)) + b"\n"


def make_folder(folder: Path) -> None:
    """Make `folder` where it is not there.

    Raises
    ------
    InputError
        If it cannot be made or written to.
    """
    probe = folder / ".sfpsim-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error


def write_result(comparison: Comparison, path: Path) -> None:
    """Write the JSON of `comparison`.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    _write(path, to_json(comparison))


def write_array(path: Path, name: str, values: Any) -> None:
    """Write one array as `.npy`, or as the tensor `name` of a `.safetensors` file.

    Raises
    ------
    InputError
        If the ending is another, `.npy` cannot hold the dtype, or it cannot be written.
    """
    import numpy as np

    if path.suffix == ".safetensors":
        from safetensors.numpy import save as save_tensors

        _write(path, save_tensors({name: np.asarray(values, order="C")}))
    elif path.suffix != ".npy":
        raise InputError(f"{path}: allowed are .npy and .safetensors")
    elif values.dtype.name == "bfloat16":
        raise InputError(f"{path}: .npy cannot hold bfloat16: give a .safetensors file")
    else:
        buffer = io.BytesIO()
        np.save(buffer, values)
        _write(path, buffer.getvalue())


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def write_report(comparison: Comparison, folder: str | Path) -> list[Path]:
    """Write results.json, results.csv, the figures and report.html; returns the paths.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    where = Path(folder)
    make_folder(where)
    try:
        figures = [*draw(comparison), *draw_over_training(comparison)]
        files = save(figures, where)
        more = {
            "results.json": to_json(comparison),
            "results.csv": results_csv(comparison),
            "report.html": html(comparison, figures, files),
        }
        for name, data in more.items():
            write_atomically(where / name, data)
    except OSError as error:
        raise InputError(f"{where}: cannot be written: {error.strerror}") from error
    return [where / name for name in (*files, *more)]
