"""The contract that every container keeps, as one function for anybody's container.

Call `check_container` with arrays from `sfpsim.testing.strategies` (or `EDGE_CASES`).
"""

from __future__ import annotations

import numpy as np

from sfpsim.containers.base import ROW_VALUES, Array, Container, Encoded, Sizes
from sfpsim.formats import any_sign, format_of, words_of


class ContractError(AssertionError):
    """A container breaks its law; the message names container, dtype, shape and law."""


def bits_equal(a: Array, b: Array) -> bool:
    """Whether two arrays have the same dtype, shape and bits (NaN payloads included)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    left, right = np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1)
    return bool(np.array_equal(left.view(np.uint8), right.view(np.uint8)))


def check_container(container: Container, x: Array) -> Sizes:
    """Check every law of `container` on `x` and return its sizes.

    Raises
    ------
    ContractError
        If a law does not hold.
    """
    where = f"{container.spec} on {x.dtype} {x.shape}"
    before = x.copy()
    sizes, quantized = container.measure(x), container.quantize(x)
    stored = container.encode(x)
    _check_values(container, x, quantized, stored, where)
    _check_sizes(container, x, sizes, stored, where)
    _check_rows(container, x, where)
    _check_blocks_alone(container, x, where)
    _require(bits_equal(before, x), where, "x is not changed")
    return sizes


def _check_values(
    container: Container, x: Array, quantized: Array, stored: Encoded, where: str
) -> None:
    _require(bits_equal(container.decode(stored), quantized), where, "decode(encode) == quantize")
    _require(quantized.dtype == x.dtype, where, "quantize keeps the dtype")
    _require(quantized.shape == x.shape, where, "quantize keeps the shape")
    if container.stable:
        again = container.quantize(quantized)
        _require(bits_equal(again, quantized), where, "quantize is idempotent")
    if container.lossless_for(format_of(x.dtype)):
        _require(bits_equal(quantized, x), where, "lossless means quantize(x) == x")
    _require(_within_bits(container, quantized), where, "values need no more value_mantissa_bits")


def _within_bits(container: Container, quantized: Array) -> bool:
    """Whether normal values leave the mantissa bits below the container's at zero."""
    fmt, words = format_of(quantized.dtype), words_of(quantized)
    kept = container.value_mantissa_bits
    if kept is None or kept >= fmt.mantissa_bits:
        return True
    exponents = words >> words.dtype.type(fmt.mantissa_bits) & words.dtype.type(fmt.exponent_max)
    normal = (exponents != 0) & (exponents != fmt.exponent_max)
    below = words.dtype.type((1 << (fmt.mantissa_bits - kept)) - 1)
    return not (words[normal] & below).any()


def _check_sizes(container: Container, x: Array, sizes: Sizes, stored: Encoded, where: str) -> None:
    fmt = format_of(x.dtype)
    _require(8 * len(stored) == sizes.total_bits, where, "8 * len(encode) == total_bits")
    _require(sizes.values == x.size, where, "values are counted")
    _require(sizes.raw_bits == x.size * fmt.bits, where, "raw_bits is the source's")
    blocks = container.measure_blocks(x)
    _require(blocks.total(x.size * fmt.bits) == sizes, where, "blocks sum up to the sizes")
    streams = int(blocks.payload_bytes.sum()), int(blocks.metadata_bytes.sum())
    lengths = len(stored.payload), len(stored.metadata)
    _require(streams == lengths, where, "block lengths sum up to the streams")
    signs = bool((words_of(x) >> words_of(x).dtype.type(fmt.bits - 1)).any())
    again = container.encode(x, signed=signs)
    same = (again.payload, again.metadata, again.index)
    _require(same == (stored.payload, stored.metadata, stored.index), where, "signed is found")
    forced = container.measure(x, signed=True).total_bits
    _require(forced == 8 * len(container.encode(x, signed=True)), where, "signed=True is honoured")


def _check_rows(container: Container, x: Array, where: str) -> None:
    rows = container.rows(x)
    blocks = container.measure_blocks(x)
    count = int((-(-blocks.values // 8)).sum())
    _require(len(rows.payload_bits) == count, where, "a row for every 8 values")
    _require(len(rows.metadata_bits) == count, where, "a metadata width for every row")


def _check_blocks_alone(container: Container, x: Array, where: str) -> None:
    """Where a container is blockwise, the first block alone is as it is in the tensor."""
    size = container.block_values
    if not container.blockwise or x.size <= size:
        return
    first = np.ascontiguousarray(x).reshape(-1)[:size]
    signed = any_sign(x)
    alone = container.measure_blocks(first, signed=signed)
    together = container.measure_blocks(x, signed=signed)
    same = alone.payload_bytes[0] == together.payload_bytes[0]
    same &= alone.padding_bits[0] == together.padding_bits[0]
    _require(bool(same), where, "a block's sizes are its own")
    rows = container.rows(x, signed=signed).payload_bits[: size // ROW_VALUES]
    mine = container.rows(first, signed=signed).payload_bits
    _require(np.array_equal(mine, rows), where, "a block's rows are its own")
    quantized = np.ascontiguousarray(container.quantize(x)).reshape(-1)[:size]
    _require(
        bits_equal(container.quantize(first), quantized), where, "a block's values are its own"
    )


def _require(holds: bool, where: str, law: str) -> None:
    if not holds:
        raise ContractError(f"{where}: broken law: {law}")
