"""A training's course in tables and figures: numbers by hand, nothing for a single step."""

import io

import pytest
from rich.console import Console

from sfpsim.report.table import info_tables


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
