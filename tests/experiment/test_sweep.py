"""Sweeps: every point once, killed and resumed, failing points, local workers and a cluster."""

import os
import signal
import subprocess
import sys
import time
from importlib import resources

import pytest

from sfpsim.errors import InputError
from sfpsim.experiment.network import simulate_network
from sfpsim.experiment.sweep import (
    changed_machine,
    load_sweep,
    pareto,
    results_frame,
    results_table,
    run_point,
    run_sweep,
)
from sfpsim.trace.reader import open_trace

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
def profile():
    return open_trace(resources.files("sfpsim") / "sample" / "resnet8")


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
    there = {p: p.stat().st_mtime_ns for p in out.glob("points/[!.]*.json")}
    assert run_sweep(load_sweep(path), out) == whole
    assert all(p.stat().st_mtime_ns == before for p, before in there.items())
    assert len(list(out.glob("points/[!.]*.json"))) == len(whole)


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
        ("network: resnet18\ncontainer: bf16\nblock_values: 64.5", "int"),
        ("[1]", "mapping"),
        ("a: [", "no sweep"),
        ("network: resnet18\ncontainer: bf16\nmachine.codec.units: 3", "codec.units: .*no such"),
        ("network: resnet18\ncontainer: bf16\nmachine.memory.device: 3", "no such number"),
        ("trace: x\ncontainer: bf16\noptimizer: adam", "'optimizer' goes with network"),
    ],
)
def test_sweep_files_that_cannot_be(tmp_path, text, match):
    with pytest.raises(InputError, match=match):
        load_sweep(grid(tmp_path, text))


def test_machine_numbers_are_changed_by_path():
    assert changed_machine("sfp-2024", {"codec.compressors": 7}).codec.compressors == 7
    for path in ("codec.units", "codecs.compressors", "name.x", "memory.device"):
        with pytest.raises(InputError, match="no such number"):
            changed_machine("sfp-2024", {path: 1})


def test_short_keys_change_what_they_stand_for():
    chip = changed_machine("sfp-2024", {"bandwidth_gbps": 102.4, "codec_units": 2,
                                        "fifo_bytes": 1024})  # fmt: skip
    assert (chip.memory.channels, chip.peak_gbps) == (16, pytest.approx(102.4))
    assert (chip.codec.compressors, chip.codec.decompressors, chip.codec.fifo_bytes) == (2, 2, 1024)
    for changes, match in (
        ({"bandwidth_gbps": 50}, "6.4 GB/s each: give a multiple"),
        ({"codec_units": 1.5}, "a whole number"),
        ({"codec_units": 0}, "must be positive"),
        ({"buffer.tile_bytes": 1 << 25}, "do not hold one"),
    ):
        with pytest.raises(InputError, match=match):
            changed_machine("sfp-2024", changes)


BLOCKS = """
network: dlrm_mlperf
container: ["bf16", "weight=gecko-delta;activation=js+sfp:m={m},e=4", "sfp", int]
m: 3
lengths: [[2, 4]]
block_values: [1024, 16384]
"""


def test_blocks_are_those_that_are_spelled_by_hand(tmp_path, profile):
    results = run_sweep(load_sweep(grid(tmp_path, BLOCKS)), tmp_path / "out")
    spelled = {
        "bf16": "bf16:block=1024",
        "weight=gecko-delta;activation=js+sfp:m=3,e=4":
            "weight=gecko-delta:block=1024;activation=js+sfp:m=3,e=4,block=1024",
        "sfp": "sfp:block=1024",
        "int": "int:block=1024",
    }  # fmt: skip
    assert len(results) == 2 * len(spelled)
    for found in results:
        text = found.point.container
        policy = spelled[text] if found.point.block_values == 1024 else text
        _, by_hand = simulate_network(
            "dlrm_mlperf", [policy], batch=1, profile=profile, lengths=(2.0, 4.0)
        )
        totals = by_hand.containers[0].totals
        assert (found.time_ns, found.total_bits, found.energy_pj) == (
            totals.time_ns, totals.total_bits, totals.energy_pj.total
        )  # fmt: skip
    line = results_table(results).decode().splitlines()[0]
    assert "container" in line
    assert "block_values" in line


def test_blocks_that_cannot_be_are_the_points_error(tmp_path):
    text = "network: dlrm_mlperf\ncontainer: [bf16, 'fp32:block=64']\nblock_values: [100]\n"
    first, second = run_sweep(load_sweep(grid(tmp_path, text)), tmp_path / "out")
    assert "block=100 is not allowed: a multiple of 64" in first.error
    assert "given twice" in second.error


EVERYTHING = """
network: dlrm_mlperf
batch: 16
container: ["all=bf16", "int:n=8,range={block}"]
block: [64, 1024]
lengths: [[2, 4]]
machine: [sfp-2024, hbm3-training]
bandwidth_gbps: [51.2, 102.4]
codec_units: [1, 4]
fifo_bytes: 512
optimizer: [sgd, adam]
fusion: none
sample: 0.5
"""


def test_every_key_reaches_the_simulation(tmp_path):
    results = run_sweep(load_sweep(grid(tmp_path, EVERYTHING)), tmp_path / "out")
    assert len(results) == (1 + 2) * 2 * 2 * 2 * 2
    by_key = {tuple(sorted((k, str(v)) for k, v in r.point.keys.items())): r for r in results}

    def at(**keys):
        base = {"network": "dlrm_mlperf", "batch": 16, "container": "all=bf16", "fifo_bytes": 512,
                "lengths": [2, 4], "machine": "sfp-2024", "bandwidth_gbps": 51.2, "codec_units": 1,
                "optimizer": "sgd", "fusion": "none", "sample": 0.5}  # fmt: skip
        return by_key[tuple(sorted((k, str(v)) for k, v in (base | keys).items()))]

    assert at().error is None
    assert at(bandwidth_gbps=102.4).time_ns < at().time_ns
    assert at(optimizer="adam").traffic_bytes > at().traffic_bytes
    fine = at(container="int:n=8,range=64", block=64)
    coarse = at(container="int:n=8,range=1024", block=1024)
    assert fine.total_bits > coarse.total_bits
    other = at(machine="hbm3-training")
    assert "give a multiple" in str(other.error) or other.machine_hash != at().machine_hash


def test_results_become_a_data_frame(whole):
    pandas = pytest.importorskip("pandas")
    frame = results_frame(whole)
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(whole)
    assert frame["time_ns"].tolist() == [r.time_ns for r in whole]
    assert set(frame.loc[frame["container"] == "bf16", "m"].isna()) == {True}


@pytest.mark.parametrize("count", [3, 25])
def test_the_pareto_figure_names_what_there_is_room_for(whole, count):
    import msgspec

    from sfpsim.report.sweep import pareto_figure

    many = [
        msgspec.structs.replace(
            whole[i % len(whole)],
            point=msgspec.structs.replace(whole[i % len(whole)].point, container=f"sfp:m={i},e=4"),
            time_ns=1e6 * (1 + i), energy_pj=1e9 * (count - i),
        )
        for i in range(count)
    ]  # fmt: skip
    drawn = pareto_figure(many)
    assert len(drawn.rows) == 1 + count
    assert all(row[-1] for row in drawn.rows[1:])
    shown = [t.get_text() for t in drawn.figure.axes[0].texts]
    labels = [t.get_text() for t in drawn.figure.legends[0].get_texts()]
    assert len(shown) + len(labels) == count + 1


THOUSAND = """
network: dlrm_mlperf
batch: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25]
container: ["all=bf16", "all=fp32"]
bandwidth_gbps: [6.4, 12.8, 25.6, 51.2]
optimizer: [sgd, adam]
machine.dma.streams: [1, 2]
master_weights: [false, true]
detail: bandwidth
"""
THOUSAND += "mode: training\n" + "fusion: full\n"


@pytest.mark.slow
def test_a_thousand_points_killed_twice_are_each_there_once(tmp_path):
    text = THOUSAND.replace("fusion: full", "fusion: full\nstash: paper")
    points = load_sweep(grid(tmp_path, text))
    assert len(points) == 25 * 2 * 4 * 2 * 2 * 2 == 1600
    points = points[:1000]
    out = tmp_path / "out"
    code = (
        "import sys; from sfpsim.experiment.sweep import load_sweep, run_sweep; "
        "run_sweep(load_sweep(sys.argv[1])[:1000], sys.argv[2], workers=2)"
    )
    for wanted in (100, 500):
        run = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "grid.yaml"), str(out)],
            start_new_session=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while len(list(out.glob("points/*.json"))) < wanted and run.poll() is None:
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    # a point that was being written when the run was killed has a name that begins with a dot
    there = {p: p.stat().st_mtime_ns for p in out.glob("points/[!.]*.json")}
    assert 500 <= len(there) < 1000
    resumed = run_sweep(points, out, workers=2)
    assert all(p.stat().st_mtime_ns == before for p, before in there.items())
    assert [r.point.hash for r in resumed] == [p.hash for p in points]
    assert all(r.error is None for r in resumed)
    for r in resumed[::97]:
        assert run_point(r.point) == r


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
