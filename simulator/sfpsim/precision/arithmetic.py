"""Cutting mantissas and limiting exponents of torch tensors, bit for bit as `sfp` does.

Works on float32, bfloat16 and float16 tensors of any shape. NaN stays NaN, unlike in the
container: a method must not hide that a training has broken.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from sfpsim.errors import InputError

MANTISSA_BITS = {torch.float32: 23, torch.bfloat16: 7, torch.float16: 10}
FULL_EXPONENT_BITS = 8
SINGLE_MANTISSA_BITS = 23


class Range(NamedTuple):
    """Least and greatest exponent of normal values, unbiased."""

    least: int
    most: int


def mantissa_bits_of(dtype: torch.dtype) -> int:
    """Return the mantissa bits of `dtype`.

    Raises
    ------
    InputError
        If it is none of float32, bfloat16, float16.
    """
    if dtype not in MANTISSA_BITS:
        raise InputError(
            f"dtype {dtype} cannot be quantized: allowed are {', '.join(map(str, MANTISSA_BITS))}"
        )
    return MANTISSA_BITS[dtype]


def exponent_range(bits: int) -> Range | None:
    """Return the range of an exponent of `bits` bits, None where it limits nothing.

    Emin = -2^(n-1), Emax = 2^(n-1) - 1 (MLSys 2024, section on Quantum Exponent).
    """
    if bits >= FULL_EXPONENT_BITS:
        return None
    half = 1 << (bits - 1)
    return Range(-half, half - 1)


def largest(mantissa_bits: int, exponents: Range) -> float:
    """Vmax = (2 - 2^-m) 2^Emax."""
    return (2.0 - 2.0**-mantissa_bits) * 2.0**exponents.most


def smallest(mantissa_bits: int, exponents: Range) -> float:
    """Vmin = (1 + 2^-m) 2^Emin: the all-zero word is kept for zero."""
    return (1.0 + 2.0**-mantissa_bits) * 2.0**exponents.least


def cut(x: torch.Tensor, mantissa_bits: int) -> torch.Tensor:
    """Keep the top mantissa bits of `x`, float32; the rest are cut off."""
    gone = SINGLE_MANTISSA_BITS - mantissa_bits
    if gone <= 0:
        return x
    mask = -1 << gone
    return (x.contiguous().view(torch.int32) & mask).view(torch.float32)


def limit(x: torch.Tensor, mantissa_bits: int, exponents: Range) -> torch.Tensor:
    """Bring the magnitudes of `x`, float32, into the range.

    Above Vmax saturates, from Vmin / 2 to Vmin becomes Vmin, below becomes zero.
    """
    most, least = largest(mantissa_bits, exponents), smallest(mantissa_bits, exponents)
    magnitude = x.abs()
    inside = magnitude.clamp(least, most)
    inside = torch.where(magnitude < least / 2, torch.zeros((), dtype=x.dtype), inside)
    return torch.copysign(inside, x)


def quantized(x: torch.Tensor, mantissa_bits: int, exponents: Range | None) -> torch.Tensor:
    """Limit `x`, then cut it; same dtype and shape.

    Raises
    ------
    InputError
        If the dtype is not supported or the length is below 0.
    """
    most = mantissa_bits_of(x.dtype)
    if mantissa_bits < 0:
        raise InputError(f"mantissa_bits={mantissa_bits}: must be 0 or more")
    kept = min(mantissa_bits, most)
    single = x.detach().to(torch.float32)
    if exponents is not None:
        single = limit(single, kept, exponents)
    out = cut(single, kept)
    if kept < SINGLE_MANTISSA_BITS:  # a NaN must not become an Inf
        out = torch.where(torch.isnan(single), single, out)
    return out.to(x.dtype)
