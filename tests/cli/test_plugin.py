"""The container of docs/containers.md, installed as a package of its own, gets everything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "containers.md"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder for PYTHONPATH that holds the example with its entry point."""
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) < 50
    folder = tmp_path_factory.mktemp("site")
    (folder / "your_package.py").write_text(code)
    (folder / "broken.py").write_text("raise RuntimeError('no\\nway')\n")
    info = folder / "your_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: your-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[sfpsim.containers]\ne5m2 = your_package:make\nbroken = broken:make\n"
    )
    return folder


def _run(installed, *arguments):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "sfpsim", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_it_gets_size_quality_time_and_energy(installed, single):
    done = _run(installed, "compare", single, "-c", "fp32,e5m2", "--json", "-")
    assert done.stderr == ""
    fp32, e5m2 = (c["totals"] for c in json.loads(done.stdout)["containers"])
    assert e5m2["ratio"] == 4
    assert 15 < e5m2["sqnr_db"] < 40
    assert e5m2["time_ns"] < fp32["time_ns"]
    assert e5m2["energy_pj"]["dram"]["rd"] < fp32["energy_pj"]["dram"]["rd"]


def test_it_has_files(installed, single, tmp_path):
    assert _run(installed, "encode", single, "-c", "e5m2", "-o", tmp_path / "x.sfp").returncode == 0
    done = _run(installed, "decode", tmp_path / "x.sfp", "-o", tmp_path / "x.npy")
    assert done.returncode == 0
    done = _run(Path("/"), "decode", tmp_path / "x.sfp", "-o", tmp_path / "y.npy")
    assert done.returncode == 2
    assert "unknown container 'e5m2'" in done.stderr


def test_a_broken_one_is_one_line(installed, single):
    for spec in ("broken", "e5m2:x=1"):
        done = _run(installed, "replay", single, "-c", spec)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr


def test_the_list_shows_what_works(installed):
    done = _run(installed, "list", "containers")
    assert "e5m2: one byte a value [OCP" in done.stdout
    assert "broken" in done.stdout
