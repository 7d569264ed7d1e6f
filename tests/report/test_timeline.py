"""The timeline: its totals are the result's, lanes do not overlap, and the file is as it says."""

import gzip
import itertools
import json
from collections import defaultdict
from importlib import resources

import pytest

from sfpsim.experiment.compare import compare
from sfpsim.report.timeline import timeline_events, write_timeline
from sfpsim.trace.reader import open_trace


@pytest.fixture(scope="module")
def replayed():
    trace = open_trace(resources.files("sfpsim") / "sample" / "resnet8")
    steps = {}
    found = compare(trace, ["bf16", "sfp:m=1,e=4"], timeline=steps)
    return found, {c.container: steps[c.container] for c in found.containers}


def test_totals_are_those_of_the_result(replayed):
    found, steps = replayed
    events = timeline_events(steps)
    for process, result in enumerate(found.containers, 1):
        mine = [e for e in events if e["pid"] == process and e["ph"] == "X"]
        moved = sum(e["args"]["bytes"] for e in mine)
        assert moved == result.totals.read_bytes + result.totals.write_bytes
        end = max(e["ts"] + e["dur"] for e in mine)
        assert end <= result.totals.time_ns / 1000 + 1e-6
        compute = sum(e["dur"] for e in mine if e["cat"] == "compute")
        expected = sum(layer.limits_ns.compute for layer in result.layers) / 1000
        assert compute == pytest.approx(expected)


def test_slices_of_a_track_do_not_overlap_and_every_track_has_a_name(replayed):
    events = timeline_events(replayed[1])
    tracks = defaultdict(list)
    for e in events:
        if e["ph"] == "X":
            tracks[e["pid"], e["tid"]].append((e["ts"], e["ts"] + e["dur"]))
    for slices in tracks.values():
        ordered = sorted(slices)
        assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(ordered))
    named = {(e["pid"], e["tid"]) for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    assert named == set(tracks)


def test_counters_stay_below_the_peak(replayed):
    found, steps = replayed
    rates = [
        e["args"]["GB/s"] for e in timeline_events(steps) if e["name"] == "bandwidth, GB/s"
    ]  # fmt: skip
    assert rates
    assert all(rate >= 0 for rate in rates)
    assert sorted(rates)[len(rates) // 2] <= found.machine.peak_bandwidth_gbps


def test_the_file_is_json_gzipped_by_name(replayed, tmp_path):
    for name in ("t.json", "t.json.gz"):
        write_timeline(replayed[1], tmp_path / name)
    plain = (tmp_path / "t.json").read_bytes()
    assert gzip.decompress((tmp_path / "t.json.gz").read_bytes()) == plain
    assert json.loads(plain)["traceEvents"]


REQUIRED = {  # Trace Event Format, Google, 2016: what an event of each phase must have
    "X": {"name", "cat", "pid", "tid", "ts", "dur"},
    "C": {"name", "pid", "ts", "args"},
    "M": {"name", "pid", "args"},
}


def test_every_event_has_what_the_format_asks_for(replayed, tmp_path):
    """Perfetto's own trace processor comes as a binary from the net, so the format is checked."""
    write_timeline(replayed[1], tmp_path / "t.json")
    body = json.loads((tmp_path / "t.json").read_text())
    assert set(body) == {"traceEvents", "displayTimeUnit"}
    assert body["displayTimeUnit"] in ("ms", "ns")
    for e in body["traceEvents"]:
        assert set(e) >= REQUIRED[e["ph"]]
        assert isinstance(e["pid"], int)
        if e["ph"] != "M":
            assert e["ts"] >= 0
            assert isinstance(e["ts"], int | float)
        if e["ph"] == "X":
            assert e["dur"] >= 0
        if e["ph"] == "C":
            assert all(isinstance(v, int | float) for v in e["args"].values())
        if e["ph"] == "M":
            assert e["name"] in ("process_name", "thread_name", "thread_sort_index")
    named = {e["pid"] for e in body["traceEvents"] if e["name"] == "process_name"}
    assert named == {e["pid"] for e in body["traceEvents"]}


def test_the_compression_ratio_is_that_of_what_a_pass_moves(replayed):
    found, steps = replayed
    events = [e for e in timeline_events(steps) if e["name"] == "compression ratio"]
    for process, result in enumerate(found.containers, 1):
        mine = [e["args"]["raw / stored"] for e in events if e["pid"] == process]
        passes = sum(len(step.plans) for step in steps[result.container])
        assert len(mine) == passes
        assert min(mine) > 0.9  # the padding of a tensor of 40 bytes to 64-byte lines counts
        assert 1.5 < max(mine) <= 32 / 5


def test_a_networks_step_has_a_timeline_too(tmp_path):
    from sfpsim.experiment.network import simulate_network

    trace = open_trace(resources.files("sfpsim") / "sample" / "resnet8")
    steps = {}
    result, _ = simulate_network(
        "dlrm_mlperf", ["bf16"], batch=8, profile=trace, timeline=steps, against=["fp32"]
    )  # fmt: skip
    events = timeline_events({"bf16": steps["bf16"]})
    moved = sum(e["args"]["bytes"] for e in events if e["ph"] == "X")
    assert moved == result.containers[0].traffic_bytes
