"""Size and quality by role: those of the values, worked out again with numpy."""

from importlib import resources

import numpy as np
import pytest

from sfpsim.containers.registry import parse_container
from sfpsim.experiment.compare import compare
from sfpsim.trace.reader import open_trace

ROLES = ("weight", "activation", "gradient", "optimizer", "other")


@pytest.fixture(scope="module")
def trace():
    return open_trace(resources.files("sfpsim") / "sample" / "resnet8")


def _held(trace, role, moved):
    records = [r for r in trace.records if (r.role, r.dtype) == (role, "float32")]
    return [np.asarray(run) for r in records if r.name in moved for run in trace.runs(r)]


def test_every_role_has_the_quality_of_its_values(trace):
    spec = "fp8-e5m2"
    (whole,) = compare(trace, [f"all={spec}"], per_tensor=True).containers
    moved = {tensor.name for tensor in whole.tensors}
    found = {r.role: r for r in whole.roles if r.container == spec}
    assert set(found) == set(ROLES)
    for role, result in found.items():
        runs = _held(trace, role, moved)
        x = np.concatenate(runs).astype(np.float64)
        q = np.concatenate([parse_container(spec).quantize(run) for run in runs]).astype(float)
        assert result.held_values == x.size <= result.values
        assert result.bits_per_value == result.total_bits / result.values == 8
        noise = ((q - x) ** 2).sum()
        assert result.sqnr_db == pytest.approx(10 * np.log10((x**2).sum() / noise))
        assert result.cosine == pytest.approx((x @ q) / np.sqrt((x @ x) * (q @ q)))
        used = x != 0
        assert result.max_rel_error == pytest.approx((abs(q - x)[used] / abs(x[used])).max())
        assert result.zeros_made == (used & (q == 0)).sum()
        assert (result.specials_lost, result.specials_made) == (0, 0)
    assert any(result.zeros_made for result in found.values())


def test_specials_and_zeros_are_counted_and_exact_roles_have_no_quality(tmp_path):
    x = np.array([np.nan, np.inf, -np.inf, 1e-30, 2e-30, 0.0, 1.0, 1e38], np.float32)
    np.save(tmp_path / "x.npy", x)
    policies = ["gecko-bias", "fp4-e2m1", "fp16"]
    exact, small, half = (c.roles[0] for c in compare(open_trace(tmp_path / "x.npy"),
                                                      policies).containers)  # fmt: skip
    assert (exact.sqnr_db, exact.max_rel_error, exact.cosine) == (None, None, None)
    assert (exact.zeros_made, exact.specials_lost, exact.specials_made) == (0, 0, 0)
    assert (small.zeros_made, small.specials_lost, small.specials_made) == (2, 3, 0)
    assert small.max_rel_error == pytest.approx(1)
    assert (half.zeros_made, half.specials_lost, half.specials_made) == (2, 0, 1)


def test_a_role_without_values_has_no_bits_a_value(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(0, np.float32))
    role = compare(open_trace(tmp_path / "x.npy"), ["fp8-e5m2"]).containers[0].roles[0]
    assert (role.values, role.held_values, role.bits_per_value) == (0, 0, None)
