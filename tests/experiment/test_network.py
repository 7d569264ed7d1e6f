"""Published networks: their tables against the reference, and their step as a trace."""

import csv
from collections import defaultdict
from importlib import resources
from pathlib import Path

import pytest

from sfpsim.containers.policy import parse_policy
from sfpsim.errors import InputError
from sfpsim.experiment.network import NetworkTrace, simulate_network, spread_lengths
from sfpsim.trace.reader import open_trace
from sfpsim.workload.networks import load_network, networks
from sfpsim.workload.training import plan_trace

FIXTURE = Path(__file__).parents[1] / "fixture" / "workload" / "networks.csv"
BUFFER = 8 << 19  # 8 MB of BF16
PUBLISHED = {  # G MAC a sample, M parameters
    "alexnet": (0.7142, 61.101), "resnet18": (1.8141, 11.690), "resnet50": (4.0892, 25.557),
    "mobilenet_v2": (0.3008, 3.505), "mobilenet_v3_small": (0.0565, 2.543),
    "vit_b_16": (17.564, 86.568), "bert_base_seq128": (11.174, 109.482),
    "bert_base_seq512": (48.319, 109.482), "gpt2_small_seq1024": (145.82, 124.440),
    "dlrm_mlperf": (0.0025, 2.369),
}  # fmt: skip


def reference():
    found = defaultdict(list)
    for row in csv.DictReader(FIXTURE.open()):
        found[row["network"], int(row["batch"])].append(row)
    return found


ROWS = reference()


@pytest.fixture(scope="module")
def profile():
    return open_trace(resources.files("sfpsim") / "sample" / "resnet8")


def test_every_network_of_the_reference_is_there():
    assert {name for name, _ in ROWS} == set(PUBLISHED) == {name for name, _, _ in networks()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_macs_and_parameters_are_the_published_ones(name):
    network, (macs, parameters) = load_network(name), PUBLISHED[name]
    assert network.macs / 1e9 == pytest.approx(macs, rel=1e-3, abs=5e-5)
    assert network.parameters / 1e6 == pytest.approx(parameters, rel=1e-4)
    products = sum(op.op(1).macs for op in network.products)
    assert products == network.macs


@pytest.mark.parametrize("key", list(ROWS), ids=lambda k: k[0])
def test_operand_traffic_is_the_references_product_by_product(key):
    name, batch = key
    mine = load_network(name).operands(batch)
    assert [(o.layer, o.pass_) for o in mine] == [(r["layer"], r["pass"]) for r in ROWS[key]]
    for operands, row in zip(mine, ROWS[key], strict=True):
        assert 2 * operands.compulsory == int(row["compulsory_bytes"])
        moved = 2 * operands.moved(BUFFER)
        assert 2 * operands.compulsory <= moved <= int(row["modelled_bytes"])


def test_the_step_has_the_tables_sizes_and_the_profiles_values(profile):
    network = load_network("resnet18")
    trace = NetworkTrace(network, 4, profile)
    by_name = {r.name: r for r in trace.records}
    assert by_name["layer2.0.conv1.input"].values == 4 * 64 * 56 * 56
    assert by_name["fc.weight"].values == 513_000
    assert "layer2.0.downsample.0.input" not in by_name  # it shares conv1's
    for record in trace.records:
        runs = trace.runs(record)
        assert sum(run.size for run in runs) == record.sampled_values <= record.values
        source = trace.sources[record.name]
        assert (source.role, source.dtype) == (record.role, record.dtype)
    assert sum(op.op.macs for op in trace.ops) == 4 * network.macs


def test_every_product_has_its_passes(profile):
    trace = NetworkTrace(load_network("bert_base_seq128"), 1, profile)
    plans = plan_trace(trace, lambda _: 8 << 20)[0]
    count = defaultdict(int)
    for plan in plans:
        count[plan.pass_] += bool(plan.macs)
    products = trace.network.products
    attention = sum(p.kind == "attn_matmul" for p in products)
    assert count["forward"] == len(products)
    assert count["weight_gradient"] == len(products) - attention
    assert count["input_gradient"] == len(products) - 1 + attention
    macs = sum(plan.macs for plan in plans)
    first = products[0].op(1).macs
    assert macs == 3 * trace.network.macs - first


def test_a_small_network_is_simulated(profile):
    result, comparison = simulate_network(
        "dlrm_mlperf", ["fp32", "bf16", parse_policy("all=bf16")], batch=32, profile=profile
    )
    assert [c.container for c in result.containers] == ["fp32", "bf16", "all=bf16"]
    plain, half, all_half = result.containers
    assert plain.traffic_bytes >= plain.operand_bytes >= plain.compulsory_bytes
    assert plain.traffic_bytes > half.traffic_bytes > all_half.traffic_bytes
    assert plain.time_ns > all_half.time_ns
    assert result.parameters == load_network("dlrm_mlperf").parameters
    assert comparison.containers[0].layers[0].macs == 32 * 13 * 512


@pytest.mark.parametrize("mean", [0.0, 1.93, 2.5, 22.99, 23.0])
def test_lengths_lie_next_to_their_mean_and_meet_it(mean):
    values = [10_000, 7, 350_000, 350_000, 1_200, 64_000]
    lengths = spread_lengths(values, mean, 0, 23, "mantissa")
    assert {abs(n - mean) < 1 for n in lengths} == {True}
    met = sum(n * v for n, v in zip(lengths, values, strict=True)) / sum(values)
    assert met == pytest.approx(mean, abs=0.5 * max(values) / sum(values))


def test_published_lengths_are_what_a_bare_sfp_takes(profile):
    trace = NetworkTrace(load_network("resnet50"), 8, profile, (1.63, 3.51))
    learned = [r for r in trace.records if r.role in ("weight", "activation")]
    for field, mean in (("mantissa_bits", 1.63), ("exponent_bits", 3.51)):
        bits = sum(getattr(r.lengths, field) * r.values for r in learned)
        assert bits / sum(r.values for r in learned) == pytest.approx(mean, abs=0.001)
    result, found = simulate_network(
        "dlrm_mlperf", ["sfp"], batch=32, profile=profile, lengths=(2.0, 4.0)
    )
    assert "2 mantissa and 4 exponent bits" in result.notes[1]
    assert result.notes[1].endswith("2.000 and 4.000 are met")
    totals = found.containers[0].totals
    assert totals.mantissa_bits == pytest.approx(2 * totals.values, rel=1e-5)
    assert totals.exponent_bits == pytest.approx(4 * totals.values, rel=1e-5)


def test_inference_moves_weights_once_and_what_does_not_fit_on_chip(profile):
    """ResNet18, one image: everything between the image and the scores stays in 16 MB."""
    result, found = simulate_network("resnet18", ["fp32"], batch=1, profile=profile,
                                     mode="inference")  # fmt: skip
    one = result.containers[0]
    assert {layer.pass_ for layer in one.layers} == {"forward"}
    assert sum(layer.macs for layer in one.layers) == load_network("resnet18").macs
    image, scores, weights = 3 * 224 * 224, 1000, 11_689_512 - 2 * 4800
    assert one.compulsory_bytes > one.traffic_bytes
    assert one.traffic_bytes == pytest.approx(4 * (image + scores + weights), rel=0.002)
    assert "20 products stay on chip" in result.notes[1]  # all of 21 but the first
    assert {t.role for t in found.containers[0].traffic} == {"weight", "activation"}


def test_an_input_stays_on_chip_where_it_fits_beside_its_neighbours(profile):
    """400,000 values hold no pair of layer1's maps of 64 x 56 x 56, but the smaller ones."""
    trace = NetworkTrace(
        load_network("resnet18"), 1, profile, mode="inference", onchip_values=400_000
    )
    stored = [r.name for r in trace.records if r.role == "activation"]
    assert stored == [
        "conv1.input", "layer1.0.conv1.input", "layer1.0.conv2.input", "layer1.1.conv1.input",
        "layer1.1.conv2.input", "layer2.0.conv1.input", "fc.output",
    ]  # fmt: skip
    assert not [r for r in trace.records if r.role in ("gradient", "optimizer")]


@pytest.mark.parametrize("mean", [3.76, 4.0, 1.0, 16.0])
def test_integer_bits_meet_their_mean_over_layers(profile, mean):
    trace = NetworkTrace(load_network("resnet18"), 1, profile, (mean,), "inference", 1 << 22)
    bits = {}
    for record in (*trace.records, *trace.onchip.values()):
        bits.setdefault(record.layer, set()).add(record.lengths.mantissa_bits)
    assert len(bits) == len(trace.network.products)
    assert all(len(found) == 1 for found in bits.values())  # a layer's weight and input alike
    means = [found.pop() for found in bits.values()]
    assert sum(means) / len(means) == pytest.approx(mean, abs=0.5 / len(means))


def test_time_goes_with_the_bits_of_what_is_stored_and_of_what_stays_on_chip(profile):
    def layers(containers, lengths=None):
        found, _ = simulate_network(
            "resnet18", [containers], batch=1, profile=profile, machine="loom-like",
            mode="inference", lengths=lengths,
        )  # fmt: skip
        return {x.name: x.limits_ns.compute for x in found.containers[0].layers}

    wide, narrow = layers("int:n=16"), layers("weight=int:n=8;activation=int4")
    mixed, learned = layers("weight=int:n=8;activation=int:n=16"), layers("int", (4.0,))
    for name in wide:
        if name != "fc":
            assert narrow[name] * 8 == wide[name]
            assert mixed[name] * 2 == wide[name]
            assert learned[name] * 16 == wide[name]
    assert learned["fc"] * 4 == wide["fc"]


def test_integers_save_arithmetic_energy_with_both_widths(profile):
    def pj(container):
        found, _ = simulate_network(
            "dlrm_mlperf", [container], batch=64, profile=profile, machine="bit-fusion-like",
            mode="inference",
        )  # fmt: skip
        return found.containers[0].energy_pj.compute

    node = 45  # pJ: an add of 32 bits, a multiply of 8 by 8
    assert pj("int8") == pytest.approx(64 * 2_474_752 * (0.1 + 0.2), rel=0.05), node
    assert (pj("int8") - pj("int4")) / pj("int8") == pytest.approx(0.2 * 0.75 / 0.3, rel=1e-6)


def test_bare_integers_without_bits_are_an_error(profile):
    with pytest.raises(InputError, match="no bits are in force"):
        simulate_network("alexnet", ["int"], batch=1, profile=profile, machine="loom-like")


@pytest.mark.parametrize("lengths", [(-1, 4), (24, 4), (2, 0.5), (2, 9)])
def test_lengths_out_of_range_are_errors(profile, lengths):
    with pytest.raises(InputError, match="bits: must be"):
        NetworkTrace(load_network("alexnet"), 1, profile, lengths)


def test_a_profile_without_a_training_step_is_refused(tmp_path):
    import numpy as np

    np.save(tmp_path / "x.npy", np.ones(100, np.float32))
    with pytest.raises(InputError, match="capture a training step"):
        NetworkTrace(load_network("alexnet"), 1, open_trace(tmp_path / "x.npy"))
