"""Figures, report and tables: complete, repeatable, legible, self-contained."""

import csv
import io
import itertools
import re

import msgspec
import numpy as np
import pytest
from rich.console import Console

from sfpsim.experiment.compare import compare
from sfpsim.report import palette
from sfpsim.report.figures import draw, rendered, table_bytes
from sfpsim.report.summary import headline, order_flips, sources
from sfpsim.report.table import comparison_table, layer_table, limiter_table, short_name
from sfpsim.report.write import html, write_report
from sfpsim.trace.reader import open_trace


@pytest.fixture(scope="module")
def figures(comparison):
    return draw(comparison)


def _html(comparison, figures):
    files = {f"{f.name}.svg": rendered(f.figure, "svg") for f in figures}
    return html(comparison, figures, files).decode()


def test_there_is_a_figure_of_everything(figures):
    names = {figure.name for figure in figures}
    assert names == {"bits", "tradeoff", "traffic", "time", "energy", "live", "exponents"}
    for figure in figures:
        assert len(figure.caption) > 40
        rows = list(csv.DictReader(io.StringIO(table_bytes(figure.rows).decode())))
        assert rows
        assert all(None not in row.values() for row in rows)


def test_what_no_other_beats_is_large(comparison):
    made = {"fp32": (32, None), "bf16": (16, 55.0), "fp16": (16, 73.0), "gecko-bias": (26, None)}
    containers = [
        msgspec.structs.replace(
            comparison.containers[0],
            container=name,
            totals=msgspec.structs.replace(
                comparison.containers[0].totals, values=100, total_bits=100 * size, sqnr_db=sqnr
            ),
        )
        for name, (size, sqnr) in made.items()
    ]
    found = draw(msgspec.structs.replace(comparison, containers=containers))
    (figure,) = (f for f in found if f.name == "tradeoff")
    assert figure.rows[1:] == [[name, *point] for name, point in made.items()]
    sizes = {line.get_label(): line.get_markersize() for line in figure.figure.axes[0].lines}
    assert {name for name in made if sizes[name] == 6} == {"fp16", "gecko-bias"}
    assert {t.get_text() for t in figure.figure.axes[0].texts} == set(made)


def test_the_same_result_gives_the_same_bytes(comparison, figures):
    again = draw(comparison)
    for one, two in zip(figures[:2], again[:2], strict=True):
        assert rendered(one.figure, "svg") == rendered(two.figure, "svg")


def test_lengths_begin_at_zero(figures):
    for figure in figures:
        for axis in figure.figure.axes:
            assert axis.get_ylim()[0] == 0 or axis.get_xlim()[0] == 0


def test_no_two_labels_overlap(figures):
    for figure in figures:
        canvas = figure.figure
        canvas.draw_without_rendering()
        for axis in canvas.axes:
            labels = [t for t in axis.get_yticklabels() if t.get_text() and t.get_visible()]
            boxes = sorted((t.get_window_extent() for t in labels), key=lambda b: b.y0)
            for low, high in itertools.pairwise(boxes):
                assert low.y1 <= high.y0 + 1, figure.name


def test_colours_of_a_set_differ():
    for colours in (palette.FIELDS, palette.ROLES, palette.PASSES, palette.LIMITERS,
                    palette.ENERGY):  # fmt: skip
        assert len(set(colours.values())) == len(colours)
    styles = {(palette.container_colour(i), palette.container_line(i)) for i in range(20)}
    assert len(styles) == 20


def test_short_names_keep_everything():
    name = "weight=sfp:m=4,e=8,exponent=gecko-bias;activation=bf16"
    assert short_name(name).replace("\n", "") == name
    assert short_name("fp32") == "fp32"


def test_the_report_is_one_small_file_that_opens_offline(comparison, figures):
    text = _html(comparison, figures)
    assert len(text) < 1_000_000
    assert not re.search(r"""(src|href)=["'](?!#)""", text.replace("xlink:href", "href"))
    assert "<script" not in text
    assert text.count("<svg") == len(figures)
    assert text.count("<details") == len(comparison.containers) + 1
    for result in comparison.containers:
        assert short_name(result.container) in text
    for sentence in headline(comparison):
        assert sentence in text
    assert comparison.machine.memory_note in text
    changed = [r for c in comparison.containers for r in c.roles if r.max_rel_error is not None]
    assert changed
    table = text.partition("what is lost")[2].partition("</table>")[0]
    assert table.count("<tr>") == len(changed)
    assert f"<td>{changed[0].sqnr_db:.1f}</td>" in table


def test_headline_names_the_fastest_and_the_fastest_exact(comparison):
    fast, exact = headline(comparison)
    least = min(comparison.containers, key=lambda c: c.totals.time_ns)
    assert fast.startswith(least.container)
    assert "exact" in exact
    alone = msgspec.structs.replace(comparison, containers=comparison.containers[:1])
    assert "fp32" in headline(alone)[0]


def _with_energy(result, low, high):
    def scaled(energy, factor):
        return msgspec.structs.replace(energy, total=factor)

    t = result.totals
    totals = msgspec.structs.replace(
        t, energy_low_pj=scaled(t.energy_low_pj, low), energy_pj=scaled(t.energy_pj, 10.0),
        energy_high_pj=scaled(t.energy_high_pj, high),
    )  # fmt: skip
    return msgspec.structs.replace(result, totals=totals)


def test_flips_of_order_are_flagged(comparison, figures):
    a, b, *_ = comparison.containers
    flipped = [_with_energy(a, 1.0, 20.0), _with_energy(b, 2.0, 15.0)]
    flipped = msgspec.structs.replace(comparison, containers=flipped)
    (flip,) = order_flips(flipped)
    assert flip.text == (
        "fp32 takes less energy than bf16 in the low tables, more in the high ones."
    )
    assert "Order flips" in _html(flipped, figures)
    same = [_with_energy(a, 1.0, 10.0), _with_energy(b, 1.0, 15.0)]
    assert order_flips(msgspec.structs.replace(comparison, containers=same)) == []


def test_sources_are_those_of_the_preset_only(comparison):
    assert {"machine", "codec", "memory"} <= {name for name, _ in sources(comparison)}
    machine = msgspec.structs.replace(comparison.machine, hash="0" * 12)
    assert sources(msgspec.structs.replace(comparison, machine=machine)) == []


@pytest.mark.parametrize("width", [100, 110, 120])
def test_tables_fit(comparison, width):
    first = comparison.containers[0]
    for table in (comparison_table(comparison), limiter_table(comparison), layer_table(first)):
        console = Console(width=width, file=io.StringIO())
        console.print(table)
        lines = console.file.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert "…" not in console.file.getvalue()


def test_write_report_lists_what_it_wrote(comparison, tmp_path):
    paths = write_report(comparison, tmp_path)
    assert set(paths) == set(tmp_path.iterdir())
    assert len(paths) == 7 * 3 + 3


@pytest.mark.parametrize(
    "values",
    [np.zeros(0, np.float32), np.zeros(500, np.float32), np.full(500, np.nan, np.float32),
     np.arange(50)],
    ids=["empty", "zeros", "nans", "integers"],
)  # fmt: skip
def test_degenerate_values_are_drawn(tmp_path, values):
    np.save(tmp_path / "x.npy", values)
    policies = ["fp32", "gecko-bias", "sfp:m=0,e=1"]
    comparison = compare(open_trace(tmp_path / "x.npy"), policies)
    text = _html(comparison, draw(comparison))
    assert not re.search(r"\b(nan|inf)\b", text)
    assert headline(comparison)
    console = Console(width=100, file=io.StringIO())
    console.print(comparison_table(comparison))
