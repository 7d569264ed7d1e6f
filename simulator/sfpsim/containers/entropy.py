"""Entropy coders of exponents, for the bound: Huffman, range ANS, and the entropy itself.

A block has its own table, so it is read alone. Mantissas and signs stand as they are.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers import entropy_codes as kernels
from sfpsim.containers.base import Array, CodecTiming
from sfpsim.containers.coded import CodedContainer, Words, widths_of
from sfpsim.formats import FloatFormat, exponent_counts

Int64s = NDArray[np.int64]
TABLES = "a choice: one value a cycle; the block goes by once for its table; four stages"


def exponent_entropy(x: Array) -> float:
    """Return the entropy of the exponent fields of `x`, bits a value; 0 for no value.

    No code that treats exponents one by one with one table for the tensor can be shorter.
    """
    counts = exponent_counts(x)
    shares = counts[counts > 0] / max(x.size, 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _counts(words: Words, fmt: FloatFormat) -> Int64s:
    counts = np.zeros(kernels.SYMBOLS, np.int64)
    kernels.count_exponents(words, widths_of(fmt), counts)
    return counts


def huffman_lengths(counts: Int64s) -> Int64s:
    """Return code lengths, at most 15; -1 for symbols that do not occur, 0 for one alone.

    Where a code would be longer, counts are halved (rounded up) until it is not.
    """
    lengths = np.where(counts > 0, 0, -1).astype(np.int64)
    heap: list[tuple[int, int, tuple[int, ...]]] = [
        (int(counts[s]), int(s), (int(s),)) for s in np.flatnonzero(counts)
    ]
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, first, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[list(left + right)] += 1
        heapq.heappush(heap, (a + b, first, left + right))
    if lengths.max() > kernels.MOST_LENGTH:
        return huffman_lengths((counts + 1) // 2)
    return lengths


@dataclass(frozen=True, kw_only=True)
class Huffman(CodedContainer):
    """Canonical Huffman codes of a block's exponents, as in DFloat11 (there a tensor's).

    Table: first and last symbol that occurs, then a length of 4 bits each between them (0:
    does not occur; a single symbol has length 0 and takes no bits). Each value: code, its
    first bit first, mantissa, sign.
    """

    family: ClassVar[str] = "huffman"
    source: ClassVar[str] = "Zhang et al., DFloat11, arXiv 2504.11651, 2025"
    summary: ClassVar[str] = "lossless: Huffman codes of exponents, a table a block"
    needs: ClassVar[Literal["none", "block", "tensor"]] = "block"
    timing: ClassVar[CodecTiming] = CodecTiming(values_per_cycle=1, passes=2, source=TABLES)

    def write(
        self, words: Words, fmt: FloatFormat, out: NDArray[np.uint8], bits: NDArray[np.int64]
    ) -> None:
        """Write table and codes."""
        lengths, codes = huffman_lengths(_counts(words, fmt)), np.zeros(kernels.SYMBOLS, np.int64)
        kernels.canonical(lengths, codes)
        kernels.write_huffman(words, widths_of(fmt), lengths, codes, out, bits)

    def read(self, data: NDArray[np.uint8], fmt: FloatFormat, out: Words) -> int:
        """Read table and codes; a table that is no complete code is refused."""
        lengths, codes = np.zeros((2, kernels.SYMBOLS), np.int64)
        table = np.zeros(1 << kernels.MOST_LENGTH, np.int16)
        return int(kernels.read_huffman(data, widths_of(fmt), lengths, codes, table, out))


def ans_shares(counts: Int64s) -> Int64s:
    """Return shares less 1 of 2^12 for all symbols between the first and last that occurs.

    Others have -1. Every symbol between gets at least one; the largest takes what is left.
    """
    used = np.flatnonzero(counts)
    first, last = int(used[0]), int(used[-1])
    part, size = counts[first : last + 1], 1 << kernels.PRECISION
    room = size - part.size
    shares = part * room // int(part.sum())
    shares[int(part.argmax())] += room - int(shares.sum())
    out = np.full(kernels.SYMBOLS, -1, np.int64)
    out[first : last + 1] = shares
    return out


@dataclass(frozen=True, kw_only=True)
class Ans(CodedContainer):
    """Range ANS of a block's exponents: one 32-bit state, shares of 2^12, halves of 16 bits.

    Table: first and last symbol, then share - 1 (12 bits) of each between them; the state;
    the halves in the order of reading; then mantissa and sign of every value.
    """

    family: ClassVar[str] = "ans"
    source: ClassVar[str] = "Duda, Asymmetric numeral systems, arXiv 1311.2540; DietGPU"
    summary: ClassVar[str] = "lossless: range ANS of exponents, a table a block"
    needs: ClassVar[Literal["none", "block", "tensor"]] = "block"
    timing: ClassVar[CodecTiming] = Huffman.timing

    def write(
        self, words: Words, fmt: FloatFormat, out: NDArray[np.uint8], bits: NDArray[np.int64]
    ) -> None:
        """Write table, state and halves."""
        shares = ans_shares(_counts(words, fmt))
        starts = np.cumsum(shares + 1) - (shares + 1)
        halves = np.zeros(words.size, np.int64)
        kernels.write_ans(words, widths_of(fmt), shares, starts, halves, out, bits)

    def read(self, data: NDArray[np.uint8], fmt: FloatFormat, out: Words) -> int:
        """Read what was written; the state must end as it began."""
        shares, starts = np.zeros((2, kernels.SYMBOLS), np.int64)
        table = np.zeros(1 << kernels.PRECISION, np.int16)
        return int(kernels.read_ans(data, widths_of(fmt), shares, table, starts, out))
