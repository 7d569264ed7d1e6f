"""How fast the containers are, beside memcpy of the same size in the same run.

Rates are 10^9 bytes of source a second; memcpy is bytes copied, counted once. The tensors
are larger than the caches and another array is swept before each run, so they are cold.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.lanes import LaneContainer, Streams
from sfpsim.containers.registry import parse_container
from sfpsim.errors import InputError
from sfpsim.formats import FORMATS, format_of

MIB = 1 << 20
SWEEP_BYTES = 64 * MIB


def training_like(values: int, dtype: str) -> NDArray[Any]:
    """Return `values` weights, normal with standard deviation 0.05; seed 0; 1-D."""
    x = np.random.default_rng(0).standard_normal(values, dtype=np.float32) * np.float32(0.05)
    return x.astype(FORMATS[dtype].dtype)


def _best_seconds(run: Callable[[], object], repeats: int, sweep: NDArray[np.uint8]) -> float:
    run()
    best = float("inf")
    for _ in range(repeats):
        np.add(sweep, 1, out=sweep)
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def _operations(
    container: LaneContainer, x: NDArray[Any]
) -> Iterator[tuple[str, Callable[[], object]]]:
    streams = Streams.room_for(x)
    restored = np.empty_like(x)
    container.encode_into(x, streams)
    stored = container.encode(x)
    yield "measure", lambda: container.measure(x)
    yield "encode", lambda: container.encode_into(x, streams)
    yield "decode", lambda: container.decode_into(stored, restored)


def _peers(x: NDArray[Any]) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Yield name, operation and call of every general compressor that is installed."""
    data = x.view(np.uint8)
    calls = {
        "zstandard-1": ("zstandard", "ZstdCompressor", "ZstdDecompressor"),
        "lz4": ("lz4.frame", "compress", "decompress"),
        "blosc-bitshuffle-lz4": ("numcodecs.blosc", "Blosc", "Blosc"),
    }
    for name, (module_name, pack_name, unpack_name) in calls.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        pack, unpack = getattr(module, pack_name), getattr(module, unpack_name)
        if name == "zstandard-1":
            pack, unpack = pack(level=1).compress, unpack().decompress
        elif name.startswith("blosc"):
            codec = pack(cname="lz4", clevel=1, shuffle=2, typesize=x.itemsize)
            pack, unpack = codec.encode, codec.decode
        packed = pack(data)
        yield name, "encode", partial(pack, data)
        yield name, "decode", partial(unpack, packed)


def bench_codec(
    mantissa_bits: tuple[int, ...] = (4, 23),
    *,
    dtype: str = "fp32",
    size_bytes: int = 64 * MIB,
    repeats: int = 5,
    peers: bool = True,
) -> dict[str, Any]:
    """Time measure, encode and decode of the Geckos, one thread, best of `repeats`.

    Parameters
    ----------
    mantissa_bits
        Mantissa bits kept; those above the type's are taken as all of it.
    dtype
        fp32, bf16 or fp16.
    size_bytes
        Bytes of the source tensor.
    repeats
        Timed runs of each operation.
    peers
        Whether to time zstandard, lz4 and blosc too, where they are installed.

    Returns
    -------
    dict
        ``bench --json`` of the command line: schema, memcpy_gbps, results.

    Raises
    ------
    InputError
        If `dtype` is unknown or a number is not positive.
    """
    if dtype not in FORMATS or size_bytes < 4 or repeats < 1:
        raise InputError(
            f"bench codec: dtype={dtype}, size_bytes={size_bytes}, repeats={repeats} given: "
            f"allowed are {', '.join(FORMATS)}, at least 4 bytes, at least 1 repeat"
        )
    x = training_like(size_bytes // FORMATS[dtype].bytes, dtype)
    sweep, copy = np.zeros(SWEEP_BYTES, np.uint8), np.empty_like(x)
    copy_seconds = _best_seconds(lambda: np.copyto(copy, x), repeats, sweep)

    def result(name: str, op: str, kept: int | None, call: Callable[[], object]) -> dict[str, Any]:
        seconds = _best_seconds(call, repeats, sweep)
        return {
            "bench": "codec",
            "name": name,
            "op": op,
            "dtype": dtype,
            "mantissa_bits": kept,
            "threads": 1,
            "gbps": x.nbytes / seconds / 1e9,
            "memcpy_ratio": copy_seconds / seconds,
        }

    results = []
    for kept, name, container in _containers(mantissa_bits, x):
        for op, call in _operations(container, x):
            results.append(result(name, op, kept, call))
    if peers:
        results += [result(name, op, None, call) for name, op, call in _peers(x)]
    return {"schema": 1, "memcpy_gbps": x.nbytes / copy_seconds / 1e9, "results": results}


def _containers(
    mantissa_bits: tuple[int, ...], x: NDArray[Any]
) -> Iterator[tuple[int, str, LaneContainer]]:
    most = format_of(x.dtype).mantissa_bits
    for kept in sorted({min(bits, most) for bits in mantissa_bits}):
        for name in ("gecko-bias", "gecko-delta"):
            spec = name if kept == most else f"sfp:m={kept},exponent={name}"
            container = parse_container(spec)
            if isinstance(container, LaneContainer):
                yield kept, name, container
