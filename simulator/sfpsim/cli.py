"""The command line; see ``sfpsim COMMAND --help``. Every command loads what it needs."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from sfpsim._version import __version__
from sfpsim.errors import InputError, one_of
from sfpsim.report.terminal import check_target, is_stdout, progress, say, write_json

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="What a training run would cost if its tensors lay in off-chip memory in another "
    "container.",
)
UsageError: Any = typer.BadParameter.__mro__[2]  # ClickException; typer does not export it
PLAIN_CONTAINERS = ("fp32", "bf16", "fp16", "gecko-bias", "gecko-delta")
DEMO_CONTAINERS = (*PLAIN_CONTAINERS, "sfp:m=4,e=5", "sfp:m=4,exponent=gecko-bias", "sfp:m=1,e=4")
DEMO_MACHINE, STUDY_MACHINE = "sfp-2024", "sfp-2024-one-unit"
STUDY_CONTAINERS = ("fp32", DEMO_CONTAINERS[-1], f"all={DEMO_CONTAINERS[-1]}")
LISTS = ("containers", "machines", "devices", "networks")
PARTS = ("numpy", "numba", "simpy", "matplotlib", "safetensors", "msgspec", "torch", "distributed",
         "onnx", "pandas", "zstandard", "lz4", "blosc2", "pcodec")  # fmt: skip

TracePath = Annotated[
    Path, typer.Argument(metavar="TRACE", help="A trace, or a .safetensors, .npz or .npy file.")
]
Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write JSON; - for standard output.")
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write figures and the report there.")
]
MachineName = Annotated[
    str, typer.Option("--machine", metavar="M", help="A machine's name, or a YAML file.")
]
DetailName = Annotated[
    str | None,
    typer.Option("--detail", help="bandwidth or detailed; the machine's own by default."),
]
TimelineFile = Annotated[
    Path | None,
    typer.Option("--timeline", metavar="FILE", help="Tracks and counters for Perfetto (.json.gz)."),
]
Sample = Annotated[
    float | None,
    typer.Option("--sample", metavar="FRACTION", help="Simulate windows of this share of the tiles "
                 "and extrapolate; fraction and error are shown."),
]  # fmt: skip
PerTensor = Annotated[bool, typer.Option("--per-tensor", help="List every tensor in the JSON.")]


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        say(f"sfpsim {__version__}")
    elif context.invoked_subcommand is None:
        say(context.get_help())


def split_policies(texts: list[str]) -> list[str]:
    """Split comma lists of containers and policies.

    A piece with ``=`` before any ``:`` continues the container before it, unless it begins
    with a role and ``=``, which begins a policy.

    Examples
    --------
    >>> split_policies(["fp32,sfp:m=4,e=5", "weight=bf16;activation=sfp,m=4"])
    ['fp32', 'sfp:m=4,e=5', 'weight=bf16;activation=sfp:m=4']
    """
    from sfpsim.containers.policy import ROLES

    out: list[str] = []
    for text in texts:
        fresh = True
        for piece in text.split(","):
            name, equals, _ = piece.partition(":")[0].partition("=")
            if equals and not fresh and name.strip() not in (*ROLES, "all"):
                out[-1] += ("," if ":" in out[-1].rpartition(";")[2] else ":") + piece
            else:
                out.append(piece)
            fresh = False
    return [policy.strip() for policy in out]


def _compare(
    trace: Any, policies: list[str], machine: str, detail: str | None = None,
    per_tensor: bool = False, out: Path | None = None, timeline: Path | None = None,
    export: tuple[Path, str] | None = None, sample: float | None = None,
) -> Any:  # fmt: skip
    """Compare; whatever can be wrong with what was asked for is found before any work.

    With `export`, a file and its format, the DRAM traffic of the only policy goes there.
    """
    from sfpsim.containers.policy import parse_policy
    from sfpsim.experiment.compare import compare, replay
    from sfpsim.hardware.machine import load_machine

    parsed, chosen = [parse_policy(p) for p in policies], load_machine(machine)
    if out is not None:
        from sfpsim.report.write import make_folder

        make_folder(out)
    steps: dict[str, Any] | None = None if timeline is None else {}
    with ExitStack() as stack:
        if export is not None:
            traffic = stack.enter_context(_traffic(*export, chosen.memory.channels))
        options: dict[str, Any] = {
            "machine": chosen, "detail": detail, "per_tensor": per_tensor, "timeline": steps,
            "sample": sample,
            "progress": stack.enter_context(progress("measuring")),
        }  # fmt: skip
        if export is None:
            found = compare(trace, parsed, **options)
        else:
            found = replay(trace, parsed[0], observer=traffic, **options)
    if timeline is not None and steps is not None:
        from sfpsim.report.timeline import write_timeline

        write_timeline({policy.spec: steps[policy.spec] for policy in parsed}, timeline)
    return found


def _traffic(path: Path, form: str, channels: int) -> Any:
    from sfpsim.interop.address_trace import FORMATS
    from sfpsim.interop.traffic import TrafficExport

    return TrafficExport(path, one_of("unknown trace format", form, FORMATS), channels)


def _deliver(
    result: Any, target: str | None, out: Path | None, document: Any = None
) -> None:  # fmt: skip
    """Show, write and draw a comparison; `document` is its JSON, itself where none is given."""
    from sfpsim.report.table import comparison_table

    if out is not None:
        import logging

        # matplotlib remarks on its own cache folder when it is imported
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        from sfpsim.report.write import write_report

        with progress("drawing"):
            write_report(result, out)
    write_json(target, result if document is None else document)
    say(comparison_table(result), quiet=is_stdout(target))
    if out is not None:
        say(f"report: {out / 'report.html'}", quiet=is_stdout(target))


def _sample() -> Any:
    """Return the sample trace inside the package."""
    from importlib import resources

    from sfpsim.trace.reader import open_trace

    trace = open_trace(Path(str(resources.files("sfpsim"))) / "sample" / "resnet8")
    trace.label = "sample/resnet8"
    return trace


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")] = (
        Path("demo-out")
    ),
    timeline: TimelineFile = None,
    target: Json = None,
) -> None:
    """Replay the sample trace in every container."""
    from sfpsim.report.table import limiter_table
    from sfpsim.report.write import write_result

    check_target(target)
    trace = _sample()
    result = _compare(trace, list(DEMO_CONTAINERS), DEMO_MACHINE, out=out, timeline=timeline)
    study = _compare(trace, list(STUDY_CONTAINERS), STUDY_MACHINE)
    write_result(study, out / "one-unit.json")
    _deliver(result, target, out)
    say(limiter_table(result), quiet=is_stdout(target))
    say(limiter_table(study), quiet=is_stdout(target))


@app.command()
def info(trace: TracePath, target: Json = None) -> None:
    """Say what is in a trace."""
    from sfpsim.report.table import info_tables
    from sfpsim.trace.info import trace_info
    from sfpsim.trace.reader import open_trace

    check_target(target)
    with progress("reading"):
        found = trace_info(open_trace(trace))
    write_json(target, found)
    for table in info_tables(found):
        say(table, quiet=is_stdout(target))


@app.command()
def replay(
    trace: TracePath,
    container: Annotated[
        list[str],
        typer.Option("--container", "-c", metavar="C", help="A container, or a policy by role."),
    ],
    machine: MachineName = DEMO_MACHINE,
    detail: DetailName = None,
    sample: Sample = None,
    per_tensor: PerTensor = False,
    out: Out = None,
    timeline: TimelineFile = None,
    export: Annotated[
        Path | None,
        typer.Option("--export-trace", metavar="FILE", help="Write the DRAM traffic as address "
                     "traces, one a channel (NAME.ch0.EXT, ...; .gz: compressed)."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--trace-format", metavar="F", help="Of --export-trace: dramsim3 (the "
                     "default), ramulator, stl or rstl."),
    ] = None,
    target: Json = None,
) -> None:  # fmt: skip
    """Replay a trace under one policy."""
    from sfpsim.report.table import layer_table, limiter_table, steps_table
    from sfpsim.trace.reader import open_trace

    policies = split_policies(container)
    if len(policies) != 1:
        raise InputError(
            f"replay takes one container, {len(policies)} given ({', '.join(policies)}): "
            "use compare for several"
        )
    if form is not None and export is None:
        raise InputError(f"--trace-format {form} goes with --export-trace FILE")
    check_target(target)
    traffic = (export, form or "dramsim3") if export is not None else None
    result = _compare(
        open_trace(trace), policies, machine, detail, per_tensor, out, timeline, traffic, sample
    )  # fmt: skip
    _deliver(result, target, out)
    tables = (steps_table(result), limiter_table(result), layer_table(result.containers[0]))
    for table in filter(None, tables):
        say(table, quiet=is_stdout(target))


@app.command()
def compare(
    trace: TracePath,
    containers: Annotated[
        list[str] | None,
        typer.Option(
            "--containers", "--container", "-c", metavar="C,C,...",
            help=f"Containers or policies; may be repeated. {','.join(PLAIN_CONTAINERS)} "
            "by default.",
        ),
    ] = None,
    machine: MachineName = DEMO_MACHINE,
    detail: DetailName = None,
    sample: Sample = None,
    per_tensor: PerTensor = False,
    out: Out = None,
    timeline: TimelineFile = None,
    target: Json = None,
) -> None:  # fmt: skip
    """Compare containers or policies side by side."""
    from sfpsim.report.table import steps_table
    from sfpsim.trace.reader import open_trace

    check_target(target)
    policies = split_policies(containers or list(PLAIN_CONTAINERS))
    found = _compare(
        open_trace(trace), policies, machine, detail, per_tensor, out, timeline, sample=sample
    )
    _deliver(found, target, out)
    if (table := steps_table(found)) is not None:
        say(table, quiet=is_stdout(target))


@app.command()
def network(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="See list networks; or a layer table or SCALE-Sim "
                       "topology (.csv), or an ONNX model (.onnx)."),
    ],
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="Samples a step.")] = 1,
    containers: Annotated[
        list[str] | None,
        typer.Option("--containers", "--container", "-c", metavar="C,C,...",
                     help="As for compare."),
    ] = None,
    machine: MachineName = DEMO_MACHINE,
    mode: Annotated[
        str, typer.Option("--mode", metavar="MODE", help="training or inference.")
    ] = "training",
    profile: Annotated[
        Path | None,
        typer.Option("--profile", metavar="TRACE",
                     help="The captured training whose values stand for the network's; the "
                     "package's sample by default."),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option("--lengths", metavar="M,E|B",
                     help="Mean mantissa and exponent bits that a bare sfp takes, or mean bits a "
                     "layer that a bare int takes."),
    ] = None,
    detail: DetailName = None,
    optimizer: Annotated[
        str, typer.Option("--optimizer", metavar="O", help="sgd, momentum or adam.")
    ] = "momentum",
    master: Annotated[
        bool,
        typer.Option("--master-weights", help="Update an FP32 master copy of the weights, which "
                     "is of role optimizer; products read the copy of role weight."),
    ] = False,
    stash: Annotated[
        str,
        typer.Option("--stash", metavar="S", help="paper (inputs of products) or autograd (what "
                     "PyTorch saves)."),
    ] = "paper",
    recompute: Annotated[
        str, typer.Option("--recompute", metavar="R", help="none, normalisation or full.")
    ] = "none",
    fusion: Annotated[
        str, typer.Option("--fusion", metavar="F", help="none, producer or full.")
    ] = "full",
    sample: Sample = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="B,B,...", help="Bases to state gains against: fp32, "
                     "bf16, fp8 (all three by default), policies, or none."),
    ] = None,
    out: Out = None,
    timeline: TimelineFile = None,
    target: Json = None,
) -> None:  # fmt: skip
    """Simulate a published network's training or inference step."""
    from sfpsim.experiment.network import BASES, simulate_network
    from sfpsim.report.network import gains_table, step_table, traffic_table
    from sfpsim.report.table import limiter_table
    from sfpsim.trace.reader import open_trace

    check_target(target)
    policies = split_policies(containers or list(PLAIN_CONTAINERS))
    options = _step_options(optimizer, master, stash, recompute, fusion)
    bases = split_policies(against) if against else list(BASES)
    steps: dict[str, Any] | None = None if timeline is None else {}
    values = _sample() if profile is None else open_trace(profile)
    if out is not None:
        from sfpsim.report.write import make_folder

        make_folder(out)
    with progress("replaying") as bar:
        result, comparison = simulate_network(
            name, policies, batch=batch, profile=values, machine=machine, detail=detail,
            lengths=_lengths(lengths), mode=mode, options=options, progress=bar, sample=sample,
            timeline=steps, against=[] if bases == ["none"] else bases,
        )  # fmt: skip
    if timeline is not None and steps is not None:
        from sfpsim.report.timeline import write_timeline

        asked = [c.container for c in comparison.containers]
        write_timeline({spec: steps[spec] for spec in asked}, timeline)
    _deliver(comparison, target, out, result)
    if out is not None:
        from sfpsim.report.network_figures import write_network

        write_network(result, machine, out)
    quiet = is_stdout(target)
    say(step_table(result.containers[-1]), quiet=quiet)
    say(traffic_table(result), quiet=quiet)
    if result.containers[-1].gains:
        say(gains_table(result), quiet=quiet)
    say(limiter_table(comparison), quiet=is_stdout(target))


def _step_options(
    optimizer: str, master: bool, stash: str, recompute: str, fusion: str
) -> Any:  # fmt: skip
    from sfpsim.workload.layers import FUSIONS, OPTIMIZERS, RECOMPUTES, STASHES, StepOptions

    return StepOptions(
        optimizer=one_of("optimizer", optimizer, OPTIMIZERS), master=master,
        stash=one_of("stash", stash, STASHES), recompute=one_of("recompute", recompute, RECOMPUTES),
        fusion=one_of("fusion", fusion, FUSIONS),
    )  # fmt: skip


def _lengths(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if len(found) not in (1, 2):
        raise InputError(f"--lengths {text}: two numbers, for example 1.9,3.5, or one for int")
    return found


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The grid; see docs/sweep.md.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the points; it resumes.")
    ] = Path("sweep-out"),
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", help="Local processes; all cores by default.")
    ] = 0,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Of a Dask cluster.")
    ] = None,
    target: Json = None,
) -> None:
    """Replay a grid of points, resumable."""
    from sfpsim.experiment.sweep import load_sweep, run_sweep
    from sfpsim.report.sweep import sweep_table, write_sweep

    check_target(target)
    points = load_sweep(file)
    if workers < 0:
        raise InputError(f"--workers {workers}: must be 0 (all cores) or more")
    with progress("sweeping") as bar:
        results = run_sweep(
            points, out, workers=workers or os.cpu_count() or 1, scheduler=scheduler, progress=bar
        )
    found = write_sweep(results, out)
    write_json(target, found)
    say(sweep_table(results), quiet=is_stdout(target))
    failed = [r for r in results if r.error is not None]
    for r in failed:
        sys.stderr.write(f"sfpsim: point {r.point.hash} failed: {r.error}\n")
    say(f"{len(results) - len(failed)} points in {out}, {len(failed)} failed",
        quiet=is_stdout(target))  # fmt: skip


@app.command()
def explain(
    a: Annotated[
        Path, typer.Argument(metavar="A.json", help="A result of replay, compare or network.")
    ],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another one.")],
    container_a: Annotated[
        str | None, typer.Option("--from", metavar="C", help="Container of A; the last one.")
    ] = None,
    container_b: Annotated[
        str | None, typer.Option("--to", metavar="C", help="Container of B; the last one.")
    ] = None,
    target: Json = None,
) -> None:
    """Say why two results differ, in steps that add up."""
    from sfpsim.experiment.explain import explain as compute
    from sfpsim.experiment.explain import load_any
    from sfpsim.report.table import explanation_tables

    check_target(target)
    found = compute(
        load_any(a), load_any(b), container_a=container_a, container_b=container_b,
        path_a=str(a), path_b=str(b),
    )  # fmt: skip
    write_json(target, found)
    for table in explanation_tables(found):
        say(table, quiet=is_stdout(target))


def _pick_tensor(trace: Any, name: str | None, file: Path) -> Any:
    named = {record.name: record for record in trace.records}
    some = ", ".join(list(named)[:5]) + (", ..." if len(named) > 5 else "")
    if name is None and len(named) != 1:
        raise InputError(f"{file}: holds {len(named)} tensors ({some}): name one with --tensor")
    if name is not None and name not in named:
        raise InputError(f"{file}: no tensor {name!r}: there are {some}")
    return named[name or next(iter(named))]


@app.command()
def encode(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A trace or a file of arrays.")],
    container: Annotated[
        str, typer.Option("--container", "-c", metavar="C", help="The container.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT.sfp", help="The file to write.")
    ],
    tensor: Annotated[
        str | None, typer.Option("--tensor", metavar="NAME", help="Which tensor of FILE.")
    ] = None,
    target: Json = None,
) -> None:
    """Write a tensor as the real bitstream."""
    from sfpsim.containers.bitstream import write_sfp
    from sfpsim.trace.reader import open_trace

    check_target(target)
    trace = open_trace(file)
    record = _pick_tensor(trace, tensor, file)
    form = _container_for(record, container)
    values = trace.values(record)
    if not trace.ordered:
        values = values.reshape(record.shape)
    with progress("encoding"):
        written = write_sfp(output, form, values, name=record.name)
        sizes = form.measure(values)
    found = _encoding(str(output), record.name, form.spec, values.dtype.name, sizes, written)
    write_json(target, found)
    part = f", a sample of {record.values} values" if record.is_sampled else ""
    say(
        f"{output}: {record.name}{part} as {form.spec}: {sizes.total_bits // 8} bytes for "
        f"{values.nbytes}, {written} with header and checksums", quiet=is_stdout(target),
    )  # fmt: skip


def _container_for(record: Any, spec: str) -> Any:
    """Return the one container that `spec` names, at the record's lengths in force."""
    from sfpsim.containers.registry import parse_list
    from sfpsim.containers.sfp import SfpFromTrace

    chosen = parse_list([spec])
    if len(chosen) != 1:
        raise InputError(f"encode takes one container, {len(chosen)} given: {spec}")
    form = chosen[0]
    if isinstance(form, SfpFromTrace) and record.lengths is not None:
        return form.resolve(record.lengths.mantissa_bits, record.lengths.exponent_bits)
    return form


def _encoding(
    path: str, tensor: str, container: str, dtype: str, sizes: Any, file_bytes: int
) -> dict[str, Any]:
    from dataclasses import asdict

    parts = asdict(sizes)
    parts.pop("nan_lost")
    return {
        "schema": 1, "path": path, "tensor": tensor, "container": container, "dtype": dtype,
        **parts, "total_bits": sizes.total_bits, "ratio": sizes.ratio, "file_bytes": file_bytes,
    }  # fmt: skip


@app.command()
def decode(
    file: Annotated[Path, typer.Argument(metavar="FILE.sfp", help="What encode wrote.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help=".npy or .safetensors.")
    ],
    target: Json = None,
) -> None:
    """Read a bitstream back into an array file."""
    from sfpsim.containers.bitstream import read_sfp, verify_sfp
    from sfpsim.report.write import write_array

    check_target(target)
    with progress("decoding"):
        header = verify_sfp(file)
        values = read_sfp(file)
        write_array(output, header.name or "tensor", values)
    write_json(target, {
        "schema": 1, "path": str(output), "tensor": header.name, "container": header.container,
        "dtype": values.dtype.name, "shape": list(values.shape),
    })  # fmt: skip
    say(f"{output}: {values.dtype.name} {list(values.shape)}", quiet=is_stdout(target))


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="An .sfp file or a trace.")],
    target: Json = None,
) -> None:
    """Check an .sfp file or a trace without decoding."""
    check_target(target)
    with progress("checking"):
        if _is_sfp(path):
            from sfpsim.containers.bitstream import verify_sfp

            verify_sfp(path)
            kind, tensors = "sfp", 1
        else:
            from sfpsim.trace.reader import open_trace

            trace = open_trace(path)
            trace.verify()
            kind, tensors = "trace", len(trace.records)
    found = {"schema": 1, "path": str(path), "kind": kind, "tensors": tensors, "sound": True}
    write_json(target, found)
    say(f"{path}: sound, {tensors} tensor{'s' * (tensors != 1)}", quiet=is_stdout(target))


def _is_sfp(path: Path) -> bool:
    """Whether `path` is named, or begins, like a bitstream."""
    from sfpsim.containers.bitstream import MAGIC

    if path.suffix == ".sfp" or not path.is_file():
        return path.suffix == ".sfp"
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


@app.command()
def dram(
    trace: Annotated[
        Path, typer.Argument(metavar="TRACEFILE", help="An address trace, plain or gzip.")
    ],
    device: Annotated[
        str,
        typer.Option("--device", "-d", metavar="D", help="A device, a YAML file or DRAMsim3 .ini."),
    ],
    policy: Annotated[
        str, typer.Option("--policy", metavar="P", help="default, dramsim3, ramulator or dramsys.")
    ] = "default",
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="F", help="dramsim3, ramulator, stl or rstl; else found "
                     "from the file."),
    ] = None,
    target: Json = None,
) -> None:  # fmt: skip
    """Run an address trace on one memory device."""
    from sfpsim.hardware.dram.device import load_device
    from sfpsim.report.table import dram_tables

    check_target(target)
    chosen = load_device(device)
    with progress("running") as bar:
        found = _run_trace(trace, chosen, policy, form, bar)
    write_json(target, found)
    for table in dram_tables(found, chosen):
        say(table, quiet=is_stdout(target))


def _run_trace(trace: Path, device: Any, policy: str, form: str | None, bar: Any) -> Any:
    from sfpsim.hardware.dram.simulate import POLICIES, simulate
    from sfpsim.interop.address_trace import (
        FORMATS,
        detect_format,
        read_trace,
        vector_layout,
    )

    controller = one_of("unknown policy", policy, POLICIES)
    requests = read_trace(
        trace,
        one_of("unknown trace format", form, FORMATS) if form else detect_format(trace),
        limit_bytes=device.capacity_bytes * device.channels,
        burst_bytes=device.access_bytes,
        vectors=vector_layout(device),
        progress=bar,
    )
    return simulate(requests, device, controller)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="|".join(LISTS), help="What to list.")],
    target: Json = None,
) -> None:
    """List containers, machines or devices."""
    check_target(target)
    found = _listing(what)
    keys = ("name", "summary", "source")
    write_json(target, {"schema": 1, what: [dict(zip(keys, x, strict=True)) for x in found]})
    for name, summary, source in found:
        say(f"{name}: {summary} [{source}]", quiet=is_stdout(target))


def _container_summary(name: str) -> tuple[str, str]:
    """Return summary and source; of a plug-in that gives no bare container, why not."""
    from sfpsim.containers.registry import EXAMPLES, parse_container

    try:
        container = parse_container(EXAMPLES.get(name, name))
    except InputError as error:
        return f"not without keys, or not at all: {' '.join(str(error).split())}", "a plug-in"
    example = f" (as in {EXAMPLES[name]})" if name in EXAMPLES else ""
    return container.summary + example, container.source


def _listing(what: str) -> list[tuple[str, str, str]]:
    if what == "containers":
        from sfpsim.containers.registry import known

        return [(name, *_container_summary(name)) for name in known()]
    if what == "machines":
        from sfpsim.hardware.machine import machines

        return machines()
    if what == "devices":
        from sfpsim.hardware.dram.device import devices

        return devices()
    if what == "networks":
        from sfpsim.workload.networks import networks

        return networks()
    raise InputError(f"cannot list {what!r}: allowed are {', '.join(LISTS)}")


@app.command()
def bench(
    which: Annotated[
        str | None, typer.Argument(metavar="[codec|dram|replay]", help="All by default.")
    ] = None,
    target: Json = None,
) -> None:
    """Run the benchmarks, with memcpy in the same run."""
    from sfpsim.experiment.bench import bench as run
    from sfpsim.report.table import bench_table

    check_target(target)
    with progress("timing"):
        found = run(which)
    write_json(target, found)
    say(bench_table(found), quiet=is_stdout(target))


@app.command()
def doctor(
    warmup: Annotated[
        bool, typer.Option("--warmup", help="Compile and cache the kernels.")
    ] = False,
    target: Json = None,
) -> None:
    """Show versions, threads, cache and optional parts."""
    from sfpsim.report.table import mapping_table

    check_target(target)
    found = _installation()
    if warmup:
        trace = _sample()
        trace.records = [r for r in trace.records if r.step == trace.steps[0]]
        _compare(trace, list(DEMO_CONTAINERS), DEMO_MACHINE)
    write_json(target, found)
    say(mapping_table({k: v for k, v in found.items() if k != "schema"}), quiet=is_stdout(target))


def _installation() -> dict[str, Any]:
    from importlib import metadata

    from sfpsim.containers.registry import known

    parts: dict[str, str | None] = {}
    for name in PARTS:
        try:
            parts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            parts[name] = None
    folder = _cache_folder()
    return {
        "schema": 1,
        "sfpsim": __version__,
        "python": sys.version.split()[0],
        "cores": os.cpu_count() or 1,
        "numba_threads": os.environ.get("NUMBA_NUM_THREADS"),
        "cache_folder": str(folder),
        "cache_writable": _writable(folder),
        "parts": parts,
        "containers": list(known()),
    }


def _cache_folder() -> Path:
    """Return where compiled kernels are kept."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    return Path(given) if given else Path(__file__).parent / "__pycache__"


def _writable(folder: Path) -> bool:
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _usable_cache() -> None:
    """Let kernels be kept where the folder asked for, or the package's, cannot be written."""
    if _writable(_cache_folder()):
        return
    given = os.environ.get("NUMBA_CACHE_DIR")
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "sfpsim"
    if given is None and _writable(own):
        os.environ["NUMBA_CACHE_DIR"] = str(own)
        return
    import atexit
    import shutil
    import tempfile

    temporary = tempfile.mkdtemp(prefix="sfpsim-cache-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    os.environ["NUMBA_CACHE_DIR"] = temporary
    sys.stderr.write(
        f"sfpsim: cache folder {given or own} cannot be written; a temporary one is used\n"
    )


def run(arguments: list[str]) -> int:
    """Run one command; return the exit status: 0, 2 (unusable input), 130 (Ctrl-C).

    A closed pipe is no error. Anything unforeseen is 1, with its traceback only where
    SFPSIM_TRACEBACK is set.
    """
    command = typer.main.get_command(app)
    try:
        with command.make_context("sfpsim", list(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as stop:
        return int(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        _discard_output()
        return 0
    except Exception as error:
        return _failed(error)
    return 0


def _failed(error: Exception) -> int:
    status = 2
    if isinstance(error, UsageError):
        context = getattr(error, "ctx", None)
        text = (
            f"{error.format_message()} (see {context.command_path if context else 'sfpsim'} --help)"
        )
    elif isinstance(error, InputError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "out of memory"
    elif isinstance(error, OSError):
        text = f"{error.filename or 'standard output'}: {error.strerror or error}"
        if error.filename is None:
            _discard_output()
    else:
        if os.environ.get("SFPSIM_TRACEBACK"):
            raise error
        status = 1
        text = f"unforeseen {type(error).__name__}: {error} (SFPSIM_TRACEBACK=1 shows where)"
    sys.stderr.write(f"sfpsim: {' '.join(text.split())}\n")
    return status


def _discard_output() -> None:
    """Let what is still to be written go nowhere, so that leaving is quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    """Show the package's own warnings in one line; others are for developers."""
    if category is UserWarning:
        sys.stderr.write(f"sfpsim: warning: {message}\n")


def main() -> None:
    """Run the command line and exit."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    _usable_cache()
    warnings.showwarning = _show_warning
    sys.exit(run(sys.argv[1:]))
