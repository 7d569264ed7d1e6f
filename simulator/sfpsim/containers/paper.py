"""The papers' own accounting of Gecko, for comparison with their Table 1 only.

It counts neither flags nor padding nor index and cannot be decoded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfpsim.containers.base import ROW_VALUES, Array
from sfpsim.errors import InputError
from sfpsim.formats import format_of, split


@dataclass(frozen=True, kw_only=True)
class PaperBits:
    """Bits of a tensor as the MLSys 2024 paper counts them."""

    values: int
    sign_bits: int
    exponent_bits: int
    mantissa_bits: int

    @property
    def total_bits(self) -> int:
        """Sum of the fields."""
        return self.sign_bits + self.exponent_bits + self.mantissa_bits


def paper_bits(x: Array, mantissa_bits: int | None = None) -> PaperBits:
    """Count 8 w + 3 exponent bits a row of 8, metadata included, and the kept mantissa.

    Parameters
    ----------
    x
        float32, bfloat16 or float16, any shape, C order.
    mantissa_bits
        Mantissa bits kept of every value; None keeps all.

    Raises
    ------
    InputError
        If `mantissa_bits` is negative or above the source's, or the dtype is no float.

    Notes
    -----
    w is the bit length of the row's largest |E - B| over values with E != 0. The sign is
    counted where any value has its sign bit set. Source: MLSys 2024, section on Gecko.
    """
    fmt = format_of(x.dtype)
    kept = fmt.mantissa_bits if mantissa_bits is None else mantissa_bits
    if not 0 <= kept <= fmt.mantissa_bits:
        raise InputError(f"mantissa_bits={kept} is not allowed: 0 to {fmt.mantissa_bits}")
    sign, exponent, _ = split(x)
    distance = np.where(exponent == 0, 0, np.abs(exponent.astype(np.int64) - fmt.bias))
    rows = np.pad(distance, (0, -x.size % ROW_VALUES)).reshape(-1, ROW_VALUES)
    width = np.frexp(rows.max(axis=1, initial=0).astype(np.float64))[1].astype(np.int64)
    return PaperBits(
        values=x.size,
        sign_bits=x.size if sign.any() else 0,
        exponent_bits=int((ROW_VALUES * width + 3).sum()),
        mantissa_bits=x.size * kept,
    )
