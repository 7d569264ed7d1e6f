"""What the experiments' trainings look like over time: ``python models/figures.py RUNS --out DIR``.

RUNS is the folder that ``models/experiments.py`` trained into. Of what is there, seed 0, each
as a CSV and a figure:

| name | from | shows |
| --- | --- | --- |
| gecko | fp32 | Gecko alone: compressed / original exponent bits by epoch |
| lengths | quantum | mantissa and exponent lengths by tensor and epoch |
| batches | bitwave | lengths by batch within an epoch |
| footprint | quantum | bits a value by epoch, with Gecko and without, beside others |
| replay | quantum | footprint, time and energy of the last step on ``sfp-2024`` |
| bitwave-replay | bitwave | likewise |

The experiments' own tables and figures are copied beside them, and ``--page`` writes all
tables into a page, between its markers.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from experiments import EXPERIMENTS, write_csv

import sfpsim
from sfpsim.containers.paper import paper_bits
from sfpsim.errors import InputError

matplotlib.rcParams["svg.hashsalt"] = "sfpsim"  # the same figure is the same file
Lines = list[dict[str, Any]]
ROLES = ("weight", "activation")
SFP = {"sfp": "SFP", "sfp:exponent=gecko-bias": "SFP + Gecko"}
BASES = {"fp32": "FP32", "bf16": "BF16", "fp8-e4m3": "FP8", "js": "JS", "gist++": "GIST++"}
BEGIN, END = (
    "<!-- begin: written by models/figures.py -->",
    "<!-- end: written by models/figures.py -->",
)
GECKOS = ("gecko-bias", "gecko-delta")
CODES = {
    "gecko-bias": "bias 127, decodable", "paper": "bias 127, paper's count",
    "gecko-delta": "deltas (2022)",
}  # fmt: skip


def steps_of(folder: Path) -> list[tuple[int, Any]]:
    """Return (epoch, trace of that step) of a run's captured steps."""
    trace = sfpsim.open_trace(folder / "run.trace")
    parts = [trace.at_step(step) for step in trace.steps]
    return [(part.records[0].epoch, part) for part in parts]


def gecko(folder: Path) -> Lines:
    """Return the share of exponent bits that Gecko leaves, by epoch, role and scheme."""
    lines = []
    for epoch, trace in steps_of(folder):
        for found in sfpsim.compare(trace, GECKOS).containers:
            for role in found.roles:
                if role.role in ROLES:
                    bits = role.exponent_bits + role.metadata_bits
                    lines.append({
                        "epoch": epoch, "code": found.container, "role": role.role,
                        "exponent_ratio": bits / (8 * role.values),
                    })  # fmt: skip
        lines += _paper_gecko(epoch, trace)
    return lines


def _paper_gecko(epoch: int, trace: Any) -> Lines:
    bits, values = dict.fromkeys(ROLES, 0.0), dict.fromkeys(ROLES, 0)
    for record in trace.records:
        if record.role in ROLES:
            counted = paper_bits(trace.values(record))
            bits[record.role] += counted.exponent_bits * record.values / counted.values
            values[record.role] += record.values
    return [
        {"epoch": epoch, "code": "paper", "role": role,
         "exponent_ratio": bits[role] / (8 * values[role])}
        for role in ROLES
    ]  # fmt: skip


def draw_gecko(lines: Lines, path: Path) -> None:
    """Draw the ratios by epoch, a panel a role."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained", sharey=True)
    for axis, role in zip(axes, ROLES, strict=True):
        for code, label in CODES.items():
            mine = [x for x in lines if x["role"] == role and x["code"] == code]
            axis.plot([x["epoch"] for x in mine], [x["exponent_ratio"] for x in mine], "o-",
                      label=label)  # fmt: skip
        axis.set(title=f"{role}s", xlabel="epoch")
    axes[0].set(ylabel="compressed / original exponent bits", ylim=(0, 1))
    axes[0].legend(frameon=False)
    save(figure, path)


def lengths(folder: Path) -> Lines:
    """Return the learned lengths by epoch and tensor."""
    with (folder / "lengths.csv").open(newline="") as file:
        return [
            {"epoch": int(x["epoch"]), "tensor": x["tensor"],
             "mantissa_bits": float(x["mantissa"]), "exponent_bits": float(x["exponent"])}
            for x in csv.DictReader(file)
        ]  # fmt: skip


def draw_lengths(lines: Lines, path: Path) -> None:
    """Draw heat maps: mantissa and exponent, of weights and of inputs."""
    names = list(dict.fromkeys(x["tensor"] for x in lines))
    kinds = {"weights": [n for n in names if n.endswith(".weight")],
             "layer inputs": [n for n in names if not n.endswith(".weight")]}  # fmt: skip
    epochs = sorted({x["epoch"] for x in lines})
    held = {(x["epoch"], x["tensor"]): x for x in lines}
    rows = max(map(len, kinds.values()))
    figure, axes = plt.subplots(1, 4, figsize=(11, 1.2 + 0.15 * rows), layout="constrained")
    place = iter(axes)
    for kind, mine in kinds.items():
        for field, most in (("mantissa_bits", 8), ("exponent_bits", 8)):
            axis = next(place)
            grid = np.full((len(mine), len(epochs)), np.nan)
            for (row, name), (column, epoch) in (
                (r, c) for r in enumerate(mine) for c in enumerate(epochs)
            ):
                if (epoch, name) in held:
                    grid[row, column] = held[epoch, name][field]
            image = axis.imshow(grid, aspect="auto", cmap="viridis", vmin=0, vmax=most)
            axis.set(title=f"{kind}, {field.removesuffix('_bits')}", xlabel="epoch")
            axis.set_xticks(range(len(epochs)), epochs, fontsize=7)
            labels = [name.rpartition(".")[0] for name in mine] if field[0] == "m" else []
            axis.set_yticks(range(len(labels)), labels, fontsize=5)
    figure.colorbar(image, ax=axes, label="bits (8 and more alike)", shrink=0.6)
    save(figure, path)


def batches(folder: Path) -> Lines:
    """Return the watcher's lengths batch by batch."""
    with (folder / "batches.csv").open(newline="") as file:
        return [{k: int(v) for k, v in x.items()} for x in csv.DictReader(file)]


def draw_batches(lines: Lines, path: Path) -> None:
    """Draw the lengths over all batches, and over those of one epoch."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
    middle = max(x["epoch"] for x in lines) // 2
    for axis, mine, label in (
        (axes[0], lines, "whole training"),
        (axes[1], [x for x in lines if x["epoch"] == middle], f"epoch {middle}"),
    ):
        for field in ("mantissa", "exponent"):
            axis.step(range(len(mine)), [x[field] for x in mine], lw=1, label=field)
        axis.set(title=label, xlabel="batch")
    axes[0].set(ylabel="length, bits", ylim=(0, 24))
    axes[0].legend(frameon=False)
    save(figure, path)


def footprint(folder: Path) -> Lines:
    """Return bits a value by epoch, role and container."""
    lines = []
    for epoch, trace in steps_of(folder):
        for found in sfpsim.compare(trace, [*BASES, *SFP]).containers:
            for role in ROLES:
                parts = [x for x in found.roles if x.role == role]  # one for each lengths
                bits = sum(x.total_bits for x in parts) / sum(x.values for x in parts)
                lines.append({
                    "epoch": epoch, "container": found.container, "role": role,
                    "bits_per_value": bits,
                })  # fmt: skip
    return lines


def draw_footprint(lines: Lines, path: Path) -> None:
    """Draw bits a value by epoch, a panel a role."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, role in zip(axes, ROLES, strict=True):
        for container, label in (BASES | SFP).items():
            mine = [x for x in lines if x["role"] == role and x["container"] == container]
            style = "o-" if container in SFP else ":" if container == "gist++" else "--"
            axis.plot([x["epoch"] for x in mine], [x["bits_per_value"] for x in mine], style,
                      label=label, ms=4)  # fmt: skip
        axis.set(title=f"{role}s", xlabel="epoch", ylim=(0, 34))
    axes[0].set(ylabel="bits a value, metadata included")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, ncols=7, loc="outside lower center")
    save(figure, path)


def replay(folder: Path) -> Lines:
    """Return the last step's footprint, time and energy on the paper's machine."""
    _, trace = steps_of(folder)[-1]
    found = sfpsim.compare(trace, [*BASES, *SFP], machine="sfp-2024").containers
    base = found[0].totals
    return [
        {"container": c.container, "bits_per_value": c.totals.total_bits / c.totals.values,
         "traffic_bytes": c.totals.read_bytes + c.totals.write_bytes,
         "time_ms": c.totals.time_ns / 1e6, "energy_mj": c.totals.energy_pj.total / 1e9,
         "speedup": base.time_ns / c.totals.time_ns,
         "energy_gain": base.energy_pj.total / c.totals.energy_pj.total}
        for c in found
    ]  # fmt: skip


def draw_replay(lines: Lines, path: Path) -> None:
    """Draw footprint, time and energy as shares of FP32's."""
    figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
    names = [(BASES | SFP)[x["container"]] for x in lines]
    fields = {"bits_per_value": "footprint", "time_ms": "time", "energy_mj": "energy"}
    for at, (field, label) in enumerate(fields.items()):
        shares = [x[field] / lines[0][field] for x in lines]
        bars = axis.bar(np.arange(len(lines)) + 0.27 * (at - 1), shares, 0.25, label=label)
        axis.bar_label(bars, fmt="%.2f", fontsize=6)
    axis.set_xticks(range(len(names)), names)
    axis.set(ylabel="share of FP32", ylim=(0, 1.15), title="one training step on sfp-2024")
    axis.legend(frameon=False, ncols=3)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a figure and close it."""
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


FIGURES: dict[str, tuple[str, Callable[[Path], Lines], Callable[[Lines, Path], None]]] = {
    "gecko": ("fp32", gecko, draw_gecko),
    "lengths": ("quantum", lengths, draw_lengths),
    "batches": ("bitwave", batches, draw_batches),
    "footprint": ("quantum", footprint, draw_footprint),
    "replay": ("quantum", replay, draw_replay),
    "bitwave-replay": ("bitwave", replay, draw_replay),
}


def read_csv(path: Path) -> Lines:
    """Return the lines of a table."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


COLUMNS = {
    "run": "run", "test_accuracy": "accuracy, %", "test_perplexity": "perplexity",
    "difference": "against FP32", "stash_bits": "bits", "stash_bits_gecko": "with Gecko",
    "stash_bits_shorter": "shorter of both", "stash_bits_paper": "paper's count",
    "products_bits": "products", "products_bits_shorter": "products, shorter",
    "products_bits_paper": "products, paper's count", "mean_bits_bits": "by tensors",
    "mean_memory_bits": "by elements", "mean_operations_bits": "by operations",
    "train_cpu_seconds": "CPU s",
}  # fmt: skip


def summary_table(lines: Lines) -> str:
    """Return an experiment's summary as a table of Markdown."""
    kept = [key for key in COLUMNS if any(line.get(key) for line in lines)]
    rows = [[COLUMNS[key] for key in kept], ["---"] * len(kept)]
    for line in lines:
        rows.append([_cell(line, key) for key in kept])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(line: dict[str, Any], key: str) -> str:
    value = line.get(key) or ""
    if key == "run" or not value:
        return str(value)
    if key == "difference":
        half = line["interval_95"]
        return f"{float(value):+.2f}" + ("" if half in ("", "nan") else f" ± {float(half):.2f}")
    return f"{float(value):.0f}" if key == "train_cpu_seconds" else f"{float(value):.2f}"


def command_of(name: str, lines: Lines) -> str:
    """Return the command that makes an experiment's table."""
    experiment, runs = EXPERIMENTS[name], [line["run"] for line in lines]
    command = f"python models/experiments.py {name} --out runs"
    if runs != list(experiment.runs):
        command += f" --only {','.join(runs[1:])}"
    if int(lines[0]["seeds"]) != experiment.seeds:
        command += f" --seeds {lines[0]['seeds']}"
    return command


def write_page(page: Path, folder: Path) -> None:
    """Write the tables of `folder` between the markers of `page`."""
    parts = []
    for path in sorted(folder.glob("*-summary.csv")):
        name, lines = path.stem.removesuffix("-summary"), read_csv(path)
        seeds = f"{lines[0]['seeds']} seeds".replace("1 seeds", "one seed")
        parts.append(
            f"### {name}\n\n`{command_of(name, lines)}`, "
            f"{seeds}.\n\n{summary_table(lines)}\n\n"
            f"![{name}]({folder.name}/{name}.svg)"
        )
    for path in sorted(folder.glob("*-replay.csv")):
        lines = read_csv(path)
        rows = [list(lines[0]), ["---"] * len(lines[0]), *(list(x.values()) for x in lines)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        network = path.stem.removesuffix("-replay")
        parts.append(f"### replay of {network}\n\n{table}\n\n"
                     f"![replay]({folder.name}/{path.stem}.svg)")  # fmt: skip
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n" + "\n\n".join(parts) + f"\n{END}{after}")


def main() -> None:
    """Parse the command line and write what there are runs for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", help="folder that models/experiments.py trained into")
    parser.add_argument("--out", required=True)
    parser.add_argument("--page", help="page to write the tables into")
    given = parser.parse_args()
    out, made = Path(given.out), 0
    out.mkdir(parents=True, exist_ok=True)
    for table in sorted(Path(given.runs).glob("*-summary.csv")):
        name = table.stem.removesuffix("-summary")
        for part in (table.name, f"{name}-runs.csv", f"{name}.svg"):
            shutil.copy(Path(given.runs) / part, out / part)
    for folder in sorted(Path(given.runs).glob("*-0")):
        network, _, run = folder.name.removesuffix("-0").partition("-")
        for name, (wanted, find, draw) in FIGURES.items():
            if run == wanted and (folder / "done.json").exists():
                lines = find(folder)
                write_csv(out / f"{network}-{name}.csv", lines)
                draw(lines, out / f"{network}-{name}.svg")
                print(out / f"{network}-{name}.svg", flush=True)
                made += 1
    if not made:
        raise InputError(f"{given.runs}: no run of seed 0 that is done")
    if given.page:
        write_page(Path(given.page), out)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from error
