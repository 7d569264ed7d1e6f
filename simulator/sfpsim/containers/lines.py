"""Compressors of cache lines and memory blocks, on the bytes as they lie: BDI, FPC, BPC.

They know nothing of floats: all their bits count as mantissa, tags and masks as metadata.
The last line of a block is read as if zeros followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers import line_codes
from sfpsim.containers.base import CodecTiming
from sfpsim.containers.coded import CodedContainer, Words
from sfpsim.errors import InputError
from sfpsim.formats import FloatFormat

BDI_LINES = (32, 64)


@dataclass(frozen=True, kw_only=True)
class Bdi(CodedContainer):
    """Base-delta-immediate: a line is zeros, one 8-byte value, or deltas to zero or a base.

    Per line a tag (4 bits), a mask bit an element (1: its delta is to the base, the first
    element that is not near zero), base and deltas of 8-1, 4-1, 8-2, 2-1, 4-2 or 8-4 bytes,
    the first that fits (they are in order of size); else the line as it is. Sizes of base
    and deltas are the paper's; zeros take a byte, a repeated value eight.
    """

    family: ClassVar[str] = "bdi"
    source: ClassVar[str] = "Pekhimenko et al., Base-Delta-Immediate, PACT 2012"
    summary: ClassVar[str] = "lossless: cache lines as small deltas to zero or one base"
    timing: ClassVar[CodecTiming] = CodecTiming(
        encode_latency_cycles=6,
        decode_latency_cycles=1,
        source="Pekhimenko et al., PACT 2012: decompression in one cycle; encoder a choice",
    )

    line_bytes: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.line_bytes not in BDI_LINES:
            raise InputError(f"bdi: line={self.line_bytes} is not allowed: 32, 64")

    @property
    def base_spec(self) -> str:
        """``bdi``, with ``line=32`` where lines have 32 bytes."""
        return "bdi" if self.line_bytes == 64 else f"bdi:line={self.line_bytes}"

    def write(
        self, words: Words, fmt: FloatFormat, out: NDArray[np.uint8], bits: NDArray[np.int64]
    ) -> None:
        """Write the lines."""
        line_codes.write_bdi(words.view(np.uint8), self.line_bytes, out, bits)

    def read(self, data: NDArray[np.uint8], fmt: FloatFormat, out: Words) -> int:
        """Read the lines."""
        return int(line_codes.read_bdi(data, self.line_bytes, out.view(np.uint8)))


@dataclass(frozen=True, kw_only=True)
class Fpc(CodedContainer):
    """Frequent pattern compression: a prefix of 3 bits and a payload for each 32-bit word.

    0: a run of 1 to 8 zero words (3 bits); 1, 2, 3: 4, 8, 16 bits sign-extended; 4: the
    upper half, the lower is zero; 5: two halves, each a byte sign-extended; 6: one byte
    four times; 7: the word. The first that fits.
    """

    family: ClassVar[str] = "fpc"
    source: ClassVar[str] = "Alameldeen and Wood, Frequent Pattern Compression, TR-1500, 2004"
    summary: ClassVar[str] = "lossless: 32-bit words by frequent patterns, a 3-bit prefix each"
    timing: ClassVar[CodecTiming] = CodecTiming(
        encode_latency_cycles=3,
        decode_latency_cycles=5,
        source="Alameldeen and Wood, TR-1500, 2004: five-cycle decompression; encoder a choice",
    )

    def write(
        self, words: Words, fmt: FloatFormat, out: NDArray[np.uint8], bits: NDArray[np.int64]
    ) -> None:
        """Write the words."""
        line_codes.write_fpc(words.view(np.uint8), out, bits)

    def read(self, data: NDArray[np.uint8], fmt: FloatFormat, out: Words) -> int:
        """Read the words."""
        return int(line_codes.read_fpc(data, out.view(np.uint8)))


@dataclass(frozen=True, kw_only=True)
class Bpc(CodedContainer):
    """Bit-plane compression: 32 words of 32 bits as a base and 33 planes of differences.

    Neighbouring planes are XORed (DBX), highest first. Codes, first bit first: 01 + 5 bits
    a run of 2 to 33 zero DBX; 001 one zero DBX; 00000 all ones; 00001 the plane itself is
    zero; 00010 + 5 bits two neighbouring ones; 00011 + 5 bits a single one; 1 + 31 bits the
    DBX. Base: 000 zero, 001 + 4, 010 + 8, 011 + 16 bits sign-extended, 1 + 32 bits.
    """

    family: ClassVar[str] = "bpc"
    source: ClassVar[str] = "Kim et al., Bit-Plane Compression, ISCA 2016"
    summary: ClassVar[str] = "lossless: 128-byte blocks as coded bit planes of differences"
    timing: ClassVar[CodecTiming] = CodecTiming(
        encode_latency_cycles=11,
        decode_latency_cycles=11,
        source="Kim et al., ISCA 2016: about 11 cycles for a 128-byte block, from memory",
    )

    def write(
        self, words: Words, fmt: FloatFormat, out: NDArray[np.uint8], bits: NDArray[np.int64]
    ) -> None:
        """Write the blocks of 128 bytes."""
        planes = np.zeros(line_codes.PLANES, np.int64)
        line_codes.write_bpc(words.view(np.uint8), planes, out, bits)

    def read(self, data: NDArray[np.uint8], fmt: FloatFormat, out: Words) -> int:
        """Read the blocks of 128 bytes."""
        planes = np.zeros(line_codes.PLANES, np.int64)
        return int(line_codes.read_bpc(data, planes, out.view(np.uint8)))
