"""The mathematics: draws, gradients, zones, slopes, against direct evaluation."""

import math

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from sfpsim.containers.sfp import Sfp  # noqa: E402
from sfpsim.errors import InputError  # noqa: E402
from sfpsim.precision.arithmetic import (  # noqa: E402
    exponent_range,
    largest,
    quantized,
    smallest,
)
from sfpsim.precision.bitpruning import Draw, Interpolate  # noqa: E402
from sfpsim.precision.lsq import StepQuantize  # noqa: E402
from sfpsim.precision.quantum import (  # noqa: E402
    Quantize,
    analytic_exponent_gradient,
    range_gradients,
)
from sfpsim.precision.watching import bits_of_limit, slope  # noqa: E402
from sfpsim.testing.contract import bits_equal  # noqa: E402


def any_floats(count, seed=0):
    words = np.random.default_rng(seed).integers(0, 1 << 32, count, np.uint64).astype(np.uint32)
    x = words.view(np.float32)
    return x[~np.isnan(x)]


@given(m=st.integers(0, 23), e=st.integers(1, 8))
def test_values_are_those_of_the_container_bit_for_bit(m, e):
    x = any_floats(4000, m * 8 + e)
    near = np.random.default_rng(m).standard_normal(4000, dtype=np.float32) * np.float32(2.0**-3)
    for part in (x, near):
        found = quantized(torch.from_numpy(part.copy()), m, exponent_range(e)).numpy()
        assert bits_equal(found, Sfp(mantissa_bits=m, exponent_bits=e).quantize(part))


@given(m=st.integers(0, 7), e=st.integers(1, 8))
def test_bfloat16_values_are_those_of_the_container(m, e):
    words = np.arange(0, 1 << 16, 7, dtype=np.uint16)
    x = words.view(ml_dtypes.bfloat16)
    x = x[~np.isnan(x.astype(np.float32))]
    tensor = torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)
    found = quantized(tensor, m, exponent_range(e)).view(torch.int16).numpy()
    expected = Sfp(mantissa_bits=m, exponent_bits=e).quantize(x)
    assert found.tobytes() == expected.tobytes()


def test_a_nan_stays_one_and_dtypes_are_checked():
    x = torch.tensor([float("nan"), 1.0])
    assert torch.isnan(quantized(x, 0, exponent_range(2))[0])
    assert torch.isnan(quantized(x, 0, None)[0])
    with pytest.raises(InputError, match="int64"):
        quantized(torch.tensor([1]), 3, None)
    with pytest.raises(InputError, match="-1"):
        quantized(x, -1, None)


def length(value):
    return torch.tensor(float(value), requires_grad=True)


@pytest.mark.parametrize("n", [0.0, 1.25, 3.5, 6.9])
def test_the_mantissa_gradient_is_that_of_the_expected_value(n):
    x, weights = torch.randn(500), torch.randn(500)
    n_m, n_e = length(n), length(8)
    low, share = math.floor(n), n - math.floor(n)
    expected = (weights * (quantized(x, low + 1, None) - quantized(x, low, None))).sum()
    for drawn in (low, low + 1):
        n_m.grad = None
        (Quantize.apply(x, n_m, n_e, drawn, 8, "exact") * weights).sum().backward()
        assert float(n_m.grad) == pytest.approx(float(expected), rel=1e-5)
    mean = (1 - share) * quantized(x, low, None) + share * quantized(x, low + 1, None)
    total = sum(
        quantized(x, low + int(torch.rand(()) < share), None) for _ in range(4000)
    )  # fmt: skip
    assert torch.allclose(total / 4000, mean, atol=0.05)


@pytest.mark.parametrize("n", [1.0, 2.5, 3.2])
def test_the_exponent_gradient_is_that_of_the_expected_value(n):
    x, weights = torch.randn(500) * 8, torch.randn(500)
    n_m, n_e = length(4), length(n)
    low = math.floor(n)
    upper = quantized(x, 4, exponent_range(low + 1))
    expected = (weights * (upper - quantized(x, 4, exponent_range(low)))).sum()
    (Quantize.apply(x, n_m, n_e, 4, low, "exact") * weights).sum().backward()
    assert float(n_e.grad) == pytest.approx(float(expected), rel=1e-5)


def test_values_pass_their_gradient_within_the_range_only():
    x = torch.tensor([0.01, 1.0, -1.5, 100.0, -100.0], requires_grad=True)
    out = Quantize.apply(x, length(3), length(2), 3, 2, "exact")
    out.backward(torch.ones_like(x))
    assert x.grad.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_the_range_gradients_zone_by_zone():
    most, least = 4.0, 0.5
    x = torch.tensor(
        [-9.0, -4.0, -3.0, -0.5, -0.4, -0.25, -0.2, 0.2, 0.25, 0.4, 0.5, 3.0, 4.0, 9.0]
    )
    by_most, by_least = range_gradients(x, most, least)
    assert by_most.tolist() == [-1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert by_least.tolist() == [0, 0, 0, 0, -1, -1, 1, -1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("x", [5.0, -5.0, 0.2, -0.2, 0.1])
def test_the_analytic_gradient_is_the_papers_chain(x):
    n, m = 2.0, 3
    limits = exponent_range(2)
    most, least = largest(m, limits), smallest(m, limits)
    value = torch.tensor([x])
    found = analytic_exponent_gradient(torch.ones(1), value, m, n, 2)
    slope_n = math.log(2) ** 2 * 2 ** (n - 1)
    by_most, by_least = range_gradients(value, most, least)
    expected = float(by_most) * most * slope_n - float(by_least) * least * slope_n
    assert float(found) == pytest.approx(expected)
    # Saturated values gain from a longer exponent, by the derivative of 2^(2^(n-1) - 1).
    h = 1e-4
    growth = (2.0 ** (2 ** (n + h - 1) - 1) - 2.0 ** (2 ** (n - h - 1) - 1)) / (2 * h)
    if x > most:
        assert float(found) == pytest.approx((2 - 2.0**-m) * growth, rel=1e-3)


def test_saturation_flush_and_round_up():
    limits = exponent_range(2)
    most, least = largest(3, limits), smallest(3, limits)
    x = torch.tensor([most * 3, -most * 3, least * 0.7, -least * 0.7, least * 0.4, -least * 0.4])
    out = quantized(x, 3, limits)
    assert out.tolist() == [most, -most, least, -least, 0.0, -0.0]


def integer_quantized(x, bits, least, most):
    """Plainly: the nearest of 2^bits values from `least` to `most`, equally far apart."""
    step = (most - least) / (2**bits - 1)
    return least + torch.round((x - least) / step) * step


@pytest.mark.parametrize("n", [1.0, 2.3, 7.999, 15.5])
def test_interpolation_and_its_gradient(n):
    x, weights = torch.randn(300, requires_grad=True), torch.randn(300)
    bits = torch.tensor([n], requires_grad=True)
    low, share = math.floor(n), n - math.floor(n)
    ends = x.detach().min(), x.detach().max()
    lower, upper = (integer_quantized(x.detach(), b, *ends) for b in (low, low + 1))
    out = Interpolate.apply(x, bits, 1)
    assert torch.allclose(out, (1 - share) * lower + share * upper, atol=1e-6)
    (out * weights).sum().backward()
    assert float(bits.grad) == pytest.approx(float((weights * (upper - lower)).sum()), abs=1e-4)
    assert torch.equal(x.grad, weights)
    assert len(set(lower.tolist())) <= 2**low


def test_channels_have_their_own_range_and_constants_stay():
    x = torch.stack([torch.linspace(0, 1, 9), torch.full((9,), 3.0), torch.linspace(-8, 8, 9)])
    out = Interpolate.apply(x, torch.tensor([1.0, 1.0, 3.0]), 3)
    assert set(out[0].tolist()) == {0.0, 1.0}
    assert set(out[1].tolist()) == {3.0}
    assert len(set(out[2].tolist())) == 8


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=50))
def test_the_slope_is_that_of_least_squares(values):
    expected = np.polyfit(np.arange(len(values)), values, 1)[0]
    assert slope(values) == pytest.approx(expected, abs=1e-6)


def test_the_exponent_length_shrinks_at_powers_of_two():
    assert [bits_of_limit(n) for n in (126, 63, 62, 31, 30, 15, 14, 7, 6, 3, 2, 1)] == [
        8, 8, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3,
    ]  # fmt: skip
    for limit in range(1, 127):
        found = exponent_range(bits_of_limit(limit))
        assert found is None or (found.least <= -limit and found.most >= limit + 1)


@pytest.mark.parametrize("n", [1.0, 2.3, 7.999])
def test_a_drawn_integer_and_its_gradient(n):
    """The value is one of the two, the gradient that of their expectation."""
    x, weights = torch.randn(300, requires_grad=True), torch.randn(300)
    low, ends = math.floor(n), (x.detach().min(), x.detach().max())
    pair = [integer_quantized(x.detach(), b, *ends) for b in (low, low + 1)]
    for drawn, expected in zip((low, low + 1), pair, strict=True):
        bits = torch.tensor([n], requires_grad=True)
        out = Draw.apply(x, bits, drawn)
        assert torch.equal(out, expected)
        x.grad = None
        (out * weights).sum().backward()
        slope = float((weights * (pair[1] - pair[0])).sum())
        assert float(bits.grad) == pytest.approx(slope, abs=1e-4)
        assert torch.equal(x.grad, weights)


def test_the_step_gradient_is_that_of_the_paper():
    """Esser et al., equation 3: inside, below and above the clip; scaled by 1 / sqrt(N Qp)."""
    x = torch.tensor([-9.0, -1.2, 0.3, 0.9, 8.0], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    out = StepQuantize.apply(x, step, -4, 3)
    assert out.tolist() == [-2.0, -1.0, 0.5, 1.0, 1.5]
    out.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    slopes = [-4, -2 + 2.4, 1 - 0.6, 2 - 1.8, 3]
    assert float(step.grad) == pytest.approx(sum(slopes) / math.sqrt(5 * 3), abs=1e-6)
