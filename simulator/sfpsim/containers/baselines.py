"""General compressors, block by block: zstd, lz4, blosc (bitshuffle) and pcodec.

They need the extra ``baselines``; a compressor is imported when it is first used. Their
bytes are those of the installed version of the library, so sizes may differ between
versions. All bits count as mantissa. There is no hardware claim: the timing is a nominal
row a cycle, so that what they would save can be simulated.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.base import CodecTiming
from sfpsim.containers.coded import MANTISSA, METADATA, CodedContainer, Words
from sfpsim.errors import InputError
from sfpsim.formats import FloatFormat

LENGTH_BYTES = 4
Pack = Callable[[Any, Words], bytes]
Unpack = Callable[[Any, bytes, Words], Any]


def _blosc(module: Any, words: Words) -> bytes:
    packed: bytes = module.compress2(
        words,
        typesize=words.itemsize,
        codec=module.Codec.LZ4,
        clevel=5,
        filters=[module.Filter.BITSHUFFLE],
        nthreads=1,
    )
    return packed


def _numbers(words: Words) -> NDArray[Any]:
    """Return words as pcodec takes them: FP32 as floats, 16-bit types as integers."""
    return words.view(np.float32) if words.itemsize == 4 else words


TOOLS: dict[str, tuple[str, str, Pack, Unpack]] = {
    "zstd": (
        "zstandard",
        "Collet, Zstandard, RFC 8878",
        lambda m, words: m.ZstdCompressor(level=1).compress(words.tobytes()),
        lambda m, data, like: m.ZstdDecompressor().decompress(data, max_output_size=like.nbytes),
    ),
    "lz4": (
        "lz4.block",
        "Collet, LZ4",
        lambda m, words: m.compress(words.tobytes(), store_size=False),
        lambda m, data, like: m.decompress(data, uncompressed_size=like.nbytes),
    ),
    "blosc": (
        "blosc2",
        "Blosc 2, bitshuffle and LZ4",
        _blosc,
        lambda m, data, like: m.decompress2(data),
    ),
    "pcodec": (
        "pcodec",
        "Loncaric, pcodec",
        lambda m, words: m.standalone.simple_compress(_numbers(words), m.ChunkConfig()),
        lambda m, data, like: np.asarray(m.standalone.simple_decompress(data)).tobytes(),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Baseline(CodedContainer):
    """A block as the library's frame behind its length (32 bits).

    Attributes
    ----------
    tool
        ``zstd``, ``lz4``, ``blosc`` or ``pcodec``.
    """

    family: ClassVar[str] = "baseline"
    source: ClassVar[str] = "general compressors, by their libraries"
    summary: ClassVar[str] = "lossless: a general compressor, block by block (extra baselines)"
    timing: ClassVar[CodecTiming] = CodecTiming(
        source="nominal: no hardware is claimed for a general compressor"
    )

    tool: str

    @property
    def base_spec(self) -> str:
        """The tool's name."""
        return self.tool

    def _module(self) -> Any:
        name = TOOLS[self.tool][0]
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise InputError(
                f"container {self.tool!r} needs {name.partition('.')[0]}, which is not "
                "installed: pip install 'sfpsim[baselines]'"
            ) from error

    def write(
        self, words: Words, fmt: FloatFormat, out: NDArray[np.uint8], bits: NDArray[np.int64]
    ) -> None:
        """Compress the block."""
        packed = TOOLS[self.tool][2](self._module(), words)
        bits[MANTISSA], bits[METADATA] = 8 * len(packed), 8 * LENGTH_BYTES
        if out.size:
            data = len(packed).to_bytes(LENGTH_BYTES, "little") + packed
            data = data[: out.size]  # a frame that long is not stored: the block goes raw
            out[: len(data)] = np.frombuffer(data, np.uint8)

    def read(self, data: NDArray[np.uint8], fmt: FloatFormat, out: Words) -> int:
        """Decompress the block; -1 where the library refuses it or its length is wrong."""
        module, length = self._module(), int.from_bytes(data[:LENGTH_BYTES].tobytes(), "little")
        if LENGTH_BYTES + length > data.size:
            return -1
        packed = data[LENGTH_BYTES : LENGTH_BYTES + length].tobytes()
        try:
            values = TOOLS[self.tool][3](module, packed, out)
        except Exception:
            return -1
        if len(values) != out.nbytes:
            return -1
        out.view(np.uint8)[:] = np.frombuffer(values, np.uint8)
        return 8 * (LENGTH_BYTES + length)
