"""The row store: what each row of 8 values takes, for all tensors of a step."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.base import Rows

MOST_IN_MEMORY = 32 << 20


class RowStore:
    """Payload and metadata bits of rows, one tensor after the other.

    Beyond 32 MiB they go to a temporary file that is mapped, so that the memory needed does
    not grow with the trace.
    """

    def __init__(self) -> None:
        self.count = 0
        self.parts: list[Rows] = []
        self.files: tuple[Any, Any] | None = None

    def add(self, parts: Iterable[Rows]) -> int:
        """Append the rows of a tensor; return where they begin."""
        begin = self.count
        for rows in parts:
            self.count += len(rows.payload_bits)
            self.parts.append(rows)
            if 3 * sum(len(part.payload_bits) for part in self.parts) > MOST_IN_MEMORY:
                self._spill()
        return begin

    def _spill(self) -> None:
        if self.files is None:
            # They live as long as the store; nothing has a name that could be left behind.
            self.files = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        for part in self.parts:
            part.payload_bits.tofile(self.files[0])
            part.metadata_bits.tofile(self.files[1])
        self.parts = []

    def arrays(self) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        """Return all payload bits (uint16) and metadata bits (uint8)."""
        if self.files is not None:
            self._spill()
            payload, metadata = self.files
            payload.flush()
            metadata.flush()
            # Writable, as the arrays below are: a read-only type would be compiled for anew.
            return np.memmap(payload, np.uint16, "r+"), np.memmap(metadata, np.uint8, "r+")
        if not self.parts:
            return np.zeros(0, np.uint16), np.zeros(0, np.uint8)
        return (
            np.concatenate([part.payload_bits for part in self.parts]),
            np.concatenate([part.metadata_bits for part in self.parts]),
        )
