"""Writes a trace directory so that a kill at any moment loses at most one segment."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sfpsim.errors import InputError
from sfpsim.trace.schema import Manifest, OpRecord, TensorRecord

SEGMENT_BYTES = 64 << 20
DTYPE_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Write `parts` to a temporary name beside `path`, flush it to disk and rename.

    Raises
    ------
    OSError
        If that fails; the temporary file is gone then.
    """
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def bytes_of(part: NDArray[Any]) -> memoryview:
    """Return the bytes of a flat contiguous array, without a copy."""
    return part.view(np.uint8).data


METADATA = ("records", "ops", "before", "crc32")


def segment_header(
    records: list[TensorRecord], ops: list[OpRecord], before: list[int], data: list[NDArray[Any]]
) -> bytes:
    """Return the head of a safetensors file with `data`, in that order.

    Its metadata rebuild the index and check themselves and every tensor; `before` is the
    number of records and of ops in the segments before it.
    """
    texts = {
        "records": msgspec.json.encode(records).decode(),
        "ops": msgspec.json.encode(ops).decode(),
        "before": json.dumps(before),
        "crc32": json.dumps([zlib.crc32(bytes_of(part)) for part in data]),
    }
    header: dict[str, Any] = {"__metadata__": texts | {"metadata_crc32": metadata_crc(texts)}}
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
    return len(text).to_bytes(8, "little") + text


def metadata_crc(texts: dict[str, str]) -> str:
    """Return the CRC32 over the other metadata, one after the other, in decimal."""
    return str(zlib.crc32("".join(texts[key] for key in METADATA).encode()))


def lines_of(entries: Iterable[OpRecord | TensorRecord]) -> bytes:
    """Return entries as the lines of an index file."""
    return b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)


class TraceWriter:
    """Writes records and their values, segment by segment.

    Ops go into the segment that is written next, so that those of a step lie in its first.

    Parameters
    ----------
    path
        The directory to make; it must not hold anything yet.
    manifest
        What the trace is.
    segment_bytes
        A segment is written when it holds this many bytes.
    after
        Records and ops that the directory holds already, where a trace is continued; None
        for a new one.

    Raises
    ------
    InputError
        If the directory is not empty or cannot be written.
    """

    def __init__(
        self, path: str | Path, manifest: Manifest, *, segment_bytes: int = SEGMENT_BYTES,
        after: tuple[Sequence[TensorRecord], Sequence[OpRecord]] | None = None,
    ) -> None:  # fmt: skip
        self.path = Path(path)
        self.limit = segment_bytes
        records, ops = after or ((), ())
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if after is None and any(self.path.iterdir()):
                raise InputError(f"{self.path}: not empty; a trace needs a directory of its own")
            write_atomically(
                self.path / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest))
            )
            if after is not None:  # what a kill took from the indices is written again
                write_atomically(self.path / "index.jsonl", lines_of(records))
                write_atomically(self.path / "ops.jsonl", lines_of(ops))
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from error
        self.segments = len({record.segment for record in records})
        self.names = {record.name for record in records}
        self.pending: list[tuple[TensorRecord, NDArray[Any]]] = []
        self.pending_bytes = 0
        self.ops: list[OpRecord] = []
        self.before = [len(records), len(ops)]

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

        `data` is not copied, and must not change before the next `flush`.

        Raises
        ------
        InputError
            If the name is taken, `data` is not what the record says, or a full segment cannot
            be written.
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
        self.pending.append((placed, np.ascontiguousarray(data).reshape(-1)))
        self.pending_bytes += data.nbytes
        if self.pending_bytes >= self.limit:
            self.flush()

    def add_ops(self, ops: Iterable[OpRecord]) -> None:
        """Add operations of a step, before its tensors."""
        self.ops.extend(ops)

    def flush(self) -> None:
        """Write the pending tensors as a segment, then their lines of the index.

        Raises
        ------
        InputError
            If they cannot be written; no partial segment is left.
        """
        if not self.pending:
            return
        # widest first, so that every tensor lies at a multiple of its width
        pending = sorted(self.pending, key=lambda item: -item[1].itemsize)
        records = [record for record, _ in pending]
        data = [part for _, part in pending]
        header = segment_header(records, self.ops, self.before, data)
        try:
            write_atomically(self.path / records[0].segment, header, *map(bytes_of, data))
            self._append("ops.jsonl", self.ops)
            self._append("index.jsonl", records)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from error
        self.segments += 1
        self.before = [self.before[0] + len(records), self.before[1] + len(self.ops)]
        self.pending, self.pending_bytes, self.ops = [], 0, []

    def _append(self, name: str, lines: Iterable[OpRecord | TensorRecord]) -> None:
        # not flushed to disk: the segments rebuild what a kill or a crash takes from it
        with (self.path / name).open("ab") as file:
            file.write(lines_of(lines))
