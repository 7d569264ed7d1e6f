"""The compute array: how well a product fills it, and how long it takes."""

from __future__ import annotations

from itertools import permutations

from sfpsim.hardware.machine import Compute


def utilisation(gemm: tuple[int, int, int, int], compute: Compute) -> float:
    """Share of the array's MACs that work on a product (m, n, k, groups).

    Its three sizes are mapped, in the best of the six ways, onto rows, columns and the
    MACs of a unit; edges are filled up. Groups run one after the other.
    """
    sizes = gemm[:3]
    if not all(sizes):
        return 1.0
    axes = (compute.rows, compute.columns, compute.macs_per_unit)
    return max(_filled(order, axes) for order in permutations(sizes))


def _filled(sizes: tuple[int, ...], axes: tuple[int, ...]) -> float:
    share = 1.0
    for size, axis in zip(sizes, axes, strict=True):
        share *= size / (-(-size // axis) * axis)
    return share


def compute_ps(macs: int, share: float, compute: Compute) -> int:
    """Time of `macs` multiply-accumulates at utilisation `share`, whole cycles, ps."""
    cycles = -(-macs // max(1, int(compute.macs_per_cycle * share)))
    return int(cycles) * (1_000_000 // compute.clock_mhz)
