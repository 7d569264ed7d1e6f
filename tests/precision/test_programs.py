"""The training programs on a few made-up images: they run, go on where stopped, and add up."""

import csv
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

MODELS = Path(__file__).parents[2] / "models"


def program(name, *arguments):
    command = [sys.executable, str(MODELS / f"{name}.py"), *map(str, arguments)]
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=one)


def module(name):
    spec = importlib.util.spec_from_file_location(name, MODELS / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found  # where dataclasses look for their annotations
    spec.loader.exec_module(found)
    return found


def test_an_experiment_runs_and_is_not_repeated(data, tmp_path):
    arguments = [
        "containers", "--out", tmp_path, "--data", data, "--epochs", 1, "--examples", 96, "--batch",
        48, "--only", "mxfp4,gecko-bias", "--seeds", 2,
    ]  # fmt: skip
    first = program("experiments", *arguments)
    assert first.returncode == 0, first.stderr
    with (tmp_path / "containers-summary.csv").open(newline="") as file:
        lines = {line["run"]: line for line in csv.DictReader(file)}
    assert set(lines) == {"fp32", "mxfp4", "gecko-bias"}
    assert lines["gecko-bias"]["test_accuracy"] == lines["fp32"]["test_accuracy"]  # lossless
    assert float(lines["gecko-bias"]["stash_bits"]) < 32
    assert float(lines["mxfp4"]["stash_bits"]) == pytest.approx(4.25, abs=0.1)
    assert lines["fp32"]["difference"] == "0.0"
    assert (tmp_path / "containers.svg").stat().st_size > 1000
    trained = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/checkpoint.pt")}
    assert len(trained) == 4
    assert program("experiments", *arguments).returncode == 0
    assert trained == {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/checkpoint.pt")}
    other = program("experiments", *arguments[:-1], 1, "--batch", 24)
    assert other.returncode == 1
    assert "of other arguments" in other.stderr
    assert "Traceback" not in other.stderr


def test_a_stopped_training_goes_on(data, tmp_path):
    """Two epochs at once, and one with the second after a restart: the same history."""
    common = [
        "--method", "bitpruning", "--data", data, "--examples", 96, "--batch", 48,
        "--length-lr", 0.5,
    ]  # fmt: skip
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert program("learn_lengths", *common, "--epochs", 3, "--out", straight).returncode == 0
    code = (
        "import sys, learn_lengths as m\n"
        "write = m.Run.write\n"
        "def stop(self, number):\n"
        "    write(self, number)\n"
        "    sys.exit(3)\n"
        "m.Run.write = stop\n"
        "m.main()\n"
    )
    command = [*common, "--epochs", 3, "--out", stopped]
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)], cwd=MODELS, check=False
    )  # fmt: skip
    assert ended.returncode == 3
    assert program("learn_lengths", *command).returncode == 0
    histories = []
    for folder in (straight, stopped):
        with (folder / "history.csv").open(newline="") as file:
            histories.append(
                [{k: v for k, v in x.items() if "seconds" not in k} for x in csv.DictReader(file)]
            )
    assert histories[0] == histories[1]
    assert len(histories[0]) == 3
    assert json.loads((straight / "config.json").read_text())["seed"] == 0


def test_lengths_that_were_learned_advise_another_training(data, tmp_path):
    arguments = [
        "advisor", "--out", tmp_path / "runs", "--data", data, "--epochs", 2, "--examples", 16,
        "--batch", 8, "--seeds", 1,
    ]  # fmt: skip
    ended = program("experiments", *arguments)
    assert ended.returncode == 0, ended.stderr
    learned, kept = (
        (tmp_path / "runs" / f"resnet18-{name}-0" / "lengths.csv").read_text().splitlines()
        for name in ("quantum", "final-lengths")
    )
    last = {line.partition(",")[2] for line in learned if line.startswith("1,")}
    assert last == {line.partition(",")[2] for line in kept if line.startswith("1,")}
    assert len(last) > 50
    drawn = program("figures", tmp_path / "runs", "--out", tmp_path / "drawn")
    assert drawn.returncode == 0, drawn.stderr
    for name in ("gecko", "lengths", "footprint", "replay"):
        assert (tmp_path / "drawn" / f"resnet18-{name}.svg").stat().st_size > 1000
    with (tmp_path / "drawn" / "resnet18-footprint.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["epoch"] for line in lines} == {"0", "1"}
    assert len(lines) == 2 * 2 * 7  # a line for each epoch, role and container
    fp32 = {float(line["bits_per_value"]) for line in lines if line["container"] == "fp32"}
    assert fp32 == {32.0}
    ended = program("learn_lengths", "--method", f"lengths:{tmp_path}@0", "--out", tmp_path / "x")
    assert ended.returncode == 1
    assert "FOLDER with a lengths.csv" in ended.stderr


def test_differences_are_taken_seed_by_seed():
    experiments = module("experiments")
    lines = [
        {"run": "fp32", "seed": s, "test_accuracy": 80.0 + s} for s in range(3)
    ] + [
        {"run": "a", "seed": s, "test_accuracy": 79.0 + s + d, "stash_bits": 4.0 + s}
        for s, d in enumerate((0.0, 0.3, -0.3))
    ]  # fmt: skip
    base, a = experiments.summary(lines)
    assert (base["difference"], base["interval_95"]) == (0.0, 0.0)
    assert a["difference"] == pytest.approx(-1.0)
    assert a["interval_95"] == pytest.approx(4.303 * 0.3 / math.sqrt(3))
    assert a["stash_bits"] == 5.0
    assert math.isnan(experiments.interval([1.0]))


@pytest.mark.parametrize("measure", ["test_perplexity", "test_log_loss"])
def test_what_is_better_low_is_compared_by_percent(measure, tmp_path):
    experiments = module("experiments")
    lines = [{"run": run, "seed": s, measure: v, "stash_bits": 8.0}
             for s in range(2) for run, v in (("fp32", 0.5), ("a", 0.51))]  # fmt: skip
    found = experiments.summary(lines)
    assert found[1]["difference"] == pytest.approx(2.0)
    experiments.draw(found, tmp_path / "a.svg", "title")
    assert (tmp_path / "a.svg").stat().st_size > 1000


def test_missing_data_and_unknown_runs_are_said(tmp_path):
    ended = program("learn_lengths", "--out", tmp_path / "a", "--data", tmp_path)
    assert ended.returncode == 1
    assert "no Fashion-MNIST here" in ended.stderr
    ended = program("experiments", "floats", "--out", tmp_path, "--only", "mxfp4")
    assert ended.returncode == 1
    assert "floats has fp32, quantum" in ended.stderr
