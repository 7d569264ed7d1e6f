"""The papers' comparisons on this scale: ``python models/experiments.py NAME --out DIR``.

| name | trains | compares with FP32 |
| --- | --- | --- |
| floats | ResNet-18 narrow | Quantum Mantissa and Exponent |
| bitwave | ResNet-18 narrow | BitWave, frozen after some epochs or not |
| integers | ResNet-18 narrow | BitPruning by three measures, Quantum Integer, fixed and LSQ |
| containers | ResNet-8 | every container of the registry, emulated |

Every run is one of ``models/learn_lengths.py`` in a process of its own, with its folder
under ``--out``; runs that are done are not repeated, so a stopped experiment goes on. Runs of
one seed see the same data in the same order from the same weights, so differences are taken
seed by seed, with Student's 95 % interval. Written: ``runs.csv``, ``summary.csv`` and
accuracy beside bits as a figure. Accuracy is over all 10,000 test images.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sfpsim
from sfpsim.containers.table import SPECS
from sfpsim.errors import InputError

PROGRAM = Path(__file__).with_name("learn_lengths.py")
# Student's t, two-sided 95 %, by degrees of freedom.
STUDENT = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
}
MEASURES = ("bits", "memory", "operations")
NOT_EMULATED = ("gist-binarize",)  # keeps no values


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is trained: the network and each run's arguments by its name; ``fp32`` is first."""

    network: str
    runs: dict[str, list[str]]
    defaults: dict[str, Any] = field(default_factory=dict)


def _method(name: str, *more: str) -> list[str]:
    return ["--method", name, *more]


def _integers() -> dict[str, list[str]]:
    learned = ["--length-lr", "0.5", "--gamma", "0.1"]
    runs = {
        f"bitpruning-{measure}": _method("bitpruning", "--weighting", measure, *learned)
        for measure in MEASURES
    }
    runs["quantum-integer"] = _method("quantum-integer", *learned)
    for bits in (2, 3, 4):
        runs |= {f"fixed-{bits}": _method(f"fixed:{bits}"), f"lsq-{bits}": _method(f"lsq:{bits}")}
    return runs


FP32 = {"fp32": _method("fp32")}
EXPERIMENTS = {
    "floats": Experiment(
        network="resnet18",
        runs=FP32 | {"quantum": _method("quantum", "--length-lr", "0.5", "--learn-epochs", "3")},
    ),
    "bitwave": Experiment(
        network="resnet18",
        runs=FP32 | {
            "bitwave": _method("bitwave"),
            "bitwave-frozen": _method("bitwave-frozen", "--learn-epochs", "3"),
        },
    ),
    "integers": Experiment(network="resnet18", runs=FP32 | _integers()),
    "containers": Experiment(
        network="resnet8",
        runs=FP32 | {
            spec: _method(f"emulate:{spec}")
            for spec in SPECS if spec not in ("fp32", *NOT_EMULATED)
        },
        defaults={"seeds": 1, "epochs": 2},
    ),
}  # fmt: skip


def run_one(given: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Train one run, unless it is done; return its line of ``runs.csv``."""
    experiment = EXPERIMENTS[given.name]
    folder = Path(given.out) / f"{name.replace(':', '_').replace('=', '')}-{seed}"
    done = folder / "done.json"
    arguments = [
        *experiment.runs[name], "--network", experiment.network, "--seed", str(seed), "--epochs",
        str(given.epochs), "--images", str(given.images), "--batch", str(given.batch),
    ]  # fmt: skip
    arguments += ["--data", given.data] if given.data else []
    if done.exists():
        found = json.loads(done.read_text())
        if found["arguments"] != arguments:
            raise InputError(f"{folder}: of other arguments; give another --out")
        return dict(found["line"])
    command = [sys.executable, str(PROGRAM), *arguments, "--out", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise InputError(f"{name}, seed {seed}: {ended.stderr.strip().splitlines()[-1]}")
    line = {"run": name, "seed": seed, **read_run(folder, name)}
    done.write_text(json.dumps({"arguments": arguments, "line": line}, indent=2) + "\n")
    return line


def read_run(folder: Path, name: str) -> dict[str, Any]:
    """Return accuracy, bits and seconds of a run that is done.

    `stash_bits` and `stash_bits_gecko` are measured: the bits a value, sign included, of the
    weights and stashed activations of a captured step in ``sfp`` at the lengths in force,
    without and with Gecko. For integers the mean lengths are given by three measures.
    """
    with (folder / "history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))
    last = history[-1]
    line: dict[str, Any] = {"test_accuracy": float(last["test_accuracy"])}
    line["train_cpu_seconds"] = sum(float(h["train_cpu_seconds"]) for h in history)
    line |= {k: float(v) for k, v in last.items() if k.startswith("mean_")}
    trace = folder / "run.trace"
    if trace.exists():
        line |= _stash_bits(str(trace), name)
    return line


def _stash_bits(trace: str, name: str) -> dict[str, float]:
    if name == "fp32":
        return {"stash_bits": 32.0}
    if name in SPECS:
        found = sfpsim.compare(sfpsim.open_trace(trace), [name])
        return {"stash_bits": _bits(found.containers[0].totals)}
    found = sfpsim.compare(sfpsim.open_trace(trace), ["sfp", "sfp:exponent=gecko-bias"])
    plain, gecko = (_bits(c.totals) for c in found.containers)
    return {"stash_bits": plain, "stash_bits_gecko": gecko}


def _bits(totals: Any) -> float:
    return float(totals.total_bits / totals.values)


def interval(differences: list[float]) -> float:
    """Return half of Student's 95 % interval of the mean; NaN of a single difference."""
    n = len(differences)
    if n < 2:
        return math.nan
    return STUDENT[n - 1] * statistics.stdev(differences) / math.sqrt(n)


def summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line a run: means over the seeds, and the difference to fp32 seed by seed."""
    base = {x["seed"]: x["test_accuracy"] for x in lines if x["run"] == "fp32"}
    out = []
    for name in dict.fromkeys(x["run"] for x in lines):
        mine = [x for x in lines if x["run"] == name]
        less = [x["test_accuracy"] - base[x["seed"]] for x in mine]
        line: dict[str, Any] = {"run": name, "seeds": len(mine)}
        line["test_accuracy"] = statistics.fmean(x["test_accuracy"] for x in mine)
        line["difference"], line["interval_95"] = statistics.fmean(less), interval(less)
        for key in dict.fromkeys(k for x in mine for k in x if "bits" in k or "seconds" in k):
            line[key] = statistics.fmean(x[key] for x in mine)
        out.append(line)
    return out


def write_csv(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write `lines`, which may lack fields, as one table."""
    fields = list(dict.fromkeys(key for line in lines for key in line))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        for line in lines:
            values = {k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}
            writer.writerow(values)


def bits_of(line: dict[str, Any]) -> float:
    """Return the bits that a run is drawn at: with Gecko where it has that, else as stashed."""
    for key in ("stash_bits_gecko", "stash_bits", "mean_memory_bits"):
        if key in line:
            return float(line[key])
    return math.nan


def draw(lines: list[dict[str, Any]], path: Path, title: str) -> None:
    """Write accuracy over bits, a point a run with its interval against fp32."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for line in lines:
        half = line["interval_95"]
        error = None if math.isnan(half) or line["run"] == "fp32" else half
        axis.errorbar(bits_of(line), line["test_accuracy"], yerr=error, fmt="o", capsize=3, ms=4)
        axis.annotate(line["run"], (bits_of(line), line["test_accuracy"]), fontsize=7,
                      xytext=(4, 3), textcoords="offset points")  # fmt: skip
    base = next(x["test_accuracy"] for x in lines if x["run"] == "fp32")
    axis.axhline(base, color="0.6", lw=0.8, ls="--", label="FP32")
    axis.axhline(base - 0.5, color="0.8", lw=0.8, ls=":", label="FP32 less 0.5 points")
    axis.set(xlabel="bits a value, weights and activations", ylabel="test accuracy, %", title=title)
    axis.legend(frameon=False, loc="lower right")
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    """Parse the command line, train what is not done and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(EXPERIMENTS))
    parser.add_argument("--out", required=True, help="folder for all runs and the tables")
    parser.add_argument("--data", help="folder with Fashion-MNIST")
    parser.add_argument("--seeds", type=int, help="paired seeds; 5, containers: 1")
    parser.add_argument("--epochs", type=int, help="6, containers: 2")
    parser.add_argument("--images", type=int, default=12_800, help="training images an epoch")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="runs at the same time")
    parser.add_argument("--only", help="comma-separated runs beside fp32; all by default")
    given = parser.parse_args()
    experiment = EXPERIMENTS[given.name]
    given.seeds = given.seeds or experiment.defaults.get("seeds", 5)
    given.epochs = given.epochs or experiment.defaults.get("epochs", 6)
    if given.seeds > len(STUDENT) + 1:
        raise InputError(f"--seeds {given.seeds}: at most {len(STUDENT) + 1}")
    names = list(experiment.runs)
    if given.only:
        names = ["fp32", *given.only.split(",")]
        unknown = sorted(set(names) - set(experiment.runs))
        if unknown:
            known = ", ".join(experiment.runs)
            raise InputError(f"--only {', '.join(unknown)}: {given.name} has {known}")
    work = [(name, seed) for seed in range(given.seeds) for name in names]
    lines = []
    with ThreadPoolExecutor(given.workers) as pool:
        for line in pool.map(lambda x: run_one(given, *x), work):
            lines.append(line)
            print(
                f"{len(lines)}/{len(work)} {line['run']} seed {line['seed']}: "
                f"{line['test_accuracy']:.2f} %, {bits_of(line):.2f} bits", flush=True,
            )  # fmt: skip
    out = Path(given.out)
    found = summary(lines)
    write_csv(out / "runs.csv", lines)
    write_csv(out / "summary.csv", found)
    draw(found, out / "accuracy.svg", f"{experiment.network}, Fashion-MNIST, {given.seeds} seeds")
    for line in found:
        half = line["interval_95"]
        band = "" if math.isnan(half) else f" +- {half:.2f}"
        print(
            f"{line['run']:20s} {line['test_accuracy']:6.2f} %  against fp32 "
            f"{line['difference']:+.2f}{band} points  {bits_of(line):5.2f} bits"
        )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from error
