"""Table 1 of the paper as data: the rows that add up, and the ones that do not."""

import math

import pytest

from sfpsim.precision.published import published_bits

ROWS = {(row.network, row.family): row for row in published_bits()}
SIGNS = {"ResNet18": 0.087, "ResNet50": 0.024, "MobileNetV2": 0.038, "DLRM": 0.65}
OPEN = {("DLRM", "bitwave"), ("ViT", "bitwave"), ("BERT QNLI", "bitwave")}


@pytest.mark.parametrize("network", [n for n, family in ROWS if family == "quantum"])
def test_every_row_of_the_quantum_methods_adds_up(network):
    row = ROWS[network, "quantum"]
    assert row.closes
    assert row.sign == pytest.approx(SIGNS.get(network, 1.0), abs=0.01)


@pytest.mark.parametrize("key", [k for k in ROWS if k[1] == "bitwave"], ids=lambda k: k[0])
def test_bitwave_totals_count_no_sign_and_three_rows_do_not_close(key):
    row = ROWS[key]
    assert row.closes == (key not in OPEN)
    if row.closes:
        assert row.sign == pytest.approx(0.0, abs=0.02)


def test_the_means_of_the_rows():
    quantum = [row for row in ROWS.values() if row.family == "quantum"]
    mean = math.exp(sum(math.log(32 / row.total) for row in quantum) / len(quantum))
    assert mean == pytest.approx(4.962, abs=0.002)  # printed: 4.736
    gecko = math.exp(sum(math.log(32 / row.total_gecko) for row in quantum) / len(quantum))
    assert gecko == pytest.approx(5.929, abs=0.002)  # printed: 5.637
