"""Gecko: a lossless code for exponents, in its fixed-bias and its delta form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sfpsim.containers.kernels import BIAS, DELTA, Layout
from sfpsim.containers.lanes import LaneContainer
from sfpsim.formats import FloatFormat


@dataclass(frozen=True, kw_only=True)
class GeckoBias(LaneContainer):
    """Each row's exponents as distances to the bias, at the width of the row's largest.

    Source: Schrödinger's FP, MLSys 2024 (bits: docs/containers.md).
    """

    family: ClassVar[str] = "gecko-bias"
    source: ClassVar[str] = "Schrödinger's FP, MLSys 2024"
    summary: ClassVar[str] = "lossless: exponents of a row of 8 against the bias, one width a row"

    @property
    def base_spec(self) -> str:
        """``gecko-bias``."""
        return self.family

    def layout(self, fmt: FloatFormat) -> Layout:
        """All mantissa bits, exponents against the bias."""
        return Layout(BIAS, fmt.exponent_bits, fmt.mantissa_bits, fmt.mantissa_bits, 0)


@dataclass(frozen=True, kw_only=True)
class GeckoDelta(LaneContainer):
    """Groups of 8 rows; row 0 holds each lane's base, the others distances to it.

    Source: Schrödinger's FP, arXiv 2204.13666 v1, 2022 (bits: docs/containers.md).
    """

    family: ClassVar[str] = "gecko-delta"
    source: ClassVar[str] = "Schrödinger's FP, arXiv 2204.13666 v1, 2022"
    summary: ClassVar[str] = "lossless: groups of 8 rows, exponents against the lane's first"

    @property
    def base_spec(self) -> str:
        """``gecko-delta``."""
        return self.family

    def layout(self, fmt: FloatFormat) -> Layout:
        """All mantissa bits, exponents against the group's first row."""
        return Layout(DELTA, fmt.exponent_bits, fmt.mantissa_bits, fmt.mantissa_bits, 0)
