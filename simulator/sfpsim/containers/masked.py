"""A zero mask in front of any blockwise container: ``js+NAME[:key=value,...]``.

A block's mask, a bit a value (1: not all bits zero), filled to 64 bytes, stands before the
metadata; what is not zero is stored by the inner container as a tensor of one block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.base import (
    Array,
    BlockSizes,
    CodecTiming,
    Container,
    Encoded,
    block_parts,
)
from sfpsim.containers.lanes import Int64s, aligned, block_counts, format_named
from sfpsim.errors import InputError
from sfpsim.formats import FloatFormat, any_sign, format_of, words_of

PREFIX = "js+"
STAGES = 3
ENTRY = np.dtype([("payload", "<u4"), ("metadata", "<u4"), ("index", "<u8")])


@dataclass(frozen=True, kw_only=True)
class ZeroMasked(Container):
    """What `inner` makes of the values that are not zero, block by block.

    Index, 16 bytes a block: bytes of the block's payload and metadata (32 bits each, without
    filling, with the mask), and the inner container's entry, 0 where it has none; starts are
    the sums of the lengths, each filled to 64 bytes.
    """

    family: ClassVar[str] = "js"
    source: ClassVar[str] = "a zero mask as in JS (arXiv 2204.13666 v1, 2022) and what it names"
    summary: ClassVar[str] = "a presence bit a value, what is not zero in another container"
    needs: ClassVar[Literal["none", "block", "tensor"]] = "tensor"
    blockwise: ClassVar[bool] = True
    stable: ClassVar[bool] = False
    inner: Container

    def __post_init__(self) -> None:
        if not self.inner.blockwise or isinstance(self.inner, ZeroMasked):
            raise InputError(
                f"{PREFIX}{self.inner.spec}: a zero mask stands in front of containers that "
                "need nothing of the whole tensor but its signs"
            )

    @property
    def spec(self) -> str:
        """``js+`` and the inner container's specification."""
        return PREFIX + self.inner.spec

    @property
    def block_values(self) -> int:
        """Those of the inner container."""
        return self.inner.block_values

    @property
    def timing(self) -> CodecTiming:  # type: ignore[override]
        """The inner codec's, three stages later."""
        inner = self.inner.timing
        return replace(
            inner,
            encode_latency_cycles=inner.encode_latency_cycles + STAGES,
            decode_latency_cycles=inner.decode_latency_cycles + STAGES,
            bypass=False,
            encoder_kge=None,
            decoder_kge=None,
            source=f"a choice: mask and shuffle, {STAGES} stages, in front of: {inner.source}",
        )

    @property
    def value_mantissa_bits(self) -> int | None:
        """Those of the inner container."""
        return self.inner.value_mantissa_bits

    def lossless_for(self, fmt: FloatFormat) -> bool:
        """Whether the inner container loses nothing."""
        return self.inner.lossless_for(fmt)

    def _blocks(self, x: Array) -> list[tuple[NDArray[np.bool_], Array]]:
        """Return each block's mask and what is not zero."""
        words, fmt = words_of(x), format_of(x.dtype)
        parts = block_parts(words, self.block_values)
        return [(part != 0, part[part != 0].view(fmt.dtype)) for part in parts]

    def _signed(self, x: Array, asked: bool | None) -> bool:
        seen = any_sign(x)
        if asked is False and seen:
            raise InputError("signed=False was given, but a value has its sign bit set")
        return seen if asked is None else asked

    def measure_blocks(self, x: Array, *, signed: bool | None = None) -> BlockSizes:
        """Count masks and what the inner container counts."""
        store_signs, values = self._signed(x, signed), block_counts(x.size, self.block_values)
        sums = np.zeros((6, values.size), np.int64)
        lost = 0
        for i, (mask, held) in enumerate(self._blocks(x)):
            sums[:, i], nan_lost = _inner_sizes(self.inner, held, store_signs)
            sums[3, i] += mask.size
            sums[5, i] += -(-mask.size // 8)
            lost += nan_lost
        sign, exponent, mantissa, metadata, payload, side = sums
        payload, side = aligned(payload), aligned(side)
        used = sign + exponent + mantissa + metadata
        return BlockSizes(
            values=values,
            sign_bits=sign,
            exponent_bits=exponent,
            mantissa_bits=mantissa,
            metadata_bits=metadata,
            padding_bits=8 * (payload + side) - used,
            payload_bytes=payload,
            metadata_bytes=side,
            raw=np.zeros(values.size, np.bool_),
            index_bits_per_block=8 * ENTRY.itemsize,
            nan_lost=lost,
        )

    def quantize(self, x: Array) -> Array:
        """Return what the inner container makes of each block's values that are not zero."""
        out = np.zeros(x.size, format_of(x.dtype).dtype)
        parts = block_parts(out, self.block_values)
        for part, (mask, held) in zip(parts, self._blocks(x), strict=True):
            if held.size:
                part[mask] = self.inner.quantize(held)
        return out.reshape(x.shape)

    def encode(self, x: Array, *, signed: bool | None = None) -> Encoded:
        """Write masks and inner streams."""
        store_signs = self._signed(x, signed)
        blocks = self._blocks(x)
        entries = np.zeros(len(blocks), ENTRY)
        payload, metadata = [], []
        for entry, (mask, held) in zip(entries, blocks, strict=True):
            data, heads = b"", np.packbits(mask, bitorder="little").tobytes()
            if held.size:
                part = self.inner.encode(held, signed=store_signs)
                data, heads = part.payload, heads + part.metadata
                entry["index"] = int.from_bytes(part.index, "little")
            entry["payload"], entry["metadata"] = len(data), len(heads)
            payload.append(data.ljust(aligned(len(data)), b"\0"))
            metadata.append(heads.ljust(aligned(len(heads)), b"\0"))
        return Encoded(
            payload=b"".join(payload),
            metadata=b"".join(metadata),
            index=entries.tobytes(),
            shape=tuple(x.shape),
            dtype=x.dtype.name,
            signed=store_signs,
        )

    def decode(self, stored: Encoded) -> Array:
        """Read back what `encode` wrote.

        Raises
        ------
        InputError
            If streams, index and shape do not agree.
        """
        fmt, count = format_named(stored.dtype), prod(stored.shape)
        out = np.zeros(count, fmt.dtype)
        parts = block_parts(out, self.block_values)
        if len(stored.index) != len(parts) * ENTRY.itemsize:
            raise InputError(f"the index has {len(stored.index)} bytes for {len(parts)} blocks")
        entries = np.frombuffer(stored.index, ENTRY)
        starts, heads = (_starts(entries[name]) for name in ("payload", "metadata"))
        if (starts[-1], heads[-1]) != (len(stored.payload), len(stored.metadata)):
            raise InputError("the index does not agree with the lengths of the streams")
        for i, (entry, part) in enumerate(zip(entries, parts, strict=True)):
            data = stored.payload[starts[i] : starts[i] + int(entry["payload"])]
            side = stored.metadata[heads[i] : heads[i] + int(entry["metadata"])]
            self._decode_block(replace(stored, payload=data, metadata=side), entry, part)
        return out.reshape(stored.shape)

    def _decode_block(self, stored: Encoded, entry: Any, out: Array) -> None:
        size = -(-out.size // 8)
        if len(stored.metadata) < size:
            raise InputError(f"a block of {out.size} values needs a mask of {size} bytes")
        bits = np.frombuffer(stored.metadata[:size], np.uint8)
        mask = np.unpackbits(bits, count=out.size, bitorder="little").astype(np.bool_)
        held = int(mask.sum())
        if not held:
            if stored.payload or len(stored.metadata) != size:
                raise InputError("a block of zeros has values")
            return
        has_index = self.inner.measure_blocks(out[:1]).index_bits_per_block > 0
        inner = replace(
            stored,
            metadata=stored.metadata[size:],
            index=int(entry["index"]).to_bytes(8, "little") if has_index else b"",
            shape=(held,),
        )
        out[mask] = self.inner.decode(inner)


def _starts(lengths: NDArray[np.uint32]) -> Int64s:
    """Return where blocks begin, and where the last ends."""
    return np.concatenate([[0], np.cumsum(aligned(lengths.astype(np.int64)))])


def _inner_sizes(inner: Container, held: Array, signed: bool) -> tuple[list[int], int]:
    """Return the bits of the fields and bytes of the streams, and the NaNs lost."""
    if not held.size:
        return [0] * 6, 0
    sizes = inner.measure_blocks(held, signed=signed)
    fields = (
        sizes.sign_bits, sizes.exponent_bits, sizes.mantissa_bits, sizes.metadata_bits,
        sizes.payload_bytes, sizes.metadata_bytes,
    )  # fmt: skip
    return [int(field.sum()) for field in fields], sizes.nan_lost
