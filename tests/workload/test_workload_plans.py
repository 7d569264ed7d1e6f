"""Does a step read, compute and write what training does?"""

from collections import Counter
from types import SimpleNamespace

import pytest

from sfpsim.errors import InputError
from sfpsim.trace.reader import open_trace
from sfpsim.trace.schema import Op, OpRecord, TensorRecord
from sfpsim.workload.training import plan_trace, touched

BIG = 1 << 40
ROLES = {
    "stash": "activation", "operand": "activation", "weight": "weight", "bias": "weight",
    "weight_copy": "weight", "weight_gradient": "gradient", "output_gradient": "gradient",
    "optimizer_state": "optimizer",
}  # fmt: skip


def tensor(name, use, shape, **fields):
    """Return a record of step 0."""
    given = {"role": ROLES[use], "dtype": "float32", "memory_order": tuple(range(len(shape)))}
    size = 1
    for n in shape:
        size *= n
    return TensorRecord(
        name=name, step=0, use=use, shape=shape, runs=((0, size),), **given | fields
    )


def weights(layer, shape, state):
    """Return the records of a parameter, its gradient and its optimizer state."""
    fields = {"layer": layer, "parameter": f"{layer}.weight"}
    return [
        tensor(f"{layer}.w", "weight", shape, **fields),
        tensor(f"{layer}.dw", "weight_gradient", shape, **fields),
        *(tensor(f"{layer}.s{i}", "optimizer_state", shape, **fields) for i in range(state)),
    ]


def linear(name, order, x, gradient, wanted, m, n, k):
    return OpRecord(
        name=name, step=0, order=order, layer=name, op=Op(kind="linear", m=m, n=n, k=k),
        reads=(x, f"{name}.w"), gradient=gradient, gradients=wanted,
    )  # fmt: skip


def two_layers(state=0):
    """Return fc1, relu, fc2, loss: batch 8, widths 6, 5, 4."""
    records = [
        *weights("fc1", (5, 6), state),
        *weights("fc2", (4, 5), state),
        tensor("x", "stash", (8, 6), layer="fc1"),
        tensor("h", "stash", (8, 5), layer="relu", order=3),
        tensor("logits", "stash", (8, 4), layer="", order=5),
        tensor("dy1", "output_gradient", (8, 5), order=8),
        tensor("dy2", "output_gradient", (8, 4), order=7),
    ]
    ops = [
        linear("fc1", 2, "x", "dy1", (False, True), 8, 5, 6),
        OpRecord(name="relu", step=0, order=3, layer="relu", op=Op(kind="relu"), saves=("h",)),
        linear("fc2", 4, "h", "dy2", (True, True), 8, 4, 5),
        OpRecord(name="loss", step=0, order=6, op=Op(kind="cross_entropy"), saves=("logits",)),
    ]
    return source(records, ops)


def source(records, ops, incomplete=()):
    return SimpleNamespace(
        records=records, ops=ops, ordered=True, incomplete_steps=list(incomplete)
    )


def moved(transfers):
    return Counter({t.record.name: t.times for t in transfers})


def passes(trace, buffer=BIG):
    """Return {(layer, pass): (reads, writes)} of the only step."""
    (plans,) = plan_trace(trace, lambda record: buffer)
    return {(p.layer, p.pass_): (moved(p.reads), moved(p.writes)) for p in plans}


def names(text):
    return Counter(text.split())


def test_what_each_pass_reads_and_writes():
    assert passes(two_layers()) == {
        ("fc1", "forward"): (names("x fc1.w"), names("h")),
        ("fc2", "forward"): (names("h fc2.w"), names("logits")),
        ("loss", "input_gradient"): (names("logits"), names("dy2")),
        ("fc2", "input_gradient"): (names("dy2 fc2.w h"), names("dy1")),
        ("fc2", "weight_gradient"): (names("h dy2"), names("fc2.dw")),
        ("fc1", "weight_gradient"): (names("x dy1"), names("fc1.dw")),
        ("fc1", "update"): (names("fc1.w fc1.dw"), names("fc1.w")),
        ("fc2", "update"): (names("fc2.w fc2.dw"), names("fc2.w")),
    }


def test_passes_are_in_order_and_carry_their_products():
    (plans,) = plan_trace(two_layers(), lambda record: BIG)
    assert [(p.layer, p.pass_) for p in plans] == [
        ("fc1", "forward"), ("fc2", "forward"), ("loss", "input_gradient"),
        ("fc2", "input_gradient"), ("fc2", "weight_gradient"), ("fc1", "weight_gradient"),
        ("fc1", "update"), ("fc2", "update"),
    ]  # fmt: skip
    assert [p.gemm for p in plans[:6]] == [
        (8, 5, 6, 1), (8, 4, 5, 1), (0, 0, 0, 1), (8, 5, 4, 1), (5, 4, 8, 1), (6, 5, 8, 1),
    ]  # fmt: skip
    assert [p.macs for p in plans] == [240, 160, 0, 160, 160, 240, 0, 0]


@pytest.mark.parametrize(("state", "times"), [(0, 3), (1, 5), (2, 7)])
def test_the_update_moves_the_parameters_three_five_or_seven_times(state, times):
    (plans,) = plan_trace(two_layers(state), lambda record: BIG)
    transfers = [t for p in plans if p.pass_ == "update" for t in (*p.reads, *p.writes)]
    assert sum(t.record.values for t in transfers) == times * (5 * 6 + 4 * 5)


def test_a_parameter_without_a_gradient_is_not_updated():
    trace = two_layers(state=1)
    trace.records = [r for r in trace.records if r.name != "fc1.dw"]
    assert ("fc1", "update") not in passes(trace)


@pytest.mark.parametrize("buffer", [4, 16, 40, 100, 1000])
def test_no_pass_moves_less_than_its_operands_once(buffer):
    (plans,) = plan_trace(two_layers(), lambda record: buffer)
    (least,) = plan_trace(two_layers(), lambda record: BIG)
    for plan, once in zip(plans, least, strict=True):
        assert all(t.times >= 1 for t in plan.reads)
        assert not moved(once.reads) - moved(plan.reads)
    small, large = (sum(t.record.values * t.times for p in x for t in p.reads)
                    for x in (plans, least))  # fmt: skip
    assert small >= large
    if buffer == 4:
        assert small > large


def test_a_strided_1x1_convolution_touches_a_quarter():
    op = Op(kind="conv", m=8, n=2, k=3, input_shape=(2, 3, 8, 8), kernel=(1, 1), stride=(2, 2))
    x = tensor("x", "stash", (2, 3, 8, 8))
    assert touched(op, x) == x.values // 4
    whole = Op(kind="conv", input_shape=(2, 3, 8, 8), kernel=(3, 3), stride=(2, 2))
    assert touched(whole, x) == x.values
    assert touched(op, tensor("y", "stash", (2, 3))) == 6


def test_products_of_activations_have_two_gradients_and_no_update():
    shape = (2, 3, 4)
    records = [
        tensor("q", "stash", shape, order=1), tensor("k", "stash", shape, order=1),
        tensor("ds", "output_gradient", (2, 3, 3)),
    ]  # fmt: skip
    op = OpRecord(
        name="scores", step=0, order=2, op=Op(kind="matmul", m=3, n=3, k=4, groups=2),
        reads=("q", "k"), gradient="ds", gradients=(True, True),
    )  # fmt: skip
    (plans,) = plan_trace(source(records, [op]), lambda record: BIG)
    found = [(p.layer, p.pass_, moved(p.reads)) for p in plans]
    assert found == [
        ("scores", "forward", names("q k")),
        ("loss", "input_gradient", names("")),
        ("scores", "input_gradient", names("ds k")),
        ("scores", "input_gradient", names("q ds")),
    ]
    assert [p.gemm for p in plans] == [(3, 3, 4, 2), (0, 0, 0, 1), (3, 4, 3, 2), (4, 3, 3, 2)]
    assert moved(plans[0].writes) == names("q k")
    assert moved(plans[1].writes) == names("ds")


def test_the_copy_of_a_weight_is_made_once_and_read_instead():
    trace = two_layers()
    copy = tensor("copy", "weight_copy", (5, 6), parameter="fc1.weight", order=1)
    trace.records.append(copy)
    trace.ops[0] = OpRecord(
        name="fc1", step=0, order=2, layer="fc1", op=trace.ops[0].op, reads=("x", "copy"),
        gradient="dy1", gradients=(False, True),
    )  # fmt: skip
    found = passes(trace)
    assert found["fc1", "forward"] == (names("x copy fc1.w"), names("h copy"))
    assert found["fc1", "weight_gradient"] == (names("x dy1"), names("fc1.dw"))


def test_normalisation_is_fused_and_moves_what_it_saved_and_its_parameters():
    trace = two_layers()
    fields = {"layer": "bn", "parameter": "bn.weight"}
    trace.records += [
        tensor("gamma", "weight", (5,), **fields),
        tensor("dgamma", "weight_gradient", (5,), **fields),
        tensor("pre", "stash", (8, 5), layer="bn", order=2),
    ]
    trace.ops.append(
        OpRecord(
            name="bn",
            step=0,
            order=2,
            layer="bn",
            op=Op(kind="batch_norm"),
            saves=("pre", "gamma"),
        )
    )
    found = passes(trace)
    assert found["fc1", "forward"] == (names("x fc1.w gamma"), names("pre h"))
    reads, writes = found["fc2", "input_gradient"]
    assert reads == names("dy2 fc2.w h pre gamma")
    assert writes == names("dy1 dgamma")


def test_steps_that_were_not_written_whole_are_left_out():
    trace = two_layers()
    with pytest.raises(InputError, match="no step"):
        plan_trace(source(trace.records, trace.ops, [0]), lambda record: BIG)


def test_arrays_without_an_order_are_read_and_written_once():
    records = [tensor("a", "stash", (3,)), tensor("b", "stash", (4,))]
    unordered = SimpleNamespace(records=records, ops=[], ordered=False, incomplete_steps=[])
    (plans,) = plan_trace(unordered, lambda record: BIG)
    assert [(p.layer, moved(p.reads), moved(p.writes)) for p in plans] == [
        ("a", names("a"), names("a")), ("b", names("b"), names("b")),
    ]  # fmt: skip


def test_the_plan_of_the_sample_trace_moves_everything_it_holds():
    """Every stash is written once and read in the backward pass; every gradient made and used."""
    from importlib.resources import files

    trace = open_trace(files("sfpsim") / "sample" / "resnet8")
    for plans in plan_trace(trace, lambda record: BIG):
        written = Counter(t.record.name for p in plans for t in p.writes)
        backward = [p for p in plans if "gradient" in p.pass_]
        read = {t.record.name for p in backward for t in p.reads}
        step = [r for r in trace.records if r.step == plans[0].step]
        for r in step:
            if r.use == "stash":
                assert r.name in read
                assert written[r.name] == (r.order > 0)
            elif r.use in ("output_gradient", "weight_gradient"):
                assert written[r.name] == 1
        macs = Counter()
        for p in plans:
            macs[p.pass_] += p.macs
        first = next(op.op.macs for op in trace.ops if op.step == plans[0].step)
        assert macs["weight_gradient"] == macs["forward"]
        assert macs["input_gradient"] == macs["forward"] - first
