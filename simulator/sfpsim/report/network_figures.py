"""Figures of a network's step: roofline, time by layer, energy, gains over bandwidth."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from sfpsim.experiment.network import NetworkContainer, NetworkResult, to_json
from sfpsim.experiment.result import LayerResult
from sfpsim.hardware.array import peak_macs
from sfpsim.hardware.machine import Machine, load_machine
from sfpsim.report import palette
from sfpsim.report.figures import Figure, Row, energy_parts, figure_legend, save, styled
from sfpsim.report.latex import network_latex
from sfpsim.report.table import LIMITERS, short_name, significant
from sfpsim.trace.writer import write_atomically

ROWS = 26  # layers that a figure has room for
PANELS = 3
MACS = ("forward", "input_gradient", "weight_gradient")
TIMES = (0.25, 0.354, 0.5, 0.707, 1, 1.41, 2, 2.83, 4, 5.66, 8)
SHARES = {1.0: "-", 0.7: "--", 0.5: ":"}
BLOCK = re.compile(r"^(\w+\.\d+)\..")


def _shown(result: NetworkResult) -> list[NetworkContainer]:
    """The first container, the last, and the one before it."""
    return [*result.containers[:1], *result.containers[1:][-PANELS + 1 :]]


def _canvas(width: float, height: float, count: int, **options: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, **options)[0]


def roofline(result: NetworkResult, machine: Machine) -> Figure:
    """Products of each pass under three roofs: the array, DRAM and the codec units."""
    shown = _shown(result)
    figure, axes = _canvas(8.6, 3.7, len(shown), sharey=True, sharex=True)
    rows: list[Row] = [["container", "layer", "pass", "macs_per_byte", "tmacs"]]
    peak = peak_macs(machine.compute, (0, 0)) * machine.compute.clock_mhz / 1e6
    points = [_points(c) for c in shown]
    xs = [x for found in points for _, _, x, _ in found] or [1.0]
    low, high = min(xs) / 2, max(*xs, 2 * peak * 1e3 / machine.peak_gbps) * 2
    floor = min([y for found in points for *_, y in found] or [peak / 100]) / 2
    for axis, container, found in zip(axes, shown, points, strict=True):
        for pass_ in MACS:
            mine = [(x, y) for _, p, x, y in found if p == pass_]
            axis.plot([x for x, _ in mine], [y for _, y in mine], "o", ms=3.5, alpha=0.75,
                      color=palette.PASSES[pass_], label=pass_.replace("_", " "))  # fmt: skip
        _roofs(axis, container, machine, peak, (low, high))
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(low, high)
        axis.set_ylim(floor, 2 * peak)
        axis.set_xlabel("MACs per byte moved")
        axis.set_title(short_name(container.container), loc="left")
        rows += [[container.container, *found_] for found_ in found]
    axes[0].set_ylabel("10¹² MACs per second")
    figure_legend(figure, axes, 6)
    return Figure(
        name="roofline", title="Roofline",
        caption=f"Every product of {result.network}, batch {result.batch}, on {machine.name}. The "
        f"array's peak is {significant(peak, 3)} T MAC/s, the memory's {machine.peak_gbps:.1f} "
        "GB/s; the codec's roof is its values a second times the bytes that a value takes in this "
        "container, where anything passes through it. A dot below its roofs waits: for edges of "
        "the mapping, for rows and refreshes of the DRAM, for other passes. A pass whose data came "
        "early, in the time of the passes before, counts with what its slowest part alone needs. A "
        "container moves dots to the right.",
        figure=figure, rows=rows,
    )  # fmt: skip


def _points(container: NetworkContainer) -> list[tuple[str, str, float, float]]:
    """Layer, pass, MACs a byte and T MAC/s of each product.

    A pass takes at least what its slowest part alone needs: its simulated time may be less
    where its data were loaded in the time of the passes before.
    """
    return [
        (x.name, x.pass_, x.macs / moved, x.macs / max(x.time_ns, _slowest(x)) / 1e3)
        for x in container.layers
        if (moved := x.read_bytes + x.write_bytes) and x.macs and x.time_ns
    ]


def _slowest(x: LayerResult) -> float:
    return max(float(getattr(x.limits_ns, part)) for part in LIMITERS if part != "dependency")


def _roofs(
    axis: Any, container: NetworkContainer, machine: Machine, peak: float,
    ends: tuple[float, float],
) -> None:  # fmt: skip
    axis.plot(ends, [peak, peak], color="#222222", lw=1.2, label="array")
    gbps = machine.peak_gbps
    axis.plot(ends, [x * gbps / 1e3 for x in ends], color="#004488", lw=1.2, label="DRAM")
    if (rate := codec_gbps(container, machine)) is not None:
        axis.plot(ends, [x * rate / 1e3 for x in ends], color="#994455", lw=1.2, ls="--",
                  label="codec units")  # fmt: skip


def codec_gbps(container: NetworkContainer, machine: Machine) -> float | None:
    """Stored bytes a second that decompressors keep up with, None where none is at work.

    From the passes' own times: what they move over what their decoders alone would need.
    """
    moved = sum(x.read_bytes for x in container.layers if x.limits_ns.decoder)
    busy = sum(x.limits_ns.decoder for x in container.layers)
    return moved / busy if busy else None


def _rows_of(layers: Iterable[LayerResult]) -> dict[str, list[LayerResult]]:
    """Group passes by layer, by block of the network where there are many, then by rank."""
    found = list(layers)
    groups: dict[str, list[LayerResult]] = {}
    names = {x.name for x in found}
    for x in found:
        name = x.name.removesuffix(":recompute")
        block = BLOCK.match(name)
        key = block.group(1) if block and len(names) > ROWS else name
        groups.setdefault(key or "(top)", []).append(x)
    if len(groups) <= ROWS:
        return groups
    order = sorted(groups, key=lambda n: -sum(x.time_ns for x in groups[n]))
    kept = set(order[: ROWS - 1])
    out = {name: mine for name, mine in groups.items() if name in kept}
    rest = [x for name in order[ROWS - 1 :] for x in groups[name]]
    return {**out, f"{len(order) - ROWS + 1} others": rest}


def layers(result: NetworkResult, machine: Machine) -> Figure:
    """Time of each layer or block, by what limits its passes."""
    shown = _shown(result)
    groups = [_rows_of(c.layers) for c in shown]
    names = [n for n in groups[0] if sum(x.time_ns for g in groups for x in g.get(n, []))]
    longest = max((sum(x.time_ns for x in g.get(n, [])) for g in groups for n in names), default=1)
    figure, axes = _canvas(8.6, 1.4 + 0.17 * len(names), len(shown), sharey=True, sharex=True)
    rows: list[Row] = [["container", "layer", "limiter", "time_ns"]]
    for axis, container, group in zip(axes, shown, groups, strict=True):
        left = [0.0] * len(names)
        for part in LIMITERS:
            times = [sum(x.time_ns for x in group.get(n, []) if x.limiter == part) for n in names]
            if any(times):
                values = [t / 1e6 for t in times]
                axis.barh(range(len(names)), values, 0.78, left=left, label=part,
                          color=palette.LIMITERS[part])  # fmt: skip
                left = [a + b for a, b in zip(left, values, strict=True)]
                rows += [
                    [container.container, n, part, t] for n, t in zip(names, times, strict=True)
                ]
        axis.set_title(f"{short_name(container.container)}: {significant(container.time_ns / 1e6)} "
                       "ms", loc="left")  # fmt: skip
        axis.set_xlabel("time, ms")
        axis.set_xlim(0, 1.05 * longest / 1e6)
        axis.grid(visible=False, axis="y")
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    figure_legend(figure, axes, 6)
    return Figure(
        name="layers", title="Time by layer",
        caption="All passes of a layer, or of a block where there are many layers, in the order of "
        "the forward pass, coloured by what limits each pass. Loading runs ahead across passes, so "
        "a layer may pay for another's.",
        figure=figure, rows=rows,
    )  # fmt: skip


def energies(result: NetworkResult, machine: Machine) -> Figure:
    """Energy by component in the low, middle and high tables."""
    shown = _shown(result)
    figure, axes = _canvas(8.6, 1.5 + 0.62 * len(shown), 3, sharey=True)
    rows: list[Row] = [["container", "tables", *(f"{p}_pj" for p in palette.ENERGY)]]
    for axis, level in zip(axes, ("low", "middle", "high"), strict=True):
        field = "energy_pj" if level == "middle" else f"energy_{level}_pj"
        parts = [energy_parts(getattr(c, field)) for c in shown]
        left = [0.0] * len(shown)
        for key, colour in palette.ENERGY.items():
            values = [p[key] / 1e9 for p in parts]
            if any(values):
                axis.barh(range(len(shown)), values, 0.66, left=left, color=colour, label=key,
                          edgecolor="white", linewidth=0.4)  # fmt: skip
                left = [a + b for a, b in zip(left, values, strict=True)]
        for row, total in enumerate(left):
            axis.annotate(significant(total, 3), (total, row), (3, 0), fontsize=7, va="center",
                          textcoords="offset points")  # fmt: skip
        axis.set_xlim(0, 1.2 * max(left))
        axis.set_title(f"{level} tables", loc="left")
        axis.set_xlabel("energy of a step, mJ")
        axis.grid(visible=False, axis="y")
        axis.tick_params(axis="y", length=0)
        rows += [[c.container, level, *p.values()] for c, p in zip(shown, parts, strict=True)]
    axes[0].set_yticks(range(len(shown)), [short_name(c.container) for c in shown])
    axes[0].set_ylim(len(shown) - 0.4, -0.6)
    figure_legend(figure, axes, 5)
    return Figure(
        name="energies", title="Energy by component and table",
        caption="Sources differ; each panel takes one end of them throughout, on its own scale.",
        figure=figure, rows=rows,
    )  # fmt: skip


def modelled_ns(container: NetworkContainer, machine: Machine, times: float, share: float) -> float:
    """Time at `times` the memory's bandwidth and a mapping utilisation of `share`, ns.

    Each pass takes its slowest part; DRAM and metadata go with the bandwidth, codec units are
    taken to grow with it, waiting is left out. An estimate.
    """
    clock = machine.compute.clock_mhz / 1e3
    total = 0.0
    for x in container.layers:
        part = x.limits_ns
        memory = max(part.dram, part.metadata, part.decoder, part.encoder) / times
        at_peak = part.compute * x.utilisation if x.macs else 0.0
        compute = max(at_peak / share, x.macs / (machine.compute.macs_per_cycle * clock * share)
                      if machine.compute.kind == "mapped" else 0.0)  # fmt: skip
        total += max(memory, compute)
    return total


def bandwidths(result: NetworkResult, machine: Machine) -> Figure:
    """Speed-up over the memory's bandwidth and the array's utilisation."""
    figure, axes = _canvas(8.6, 3.2, 1)
    axis, base = axes[0], result.containers[0]
    rows: list[Row] = [["container", "bandwidth_gbps", "utilisation", "speed_up"]]
    for number, c in enumerate(result.containers[1:], 1):
        for share, line in SHARES.items():
            gains = [
                modelled_ns(base, machine, t, share) / modelled_ns(c, machine, t, share)
                for t in TIMES
            ]
            at = [t * machine.peak_gbps for t in TIMES]
            axis.plot(at, gains, line, color=palette.container_colour(number), lw=1.4,
                      label=f"{short_name(c.container)}, {share:.0%}")  # fmt: skip
            rows += [[c.container, x, share, y] for x, y in zip(at, gains, strict=True)]
    axis.axvline(machine.peak_gbps, color="#222222", lw=0.8, ls="--")
    axis.annotate(machine.name, (machine.peak_gbps, 0.02), (3, 0), textcoords="offset points",
                  xycoords=("data", "axes fraction"), fontsize=7)  # fmt: skip
    axis.axhline(1, color="#222222", lw=0.6)
    axis.set_xscale("log")
    ticks = [t * machine.peak_gbps for t in (0.25, 0.5, 1, 2, 4, 8)]
    axis.set_xticks(ticks, [f"{t:.4g}" for t in ticks])
    axis.minorticks_off()
    gained = [row[3] for row in rows[1:]]
    axis.set_ylim(min(1.0, *gained) - 0.05, max(1.0, *gained) + 0.05)
    axis.set_xlabel("peak bandwidth of the memory, GB/s")
    axis.set_ylabel(f"speed-up against {short_name(base.container)}")
    if axis.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", title="container, utilisation\nof the array")
    return Figure(
        name="bandwidths", title="Speed-up over bandwidth and utilisation",
        caption="An estimate from the time that each part of each pass needs alone; codec units "
        "grow with the memory. Where the array limits, nothing is left to gain; a less well used "
        "array gets there sooner.",
        figure=figure, rows=rows,
    )  # fmt: skip


FIGURES: tuple[Callable[[NetworkResult, Machine], Figure], ...] = (roofline, layers, energies)


def write_network(result: NetworkResult, machine: str | Machine, folder: Path) -> list[Path]:
    """Write figures, ``network.json`` and ``network.tex`` of a step; return the paths."""
    chosen = load_machine(machine)
    makers = [*FIGURES, *([bandwidths] if len(result.containers) > 1 else [])]
    files = save(styled([partial(make, result, chosen) for make in makers]), folder)
    more = {"network.json": to_json(result), "network.tex": network_latex(result).encode()}
    for name, data in more.items():
        write_atomically(folder / name, data)
    return [folder / name for name in (*files, *more)]
