"""Extended bit-plane compression: zero runs beside coded bit planes of what is not zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers import ebpc_codes
from sfpsim.containers.base import CodecTiming
from sfpsim.containers.coded import CodedContainer, Words
from sfpsim.formats import FloatFormat


@dataclass(frozen=True, kw_only=True)
class Ebpc(CodedContainer):
    """Zeros as runs, other words in blocks of 8 as bit planes of their differences.

    A word is a value's bits as a two's complement number (32 or 16 bits, m). In order: 0 and
    4 bits for a run of 1 to 16 zero words; 1 for another word. Behind the 1 of every eighth
    of these stand it and the next seven (zeros where there are none): the first word, then
    m + 1 planes of 7 bits of the differences, lowest first, each XORed with the one below:
    01 one zero XOR; 001 + log2 m bits a run of 2 to m + 1; 00000 all ones; 00001 the plane
    itself is zero; 00010 + 3 bits two neighbouring ones, 00011 + 3 bits a single one, at the
    first's place; 1 + 7 bits the XOR. Numbers begin with their highest bit. The authors send
    runs and planes as two streams; here they stand in one, in the order of reading.
    """

    family: ClassVar[str] = "ebpc"
    source: ClassVar[str] = "Cavigelli, Rutishauser and Benini, EBPC, JETCAS 2019"
    summary: ClassVar[str] = "lossless: zero runs, bit planes of 8 words that are not zero"
    timing: ClassVar[CodecTiming] = CodecTiming(
        values_per_cycle=1,
        encode_latency_cycles=16,
        decode_latency_cycles=8,
        encoder_kge=2.8,
        decoder_kge=3.0,
        source="Cavigelli et al., arXiv 1908.11645, abstract: one 8-bit word a cycle at 600 MHz "
        "in 65 nm, 2.8 and 3.0 kGE (longer words need more); latencies a choice: a block of 8 "
        "words is gathered, then coded",
    )

    def write(
        self, words: Words, fmt: FloatFormat, out: NDArray[np.uint8], bits: NDArray[np.int64]
    ) -> None:
        """Write runs and planes."""
        block = np.zeros(ebpc_codes.BLOCK_WORDS, np.int64)
        ebpc_codes.write_ebpc(words, fmt.bits, block, out, bits)

    def read(self, data: NDArray[np.uint8], fmt: FloatFormat, out: Words) -> int:
        """Read runs and planes."""
        block = np.zeros(ebpc_codes.BLOCK_WORDS, np.int64)
        return int(ebpc_codes.read_ebpc(data, fmt.bits, block, out))
