"""Sizes of a whole tensor from the runs of it that a trace holds.

The full tensor is taken to be the held rows repeated cyclically; padding, the raw decision
and the index then come from its true number of values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.base import (
    ROW_VALUES,
    Array,
    BlockSizes,
    Container,
    Rows,
    Sizes,
    joined_blocks,
)
from sfpsim.containers.lanes import LaneContainer, block_counts
from sfpsim.containers.raw import AS_IS, AsIs, Plain
from sfpsim.errors import InputError
from sfpsim.formats import FORMATS, any_sign, format_of

GROUP_VALUES = 64
PIECE_ROWS = 64
PART_VALUES = 1 << 22
FLOAT_DTYPES = tuple(fmt.dtype for fmt in FORMATS.values())
Int64s = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor as it lies in memory, measured or extrapolated to its full shape.

    Attributes
    ----------
    sizes
        Of the full tensor.
    total_bits_se
        Standard error of ``sizes.total_bits``, bits; 0.0 for a whole tensor.
    blocks
        Every block of the full tensor.
    row_count
        How many rows `held_rows` gives.
    row_start
        int64, one entry a block: the index among the held rows of the block's first one; its
        further rows follow, from their end on at their beginning again.
    """

    sizes: Sizes
    total_bits_se: float
    blocks: BlockSizes
    row_count: int
    row_start: Int64s


def store(
    container: Container, runs: list[Array], *, full_values: int, signed: bool | None
) -> Stored:
    """Measure a tensor of `full_values` values of which `runs` are held.

    Parameters
    ----------
    container
        Where it is stored; tensors that are no floats travel as they are instead.
    runs
        1-D arrays of one dtype in memory order, each a multiple of 64 values except
        possibly the last.
    full_values
        Values of the full tensor.
    signed
        Whether a value of the whole tensor has its sign bit set; None looks at the runs.

    Raises
    ------
    InputError
        If the runs hold more than the tensor, nothing of it, or are not whole groups.

    Notes
    -----
    The standard error is that of the ratio estimator (bits a value) between runs, with
    finite population correction, padding and index left out: N * sqrt((1 - f) / (k n^2) *
    sum((t_r - R n_r)^2) / (k - 1)), k runs of n values on average with t_r bits, f the
    share held. A single run is cut into pieces of 512 values, whose closeness makes the
    error look smaller than it is. Source: W. G. Cochran, Sampling Techniques, section 6.4.
    """
    held = _held(runs, full_values)
    if held.dtype not in FLOAT_DTYPES:
        container = AS_IS
    if held.size == full_values:
        return _whole(container, held, signed)
    usable = _usable(held)
    rows = container.rows(usable, signed=signed)
    blocks = _extrapolate(container, usable, rows, full_values, signed)
    raw_bits = full_values * held.dtype.itemsize * 8
    count = 0 if container.timing.bypass else len(rows.payload_bits)
    return Stored(
        sizes=blocks.total(raw_bits),
        total_bits_se=0.0 if container.timing.bypass else _error(rows, runs, blocks, full_values),
        blocks=blocks,
        row_count=count,
        row_start=_first_rows(container, blocks.values) % max(count, 1),
    )


def held_rows(
    container: Container, runs: list[Array], *, full_values: int, signed: bool | None
) -> Iterator[Rows]:
    """Yield the widths of the held rows of what `store` measures, in memory order, in parts.

    Parameters and errors as `store`. Nothing where the container bypasses the codec.
    """
    held = _held(runs, full_values)
    if container.timing.bypass or held.dtype not in FLOAT_DTYPES:
        return
    if held.size < full_values:
        yield container.rows(_usable(held), signed=signed)
        return
    signed = any_sign(held) if signed is None else signed
    for part in container.parts(held, PART_VALUES):
        yield container.rows(part, signed=signed)


def _usable(held: Array) -> Array:
    """Whole groups of what is held."""
    return held[: held.size // GROUP_VALUES * GROUP_VALUES] if held.size >= GROUP_VALUES else held


def _first_rows(container: Container, values: Int64s) -> Int64s:
    """Return the number of rows before each block; `values` are those of each."""
    return np.arange(values.size, dtype=np.int64) * (container.block_values // ROW_VALUES)


def _held(runs: list[Array], full_values: int) -> Array:
    lengths = [run.size for run in runs]
    if not runs or (sum(lengths) == 0 and full_values):
        raise InputError(f"a tensor of {full_values} values needs at least one run of values")
    if sum(lengths) > full_values:
        raise InputError(f"the runs hold {sum(lengths)} values of a tensor of {full_values}")
    if any(length % GROUP_VALUES for length in lengths[:-1]):
        raise InputError(f"runs of {lengths} values: all but the last are multiples of 64")
    flat = [np.ascontiguousarray(run).reshape(-1) for run in runs]
    return flat[0] if len(flat) == 1 else np.concatenate(flat)


def _whole(container: Container, x: Array, signed: bool | None) -> Stored:
    if signed is None and x.dtype in FLOAT_DTYPES:
        signed = any_sign(x)
    parts = container.parts(x, PART_VALUES)
    blocks = joined_blocks([container.measure_blocks(part, signed=signed) for part in parts])
    return Stored(
        sizes=blocks.total(x.nbytes * 8),
        total_bits_se=0.0,
        blocks=blocks,
        row_count=0 if container.timing.bypass else -(-x.size // ROW_VALUES),
        row_start=_first_rows(container, blocks.values),
    )


def _extrapolate(
    container: Container, x: Array, rows: Rows, full_values: int, signed: bool | None
) -> BlockSizes:
    values = block_counts(full_values, container.block_values)
    if isinstance(container, LaneContainer):
        return _lane_blocks(container, x, rows, values, signed)
    if isinstance(container, Plain | AsIs):
        one = container.measure_blocks(x[:1])
        return _scaled(one, np.zeros(values.size, np.int64), values)
    held = container.measure_blocks(x, signed=signed)
    full = np.flatnonzero(held.values == container.block_values)
    sources = full if full.size else np.arange(len(held.values))
    return _scaled(held, sources[np.arange(values.size) % sources.size], values)


def cyclic_sums(widths: NDArray[np.generic], starts: Int64s, counts: Int64s) -> Int64s:
    """Return sums of `counts` entries of `widths` from `starts` on, wrapping around."""
    before = np.concatenate([[0], np.cumsum(widths, dtype=np.int64)])
    laps, ends = np.divmod(starts + counts, len(widths))
    return laps * before[-1] + before[ends] - before[starts]


def _lane_blocks(
    container: LaneContainer, x: Array, rows: Rows, values: Int64s, signed: bool | None
) -> BlockSizes:
    fmt = format_of(x.dtype)
    held = container.measure_blocks(x, signed=signed)
    widths, store_signs = container.widths_of(x, signed=signed)
    counts = -(-values // ROW_VALUES)
    starts = _first_rows(container, values) % len(rows.payload_bits)
    sums = cyclic_sums(widths, starts, counts)
    lost = round(held.nan_lost * int(values.sum()) / x.size)
    return container.blocks_from_widths(sums, values, fmt, signed=store_signs, nan_lost=lost)


def _scaled(held: BlockSizes, sources: Int64s, values: Int64s) -> BlockSizes:
    """Repeat the blocks `sources` of `held`, scaled to `values` values each."""

    def scale(field: Int64s) -> Int64s:
        return field[sources] * values // held.values[sources]

    sign, exponent = scale(held.sign_bits), scale(held.exponent_bits)
    mantissa, metadata = scale(held.mantissa_bits), scale(held.metadata_bits)
    padding = scale(held.padding_bits)
    metadata_bytes = scale(held.metadata_bytes)
    used = sign + exponent + mantissa + metadata + padding
    payload_bytes = -(-used // 8) - metadata_bytes
    return replace(
        held,
        values=values,
        sign_bits=sign,
        exponent_bits=exponent,
        mantissa_bits=mantissa,
        metadata_bits=metadata,
        padding_bits=padding + 8 * (payload_bytes + metadata_bytes) - used,
        payload_bytes=payload_bytes,
        metadata_bytes=metadata_bytes,
        raw=held.raw[sources],
        nan_lost=round(held.nan_lost * int(values.sum()) / int(held.values.sum())),
    )


def _error(rows: Rows, runs: list[Array], blocks: BlockSizes, full_values: int) -> float:
    if blocks.raw.all() or not len(rows.payload_bits):
        return 0.0
    bits = rows.payload_bits.astype(np.int64) + rows.metadata_bits
    starts = np.cumsum([0] + [run.size // ROW_VALUES for run in runs[:-1]])
    starts = starts[starts < bits.size]
    if len(starts) == 1:
        starts = np.arange(0, bits.size, PIECE_ROWS)
    if len(starts) < 2:
        return math.inf if bits.min() != bits.max() else 0.0
    totals = np.add.reduceat(bits, starts).astype(np.float64)
    sizes = np.diff(np.append(starts, bits.size)) * float(ROW_VALUES)
    residual = totals - totals.sum() / sizes.sum() * sizes
    spread = float(residual @ residual) / (len(starts) - 1)
    share = min(1.0, float(sizes.sum()) / full_values)
    return full_values * math.sqrt((1 - share) * spread / len(starts)) / float(sizes.mean())
