"""What `info` says of each captured step, against numbers worked out by hand."""

import numpy as np
import pytest

from sfpsim.trace.info import trace_info
from sfpsim.trace.lengths import by_layer, mean_lengths
from sfpsim.trace.reader import open_trace
from sfpsim.trace.schema import Lengths, Manifest, Op, OpRecord, TensorRecord
from sfpsim.trace.writer import TraceWriter

MANIFEST = Manifest(model="hand-made", framework="none", framework_version="0")


def record(name, role, values, step=0, lengths=None, **fields):
    bits = None if lengths is None else Lengths(mantissa_bits=lengths[0], exponent_bits=lengths[1])
    given = {"use": "weight" if role == "weight" else "stash", "dtype": "float32"} | fields
    return TensorRecord(
        name=f"{step}.{name}", step=step, role=role, shape=(values,), memory_order=(0,),
        runs=((0, values),), lengths=bits, **given,
    )  # fmt: skip


@pytest.fixture
def trace(tmp_path):
    """Steps 0 and 10: half of a weight's values become 0, and its lengths shorter."""
    with TraceWriter(tmp_path / "t", MANIFEST) as writer:
        for step, epoch, zeros, lengths in ((0, 0, 0, (7, 8)), (10, 2, 4, (3, 5))):
            x = np.array([1, 2, 1, 2, 1, 2, 1, 2], np.float32)
            x[:zeros] = 0
            writer.add(record("w", "weight", 8, step, lengths, epoch=epoch), x)
            writer.add(record("b", "weight", 2, step, (1, 1), use="bias", epoch=epoch), x[-2:])
            writer.add(record("v", "weight", 2, step, (9, 2), epoch=epoch), x[-2:])
            writer.add(record("g", "gradient", 4, step, (2, 2), epoch=epoch), x[-4:])
    return open_trace(tmp_path / "t")


def test_a_line_a_step(trace):
    first, last = trace_info(trace)["by_step"]
    assert (first["step"], first["epoch"], first["tensors"]) == (0, 0, 4)
    assert (last["step"], last["epoch"], last["bytes"]) == (10, 2, 4 * (8 + 2 + 2 + 4))
    assert first["zeros"] == {"weight": 0, "gradient": 0}
    assert last["zeros"] == {"weight": 4 / 12, "gradient": 0}
    # fields 127 and 128, half of the values each; then 4 of 12 zeros, 4 and 4 of the two
    assert first["exponent_entropy_bits"] == {"weight": 1, "gradient": 1}
    assert last["exponent_entropy_bits"]["weight"] == pytest.approx(np.log2(3))


def test_mean_lengths_are_over_values_and_leave_biases_and_gradients_out(trace):
    first, last = trace_info(trace)["by_step"]
    assert first["mean_lengths"] == {
        "weight": {"values": 10, "mantissa_bits": 7.4, "exponent_bits": 6.8}
    }
    assert last["mean_lengths"]["weight"]["mantissa_bits"] == (8 * 3 + 2 * 9) / 10


def test_the_steps_add_up_to_the_trace(trace):
    found = trace_info(trace)
    for key in ("tensors", "bytes"):
        assert sum(step[key] for step in found["by_step"]) == found[key]
    assert found["zeros"]["weight"] == 4 / 24


def test_a_mantissa_without_a_length_is_that_of_the_type():
    whole = record("a", "activation", 10, lengths=(None, 8))
    brain = record("b", "activation", 30, lengths=(None, 8), dtype="bfloat16")
    assert mean_lengths([whole]).mantissa_bits == 23
    assert mean_lengths([whole, brain]).mantissa_bits == (10 * 23 + 30 * 7) / 40


def test_integers_have_no_exponent_and_what_has_no_lengths_no_mean():
    found = mean_lengths([record("a", "weight", 5, lengths=(4, None)), record("b", "weight", 9)])
    assert (found.values, found.mantissa_bits, found.exponent_bits) == (5, 4, None)
    assert mean_lengths([record("b", "weight", 9)]).mantissa_bits is None


def test_layers_come_in_the_order_in_which_they_ran():
    records = [
        record("y", "activation", 4, lengths=(4, 4), layer="add"),
        record("x", "activation", 4, lengths=(2, 3), layer="conv"),
        record("z", "activation", 12, lengths=(6, 3), layer="conv"),
        record("w", "weight", 4, lengths=(5, 6), layer="conv", order=7),
    ]
    ops = [
        OpRecord(name=layer, step=0, order=order, layer=layer, op=Op(kind="conv"))
        for layer, order in (("conv", 9), ("add", 4), ("conv", 2))
    ]
    conv, weight, add = [(0, 0, *x) for x in (
        ("conv", "activation"), ("conv", "weight"), ("add", "activation"),
    )]  # fmt: skip
    assert list(by_layer(records, ops)) == [conv, weight, add]
    assert list(by_layer(records)) == [add, conv, weight]
    assert by_layer(records)[conv].mantissa_bits == (4 * 2 + 12 * 6) / 16
