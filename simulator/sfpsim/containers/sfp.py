"""Schrödinger's FP: a cut mantissa and a limited or Gecko-coded exponent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NoReturn

from sfpsim.containers.base import Array, BlockContainer, BlockSizes, Encoded, Rows
from sfpsim.containers.kernels import BIAS, DELTA, FIXED, Layout, Limits
from sfpsim.containers.lanes import LaneContainer
from sfpsim.errors import InputError
from sfpsim.formats import FloatFormat

ExponentCode = Literal["fixed", "gecko-bias", "gecko-delta"]
EXPONENT_CODES: dict[ExponentCode, int] = {"fixed": FIXED, "gecko-bias": BIAS, "gecko-delta": DELTA}
MAX_MANTISSA_BITS, MAX_EXPONENT_BITS = 23, 8


@dataclass(frozen=True, kw_only=True)
class Sfp(LaneContainer):
    """Sign, exponent and the top mantissa bits.

    Attributes
    ----------
    mantissa_bits
        Mantissa bits kept, 0 .. 23 and not above the source's; None keeps all.
    exponent_bits
        Bits of the limited exponent, 1 .. 8; 8, or the source's width and above, limits
        nothing.
    exponent
        How the exponent is written: a fixed field or one of the Geckos.

    Raises
    ------
    InputError
        If a length or the code is none of these.
    """

    family: ClassVar[str] = "sfp"
    source: ClassVar[str] = "Schrödinger's FP, MLSys 2024"
    summary: ClassVar[str] = "lossy: m mantissa bits kept, exponent limited to e bits"

    mantissa_bits: int | None = None
    exponent_bits: int = MAX_EXPONENT_BITS
    exponent: ExponentCode = "fixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        kept = self.mantissa_bits
        if kept is not None and not 0 <= kept <= MAX_MANTISSA_BITS:
            raise InputError(f"sfp: m={kept} is not allowed: 0 to {MAX_MANTISSA_BITS}")
        if not 1 <= self.exponent_bits <= MAX_EXPONENT_BITS:
            raise InputError(
                f"sfp: e={self.exponent_bits} is not allowed: 1 to {MAX_EXPONENT_BITS}"
            )
        if self.exponent not in EXPONENT_CODES:
            raise InputError(
                f"sfp: exponent={self.exponent} is not allowed: {', '.join(EXPONENT_CODES)}"
            )

    @property
    def value_mantissa_bits(self) -> int | None:
        """Mantissa bits that are kept."""
        return self.mantissa_bits

    @property
    def base_spec(self) -> str:
        """``sfp:m=M,e=E,exponent=C``, m left out where all are kept, C where fixed."""
        parts = [] if self.mantissa_bits is None else [f"m={self.mantissa_bits}"]
        parts.append(f"e={self.exponent_bits}")
        if self.exponent != "fixed":
            parts.append(f"exponent={self.exponent}")
        return f"{self.family}:{','.join(parts)}"

    def layout(self, fmt: FloatFormat) -> Layout:
        """Return the fields of one value.

        Raises
        ------
        InputError
            If more mantissa bits are asked for than `fmt` has.
        """
        kept = fmt.mantissa_bits if self.mantissa_bits is None else self.mantissa_bits
        if kept > fmt.mantissa_bits:
            raise InputError(
                f"{self.spec}: m={kept} is above the {fmt.mantissa_bits} mantissa bits "
                f"of {fmt.name}"
            )
        field = min(self.exponent_bits, fmt.exponent_bits)
        code = EXPONENT_CODES[self.exponent]
        return Layout(code, fmt.exponent_bits, fmt.mantissa_bits, kept, field)

    def limits(self, fmt: FloatFormat) -> Limits | None:
        """Return Vmax, Vmin and Vmin / 2 as magnitude words, None at full exponent width."""
        bits, kept = self.exponent_bits, self.layout(fmt).kept
        if bits >= fmt.exponent_bits:
            return None
        least, most = fmt.bias - (1 << (bits - 1)), fmt.bias + (1 << (bits - 1)) - 1
        gone = fmt.mantissa_bits - kept
        vmax = (most << fmt.mantissa_bits) | (((1 << kept) - 1) << gone)
        vmin = (least << fmt.mantissa_bits) + (1 << gone)
        return Limits(vmax, vmin, vmin - (1 << fmt.mantissa_bits))


@dataclass(frozen=True, kw_only=True)
class SfpFromTrace(BlockContainer):
    """``sfp`` without lengths: takes those in force in the trace, through `resolve`.

    Every other method raises an `InputError` that says so.
    """

    family: ClassVar[str] = "sfp"
    source: ClassVar[str] = Sfp.source
    summary: ClassVar[str] = "sfp with the bitlengths that the trace recorded"

    exponent: ExponentCode = "fixed"

    @property
    def base_spec(self) -> str:
        """``sfp``, with the exponent's code where it is not fixed."""
        return "sfp" if self.exponent == "fixed" else f"sfp:exponent={self.exponent}"

    def resolve(self, mantissa_bits: int | None, exponent_bits: int | None) -> Sfp:
        """Return the container at the lengths in force.

        A length of None keeps its whole field.

        Raises
        ------
        InputError
            If both are None (no lengths in force) or one is out of range.
        """
        if mantissa_bits is None and exponent_bits is None:
            self._refuse()
        return Sfp(
            mantissa_bits=mantissa_bits,
            exponent_bits=MAX_EXPONENT_BITS if exponent_bits is None else exponent_bits,
            exponent=self.exponent,
            block_values=self.block_values,
        )

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"container {self.spec!r} takes the bitlengths in force in a trace and there are "
            "none here: give them, for example sfp:m=4,e=5"
        )

    def lossless_for(self, fmt: FloatFormat) -> bool:
        """Return False: lengths are not known to keep everything."""
        return False

    def measure_blocks(self, x: Array, *, signed: bool | None = None) -> BlockSizes:
        """Raise `InputError`: resolve first."""
        self._refuse()

    def rows(self, x: Array, *, signed: bool | None = None) -> Rows:
        """Raise `InputError`: resolve first."""
        self._refuse()

    def quantize(self, x: Array) -> Array:
        """Raise `InputError`: resolve first."""
        self._refuse()

    def encode(self, x: Array, *, signed: bool | None = None) -> Encoded:
        """Raise `InputError`: resolve first."""
        self._refuse()

    def decode(self, stored: Encoded) -> Array:
        """Raise `InputError`: resolve first."""
        self._refuse()
