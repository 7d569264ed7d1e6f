"""A training's course in tables and figures: numbers by hand, nothing for a single step."""

import io
import itertools

import msgspec
import pytest
from matplotlib.text import Text
from rich.console import Console

from sfpsim.experiment.result import LayerLengths, StepResult, StepRole
from sfpsim.report.figures import rendered
from sfpsim.report.over_training import apart, draw_over_training
from sfpsim.report.table import info_tables, steps_table
from sfpsim.report.write import write_report


def shown(tables, width=100):
    console = Console(width=width, file=io.StringIO())
    for table in tables:
        console.print(table)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    return text


def _info(steps, lengths=()):
    lines = [
        {"step": 10 * i, "epoch": i, "bytes": 3_000_000, "zeros": {"weight": 0.25},
         "exponent_entropy_bits": {"weight": 2.5, "activation": 3.0},
         "mean_lengths": {"weight": {"mantissa_bits": 4.125, "exponent_bits": None}}}
        for i in range(steps)
    ]  # fmt: skip
    return {"roles": {}, "zeros": {}, "exponent_entropy_bits": {}, "lengths": lengths,
            "by_step": lines}  # fmt: skip


def test_info_has_a_line_a_step_with_dashes_where_there_is_no_length():
    text = shown(info_tables(_info(2)))
    (line,) = (x.split() for x in text.splitlines() if x.split()[:2] == ["10", "1"])
    assert line[2:] == ["3.000", "25.0%", "2.50", "4.12", "-", "-", "3.00", "-", "-"]


@pytest.mark.parametrize(("steps", "lengths", "there"), [(1, [], False), (1, [1], True)])
def test_info_of_one_step_shows_it_only_for_its_lengths(steps, lengths, there):
    assert ("as training goes on" in shown(info_tables(_info(steps, lengths)))) is there


def _step(number, bits, time_ns=2e6):
    roles = [
        StepRole(role=role, values=100, raw_bits=3200, total_bits=100 * b)
        for role, b in bits.items()
    ]
    zeros = dict.fromkeys(
        ("sign_bits", "exponent_bits", "metadata_bits", "padding_bits", "index_bits"), 0
    )
    total = sum(r.total_bits for r in roles)
    return StepResult(
        step=number, epoch=number // 10, values=200, raw_bits=6400, mantissa_bits=total,
        total_bits=total, time_ns=time_ns, read_bytes=10, write_bytes=10, bandwidth_gbps=12.34,
        energy_pj=5e9, roles=roles, **zeros,
    )  # fmt: skip


def _training(comparison, bits, steps=(0, 10, 25), lengths=()):
    """Return a comparison of containers whose bits a value at some steps are given."""
    first = comparison.containers[0]
    containers = [
        msgspec.structs.replace(
            first, container=name, steps=[_step(s, b) for s, b in zip(steps, line, strict=True)]
        )
        for name, line in bits.items()
    ]
    return msgspec.structs.replace(comparison, containers=containers, lengths=list(lengths))


def _same(*values):
    return [{"weight": v, "activation": v} for v in values]


def test_the_steps_table_has_a_row_a_container_and_step(comparison):
    found = _training(comparison, {"fp32": _same(32, 32, 32), "sfp": _same(16, 8, 5)})
    rows = [x.split() for x in shown([steps_table(found)]).splitlines()]
    assert ["fp32", "0", "0", "32.00", "1.00", "2.000", "12.3", "5.000"] in rows
    assert ["10", "1", "8.00", "4.00", "2.000", "12.3", "5.000"] in rows
    assert ["25", "2", "5.00", "6.40", "2.000", "12.3", "5.000"] in rows


def test_the_steps_table_stays_short(comparison):
    assert steps_table(comparison) is None
    many = {f"c{i}": _same(*range(1, 41)) for i in range(2)}
    text = shown([steps_table(_training(comparison, many, range(40)))])
    assert len(text.splitlines()) < 35
    assert "12 of 40 steps are shown" in text
    crowd = {f"c{i}": _same(1, 2, 3) for i in range(13)}
    assert steps_table(_training(comparison, crowd)) is None


def test_a_single_step_has_no_course(comparison):
    assert draw_over_training(comparison) == []
    one = [_lengths(0, "fc", 3, 4)]
    assert draw_over_training(msgspec.structs.replace(comparison, lengths=one)) == []
    unknown = [_lengths(step, "fc", None, None) for step in (0, 1)]
    assert draw_over_training(msgspec.structs.replace(comparison, lengths=unknown)) == []


@pytest.mark.parametrize("role", ["gradient", "other"])
def test_a_trace_without_weights_and_activations_has_no_footprint(comparison, role):
    bits = {"fp32": [{role: 32}, {role: 32}]}
    assert draw_over_training(_training(comparison, bits, (0, 10))) == []


def test_the_footprint_is_drawn_from_the_results_numbers(comparison):
    learned = [{"weight": 16, "activation": 20}, {"weight": 8, "activation": 9},
               {"weight": 5, "activation": 6}]  # fmt: skip
    found = _training(comparison, {"fp32": _same(32, 32, 32), "sfp": learned})
    (figure,) = draw_over_training(found)
    weight, activation = figure.figure.axes
    assert [list(line.get_ydata()) for line in weight.lines] == [[32] * 3, [16, 8, 5]]
    assert list(activation.lines[1].get_xdata()) == [0, 10, 25]
    assert list(activation.lines[1].get_ydata()) == [20, 9, 6]
    assert weight.get_ylim()[0] == 0
    assert [t.get_text() for t in weight.get_xticklabels()] == ["0\n(0)", "10\n(1)", "25\n(2)"]
    assert [t.get_text() for t in weight.texts] == ["sfp", "fp32"]
    head, *rows = figure.rows
    assert dict(zip(head, rows[-1], strict=True)) == {
        "container": "sfp", "step": 25, "epoch": 2, "role": "activation", "values": 100,
        "raw_bits": 3200, "total_bits": 600, "bits_a_value": 6, "ratio": 3200 / 600,
    }  # fmt: skip
    assert len(rows) == 2 * 3 * 2


def test_of_many_lines_the_first_and_those_that_change_most_are_drawn(comparison):
    bits = {f"c{i}": _same(20, 20, 20 - i % 10) for i in range(20)}
    found = _training(comparison, bits)
    (figure,) = draw_over_training(found)
    names = {t.get_text() for t in figure.figure.axes[0].texts}
    assert names == {"c0", "c9", "c19", "c8", "c18", "c7", "c17", "c6"}
    assert "the other 12 are in the CSV" in figure.caption
    assert {row[0] for row in figure.rows[1:]} == set(bits)


def test_names_of_lines_that_end_together_do_not_overlap(comparison):
    bits = {f"weight=sfp:m={i},e=5;activation=bf16": _same(9, 9, 9 + i / 100) for i in range(8)}
    (figure,) = draw_over_training(_training(comparison, bits))
    figure.figure.draw_without_rendering()
    for axis in figure.figure.axes:
        # an annotation's own extent takes in its line
        boxes = sorted((Text.get_window_extent(t) for t in axis.texts), key=lambda b: b.y0)
        assert len(boxes) == 8
        for low, high in itertools.pairwise(boxes):
            assert low.y1 <= high.y0 + 1
        assert boxes[0].y0 > 0
        assert max(b.x1 for b in boxes) <= figure.figure.bbox.x1


@pytest.mark.parametrize(
    ("wanted", "top", "places"),
    [([1, 5, 9], 10, [1, 5, 9]), ([4, 4, 4], 10, [4, 6, 8]), ([9, 9, 10], 10, [5, 7, 9])],
)
def test_names_move_as_little_as_need_be(wanted, top, places):
    assert apart(wanted, [2, 2, 2], top) == places


def _lengths(step, layer, mantissa, exponent, role="weight"):
    return LayerLengths(step=step, epoch=0, layer=layer, role=role, values=10,
                        mantissa_bits=mantissa, exponent_bits=exponent)  # fmt: skip


def _heatmap(comparison, lengths):
    found = _training(comparison, {"fp32": _same(32, 32, 32)}, lengths=lengths)
    return draw_over_training(found)[1]


def test_the_heat_map_has_a_row_a_layer_and_a_column_a_step(comparison):
    lengths = [
        _lengths(0, "conv", 7, 8), _lengths(0, "conv", 6.5, 5, "activation"), _lengths(0, "", 4, 3),
        _lengths(10, "conv", 2, 6), _lengths(10, "conv", 3, 4, "activation"),
    ]  # fmt: skip
    figure = _heatmap(comparison, lengths)
    panels = {a.get_title("left"): a for a in figure.figure.axes if a.get_title("left")}
    grids = {name: a.collections[0].get_array().tolist() for name, a in panels.items()}
    assert grids == {
        "weight,\nmantissa": [[7, 2], [4, None]],
        "activation,\nmantissa": [[6.5, 3], [None, None]],
        "weight,\nexponent": [[8, 6], [3, None]],
        "activation,\nexponent": [[5, 4], [None, None]],
    }
    first = panels["weight,\nmantissa"]
    assert [t.get_text() for t in first.get_yticklabels()] == ["conv", "(top)"]
    assert [t.get_text() for t in first.get_xticklabels()] == ["0", "10"]
    bars = [a.get_ylabel() for a in figure.figure.axes if a not in panels.values()]
    assert bars == ["mantissa, bits", "exponent, bits"]
    assert first.collections[0].get_clim() == (-0.5, 7.5)
    assert len(figure.rows) == 1 + len(lengths)


def test_integers_have_no_panel_of_exponents(comparison):
    figure = _heatmap(comparison, [_lengths(s, "fc", 4, None) for s in (0, 1)])
    titles = [a.get_title("left") for a in figure.figure.axes]
    assert [t for t in titles if t] == ["weight,\nmantissa"]


def test_a_large_heat_map_stays_legible_and_small(comparison):
    lengths = [_lengths(s, f"layer{i}", i % 24, s % 9) for s in range(100) for i in range(200)]
    figure = _heatmap(comparison, lengths)
    figure.figure.draw_without_rendering()
    labels = [t.get_window_extent() for t in figure.figure.axes[0].get_yticklabels()]
    for low, high in itertools.pairwise(sorted(labels, key=lambda b: b.y0)):
        assert low.y1 <= high.y0 + 1
    assert figure.figure.axes[0].collections[0].get_array().shape == (200, 60)
    assert "60 of 100 steps" in figure.caption
    assert len(rendered(figure.figure, "svg")) < 500_000


def test_both_are_in_the_folder_and_the_report(comparison, tmp_path):
    lengths = [_lengths(s, "fc", 4, 5) for s in (0, 10, 25)]
    found = _training(comparison, {"fp32": _same(32, 32, 32)}, lengths=lengths)
    names = {path.name for path in write_report(found, tmp_path)}
    text = (tmp_path / "report.html").read_text()
    for name in ("footprint_over_training", "lengths_heatmap"):
        assert {f"{name}.{kind}" for kind in ("svg", "pdf", "csv")} <= names
        assert f'id="{name}"' in text


def test_what_many_lengths_lose_is_folded_up_and_says_which_lost_it(comparison, tmp_path):
    lossy = next(c for c in comparison.containers if c.container == "sfp:m=4,e=5")
    (role,) = lossy.roles
    roles = [msgspec.structs.replace(role, container=f"sfp:m={m},e={e}")
             for m in range(7) for e in range(2, 9)]  # fmt: skip
    for count, folded in ((1, 0), (49, 1)):
        learned = msgspec.structs.replace(lossy, container="sfp", roles=roles[-count:])
        write_report(msgspec.structs.replace(comparison, containers=[learned]), tmp_path)
        text = (tmp_path / "report.html").read_text()
        assert text.count("What is lost, by role and lengths in force: 49 rows") == folded
        assert text.count("<details") == text.count("</details>") == 2 + folded
        assert text.count("sfp:m=3,e=4<") == folded
