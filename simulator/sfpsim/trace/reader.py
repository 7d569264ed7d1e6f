"""Reads traces: directories and imported files, mapped into memory and checked."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import ml_dtypes
import msgspec
import numpy as np
from numpy.typing import NDArray

from sfpsim.errors import InputError
from sfpsim.trace.schema import SCHEMA_VERSION, Manifest, OpRecord, TensorRecord
from sfpsim.trace.writer import DTYPE_CODES, bytes_of, metadata_crc

Line = TypeVar("Line", TensorRecord, OpRecord)

DTYPES = {
    code: np.dtype(getattr(ml_dtypes, name, None) or name) for name, code in DTYPE_CODES.items()
}
MAX_HEADER_BYTES = 100 << 20
# msgspec lets invalid UTF-8 in keys and deep nesting through as these
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Entry(msgspec.Struct, frozen=True):
    """A tensor's entry in the header of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Segment:
    """A safetensors file mapped into memory; every offset is checked when it is opened.

    Raises
    ------
    InputError
        If the file is damaged; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                    raise self.damage("its header is longer than the file")
                header = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
            metadata = header.pop("__metadata__", msgspec.Raw(b"{}"))
            self.metadata = msgspec.json.decode(metadata, type=dict[str, str])
        except UNREADABLE as error:
            raise self.damage(f"its header cannot be read: {error}") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        self.start = 8 + length
        self.data_bytes = size - self.start
        self.entries = {key: self._entry(key, value) for key, value in header.items()}
        if sum(end - at for _, _, at, end in self.entries.values()) != self.data_bytes:
            raise self.damage("the tensors' lengths do not add up to the file's")

    def damage(self, what: str) -> InputError:
        """Return the error that says what is wrong with this file."""
        return InputError(f"{self.path}: damaged: {what}")

    def _entry(self, key: str, raw: msgspec.Raw) -> tuple[Any, tuple[int, ...], int, int]:
        try:
            entry = msgspec.json.decode(raw, type=Entry)
            dtype = DTYPES[entry.dtype]
        except (*UNREADABLE, KeyError) as error:
            raise self.damage(f"tensor {key!r} has an entry that cannot be read") from error
        shape, (at, end) = entry.shape, entry.data_offsets
        values = math.prod(shape)
        fits = 0 <= at <= end <= self.data_bytes and min(shape, default=0) >= 0
        if not fits or end - at != values * dtype.itemsize:
            raise self.damage(f"tensor {key!r} lies outside the file or has a wrong length")
        return dtype, shape, at, end

    @cached_property
    def mapped(self) -> NDArray[np.uint8]:
        """The tensors' bytes."""
        if not self.data_bytes:
            return np.zeros(0, np.uint8)
        return np.memmap(self.path, np.uint8, "r", self.start, (self.data_bytes,))

    def values(self, key: str) -> NDArray[Any]:
        """Return the tensor called `key`, flat, mapped; copied where it is not aligned."""
        if key not in self.entries:
            raise self.damage(f"tensor {key!r} is missing")
        dtype, _, at, end = self.entries[key]
        return np.require(self.mapped[at:end].view(dtype), requirements="A")

    def records(self) -> list[TensorRecord]:
        """Return the index lines that the metadata carries."""
        return self._decode("records", list[TensorRecord])

    def ops(self) -> list[OpRecord]:
        """Return the operations that the metadata carries."""
        return self._decode("ops", list[OpRecord])

    def totals(self) -> list[int]:
        """Return the numbers of records and ops up to this segment, itself included."""
        records, ops = self._decode("before", tuple[int, int])
        return [records + len(self.records()), ops + len(self.ops())]

    def _decode(self, key: str, kind: Any) -> Any:
        try:
            return msgspec.json.decode(self.metadata[key], type=kind)
        except (*UNREADABLE, KeyError) as error:
            raise self.damage(f"its {key} cannot be read") from error

    def verify(self) -> None:
        """Check the CRC32 of the metadata and of every tensor.

        Raises
        ------
        InputError
            If one differs or is missing.
        """
        sums = self._decode("crc32", list[int])
        records = self.records()
        self.totals()
        if metadata_crc(self.metadata) != self.metadata.get("metadata_crc32"):
            raise self.damage("its metadata fail their checksum")
        if len(sums) != len(records) or {r.key for r in records} != set(self.entries):
            raise self.damage("its checksums do not belong to its tensors")
        for record, expected in zip(records, sums, strict=True):
            if zlib.crc32(bytes_of(self.values(record.key))) != expected:
                raise self.damage(f"tensor {record.name!r} fails its checksum")


def _in_order(lines: Sequence[Any]) -> list[Any]:
    return sorted(lines, key=lambda line: (line.step, line.order, line.name))


class Trace:
    """A trace directory.

    Attributes
    ----------
    path, label
        Where it is, and what results call it.
    manifest
        What it is.
    records
        One record a tensor, by step and order.
    ops
        What was computed, by step and order.
    """

    def __init__(
        self, path: Path, manifest: Manifest, records: list[TensorRecord],
        ops: Sequence[OpRecord] = (),
    ) -> None:  # fmt: skip
        self.path = path
        self.label = str(path)
        self.manifest = manifest
        self.records = _in_order(records)
        self.ops = _in_order(ops)
        self._segments: dict[str, Segment] = {}

    @property
    def ordered(self) -> bool:
        """Whether the trace knows what was computed, and so the order of layers."""
        return bool(self.ops)

    @property
    def incomplete_steps(self) -> list[int]:
        """The steps whose ops name tensors that were never written: the run was killed."""
        held = {record.name for record in self.records}
        named = ((op.step, (*op.reads, *op.saves, op.gradient)) for op in self.ops)
        return sorted({step for step, names in named if not held.issuperset({*names} - {""})})

    @property
    def steps(self) -> list[int]:
        """The captured steps, in order."""
        return sorted({record.step for record in self.records})

    def at_step(self, step: int) -> Trace:
        """Return the trace of one captured step.

        Raises
        ------
        InputError
            If there is none of that number.
        """
        if step not in self.steps:
            known = ", ".join(map(str, self.steps))
            raise InputError(f"{self.path}: step {step} is not in the trace, only {known}")
        records = [record for record in self.records if record.step == step]
        return Trace(self.path, self.manifest, records, [o for o in self.ops if o.step == step])

    def _segment(self, name: str) -> Segment:
        if name not in self._segments:
            if Path(name).name != name:
                raise InputError(f"{self.path}: the index names a segment outside: {name!r}")
            self._segments[name] = Segment(self.path / name)
        return self._segments[name]

    def values(self, record: TensorRecord) -> NDArray[Any]:
        """Return the held values of `record`, flat: its runs one after the other, mapped.

        Raises
        ------
        InputError
            If the segment is damaged or does not hold what the record says.
        """
        segment = self._segment(record.segment)
        found = segment.values(record.key)
        if found.size != record.sampled_values or found.dtype.name != record.dtype:
            raise segment.damage(f"tensor {record.name!r} is not what the index says")
        return found

    def runs(self, record: TensorRecord) -> list[NDArray[Any]]:
        """Return the sampled runs of `record`, mapped."""
        values = self.values(record)
        out, at = [], 0
        for _, length in record.runs:
            out.append(values[at : at + length])
            at += length
        return out

    def verify(self) -> None:
        """Check every segment's structure and checksums, and the index against them.

        Raises
        ------
        InputError
            If a segment or the index is damaged; the message names it.
        """
        held, ops = [], []
        for name in sorted({record.segment for record in self.records}):
            segment = self._segment(name)
            segment.verify()
            held += segment.records()
            ops += segment.ops()
        for name, index, segments in (
            ("index.jsonl", self.records, _in_order(held)), ("ops.jsonl", self.ops, _in_order(ops)),
        ):  # fmt: skip
            if list(index) != segments:
                raise InputError(
                    f"{self.path / name}: damaged: it differs from the segments; delete it, and "
                    "it is rebuilt from them"
                )


def open_trace(path: str | Path) -> Any:
    """Open a trace directory, or a `.safetensors`, `.npz` or `.npy` file.

    Raises
    ------
    InputError
        If it is none of these, holds no tensor, or is damaged.
    """
    where = Path(path)
    if where.is_dir():
        return _open_directory(where)
    if not where.exists():
        raise InputError(f"{where}: no such file or directory")
    from sfpsim.trace.importers import import_file

    return import_file(where)


def _open_directory(path: Path) -> Trace:
    manifest = read_manifest(path)
    names = sorted(segment.name for segment in path.glob("segment-*.safetensors"))
    records, ops = _index(path, TensorRecord), _index(path, OpRecord)
    indexed = {record.segment for record in records or ()}
    expected = {f"segment-{number:05d}.safetensors" for number in range(len(names))}
    for lost in sorted((indexed | expected) - set(names)):
        raise InputError(f"{path / lost}: damaged: the segment is missing")
    if not names:
        raise InputError(f"{path}: the trace is empty: no segment was written")
    # both files are only appended to, so that what is missing is missing at the end
    counts = [len(records or ()), len(ops or ())]
    if records is not None and ops is not None and counts == Segment(path / names[-1]).totals():
        return Trace(path, manifest, records, ops)
    segments = [Segment(path / name) for name in names]
    return Trace(
        path, manifest,
        [record for segment in segments for record in segment.records()],
        [op for segment in segments for op in segment.ops()],
    )  # fmt: skip


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of a trace directory.

    Raises
    ------
    InputError
        If there is none, it cannot be read, or is of another schema.
    """
    try:
        text = (path / "manifest.json").read_bytes()
    except OSError as error:
        raise InputError(f"{path}: no trace: manifest.json cannot be read") from error
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except UNREADABLE as error:
        raise InputError(f"{path / 'manifest.json'}: {error}") from error
    if manifest.schema != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema {manifest.schema} is not known: allowed is {SCHEMA_VERSION}"
        )
    return manifest


INDEX_FILES = {TensorRecord: "index.jsonl", OpRecord: "ops.jsonl"}


def _index(path: Path, kind: type[Line]) -> list[Line] | None:
    """Read an index file; None where it is lost or torn and must be rebuilt."""
    try:
        lines = (path / INDEX_FILES[kind]).read_bytes().splitlines()
        return [msgspec.json.decode(line, type=kind) for line in lines]
    except (*UNREADABLE, OSError):
        return None
