"""Is the reuse scheme the least of the four, and that of the reference tables?"""

import csv
import doctest
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfpsim.trace import sampling
from sfpsim.workload import reuse
from sfpsim.workload.reuse import best_scheme

OPERANDS = Path(__file__).parents[1] / "fixture" / "workload" / "operands.csv"
SIZES = st.integers(1, 60)


def naive(a, b, c, m, n, buffer, groups):
    """Every scheme and every tile, each group on its own."""
    a, b, c = (-(-size // groups) for size in (a, b, c))
    if a + b + c <= buffer:
        return groups * (a + b)
    half = max(1, buffer // 2)
    moved = [a * max(1, -(-b // half)) + b, a + b * max(1, -(-a // half))]
    for tile_m in range(1, m + 1):
        for tile_n in range(1, n + 1):
            if tile_m * tile_n <= half:
                moved.append(a * -(-n // tile_n) + b * -(-m // tile_m))
    return groups * min(moved)


@settings(deadline=None)
@given(SIZES, SIZES, SIZES, st.integers(2, 4000), st.integers(1, 4))
def test_the_scheme_is_the_least_of_all(m, n, k, buffer, groups):
    a, b, c = groups * m * k, groups * k * n, groups * m * n
    found = best_scheme(a, b, c, m, n, buffer, groups)
    assert a * found.a_times + b * found.b_times == naive(a, b, c, m, n, buffer, groups)
    assert found.a_times >= 1
    assert found.b_times >= 1


@pytest.mark.parametrize("row", list(csv.DictReader(OPERANDS.open())), ids=lambda r: r["layer"])
def test_published_networks_move_what_the_reference_says(row):
    a, b, c = (int(row[f"{x}_elements"]) for x in "abc")
    groups = int(row["repeats"])
    buffer = 8 << 19  # 8 MB of BF16
    found = best_scheme(
        a * groups, b * groups, c * groups, int(row["M"]), int(row["N"]), buffer, groups
    )
    moved = 2 * groups * (a * found.a_times + b * found.b_times + c)
    assert int(row["compulsory_bytes"]) <= moved <= int(row["modelled_bytes"])
    assert 2 * groups * (a + b + c) == int(row["compulsory_bytes"])
    if row["exact"] == "yes":
        assert moved == int(row["modelled_bytes"])


@pytest.mark.parametrize("module", [reuse, sampling], ids=lambda m: m.__name__)
def test_the_examples_in_the_documentation_run(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
