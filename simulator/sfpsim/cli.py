"""The command line; see ``sfpsim COMMAND --help``. Every command loads what it needs."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from sfpsim._version import __version__
from sfpsim.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="What a training run would cost if its tensors lay in off-chip memory in another "
    "container.",
)
DEMO_CONTAINERS = ("fp32", "bf16", "gecko-bias", "gecko-delta", "sfp:m=4,e=5",
                   "sfp:m=4,exponent=gecko-bias", "sfp:m=1,e=4")  # fmt: skip
DEMO_MACHINES = ("sfp-2024", "sfp-2024-one-unit")

Json = Annotated[str | None, typer.Option("--json", help="Write JSON to FILE; - for stdout.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for figures and the report.")]
MachineName = Annotated[str, typer.Option("--machine", help="A preset or a YAML file.")]
DetailName = Annotated[
    str | None, typer.Option("--detail", help="bandwidth or detailed; the machine's by default.")
]
PerTensor = Annotated[bool, typer.Option("--per-tensor", help="List every tensor in the JSON.")]


def _say(text: Any, quiet: bool = False) -> None:
    if not quiet:
        from rich.console import Console

        width = None if sys.stdout.isatty() else 120
        Console(width=width).print(text)


def _write_json(target: str | None, data: bytes) -> None:
    if target == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    elif target is not None:
        from sfpsim.trace.writer import write_atomically

        write_atomically(Path(target), data)


def _plain_json(target: str | None, value: Any) -> None:
    _write_json(target, (json.dumps(value, indent=2) + "\n").encode())


@contextmanager
def _progress() -> Iterator[Callable[[float, str], None] | None]:
    """Yield a progress callback with a bar on standard error; None where it is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda done, label: bar.update(task, completed=done, description=label)


def _compare(
    trace: Any, policies: list[str], machine: str, detail: str | None = None,
    per_tensor: bool = False,
) -> Any:  # fmt: skip
    from sfpsim.experiment.compare import compare

    with _progress() as bar:
        return compare(
            trace, policies, machine=machine, detail=detail,  # type: ignore[arg-type]
            per_tensor=per_tensor, progress=bar,
        )  # fmt: skip


def _deliver(result: Any, target: str | None, out: Path | None) -> None:
    """Show, write and draw a comparison."""
    from sfpsim.report.table import comparison_table

    if out is not None:
        from sfpsim.report.write import write_report

        write_report(result, out)
    if target is not None:
        from sfpsim.report.write import to_json

        _write_json(target, to_json(result))
    _say(comparison_table(result), quiet=target == "-")
    if out is not None:
        _say(f"report: {out / 'report.html'}", quiet=target == "-")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("demo-out"),
    target: Json = None,
) -> None:
    """Replay and compare the sample trace in the package (no torch needed)."""
    from importlib import resources

    from sfpsim.report.table import limiter_table
    from sfpsim.trace.reader import open_trace

    with resources.as_file(resources.files("sfpsim") / "sample" / "resnet8") as folder:
        trace = open_trace(folder)
        trace.label = "sample/resnet8"
        result = _compare(trace, list(DEMO_CONTAINERS), DEMO_MACHINES[0])
        study = _compare(trace, ["fp32", DEMO_CONTAINERS[-1]], DEMO_MACHINES[1])
    _deliver(result, target, out)
    _say(limiter_table(result), quiet=target == "-")
    _say(limiter_table(study), quiet=target == "-")


@app.command()
def info(trace: Path, target: Json = None) -> None:
    """Say what is in a trace."""
    from sfpsim.trace.info import trace_info
    from sfpsim.trace.reader import open_trace

    found = trace_info(open_trace(trace))
    _plain_json(target, found)
    for key, value in found.items():
        _say(f"{key}: {json.dumps(value)}", quiet=target == "-")


@app.command()
def replay(
    trace: Path,
    container: Annotated[str, typer.Option("--container", "-c", help="A container or policy.")],
    machine: MachineName = "sfp-2024",
    detail: DetailName = None,
    per_tensor: PerTensor = False,
    out: Out = None,
    target: Json = None,
) -> None:
    """Replay a trace under one policy: time, bandwidth, energy, limiter by layer and pass."""
    from sfpsim.report.table import limiter_table
    from sfpsim.trace.reader import open_trace

    result = _compare(open_trace(trace), [container], machine, detail, per_tensor)
    _deliver(result, target, out)
    _say(limiter_table(result), quiet=target == "-")


@app.command()
def compare(
    trace: Path,
    containers: Annotated[
        list[str] | None, typer.Option("--containers", "-c", help="Comma list; may be repeated.")
    ] = None,
    machine: MachineName = "sfp-2024",
    detail: DetailName = None,
    per_tensor: PerTensor = False,
    out: Out = None,
    target: Json = None,
) -> None:
    """Compare many containers or policies side by side."""
    from sfpsim.containers.registry import split_list
    from sfpsim.trace.reader import open_trace

    given = containers or ["fp32,bf16,gecko-bias,gecko-delta"]
    policies = [
        p
        for text in given
        for p in ([text] if ";" in text or "all=" in text else split_list([text]))
    ]
    _deliver(_compare(open_trace(trace), policies, machine, detail, per_tensor), target, out)


@app.command()
def explain(a: Path, b: Path, target: Json = None) -> None:
    """Say why two results differ: from A to B in steps that add up."""
    from rich.table import Table

    from sfpsim.experiment.explain import explain as steps
    from sfpsim.experiment.explain import first_totals

    found = steps(first_totals(_load(a), str(a)), first_totals(_load(b), str(b)))
    _plain_json(target, {"schema": 1, "steps": [{"label": k, "value": v} for k, v in found]})
    table = Table("step", "value")
    for label, value in found:
        table.add_row(label, f"{value:,.0f}")
    _say(table, quiet=target == "-")


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a JSON file") from error


@app.command()
def encode(
    file: Path,
    container: Annotated[str, typer.Option("--container", "-c", help="The container.")],
    output: Annotated[Path, typer.Option("-o", help="The .sfp file to write.")],
    tensor: Annotated[str | None, typer.Option("--tensor", help="Which tensor of FILE.")] = None,
) -> None:
    """Write a tensor as the real bitstream, with a header and checksums."""
    from sfpsim.containers.bitstream import write_sfp
    from sfpsim.containers.registry import parse_container
    from sfpsim.trace.reader import open_trace

    trace = open_trace(file)
    named = {record.name: record for record in trace.records}
    if tensor is None and len(named) != 1:
        raise InputError(f"{file}: holds {len(named)} tensors: name one with --tensor")
    if tensor is not None and tensor not in named:
        raise InputError(
            f"{file}: no tensor {tensor!r}: there are {', '.join(list(named)[:5])}, ..."
        )
    record = named[tensor or next(iter(named))]
    values = trace.values(record)
    if not record.is_sampled and not trace.ordered:
        values = values.reshape(record.shape)
    written = write_sfp(output, parse_container(container), values, name=record.name)
    _say(f"{output}: {written} bytes for {values.nbytes} bytes of values")


@app.command()
def decode(
    file: Path, output: Annotated[Path, typer.Option("-o", help=".npy or .safetensors file.")]
) -> None:
    """Read an .sfp file back into a .npy or .safetensors file."""
    import io

    import numpy as np

    from sfpsim.containers.bitstream import read_sfp
    from sfpsim.trace.writer import write_atomically

    if output.suffix not in (".npy", ".safetensors"):
        raise InputError(f"{output}: allowed are .npy and .safetensors")
    values = read_sfp(file)
    if output.suffix == ".safetensors":
        from safetensors.numpy import save

        write_atomically(output, save({"tensor": values}))
        return
    if values.dtype.name == "bfloat16":
        raise InputError(f"{output}: .npy cannot hold bfloat16: give a .safetensors file")
    buffer = io.BytesIO()
    np.save(buffer, values)
    write_atomically(output, buffer.getvalue())


@app.command()
def verify(path: Path) -> None:
    """Check an .sfp file or a trace without decoding."""
    from sfpsim.trace.reader import open_trace

    if path.suffix == ".sfp":
        from sfpsim.containers.bitstream import verify_sfp

        verify_sfp(path)
    else:
        open_trace(path).verify()
    _say(f"{path}: sound")


@app.command("list")
def list_(what: str, target: Json = None) -> None:
    """List containers, machines or devices, one line each with its source."""
    found = _listing(what)
    _plain_json(target, [dict(zip(("name", "summary", "source"), x, strict=True)) for x in found])
    for name, summary, source in found:
        if target != "-":
            sys.stdout.write(f"{name}: {summary} [{source}]\n")


def _listing(what: str) -> list[tuple[str, str, str]]:
    if what == "containers":
        from sfpsim.containers.registry import known, parse_container

        made = [(name, parse_container(name)) for name in known()]
        return [(name, c.summary, c.source) for name, c in made]
    if what == "machines":
        from sfpsim.hardware.machine import machines

        return machines()
    if what == "devices":
        from sfpsim.hardware.dram.device import devices

        return devices()
    raise InputError(f"cannot list {what!r}: allowed are containers, machines, devices")


@app.command()
def bench(
    which: Annotated[str | None, typer.Argument(help="codec or replay; both by default.")] = None,
    target: Json = None,
) -> None:
    """Run the benchmarks, with memcpy in the same run."""
    from sfpsim.experiment.bench import bench as run

    found = run(which)
    _plain_json(target, found)
    for result in found["results"]:
        _say("  ".join(f"{k}={v}" for k, v in result.items()), quiet=target == "-")


@app.command()
def doctor(
    warmup: Annotated[
        bool, typer.Option("--warmup", help="Compile and cache the kernels.")
    ] = False,
) -> None:
    """Show versions, threads, the cache folder and optional parts."""
    from importlib import metadata

    _say(f"sfpsim {__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    for name in ("numpy", "numba", "simpy", "matplotlib", "msgspec", "torch", "zstandard", "lz4"):
        try:
            _say(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            _say(f"{name}: not installed")
    _say(f"kernel cache: {os.environ.get('NUMBA_CACHE_DIR', 'beside the package')}")
    if warmup:
        from importlib import resources

        from sfpsim.trace.reader import open_trace

        with resources.as_file(resources.files("sfpsim") / "sample" / "resnet8") as folder:
            _compare(open_trace(folder), list(DEMO_CONTAINERS), DEMO_MACHINES[0])
        _say("kernels compiled")


def _usable_cache() -> None:
    """Point numba to a temporary folder where its cache folder cannot be written."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given is None:
        return
    try:
        Path(given).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=given):
            pass
    except OSError:
        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="sfpsim-cache-")
        sys.stderr.write(
            f"sfpsim: cache folder {given} cannot be written; a temporary one is used\n"
        )


def main() -> None:
    """Run the command line; 2 on unusable input, 130 on Ctrl-C, 0 on a closed pipe."""
    _usable_cache()
    try:
        app(standalone_mode=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except (InputError, OSError) as error:
        text = (
            str(error) if isinstance(error, InputError) else f"{error.filename}: {error.strerror}"
        )
        sys.stderr.write(f"sfpsim: {' '.join(text.split())}\n")
        sys.exit(2)
