"""The validation page: errors are those of the CSV, and its figure draws."""

import pytest

from sfpsim.errors import InputError
from sfpsim.report.figures import rendered
from sfpsim.report.validation import read_comparisons, validation_block, validation_figure

HEAD = (
    "reference,device,trace,requests,cycles,cycles_ref,act,act_ref,energy_pj,energy_pj_ref,"
    "latency_ns,latency_ns_ref\n"
)
ROWS = """DRAMsim3,ddr4,seq_rd,1000,1010,1000,5,5,20.0,20.0,9,10
DRAMsim3,hbm2,seq_rd_50,1000,990,1000,5,5,20.2,20.0,,0
Ramulator2.1,ddr4,seq_rd,1000,1001,1000,5,,20.0,,9,
"""


@pytest.fixture
def found(tmp_path):
    (tmp_path / "r.csv").write_text(HEAD + ROWS)
    return read_comparisons(tmp_path / "r.csv")


def test_errors(found):
    assert [c.error("cycles") for c in found] == pytest.approx([0.01, -0.01, 0.001])
    assert found[0].error("latency_ns") == pytest.approx(-0.1)
    assert found[1].error("latency_ns") is None
    assert found[2].error("energy_pj") is None


def test_the_page_has_every_run(found):
    page = validation_block(found)
    assert "| DRAMsim3 | cycles | 2 | 1.00 % | +1.00 % | ddr4, seq_rd |" in page
    assert "| DRAMsim3 | core energy | 2 | 0.50 % | +1.00 % | hbm2, seq_rd_50 |" in page
    assert "| Ramulator2.1 | cycles | 1 | 0.10 % | +0.10 % | ddr4, seq_rd |" in page
    assert page.count("| DRAMsim3 | ddr4 | seq_rd | 1,000 | 1,000 | 1,010 |") == 1


def test_the_figure_draws(found):
    figure = validation_figure(found)
    assert len(figure.figure.axes) == 4
    assert len(figure.rows) == 4
    assert b"core energy" in rendered(figure.figure, "svg")
    assert rendered(figure.figure, "svg") == rendered(validation_figure(found).figure, "svg")


def test_what_is_no_result(tmp_path):
    path = tmp_path / "r.csv"
    with pytest.raises(InputError, match="cannot be read"):
        read_comparisons(path)
    for content in ("", HEAD, "a,b\n1,2\n"):
        path.write_text(content)
        with pytest.raises(InputError, match="no column"):
            read_comparisons(path)
