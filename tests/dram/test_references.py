"""Every run of the reference simulators: within its bounds, and the cycles that we had before."""

from functools import cache
from pathlib import Path

import pytest

from sfpsim.errors import InputError
from sfpsim.hardware.dram.patterns import traces
from sfpsim.testing.validate_dram import (
    bound,
    errors,
    main,
    reference_device,
    reference_rows,
    run,
)  # fmt: skip

FOLDER = Path(__file__).parents[1] / "fixture" / "dram"
ROWS = reference_rows(FOLDER)


def label(row):
    return f"{row['simulator']}-{row['config']}-{row['trace']}"


@cache
def patterns(access):
    return traces(access)


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_a_reference_run_is_repeated(row):
    result = run(FOLDER, row, patterns(int(row["access_bytes"]))[row["trace"]])
    found = errors(result, row)
    assert {"cycles"} <= set(found)
    for quantity, error in found.items():
        allowed = bound(row, quantity)
        assert allowed is None or abs(error) <= allowed, (quantity, error)
    assert result.cycles == int(row["sfpsim_cycles"])


def test_what_is_bounded():
    """Energy by component, activates, latency and cycles of DRAMsim3, cycles of the others."""
    by_simulator = {}
    for row in ROWS:
        quantities = [q for q in ("cycles", "latency", "act", "e_total", "e_act") if bound(row, q)]
        by_simulator.setdefault(row["simulator"], set()).add(tuple(quantities))
    assert by_simulator == {
        "DRAMsim3": {("cycles", "latency", "act", "e_total", "e_act")},
        "Ramulator2.1": {("cycles",)},
        "DRAMSys5.1": {("cycles",)},
    }
    assert len(ROWS) == 148


def test_the_command_says_what_is_beyond_its_bound(tmp_path, capsys):
    """A reference that took a tenth longer is not met; the exit status says so."""
    row = next(r for r in ROWS if label(r) == "DRAMsim3-ddr4_3200_1r-bursty")
    (tmp_path / "devices").mkdir()
    device = (FOLDER / "devices" / "ddr4_3200_1r.ini").read_text()
    (tmp_path / "devices" / "ddr4_3200_1r.ini").write_text(device)
    for cycles, status in ((int(row["cycles"]), 0), (int(row["cycles"]) * 11 // 10, 1)):
        changed = {**row, "cycles": str(cycles)}
        text = ",".join(changed) + "\n" + ",".join(changed.values()) + "\n"
        (tmp_path / "results.csv").write_text(text)
        assert main([str(tmp_path)]) == status
        assert f"validate: 1 runs, {status} errors beyond their bounds" in capsys.readouterr().out


def test_a_folder_without_runs_is_said(tmp_path):
    with pytest.raises(InputError, match=r"no results\*\.csv with reference runs"):
        main([str(tmp_path)])


def test_runs_of_a_preset_need_no_file(tmp_path):
    row = next(r for r in ROWS if r["config"] == "lpddr5_6400_x16")
    assert reference_device(tmp_path, row).mapping == "ro ba co bg"
