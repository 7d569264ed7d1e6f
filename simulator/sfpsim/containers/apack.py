"""APack: an arithmetic code of which range an exponent lies in, and its offset there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers import apack_codes as kernels
from sfpsim.containers.base import CodecTiming
from sfpsim.containers.coded import CodedContainer, Words, widths_of
from sfpsim.containers.entropy_codes import SYMBOLS, count_exponents
from sfpsim.formats import FloatFormat

Int64s = NDArray[np.int64]


def _code_lengths() -> Int64s:
    """Return -log2(p / 2^10) in 2^-16 bits for p of 0 .. 2^10.

    Whole numbers, so that every machine finds the same ranges.
    """
    shares = np.maximum(np.arange((1 << kernels.COUNT_BITS) + 1), 1)
    return np.rint((kernels.COUNT_BITS - np.log2(shares)) * 65536).astype(np.int64)


def apack_ranges(counts: Int64s, symbols: int) -> Int64s:
    """Return the 17 ends of the 16 ranges that the paper's search finds, 0 and `symbols` too.

    From equal ranges on, the best move of one boundary, or of one and a neighbour, is made
    until it gains less than 1 % of offset bits plus code bits (shares rounded to 2^-10).

    Parameters
    ----------
    counts
        int64, how often each symbol occurs; not all 0.
    symbols
        Size of the alphabet, a multiple of 16.
    """
    costs = np.zeros((symbols + 1, symbols + 1), np.int64)
    kernels.range_costs(counts, symbols, _code_lengths(), costs)
    ends, move = np.zeros(kernels.RANGES + 1, np.int64), np.zeros(4, np.int64)
    kernels.search(costs, symbols, ends, move)
    return ends


def apack_counts(held: Int64s) -> Int64s:
    """Return the 17 bounds, 0 to 2^10 - 1, of ranges that hold so many values.

    Every range that holds a value gets at least one count; the largest takes what is left.
    """
    shares = held * kernels.TOP_COUNT // int(held.sum())
    shares = np.where(held > 0, np.maximum(shares, 1), 0)
    shares[int(held.argmax())] += kernels.TOP_COUNT - int(shares.sum())
    return np.concatenate([[0], np.cumsum(shares)]).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Apack(CodedContainer):
    """Exponents in 16 ranges: the range by an arithmetic code, the offset in it as it is.

    The paper codes integers of 8 bits and keeps a table a tensor; here the symbols are
    exponents and the table is a block's. 16 ranges, counts of 10 bits, registers of 16 and the
    search are the paper's. Where it is silent about the coder, this is our choice: per range
    its least exponent and the count where it ends (10 bits, the last 0x3FF); the code's length
    (24 bits); the code: from LO = 0, HI = 0xFFFF, HI = LO + (span x end >> 10) - 1 and
    LO += span x begin >> 10, equal leading bits are written, first first, and 01 against 10
    waits (as Witten, Neal and Cleary do, CACM 1987), at the end all 16 bits of LO; then
    offset, mantissa and sign of every value.
    """

    family: ClassVar[str] = "apack"
    source: ClassVar[str] = "Delmas Lascorz et al., APack, arXiv 2201.08830, 2022"
    summary: ClassVar[str] = "lossless: arithmetic code of 16 exponent ranges, raw offsets"
    needs: ClassVar[Literal["none", "block", "tensor"]] = "block"
    timing: ClassVar[CodecTiming] = CodecTiming(
        values_per_cycle=1,
        passes=2,
        source="one value a cycle and engine (arXiv 2201.08830, from memory); the block goes by "
        "once for its table; four pipeline stages a choice",
    )

    def write(
        self, words: Words, fmt: FloatFormat, out: NDArray[np.uint8], bits: NDArray[np.int64]
    ) -> None:
        """Write table, code and what is raw."""
        counts, w = np.zeros(SYMBOLS, np.int64), widths_of(fmt)
        count_exponents(words, w, counts)
        ends = apack_ranges(counts, 1 << fmt.exponent_bits)
        highs = apack_counts(np.add.reduceat(counts, ends[:-1]))
        kernels.write_apack(words, w, ends, highs, np.zeros(SYMBOLS, np.int64), out, bits)

    def read(self, data: NDArray[np.uint8], fmt: FloatFormat, out: Words) -> int:
        """Read table, code and what is raw."""
        ends, highs = np.zeros((2, kernels.RANGES + 1), np.int64)
        range_of = np.zeros(1 << kernels.COUNT_BITS, np.int64)
        return int(kernels.read_apack(data, widths_of(fmt), ends, highs, range_of, out))
