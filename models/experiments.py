"""The papers' experiments on this scale: ``python models/experiments.py NAME --out DIR``.

| name | trains | compares with FP32 |
| --- | --- | --- |
| floats | ResNet-18 narrow | Quantum Mantissa and Exponent |
| bitwave | ResNet-18 narrow | BitWave, frozen after some epochs or not |
| advisor | ResNet-18 narrow | training again with the lengths learned at the end, and early; \
learning for half of the epochs, then frozen |
| bitpruning | ResNet-18 narrow, less of it | BitPruning by three measures, fixed lengths |
| integers | as bitpruning | Quantum Integer, LSQ, lengths profiled after FP32's training |
| gpt | GPT | Quantum Mantissa and Exponent |
| containers | ResNet-8 | every container of the registry, emulated where it is not lossless |

Every run is one of ``models/learn_lengths.py`` in a process of its own, with its folder
``NETWORK-RUN-SEED`` under ``--out``; runs that are done are not repeated, so that a stopped
experiment goes on and experiments with the same ``--out`` share their FP32 runs. Runs of
one seed see the same data in the same order from the same weights, so differences are taken
seed by seed, with Student's 95 % interval. Written: ``NAME-runs.csv``, ``NAME-summary.csv``
and accuracy beside bits as ``NAME.svg``. Accuracy is over all 10,000 test images;
perplexities and log losses are compared as percent of FP32's.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sfpsim
from sfpsim import formats
from sfpsim.containers.paper import paper_bits
from sfpsim.containers.registry import parse_container
from sfpsim.containers.sfp import Sfp
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
MEANS = {"bits": "by tensors", "memory": "by elements", "operations": "by operations"}
ROLES = ("weight", "activation")
SFP = ["sfp", "sfp:exponent=gecko-bias"]
POINTS = 12  # runs that a figure names in its legend
FAR = 8  # what is worse by more than this many points is written, not drawn
NOT_EMULATED = ("gist-binarize",)  # keeps no values
# What is compared as percent of FP32's, with its name; all else is an accuracy, in points.
RELATIVE = {"test_perplexity": "perplexity a character", "test_log_loss": "log loss, nats"}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is trained: the network and each run's arguments by its name; ``fp32`` is first.

    ``{out}`` and ``{seed}`` in an argument become the folder of all runs and the run's seed;
    runs that have one begin when all others are done, and so do those that train as FP32 does
    and are measured on its trace. Folders begin with ``prefix``, the network's name where it is
    None; experiments that have one in common must train equally long.
    """

    network: str
    prefix: str | None = None
    runs: dict[str, list[str]]
    seeds: int = 5
    epochs: int = 10
    examples: int = 25_600
    batch: int = 128


def _method(name: str, *more: str) -> list[str]:
    return ["--method", name, *more]


INTEGER = ["--length-lr", "0.02", "--gamma", "0.03"]
BITPRUNING = {
    f"bitpruning-{measure}": _method("bitpruning", "--weighting", measure, *INTEGER)
    for measure in MEANS
}


def lossy(spec: str) -> bool:
    """Say whether a container changes values; if not, a training in it is that in FP32."""
    return not parse_container(spec).lossless_for(formats.FP32)


FP32 = {"fp32": _method("fp32")}
QUANTUM = {
    "quantum": _method(
        "quantum",
        "--gamma",
        "0.17",
        "--length-lr",
        "0.015",
        "--initial-bits",
        "7",
        "--learn-epochs",
        "2",
        "--relearn-epochs",
        "1",
    )
}
WAVE = ["--threshold", "2.5e-3", "--least-bits", "2", "--least-limit", "6"]
EXPERIMENTS = {
    "floats": Experiment(network="resnet18", runs=FP32 | QUANTUM),
    "bitwave": Experiment(
        network="resnet18",
        runs=FP32 | {
            "bitwave": _method("bitwave", *WAVE),
            "bitwave-frozen": _method("bitwave-frozen", "--learn-epochs", "3", *WAVE),
        },
    ),
    "advisor": Experiment(
        network="resnet18",
        runs=FP32 | QUANTUM | {
            "final-lengths": _method("lengths:{out}/resnet18-quantum-{seed}@-1"),
            "early-lengths": _method("lengths:{out}/resnet18-quantum-{seed}@1"),
            "learn-five": [*QUANTUM["quantum"], "--learn-epochs", "5", "--relearn-epochs", "0"],
        },
    ),
    "bitpruning": Experiment(
        network="resnet18", prefix="resnet18-short", epochs=8, examples=12_800,
        runs=FP32 | BITPRUNING | {"fixed-4": _method("fixed:4")},
    ),
    "integers": Experiment(
        network="resnet18", prefix="resnet18-short", epochs=8, examples=12_800,
        runs=FP32 | {
            "quantum-integer": _method("quantum-integer", *INTEGER),
            "fixed-3": _method("fixed:3"),
            "lsq-3": _method("lsq:3", "--length-lr", "0.0003"),
            "lsq-4": _method("lsq:4", "--length-lr", "0.0003"),
            "profiled": _method("profiled:{out}/resnet18-short-fp32-{seed}"),
        },
    ),
    "gpt": Experiment(
        network="gpt", epochs=8, examples=2_000, batch=8,
        runs=FP32 | {
            "quantum": _method(
                "quantum", "--gamma", "0.0015", "--length-lr", "0.02", "--initial-bits", "7",
                "--learn-epochs", "1", "--relearn-epochs", "0",
            )
        },
    ),
    "containers": Experiment(
        network="resnet8", seeds=1, epochs=2, examples=12_800, batch=64,
        runs=FP32 | {
            spec: _method(f"emulate:{spec}") if lossy(spec) else FP32["fp32"]
            for spec in SPECS if spec not in ("fp32", *NOT_EMULATED)
        },
    ),
}  # fmt: skip


def run_one(given: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Train one run, unless it is done; return its line of ``NAME-runs.csv``."""
    experiment = EXPERIMENTS[given.name]
    trained = "fp32" if experiment.runs[name] == FP32["fp32"] else name
    prefix = experiment.prefix or experiment.network
    folder = Path(given.out) / f"{prefix}-{trained.replace(':', '_')}-{seed}"
    arguments = [
        *(part.format(out=given.out, seed=seed) for part in experiment.runs[name]),
        "--network", experiment.network, "--seed", str(seed), "--epochs", str(given.epochs),
        "--examples", str(given.examples), "--batch", str(given.batch),
    ]  # fmt: skip
    arguments += ["--data", given.data] if given.data else []
    train(folder, arguments)
    kept = folder / f"line-{name.replace(':', '_')}.json"
    if not kept.exists():
        line = {"run": name, "seed": seed, **read_run(folder, name)}
        kept.write_text(json.dumps(line, indent=2) + "\n")
    return dict(json.loads(kept.read_text()))


def train(folder: Path, arguments: list[str]) -> None:
    """Train what the arguments say in `folder`, unless that is done."""
    done = folder / "done.json"
    if done.exists():
        if json.loads(done.read_text()) != arguments:
            raise InputError(f"{folder}: of other arguments; give another --out")
        return
    command = [sys.executable, str(PROGRAM), *arguments, "--out", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise InputError(f"{folder.name}: {ended.stderr.strip().splitlines()[-1]}")
    done.write_text(json.dumps(arguments) + "\n")


def read_run(folder: Path, name: str) -> dict[str, Any]:
    """Return the measure, bits and seconds of a run that is done.

    Bits are of the last captured step, or of all where BitWave's lengths go on changing, as
    encoded: bits a value, sign and metadata included, of weights and stashed activations
    together and apart, in the emulated container, or in ``sfp`` at the lengths in force
    without Gecko, with it (``_gecko``) and with what is shorter, tensor by tensor
    (``_shorter``); ``_paper`` is Gecko as the paper counts it, without the exponents' signs,
    which cannot be decoded. ``products_`` is the stash as the papers define it: operands of
    products alone, so no inputs of normalisations and poolings. Integers, of which there is
    no trace, have their mean lengths by three measures.
    """
    with (folder / "history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))
    last = history[-1]
    line = {k: float(v) for k, v in last.items() if k.startswith(("test_", "mean_"))}
    line["train_cpu_seconds"] = sum(float(h["train_cpu_seconds"]) for h in history)
    if (folder / "run.trace").exists():
        trace = sfpsim.open_trace(folder / "run.trace")
        if not name.startswith("bitwave"):
            trace = trace.at_step(trace.steps[-1])
        if name == "fp32":
            line |= _stash_bits(trace, ["fp32"], "")
            line |= _stash_bits(trace, ["gecko-bias"], "_gecko")
        elif name in SPECS:
            line |= _stash_bits(trace, [name], "")
        else:
            line |= _stash_bits(trace, SFP[:1], "") | _stash_bits(trace, SFP[1:], "_gecko")
            line |= _stash_bits(trace, SFP, "_shorter") | _paper_bits(trace)
    return line


def _measured(trace: Any, container: str) -> dict[str, Any]:
    (found,) = sfpsim.compare(trace, [container], per_tensor=True).containers
    return {tensor.name: tensor for tensor in found.tensors}


def _stash_bits(trace: Any, containers: list[str], suffix: str) -> dict[str, float]:
    """Return bits a value, each tensor in the container that is shortest for it."""
    each = [_measured(trace, container) for container in containers]
    products = {name for op in trace.ops for name in op.reads}
    out = {}
    for name, roles, only in (
        ("stash_", ROLES, None), *((f"{role}_", (role,), None) for role in ROLES),
        ("products_", ROLES, products),
    ):  # fmt: skip
        kept = [t for t in each[0].values() if t.role in roles and (only is None or t.name in only)]
        bits = sum(min(found[t.name].total_bits for found in each) for t in kept)
        out[f"{name}bits{suffix}"] = bits / sum(t.values for t in kept)
    return out


def _paper_bits(trace: Any) -> dict[str, float]:
    """Return bits a value with Gecko as the paper counts it, of the stash and of products."""
    bits = dict.fromkeys(("stash", "products"), 0.0)
    values = dict.fromkeys(bits, 0)
    products = {name for op in trace.ops for name in op.reads}
    for record in trace.records:
        if record.role in ROLES and record.lengths is not None:
            held = trace.values(record)
            kept = record.lengths.mantissa_bits
            limited = Sfp(mantissa_bits=kept, exponent_bits=record.lengths.exponent_bits)
            counted = paper_bits(limited.quantize(held), kept)
            for name in ("stash", *(["products"] if record.name in products else [])):
                bits[name] += counted.total_bits * record.values / counted.values
                values[name] += record.values
    return {f"{name}_bits_paper": bits[name] / values[name] for name in bits}


def interval(differences: list[float]) -> float:
    """Return half of Student's 95 % interval of the mean; NaN of a single difference."""
    n = len(differences)
    if n < 2:
        return math.nan
    return STUDENT[n - 1] * statistics.stdev(differences) / math.sqrt(n)


def measure_of(line: dict[str, Any]) -> str:
    """Return the name of what a run is judged by."""
    return next(key for key in line if key.startswith("test_"))


def summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line a run: means over the seeds, and the difference to fp32 seed by seed.

    Accuracies differ by points, perplexities and log losses by percent of fp32's.
    """
    measure = measure_of(lines[0])
    base = {x["seed"]: x[measure] for x in lines if x["run"] == "fp32"}
    out = []
    for name in dict.fromkeys(x["run"] for x in lines):
        mine = [x for x in lines if x["run"] == name]
        less = [x[measure] - base[x["seed"]] for x in mine]
        if measure in RELATIVE:
            less = [100 * d / base[x["seed"]] for d, x in zip(less, mine, strict=True)]
        line: dict[str, Any] = {"run": name, "seeds": len(mine)}
        line[measure] = statistics.fmean(x[measure] for x in mine)
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
    """Return the bits that a run is drawn at: as stored without Gecko, or the mean of integers."""
    for key in ("stash_bits", "mean_bits_bits"):
        if key in line:
            return float(line[key])
    return math.nan


def draw(lines: list[dict[str, Any]], path: Path, title: str) -> None:
    """Write accuracy, perplexity or log loss over bits, with the intervals of the differences.

    Integers have a panel for each of the three means of their lengths; more than `POINTS` runs
    a row each, bits beside the measure.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "sfpsim"  # the same figure is the same file
    import matplotlib.pyplot as plt

    runs = [line for line in lines if line["run"] != "fp32"]
    base = next(line[measure_of(line)] for line in lines if line["run"] == "fp32")
    figure = (_rows if len(runs) > POINTS else _points)(plt, runs, base)
    figure.suptitle(title)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _bounds(measure: str, base: float) -> tuple[tuple[float, str], tuple[float, str]]:
    """Return what is drawn as lines: FP32's measure, and what a method may lose."""
    lost = (1.01 * base, "1 % more") if measure in RELATIVE else (base - 0.5, "0.5 points less")
    return (base, "FP32"), lost


def _name(measure: str) -> str:
    return f"test {RELATIVE.get(measure, 'accuracy, %')}"


def _points(plt: Any, runs: list[dict[str, Any]], base: float) -> Any:
    keys = {"stash_bits": "bits a value, weights and activations"}
    if all("mean_memory_bits" in line for line in runs):
        keys = {f"mean_{key}_bits": f"mean bits {said}" for key, said in MEANS.items()}
    figure, axes = plt.subplots(
        1, len(keys), figsize=(max(7.0, 3.4 * len(keys) + 1.6), 4.2), layout="constrained",
        sharey=True, squeeze=False,
    )  # fmt: skip
    measure = measure_of(runs[0])
    for axis, (key, label) in zip(axes[0], keys.items(), strict=True):
        for line in runs:
            half = line["interval_95"] * (base / 100 if measure in RELATIVE else 1)
            axis.errorbar(line[key], line[measure], yerr=None if math.isnan(half) else half,
                          fmt="o", capsize=3, ms=5, label=line["run"])  # fmt: skip
        for (at, said), color, style in zip(
            _bounds(measure, base), ("0.4", "0.6"), ("--", ":"), strict=True
        ):
            axis.axhline(at, color=color, lw=0.9, ls=style, label=said)
        axis.set(xlabel=label, xlim=(0, 1.15 * max(line[key] for line in runs)))
    axes[0][0].set_ylabel(_name(measure))
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside right upper")
    return figure


def _rows(plt: Any, runs: list[dict[str, Any]], base: float) -> Any:
    """Draw a row a run, by bits; far below FP32 the measure is written, not drawn."""
    measure = measure_of(runs[0])
    order = sorted(runs, key=bits_of, reverse=True)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.5, 1.2 + 0.19 * len(order)), layout="constrained", sharey=True
    )
    least = base - FAR
    for row, line in enumerate(order):
        left.barh(row, bits_of(line), 0.7, color="C0")
        left.text(bits_of(line) + 0.3, row, f"{bits_of(line):.2f}", va="center", fontsize=6.5)
        if line[measure] < least:
            said = f" \N{BLACK LEFT-POINTING TRIANGLE} {line[measure]:.1f}"
            right.text(least, row, said, va="center", fontsize=7, color="C3")
        else:
            exact = line[measure] == base
            right.plot(line[measure], row, "o", ms=4.5, color="C0",
                       mfc="white" if exact else "C0")  # fmt: skip
    for (at, said), style in zip(_bounds(measure, base), ("--", ":"), strict=True):
        right.axvline(at, color="0.5", lw=0.9, ls=style, label=said)
    right.plot([], [], "o", ms=4.5, color="C0", mfc="white", label="as FP32: lossless")
    left.set_yticks(range(len(order)), [line["run"] for line in order], fontsize=7)
    left.set(xlabel="bits a value, weights and activations", ylim=(-0.7, len(order) - 0.3))
    left.set_xlim(0, 1.12 * bits_of(order[0]))
    right.set_xlim(left=least)
    right.set_xlabel(_name(measure))
    right.grid(axis="y", lw=0.3)
    right.legend(frameon=False, fontsize=7, loc="lower center")
    return figure


def train_all(given: argparse.Namespace, names: list[str]) -> list[dict[str, Any]]:
    """Train every run of every seed; return their lines, by seed and run."""
    runs = EXPERIMENTS[given.name].runs
    work = [(name, seed) for seed in range(given.seeds) for name in names]
    later = [
        (name, seed) for name, seed in work
        if any("{out}" in part for part in runs[name])
        or (name != "fp32" and runs[name] == FP32["fp32"])
    ]  # fmt: skip
    first = [item for item in work if item not in later]
    lines = []
    with ThreadPoolExecutor(given.workers) as pool:
        for part in (first, later):
            for line in pool.map(lambda x: run_one(given, *x), part):
                lines.append(line)
                print(
                    f"{len(lines)}/{len(work)} {line['run']} seed {line['seed']}: "
                    f"{line[measure_of(line)]:.2f}, {bits_of(line):.2f} bits", flush=True,
                )  # fmt: skip
    return sorted(lines, key=lambda x: work.index((x["run"], x["seed"])))


def main() -> None:
    """Parse the command line, train what is not done and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(EXPERIMENTS))
    parser.add_argument("--out", required=True, help="folder for all runs and the tables")
    parser.add_argument("--data", help="folder with the data")
    parser.add_argument("--seeds", type=int, help="paired seeds; 5, containers: 1")
    parser.add_argument("--epochs", type=int, help="the experiment's own by default")
    parser.add_argument("--examples", type=int, help="of an epoch; the experiment's own by default")
    parser.add_argument("--batch", type=int, help="the experiment's own by default")
    parser.add_argument("--workers", type=int, default=2, help="runs at the same time")
    parser.add_argument("--only", help="comma-separated runs beside fp32; all by default")
    given = parser.parse_args()
    experiment = EXPERIMENTS[given.name]
    for key in ("seeds", "epochs", "examples", "batch"):
        setattr(given, key, getattr(given, key) or getattr(experiment, key))
    if given.seeds > len(STUDENT) + 1:
        raise InputError(f"--seeds {given.seeds}: at most {len(STUDENT) + 1}")
    names = list(experiment.runs)
    if given.only:
        names = ["fp32", *given.only.split(",")]
        unknown = sorted(set(names) - set(experiment.runs))
        if unknown:
            known = ", ".join(experiment.runs)
            raise InputError(f"--only {', '.join(unknown)}: {given.name} has {known}")
    lines = train_all(given, names)
    out, found = Path(given.out), summary(lines)
    seeds = "one seed" if given.seeds == 1 else f"{given.seeds} seeds"
    write_csv(out / f"{given.name}-runs.csv", lines)
    write_csv(out / f"{given.name}-summary.csv", found)
    draw(found, out / f"{given.name}.svg", f"{experiment.network}, {seeds}")
    keys = (
        "stash_bits_gecko", "stash_bits_shorter", "stash_bits_paper", "products_bits",
        "products_bits_shorter", "products_bits_paper", "mean_memory_bits", "mean_operations_bits",
    )  # fmt: skip
    unit = "%" if measure_of(found[0]) in RELATIVE else "points"
    for line in found:
        half = line["interval_95"]
        band = "" if math.isnan(half) else f" +- {half:.2f}"
        print(
            f"{line['run']:20s} {line[measure_of(line)]:7.3f}  against fp32 "
            f"{line['difference']:+.2f}{band} {unit}  {bits_of(line):5.2f} bits"
            + "".join(f", {key} {line[key]:.2f}" for key in keys if key in line)
        )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from error
