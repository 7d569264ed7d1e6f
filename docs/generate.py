"""Writes the generated parts of the docs: ``python docs/generate.py [FOLDER...]``.

Always the JSON Schema of every result (docs/schema) and the devices of docs/dram.md. With
the folder that ``sfpsim demo`` wrote, also the picture and the numbers of README.md; with
that of a ``sfpsim compare`` of all containers, the picture of docs/zoo.md; with a folder of
reference runs (see `sfpsim.testing.validate_dram`), the tables and the picture of
docs/dram-validation.md. Pages are written between their markers.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import msgspec

from sfpsim.energy.model import DramCounts, dram_core_pj, dram_interface_pj_per_bit
from sfpsim.experiment.explain import load_result
from sfpsim.experiment.result import Comparison
from sfpsim.hardware.dram.device import Device, devices, load_device, presets
from sfpsim.hardware.dram.simulate import DramResult
from sfpsim.report.documents import RESULTS
from sfpsim.report.figures import draw, rendered
from sfpsim.report.summary import headline
from sfpsim.report.table import COLUMNS, LIMITERS, limiter_shares, significant, table_row
from sfpsim.report.validation import QUANTITIES, validation_block, validation_figure
from sfpsim.report.validation import Comparison as Run

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
CORE = ("act", "rd", "wr", "ref", "active_standby", "precharge_standby")
BEGIN, END = "<!-- begin: written by make docs -->", "<!-- end: written by make docs -->"


def schema_texts() -> dict[str, str]:
    """Return the JSON Schema of every result, by file name."""
    return {f"{name}.json": _schema_text(name, kind) for name, kind in RESULTS.items()}


def _schema_text(name: str, kind: Any) -> str:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"sfpsim {name} --json",
        **_clean(msgspec.json.schema(kind)),
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def _clean(value: Any) -> Any:
    """Take the indentation off descriptions, which not every msgspec does."""
    if isinstance(value, dict):
        return {
            k: inspect.cleandoc(v) if k == "description" and isinstance(v, str) else _clean(v)
            for k, v in value.items()
        }
    return [_clean(v) for v in value] if isinstance(value, list) else value


def markdown_table(comparison: Comparison) -> str:
    """Return the table of the terminal as Markdown."""
    first = comparison.containers[0].totals
    names = [column.replace("-\n", "-").replace("\n", " ") for column in COLUMNS]
    rows = [names, ["---", *["---:"] * (len(names) - 2), "---"]]
    rows += [list(table_row(first, c)) for c in comparison.containers]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def limiter_text(study: Comparison) -> str:
    """Return one sentence on what limits the last container of `study`."""
    result = study.containers[-1]
    shares = limiter_shares(result)
    parts = [f"{p} {100 * shares[p]:.0f} %" for p in LIMITERS if shares[p] >= 0.005]
    return (
        f"With one codec unit a channel ({study.machine.name}), {result.container} takes "
        f"{significant(result.totals.time_ns / 1e6)} ms, of which by what limits it: "
        f"{', '.join(parts)}."
    )


def readme_block(comparison: Comparison, study: Comparison) -> str:
    """Return the generated part of README.md."""
    detail = f"{comparison.machine.name}, memory in {comparison.machine.memory_detail} detail"
    return "\n\n".join(
        [
            f"`{comparison.trace.path}` on {detail} ({comparison.machine.memory_note}):",
            markdown_table(comparison),
            " ".join(headline(comparison)) + " " + limiter_text(study),
            "![Time and bandwidth of the sample trace in each container](docs/figures/time.svg)",
        ]
    )


def devices_block() -> str:
    """Return the generated part of docs/dram.md: a line a device."""
    rows = [
        ["device", "GB/s", "access", "banks", "row", "size", "core pJ/bit, read", "interface"],
        ["---", *["---:"] * 7],
    ]
    rows += [_device_row(load_device(name)) for name in presets()]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    sources = [f"- `{name}`: {source}." for name, _, source in devices()]
    return "\n".join([*lines, "", "Where the numbers come from:", "", *sources])


def _device_row(device: Device) -> list[str]:
    counts = DramCounts(act=0, rd=1, wr=0, ref=0, active_cycles=0, precharge_cycles=0)
    core = dram_core_pj(counts, device.currents, device.energy_timing).rd
    return [
        f"`{device.name}`",
        f"{device.peak_gbps:.1f}",
        f"{device.access_bytes} B",
        f"{device.banks} in {device.bank_groups}" if device.bank_groups > 1 else f"{device.banks}",
        f"{device.row_bytes // 1024} KiB",
        f"{device.capacity_bytes / 2**30:g} GiB",
        f"{core / device.access_bytes / 8:.2f}",
        f"{dram_interface_pj_per_bit(device.kind):.1f}",
    ]


def with_block(text: str, block: str) -> str:
    """Return `text` with what stands between the markers replaced by `block`."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def write_page(path: Path, block: str) -> None:
    """Write `block` between the markers of the page at `path`."""
    path.write_text(with_block(path.read_text(), block))


def reference_runs(folder: Path) -> list[Run]:
    """Run every reference run of `folder` here."""
    from sfpsim.testing import validate_dram

    made: dict[str, Any] = {}
    found = []
    for row in validate_dram.reference_rows(folder):
        access = row["access_bytes"]
        made[access] = made.get(access) or validate_dram.traces(int(access))
        runs = [validate_dram.run(folder, row, made[access][row["trace"]]) for _ in range(3)]
        found.append(_reference_run(row, min(runs, key=lambda result: result.cpu_s)))
    return found


def _reference_run(row: dict[str, str], result: DramResult) -> Run:
    core = [getattr(result.energy_pj, key) for key in CORE]
    ours = result.cycles, result.counts.act, sum(core), result.avg_read_latency_ns
    names = ("cycles", "n_act", "e_total_pj", "avg_read_latency_ns")
    theirs = (float(row[name]) if row[name] else None for name in names)
    return Run(
        reference=row["simulator"],
        device=row["config"],
        trace=row["trace"],
        requests=result.requests,
        ours=dict(zip(QUANTITIES, ours, strict=True)),
        theirs=dict(zip(QUANTITIES, theirs, strict=True)),
        cpu_s=result.cpu_s,
        cpu_s_ref=float(row["cpu_s"]) if row["cpu_s"] else None,
    )


def write_validation(folder: Path) -> None:
    """Write the tables and the picture of docs/dram-validation.md."""
    found = reference_runs(folder)
    picture = rendered(validation_figure(found).figure, "svg")
    (DOCS / "figures" / "dram-validation.svg").write_bytes(picture)
    write_page(DOCS / "dram-validation.md", validation_block(found))


def write_readme(folder: Path) -> None:
    """Write the numbers and the picture of README.md."""
    comparison = load_result(folder / "results.json")
    study = load_result(folder / "one-unit.json")
    picture = next(f for f in draw(comparison) if f.name == "time")
    (DOCS / "figures" / "time.svg").write_bytes(rendered(picture.figure, "svg"))
    write_page(README, readme_block(comparison, study))


def write_tradeoff(folder: Path) -> None:
    """Write the picture of docs/zoo.md."""
    picture = next(f for f in draw(load_result(folder / "results.json")) if f.name == "tradeoff")
    (DOCS / "figures" / "tradeoff.svg").write_bytes(rendered(picture.figure, "svg"))


def main(arguments: list[str]) -> None:
    """Write everything."""
    for name, text in schema_texts().items():
        (DOCS / "schema" / name).write_text(text)
    write_page(DOCS / "dram.md", devices_block())
    for given in map(Path, arguments):
        if (given / "devices").is_dir():
            write_validation(given)
        elif (given / "one-unit.json").is_file():
            write_readme(given)
        else:
            write_tradeoff(given)


if __name__ == "__main__":
    main(sys.argv[1:])
