"""The result in the terminal."""

from __future__ import annotations

from collections import Counter

from rich.table import Table

from sfpsim.experiment.result import Comparison, ContainerResult, Totals

COLUMNS = (
    "container",
    "bits/value",
    "ratio",
    "traffic",
    "time ms",
    "speed-up",
    "GB/s",
    "mJ",
    "limiter",
)


def bits_a_value(totals: Totals) -> float:
    """Return stored bits a value over the tensors that the container holds."""
    return totals.total_bits / totals.values if totals.values else 0.0


def speed_up(first: Totals, other: Totals) -> float | None:
    """Return how much faster `other` is than `first`."""
    return first.time_ns / other.time_ns if other.time_ns else None


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def table_row(first: Totals, result: ContainerResult) -> tuple[str, ...]:
    """Return the cells of one container; speed-up is against `first`."""
    t = result.totals
    error = f" ±{t.total_bits_se / t.values:.2f}" if t.values and t.total_bits_se else ""
    return (
        result.container,
        f"{bits_a_value(t):.2f}{error}",
        _number(t.ratio, ".2f"),
        f"{(t.read_bytes + t.write_bytes) / 1e6:.1f} MB",
        f"{t.time_ns / 1e6:.3f}",
        _number(speed_up(first, t), ".2f"),
        f"{t.bandwidth_gbps:.1f}",
        f"{t.energy_pj.total / 1e9:.2f}",
        t.limiter,
    )


def comparison_table(comparison: Comparison) -> Table:
    """Return one row a container; speed-up is against the first."""
    machine = comparison.machine
    table = Table(
        title=f"{comparison.trace.path} on {machine.name}",
        caption=f"{machine.memory_note}; ± is the standard error of the sampling",
    )
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("container", "limiter") else "right")
    first = comparison.containers[0].totals
    for result in comparison.containers:
        table.add_row(*table_row(first, result))
    return table


def limiter_table(comparison: Comparison) -> Table:
    """Return the share of each container's time by limiter."""
    table = Table(title=f"share of time by limiter on {comparison.machine.name}")
    parts = ("compute", "dram", "decoder", "encoder", "metadata", "dependency")
    table.add_column("container")
    for part in parts:
        table.add_column(part, justify="right")
    for result in comparison.containers:
        shares = limiter_shares(result)
        table.add_row(result.container, *(f"{100 * shares[p]:.0f} %" for p in parts))
    return table


def limiter_shares(result: ContainerResult) -> Counter[str]:
    """Return the share of the time spent in passes that each part limits."""
    times: Counter[str] = Counter()
    for layer in result.layers:
        times[layer.limiter] += layer.time_ns  # type: ignore[assignment]
    total = sum(times.values()) or 1
    return Counter({part: time / total for part, time in times.items()})  # type: ignore[misc]
