"""The compute array: how many cycles a product takes, and how well it fills the array.

Five kinds. ``mapped``: the product's three sizes, in the best of the six ways, onto rows,
columns and the MACs of a unit. ``systolic``: weight stationary, cycle by cycle as SCALE-Sim
counts. ``stripes``, ``loom`` and ``bit-fusion`` take integers, and their time goes with the
bits of the activation, or of both operands.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

from sfpsim.hardware.machine import Compute

Gemm = tuple[int, int, int, int]
Bits = tuple[int, int]
BRICK_BITS = 2  # Bit Fusion: a BitBrick multiplies 2 by 2 bits, a fusion unit has 16
BRICKS = 16


@dataclass(frozen=True, kw_only=True)
class Work:
    """A product on an array: its cycles, and the share of the array's peak that it uses."""

    cycles: int
    share: float


def work_of(gemm: Gemm, macs: int, compute: Compute, bits: Bits) -> Work:
    """Return what a product (m, n, k, groups) of `macs` takes.

    `bits` are those of the first operand (activations) and of the second (weights); only
    the kinds whose time goes with them look at them. Groups run one after the other.
    """
    if compute.kind == "mapped":
        share = utilisation(gemm, compute)
        return Work(cycles=-(-macs // max(1, int(compute.macs_per_cycle * share))), share=share)
    if not macs:
        return Work(cycles=0, share=1.0)
    cycles = {
        "systolic": _systolic, "stripes": _serial, "loom": _serial, "bit-fusion": _fused,
    }[compute.kind](gemm, compute, _within(bits, compute))  # fmt: skip
    return Work(cycles=cycles, share=macs / (cycles * peak_macs(compute, bits)))


def peak_macs(compute: Compute, bits: Bits) -> float:
    """Multiply-accumulates a cycle of a full array on operands of so many bits."""
    first, second = _within(bits, compute)
    units = float(compute.macs_per_cycle)
    if compute.kind == "stripes":
        return units / first
    if compute.kind == "loom":
        return units / (first * second)
    if compute.kind == "bit-fusion":
        return units * BRICKS / (_bricks(first) * _bricks(second))
    return units


def _within(bits: Bits, compute: Compute) -> Bits:
    most = compute.bits
    first, second = (most if b <= 0 else min(b, most) for b in bits)
    return first, second


def _folds(gemm: Gemm, rows: int, columns: int) -> int:
    """How often weights are loaded into the array: k on rows, n on columns."""
    _, n, k, groups = gemm
    return groups * -(-k // rows) * -(-n // columns)


def _systolic(gemm: Gemm, compute: Compute, bits: Bits) -> int:
    """Cycles of a weight-stationary systolic array.

    Each fold loads the weights row by row (R), and the last of M inputs leaves M + R + C - 2
    cycles after the first entered; folds do not overlap. Counted from 0, as SCALE-Sim does.
    Source: Samajdar et al., SCALE-Sim, arXiv 1811.02883, section III.
    """
    m, rows, columns = gemm[0], compute.rows, compute.columns
    return _folds(gemm, rows, columns) * (2 * rows + columns + m - 2) - 1


def _serial(gemm: Gemm, compute: Compute, bits: Bits) -> int:
    """Cycles of an array that takes activations (``loom``: and weights) a bit at a time.

    Rows hold filters, columns windows that share the rows' weights, a unit's lanes the
    summed size. Where there are too few windows (a fully connected layer on few samples),
    columns hold further filters, whose weights then need a cycle a column to be loaded:
    Stripes gains nothing there, Loom what its weights save.
    """
    m, n, k, groups = gemm
    rows, columns = compute.rows, compute.columns
    first, second = bits
    shared = -(-m // columns) * -(-n // rows) * first
    apart = m * -(-n // (rows * columns)) * max(first, columns)
    weights = second if compute.kind == "loom" else 1
    return groups * -(-k // compute.macs_per_unit) * min(shared, apart) * weights


def _bricks(bits: int) -> int:
    """BitBricks along one operand: widths are powers of two from 2 bits on."""
    return 1 << max(0, (-(-bits // BRICK_BITS) - 1).bit_length())


def _fused(gemm: Gemm, compute: Compute, bits: Bits) -> int:
    """Cycles of a systolic array of fusion units: 16 BitBricks make 1 to 16 products."""
    m, n, k, groups = gemm
    bricks = _bricks(bits[0]) * _bricks(bits[1])
    products, passes = max(1, BRICKS // bricks), max(1, bricks // BRICKS)
    rows, columns = compute.rows, compute.columns
    folds = _folds((m, n, -(-k // products), groups), rows, columns)
    return folds * (2 * rows + columns + m * passes - 2) - 1


def utilisation(gemm: Gemm, compute: Compute) -> float:
    """Share of a mapped array's MACs that work on a product (m, n, k, groups).

    Edges are filled up.
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


def cycles_ps(cycles: int, compute: Compute) -> int:
    """Time of whole cycles of the array, ps."""
    return int(cycles) * (1_000_000 // compute.clock_mhz)


def compute_ps(macs: int, share: float, compute: Compute, bits: Bits = (0, 0)) -> int:
    """Time of `macs` multiply-accumulates at utilisation `share`, whole cycles, ps."""
    cycles = -(-macs // max(1, int(peak_macs(compute, bits) * share)))
    return cycles_ps(cycles, compute)
