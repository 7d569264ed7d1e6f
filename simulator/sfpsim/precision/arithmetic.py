"""Cutting mantissas and limiting exponents of torch tensors, bit for bit as `sfp` does.

Works on float32, bfloat16 and float16 tensors of any shape. NaN stays NaN, unlike in the
container: a method must not hide that a training has broken.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sfpsim.errors import InputError
from sfpsim.precision import kernels

MANTISSA_BITS = {torch.float32: 23, torch.bfloat16: 7, torch.float16: 10}
FULL_EXPONENT_BITS = 8
SINGLE_MANTISSA_BITS = 23
INFINITE_WORD = 0x7F80_0000


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


def words_of_lengths(mantissa_bits: int, exponents: Range | None) -> kernels.Words:
    """Return a pair of lengths as the kernels take it."""
    keep = (0xFFFF_FFFF << (SINGLE_MANTISSA_BITS - mantissa_bits)) & 0xFFFF_FFFF
    if exponents is None:
        return kernels.Words(INFINITE_WORD, 0, 0, keep)
    least = smallest(mantissa_bits, exponents)
    vmax, vmin, half = (
        int(np.float32(value).view(np.uint32))
        for value in (largest(mantissa_bits, exponents), least, least / 2)
    )
    return kernels.Words(vmax, vmin, half, keep)


def flat_words(x: torch.Tensor) -> NDArray[np.uint32]:
    """Return the values of `x` as float32 words, flat; a copy only where one is needed."""
    single = x.detach().to("cpu", torch.float32).contiguous()
    words: NDArray[np.uint32] = single.numpy().reshape(-1).view(np.uint32)
    return words


def quantized(x: torch.Tensor, mantissa_bits: int, exponents: Range | None) -> torch.Tensor:
    """Limit `x`, then cut it; same dtype, shape and device.

    Above Vmax saturates, from Vmin / 2 to Vmin becomes Vmin, below becomes zero; then the
    top mantissa bits are kept and the rest cut off.

    Raises
    ------
    InputError
        If the dtype is not supported or the length is below 0.
    """
    most = mantissa_bits_of(x.dtype)
    if mantissa_bits < 0:
        raise InputError(f"mantissa_bits={mantissa_bits}: must be 0 or more")
    out = room_for(x, torch.float32)
    pair = words_of_lengths(min(mantissa_bits, most), exponents)
    kernels.quantize(flat_words(x), pair, flat_words(out))
    return out.to(x.device, x.dtype)


def room_for(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return an empty contiguous tensor of `x`'s shape in the processor's memory.

    torch's own operation on `x` makes it, so that a capture sees what its values come from.
    """
    return torch.empty_like(
        x.detach(), dtype=dtype, device="cpu", memory_format=torch.contiguous_format
    )
