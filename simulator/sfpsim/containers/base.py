"""The law of containers, the sizes they report and the base class they share.

Law: for any array `x` of a dtype the container applies to, any bit pattern, any length,

    decode(encode(x)) == quantize(x)          bit for bit, dtype and shape included
    8 * len(encode(x)) == measure(x).total_bits

and a lossless container has ``quantize(x) == x``. Two containers may share a name only if
they write the same bytes for every input.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sfpsim.errors import InputError
from sfpsim.formats import FloatFormat, format_of

Array = NDArray[Any]
DEFAULT_BLOCK_VALUES = 16_384
MOST_BLOCK_VALUES = 65_536  # up to here any tensor of 2^31 values fits `lanes.index_entry`
BLOCK_STEP_VALUES = 64  # a group of gecko-delta; runs of a trace are multiples of it too
STREAM_ALIGNMENT_BYTES = 64
INDEX_ENTRY_BITS = 64
ROW_VALUES = 8
RATES = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bits of a stored tensor by what they are for; `raw_bits` is its source type's."""

    values: int = 0
    raw_bits: int = 0
    sign_bits: int = 0
    exponent_bits: int = 0
    mantissa_bits: int = 0
    metadata_bits: int = 0
    padding_bits: int = 0
    index_bits: int = 0
    raw_blocks: int = 0
    nan_lost: int = 0

    @property
    def total_bits(self) -> int:
        """All bits that lie in memory."""
        return (
            self.sign_bits
            + self.exponent_bits
            + self.mantissa_bits
            + self.metadata_bits
            + self.padding_bits
            + self.index_bits
        )

    @property
    def ratio(self) -> float | None:
        """raw_bits / total_bits; None for an empty tensor."""
        return self.raw_bits / self.total_bits if self.total_bits else None

    def __add__(self, other: Sizes) -> Sizes:
        """Field-wise sum."""
        return Sizes(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Sizes)}
        )


@dataclass(frozen=True, kw_only=True)
class BlockSizes:
    """Sizes of each block of a tensor; every array is int64 of one entry a block.

    `payload_bytes` and `metadata_bytes` are the streams' lengths with padding (a raw block
    has no metadata); `raw` is bool.
    """

    values: NDArray[np.int64]
    sign_bits: NDArray[np.int64]
    exponent_bits: NDArray[np.int64]
    mantissa_bits: NDArray[np.int64]
    metadata_bits: NDArray[np.int64]
    padding_bits: NDArray[np.int64]
    payload_bytes: NDArray[np.int64]
    metadata_bytes: NDArray[np.int64]
    raw: NDArray[np.bool_]
    index_bits_per_block: int = INDEX_ENTRY_BITS
    nan_lost: int = 0

    def total(self, raw_bits: int) -> Sizes:
        """Sum over blocks; `raw_bits` is the tensor's size in its source type."""
        return Sizes(
            values=int(self.values.sum()),
            raw_bits=raw_bits,
            sign_bits=int(self.sign_bits.sum()),
            exponent_bits=int(self.exponent_bits.sum()),
            mantissa_bits=int(self.mantissa_bits.sum()),
            metadata_bits=int(self.metadata_bits.sum()),
            padding_bits=int(self.padding_bits.sum()),
            index_bits=len(self.values) * self.index_bits_per_block,
            raw_blocks=int(self.raw.sum()),
            nan_lost=self.nan_lost,
        )


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Widths of each row of 8 values, what the hardware's cycle counts come from.

    `payload_bits`: uint16, payload bits of the whole row (all lanes); `metadata_bits`:
    uint8. Rows restart at each block. Raw blocks are not applied here.
    """

    payload_bits: NDArray[np.uint16]
    metadata_bits: NDArray[np.uint8]


def with_key(spec: str, key: str, value: object) -> str:
    """Return the specification `spec` with one key more."""
    return f"{spec}{',' if ':' in spec else ':'}{key}={value}"


def block_parts(flat: Array, block_values: int) -> list[Array]:
    """Return the blocks of a tensor's values (1-D, memory order), as views."""
    return [flat[at : at + block_values] for at in range(0, flat.size, block_values)]


def joined_blocks(parts: Sequence[BlockSizes]) -> BlockSizes:
    """Return the blocks of a tensor from those of its consecutive parts, one or more."""
    plain = ("index_bits_per_block", "nan_lost")
    arrays: dict[str, Any] = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts])
        for f in fields(BlockSizes)
        if f.name not in plain
    }
    return replace(parts[0], nan_lost=sum(part.nan_lost for part in parts), **arrays)


@dataclass(frozen=True, kw_only=True)
class CodecTiming:
    """What hardware/ runs: a unit takes `values_per_cycle` and gives them after a latency.

    A unit works on rows of 8 values, so `values_per_cycle` is 1, 2, 4 or 8 and a row takes
    `cycles_per_row`. `passes` is how often a value goes through the encoder (2 where something
    of the whole block or tensor must be known first and is not); a container with `bypass` has
    no codec at all. `encoder_kge` and `decoder_kge` are thousands of gate equivalents of one
    unit where `source` gives them, else None.
    """

    values_per_cycle: Literal[1, 2, 4, 8] = 8
    encode_latency_cycles: int = 4
    decode_latency_cycles: int = 4
    passes: int = 1
    bypass: bool = False
    encoder_kge: float | None = None
    decoder_kge: float | None = None
    source: str = "a choice: one row a cycle, four pipeline stages"

    def __post_init__(self) -> None:
        if self.values_per_cycle not in RATES:
            allowed = ", ".join(map(str, RATES))
            raise InputError(f"values_per_cycle={self.values_per_cycle} is not allowed: {allowed}")

    @property
    def cycles_per_row(self) -> int:
        """Codec cycles that a row of 8 values takes."""
        return ROW_VALUES // self.values_per_cycle


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A stored tensor: its three streams and what is kept with the tensor.

    ``len()`` is the bytes that lie in memory (payload, metadata, index).
    """

    payload: bytes
    metadata: bytes
    index: bytes
    shape: tuple[int, ...]
    dtype: str
    signed: bool

    def __len__(self) -> int:
        """Bytes of payload, metadata and index."""
        return len(self.payload) + len(self.metadata) + len(self.index)


class Container(abc.ABC):
    """A form in which a tensor lies in off-chip memory; see the module's law.

    Subclasses are frozen parameter objects. `signed` says whether a value of the *whole*
    tensor has its sign bit set; None means: look at `x`. A container is `blockwise` where,
    `signed` given, its sizes, rows and quantized values are those of each block of
    `block_values` values alone; long tensors are then worked through in parts, in little
    memory. It is `stable` where ``quantize(quantize(x))`` is ``quantize(x)``, which scales
    that are no powers of two do not grant.
    """

    family: ClassVar[str]
    source: ClassVar[str]
    summary: ClassVar[str]
    needs: ClassVar[Literal["none", "block", "tensor"]] = "none"
    blockwise: ClassVar[bool] = False
    stable: ClassVar[bool] = True
    timing: ClassVar[CodecTiming] = CodecTiming()

    @property
    @abc.abstractmethod
    def spec(self) -> str:
        """The text that `parse_container` turns into this container again."""

    @property
    def block_values(self) -> int:
        """Values of a block; the last one of a tensor may be shorter."""
        return DEFAULT_BLOCK_VALUES

    @property
    def value_mantissa_bits(self) -> int | None:
        """Mantissa bits that hold every normal value it yields; None: as many as the source's.

        They choose the type that values have on chip.
        """
        return None

    @abc.abstractmethod
    def lossless_for(self, fmt: FloatFormat) -> bool:
        """Whether ``quantize`` is the identity on every value of `fmt`."""

    @abc.abstractmethod
    def measure_blocks(self, x: Array, *, signed: bool | None = None) -> BlockSizes:
        """Count the sizes of every block without writing a stream (the fast path)."""

    @abc.abstractmethod
    def quantize(self, x: Array) -> Array:
        """Return what `x` becomes when stored and read back; same dtype and shape."""

    @abc.abstractmethod
    def encode(self, x: Array, *, signed: bool | None = None) -> Encoded:
        """Write `x`, C order, as payload, metadata and index."""

    @abc.abstractmethod
    def decode(self, stored: Encoded) -> Array:
        """Read back what `encode` wrote; same dtype and shape as the source."""

    def parts(self, flat: Array, most: int) -> list[Array]:
        """Return parts of a tensor (1-D) to work through one by one, as views, one or more.

        They are whole blocks of `most` values, about; the tensor if it is not `blockwise`.
        """
        step = max(flat.size, 1)
        if self.blockwise:
            step = max(most // self.block_values, 1) * self.block_values
        return block_parts(flat, step) or [flat]

    def index_alone(self, entry: bytes) -> bytes:
        """Return the index of a tensor of one block, from its entry in a longer tensor.

        `entry` is the block's bytes, empty where the container has no index.
        """
        return entry

    def measure(self, x: Array, *, signed: bool | None = None) -> Sizes:
        """Count the sizes of `x` as stored; allocates no stream."""
        return self.measure_blocks(x, signed=signed).total(x.size * format_of(x.dtype).bits)

    def rows(self, x: Array, *, signed: bool | None = None) -> Rows:
        """Row widths for the hardware; by default each block's bits spread evenly."""
        blocks = self.measure_blocks(x, signed=signed)
        rows = -(-blocks.values // ROW_VALUES)
        field_bits = blocks.sign_bits + blocks.exponent_bits + blocks.mantissa_bits
        payload = np.repeat(-(-field_bits // np.maximum(rows, 1)), rows)
        metadata = np.repeat(-(-blocks.metadata_bits // np.maximum(rows, 1)), rows)
        return Rows(payload_bits=payload.astype(np.uint16), metadata_bits=metadata.astype(np.uint8))


@dataclass(frozen=True, kw_only=True)
class BlockContainer(Container):
    """A container whose blocks are as long as it is told; the built-in ones are such, or hold one.

    Attributes
    ----------
    block_values
        Values of a block: a multiple of 64 (a group of gecko-delta), 64 to 65,536.

    Raises
    ------
    InputError
        If `block_values` is none of these.
    """

    block_values: int = DEFAULT_BLOCK_VALUES

    def __post_init__(self) -> None:
        values = self.block_values
        if not 0 < values <= MOST_BLOCK_VALUES or values % BLOCK_STEP_VALUES:
            raise InputError(
                f"{self.base_spec}: block={values} is not allowed: a multiple of "
                f"{BLOCK_STEP_VALUES} up to {MOST_BLOCK_VALUES} (values)"
            )

    @property
    @abc.abstractmethod
    def base_spec(self) -> str:
        """The specification at the default size of blocks."""

    @property
    def spec(self) -> str:
        """`base_spec`, with ``block=`` where blocks are not of 16,384 values."""
        if self.block_values == DEFAULT_BLOCK_VALUES:
            return self.base_spec
        return with_key(self.base_spec, "block", self.block_values)
