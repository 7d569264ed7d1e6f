"""Why two results differ: waterfalls from A to B whose steps add up exactly.

Everything is counted in whole bits, bytes, picoseconds and picojoules, so the sum of a
waterfall's steps is the difference of its ends and nothing is lost in rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sfpsim._version import __version__
from sfpsim.errors import InputError
from sfpsim.experiment.network import NetworkContainer, NetworkResult
from sfpsim.experiment.result import (
    RESULT_SCHEMA,
    Comparison,
    ContainerResult,
    LayerResult,
    Struct,
)

EXPLAIN_SCHEMA = 1
FIELDS = ("sign", "exponent", "mantissa", "metadata", "padding", "index")
LAYERS_SHOWN = 8
PS_PER_NS = 1000
Parts = Mapping[str, int]


class Side(Struct, frozen=True, kw_only=True):
    """One of the two results: where it comes from and what was replayed on what."""

    path: str
    container: str
    policy: dict[str, str]
    trace: str
    machine: str
    machine_hash: str
    memory_detail: str
    sfpsim: str


class Change(Struct, frozen=True, kw_only=True):
    """A step of a waterfall: a part, and what it changes by from A to B."""

    label: str
    change: int


class Waterfall(Struct, frozen=True, kw_only=True):
    """The way of one quantity from `a` to `b`: ``a + sum(changes) == b``, exactly."""

    quantity: str
    unit: str
    by: str
    a: int
    changes: list[Change]
    b: int


class Explanation(Struct, frozen=True, kw_only=True):
    """The result of `explain`: what ``explain --json`` writes.

    `differs` names what is not the same on both sides: container, trace, machine,
    memory_detail, sfpsim.
    """

    schema: int = EXPLAIN_SCHEMA
    sfpsim: str
    a: Side
    b: Side
    differs: list[str]
    waterfalls: list[Waterfall]


def load_any(path: str | Path) -> Comparison | NetworkResult:
    """Return the result of `compare`, `replay`, `demo` or `network` in the JSON file `path`.

    Raises
    ------
    InputError
        As `load_result`.
    """
    plain = _plain(path)
    if "network" not in plain:
        return load_result(path)
    try:
        return msgspec.convert(plain, NetworkResult)
    except msgspec.ValidationError as error:
        raise InputError(_unreadable(path, plain, error)) from error


def load_result(path: str | Path) -> Comparison:
    """Return the result of `compare`, `replay` or `demo` in the JSON file `path`.

    Raises
    ------
    InputError
        If it cannot be read, is no such result, or has another schema.
    """
    plain = _plain(path)
    try:
        return msgspec.convert(plain, Comparison)
    except msgspec.ValidationError as error:
        raise InputError(_unreadable(path, plain, error)) from error


def _unreadable(path: str | Path, plain: dict[str, Any], error: Exception) -> str:
    return (
        f"{path}: no result that sfpsim {__version__} can read "
        f"(it was written by {plain.get('sfpsim')!r}): {error}"
    )


def _plain(path: str | Path) -> dict[str, Any]:
    """Return what a JSON file of a result of this schema holds."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        plain = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(plain, dict) or not {"schema", "containers"} <= set(plain):
        raise InputError(
            f"{path}: no result: allowed is what replay, compare, demo or network write"
        )
    if plain["schema"] != RESULT_SCHEMA:
        raise InputError(
            f"{path}: a result of schema {plain['schema']!r}: allowed is {RESULT_SCHEMA}"
        )
    return plain


def pick(
    result: Comparison | NetworkResult, container: str | None, where: str
) -> ContainerResult | NetworkContainer:
    """Return the result of `container`, of the last one where None is given.

    Raises
    ------
    InputError
        If `result` has no such container.
    """
    known: dict[str, ContainerResult | NetworkContainer]
    known = {c.container: c for c in result.containers}
    if not known:
        raise InputError(f"{where}: holds no container")
    if container is None:
        return result.containers[-1]
    if container not in known:
        raise InputError(f"{where}: no container {container!r}: there are {', '.join(known)}")
    return known[container]


def explain(
    a: Comparison | NetworkResult, b: Comparison | NetworkResult, *, container_a: str | None = None,
    container_b: str | None = None, path_a: str = "A", path_b: str = "B",
) -> Explanation:  # fmt: skip
    """Return why `b` differs from `a`.

    Parameters
    ----------
    a, b
        Results of `compare` or `replay`, or of networks; the sizes by field and role are told
        where both have them.
    container_a, container_b
        Which container of each; None takes the last.
    path_a, path_b
        What the explanation and errors call the two.

    Raises
    ------
    InputError
        If a container is not in its result.
    """
    one, two = pick(a, container_a, path_a), pick(b, container_b, path_b)
    sides = _side(a, one, path_a), _side(b, two, path_b)
    same = {"container", "policy", "trace", "machine_hash", "memory_detail", "sfpsim"}
    names = {"machine_hash": "machine"}
    differs = [
        names.get(f, f)
        for f in Side.__struct_fields__
        if f in same and getattr(sides[0], f) != getattr(sides[1], f)
    ]
    return Explanation(
        sfpsim=__version__, a=sides[0], b=sides[1], differs=differs,
        waterfalls=_waterfalls(one, two),
    )  # fmt: skip


def _side(
    result: Comparison | NetworkResult, container: ContainerResult | NetworkContainer, path: str
) -> Side:
    if isinstance(result, NetworkResult):
        step = result.mode
        if result.optimizer is not None:
            master = ", master weights" if result.master_weights else ""
            step += (
                f" with {result.optimizer}{master}, stash {result.stash}, recompute "
                f"{result.recompute}, fusion {result.fusion}"
            )
        return Side(
            path=path, container=container.container, policy={},
            trace=f"{result.network}, batch {result.batch}, {step}, values of {result.profile}",
            machine=result.machine, machine_hash=result.machine_hash,
            memory_detail=result.memory_detail, sfpsim=result.sfpsim,
        )  # fmt: skip
    assert isinstance(container, ContainerResult)
    trace = result.trace
    return Side(
        path=path,
        container=container.container,
        policy=container.policy,
        trace=f"{trace.path} ({trace.steps} steps, {trace.tensors} tensors, "
        f"{trace.values} values{', sampled' if trace.sampled else ''})",
        machine=result.machine.name,
        machine_hash=result.machine.hash,
        memory_detail=result.machine.memory_detail,
        sfpsim=result.sfpsim,
    )


Explained = ContainerResult | NetworkContainer


def _waterfalls(a: Explained, b: Explained) -> list[Waterfall]:
    out = []
    if isinstance(a, ContainerResult) and isinstance(b, ContainerResult):
        fields, roles = (_bits_by_field(a), _bits_by_field(b)), (_bits_by_role(a), _bits_by_role(b))
        out.append(_waterfall("bits in the policy's containers", "bits", "field", *fields))
        out.append(_waterfall("stored bits of everything", "bits", "role", *roles))
    kinds: tuple[tuple[str, str, str, Callable[[Explained], Parts]], ...] = (
        ("traffic", "bytes", "pass", lambda c: _bytes_by(c, lambda x: x.pass_)),
        ("time", "ps", "pass", lambda c: _time_by(c, lambda x: x.pass_)),
        ("time", "ps", "limiter", lambda c: _time_by(c, lambda x: x.limiter)),
        ("time", "ps", "layer", lambda c: _time_by(c, lambda x: x.name)),
        ("energy", "pJ", "component", _energy_by_component),
    )
    return out + [
        _waterfall(quantity, unit, by, parts(a), parts(b)) for quantity, unit, by, parts in kinds
    ]


def _waterfall(quantity: str, unit: str, by: str, a: Parts, b: Parts) -> Waterfall:
    changes = {key: b.get(key, 0) - a.get(key, 0) for key in {**a, **b}}
    if by == "layer":
        changes = _largest(changes)
    return Waterfall(
        quantity=quantity,
        unit=unit,
        by=by,
        a=sum(a.values()),
        changes=[Change(label=key, change=value) for key, value in changes.items()],
        b=sum(b.values()),
    )


def _largest(changes: dict[str, int]) -> dict[str, int]:
    """Keep the largest changes and sum the rest up."""
    ordered = sorted(changes.items(), key=lambda item: -abs(item[1]))
    out = dict(ordered[:LAYERS_SHOWN])
    rest = ordered[LAYERS_SHOWN:]
    if rest:
        out[f"{len(rest)} other layers"] = sum(value for _, value in rest)
    return out


def _bits_by_field(c: ContainerResult) -> Parts:
    return {f: int(getattr(c.totals, f"{f}_bits")) for f in FIELDS}


def _bits_by_role(c: ContainerResult) -> Parts:
    out: Counter[str] = Counter()
    for role in c.roles:
        out[role.role] += role.total_bits
    return out


def _bytes_by(c: Explained, key: Callable[[LayerResult], str]) -> Parts:
    out: Counter[str] = Counter()
    for layer in c.layers:
        out[key(layer)] += layer.read_bytes + layer.write_bytes
    return out


def _time_by(c: Explained, key: Callable[[LayerResult], str]) -> Parts:
    """Return the picoseconds of the passes; what the step takes beyond them is `drain`."""
    out: Counter[str] = Counter()
    for layer in c.layers:
        out[key(layer)] += round(layer.time_ns * PS_PER_NS)
    whole = c.totals.time_ns if isinstance(c, ContainerResult) else c.time_ns
    drain = round(whole * PS_PER_NS) - out.total()
    return {**out, "drain": drain} if drain else out


def _energy_by_component(c: Explained) -> Parts:
    energy = c.totals.energy_pj if isinstance(c, ContainerResult) else c.energy_pj
    dram: dict[str, Any] = {f: getattr(energy.dram, f) for f in energy.dram.__struct_fields__}
    parts = {f"dram {key}": value for key, value in dram.items()}
    parts |= {key: getattr(energy, key) for key in ("codec", "onchip", "compute")}
    return {key: round(value) for key, value in parts.items() if value is not None}
