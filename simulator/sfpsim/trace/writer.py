"""Writes a trace directory so that a kill at any moment loses at most one segment."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sfpsim.errors import InputError
from sfpsim.trace.schema import Manifest, TensorRecord

SEGMENT_BYTES = 64 << 20
DTYPE_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to a temporary name beside `path`, flush it to disk and rename."""
    temporary = path.with_name(f".tmp-{path.name}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def segment_bytes(records: list[TensorRecord], data: list[NDArray[Any]]) -> bytes:
    """Return a safetensors file with `data`; its metadata rebuilds the index and its CRCs."""
    header: dict[str, Any] = {
        "__metadata__": {
            "records": msgspec.json.encode(records).decode(),
            "crc32": json.dumps([zlib.crc32(part.tobytes()) for part in data]),
        }
    }
    at = 0
    for record, part in zip(records, data, strict=True):
        header[record.key] = {
            "dtype": DTYPE_CODES[record.dtype],
            "shape": [int(part.size)],
            "data_offsets": [at, at + part.nbytes],
        }
        at += part.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(part.tobytes() for part in data)


class TraceWriter:
    """Writes records and their values, segment by segment.

    Parameters
    ----------
    path
        The directory to make; it must not hold anything yet.
    manifest
        What the trace is.
    segment_bytes
        A segment is written when it holds this many bytes.

    Raises
    ------
    InputError
        If the directory is not empty or cannot be written.
    """

    def __init__(
        self, path: str | Path, manifest: Manifest, *, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.path = Path(path)
        self.limit = segment_bytes
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if any(self.path.iterdir()):
                raise InputError(f"{self.path}: not empty; a trace needs a directory of its own")
            write_atomically(
                self.path / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest))
            )
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from error
        self.segments = 0
        self.names: set[str] = set()
        self.pending: list[tuple[TensorRecord, NDArray[Any]]] = []
        self.pending_bytes = 0

    def __enter__(self) -> TraceWriter:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is pending."""
        self.flush()

    def add(self, record: TensorRecord, data: NDArray[Any]) -> None:
        """Add a tensor; `data` is its sampled runs, one after the other, in memory order.

        Raises
        ------
        InputError
            If the name is taken, or `data` is not what the record says.
        """
        if record.name in self.names:
            raise InputError(f"tensor {record.name!r} is in the trace already")
        if record.dtype not in DTYPE_CODES or data.dtype.name != record.dtype:
            raise InputError(
                f"tensor {record.name!r}: dtype {data.dtype.name} where the record says "
                f"{record.dtype}; allowed are {', '.join(DTYPE_CODES)}"
            )
        if data.size != record.sampled_values:
            raise InputError(
                f"tensor {record.name!r}: {data.size} values, its runs say {record.sampled_values}"
            )
        self.names.add(record.name)
        placed = msgspec.structs.replace(
            record, segment=f"segment-{self.segments:05d}.safetensors", key=record.name
        )
        self.pending.append((placed, np.array(data).reshape(-1)))
        self.pending_bytes += data.nbytes
        if self.pending_bytes >= self.limit:
            self.flush()

    def flush(self) -> None:
        """Write the pending tensors as a segment, then their lines of the index."""
        if not self.pending:
            return
        records = [record for record, _ in self.pending]
        data = segment_bytes(records, [part for _, part in self.pending])
        write_atomically(self.path / records[0].segment, data)
        lines = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
        with (self.path / "index.jsonl").open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self.segments += 1
        self.pending, self.pending_bytes = [], 0
