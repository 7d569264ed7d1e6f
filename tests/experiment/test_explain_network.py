"""Why two steps of networks differ: waterfalls that add up, from their JSON files."""

from importlib import resources

import pytest

from sfpsim.errors import InputError
from sfpsim.experiment.compare import replay
from sfpsim.experiment.explain import explain, load_any
from sfpsim.experiment.network import simulate_network, to_json
from sfpsim.report.write import to_json as comparison_json
from sfpsim.trace.reader import open_trace
from sfpsim.workload.layers import StepOptions


@pytest.fixture(scope="module")
def profile():
    return open_trace(resources.files("sfpsim") / "sample" / "resnet8")


def test_two_steps_are_told_apart_by_what_differs(profile, tmp_path):
    files = []
    for optimizer, container in (("sgd", "bf16"), ("adam", "all=bf16")):
        step, _ = simulate_network(
            "dlrm_mlperf", [container], batch=16, profile=profile,
            options=StepOptions(optimizer=optimizer),
        )  # fmt: skip
        files.append(tmp_path / f"{optimizer}.json")
        files[-1].write_bytes(to_json(step))
    a, b = map(load_any, files)
    found = explain(a, b)
    assert found.differs == ["container", "trace"]
    assert "with sgd" in found.a.trace
    assert "with adam" in found.b.trace
    assert {w.quantity for w in found.waterfalls} == {"traffic", "time", "energy"}
    for w in found.waterfalls:
        assert w.a + sum(c.change for c in w.changes) == w.b
    traffic = next(w for w in found.waterfalls if w.quantity == "traffic")
    assert traffic.a == a.containers[0].traffic_bytes
    assert traffic.b == b.containers[0].traffic_bytes
    time = next(w for w in found.waterfalls if (w.quantity, w.by) == ("time", "layer"))
    assert time.b == round(b.containers[0].time_ns * 1000)


def test_a_network_and_a_replay_share_what_both_have(profile, tmp_path):
    step, _ = simulate_network("dlrm_mlperf", ["bf16"], batch=4, profile=profile)
    one, two = tmp_path / "a.json", tmp_path / "b.json"
    one.write_bytes(to_json(step))
    profile.records = [r for r in profile.records if r.step == profile.steps[0]]
    two.write_bytes(comparison_json(replay(profile, "bf16")))
    found = explain(load_any(one), load_any(two))
    assert "traffic" in {w.quantity for w in found.waterfalls}
    two.write_bytes(to_json(step).replace(b'"batch"', b'"batches"'))
    with pytest.raises(InputError, match="no result that sfpsim"):
        load_any(two)
