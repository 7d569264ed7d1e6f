"""Quantizing and its gradients in one pass each, over words of float32.

Sums are regrouped so that they fill vector registers; values are exact.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

REGROUP = {"reassoc", "nsz", "contract"}
SIGN = np.uint32(0x8000_0000)
INFINITE = np.uint32(0x7F80_0000)


class Words(NamedTuple):
    """A length pair as the kernels take it: magnitudes as words, and the bits kept."""

    vmax: int
    vmin: int
    half: int
    keep: int


@njit(cache=True, nogil=True, inline="always")
def _one(word: Any, vmax: Any, vmin: Any, half: Any, keep: Any) -> Any:
    magnitude = np.uint32(word & np.uint32(0x7FFF_FFFF))
    inside = np.uint32(max(np.uint32(min(magnitude, vmax)), vmin))
    inside = inside if magnitude >= half else np.uint32(0)
    inside = magnitude if magnitude > np.uint32(0x7F80_0000) else np.uint32(inside & keep)
    return np.uint32((word & np.uint32(0x8000_0000)) | inside)


@njit(cache=True, nogil=True)
def quantize(words: Any, pair: Words, out: Any) -> None:
    """Write the quantized words; a NaN stays as it is."""
    vmax, vmin = np.uint32(pair.vmax), np.uint32(pair.vmin)
    half, keep = np.uint32(pair.half), np.uint32(pair.keep)
    for i in range(words.size):
        out[i] = _one(np.uint32(words[i]), vmax, vmin, half, keep)


@njit(cache=True, nogil=True, fastmath=REGROUP)
def difference(words: Any, g: Any, lower: Words, upper: Words) -> float:
    """Return the sum of g * (upper - lower) over the quantized values."""
    a, b = np.uint32(lower.vmax), np.uint32(upper.vmax)
    c, d = np.uint32(lower.vmin), np.uint32(upper.vmin)
    e, f = np.uint32(lower.half), np.uint32(upper.half)
    low_keep, high_keep = np.uint32(lower.keep), np.uint32(upper.keep)
    total = np.float32(0.0)
    out = 0.0
    for begin in range(0, words.size, 4096):
        total = np.float32(0.0)
        for i in range(begin, min(begin + 4096, words.size)):
            word = np.uint32(words[i])
            low = _one(word, a, c, e, low_keep).view(np.float32)
            high = _one(word, b, d, f, high_keep).view(np.float32)
            total += g[i] * (high - low)
        out += np.float64(total)
    return out


@njit(cache=True, nogil=True)
def pass_inside(words: Any, g: Any, vmax: int, out: Any) -> None:
    """Write g where the magnitude is below Vmax, else 0."""
    most = np.uint32(vmax)
    for i in range(words.size):
        out[i] = g[i] if (np.uint32(words[i]) & np.uint32(0x7FFF_FFFF)) < most else np.float32(0.0)
