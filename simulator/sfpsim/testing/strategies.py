"""Hypothesis strategies and edge cases for containers, for anybody's tests.

Needs hypothesis (extra ``dev``).
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from sfpsim.containers.base import DEFAULT_BLOCK_VALUES, Array
from sfpsim.formats import BF16, FORMATS, FP16, FP32, FloatFormat

MAX_VALUES = 200
BLOCKS = (64, 1024, DEFAULT_BLOCK_VALUES)


@st.composite
def bit_patterns(draw: st.DrawFn, fmt: FloatFormat | None = None) -> Array:
    """Draw an array of any bit patterns: 0 to 200 values, 1-D or 2-D, any float format.

    Patterns lean on what breaks codecs: exponents 0 and all ones, mantissas 0 and of a
    single low bit, runs of equal exponents.
    """
    fmt = draw(st.sampled_from(list(FORMATS.values()))) if fmt is None else fmt
    exponents = st.one_of(
        st.integers(0, fmt.exponent_max),
        st.sampled_from([0, 1, fmt.bias, fmt.exponent_max - 1, fmt.exponent_max]),
        st.integers(fmt.bias - 3, fmt.bias + 3),
    )
    fractions = st.one_of(
        st.integers(0, (1 << fmt.mantissa_bits) - 1),
        st.sampled_from([0, 1, (1 << fmt.mantissa_bits) - 1, 1 << (fmt.mantissa_bits - 1)]),
    )
    signs = draw(st.sampled_from([(0,), (0, 1), (1,)]))
    values = st.tuples(st.sampled_from(signs), exponents, fractions)
    fields = draw(st.lists(values, max_size=MAX_VALUES))
    words = [(s << (fmt.bits - 1)) | (e << fmt.mantissa_bits) | m for s, e, m in fields]
    flat = np.array(words, fmt.word_dtype).view(fmt.dtype)
    columns = draw(st.sampled_from([d for d in range(1, 8) if flat.size % d == 0]))
    return flat.reshape(-1, columns) if draw(st.booleans()) else flat


def block_sizes() -> st.SearchStrategy[int]:
    """Draw the values of a block: so few that `bit_patterns` fill some, or the default."""
    return st.sampled_from([64, 128, 192, *BLOCKS])


def _like_training(fmt: FloatFormat, values: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(values, dtype=np.float32) * np.float32(0.05)
    x[rng.random(values) < 0.3] = 0
    return x.astype(fmt.dtype)


def _any_words(fmt: FloatFormat, values: int, seed: int) -> Array:
    words = np.random.default_rng(seed).integers(0, 1 << fmt.bits, values, np.uint64)
    return words.astype(fmt.word_dtype).view(fmt.dtype)


def _specials(fmt: FloatFormat) -> Array:
    top, one = fmt.exponent_max << fmt.mantissa_bits, 1 << fmt.mantissa_bits
    positive = [0, 1, one - 1, one, top - 1, top, top + 1, top + one // 2, top + one - 1]
    words = [word | sign << (fmt.bits - 1) for sign in (0, 1) for word in positive]
    return np.array(words, fmt.word_dtype).view(fmt.dtype)


def edge_cases(block_values: int = DEFAULT_BLOCK_VALUES) -> dict[str, Array]:
    """Return named arrays: empty, one value, tails, several blocks, specials, 2-D; seeded."""
    cases: dict[str, Array] = {}
    for fmt in (FP32, BF16, FP16):
        magnitude = np.abs(_like_training(fmt, 1000, 3))
        cases |= {
            f"{fmt.name} empty": np.zeros(0, fmt.dtype),
            f"{fmt.name} empty 2-D": np.zeros((0, 3), fmt.dtype),
            f"{fmt.name} one value": _like_training(fmt, 1, 1),
            f"{fmt.name} zero-dimensional": _like_training(fmt, 1, 1).reshape(()),
            f"{fmt.name} tail in row 0": _like_training(fmt, 67, 2),
            f"{fmt.name} tail in row 5": _like_training(fmt, 64 + 43, 2),
            f"{fmt.name} no signs": magnitude,
            f"{fmt.name} zeros": np.zeros(500, fmt.dtype),
            f"{fmt.name} specials": _specials(fmt),
            f"{fmt.name} any words": _any_words(fmt, 3001, 4),
            f"{fmt.name} three blocks": _like_training(fmt, 2 * block_values + 5, 5),
            f"{fmt.name} 2-D, columns first": _like_training(fmt, 640, 6).reshape(64, 10).T,
        }
    mixed = _like_training(FP32, 2 * block_values, 7)
    mixed[:block_values] = _any_words(FP32, block_values, 8)
    cases["fp32 raw block, then packed"] = mixed
    return cases
