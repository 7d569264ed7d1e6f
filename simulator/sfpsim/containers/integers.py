"""Integers of n bits, uniform between the least and the largest value of a range."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.base import Array, CodecTiming
from sfpsim.containers.packed import Coded, Fields, Int64s, PackedContainer, from_fp32
from sfpsim.errors import InputError
from sfpsim.formats import FloatFormat, nan_count

MOST_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Uniform(PackedContainer):
    """round((x - low) / s), s = (high - low) / (2^n - 1), as BitPruning defines it.

    Attributes
    ----------
    bits
        n, 1 .. 16.
    over
        ``tensor``: one range; ``channel``: one for each entry of the first axis (a 1-D
        tensor has one channel); a number: one for so many values, a multiple of 8 that
        divides `block_values`.

    Notes
    -----
    The range is that of the finite values and is stored as two FP32 words. Arithmetic is
    float64; ties go to even. Inf and what lies outside take the range's end, NaN the low
    end (counted in `nan_lost`). Storing what was read back can change it by a last bit.
    """

    family: ClassVar[str] = "int"
    source: ClassVar[str] = "Nikolić et al., BitPruning, arXiv 2002.03090, 2020"
    summary: ClassVar[str] = "lossy: n-bit integers between the least and largest of a range"
    needs: ClassVar[Literal["none", "block", "tensor"]] = "tensor"
    stable: ClassVar[bool] = False
    timing: ClassVar[CodecTiming] = CodecTiming(
        encode_latency_cycles=4,
        decode_latency_cycles=4,
        passes=2,
        source="a choice: subtract, multiply by 1 / s, round; one pass finds the range",
    )

    bits: int
    over: str = "tensor"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.bits <= MOST_BITS:
            raise InputError(f"int: n={self.bits} is not allowed: 1 to {MOST_BITS}")
        if self.over in ("tensor", "channel"):
            return
        group = int(self.over) if self.over.isascii() and self.over.isdigit() else 0
        if group < 8 or group % 8 or self.block_values % group:
            raise InputError(
                f"int: range={self.over} is not allowed: tensor, channel or a multiple of 8 "
                f"that divides the {self.block_values} values of a block"
            )

    @property
    def base_spec(self) -> str:
        """``int:n=N,range=R``; ``int8`` and ``int4`` where they are one range a tensor."""
        if self.over == "tensor":
            return f"int{self.bits}" if self.bits in (4, 8) else f"int:n={self.bits}"
        return f"int:n={self.bits},range={self.over}"

    def fields(self, fmt: FloatFormat) -> Fields:
        """All bits count as mantissa."""
        return Fields(sign=0, exponent=0, mantissa=self.bits)

    def _starts(self, shape: tuple[int, ...]) -> Int64s:
        """Return where each range's values begin."""
        values = prod(shape)
        if self.over == "tensor":
            return np.zeros(min(values, 1), np.int64)
        channels = shape[0] if len(shape) > 1 and values else 1
        step = max(values // channels, 1) if self.over == "channel" else int(self.over)
        return np.arange(0, values, step, dtype=np.int64)

    def side(self, shape: tuple[int, ...]) -> tuple[np.dtype[Any], Int64s]:
        """Two FP32 words a range, in the block where it begins."""
        blocks = self.counts(shape).size
        entries = np.bincount(self._starts(shape) // self.block_values, minlength=blocks)
        return np.dtype("<u8"), entries.astype(np.int64)

    def nan_lost(self, x: Array) -> int:
        """Return the NaNs of `x`."""
        return nan_count(x)

    def code(self, x: Array) -> Coded:
        """Find every range, then round."""
        with np.errstate(all="ignore"):
            values = np.ascontiguousarray(x).reshape(-1).astype(np.float32)
        starts, finite = self._starts(tuple(x.shape)), np.isfinite(values)
        low = np.minimum.reduceat(np.where(finite, values, np.float32(np.inf)), starts)
        high = np.maximum.reduceat(np.where(finite, values, np.float32(-np.inf)), starts)
        # No values, or a zero of either sign: +0, whatever order the minimum was found in.
        low, high = (
            np.where(np.isfinite(end) & (end != 0), end, np.float32(0)) for end in (low, high)
        )
        counts = np.diff(np.append(starts, values.size))
        begin, step = (np.repeat(e, counts) for e in _steps(low, high, self.bits))
        with np.errstate(all="ignore"):
            steps = np.where(step > 0, (values.astype(np.float64) - begin) / step, 0.0)
        steps = np.clip(np.nan_to_num(np.rint(steps), nan=0.0), 0, (1 << self.bits) - 1)
        side = np.stack([low, high], axis=1).astype("<f4").view("<u8").reshape(-1)
        return Coded(codes=steps.astype(np.uint16 if self.bits > 8 else np.uint8), side=side)

    def open(self, coded: Coded, shape: tuple[int, ...], fmt: FloatFormat) -> Array:
        """Return low + s * code."""
        low, high = coded.side.view("<f4").reshape(-1, 2).T
        counts = np.diff(np.append(self._starts(shape), prod(shape)))
        begin, step = (np.repeat(e, counts) for e in _steps(low, high, self.bits))
        with np.errstate(all="ignore"):
            values = (begin + step * coded.codes[: prod(shape)]).astype(np.float32)
        return from_fp32(values.view(np.uint32), prod(shape), fmt)


def _steps(
    low: NDArray[np.float32], high: NDArray[np.float32], bits: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the low ends and the steps, float64."""
    begin = low.astype(np.float64)
    return begin, (high.astype(np.float64) - begin) / ((1 << bits) - 1)
