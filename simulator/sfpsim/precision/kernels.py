"""Quantizing and its gradients in one pass each, over words of float32.

Sums are regrouped so that they fill vector registers; values are exact.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

REGROUP = {"reassoc", "nsz", "contract"}
PART = 2048  # values that stay in the nearest cache


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


@njit(cache=True, nogil=True)
def _quantize_part(words: Any, pair: Words, out: Any) -> None:
    vmax, vmin = np.uint32(pair.vmax), np.uint32(pair.vmin)
    half, keep = np.uint32(pair.half), np.uint32(pair.keep)
    for i in range(words.size):
        magnitude = np.uint32(words[i] & np.uint32(0x7FFF_FFFF))
        inside = np.uint32(max(np.uint32(min(magnitude, vmax)), vmin))
        inside = inside if magnitude >= half else np.uint32(0)
        out[i] = np.uint32((words[i] & np.uint32(0x8000_0000)) | (inside & keep))


@njit(cache=True, nogil=True, fastmath=REGROUP)
def _dot(g: Any, high: Any, low: Any) -> Any:
    total = np.float32(0.0)
    for i in range(g.size):
        total += g[i] * (high[i] - low[i])
    return total


@njit(cache=True, nogil=True)
def difference(words: Any, g: Any, lower: Words, upper: Words) -> float:
    """Return the sum of g * (upper - lower) over the quantized values; no NaN among them."""
    low, high = np.empty(PART, np.uint32), np.empty(PART, np.uint32)
    low_values, high_values = low.view(np.float32), high.view(np.float32)
    total = 0.0
    for begin in range(0, words.size, PART):
        part = words[begin : begin + PART]
        _quantize_part(part, lower, low)
        _quantize_part(part, upper, high)
        total += np.float64(_dot(g[begin : begin + PART], high_values, low_values))
    return total


@njit(cache=True, nogil=True)
def pass_inside(words: Any, g: Any, vmax: int, out: Any) -> None:
    """Write g where the magnitude is below Vmax, else 0."""
    most = np.uint32(vmax)
    for i in range(words.size):
        out[i] = g[i] if (np.uint32(words[i]) & np.uint32(0x7FFF_FFFF)) < most else np.float32(0.0)


ROUND = np.float32(1.5 * 2**23)
"""Added and taken off again it rounds what is below 2^22 to whole numbers, ties to even."""


@njit(cache=True, nogil=True, inline="always")
def _level(distance: Any, step: Any) -> Any:
    return ((distance / step + ROUND) - ROUND) * step


@njit(cache=True, nogil=True)
def interpolate(x: Any, least: Any, lower: Any, upper: Any, share: Any, out: Any, gap: Any) -> None:
    """Write what lies `share` of the way between two integer quantizations of `x`.

    Their levels lie `lower` and `upper` apart, from `least` on; `gap` gets the second less
    the first. All are float32.
    """
    for i in range(x.size):
        distance = x[i] - least
        low = _level(distance, lower)
        more = _level(distance, upper) - low
        gap[i] = more
        out[i] = least + low + share * more


@njit(cache=True, nogil=True, fastmath=REGROUP)
def dot(a: Any, b: Any) -> float:
    """Return the sum of a * b, float32, in parts of float32 that are added as float64."""
    total = 0.0
    for begin in range(0, a.size, PART):
        part = np.float32(0.0)
        for i in range(begin, min(begin + PART, a.size)):
            part += a[i] * b[i]
        total += np.float64(part)
    return total
