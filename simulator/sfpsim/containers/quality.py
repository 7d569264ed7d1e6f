"""How far stored values are from the original ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sfpsim.containers.base import Array, Container
from sfpsim.errors import InputError

CHUNK_VALUES = 1 << 18
PART_VALUES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Sums over values that are finite before and after; ``+`` merges tensors.

    `max_rel_error` is the largest abs(q - x) / abs(x) over x != 0, None without such a
    value; `signal_power` the sum of x^2, `noise_power` that of (q - x)^2, `stored_power`
    that of q^2, `product` that of x q, float64. `zeros_made` counts values other than zero
    that became zero, `specials_lost` Inf and NaN that became finite, `specials_made` the
    reverse.
    """

    max_rel_error: float | None = None
    signal_power: float = 0.0
    noise_power: float = 0.0
    stored_power: float = 0.0
    product: float = 0.0
    zeros_made: int = 0
    specials_lost: int = 0
    specials_made: int = 0

    @property
    def sqnr_db(self) -> float | None:
        """10 log10 (signal / noise); None where either is 0."""
        if not self.signal_power or not self.noise_power:
            return None
        return 10.0 * math.log10(self.signal_power / self.noise_power)

    @property
    def cosine(self) -> float | None:
        """Cosine between original and stored values; None where either is all zeros."""
        if not self.signal_power or not self.stored_power:
            return None
        return self.product / math.sqrt(self.signal_power * self.stored_power)

    def __add__(self, other: Quality) -> Quality:
        """Merge two tensors' sums."""
        errors = [e for e in (self.max_rel_error, other.max_rel_error) if e is not None]
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(Quality)
            if field.name != "max_rel_error"
        }
        return Quality(max_rel_error=max(errors, default=None), **sums)


@njit(cache=True, nogil=True)
def _kernel(
    x: NDArray[np.float32], q: NDArray[np.float32], sums: NDArray[np.float64]
) -> tuple[float, int, int, int]:
    """Add powers to `sums`; return the largest relative error (-1: none) and the counts."""
    largest, zeros, lost, made = -1.0, 0, 0, 0
    for i in range(x.size):
        before, after = np.float64(x[i]), np.float64(q[i])
        held, kept = math.isfinite(before), math.isfinite(after)
        lost += int(kept and not held)
        made += int(held and not kept)
        if held and kept:
            error = after - before
            sums[0] += before * before
            sums[1] += error * error
            sums[2] += after * after
            sums[3] += before * after
            zeros += int(after == 0.0 and before != 0.0)
            if before != 0.0:
                largest = max(largest, abs(error / before))
    return largest, zeros, lost, made


def _chunk(original: Array, quantized: Array) -> Quality:
    with np.errstate(all="ignore"):  # signalling NaNs; float32 holds every value exactly
        x, q = (values.astype(np.float32, copy=False) for values in (original, quantized))
    sums = np.zeros(4)
    largest, zeros, lost, made = _kernel(x, q, sums)
    signal, noise, stored, product = (float(total) for total in sums)
    return Quality(
        max_rel_error=largest if largest >= 0 else None,
        signal_power=signal,
        noise_power=noise,
        stored_power=stored,
        product=product,
        zeros_made=int(zeros),
        specials_lost=int(lost),
        specials_made=int(made),
    )


def quality(original: Array, quantized: Array) -> Quality:
    """Compare two float arrays of one shape, in float64; NaN and Inf are left out.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    if original.shape != quantized.shape:
        raise InputError(f"shapes differ: {original.shape} and {quantized.shape}")
    x, q = original.reshape(-1), quantized.reshape(-1)
    total = Quality()
    for at in range(0, x.size, CHUNK_VALUES):
        total = total + _chunk(x[at : at + CHUNK_VALUES], q[at : at + CHUNK_VALUES])
    return total


def stored_quality(container: Container, runs: Sequence[Array]) -> Quality:
    """Compare 1-D float arrays with what `container` makes of them.

    A blockwise container is worked through in parts, so that a long run takes little memory.
    """
    total = Quality()
    for run in runs:
        for part in container.parts(run, PART_VALUES):
            total = total + quality(part, container.quantize(part))
    return total
