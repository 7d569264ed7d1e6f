"""The figures of a comparison, each as SVG and PDF with a CSV of its numbers.

Containers stand in rows, in the order of the comparison; every axis of lengths begins at 0.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from sfpsim.experiment.result import Comparison, ContainerResult, Energy
from sfpsim.report import palette
from sfpsim.report.table import LIMITERS, bits_a_value, limiter_shares, short_name, significant
from sfpsim.trace.writer import write_atomically

ROW_INCHES, LINE_INCHES = 0.35, 0.15
FEW = 10  # containers that a figure can name, each in its own colour
BEST_COLOUR = palette.CONTAINERS[0]
PLACES = (
    (7, 0, "left"), (-7, 0, "right"), (0, 9, "center"), (0, -9, "center"), (7, 9, "left"),
    (7, -9, "left"), (-7, 9, "right"), (-7, -9, "right"),
)  # fmt: skip
Row = list[Any]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawn figure: its name, what to see in it, and the numbers in it."""

    name: str
    title: str
    caption: str
    figure: Any
    rows: list[Row]


def _axes(comparison: Comparison, count: int, width: float = 8.6) -> tuple[Any, Any]:
    """Return a figure with `count` panels side by side that share the containers' rows."""
    from matplotlib.figure import Figure as Canvas

    names = [short_name(c.container) for c in comparison.containers]
    height = 1.3 + _row_inches(names) * len(names)
    figure = Canvas(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    for axis in axes:
        axis.grid(visible=False, axis="y")
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    return figure, axes


def _row_inches(names: list[str]) -> float:
    """Return the height of a row at which no two neighbours' labels touch."""
    lines = [name.count("\n") + 1 for name in names]
    tallest = max((a + b for a, b in pairwise(lines)), default=2) / 2
    return max(ROW_INCHES, LINE_INCHES * tallest)


def _stack(axis: Any, columns: Mapping[str, list[float]], colours: Mapping[str, str]) -> None:
    """Draw stacked bars, one row a container; empty columns are left out."""
    left = [0.0] * len(next(iter(columns.values())))
    for label, values in columns.items():
        if any(values):
            axis.barh(range(len(values)), values, 0.72, left=left, label=label.replace("_", " "),
                      color=colours[label], edgecolor="white", linewidth=0.4)  # fmt: skip
        left = [b + v for b, v in zip(left, values, strict=True)]


def _panel_legends(axes: Any, columns: int) -> None:
    """Put a legend over each panel."""
    for axis in axes:
        if not axis.get_legend_handles_labels()[0]:
            continue
        above = 1 + 0.25 / (axis.figure.get_figheight() - 1)
        axis.legend(loc="lower left", bbox_to_anchor=(0, above), ncols=columns, borderaxespad=0)


def figure_legend(figure: Any, axes: Any, columns: int) -> None:
    """Put one legend over all panels; a label that shows up twice is listed once."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        figure.legend(found.values(), found.keys(), loc="outside upper left", ncols=columns)


def _ends(axis: Any, values: list[float], marks: list[float | None] | None = None) -> None:
    """Write each bar's sum beyond its end, and beyond its mark where it has one."""
    ends = [max(v, m or 0) for v, m in zip(values, marks or values, strict=True)]
    for row, (value, end) in enumerate(zip(values, ends, strict=True)):
        axis.annotate(significant(value, 3), (end, row), (8 if marks else 3, 0),
                      textcoords="offset points", va="center", fontsize=7)  # fmt: skip
    axis.set_xlim(0, max(ends, default=0) * 1.18 or 1)


def _inside(axis: Any, values: list[float], form: str) -> None:
    """Write each bar's value inside it, at its end."""
    for row, value in enumerate(values):
        axis.annotate(format(value, form), (value, row), (-4, 0), textcoords="offset points",
                      va="center", ha="right", fontsize=7, color="white")  # fmt: skip


def bits(comparison: Comparison) -> Figure:
    """Bits a value by role and container, split into fields."""
    found = {r.role for c in comparison.containers for r in c.roles if r.raw_bits}
    roles = [r for r in palette.ROLES if r in found]
    figure, axes = _axes(comparison, max(1, len(roles)))
    rows: list[Row] = [["role", "container", *(f"{f}_bits_a_value" for f in palette.FIELDS)]]
    for axis, role in zip(axes, roles, strict=False):
        split = [_bits_of(result, role) for result in comparison.containers]
        rows += [[role, c.container, *s] for c, s in zip(comparison.containers, split, strict=True)]
        columns = {f: [s[i] for s in split] for i, f in enumerate(palette.FIELDS)}
        _stack(axis, columns, palette.FIELDS)
        _ends(axis, [sum(s) for s in split])
        axis.set_title(role, loc="left")
        axis.set_xlabel("bits per value")
    most = 1.14 * max(axis.get_xlim()[1] for axis in axes)
    for axis in axes:
        axis.set_xticks(range(0, int(most) + 1, 16))
        axis.set_xlim(0, most)
    figure_legend(figure, axes, 6)
    return Figure(
        name="bits",
        title="Stored bits per value",
        caption="By role and field. A policy that names one container leaves gradients and "
        "optimizer state in the machine's own type. Metadata are row widths, padding fills "
        "beats and 64-byte lines, index is one entry a block; integers count as mantissa.",
        figure=figure,
        rows=rows,
    )


def _bits_of(result: ContainerResult, role: str) -> list[float]:
    mine = [r for r in result.roles if r.role == role]
    values = sum(r.values for r in mine) or 1
    return [sum(getattr(r, f"{f}_bits") for r in mine) / values for f in palette.FIELDS]


def _moved(result: ContainerResult, key: str, value: str) -> float:
    mine = [t for t in result.traffic if getattr(t, key) == value]
    return sum(t.read_bytes + t.write_bytes for t in mine) / 1e6


def _least(result: ContainerResult) -> float | None:
    """Return the traffic, MB, at which the policy's bound would be met."""
    t = result.totals
    moved = sum(x.read_bytes + x.write_bytes for x in result.traffic) / 1e6
    return moved * t.traffic_ratio / t.bound if t.traffic_ratio and t.bound else None


def traffic(comparison: Comparison) -> Figure:
    """Traffic by role and by pass, with the compulsory part and the bound."""
    figure, axes = _axes(comparison, 2)
    results = comparison.containers
    sums = [sum(t.read_bytes + t.write_bytes for t in c.traffic) / 1e6 for c in results]
    needed = [sum(t.compulsory_bytes for t in c.traffic) / 1e6 for c in results]
    bounds = [_least(c) for c in results]
    for axis, key, colours in (
        (axes[0], "role", palette.ROLES), (axes[1], "pass_", palette.PASSES),
    ):  # fmt: skip
        columns = {kind: [_moved(c, key, kind) for c in results] for kind in colours}
        _stack(axis, columns, colours)
        _mark(axis, needed, bounds)
        _ends(axis, sums, bounds)
        axis.set_title(f"by {key.rstrip('_')}", loc="left")
        axis.set_xlabel("traffic, MB")
    _panel_legends(axes, 3)
    return Figure(
        name="traffic",
        title="Traffic between chip and memory",
        caption="Bytes read and written over all captured steps. The line marks what has to "
        "move at least once in that container; the diamond marks where the traffic would be if "
        "what the policy compresses shrank by exactly its ratio and the rest stayed.",
        figure=figure,
        rows=_traffic_rows(comparison),
    )


def _mark(axis: Any, needed: list[float], bounds: list[float | None]) -> None:
    """Mark each row's compulsory traffic and, where there is one, its bound."""
    low, high = ([i + d for i in range(len(needed))] for d in (-0.45, 0.45))
    axis.vlines(needed, low, high, color="black", lw=1.4, label="compulsory")
    marked = [(b, i) for i, b in enumerate(bounds) if b is not None]
    axis.plot([b for b, _ in marked], [i for _, i in marked], "D", ms=4.5, mfc="white",
              mec="black", label="bound of the policy", ls="")  # fmt: skip


def _traffic_rows(comparison: Comparison) -> list[Row]:
    head: Row = ["container", "pass", "role", "read_bytes", "write_bytes", "compulsory_bytes"]
    return [head] + [
        [c.container, t.pass_, t.role, t.read_bytes, t.write_bytes, t.compulsory_bytes]
        for c in comparison.containers
        for t in c.traffic
    ]


def time(comparison: Comparison) -> Figure:
    """Time split by limiter, and bandwidth."""
    figure, axes = _axes(comparison, 2)
    shares = [limiter_shares(c) for c in comparison.containers]
    times = [c.totals.time_ns / 1e6 for c in comparison.containers]
    columns = {
        part: [s[part] * t for s, t in zip(shares, times, strict=True)] for part in palette.LIMITERS
    }
    _stack(axes[0], columns, palette.LIMITERS)
    _ends(axes[0], times)
    axes[0].set_title("time, by what limits each pass", loc="left")
    axes[0].set_xlabel("time, ms")
    _bandwidth(axes[1], comparison)
    _panel_legends(axes, 4)
    return Figure(
        name="time",
        title="Time and bandwidth",
        caption=f"Simulated in {comparison.machine.memory_detail} detail. A pass counts wholly "
        "for the part that needs the most time in it; dependency is waiting for a write to end "
        "before it is read.",
        figure=figure,
        rows=_time_rows(comparison),
    )


def _bandwidth(axis: Any, comparison: Comparison) -> None:
    rates = [c.totals.bandwidth_gbps or 0.0 for c in comparison.containers]
    peak = comparison.machine.peak_bandwidth_gbps
    axis.barh(range(len(rates)), rates, 0.72, color="#777777")
    _inside(axis, rates, ".1f")
    axis.axvline(peak, color="black", lw=1, ls="--", label=f"peak {peak:.1f} GB/s")
    axis.set_xlim(0, peak * 1.06)
    axis.set_title("mean memory bandwidth", loc="left")
    axis.set_xlabel("10⁹ bytes per second")


def _time_rows(comparison: Comparison) -> list[Row]:
    rows: list[Row] = [
        ["container", "time_ns", "bandwidth_gbps", *(f"share_{p}" for p in LIMITERS)]
    ]
    for c in comparison.containers:
        shares = limiter_shares(c)
        values = [shares[p] for p in LIMITERS]
        rows.append([c.container, c.totals.time_ns, c.totals.bandwidth_gbps, *values])
    return rows


def energy_parts(energy: Energy) -> dict[str, float]:
    """Return the energy by the components that the figure shows, pJ."""
    d = energy.dram
    slept = (d.active_powerdown, d.precharge_powerdown, d.self_refresh)
    return {
        "DRAM activate": d.act,
        "DRAM read": d.rd,
        "DRAM write": d.wr,
        "DRAM refresh": d.ref,
        "DRAM standby": d.active_standby + d.precharge_standby + sum(x or 0.0 for x in slept),
        "DRAM interface": d.interface,
        "codec": energy.codec,
        "on-chip memory": energy.onchip,
        "compute": energy.compute,
    }


def _range(axis: Any, levels: list[tuple[float, float, float]]) -> None:
    """Draw the span from the low to the high tables around the middle."""
    middle = [m for _, m, _ in levels]
    spans = [[m - low for low, m, _ in levels], [high - m for _, m, high in levels]]
    axis.errorbar(middle, range(len(levels)), xerr=spans, fmt="none", ecolor="black", lw=1,
                  capsize=3, label="low to high tables")  # fmt: skip
    axis.set_xlim(0, max((high for _, _, high in levels), default=0) * 1.06 or 1)


def _levels(result: ContainerResult) -> tuple[dict[str, float], ...]:
    """Return the energy by component in the low, middle and high tables, pJ."""
    t = result.totals
    return tuple(energy_parts(e) for e in (t.energy_low_pj, t.energy_pj, t.energy_high_pj))


def energy(comparison: Comparison) -> Figure:
    """Energy by component, with the range of the tables: all of it, and memory alone."""
    figure, axes = _axes(comparison, 2)
    tables = [_levels(c) for c in comparison.containers]
    memory = [k for k in palette.ENERGY if k.startswith("DRAM") or k == "codec"]
    for axis, keys, title in (
        (axes[0], list(palette.ENERGY), "everything"), (axes[1], memory, "DRAM and codec alone"),
    ):  # fmt: skip
        _stack(axis, {k: [t[1][k] / 1e9 for t in tables] for k in keys}, palette.ENERGY)
        sums = [[sum(e[k] for k in keys) / 1e9 for e in t] for t in tables]
        _range(axis, [(low, middle, high) for low, middle, high in sums])
        axis.set_title(title, loc="left")
        axis.set_xlabel("energy, mJ")
    figure_legend(figure, axes, 5)
    return Figure(
        name="energy",
        title="Energy",
        caption="Bars are the middle tables; the black range runs from the low to the high "
        "ones, where sources differ. It moves all containers together, so it says little about "
        "their order (see the table below).",
        figure=figure,
        rows=_energy_rows(comparison),
    )


def _energy_rows(comparison: Comparison) -> list[Row]:
    rows: list[Row] = [["container", "tables", *(f"{k}_pj" for k in palette.ENERGY), "total_pj"]]
    for c in comparison.containers:
        for level, parts in zip(("low", "middle", "high"), _levels(c), strict=True):
            rows.append([c.container, level, *parts.values(), sum(parts.values())])
    return rows


def _lines() -> tuple[Any, Any]:
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(8.6, 3.2), layout="constrained")
    return figure, figure.subplots()


def _legend_beside(figure: Any, axis: Any) -> None:
    if axis.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper")


def live(comparison: Comparison) -> Figure:
    """Off-chip bytes in use over the first step."""
    figure, axis = _lines()
    rows: list[Row] = [["container", "time_ns", "stash_bytes", "other_bytes"]]
    for number, result in enumerate(comparison.containers):
        rows += [[result.container, x.time_ns, x.stash_bytes, x.other_bytes] for x in result.live]
        axis.step([x.time_ns / 1e6 for x in result.live],
                  [(x.stash_bytes + x.other_bytes) / 1e6 for x in result.live],
                  where="post", label=short_name(result.container),
                  color=palette.container_colour(number),
                  ls=palette.container_line(number))  # fmt: skip
    axis.set_xlabel("time in the first captured step, ms")
    axis.set_ylabel("memory in use, MB")
    axis.set_ylim(0, None)
    axis.set_xlim(0, None)
    _legend_beside(figure, axis)
    return Figure(
        name="live",
        title="Memory in use over a step",
        caption="The stash grows in the forward pass and is freed in the backward one; weights, "
        "gradients and optimizer state are the floor. A line ends where its step ends.",
        figure=figure,
        rows=rows,
    )


def exponents(comparison: Comparison) -> Figure:
    """Histograms of the exponent fields by role."""
    figure, axis = _lines()
    rows: list[Row] = [["role", "exponent_field", "count"]]
    low, high = 255, 0
    for role, counts in comparison.exponents.items():
        total = sum(counts) or 1
        used = [i for i, n in enumerate(counts) if n * 2000 > total and i]
        low, high = min([low, *used]), max([high, *used])
        rows += [[role, i, n] for i, n in enumerate(counts) if n]
        axis.step(range(1, 256), [100 * n / total for n in counts[1:]], where="mid",
                  color=palette.ROLES.get(role, "black"),
                  label=f"{role}\n(field 0: {100 * counts[0] / total:.0f} %)")  # fmt: skip
    axis.set_xlim(max(0, low - 2), min(255, high + 2))
    axis.set_ylim(0, None)
    axis.set_xlabel("exponent field")
    axis.set_ylabel("share of values, %")
    _legend_beside(figure, axis)
    return Figure(
        name="exponents",
        title="Exponents",
        caption="How often each exponent field occurs, by role, over the values that the trace "
        "holds; zeros and denormals have field 0 and stand in the legend. A narrow peak is what "
        "exponent codes live from. Fields rarer than 1 in 2,000 may lie outside the picture.",
        figure=figure,
        rows=rows,
    )


def tradeoff(comparison: Comparison) -> Figure:
    """Signal to noise over bits a value, exact containers in a band of their own."""
    found = [c for c in comparison.containers if c.totals.values]
    points = [(bits_a_value(c.totals) or 0.0, c.totals.sqnr_db) for c in found]
    noisy = [sqnr for _, sqnr in points if sqnr is not None]
    top = max(noisy, default=0.0) + 12
    figure, axis = _lines()
    best = [not any(_beats(other, point) for other in points) for point in points]
    for number, (result, (size, sqnr), first) in enumerate(zip(found, points, best, strict=True)):
        colour = palette.container_colour(number) if len(found) <= FEW else BEST_COLOUR
        axis.plot([size], [top if sqnr is None else sqnr], "o", ms=6 if first else 4,
                  color=colour if first or len(found) <= FEW else "#bbbbbb",
                  zorder=3 if first else 2, label=result.container)  # fmt: skip
    front = sorted(p for p, first in zip(points, best, strict=True) if first and p[1] is not None)
    axis.step([p[0] for p in front], [p[1] for p in front], where="post", color="#bbbbbb", lw=1,
              zorder=1)  # fmt: skip
    axis.axhline(top - 6, color="#bbbbbb", lw=0.6)
    ticks = range(0, int(top) - 6, 20)
    axis.set_yticks([*ticks, top], [*map(str, ticks), "exact"])
    axis.set_ylim(min([0.0, *noisy]) - 4, top + 6)
    axis.set_xlim(0, 1.12 * max((size for size, _ in points), default=32))
    axis.set_xlabel("bits per value")
    axis.set_ylabel("SQNR, dB")
    at = [(size, top if sqnr is None else sqnr) for size, sqnr in points]
    named = [
        c.container if b or len(found) <= FEW else "" for c, b in zip(found, best, strict=True)
    ]
    _name_points(figure, axis, list(zip(named, at, strict=True)))
    return Figure(
        name="tradeoff",
        title="Bits and what they lose",
        caption="Over the tensors that each policy's containers hold; up and to the left is "
        "better. Exact containers stand in the upper band. "
        + ("Large are those that no other beats in both." if len(found) <= FEW else
           "Large, blue and, where there is room, named are those that no other beats in both; "
           "the rest, small and grey, are in the table."),
        figure=figure,
        rows=[["container", "bits_a_value", "sqnr_db"],
              *([c.container, *p] for c, p in zip(found, points, strict=True))],
    )  # fmt: skip


def _beats(a: tuple[float, float | None], b: tuple[float, float | None]) -> bool:
    """Whether a point takes no more bits and loses no more, and is better in one."""
    lost = [-math.inf if sqnr is None else -sqnr for _, sqnr in (a, b)]
    return a[0] <= b[0] and lost[0] <= lost[1] and (a[0] < b[0] or lost[0] < lost[1])


def _name_points(figure: Any, axis: Any, points: list[tuple[str, tuple[float, float]]]) -> None:
    """Name points (those with a name) where there is room around them."""
    figure.draw_without_rendering()
    taken = [_around(axis, place) for _, place in points]
    for name, place in sorted(points, key=lambda p: (-p[1][1], p[1][0])):
        for dx, dy, side in PLACES if name else ():
            text = axis.annotate(short_name(name), place, (dx, dy), textcoords="offset points",
                                 ha=side, va="center", fontsize=7,
                                 bbox={"fc": "white", "ec": "none", "pad": 0.6})  # fmt: skip
            box = text.get_window_extent()
            inside = axis.bbox.x0 < box.x0 and box.x1 < axis.bbox.x1 and box.y1 < axis.bbox.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _around(axis: Any, place: tuple[float, float]) -> Any:
    from matplotlib.transforms import Bbox

    at = axis.transData.transform(place)
    return Bbox([at - 4, at + 4])


FIGURES: tuple[Callable[[Comparison], Figure], ...] = (
    time, traffic, bits, tradeoff, energy, live, exponents,
)  # fmt: skip


def draw(comparison: Comparison) -> list[Figure]:
    """Draw every figure of `comparison` in the package's style."""
    return styled([partial(make, comparison) for make in FIGURES])


def styled(makers: Sequence[Callable[[], Figure]]) -> list[Figure]:
    """Draw figures in the package's style."""
    import matplotlib as mpl

    with resources.as_file(resources.files("sfpsim.report") / "paper.mplstyle") as style:
        parameters = mpl.rc_params_from_file(str(style), use_default_template=True)
    with mpl.rc_context(parameters):
        figures = [make() for make in makers]
        for drawn in figures:
            drawn.figure.draw_without_rendering()
            drawn.figure.set_layout_engine("none")  # laid out now, and not for every format
        return figures


def rendered(figure: Any, kind: str) -> bytes:
    """Return `figure` as SVG or PDF; the same figure gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.BytesIO()
    unwanted = ("Creator", "Date", "Format", "Type") if kind == "svg" else ("CreationDate",)
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "sfpsim", "pdf.fonttype": 42}):
        # savefig would lay the figure out once more before it draws.
        canvas = FigureCanvasSVG(figure) if kind == "svg" else FigureCanvasPdf(figure)
        getattr(canvas, f"print_{kind}")(out, metadata=dict.fromkeys(unwanted))
    return out.getvalue()


def table_bytes(rows: list[Row]) -> bytes:
    """Return `rows` as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def save(figures: list[Figure], folder: Path) -> dict[str, bytes]:
    """Write every figure as SVG, PDF and CSV; returns what was written, by file name."""
    files = {}
    for figure in figures:
        files[f"{figure.name}.svg"] = rendered(figure.figure, "svg")
        files[f"{figure.name}.pdf"] = rendered(figure.figure, "pdf")
        files[f"{figure.name}.csv"] = table_bytes(figure.rows)
    for name, data in files.items():
        write_atomically(folder / name, data)
    return files
