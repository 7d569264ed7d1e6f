"""The reference runs of DRAM simulators beside ours: a table and a figure.

The runs are those of `sfpsim.testing.validate_dram`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from sfpsim.report import palette
from sfpsim.report.figures import Figure, Row, figure_legend, styled

QUANTITIES = {
    "cycles": "cycles",
    "act": "activates",
    "energy_pj": "core energy",
    "latency_ns": "read latency",
}
LOAD = "_50"  # the traces that offer half of the peak end so
DEVICE_MARKS = "osD^v<>P*"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A reference run: `QUANTITIES` of ours and of theirs, None where theirs says nothing.

    `cpu_s` and `cpu_s_ref` are the seconds of processor time of ours and theirs.
    """

    reference: str
    device: str
    trace: str
    requests: int
    ours: Mapping[str, float | None]
    theirs: Mapping[str, float | None]
    cpu_s: float
    cpu_s_ref: float | None

    def error(self, quantity: str) -> float | None:
        """Return by what share ours is above theirs."""
        ours, theirs = self.ours[quantity], self.theirs[quantity]
        return ours / theirs - 1 if ours is not None and theirs else None


def _share(error: float | None) -> str:
    return "" if error is None else f"{100 * error:+.2f} %"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def summary_markdown(found: Sequence[Comparison]) -> str:
    """Return median and largest error of each quantity, a line a reference and quantity."""
    lines = [
        _line(["reference", "quantity", "runs", "median error", "largest", "where"]),
        _line(["---", "---", "---:", "---:", "---:", "---"]),
    ]
    for reference in dict.fromkeys(c.reference for c in found):
        for quantity, label in QUANTITIES.items():
            mine = [(e, c) for c in found if c.reference == reference
                    and (e := c.error(quantity)) is not None]  # fmt: skip
            if mine:
                worst, where = max(mine, key=lambda x: abs(x[0]))
                middle = f"{100 * median(abs(e) for e, _ in mine):.2f} %"
                place = f"{where.device}, {where.trace}"
                lines.append(
                    _line([reference, label, str(len(mine)), middle, _share(worst), place])
                )
    return "\n".join(lines)


def speed_markdown(found: Sequence[Comparison]) -> str:
    """Return million requests a second of both, a line a reference."""
    lines = [
        _line(["reference", "runs", "theirs, median", "ours, median", "ours, least and most"]),
        _line(["---", "---:", "---:", "---:", "---:"]),
    ]
    for reference in dict.fromkeys(c.reference for c in found):
        mine = [c for c in found if c.reference == reference and c.cpu_s_ref]
        if mine:
            ours = [c.requests / c.cpu_s / 1e6 for c in mine]
            theirs = [c.requests / (c.cpu_s_ref or 1) / 1e6 for c in mine]
            extremes = f"{min(ours):.1f} to {max(ours):.1f}"
            middle = f"{median(theirs):.2f}", f"{median(ours):.1f}"
            lines.append(_line([reference, str(len(mine)), *middle, extremes]))
    return "\n".join(lines)


def runs_markdown(found: Sequence[Comparison]) -> str:
    """Return every run: cycles of both, and the error of each quantity."""
    head = ["reference", "device", "trace", "requests", "cycles, theirs", "ours"]
    lines = [
        _line([*head, *QUANTITIES.values()]),
        _line(["---"] * 3 + ["---:"] * (3 + len(QUANTITIES))),
    ]
    for c in found:
        numbers = (c.requests, c.theirs["cycles"], c.ours["cycles"])
        counts = ("" if n is None else f"{n:,.0f}" for n in numbers)
        errors = (_share(c.error(q)) for q in QUANTITIES)
        lines.append(_line([c.reference, c.device, c.trace, *counts, *errors]))
    return "\n".join(lines)


def validation_figure(found: Sequence[Comparison]) -> Figure:
    """Draw the error of every run, a panel a reference and quantity, a row a trace."""
    return styled([partial(_errors, found)])[0]


def _errors(found: Sequence[Comparison]) -> Figure:
    from matplotlib.figure import Figure as Canvas

    traces = list(dict.fromkeys(c.trace for c in found))
    panels = _panels(found)
    figure = Canvas(figsize=(2.2 + 2.1 * len(panels), 1.2 + 0.26 * len(traces)),
                    layout="constrained")  # fmt: skip
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (reference, quantity) in zip(axes, panels, strict=True):
        _panel(axis, [c for c in found if c.reference == reference], quantity, found, traces)
        axis.set_title(f"{reference}:\n{QUANTITIES[quantity]}", loc="left")
        axis.set_xlabel("ours above theirs, %")
    axes[0].set_yticks(range(len(traces)), traces)
    axes[0].set_ylim(len(traces) - 0.5, -0.5)
    figure_legend(figure, axes, 4)
    figure.draw_without_rendering()  # so many panels take two passes to be laid out
    return Figure(
        name="dram-validation",
        title="Against the reference simulators",
        caption="A dot is a run: by what share ours is above the reference. Traces whose name "
        f"ends in {LOAD} offer half of the peak, the others as much as is taken.",
        figure=figure,
        rows=_rows(found),
    )


def _panels(found: Sequence[Comparison]) -> list[tuple[str, str]]:
    """Return the panels that have anything to show; activates are in the table only."""
    out = []
    for reference in dict.fromkeys(c.reference for c in found):
        for quantity in QUANTITIES:
            shown = quantity != "act" and any(
                c.error(quantity) is not None for c in found if c.reference == reference
            )
            if shown:
                out.append((reference, quantity))
    return out


def _panel(
    axis: Any, mine: list[Comparison], quantity: str, found: Sequence[Comparison], traces: list[str]
) -> None:
    devices = list(dict.fromkeys(c.device for c in found))
    for number, device in enumerate(devices):
        dots = [(100 * e, traces.index(c.trace)) for c in mine if c.device == device
                and (e := c.error(quantity)) is not None]  # fmt: skip
        if dots:
            x, y = zip(*dots, strict=True)
            axis.plot(x, y, DEVICE_MARKS[number % len(DEVICE_MARKS)], label=device, markersize=4,
                      color=palette.container_colour(number), alpha=0.8)  # fmt: skip
    axis.axvline(0, color="#222222", linewidth=0.6)
    most = max((abs(x) for x in axis.dataLim.intervalx), default=0.1)
    most = 0.1 if most != most or most > 1e6 else max(0.1, 1.15 * most)
    axis.set_xlim(-most, most)


def _rows(found: Sequence[Comparison]) -> list[Row]:
    names = [x for q in QUANTITIES for x in (f"{q}_ref", q)]
    rows: list[Row] = [["reference", "device", "trace", "requests", *names]]
    for c in found:
        values = [x for q in QUANTITIES for x in (c.theirs[q], c.ours[q])]
        rows.append([c.reference, c.device, c.trace, c.requests, *values])
    return rows


def validation_block(found: Sequence[Comparison]) -> str:
    """Return the generated part of docs/dram-validation.md."""
    return "\n\n".join(
        [
            summary_markdown(found),
            "![Error of every run against its reference](figures/dram-validation.svg)",
            "Speed, million requests a second of processor time on one core, where the reference's "
            "is known; the references ran on another machine, ours is the best of three runs:",
            speed_markdown(found),
            "## Every run",
            runs_markdown(found),
        ]
    )
