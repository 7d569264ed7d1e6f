"""Writes the generated parts of the docs: ``python docs/generate.py [DEMO_FOLDER]``.

Always the JSON Schema of every result (docs/schema). With the folder that ``sfpsim demo``
wrote, also the picture and the numbers of README.md, between its markers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from sfpsim.experiment.explain import load_result
from sfpsim.experiment.result import Comparison
from sfpsim.report.documents import RESULTS
from sfpsim.report.figures import draw, rendered
from sfpsim.report.summary import headline
from sfpsim.report.table import COLUMNS, LIMITERS, limiter_shares, significant, table_row

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
BEGIN, END = "<!-- begin: written by make docs -->", "<!-- end: written by make docs -->"


def schema_texts() -> dict[str, str]:
    """Return the JSON Schema of every result, by file name."""
    return {f"{name}.json": _schema_text(name, kind) for name, kind in RESULTS.items()}


def _schema_text(name: str, kind: Any) -> str:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"sfpsim {name} --json",
        **msgspec.json.schema(kind),
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


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


def with_block(text: str, block: str) -> str:
    """Return `text` with what stands between the markers replaced by `block`."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def main(arguments: list[str]) -> None:
    """Write everything."""
    for name, text in schema_texts().items():
        (DOCS / "schema" / name).write_text(text)
    if arguments:
        folder = Path(arguments[0])
        comparison = load_result(folder / "results.json")
        study = load_result(folder / "one-unit.json")
        picture = next(f for f in draw(comparison) if f.name == "time")
        (DOCS / "figures" / "time.svg").write_bytes(rendered(picture.figure, "svg"))
        README.write_text(with_block(README.read_text(), readme_block(comparison, study)))


if __name__ == "__main__":
    main(sys.argv[1:])
