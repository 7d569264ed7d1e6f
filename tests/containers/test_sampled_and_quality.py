import numpy as np
import pytest

from sfpsim.containers import quality as quality_module
from sfpsim.containers import sampled
from sfpsim.containers.base import with_key
from sfpsim.containers.quality import Quality, quality, stored_quality
from sfpsim.containers.registry import parse_container
from sfpsim.containers.sampled import cyclic_sums, held_rows, store
from sfpsim.errors import InputError

SPECS = ["fp32", "bf16", "gecko-bias", "gecko-delta", "sfp:m=4,e=5", "sfp:m=3,exponent=gecko-delta"]


def training(values, seed=0):
    rng = np.random.default_rng(seed)
    scale = np.exp2(np.repeat(rng.integers(-6, 6, -(-values // 512)), 512)[:values])
    return (rng.standard_normal(values) * scale).astype(np.float32)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("block", [64, 4160, 16384])
def test_whole_tensors_are_measured_exactly(spec, block):
    container, x = parse_container(with_key(spec, "block", block)), training(40_001)
    for runs in ([x], [x[:640], x[640:]]):
        stored = store(container, runs, full_values=x.size, signed=None)
        assert stored.sizes == container.measure(x)
        assert stored.total_bits_se == 0.0
        assert stored.row_start.tolist() == list(range(0, 5001, block // 8))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("full_values", [1000, 16384, 50_000, 100_003])
@pytest.mark.parametrize("block", [64, 1024, 16384])
def test_sampled_tensors_are_their_rows_repeated(spec, full_values, block):
    container = parse_container(with_key(spec, "block", block))
    runs = [training(512, 1)[:256], training(512, 2)[:320]]
    stored = store(container, runs, full_values=full_values, signed=True)
    repeated = np.resize(np.concatenate(runs), -(-full_values // 8) * 8)
    whole = container.measure_blocks(repeated, signed=True)
    counts = -(-stored.blocks.values // 8)
    assert stored.blocks.values.sum() == full_values
    # Where the last row is partial, only the raw words count the true number of values.
    same = slice(None) if full_values % 8 == 0 else slice(None, -1)
    np.testing.assert_array_equal(stored.blocks.payload_bytes[same], whole.payload_bytes[same])
    np.testing.assert_array_equal(stored.blocks.padding_bits[same], whole.padding_bits[same])
    rows = list(held_rows(container, runs, full_values=full_values, signed=True))
    assert sum(len(part.payload_bits) for part in rows) == stored.row_count
    if spec in ("fp32", "bf16"):
        assert not rows
    else:
        sums = cyclic_sums(rows[0].payload_bits, stored.row_start, counts)
        fields = whole.sign_bits + whole.exponent_bits + whole.mantissa_bits
        assert sums[~whole.raw].tolist() == fields[~whole.raw].tolist()


def test_the_standard_error_covers_the_truth():
    container = parse_container("gecko-bias")
    x = training(1 << 20, 3)
    truth = container.measure(x).total_bits
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(40):
        starts = np.sort(rng.choice(x.size // 512, 32, replace=False)) * 512
        runs = [x[at : at + 512] for at in starts]
        stored = store(container, runs, full_values=x.size, signed=True)
        inside += abs(stored.sizes.total_bits - truth) <= 2 * stored.total_bits_se
    assert inside >= 35


def test_constant_widths_have_no_error_and_one_run_has_one():
    runs = [training(2048, 1), training(2048, 2)]
    assert (
        store(parse_container("sfp:m=2"), runs, full_values=10**6, signed=None).total_bits_se == 0
    )
    one = store(parse_container("gecko-bias"), runs[:1], full_values=10**6, signed=None)
    assert one.total_bits_se > 0


def test_what_is_no_float_travels_raw():
    stored = store(parse_container("gecko-bias"), [np.arange(640)], full_values=20_000, signed=None)
    assert stored.sizes.total_bits == stored.sizes.raw_bits == 20_000 * 64
    empty = store(parse_container("gecko-bias"), [np.zeros(0, bool)], full_values=0, signed=None)
    assert empty.sizes.total_bits == 0
    assert empty.sizes.ratio is None


@pytest.mark.parametrize("spec", ["js+crest", "mxfp4", "nvfp4", "zvc"])
def test_long_tensors_are_worked_through_in_whole_blocks(spec, monkeypatch):
    """Parts of about 3,000 values, and blocks of which none has a multiple of them."""
    container, x = parse_container(with_key(spec, "block", 1088)), training(10_000)
    x[::3] = 0
    whole, said = container.measure(x), quality(x, container.quantize(x))
    monkeypatch.setattr(sampled, "PART_VALUES", 3000)
    monkeypatch.setattr(quality_module, "PART_VALUES", 3000)
    assert store(container, [x], full_values=x.size, signed=None).sizes == whole
    found = stored_quality(container, [x])
    assert found.max_rel_error == said.max_rel_error
    assert found.noise_power == pytest.approx(said.noise_power)


@pytest.mark.parametrize(
    ("lengths", "full"), [([], 5), ([0], 5), ([64, 64], 100), ([60, 64], 1000)]
)
def test_runs_that_do_not_fit(lengths, full):
    runs = [np.zeros(length, np.float32) for length in lengths]
    with pytest.raises(InputError):
        store(parse_container("gecko-bias"), runs, full_values=full, signed=None)


def test_a_sign_that_is_denied_is_an_error():
    with pytest.raises(InputError, match="sign bit"):
        parse_container("gecko-bias").measure(-np.ones(3, np.float32), signed=False)


def test_quality_is_that_of_finite_values_and_merges():
    x = np.array([1.0, -2.0, 0.0, np.nan, np.inf, 4.0], np.float32)
    q = np.array([1.0, -1.0, 1.0, 1.0, 3.0, 3.0], np.float32)
    whole = quality(x, q)
    assert whole == Quality(
        max_rel_error=0.5,
        signal_power=21.0,
        noise_power=3.0,
        stored_power=12.0,
        product=15.0,
        specials_lost=2,
    )
    assert whole.cosine == pytest.approx(15 / (21 * 12) ** 0.5)
    assert quality(q, x).specials_made == 2
    assert quality(x[:1], 0 * x[:1]).zeros_made == 1
    assert whole.sqnr_db == pytest.approx(8.45098, abs=1e-5)
    assert quality(x[:2], q[:2]) + quality(x[2:], q[2:]) == whole
    assert quality(x, x).sqnr_db is None
    assert quality(x[:0], x[:0]) == Quality()
    with pytest.raises(InputError):
        quality(x, q[:2])
