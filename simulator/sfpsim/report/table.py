"""The results in the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from sfpsim.experiment.explain import Explanation, Waterfall
from sfpsim.experiment.result import Comparison, ContainerResult, Totals

if TYPE_CHECKING:
    from sfpsim.hardware.dram.device import Device
    from sfpsim.hardware.dram.simulate import DramResult

LIMITERS = ("compute", "dram", "decoder", "encoder", "metadata", "dependency")
COLUMNS = (
    "container",
    "bits per\nvalue",
    "ratio",
    "SQNR\ndB",
    "traffic\nMB",
    "time\nms",
    "speed-\nup",
    "memory\nGB/s",
    "energy\nmJ",
    "limiter",
)
TEXT_COLUMNS = ("container", "limiter")
SCALES = {
    "bits": ("bits", "kbit", "Mbit", "Gbit"),
    "bytes": ("bytes", "kB", "MB", "GB"),
    "ps": ("ps", "ns", "µs", "ms"),
    "pJ": ("pJ", "nJ", "µJ", "mJ"),
}
BAR_WIDTH = 24
LONG_NAME = 20
STEP_ROWS = 24  # of the table of steps
COUNTED = ("act", "pre", "rd", "wr", "ref")


def short_name(container: str) -> str:
    """Break a long specification into lines at its separators."""
    if len(container) <= LONG_NAME:
        return container
    return container.replace(";", ";\n").replace(",exponent=", ",\nexponent=")


def bits_a_value(totals: Totals) -> float | None:
    """Return stored bits a value over the tensors that the policy's containers hold."""
    return totals.total_bits / totals.values if totals.values else None


def speed_up(first: Totals, other: Totals) -> float | None:
    """Return how much faster `other` is than `first`."""
    return first.time_ns / other.time_ns if other.time_ns else None


def number(value: float | None, form: str) -> str:
    """Return `value` in `form`, a dash where it does not apply."""
    return "-" if value is None else format(value, form)


def significant(value: float, digits: int = 4) -> str:
    """Return `value` with this many significant digits, without an exponent."""
    if not value:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(places, 0), 9)}f}"


def table_row(first: Totals, result: ContainerResult) -> tuple[str, ...]:
    """Return the cells of one container; speed-up is against `first`."""
    t = result.totals
    error = f"±{t.total_bits_se / t.values:.2f}" if t.values and t.total_bits_se else ""
    return (
        result.container,
        number(bits_a_value(t), ".2f") + error,
        number(t.ratio, ".2f"),
        "exact" if result.lossless else number(t.sqnr_db, ".1f"),
        significant((t.read_bytes + t.write_bytes) / 1e6),
        significant(t.time_ns / 1e6),
        number(speed_up(first, t), ".2f"),
        number(t.bandwidth_gbps, ".1f"),
        significant(t.energy_pj.total / 1e9),
        t.limiter or "-",
    )


def _table(columns: Iterable[str], text_columns: Iterable[str], title: str) -> Table:
    table = Table(
        title=title or None, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for column in columns:
        left = column in text_columns
        table.add_column(
            column, justify="left" if left else "right", no_wrap=not left, overflow="fold"
        )
    return table


def plain_table(columns: Iterable[str], title: str, text: int = 1) -> Table:
    """Return an empty table whose first `text` columns are text and the others numbers."""
    names = list(columns)
    return _table(names, names[:text], title)


def comparison_table(comparison: Comparison) -> Table:
    """Return one row a container; speed-up is against the first."""
    table = _table(COLUMNS, TEXT_COLUMNS, f"{comparison.trace.path} on {comparison.machine.name}")
    first = comparison.containers[0].totals
    for result in comparison.containers:
        name, *cells = table_row(first, result)
        table.add_row(Text(short_name(name)), *cells)
    table.caption = (
        f"{comparison.machine.memory_note}. Speed-up is against "
        f"{comparison.containers[0].container}; ± is the standard error of the sampling."
    )
    table.caption_justify = "left"
    return table


def steps_table(comparison: Comparison) -> Table | None:
    """Return one row a container and captured step, evenly chosen where there are many.

    None for a single step, and where so many containers are compared that two rows of each
    would be more than a reader takes in.
    """
    a_container = STEP_ROWS // len(comparison.containers)
    count = max(len(c.steps) for c in comparison.containers)
    if count < 2 or a_container < 2:
        return None
    columns = ("container", "step", "epoch", "bits per\nvalue", "ratio", "time\nms", "memory\nGB/s",
               "energy\nmJ")  # fmt: skip
    table = _table(columns, TEXT_COLUMNS, "as training goes on")
    for c in comparison.containers:
        shown = [c.steps[i] for i in spread(len(c.steps), a_container)]
        for row, s in enumerate(shown):
            table.add_row(
                Text("" if row else short_name(c.container)),
                str(s.step),
                str(s.epoch),
                number(s.total_bits / s.values if s.values else None, ".2f"),
                number(s.raw_bits / s.total_bits if s.total_bits else None, ".2f"),
                significant(s.time_ns / 1e6),
                number(s.bandwidth_gbps, ".1f"),
                significant(s.energy_pj / 1e9),
            )
    if count > a_container:
        table.caption = f"{a_container} of {count} steps are shown; --json has all."
        table.caption_justify = "left"
    return table


def spread(count: int, most: int) -> list[int]:
    """Return `most` of `count` positions, or all of them: the ends and evenly between.

    Examples
    --------
    >>> spread(9, 3), spread(2, 3)
    ([0, 4, 8], [0, 1])
    """
    shown = min(count, most)
    return [i * (count - 1) // max(1, shown - 1) for i in range(shown)]


def limiter_shares(result: ContainerResult) -> dict[str, float]:
    """Return the share of the time spent in passes that each part limits."""
    times = dict.fromkeys(LIMITERS, 0.0)
    for layer in result.layers:
        times[layer.limiter] += layer.time_ns
    total = sum(times.values()) or 1
    return {part: time / total for part, time in times.items()}


def limiter_table(comparison: Comparison) -> Table:
    """Return the share of each container's time by limiter."""
    title = f"share of time by limiter on {comparison.machine.name}"
    table = _table(("container", *LIMITERS), TEXT_COLUMNS, title)
    for result in comparison.containers:
        shares = limiter_shares(result)
        cells = (f"{100 * shares[p]:.0f} %" if shares[p] else "-" for p in LIMITERS)
        table.add_row(Text(short_name(result.container)), *cells)
    return table


def layer_table(result: ContainerResult) -> Table:
    """Return one row a layer and pass, summed over the captured steps."""
    columns = ("layer", "pass", "time\nµs", "read\nMB", "written\nMB", "energy\nµJ", "limiter")
    table = _table(
        columns, ("layer", "pass", "limiter"), f"layers and passes in {result.container}"
    )
    for (name, pass_), layers in grouped_layers(result).items():
        limiters = Counter(x.limiter for x in layers)
        table.add_row(
            Text(name or "(top)"),
            pass_,
            significant(sum(x.time_ns for x in layers) / 1e3),
            significant(sum(x.read_bytes for x in layers) / 1e6),
            significant(sum(x.write_bytes for x in layers) / 1e6),
            significant(sum(x.energy_pj for x in layers) / 1e6),
            limiters.most_common(1)[0][0],
        )
    return table


def grouped_layers(result: ContainerResult) -> dict[tuple[str, str], list[Any]]:
    """Return the passes of every (layer, pass), one a captured step, in order."""
    out: dict[tuple[str, str], list[Any]] = {}
    for layer in result.layers:
        out.setdefault((layer.name, layer.pass_), []).append(layer)
    return out


def mapping_table(values: Mapping[str, Any]) -> Table:
    """Return one row a key; inner mappings and lists are spelled out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in values.items():
        table.add_row(key.replace("_", " "), Text(_plain(value)))
    return table


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "-"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def explanation_tables(found: Explanation) -> list[Table]:
    """Return what A and B are and in what they differ, then one waterfall a quantity."""
    sides = {
        name: f"{x.container} on {x.machine} ({x.machine_hash}, {x.memory_detail}), {x.trace}, "
        f"{x.path}"
        for name, x in (("A", found.a), ("B", found.b))
    }
    differs = ", ".join(d.replace("_", " ") for d in found.differs) or "nothing"
    head = mapping_table({**sides, "differ in": differs})
    return [head, *(_waterfall(w) for w in found.waterfalls)]


def _scale(w: Waterfall) -> tuple[float, str]:
    """Return a divisor and its unit that keep the larger end between 1 and 1000."""
    units = SCALES[w.unit]
    power, largest = 0, max(w.a, w.b)
    while largest >= 1000 and power + 1 < len(units):
        power, largest = power + 1, largest // 1000
    return 1000.0**power, units[power]


def _waterfall(w: Waterfall) -> Table:
    divisor, unit = _scale(w)
    form = ",.0f" if divisor == 1 else ",.3f"
    name = f"{w.quantity} by {w.by}"
    table = _table((name, unit, "%", ""), (name, ""), "")
    longest = max([abs(c.change) for c in w.changes] or [0]) or 1
    table.add_row("A", format(w.a / divisor, form), "100.0" if w.a else "-", "")
    for c in w.changes:
        if c.change:
            length = max(1, round(BAR_WIDTH * abs(c.change) / longest))
            share = f"{100 * c.change / w.a:+.1f}" if w.a else "-"
            sign = "+" if c.change > 0 else "-"
            value = format(c.change / divisor, "+" + form)
            table.add_row(Text(f"  {c.label}"), value, share, sign * length)
    last = f"{100 * w.b / w.a:.1f}" if w.a else "-"
    table.add_row("B", format(w.b / divisor, form), last, "")
    return table


def info_tables(found: Mapping[str, Any]) -> list[Table]:
    """Return what `trace_info` found: the trace, its roles, and its steps.

    The steps are shown where there are several or lengths are in force.
    """
    apart = ("roles", "zeros", "exponent_entropy_bits", "lengths", "by_step", "schema")
    out = [mapping_table({k: v for k, v in found.items() if k not in apart})]
    roles = _table(("role", "tensors", "zeros", "exponent entropy, bits"), ("role",), "")
    for role, tensors in found["roles"].items():
        zeros, entropy = found["zeros"].get(role), found["exponent_entropy_bits"].get(role)
        roles.add_row(role, str(tensors), number(zeros, ".1%"), number(entropy, ".2f"))
    out.append(roles)
    if len(found["by_step"]) > 1 or found["lengths"]:
        out.append(_steps_table(found["by_step"]))
    return out


def _steps_table(steps: Iterable[Mapping[str, Any]]) -> Table:
    """Return one row a captured step: zeros, entropy and mean lengths of both roles."""
    rest = ("\nentropy", "\nmantissa", "\nexponent")
    columns = ("weight:\nzeros", *rest, "activation:\nzeros", *rest)
    table = _table(("\nstep", "\nepoch", "\nMB", *columns), (), "as training goes on")
    for x in steps:
        cells = []
        for role in ("weight", "activation"):
            lengths = x["mean_lengths"].get(role, {})
            cells += [
                number(x["zeros"].get(role), ".1%"),
                number(x["exponent_entropy_bits"].get(role), ".2f"),
                number(lengths.get("mantissa_bits"), ".2f"),
                number(lengths.get("exponent_bits"), ".2f"),
            ]
        table.add_row(str(x["step"]), str(x["epoch"]), significant(x["bytes"] / 1e6), *cells)
    table.caption = (
        "Entropy is that of the exponent field; mantissa and exponent are the lengths in force, "
        "means over the values of the tensors that have them. All in bits."
    )
    table.caption_justify = "left"
    return table


def dram_tables(found: DramResult, device: Device) -> list[Table]:
    """Return what a trace did on a device: time and commands, and energy by component."""
    counts = {f: n for f, n in msgspec.structs.asdict(found.counts).items() if n or f in COUNTED}
    peak = device.peak_gbps * device.channels
    latency = found.avg_read_latency_ns
    head = {
        "device": f"{found.device}, policy {found.policy}",
        "requests": f"{found.requests:,}: {found.reads:,} reads, {found.writes:,} writes",
        "time": f"{scaled(found.time_ns * 1000, 'ps')}, {found.cycles:,} cycles",
        "bandwidth": f"{found.bandwidth_gbps:.3f} GB/s, {found.bandwidth_gbps / peak:.1%} of peak",
        "read latency": "-" if latency is None else f"{latency:.1f} ns on average",
        "commands": counts,
        "engine": f"{found.cpu_s:.3f} s of processor time",
    }
    return [mapping_table(head), _dram_energy(found, device.access_bytes)]


def _dram_energy(found: DramResult, access_bytes: int) -> Table:
    table = _table(("energy", "pJ", "share", "pJ/bit"), ("energy",), "")
    energy = msgspec.structs.asdict(found.energy_pj)
    bits = 8 * access_bytes * found.requests
    for name, value in energy.items():
        if value is not None:
            share = value / energy["total"] if energy["total"] else 0.0
            a_bit = number(value / bits if bits else None, ".3f")
            table.add_row(name.replace("_", " "), significant(value), f"{share:.1%}", a_bit)
    return table


def scaled(value: float, unit: str) -> str:
    """Return `value` with the largest of the unit's scales that leaves it at 1 or more."""
    names, power = SCALES[unit], 0
    while power + 1 < len(names) and abs(value) >= 1000 ** (power + 1):
        power += 1
    return f"{significant(value / 1000**power)} {names[power]}"


def bench_table(found: Mapping[str, Any]) -> Table:
    """Return one row a measurement."""
    memcpy = found["memcpy_gbps"]
    title = "" if memcpy is None else f"memcpy in the same run: {memcpy:.1f} GB/s"
    left = ("bench", "name", "op", "type")
    columns = (*left, "threads", "mantissa bits", "GB/s", "of memcpy", "seconds",
               "million requests/s")  # fmt: skip
    table = _table(columns, left, title)
    for x in found["results"]:
        table.add_row(
            x["bench"],
            x.get("name") or f"{x['device']} {x['trace']}",
            x.get("op", x.get("level", "-")),
            x.get("dtype", "-"),
            number(x.get("threads"), "d"),
            number(x.get("mantissa_bits"), "d"),
            number(x.get("gbps"), ".2f"),
            number(x.get("memcpy_ratio"), ".3f"),
            number(x.get("seconds"), ".3f"),
            number(x.get("million_requests_per_s"), ".1f"),
        )
    return table
