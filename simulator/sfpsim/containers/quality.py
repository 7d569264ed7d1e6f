"""How far stored values are from the original ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sfpsim.containers.base import BLOCK_VALUES, Array, Container
from sfpsim.errors import InputError

CHUNK_VALUES = 1 << 18
PART_VALUES = 64 * BLOCK_VALUES


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Sums over values that are finite before and after; ``+`` merges tensors.

    `max_rel_error` is the largest abs(q - x) / abs(x) over x != 0, None without such a
    value; `signal_power` the sum of x^2, `noise_power` that of (q - x)^2, float64.
    """

    max_rel_error: float | None = None
    signal_power: float = 0.0
    noise_power: float = 0.0

    @property
    def sqnr_db(self) -> float | None:
        """10 log10 (signal / noise); None where either is 0."""
        if not self.signal_power or not self.noise_power:
            return None
        return 10.0 * math.log10(self.signal_power / self.noise_power)

    def __add__(self, other: Quality) -> Quality:
        """Merge two tensors' sums."""
        errors = [e for e in (self.max_rel_error, other.max_rel_error) if e is not None]
        return Quality(
            max_rel_error=max(errors, default=None),
            signal_power=self.signal_power + other.signal_power,
            noise_power=self.noise_power + other.noise_power,
        )


@njit(cache=True, nogil=True)
def _kernel(x: NDArray[np.float32], q: NDArray[np.float32]) -> tuple[float, float, float]:
    """Return the largest relative error (-1: none), signal and noise power, in float64."""
    largest, signal, noise = -1.0, 0.0, 0.0
    for i in range(x.size):
        before, after = np.float64(x[i]), np.float64(q[i])
        if math.isfinite(before) and math.isfinite(after):
            error = after - before
            signal += before * before
            noise += error * error
            if before != 0.0:
                largest = max(largest, abs(error / before))
    return largest, signal, noise


def _chunk(original: Array, quantized: Array) -> Quality:
    with np.errstate(all="ignore"):  # signalling NaNs; float32 holds every value exactly
        x, q = (values.astype(np.float32, copy=False) for values in (original, quantized))
    largest, signal, noise = _kernel(x, q)
    return Quality(
        max_rel_error=largest if largest >= 0 else None, signal_power=signal, noise_power=noise
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
        step = PART_VALUES if container.blockwise else max(run.size, 1)
        for at in range(0, run.size, step):
            part = run[at : at + step]
            total = total + quality(part, container.quantize(part))
    return total
