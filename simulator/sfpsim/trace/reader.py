"""Reads traces: directories and imported files, mapped into memory and checked."""

from __future__ import annotations

import json
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
from numpy.typing import NDArray

from sfpsim.errors import InputError
from sfpsim.trace.schema import SCHEMA_VERSION, Manifest, TensorRecord
from sfpsim.trace.writer import DTYPE_CODES

DTYPES = {
    code: np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)
    for name, code in DTYPE_CODES.items()
}
MAX_HEADER_BYTES = 100 << 20


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
                header = json.loads(file.read(length))
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise self.damage("its header is no JSON") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        if not isinstance(header, dict):
            raise self.damage("its header is no mapping")
        self.metadata = header.pop("__metadata__", {})
        self.start = 8 + length
        self.data_bytes = size - self.start
        self.entries = {key: self._entry(key, value) for key, value in header.items()}
        if sum(end - at for _, _, at, end in self.entries.values()) != self.data_bytes:
            raise self.damage("the tensors' lengths do not add up to the file's")

    def damage(self, what: str) -> InputError:
        """Return the error that says what is wrong with this file."""
        return InputError(f"{self.path}: damaged: {what}")

    def _entry(self, key: str, value: Any) -> tuple[Any, tuple[int, ...], int, int]:
        try:
            dtype = DTYPES[value["dtype"]]
            shape = tuple(int(n) for n in value["shape"])
            at, end = (int(n) for n in value["data_offsets"])
        except (KeyError, TypeError, ValueError) as error:
            raise self.damage(f"tensor {key!r} has an entry that cannot be read") from error
        values = 1
        for n in shape:
            values *= n
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
        """Return the tensor called `key`, flat, mapped."""
        if key not in self.entries:
            raise self.damage(f"tensor {key!r} is missing")
        dtype, _, at, end = self.entries[key]
        return self.mapped[at:end].view(dtype)

    def records(self) -> list[TensorRecord]:
        """Return the index lines that the metadata carries."""
        try:
            return msgspec.json.decode(self.metadata["records"], type=list[TensorRecord])
        except (KeyError, TypeError, msgspec.DecodeError) as error:
            raise self.damage("its records cannot be read") from error

    def verify(self) -> None:
        """Check every tensor's CRC32.

        Raises
        ------
        InputError
            If one differs or is missing.
        """
        try:
            sums = json.loads(self.metadata["crc32"])
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise self.damage("its checksums cannot be read") from error
        records = self.records()
        if not isinstance(sums, list) or len(sums) != len(records):
            raise self.damage("its checksums do not belong to its tensors")
        for record, expected in zip(records, sums, strict=True):
            if zlib.crc32(self.values(record.key).tobytes()) != expected:
                raise self.damage(f"tensor {record.name!r} fails its checksum")


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
    ordered
        True: the records know the order of layers.
    """

    ordered = True

    def __init__(self, path: Path, manifest: Manifest, records: list[TensorRecord]) -> None:
        self.path = path
        self.label = str(path)
        self.manifest = manifest
        self.records = sorted(records, key=lambda r: (r.step, r.order))
        self._segments: dict[str, Segment] = {}

    @property
    def steps(self) -> list[int]:
        """The captured steps, in order."""
        return sorted({record.step for record in self.records})

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
        """Check every segment's structure and checksums.

        Raises
        ------
        InputError
            If a segment is damaged; the message names it.
        """
        for name in sorted({record.segment for record in self.records}):
            self._segment(name).verify()


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
    manifest = _manifest(path)
    segments = sorted(path.glob("segment-*.safetensors"))
    records = _index(path)
    names = {segment.name for segment in segments}
    if records is None or {r.segment for r in records} != names:
        records = [record for segment in segments for record in Segment(segment).records()]
    if not records:
        raise InputError(f"{path}: the trace is empty: no segment was written")
    return Trace(path, manifest, records)


def _manifest(path: Path) -> Manifest:
    try:
        text = (path / "manifest.json").read_bytes()
    except OSError as error:
        raise InputError(f"{path}: no trace: manifest.json cannot be read") from error
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise InputError(f"{path / 'manifest.json'}: {error}") from error
    if manifest.schema != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema {manifest.schema} is not known: allowed is {SCHEMA_VERSION}"
        )
    return manifest


def _index(path: Path) -> list[TensorRecord] | None:
    """Read index.jsonl; None where it is lost or torn and must be rebuilt."""
    try:
        lines = (path / "index.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line, type=TensorRecord) for line in lines]
    except (OSError, msgspec.DecodeError):
        return None
