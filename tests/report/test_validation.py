"""The validation page: errors are those of the CSV, and its figure draws."""

import pytest

from sfpsim.report.figures import rendered
from sfpsim.report.validation import QUANTITIES, Comparison, validation_block, validation_figure


def run(reference, device, trace, ours, theirs, cpu_s_ref=None):
    return Comparison(
        reference=reference, device=device, trace=trace, requests=1000, cpu_s=0.001,
        cpu_s_ref=cpu_s_ref, ours=dict(zip(QUANTITIES, ours, strict=True)),
        theirs=dict(zip(QUANTITIES, theirs, strict=True)),
    )  # fmt: skip


@pytest.fixture
def found():
    return [
        run("DRAMsim3", "ddr4", "seq_rd", (1010, 5, 20.0, 9), (1000, 5, 20.0, 10), 0.01),
        run("DRAMsim3", "hbm2", "seq_rd_50", (990, 5, 20.2, None), (1000, 5, 20.0, 0)),
        run("Ramulator2.1", "ddr4", "seq_rd", (1001, 5, 20.0, 9), (1000, None, None, None)),
    ]


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
    assert "| DRAMsim3 | 1 | 0.10 | 1.0 | 1.0 to 1.0 |" in page
    assert page.count("| DRAMsim3 | ddr4 | seq_rd | 1,000 | 1,000 | 1,010 |") == 1


def test_the_figure_draws(found):
    figure = validation_figure(found)
    assert len(figure.figure.axes) == 4
    assert len(figure.rows) == 4
    assert b"core energy" in rendered(figure.figure, "svg")
    assert rendered(figure.figure, "svg") == rendered(validation_figure(found).figure, "svg")
