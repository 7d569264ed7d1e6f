"""The DRAM traffic of a replay, run as a trace, is the replay's own."""

from importlib import resources

import pytest

from hardware.machines import machine
from sfpsim.experiment.compare import replay
from sfpsim.hardware import channel as channel_module
from sfpsim.testing.validate_export import CONTAINERS, MOST_ENERGY, MOST_TIME, exported, main
from sfpsim.trace.reader import open_trace

MACHINES = {
    "block": machine(),
    "stripe": machine(memory={"placement": "stripe", "stripe_bytes": 256}),
}
SAMPLE = resources.files("sfpsim") / "sample" / "resnet8"


def part_of_sample(steps):
    """Two layers of the first steps of the sample trace."""
    found = open_trace(SAMPLE)
    steps = found.steps[:steps]
    found.records = [r for r in found.records if r.step in steps and r.layer in ("stem", "fc")]
    found.ops = [op for op in found.ops if op.step in steps and op.layer in ("stem", "fc")]
    return found


@pytest.mark.parametrize("spec", CONTAINERS)
@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("steps", [1, 2])
def test_exported_traffic_run_as_a_trace_gives_the_replays_time_and_energy(
    tmp_path, name, spec, steps
):
    """To the command where one step starts in idle memory; the next one's rows differ."""
    on = MACHINES[name]
    found = exported(part_of_sample(steps), spec, on, tmp_path)
    totals = found.replayed.containers[0].totals
    energy, time_ns = totals.energy_pj.dram, max(a.time_ns for a in found.alone)
    if steps == 1:
        data = (on.device.cwl + on.device.burst_cycles) * on.device.tck_ps / 1000
        assert time_ns + data == pytest.approx(totals.time_ns)  # a write's data end the step
        for part in ("act", "rd", "wr", "interface"):
            alone = sum(getattr(a.energy_pj, part) for a in found.alone)
            assert alone == pytest.approx(getattr(energy, part))
    assert abs(found.time_error) < MOST_TIME
    assert abs(found.energy_error) < MOST_ENERGY
    moved = 32 * sum(a.counts.rd + a.counts.wr + a.counts.forwarded for a in found.alone)
    assert moved == totals.read_bytes + totals.write_bytes


@pytest.mark.parametrize("detail", ["bandwidth", "detailed"])
@pytest.mark.parametrize("name", MACHINES)
def test_exporting_changes_no_result(tmp_path, monkeypatch, name, detail):
    monkeypatch.setattr(channel_module, "TAKEN_BURSTS", 37)
    on, trace = MACHINES[name], part_of_sample(2)
    found = exported(trace, "gecko-bias", on, tmp_path, detail=detail)
    assert found.replayed == replay(trace, "gecko-bias", machine=on, detail=detail)


def test_the_command_refuses_what_is_no_trace(capsys, tmp_path):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
