"""Why two results differ: the way from A to B in steps that add up."""

from __future__ import annotations

from typing import Any

from sfpsim.errors import InputError

FIELDS = ("sign", "exponent", "mantissa", "metadata", "padding", "index")


def first_totals(result: Any, name: str) -> dict[str, Any]:
    """Return the totals of the last container of a `compare` or `replay` result.

    Raises
    ------
    InputError
        If `result` is no such result.
    """
    try:
        totals = result["containers"][-1]["totals"]
        _ = totals["total_bits"], totals["time_ns"], totals["energy_pj"]["dram"]
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"{name}: no result of compare or replay") from error
    return dict(totals)


def explain(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, float]]:
    """Return (label, value) steps from the totals `a` to the totals `b`.

    For bits stored, energy and time: the value of A, the change of each part, the value of
    B; each group sums exactly.
    """
    out: list[tuple[str, float]] = [("total_bits of A", a["total_bits"])]
    out += [(f"{f}_bits", b[f"{f}_bits"] - a[f"{f}_bits"]) for f in FIELDS]
    out.append(("total_bits of B", b["total_bits"]))
    first, second = _energy(a), _energy(b)
    out.append(("energy_pj of A", sum(first.values())))
    out += [(f"energy_pj {part}", second[part] - first[part]) for part in first]
    out.append(("energy_pj of B", sum(second.values())))
    out.append(("time_ns of A", a["time_ns"]))
    out.append(("time_ns change", b["time_ns"] - a["time_ns"]))
    out.append(("time_ns of B", b["time_ns"]))
    return out


def _energy(totals: dict[str, Any]) -> dict[str, float]:
    energy = totals["energy_pj"]
    parts = {f"dram {key}": float(value) for key, value in energy["dram"].items()}
    return parts | {key: float(energy[key]) for key in ("codec", "onchip", "compute")}
