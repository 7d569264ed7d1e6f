"""Lossless codes of exponents by group: base-delta and ShapeShifter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers import codes
from sfpsim.containers.base import CodecTiming
from sfpsim.containers.coded import CodedContainer, Words, widths_of
from sfpsim.formats import FloatFormat

DELTA_GROUP, SHAPE_GROUP = 32, 16


@dataclass(frozen=True, kw_only=True)
class BaseDelta(CodedContainer):
    """Groups of 32: the first value whole, the others' exponents as distances to its own.

    One width (3 bits) a group; a distance is a magnitude of that width and a flag, coded
    as gecko-delta codes them (a zero exponent is the negative zero).
    """

    family: ClassVar[str] = "base-delta"
    source: ClassVar[str] = "Awad et al., FPRaker, MICRO 2021"
    summary: ClassVar[str] = "lossless: exponents of 32 values against the first, one width"
    timing: ClassVar[CodecTiming] = CodecTiming(
        encode_latency_cycles=7, source="a choice: four rows wait for the group's width"
    )

    def write(
        self, words: Words, fmt: FloatFormat, out: NDArray[np.uint8], bits: NDArray[np.int64]
    ) -> None:
        """Write the groups."""
        codes.write_base_delta(words, widths_of(fmt), DELTA_GROUP, out, bits)

    def read(self, data: NDArray[np.uint8], fmt: FloatFormat, out: Words) -> int:
        """Read the groups."""
        return int(codes.read_base_delta(data, widths_of(fmt), DELTA_GROUP, out))


@dataclass(frozen=True, kw_only=True)
class ShapeShifter(CodedContainer):
    """Groups of 16: a mask of zeros, a width (3 bits), exponents of what is not zero.

    ShapeShifter trims integers; on floats the trimmed integer is the exponent's distance to
    the bias, coded as in gecko-bias.
    """

    family: ClassVar[str] = "shapeshifter"
    source: ClassVar[str] = "Delmas Lascorz et al., ShapeShifter, MICRO 2019"
    summary: ClassVar[str] = "lossless: 16 values, zero mask, one width for the other exponents"
    timing: ClassVar[CodecTiming] = CodecTiming(
        encode_latency_cycles=5, source="a choice: two rows wait for the group's width"
    )

    def write(
        self, words: Words, fmt: FloatFormat, out: NDArray[np.uint8], bits: NDArray[np.int64]
    ) -> None:
        """Write the groups."""
        codes.write_shapeshifter(words, widths_of(fmt), SHAPE_GROUP, out, bits)

    def read(self, data: NDArray[np.uint8], fmt: FloatFormat, out: Words) -> int:
        """Read the groups."""
        return int(codes.read_shapeshifter(data, widths_of(fmt), SHAPE_GROUP, out))
