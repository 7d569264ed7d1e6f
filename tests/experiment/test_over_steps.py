"""Each captured step of a result, against the totals and numbers worked out by hand."""

import msgspec
import numpy as np
import pytest

from sfpsim.experiment.compare import compare
from sfpsim.experiment.result import LayerLengths, StepRole
from sfpsim.trace.reader import open_trace
from sfpsim.trace.schema import Lengths, Manifest, Op, OpRecord, TensorRecord
from sfpsim.trace.writer import TraceWriter

BITS = ("raw", "sign", "exponent", "mantissa", "metadata", "padding", "index", "total")
VALUES = 64 * 64


def record(name, role, use, step, mantissa_bits, **fields):
    return TensorRecord(
        name=f"{name}{step}", step=step, role=role, use=use, dtype="float32", shape=(64, 64),
        memory_order=(0, 1), runs=((0, VALUES),), any_sign=True, layer="fc", parameter=fields.pop(
            "parameter", ""), lengths=Lengths(mantissa_bits=mantissa_bits, exponent_bits=5),
        **fields,
    )  # fmt: skip


def write(path, steps, ops=True):
    """A layer's weight and input at some steps: (step, epoch, mantissa bits of both)."""
    random = np.random.default_rng(4)
    with TraceWriter(path, Manifest(model="m", framework="none", framework_version="0")) as writer:
        for step, epoch, weight_bits, input_bits in steps:
            op = Op(kind="linear", m=64, n=64, k=64)
            if ops:
                reads = (f"x{step}", f"w{step}")
                writer.add_ops([OpRecord(name="fc", step=step, order=2, layer="fc", op=op,
                                         reads=reads)])  # fmt: skip
            for name, role, use, bits in (
                ("w", "weight", "weight", weight_bits), ("x", "activation", "stash", input_bits),
            ):  # fmt: skip
                values = random.normal(size=VALUES).astype(np.float32)
                values[: step * 100] = 0
                writer.add(record(name, role, use, step, bits, epoch=epoch), values)
    return open_trace(path)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    trace = write(tmp_path_factory.mktemp("t") / "t", [(3, 0, 7, 4), (20, 1, 2, 3)])
    policies = ["fp32", "gecko-bias", "weight=bf16", "sfp"]
    return compare(trace, policies, machine="sfp-2024")


def test_steps_add_up_to_the_totals(found):
    for c in found.containers:
        assert [(s.step, s.epoch) for s in c.steps] == [(3, 0), (20, 1)]
        for key in ("values", "read_bytes", "write_bytes", *(f"{b}_bits" for b in BITS)):
            assert sum(getattr(s, key) for s in c.steps) == getattr(c.totals, key), key
        assert sum(s.time_ns for s in c.steps) == pytest.approx(c.totals.time_ns)
        assert sum(s.energy_pj for s in c.steps) == pytest.approx(c.totals.energy_pj.total)
        for s in c.steps:
            assert s.bandwidth_gbps == pytest.approx((s.read_bytes + s.write_bytes) / s.time_ns)


def test_a_step_alone_gives_what_it_gives_among_others(found, tmp_path):
    write(tmp_path / "t", [(3, 0, 7, 4), (20, 1, 2, 3)])
    for number, step in enumerate((3, 20)):
        alone = compare(open_trace(tmp_path / "t").at_step(step), ["gecko-bias"])
        assert alone.containers[0].steps == [found.containers[1].steps[number]]


def test_bits_of_roles_are_counted_whatever_the_policy_names(found):
    plain, _, by_role, learned = found.containers
    full = {"values": VALUES, "raw_bits": 32 * VALUES}
    for s in plain.steps:
        assert s.roles == [StepRole(role=role, total_bits=32 * VALUES, **full)
                           for role in ("activation", "weight")]  # fmt: skip
    weights = {r.role: r for r in by_role.steps[0].roles}
    assert by_role.steps[0].values == VALUES
    assert weights["weight"].total_bits < weights["activation"].total_bits
    # sign, five bits of exponent and 7, then 2 of mantissa: 13 and 8 a value, and padding
    sizes = [{r.role: r.total_bits / VALUES for r in s.roles}["weight"] for s in learned.steps]
    assert sizes == [pytest.approx(13, rel=0.03), pytest.approx(8, rel=0.03)]


def test_lengths_come_by_layer_and_step(found):
    keys = {"layer": "fc", "values": VALUES, "exponent_bits": 5.0}
    early, late = {"step": 3, "epoch": 0, **keys}, {"step": 20, "epoch": 1, **keys}
    assert found.lengths == [
        LayerLengths(role="weight", mantissa_bits=7.0, **early),
        LayerLengths(role="activation", mantissa_bits=4.0, **early),
        LayerLengths(role="weight", mantissa_bits=2.0, **late),
        LayerLengths(role="activation", mantissa_bits=3.0, **late),
    ]


def test_steps_without_an_order_of_layers_are_steps_too(tmp_path):
    trace = write(tmp_path / "t", [(0, 0, 7, 4), (1, 0, 2, 3)], ops=False)
    (c,) = compare(trace, ["fp32"]).containers
    assert [(s.step, s.read_bytes, s.write_bytes) for s in c.steps] == [
        (0, 8 * VALUES, 8 * VALUES), (1, 8 * VALUES, 8 * VALUES),
    ]  # fmt: skip


def test_results_from_before_there_were_steps_can_be_read(found):
    plain = msgspec.to_builtins(found)
    del plain["lengths"]
    for c in plain["containers"]:
        del c["steps"]
    old = msgspec.convert(plain, type(found))
    assert old.containers[0].steps == []
    assert old.lengths == []
