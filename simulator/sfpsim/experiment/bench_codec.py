"""How fast the containers are, beside memcpy of the same size in the same run.

Rates are 10^9 bytes of source a second; memcpy is bytes copied, counted once. The tensors
are larger than the caches and another array is swept before each run, so they are cold.
Destinations are allocated before for what is ours and for memcpy; peers allocate their own.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.base import DEFAULT_BLOCK_VALUES
from sfpsim.containers.lanes import LaneContainer, Streams, over_blocks
from sfpsim.containers.registry import parse_container
from sfpsim.errors import InputError
from sfpsim.formats import FORMATS, format_of

MIB = 1 << 20
SWEEP_BYTES = 64 * MIB
Call = Callable[[], object]


def training_like(values: int, dtype: str) -> NDArray[Any]:
    """Return `values` weights, normal with standard deviation 0.05; seed 0; 1-D."""
    x = np.random.default_rng(0).standard_normal(values, dtype=np.float32) * np.float32(0.05)
    return x.astype(FORMATS[dtype].dtype)


def _best_seconds(run: Call, repeats: int, sweep: NDArray[np.uint8]) -> float:
    run()
    best = float("inf")
    for _ in range(repeats):
        np.add(sweep, 1, out=sweep)
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def _memcpy(x: NDArray[Any], threads: int) -> Call:
    """Return a call that copies `x` in equal parts, one a thread."""
    copy = np.empty_like(x)
    blocks, size = max(x.size // DEFAULT_BLOCK_VALUES, 1), DEFAULT_BLOCK_VALUES

    def part(first: int, last: int) -> None:
        cut = slice(first * size, x.size if last == blocks else last * size)
        np.copyto(copy[cut], x[cut])

    return lambda: over_blocks(part, blocks, threads)


def _operations(
    container: LaneContainer, x: NDArray[Any], threads: int
) -> Iterator[tuple[str, Call]]:
    streams = Streams.room_for(x, container.block_values)
    restored = np.empty_like(x)
    container.encode_into(x, streams)
    stored = container.encode(x)
    yield "measure", lambda: container.measure_blocks(x, threads=threads)
    yield "encode", lambda: container.encode_into(x, streams, threads=threads)
    yield "decode", lambda: container.decode_into(stored, restored, threads=threads)


def _compressors(x: NDArray[Any]) -> dict[str, tuple[str, Callable[[Any], tuple[Call, Any]]]]:
    """Return the general compressors: module, and how it makes a packing call and unpacks."""
    data = x.view(np.uint8)
    number = x if x.dtype == np.float32 else x.view(np.uint16)
    return {
        "zstandard-1": (
            "zstandard",
            lambda m: (
                partial(m.ZstdCompressor(level=1).compress, data),
                m.ZstdDecompressor().decompress,
            ),
        ),
        "lz4": ("lz4.frame", lambda m: (partial(m.compress, data), m.decompress)),
        "blosc2-bitshuffle-lz4": (
            "blosc2",
            lambda m: (
                partial(
                    m.compress2, x, typesize=x.itemsize, codec=m.Codec.LZ4, clevel=1,
                    filters=[m.Filter.BITSHUFFLE], nthreads=1,
                ),
                partial(m.decompress2, nthreads=1),
            ),
        ),
        "pcodec": (
            "pcodec",
            lambda m: (
                partial(m.standalone.simple_compress, number, m.ChunkConfig()),
                m.standalone.simple_decompress,
            ),
        ),
        "zipnn": ("zipnn", partial(_zipnn, x)),
    }  # fmt: skip


def _zipnn(x: NDArray[Any], module: Any) -> tuple[Call, Any]:
    """Return ZipNN's packing call and what unpacks; it asks for bytes, made before."""
    codec = module.ZipNN(input_format="byte", bytearray_dtype=x.dtype.name, threads=1)
    return partial(codec.compress, x.tobytes()), codec.decompress


def _peers(x: NDArray[Any]) -> Iterator[tuple[str, str, Call]]:
    """Yield name, operation and call of every general compressor that is installed."""
    for name, (module_name, make) in _compressors(x).items():
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        pack, unpack = make(module)
        packed = pack()
        yield name, "encode", pack
        yield name, "decode", partial(unpack, packed)


def _low_precision(x: NDArray[Any]) -> Iterator[tuple[str, str, Call]]:
    """Yield encoders of MXFP8 and FP8: ours, torchao's where it is installed, ml_dtypes'."""
    for name in ("mxfp8-e4m3", "fp8-e4m3"):
        yield name, "encode", partial(parse_container(name).encode, x)
    import ml_dtypes

    yield "ml_dtypes-e4m3", "encode", lambda: x.astype(ml_dtypes.float8_e4m3fn)
    try:
        torch = importlib.import_module("torch")
        mx = importlib.import_module("torchao.prototype.mx_formats.mx_tensor")
    except ImportError:
        return
    torch.set_num_threads(1)
    rows = x[: x.size // 1024 * 1024].reshape(-1, 1024)
    tensor = torch.from_numpy(rows if x.dtype == np.float32 else rows.view(np.uint16))
    tensor = tensor if x.dtype == np.float32 else tensor.view(torch.bfloat16)
    yield "torchao-mxfp8-e4m3", "encode", lambda: mx.to_mx(tensor, torch.float8_e4m3fn, 32)


def bench_codec(
    mantissa_bits: tuple[int, ...] = (4, 23),
    *,
    dtypes: Sequence[str] = ("fp32", "bf16"),
    threads: Sequence[int] = (1, 2),
    size_bytes: int = 64 * MIB,
    repeats: int = 5,
    peers: bool = True,
) -> dict[str, Any]:
    """Time measure, encode and decode of the Geckos, best of `repeats`.

    Parameters
    ----------
    mantissa_bits
        Mantissa bits kept; those above the type's are taken as all of it.
    dtypes
        Any of fp32, bf16 and fp16.
    threads
        Numbers of threads for what is ours and memcpy; those above the machine's are left
        out. Peers run on one.
    size_bytes
        Bytes of the source tensor.
    repeats
        Timed runs of each operation.
    peers
        Whether to time the general compressors and low-precision encoders too, where they
        are installed.

    Returns
    -------
    dict
        ``bench --json`` of the command line: schema, memcpy_gbps (first type, one thread),
        results; ``memcpy_ratio`` is to memcpy of the same type on as many threads.

    Raises
    ------
    InputError
        If a type is unknown or a number is not positive.
    """
    if not set(dtypes) <= set(FORMATS) or size_bytes < 4 or repeats < 1 or min(threads) < 1:
        raise InputError(
            f"bench codec: dtypes={tuple(dtypes)}, threads={tuple(threads)}, "
            f"size_bytes={size_bytes}, repeats={repeats} given: allowed are "
            f"{', '.join(FORMATS)}, at least 1 thread, 4 bytes and 1 repeat"
        )
    results: list[dict[str, Any]] = []
    for dtype in dtypes:
        x = training_like(size_bytes // FORMATS[dtype].bytes, dtype)
        for count in sorted({min(n, os.cpu_count() or 1) for n in threads}):
            calls = list(_ours(mantissa_bits, x, count))
            if peers and count == 1 and dtype != "fp16":
                calls += [(*call, None) for call in (*_peers(x), *_low_precision(x))]
            results += _timed(x, dtype, count, calls, repeats)
    copied = [r["gbps"] for r in results if r["name"] == "memcpy"]
    return {"schema": 1, "memcpy_gbps": copied[0], "results": results}


def _ours(
    mantissa_bits: tuple[int, ...], x: NDArray[Any], threads: int
) -> Iterator[tuple[str, str, Call, int | None]]:
    for kept, name, container in _containers(mantissa_bits, x):
        for op, call in _operations(container, x, threads):
            yield name, op, call, kept


def _timed(
    x: NDArray[Any],
    dtype: str,
    threads: int,
    calls: list[tuple[str, str, Call, int | None]],
    repeats: int,
) -> list[dict[str, Any]]:
    sweep = np.zeros(SWEEP_BYTES, np.uint8)
    copy_seconds = _best_seconds(_memcpy(x, threads), repeats, sweep)
    seconds = [copy_seconds, *(_best_seconds(call, repeats, sweep) for _, _, call, _ in calls)]
    names = [("memcpy", "copy", None), *((name, op, kept) for name, op, _, kept in calls)]
    return [
        {
            "bench": "codec",
            "name": name,
            "op": op,
            "dtype": dtype,
            "mantissa_bits": kept,
            "threads": threads,
            "gbps": x.nbytes / taken / 1e9,
            "memcpy_ratio": copy_seconds / taken,
        }
        for (name, op, kept), taken in zip(names, seconds, strict=True)
    ]


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
