"""Grids of replays: independent points, each with a result file of its own, resumable.

A sweep file is YAML: what is replayed, and lists of values. Every combination is a point::

    network: [resnet18, mobilenet_v2]     # or  trace: run.trace
    batch: [1, 8]
    container: ["bf16", "sfp:m={m},e=4"]
    m: [1, 2, 4]
    machine: sfp-2024
    codec_units: [1, 2, 4]

Names in braces of `container` are keys of the grid; a container without them is one point
for all their values. `block_values` stands for ``block=`` behind every container.
``machine.PART.KEY`` changes one number of the machine; `bandwidth_gbps`, `codec_units` and
`fifo_bytes` are short for what is changed most.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import string
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from sfpsim._version import __version__
from sfpsim.containers.policy import with_blocks
from sfpsim.errors import InputError, one_of
from sfpsim.experiment.compare import compare
from sfpsim.experiment.network import simulate_network
from sfpsim.experiment.result import Struct
from sfpsim.hardware.machine import Machine, load_machine
from sfpsim.trace.reader import open_trace
from sfpsim.trace.writer import write_atomically
from sfpsim.workload.layers import FUSIONS, OPTIMIZERS, RECOMPUTES, STASHES, StepOptions

STEP_KEYS = ("lengths", "mode", "optimizer", "master_weights", "stash", "recompute", "fusion")
KEYS = (
    "trace", "network", "profile", "batch", "container", "block_values", "machine", "detail",
    "sample", *STEP_KEYS,
)  # fmt: skip
SHORT = {  # keys of the grid that change numbers of the machine; bandwidth: see `_channels`
    "bandwidth_gbps": ("memory.channels",),
    "codec_units": ("codec.compressors", "codec.decompressors"),
    "fifo_bytes": ("codec.fifo_bytes",),
}
MOST_POINTS = 1_000_000


class Point(Struct, frozen=True, kw_only=True):
    """One combination: what is replayed how; `keys` are the grid's values of it."""

    trace: str | None = None
    network: str | None = None
    profile: str | None = None
    batch: int = 1
    container: str
    block_values: int | None = None
    machine: str = "sfp-2024"
    detail: str | None = None
    sample: float | None = None
    lengths: float | tuple[float, ...] | None = None
    mode: str = "training"
    optimizer: str = "momentum"
    master_weights: bool = False
    stash: str = "paper"
    recompute: str = "none"
    fusion: str = "full"
    changes: dict[str, int | float] = msgspec.field(default_factory=dict)
    keys: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def hash(self) -> str:
        """Sixteen hex digits over everything that decides the result."""
        text = msgspec.json.encode([__version__, msgspec.to_builtins(self)], order="deterministic")
        return hashlib.sha256(text).hexdigest()[:16]


class PointResult(Struct, frozen=True, kw_only=True):
    """What a point gave; `error` where it failed, and then nothing else."""

    point: Point
    machine_hash: str | None = None
    error: str | None = None
    time_ns: float | None = None
    traffic_bytes: int | None = None
    total_bits: int | None = None
    ratio: float | None = None
    sqnr_db: float | None = None
    energy_pj: float | None = None
    bandwidth_gbps: float | None = None
    limiter: str | None = None


class SweepResult(Struct, frozen=True, kw_only=True):
    """What ``sweep --json`` writes: every point; `pareto` are hashes, by time."""

    schema: int = 1
    sfpsim: str
    points: list[PointResult]
    pareto: list[str]


def load_sweep(path: str | Path) -> list[Point]:
    """Return the points of the sweep file `path`, each once, in the order of its lists.

    Raises
    ------
    InputError
        If the file is no sweep, or has a key that does not exist.
    """
    try:
        data = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: no sweep file: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or "container" not in data:
        raise InputError(
            f"{path}: a sweep is a mapping of keys to lists, with container among them"
        )
    if ("trace" in data) == ("network" in data):
        raise InputError(f"{path}: give either trace or network")
    lists = {str(key): value if isinstance(value, list) else [value] for key, value in data.items()}
    _check_keys(lists, path)
    count = 1
    for key, values in lists.items():
        if not values:
            raise InputError(f"{path}: {key} is an empty list")
        count *= len(values)
    if count > MOST_POINTS:
        raise InputError(f"{path}: {count} points: at most {MOST_POINTS}")
    points = {p.hash: p for p in _points(lists, path)}
    return list(points.values())


def _fields(containers: list[Any]) -> set[str]:
    return {
        name for text in containers for _, name, _, _ in string.Formatter().parse(str(text)) if name
    }  # fmt: skip


def _check_keys(lists: dict[str, list[Any]], path: str | Path) -> None:
    fields = _fields(lists["container"])
    for key in lists:
        known = key in (*KEYS, *SHORT) or key in fields or key.startswith("machine.")
        if not known:
            raise InputError(
                f"{path}: key {key!r} does not exist: allowed are {', '.join((*KEYS, *SHORT))}, "
                "machine.PART.KEY, and names in braces of container"
            )
        if key.startswith("machine."):
            _number_of(load_machine("sfp-2024"), key.removeprefix("machine."), str(path))
    if "trace" in lists and (wrong := [key for key in STEP_KEYS if key in lists]):
        raise InputError(f"{path}: key {wrong[0]!r} goes with network, not with trace")
    if missing := fields - set(lists):
        raise InputError(f"{path}: container names {sorted(missing)}, which the grid does not have")


def _points(lists: dict[str, list[Any]], path: str | Path) -> Iterator[Point]:
    for values in itertools.product(*lists.values()):
        given = dict(zip(lists, values, strict=True))
        text = str(given["container"])
        used = _fields([text])
        fixed = {key: given[key] for key in KEYS if key in given and key != "container"}
        changes = {
            k.removeprefix("machine."): v
            for k, v in given.items() if k.startswith("machine.") or k in SHORT
        }  # fmt: skip
        shown = {
            k: v for k, v in given.items()
            if k in KEYS or k in used or k in SHORT or k.startswith("machine.")
        }  # fmt: skip
        try:
            yield msgspec.convert(
                {
                    "container": text.format(**{k: given[k] for k in used}),
                    "changes": changes,
                    "keys": shown | {"container": text.format(**{k: given[k] for k in used})},
                    **fixed,
                },
                Point,
            )
        except msgspec.ValidationError as error:
            raise InputError(f"{path}: {error}") from error


def _number_of(machine: Machine, path: str, where: str = "") -> tuple[str, str]:
    """Return the part and the key of a number ``PART.KEY`` of a machine."""
    part, _, key = path.partition(".")
    inner = getattr(machine, part, None)
    value = getattr(inner, key, None) if isinstance(inner, msgspec.Struct) else None
    if not isinstance(value, int) or key not in getattr(inner, "__struct_fields__", ()):
        start = f"{where}: " if where else ""
        raise InputError(f"{start}machine.{path}: machine {machine.name} has no such number")
    return part, key


def _channels(machine: Machine, gbps: float) -> int:
    """Return how many channels of the machine's device make a peak of `gbps`."""
    count = gbps / machine.device.peak_gbps
    if round(count) < 1 or abs(count - round(count)) > 0.005 * count:
        raise InputError(
            f"bandwidth_gbps={gbps}: channels of {machine.memory.device} have "
            f"{machine.device.peak_gbps:g} GB/s each: give a multiple"
        )
    return round(count)


def changed_machine(name: str, changes: Mapping[str, int | float]) -> Machine:
    """Return the machine `name` with ``PART.KEY`` numbers, or those of `SHORT`, changed.

    Raises
    ------
    InputError
        If there is no such key, or a value is not allowed.
    """
    machine = load_machine(name)
    for given, value in changes.items():
        number = _channels(machine, value) if given == "bandwidth_gbps" else value
        if not isinstance(number, int):
            raise InputError(f"{given}={number}: a whole number is needed")
        for path in SHORT.get(given, (given,)):
            part, key = _number_of(machine, path)
            changed = msgspec.structs.replace(getattr(machine, part), **{key: number})
            machine = msgspec.structs.replace(machine, **{part: changed})
    return machine


def run_point(point: Point) -> PointResult:
    """Replay one point; a failure becomes its result."""
    try:
        return _replayed(point)
    except (InputError, OSError, RuntimeError, MemoryError) as error:
        return PointResult(point=point, error=f"{type(error).__name__}: {error}")


def _replayed(point: Point) -> PointResult:
    machine, policy = changed_machine(point.machine, point.changes), point.container
    if point.block_values is not None:
        policy = with_blocks(policy, point.block_values)
    if point.network is not None:
        profile = _sample() if point.profile is None else open_trace(point.profile)
        _, found = simulate_network(
            point.network, [policy], batch=point.batch, profile=profile,
            machine=machine, detail=point.detail, sample=point.sample, mode=point.mode,
            lengths=_lengths(point), options=_options(point),
        )  # fmt: skip
    else:
        found = compare(
            open_trace(str(point.trace)), [policy], machine=machine,
            detail=point.detail, sample=point.sample,
        )  # fmt: skip
    totals = found.containers[0].totals
    return PointResult(
        point=point,
        machine_hash=machine.hash,
        time_ns=totals.time_ns,
        traffic_bytes=totals.read_bytes + totals.write_bytes,
        total_bits=totals.total_bits,
        ratio=totals.ratio,
        sqnr_db=totals.sqnr_db,
        energy_pj=totals.energy_pj.total,
        bandwidth_gbps=totals.bandwidth_gbps,
        limiter=totals.limiter,
    )


def _lengths(point: Point) -> tuple[float, ...] | None:
    given = point.lengths
    return (float(given),) if isinstance(given, int | float) else given


def _options(point: Point) -> StepOptions:
    return StepOptions(
        optimizer=one_of("optimizer", point.optimizer, OPTIMIZERS), master=point.master_weights,
        stash=one_of("stash", point.stash, STASHES),
        recompute=one_of("recompute", point.recompute, RECOMPUTES),
        fusion=one_of("fusion", point.fusion, FUSIONS),
    )  # fmt: skip


def _sample() -> Any:
    from importlib import resources

    trace = open_trace(Path(str(resources.files("sfpsim"))) / "sample" / "resnet8")
    trace.label = "sample/resnet8"
    return trace


def _file(folder: Path, point: Point) -> Path:
    return folder / "points" / f"{point.hash}.json"


def run_and_write(point: Point, folder: Path) -> bool:
    """Replay `point` and write its result under its final name; return whether it succeeded."""
    found = run_point(point)
    write_atomically(_file(folder, point), msgspec.json.encode(found))
    return found.error is None


def run_sweep(
    points: list[Point], folder: str | Path, *, workers: int = 1, scheduler: str | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> list[PointResult]:  # fmt: skip
    """Run every point that has no result yet, and return all results in order.

    Parameters
    ----------
    points
        What `load_sweep` gives.
    folder
        Holds ``points/HASH.json``, a file a point; the same folder resumes a killed sweep.
        Failed points are tried again.
    workers
        Local processes.
    scheduler
        Address of a Dask scheduler, which then runs the points instead.
    progress
        Called with (share done, label).

    Raises
    ------
    InputError
        If the folder cannot be written or the scheduler cannot be reached.
    """
    where = Path(folder)
    try:
        (where / "points").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{where}: cannot be written: {error.strerror}") from error
    known = {p.hash: _read(where, p) for p in points}
    todo = [p for p in points if (r := known[p.hash]) is None or r.error is not None]
    done = len(points) - len(todo)
    for number, _ in enumerate(_outcomes(todo, where, workers, scheduler), 1):
        if progress is not None:
            progress((done + number) / len(points), f"{done + number} of {len(points)} points")
    return [found for p in points if (found := _read(where, p)) is not None]


def _read(folder: Path, point: Point) -> PointResult | None:
    try:
        return msgspec.json.decode(_file(folder, point).read_bytes(), type=PointResult)
    except (OSError, msgspec.DecodeError):
        return None


def _outcomes(
    todo: list[Point], folder: Path, workers: int, scheduler: str | None
) -> Iterator[bool]:
    if scheduler is not None:
        yield from _on_cluster(todo, folder.absolute(), scheduler)
    elif workers == 1 or len(todo) < 2:
        yield from (run_and_write(point, folder) for point in todo)
    else:
        from joblib import Parallel, delayed

        run_and_write(todo[0], folder)  # compiles the kernels before the workers share the cache
        yield True
        jobs = (delayed(run_and_write)(point, folder) for point in todo[1:])
        yield from Parallel(n_jobs=workers, return_as="generator_unordered")(jobs)


def _on_cluster(todo: list[Point], folder: Path, scheduler: str) -> Iterator[bool]:
    """Run points on a Dask cluster; results come back and are written here."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise InputError("--scheduler needs the extra 'dask' (pip install sfpsim[dask])") from error
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"scheduler {scheduler!r} cannot be reached: {error}") from error
    with client:
        futures = client.map(run_point, todo, pure=False)
        for _, found in as_completed(futures, with_results=True):
            write_atomically(_file(folder, found.point), msgspec.json.encode(found))
            yield found.error is None


COLUMNS = (
    "time_ns", "traffic_bytes", "total_bits", "ratio", "sqnr_db", "energy_pj", "bandwidth_gbps",
    "limiter", "error",
)  # fmt: skip


def results_table(results: list[PointResult]) -> bytes:
    """Return the results as CSV, a line a point; ``pandas.read_csv`` takes it as it is."""
    keys = list(dict.fromkeys(key for r in results for key in r.point.keys))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*keys, *COLUMNS])
    for r in results:
        writer.writerow(
            [*(r.point.keys.get(k, "") for k in keys), *(getattr(r, c) for c in COLUMNS)]
        )
    return out.getvalue().encode()


def results_frame(results: list[PointResult]) -> Any:
    """Return the results as a pandas DataFrame, a row a point.

    Raises
    ------
    InputError
        If the extra ``pandas`` is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        needed = "a data frame needs the extra 'pandas' (pip install sfpsim[pandas])"
        raise InputError(needed) from error
    return pandas.read_csv(io.BytesIO(results_table(results)))


def pareto(results: list[PointResult]) -> list[PointResult]:
    """Return the points that no other beats in both time and energy, by time."""
    sound = sorted(
        (r for r in results if r.error is None and r.time_ns is not None),
        key=lambda r: (r.time_ns, r.energy_pj),
    )
    out: list[PointResult] = []
    for r in sound:
        if not out or (r.energy_pj or 0.0) < (out[-1].energy_pj or 0.0):
            out.append(r)
    return out
