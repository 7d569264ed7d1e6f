"""Figures of a training's course, of a comparison with more than one captured step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sfpsim.experiment.result import Comparison, ContainerResult, LayerLengths
from sfpsim.report import palette
from sfpsim.report.figures import Figure, Row, styled
from sfpsim.report.table import short_name, spread

STORED = ("weight", "activation", "unknown")
FIELDS = ("mantissa", "exponent")
LINES = 8  # that can be told apart and named at their ends
COLUMNS, LABELS = 60, 8  # of a heat map: steps, and steps that are named
ROW_INCHES, LABEL_INCHES, MOST_INCHES = 0.15, 0.13, 9.0
CELLS_DPI = 300
NAME_POINTS, LINE_SPACING = 7, 1.2


def draw_over_training(comparison: Comparison) -> list[Figure]:
    """Draw the figures of a training's course; none of a trace with a single step."""
    makers = []
    if len(steps_of(comparison)) > 1 and _stored_roles(comparison):
        makers.append(partial(footprint_over_training, comparison))
    known = [x for x in comparison.lengths if any(_bits(x, f) is not None for f in FIELDS)]
    if len({x.step for x in known}) > 1:
        makers.append(partial(lengths_heatmap, comparison))
    return styled(makers) if makers else []


def steps_of(comparison: Comparison) -> dict[int, int]:
    """Return the captured steps of a comparison, in order, each with its epoch."""
    return {s.step: s.epoch for c in comparison.containers for s in c.steps}


def _stored_roles(comparison: Comparison) -> list[str]:
    held = {r.role for c in comparison.containers for s in c.steps for r in s.roles if r.values}
    return [role for role in STORED if role in held]


def _bits_over_steps(result: ContainerResult, role: str) -> dict[int, float]:
    return {
        s.step: r.total_bits / r.values
        for s in result.steps
        for r in s.roles
        if r.role == role and r.values
    }


def footprint_over_training(comparison: Comparison) -> Figure:
    """Stored bits a value of weights and of activations in each captured step."""
    lines = [{r: _bits_over_steps(c, r) for r in STORED} for c in comparison.containers]
    roles = _stored_roles(comparison)
    shown = _most_changing(lines)
    names = [short_name(c.container) for c in comparison.containers]
    figure, axes = _panels(len(roles), sum(names[n].count("\n") + 1 for n in shown))
    steps = steps_of(comparison)
    for axis, role in zip(axes, roles, strict=True):
        for number in shown:
            line = lines[number][role]
            axis.plot(list(line), list(line.values()), marker="o", ms=3,
                      color=palette.container_colour(number),
                      ls=palette.container_line(number))  # fmt: skip
        axis.set_title(role, loc="left")
        _step_ticks(axis, steps)
    axes[0].set_ylabel("bits per value")
    axes[0].set_ylim(0, 1.06 * axes[0].dataLim.y1 or 1)
    for axis, role in zip(axes, roles, strict=True):
        _name_ends(axis, [(names[n], n, lines[n][role]) for n in shown])
    left_out = len(lines) - len(shown)
    return Figure(
        name="footprint_over_training",
        title="Footprint as training goes on",
        caption="Stored bits per value of each captured step, by role. Plain types stay where "
        "they are; codes of exponents follow the values, and lengths in force the training."
        + (f" Drawn are the first container and the {LINES - 1} that change most; the other "
           f"{left_out} are in the CSV." if left_out else ""),
        figure=figure,
        rows=_footprint_rows(comparison),
    )  # fmt: skip


def _most_changing(lines: Sequence[Mapping[str, Mapping[int, float]]]) -> list[int]:
    """Return the numbers of the first line and of those that change most, in order."""

    def change(number: int) -> float:
        spans = [max(x.values()) - min(x.values()) for x in lines[number].values() if x]
        return max(spans, default=0.0)

    ranked = sorted(range(1, len(lines)), key=change, reverse=True)
    return sorted([0, *ranked[: LINES - 1]])


def _panels(count: int, name_lines: int) -> tuple[Any, Any]:
    """Return panels side by side that are high enough for names of so many lines."""
    from matplotlib.figure import Figure as Canvas

    height = max(3.4, 1.2 + NAME_POINTS * LINE_SPACING / 72 * name_lines)
    figure = Canvas(figsize=(8.6, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, sharey=True)[0]


def _step_names(epochs: Mapping[int, int]) -> tuple[str, list[str]]:
    """Return the name of an axis of steps, and those of the steps: epochs where they differ."""
    if len(set(epochs.values())) == 1:
        return "training step", [str(step) for step in epochs]
    return "training step (epoch)", [f"{step}\n({epoch})" for step, epoch in epochs.items()]


def _step_ticks(axis: Any, epochs: Mapping[int, int]) -> None:
    """Mark the captured steps, those that lie too close together without a name."""
    label, names = _step_names(epochs)
    steps = list(epochs)
    room, last = (steps[-1] - steps[0]) / LABELS, -math.inf
    for i, step in enumerate(steps):
        if step - last < room:
            names[i] = ""
        else:
            last = step
    axis.set_xticks(steps, names)
    axis.set_xlabel(label)


def _name_ends(axis: Any, lines: Sequence[tuple[str, int, Mapping[int, float]]]) -> None:
    """Name each line (name, number, points) to the right of its end, none over another."""
    axis.figure.draw_without_rendering()
    points = axis.bbox.height * 72 / axis.figure.dpi
    top = axis.get_ylim()[1]
    a_line = NAME_POINTS * LINE_SPACING * top / points
    ends = sorted((x[max(x)], max(x), name, number) for name, number, x in lines if x)
    heights = [a_line * (name.count("\n") + 1) for _, _, name, _ in ends]
    places = apart([y for y, *_ in ends], heights, top)
    for (y, step, name, number), at in zip(ends, places, strict=True):
        axis.annotate(
            name, (step, y), (1.06, at), textcoords=axis.get_yaxis_transform(), va="center",
            fontsize=NAME_POINTS, linespacing=1.0, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": palette.container_colour(number), "lw": 0.6,
                        "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)},
        )  # fmt: skip


def apart(wanted: Sequence[float], heights: Sequence[float], top: float) -> list[float]:
    """Return places near the `wanted` ones, ascending, at which no two heights overlap.

    Places are pushed up, and down again where the last would lie above `top`.
    """
    places, end = [], -math.inf
    for y, height in zip(wanted, heights, strict=True):
        places.append(max(y, end + height / 2))
        end = places[-1] + height / 2
    end = top
    for i in range(len(places) - 1, -1, -1):
        places[i] = min(places[i], end - heights[i] / 2)
        end = places[i] - heights[i] / 2
    return places


def _footprint_rows(comparison: Comparison) -> list[Row]:
    head: Row = ["container", "step", "epoch", "role", "values", "raw_bits", "total_bits",
                 "bits_a_value", "ratio"]  # fmt: skip
    return [head] + [
        [c.container, s.step, s.epoch, r.role, r.values, r.raw_bits, r.total_bits,
         r.total_bits / r.values, r.raw_bits / r.total_bits]
        for c in comparison.containers for s in c.steps for r in s.roles if r.total_bits
    ]  # fmt: skip


def lengths_heatmap(comparison: Comparison) -> Figure:
    """Mantissa and exponent lengths in force, by layer and captured step."""
    lengths = comparison.lengths
    layers = list(dict.fromkeys(x.layer for x in lengths))
    epochs = {x.step: x.epoch for x in lengths}
    steps = [list(epochs)[i] for i in spread(len(epochs), COLUMNS)]
    panels = _heatmap_panels(lengths)
    figure, axes = _heatmap_axes(layers, len(panels))
    for field in FIELDS:
        mine = [a for a, (f, _) in zip(axes, panels, strict=True) if f == field]
        most = max((_bits(x, field) or 0 for x in lengths), default=0)
        for axis, (_, role) in zip(mine, [p for p in panels if p[0] == field], strict=True):
            cells = {(x.layer, x.step): _bits(x, field) for x in lengths if x.role == role}
            grid = [[cells.get((layer, s)) for s in steps] for layer in layers]
            mesh = _cells(axis, grid, math.ceil(most))
            axis.set_title(f"{role},\n{field}", loc="left")
            _column_names(axis, {s: epochs[s] for s in steps})
        if mine:
            figure.colorbar(mesh, ax=mine, label=f"{field}, bits", pad=0.02, aspect=30)
    return Figure(
        name="lengths_heatmap",
        title="Bitlengths by layer as training goes on",
        caption="Bits in force in each captured step (columns, not to scale in time), layers in "
        "order of execution from the top; means over a layer's values. White is where nothing of "
        "the role has a length; what is kept whole shows its type's bits."
        + (f" {len(steps)} of {len(epochs)} steps are drawn; all are in the CSV."
           if len(steps) < len(epochs) else ""),
        figure=figure,
        rows=_lengths_rows(lengths),
    )  # fmt: skip


def _bits(x: LayerLengths, field: str) -> float | None:
    return x.mantissa_bits if field == "mantissa" else x.exponent_bits


def _heatmap_panels(lengths: Sequence[LayerLengths]) -> list[tuple[str, str]]:
    """Return (field, role) of which there is any length."""
    return [
        (field, role)
        for field in FIELDS
        for role in STORED
        if any(x.role == role and _bits(x, field) is not None for x in lengths)
    ]


def _heatmap_axes(layers: Sequence[str], count: int) -> tuple[Any, Any]:
    """Return panels that share the layers' rows; where there are many not each is named."""
    from matplotlib.figure import Figure as Canvas

    inches = min(MOST_INCHES, ROW_INCHES * len(layers))
    size = 8.6, 1.2 + max(1.0, inches)
    figure = Canvas(figsize=size, dpi=CELLS_DPI, layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    every = math.ceil(LABEL_INCHES * len(layers) / inches)
    axes[0].set_yticks([i + 0.5 for i in range(0, len(layers), every)],
                       [layer or "(top)" for layer in layers[::every]])  # fmt: skip
    axes[0].set_ylim(len(layers), 0)
    for axis in axes:
        axis.grid(visible=False)
        axis.tick_params(axis="y", length=0)
    return figure, axes


def _cells(axis: Any, grid: Sequence[Sequence[float | None]], most: int) -> Any:
    """Draw the cells, one shade a bit from 0 to `most`; a cell without a value stays white.

    As pixels: as paths the cells of a large network would take ten megabytes.
    """
    import matplotlib as mpl
    import numpy as np

    shades = mpl.colormaps["viridis"].resampled(most + 1)
    values = np.ma.masked_invalid(np.array(grid, np.float64))
    return axis.pcolormesh(values, cmap=shades, vmin=-0.5, vmax=most + 0.5, rasterized=True)


def _column_names(axis: Any, epochs: Mapping[int, int]) -> None:
    label, names = _step_names(epochs)
    named = spread(len(names), LABELS // 2)
    axis.set_xticks([i + 0.5 for i in named], [names[i] for i in named])
    axis.set_xlabel(label)


def _lengths_rows(lengths: Sequence[LayerLengths]) -> list[Row]:
    head: Row = list(LayerLengths.__struct_fields__)
    return [head] + [[getattr(x, field) for field in head] for x in lengths]
