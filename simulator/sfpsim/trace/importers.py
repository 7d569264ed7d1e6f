"""Arrays of other files as traces: each a tensor of role `unknown`, in file order."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpsim.errors import InputError
from sfpsim.trace.reader import Segment, Trace
from sfpsim.trace.schema import Manifest, TensorRecord
from sfpsim.trace.writer import DTYPE_CODES


class ImportedTrace(Trace):
    """A file of arrays; it has no ops and so no order of layers."""

    def __init__(
        self, path: Path, shapes: dict[str, tuple[str, tuple[int, ...]]],
        load: Callable[[str], NDArray[Any]],
    ) -> None:  # fmt: skip
        records = [
            _record(number, name, dtype, shape)
            for number, (name, (dtype, shape)) in enumerate(shapes.items())
        ]
        super().__init__(path, _manifest(path), records)
        self._load = load

    def values(self, record: TensorRecord) -> NDArray[Any]:
        """Return the array of `record`, flat, C order, in this machine's byte order."""
        array = self._load(record.name)
        native = array.dtype.newbyteorder("=")
        return np.ascontiguousarray(array, dtype=native).reshape(-1)

    def verify(self) -> None:
        """Read every array."""
        for record in self.records:
            self.values(record)


def _manifest(path: Path) -> Manifest:
    return Manifest(model=path.name, framework="file", framework_version=path.suffix)


def _record(number: int, name: str, dtype: str, shape: tuple[int, ...]) -> TensorRecord:
    if dtype not in DTYPE_CODES:
        raise InputError(
            f"array {name!r}: dtype {dtype} is not supported: allowed are {', '.join(DTYPE_CODES)}"
        )
    values = int(np.prod(shape, dtype=np.int64))
    return TensorRecord(
        name=name,
        step=0,
        order=number,
        role="unknown",
        use="array",
        dtype=dtype,
        shape=shape,
        memory_order=tuple(range(len(shape))),
        runs=((0, values),),
    )


def import_file(path: Path) -> ImportedTrace:
    """Open a `.safetensors`, `.npz` or `.npy` file.

    Raises
    ------
    InputError
        If it is none of these, is damaged, holds no array or one of an unsupported dtype.
    """
    readers = {".safetensors": _safetensors, ".npz": _npz, ".npy": _npy}
    if path.suffix not in readers:
        raise InputError(
            f"{path}: no trace: a trace is a directory with manifest.json, or a file "
            f"ending in {', '.join(readers)}"
        )
    trace = readers[path.suffix](path)
    if not trace.records:
        raise InputError(f"{path}: holds no array")
    return trace


def _safetensors(path: Path) -> ImportedTrace:
    segment = Segment(path)
    shapes = {key: (dtype.name, shape) for key, (dtype, shape, _, _) in segment.entries.items()}
    return ImportedTrace(path, shapes, segment.values)


# numpy parses headers as Python: what it raises on damaged ones is open-ended, so that the
# readers below turn every exception into an InputError.


def _npy(path: Path) -> ImportedTrace:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        raise _unreadable(path, error) from error
    return ImportedTrace(path, {path.stem: (array.dtype.name, array.shape)}, lambda _: array)


def _npz(path: Path) -> ImportedTrace:
    def load(name: str) -> NDArray[Any]:
        try:
            with np.load(path, allow_pickle=False) as file:
                return np.asarray(file[name])
        except Exception as error:
            raise _unreadable(path, error) from error

    try:
        with zipfile.ZipFile(path) as file:
            names = [name.removesuffix(".npy") for name in file.namelist()]
    except Exception as error:
        raise _unreadable(path, error) from error
    shapes = {}
    for name in names:
        array = load(name)
        shapes[name] = array.dtype.name, array.shape
    return ImportedTrace(path, shapes, load)


def _unreadable(path: Path, error: BaseException) -> InputError:
    if "object" in str(error).lower():
        return InputError(
            f"{path}: holds Python objects: allowed are arrays of {', '.join(DTYPE_CODES)}"
        )
    return InputError(f"{path}: damaged or no {path.suffix} file: {error}")
