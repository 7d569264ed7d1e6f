"""Sweeps: every point once, killed and resumed, failing points, local workers and a cluster."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sfpsim.errors import InputError
from sfpsim.experiment.sweep import changed_machine, load_sweep, pareto, results_table, run_sweep

SMALL = """
network: dlrm_mlperf
batch: [1, 2, 4, 8]
container: ["bf16", "all=sfp:m={m},e=4"]
m: [1, 3]
machine.codec.decompressors: [1, 2]
"""


def grid(tmp_path, text=SMALL):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    points = load_sweep(grid(folder))
    return run_sweep(points, folder / "out")


def test_every_combination_is_one_point(tmp_path):
    points = load_sweep(grid(tmp_path))
    assert len(points) == 4 * 2 * (1 + 2)  # bf16 does not depend on m
    assert len({p.hash for p in points}) == len(points)
    assert {p.container for p in points} == {"bf16", "all=sfp:m=1,e=4", "all=sfp:m=3,e=4"}


def test_results_table_and_pareto(whole):
    lines = results_table(whole).decode().splitlines()
    assert len(lines) == 1 + len(whole)
    best = pareto(whole)
    assert best
    times, energies = [r.time_ns for r in best], [r.energy_pj for r in best]
    assert times == sorted(times)
    assert energies == sorted(energies, reverse=True)
    for r in whole:
        assert any(b.time_ns <= r.time_ns and b.energy_pj <= r.energy_pj for b in best)


def test_two_workers_give_the_same_results(whole, tmp_path):
    points = load_sweep(grid(tmp_path))
    assert run_sweep(points, tmp_path / "out", workers=2) == whole


def test_killed_twice_and_resumed_it_is_the_same_sweep(whole, tmp_path):
    path, out = grid(tmp_path), tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "sfpsim",
        "sweep",
        str(path),
        "--out",
        str(out),
        "--workers",
        "1",
    ]
    for wanted in (2, 6):
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            if len(list(out.glob("points/*.json"))) >= wanted or run.poll() is not None:
                break
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
        run.wait()
    there = {p: p.stat().st_mtime_ns for p in out.glob("points/*.json")}
    assert run_sweep(load_sweep(path), out) == whole
    assert all(p.stat().st_mtime_ns == before for p, before in there.items())
    assert len(list(out.glob("points/*.json"))) == len(whole)


def test_a_failing_point_does_not_stop_the_rest(tmp_path):
    text = "network: [dlrm_mlperf, nowhere]\nbatch: 1\ncontainer: [bf16]\n"
    results = run_sweep(load_sweep(grid(tmp_path, text)), tmp_path / "out")
    assert [r.error is None for r in results] == [True, False]
    assert "nowhere" in results[1].error


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("network: resnet18\ncontainer: bf16\nbatchs: 3", "batchs"),
        ("network: resnet18\ncontainer: bf16\ntrace: x", "either"),
        ("container: bf16", "either"),
        ("network: resnet18", "container"),
        ("network: resnet18\ncontainer: 'sfp:m={m}'", "does not have"),
        ("network: resnet18\ncontainer: bf16\nbatch: []", "empty"),
        ("network: resnet18\ncontainer: bf16\nbatch: many", "int"),
        ("[1]", "mapping"),
        ("a: [", "no sweep"),
    ],
)
def test_sweep_files_that_cannot_be(tmp_path, text, match):
    with pytest.raises(InputError, match=match):
        load_sweep(grid(tmp_path, text))


def test_machine_numbers_are_changed_by_path():
    assert changed_machine("sfp-2024", {"codec.compressors": 7}).codec.compressors == 7
    for path in ("codec.units", "codecs.compressors", "name.x"):
        with pytest.raises(InputError, match="no such number"):
            changed_machine("sfp-2024", {path: 1})


def test_a_cluster_of_separate_processes_gives_the_same(whole, tmp_path):
    pytest.importorskip("distributed")
    address = tmp_path / "scheduler.json"
    parts = [
        ["scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(address),
         "--dashboard-address", "127.0.0.1:0"],
        ["worker", "--scheduler-file", str(address), "--host", "127.0.0.1", "--nthreads", "1",
         "--dashboard-address", "127.0.0.1:0", "--local-directory", str(tmp_path)],
    ]  # fmt: skip
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + kind, *rest], env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for kind, *rest in parts
    ]  # fmt: skip
    try:
        for _ in range(300):
            if address.exists() and address.stat().st_size:
                break
            time.sleep(0.1)
        import json

        where = json.loads(address.read_text())["address"]
        points = load_sweep(grid(tmp_path))
        assert run_sweep(points, tmp_path / "out", scheduler=where) == whole
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(20)


def test_a_scheduler_that_is_not_there_is_one_clear_error(tmp_path):
    pytest.importorskip("distributed")
    text = "network: dlrm_mlperf\ncontainer: bf16\n"
    with pytest.raises(InputError, match="cannot be reached"):
        run_sweep(load_sweep(grid(tmp_path, text)), tmp_path / "out", scheduler="tcp://127.0.0.1:1")
