"""Containers that leave zeros out: JS, ZVC, GIST and GIST++; docs/containers.md has the bits.

A zero is the word of all zeros; -0.0 is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers import codes
from sfpsim.containers.base import Array, BlockSizes, CodecTiming, Encoded
from sfpsim.containers.coded import CodedContainer, Widths, Words, widths_of
from sfpsim.containers.floats import MiniFloat, any_float
from sfpsim.containers.packed import Coded, Fields, PackedContainer
from sfpsim.errors import InputError
from sfpsim.formats import FloatFormat, format_of, nan_count, words_of

ZVC_GROUP, CSR_COLUMNS, JS_GROUP = 32, 256, 8
MASKER = CodecTiming(
    encode_latency_cycles=3,
    decode_latency_cycles=3,
    source="a choice: mask, prefix count, pack through a shuffle of eight words",
)


@dataclass(frozen=True, kw_only=True)
class Masked(CodedContainer):
    """A bit a value, then the values that are not zero, group by group.

    JS has groups of a row, ZVC of 32 words. A block that does not shrink is stored raw.
    """

    family: ClassVar[str] = "js"
    source: ClassVar[str] = "Schrödinger's FP, arXiv 2204.13666 v1, 2022; ZVC: cDMA, HPCA 2018"
    summary: ClassVar[str] = "lossless: a presence bit a value, then what is not zero"
    timing: ClassVar[CodecTiming] = MASKER

    group: int = JS_GROUP

    @property
    def base_spec(self) -> str:
        """``js`` or ``zvc``."""
        return "js" if self.group == JS_GROUP else "zvc"

    def write(
        self, words: Words, fmt: FloatFormat, out: NDArray[np.uint8], bits: NDArray[np.int64]
    ) -> None:
        """Write masks and words."""
        codes.write_mask(words, widths_of(fmt), self.group, out, bits)

    def read(self, data: NDArray[np.uint8], fmt: FloatFormat, out: Words) -> int:
        """Read masks and words."""
        return int(codes.read_mask(data, widths_of(fmt), self.group, out))


DPR = {"fp16": (5, 10), "fp10": (5, 4), "fp8": (4, 3)}


@dataclass(frozen=True, kw_only=True)
class Gist(CodedContainer):
    """SSDC: rows of 256 values as a count and (column, value) of what is not zero.

    Attributes
    ----------
    dpr
        Delayed precision reduction: values are rounded to fp16 (1-5-10), fp10 (1-5-4) or
        fp8 (1-4-3) first; ``none`` keeps them.
    mask
        GIST++: a bit a value instead of columns.

    Notes
    -----
    A block that does not shrink is stored raw: in its rounded form where `dpr` rounds,
    still in words of the source type. In CSR a value keeps its source's width; the reduced
    one is that of the small float.
    """

    family: ClassVar[str] = "gist"
    source: ClassVar[str] = "Jain et al., Gist, ISCA 2018; GIST++: arXiv 2204.13666 v1, 2022"
    summary: ClassVar[str] = "zeros left out, by columns (gist) or a mask (gist++); dpr rounds"
    timing: ClassVar[CodecTiming] = MASKER

    dpr: str = "none"
    mask: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dpr not in ("none", *DPR):
            raise InputError(f"{self.name}: dpr={self.dpr} is not allowed: none, {', '.join(DPR)}")

    @property
    def name(self) -> str:
        """``gist`` or ``gist++``."""
        return "gist++" if self.mask else "gist"

    @property
    def base_spec(self) -> str:
        """The name, with ``dpr=`` where values are rounded."""
        return self.name if self.dpr == "none" else f"{self.name}:dpr={self.dpr}"

    @property
    def _small(self) -> MiniFloat:
        return any_float(*DPR[self.dpr])

    @property
    def value_mantissa_bits(self) -> int | None:
        """Those of the small float, where values are rounded."""
        return None if self.dpr == "none" else self._small.value_mantissa_bits

    def lossless_for(self, fmt: FloatFormat) -> bool:
        """Whether nothing is rounded away."""
        return self.dpr == "none" or self._small.lossless_for(fmt)

    def quantize(self, x: Array) -> Array:
        """Round to the reduced precision, where there is one."""
        return super().quantize(x) if self.dpr == "none" else self._small.quantize(x)

    def measure_blocks(self, x: Array, *, signed: bool | None = None) -> BlockSizes:
        """Count the sizes of every block."""
        return super().measure_blocks(self.quantize(x))

    def encode(self, x: Array, *, signed: bool | None = None) -> Encoded:
        """Round, then write every block."""
        return super().encode(self.quantize(x))

    def _narrow(self, words: Words, fmt: FloatFormat) -> Words:
        """Return the codes of rounded words in the reduced format; +0 keeps the code 0."""
        if self.dpr == "none":
            return words
        coded = self._small.code(words.view(fmt.dtype))
        return coded.codes[: words.size]

    def _widths(self, fmt: FloatFormat) -> Widths:
        if self.dpr == "none":
            return widths_of(fmt)
        return Widths(*DPR[self.dpr])

    def write(
        self, words: Words, fmt: FloatFormat, out: NDArray[np.uint8], bits: NDArray[np.int64]
    ) -> None:
        """Write what is not zero."""
        narrow, widths = self._narrow(words, fmt), self._widths(fmt)
        if self.mask:
            codes.write_mask(narrow, widths, JS_GROUP, out, bits)
        else:
            codes.write_csr(narrow, widths, CSR_COLUMNS, out, bits)

    def read(self, data: NDArray[np.uint8], fmt: FloatFormat, out: Words) -> int:
        """Read what is not zero."""
        narrow = out if self.dpr == "none" else np.empty(out.size, np.uint32)
        if self.mask:
            bits = codes.read_mask(data, self._widths(fmt), JS_GROUP, narrow)
        else:
            bits = codes.read_csr(data, self._widths(fmt), CSR_COLUMNS, narrow)
        if self.dpr != "none":
            coded = Coded(codes=narrow, side=np.zeros(0, np.uint8))
            out[:] = words_of(self._small.open(coded, (out.size,), fmt))
        return int(bits)


@dataclass(frozen=True, kw_only=True)
class Binarize(PackedContainer):
    """GIST's Binarize: a bit a value, whether it is above zero; it reads back as 1 or 0.

    For the output of a ReLU in front of a max-pooling, whose backward pass needs no more.
    """

    family: ClassVar[str] = "gist-binarize"
    source: ClassVar[str] = "Jain et al., Gist, ISCA 2018"
    summary: ClassVar[str] = "lossy: one bit a value, whether it is above zero"
    needs: ClassVar[Literal["none", "block", "tensor"]] = "none"
    blockwise: ClassVar[bool] = True
    timing: ClassVar[CodecTiming] = CodecTiming(
        encode_latency_cycles=1, decode_latency_cycles=1, source="a choice: a comparison"
    )

    @property
    def base_spec(self) -> str:
        """``gist-binarize``."""
        return self.family

    def fields(self, fmt: FloatFormat) -> Fields:
        """One bit."""
        return Fields(sign=0, exponent=0, mantissa=1)

    def nan_lost(self, x: Array) -> int:
        """Return the NaNs of `x`: they are not above zero."""
        return nan_count(x)

    def code(self, x: Array) -> Coded:
        """Compare every value with zero, on its bits."""
        fmt, words = format_of(x.dtype), words_of(x).astype(np.uint32)
        infinite = np.uint32(fmt.exponent_max << fmt.mantissa_bits)
        above = (words > 0) & (words <= infinite)
        return Coded(codes=above.astype(np.uint8), side=np.zeros(0, np.uint8))

    def open(self, coded: Coded, shape: tuple[int, ...], fmt: FloatFormat) -> Array:
        """Return 1 and 0."""
        return coded.codes[: prod(shape)].astype(fmt.dtype)
