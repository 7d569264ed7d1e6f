"""The DRAM traffic of a replay, run as a trace, is the replay's own."""

from importlib import resources

import msgspec
import pytest

from hardware.machines import machine
from sfpsim.experiment.compare import replay
from sfpsim.hardware import channel as channel_module
from sfpsim.hardware.dram.simulate import simulate
from sfpsim.interop.address_trace import read_trace
from sfpsim.interop.traffic import TrafficExport
from sfpsim.trace.reader import open_trace

MACHINES = {
    "block": machine(),
    "stripe": machine(memory={"placement": "stripe", "stripe_bytes": 256}),
}


def part_of_sample(steps):
    """Two layers of the first steps of the sample trace."""
    found = open_trace(resources.files("sfpsim") / "sample" / "resnet8")
    steps = found.steps[:steps]
    found.records = [r for r in found.records if r.step in steps and r.layer in ("stem", "fc")]
    found.ops = [op for op in found.ops if op.step in steps and op.layer in ("stem", "fc")]
    return found


def exported(trace, spec, on, detail, folder, form="dramsim3"):
    with TrafficExport(folder / "t", form, on.memory.channels) as export:
        result = replay(trace, spec, machine=on, detail=detail, taker=export)
    alone = [simulate(read_trace(path, form), on.device) for path in export.paths]
    return result, alone


@pytest.mark.parametrize("spec", ["bf16", "gecko-bias", "sfp:m=2,e=4"])
@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("steps", [1, 2])
def test_exported_traffic_run_as_a_trace_gives_the_replays_time_and_energy(
    tmp_path, name, spec, steps
):
    """To the command where one step starts in idle memory; the next one's rows differ."""
    on = MACHINES[name]
    result, alone = exported(part_of_sample(steps), spec, on, "detailed", tmp_path)
    totals = result.containers[0].totals
    energy, time_ns = totals.energy_pj.dram, max(a.time_ns for a in alone)
    parts = {
        part: sum(getattr(a.energy_pj, part) for a in alone)
        for part in ("act", "rd", "wr", "interface")
    }
    if steps == 1:
        data = (on.device.cwl + on.device.burst_cycles) * on.device.tck_ps / 1000
        assert time_ns + data == pytest.approx(totals.time_ns)  # a write's data end the step
        assert parts == {part: pytest.approx(getattr(energy, part)) for part in parts}
    assert time_ns == pytest.approx(totals.time_ns, rel=0.01)
    total = sum(a.energy_pj.total for a in alone)
    assert total == pytest.approx(sum(msgspec.structs.astuple(energy)), rel=0.02)
    moved = 32 * sum(a.counts.rd + a.counts.wr + a.counts.forwarded for a in alone)
    assert moved == totals.read_bytes + totals.write_bytes


@pytest.mark.parametrize("detail", ["bandwidth", "detailed"])
@pytest.mark.parametrize("name", MACHINES)
def test_exporting_changes_no_result(tmp_path, monkeypatch, name, detail):
    monkeypatch.setattr(channel_module, "TAKEN_BURSTS", 37)
    on, trace = MACHINES[name], part_of_sample(2)
    result, _ = exported(trace, "gecko-bias", on, detail, tmp_path)
    assert result == replay(trace, "gecko-bias", machine=on, detail=detail)
