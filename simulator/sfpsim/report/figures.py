"""The figures of a comparison, each as SVG and PDF with a CSV of its numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from sfpsim.experiment.result import Comparison, ContainerResult
from sfpsim.report.table import limiter_shares
from sfpsim.trace.writer import write_atomically

FIELDS = ("sign", "exponent", "mantissa", "metadata", "padding", "index")
PARTS = ("compute", "dram", "decoder", "encoder", "metadata", "dependency")
MAIN_ROLES = ("weight", "activation", "gradient", "optimizer", "other", "unknown")
Row = list[Any]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawn figure: its name, what it says, and the numbers in it."""

    name: str
    caption: str
    figure: Any
    rows: list[Row]


def _axes(count: int = 1, width: float = 7.0, height: float = 3.0) -> tuple[Any, Any]:
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _names(comparison: Comparison) -> list[str]:
    return [result.container for result in comparison.containers]


def _label(axis: Any, names: list[str]) -> None:
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")


def _stack(axis: Any, names: list[str], columns: dict[str, list[float]]) -> None:
    bottom = [0.0] * len(names)
    for label, values in columns.items():
        axis.bar(range(len(names)), values, 0.7, bottom=bottom, label=label)
        bottom = [b + v for b, v in zip(bottom, values, strict=True)]
    _label(axis, names)


def _legend(figure: Any, axis: Any, columns: int = 6) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def bits(comparison: Comparison) -> Figure:
    """Bits a value by role and container, split into fields."""
    found = {r.role for c in comparison.containers for r in c.roles if r.raw_bits}
    roles = [r for r in MAIN_ROLES if r in found]
    figure, axes = _axes(len(roles), 2.2 + 2.0 * len(roles), 3.4)
    names = _names(comparison)
    rows: list[Row] = [["role", "container", *(f"{f}_bits_a_value" for f in FIELDS)]]
    for axis, role in zip(axes, roles, strict=True):
        split = [_bits_of(result, role) for result in comparison.containers]
        rows += [[role, name, *values] for name, values in zip(names, split, strict=True)]
        _stack(axis, names, {f: [s[i] for s in split] for i, f in enumerate(FIELDS)})
        axis.set_title(role)
        axis.set_ylim(0, max(36.0, axis.get_ylim()[1]))
    axes[0].set_ylabel("bits a value")
    _legend(figure, axes[0])
    return Figure(
        name="bits", caption="Stored bits a value by role and field.", figure=figure, rows=rows
    )


def _bits_of(result: ContainerResult, role: str) -> list[float]:
    mine = [r for r in result.roles if r.role == role]
    values = sum(r.values for r in mine) or 1
    return [sum(getattr(r, f"{f}_bits") for r in mine) / values for f in FIELDS]


def traffic(comparison: Comparison) -> Figure:
    """Traffic by role and by pass, with the compulsory part and the bound."""
    figure, axes = _axes(2, 8.0, 3.4)
    names = _names(comparison)
    rows: list[Row] = [
        ["container", "pass", "role", "read_bytes", "write_bytes", "compulsory_bytes"]
    ]
    for result in comparison.containers:
        for t in result.traffic:
            rows.append(
                [result.container, t.pass_, t.role, t.read_bytes, t.write_bytes, t.compulsory_bytes]
            )
    for axis, key, title in zip(axes, ("role", "pass_"), ("by role", "by pass"), strict=True):
        kinds = sorted({getattr(t, key) for c in comparison.containers for t in c.traffic})
        _stack(axis, names, {k: [_moved(c, key, k) for c in comparison.containers] for k in kinds})
        axis.set_title(title)
        for i, result in enumerate(comparison.containers):
            needed = sum(t.compulsory_bytes for t in result.traffic) / 1e6
            axis.plot([i - 0.4, i + 0.4], [needed] * 2, "k-", lw=1.2,
                      label="compulsory" if i == 0 else None)  # fmt: skip
        axis.legend(fontsize=7, loc="upper right")
        axis.set_ylim(0, axis.get_ylim()[1] * 1.25)
    first = sum(t.read_bytes + t.write_bytes for t in comparison.containers[0].traffic) / 1e6
    for i, result in enumerate(comparison.containers):
        bound = result.totals.bound
        if bound:
            axes[0].annotate(f"bound {bound:.2f}×", (i, 0), (0, 3), textcoords="offset points",
                             ha="center", fontsize=6, color="white", rotation=90,
                             va="bottom")  # fmt: skip
    axes[0].axhline(first, color="grey", lw=0.6, ls=":")
    axes[0].set_ylabel("traffic, MB")
    return Figure(
        name="traffic",
        caption="Bytes moved; the black line is what must move once. The bound is the least "
        "traffic ratio that the policy's ratio and its share of the traffic allow.",
        figure=figure,
        rows=rows,
    )


def _moved(result: ContainerResult, key: str, value: str) -> float:
    mine = [t for t in result.traffic if getattr(t, key) == value]
    return sum(t.read_bytes + t.write_bytes for t in mine) / 1e6


def time(comparison: Comparison) -> Figure:
    """Time split by limiter, and bandwidth."""
    figure, (left, right) = _axes(2, 8.0, 3.4)
    names = _names(comparison)
    rows: list[Row] = [["container", "time_ns", "bandwidth_gbps", *(f"share_{p}" for p in PARTS)]]
    columns: dict[str, list[float]] = {part: [] for part in PARTS}
    for result in comparison.containers:
        shares = limiter_shares(result)
        totals = result.totals
        rows.append([result.container, totals.time_ns, totals.bandwidth_gbps,
                     *(shares[p] for p in PARTS)])  # fmt: skip
        for part in PARTS:
            columns[part].append(shares[part] * totals.time_ns / 1e6)
    _stack(left, names, {k: v for k, v in columns.items() if any(v)})
    left.set_ylabel("time, ms")
    left.set_title("time by what limits it")
    left.legend()
    left.set_ylim(0, left.get_ylim()[1] * 1.2)
    right.bar(range(len(names)), [c.totals.bandwidth_gbps for c in comparison.containers], 0.7)
    peak = comparison.machine.peak_bandwidth_gbps
    right.axhline(peak, color="black", lw=1, ls="--", label=f"peak {peak:.1f}")
    right.set_ylabel("mean bandwidth, GB/s")
    right.set_title("bandwidth")
    right.set_ylim(0, peak * 1.25)
    right.legend(loc="upper right")
    _label(right, names)
    return Figure(name="time", caption="Time by limiter, and bandwidth.", figure=figure, rows=rows)


def energy(comparison: Comparison) -> Figure:
    """Energy by component, with the range of the tables."""
    figure, (axis,) = _axes(1, 6.0, 3.4)
    names = _names(comparison)
    dram = comparison.containers[0].totals.energy_pj.dram.__struct_fields__
    columns: dict[str, list[float]] = {}
    for f in dram:
        columns[f"DRAM {f.replace('_', ' ')}"] = [
            getattr(c.totals.energy_pj.dram, f) / 1e9 for c in comparison.containers
        ]
    for f in ("codec", "onchip", "compute"):
        columns[f] = [getattr(c.totals.energy_pj, f) / 1e9 for c in comparison.containers]
    axis.set_prop_cycle(color=_ten_colours())
    _stack(axis, names, columns)
    middle = [c.totals.energy_pj.total / 1e9 for c in comparison.containers]
    low = [
        m - c.totals.energy_low_pj.total / 1e9
        for m, c in zip(middle, comparison.containers, strict=True)
    ]
    high = [
        c.totals.energy_high_pj.total / 1e9 - m
        for m, c in zip(middle, comparison.containers, strict=True)
    ]
    axis.errorbar(range(len(names)), middle, [low, high], fmt="none", ecolor="black", capsize=3,
                  lw=1, label="low to high tables")  # fmt: skip
    axis.set_ylabel("energy, mJ")
    figure.legend(loc="outside right upper")
    rows: list[Row] = [["container", *columns, "total", "low", "high"]]
    for i, result in enumerate(comparison.containers):
        totals = result.totals
        rows.append([names[i], *(v[i] for v in columns.values()), middle[i],
                     totals.energy_low_pj.total / 1e9,
                     totals.energy_high_pj.total / 1e9])  # fmt: skip
    return Figure(
        name="energy",
        caption="Energy by component, mJ, middle tables; the bar spans the low and high tables.",
        figure=figure,
        rows=rows,
    )


def _ten_colours() -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["tab20"](i) for i in range(20)]


def live(comparison: Comparison) -> Figure:
    """Off-chip bytes in use over the first step."""
    figure, (axis,) = _axes(1, 6.0, 3.0)
    rows: list[Row] = [["container", "time_ns", "stash_bytes", "other_bytes"]]
    for result in comparison.containers:
        rows += [[result.container, x.time_ns, x.stash_bytes, x.other_bytes] for x in result.live]
        axis.step([x.time_ns / 1e6 for x in result.live],
                  [(x.stash_bytes + x.other_bytes) / 1e6 for x in result.live],
                  where="post", label=result.container)  # fmt: skip
    axis.set_xlabel("time in the first captured step, ms")
    axis.set_ylabel("DRAM in use, MB")
    axis.set_ylim(0, None)
    figure.legend(loc="outside right upper")
    return Figure(name="live", caption="DRAM in use over a step.", figure=figure, rows=rows)


def exponents(comparison: Comparison) -> Figure:
    """Histograms of the exponent fields by role."""
    figure, (axis,) = _axes(1, 6.0, 3.0)
    rows: list[Row] = [["role", "exponent_field", "count"]]
    low, high = 255, 0
    for role, counts in comparison.exponents.items():
        total = sum(counts) or 1
        used = [i for i, n in enumerate(counts) if n and i]
        low, high = min([low, *used]), max([high, *used])
        rows += [[role, i, n] for i, n in enumerate(counts) if n]
        zeros = counts[0] / total
        axis.step(range(1, 256), [100 * n / total for n in counts[1:]], where="mid",
                  label=f"{role} (field 0: {100 * zeros:.0f} %)")  # fmt: skip
    axis.set_xlim(max(0, low - 1), min(255, high + 1))
    axis.set_ylim(0, None)
    axis.set_xlabel("exponent field")
    axis.set_ylabel("share of values, %")
    figure.legend(loc="outside right upper")
    return Figure(
        name="exponents",
        caption="Exponent fields of the values in the trace, by role; zeros and denormals "
        "(field 0) in the legend.",
        figure=figure,
        rows=rows,
    )


FIGURES: tuple[Callable[[Comparison], Figure], ...] = (
    bits, traffic, time, energy, live, exponents,
)  # fmt: skip


def draw(comparison: Comparison) -> list[Figure]:
    """Draw every figure of `comparison` in the package's style."""
    import matplotlib as mpl

    with resources.as_file(resources.files("sfpsim.report") / "paper.mplstyle") as style:
        mpl.rc_file(style)
    return [make(comparison) for make in FIGURES]


def rendered(figure: Any, kind: str) -> bytes:
    """Return `figure` as SVG or PDF; the same figure gives the same bytes."""
    out = io.BytesIO()
    when = {"Date": None} if kind == "svg" else {"CreationDate": None}
    figure.savefig(out, format=kind, metadata=when)
    return out.getvalue()


def table_bytes(rows: list[Row]) -> bytes:
    """Return `rows` as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def save(figures: list[Figure], folder: Path) -> list[Path]:
    """Write every figure as SVG, PDF and CSV; returns the paths."""
    paths = []
    for figure in figures:
        parts = {
            "svg": rendered(figure.figure, "svg"),
            "pdf": rendered(figure.figure, "pdf"),
            "csv": table_bytes(figure.rows),
        }
        for kind, data in parts.items():
            paths.append(folder / f"{figure.name}.{kind}")
            write_atomically(paths[-1], data)
    return paths
