"""`.sfp` files: one stored tensor with a versioned header and checksums.

Layout, little-endian: magic ``SFPT``, version (u16), zero (u16), header length (u32), CRC-32
of those 12 bytes and the header (u32), the header as JSON; a table of three u32 a block
(payload bytes, metadata bytes, CRC-32 of both) and its CRC-32 (u32, which covers the index
too); index, payload, metadata. Nothing follows. Every byte is under a checksum.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import zlib
from math import prod
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from sfpsim.containers.base import DEFAULT_BLOCK_VALUES, Array, Container, Encoded
from sfpsim.containers.registry import parse_container
from sfpsim.errors import InputError

MAGIC, VERSION = b"SFPT", 1
FIXED_PART = struct.Struct("<4sHHI")
CHECKSUM = struct.Struct("<I")
TABLE_ENTRY = np.dtype([("payload", "<u4"), ("metadata", "<u4"), ("crc", "<u4")])
MAX_HEADER_BYTES = 1 << 20
MAX_VALUES = 1 << 48


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands before the streams; sizes are bytes.

    `block_values` stands there where it is not the default, which older readers take;
    `values_per_block` is one or the other.
    """

    container: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    signed: bool
    blocks: int
    payload_bytes: int
    metadata_bytes: int
    index_bytes: int
    block_values: int | msgspec.UnsetType = msgspec.UNSET

    @property
    def values_per_block(self) -> int:
        """Values of a block; the last one may be shorter."""
        given = self.block_values
        return DEFAULT_BLOCK_VALUES if isinstance(given, msgspec.UnsetType) else given


def _table(container: Container, x: Array, stored: Encoded) -> NDArray[np.void]:
    blocks = container.measure_blocks(x, signed=stored.signed or None)
    table = np.zeros(len(blocks.values), TABLE_ENTRY)
    table["payload"], table["metadata"] = blocks.payload_bytes, blocks.metadata_bytes
    lengths = int(blocks.payload_bytes.sum()), int(blocks.metadata_bytes.sum())
    if lengths != (len(stored.payload), len(stored.metadata)):
        raise InputError(f"container {container.spec!r}: block sizes do not add up to its streams")
    table["crc"] = _block_checksums(table, stored.payload, stored.metadata)
    return table


def _block_checksums(table: NDArray[np.void], payload: bytes, metadata: bytes) -> list[int]:
    checksums, at, meta_at = [], 0, 0
    payload_view, metadata_view = memoryview(payload), memoryview(metadata)
    for entry in table:
        size, meta = int(entry["payload"]), int(entry["metadata"])
        crc = zlib.crc32(payload_view[at : at + size])
        checksums.append(zlib.crc32(metadata_view[meta_at : meta_at + meta], crc))
        at, meta_at = at + size, meta_at + meta
    return checksums


def _parts(container: Container, x: Array, name: str) -> list[bytes]:
    stored = container.encode(x)
    table, size = _table(container, x, stored), container.block_values
    header = msgspec.json.encode(
        Header(
            container=container.spec,
            name=name,
            dtype=stored.dtype,
            shape=stored.shape,
            signed=stored.signed,
            blocks=len(table),
            payload_bytes=len(stored.payload),
            metadata_bytes=len(stored.metadata),
            index_bytes=len(stored.index),
            block_values=msgspec.UNSET if size == DEFAULT_BLOCK_VALUES else size,
        )
    )
    if len(header) > MAX_HEADER_BYTES:
        raise InputError(f"the tensor's name makes a header of {len(header)} bytes: too long")
    first = FIXED_PART.pack(MAGIC, VERSION, 0, len(header))
    entries = table.tobytes()
    return [
        first,
        CHECKSUM.pack(zlib.crc32(header, zlib.crc32(first))),
        header,
        entries,
        CHECKSUM.pack(zlib.crc32(stored.index, zlib.crc32(entries))),
        stored.index,
        stored.payload,
        stored.metadata,
    ]


def write_sfp(path: str | Path, container: Container, x: Array, name: str = "") -> int:
    """Write `x` in `container` to the file `path`; return the file's bytes.

    The file is written under a temporary name beside `path`, flushed and renamed.

    Raises
    ------
    InputError
        If `path` cannot be written or `x` cannot be stored.
    """
    target = Path(path)
    parts = _parts(container, x, name)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    return sum(len(part) for part in parts)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _take(file: BinaryIO, size: int, left: int, path: Path) -> bytes:
    """Read `size` bytes of which `left` are there, or say that the file is cut."""
    data = file.read(size) if size <= left else b""
    if len(data) != size:
        raise InputError(f"{path}: the file is cut off: {size} more bytes are needed")
    return data


def _read_header(file: BinaryIO, size: int, path: Path) -> Header:
    first = _take(file, FIXED_PART.size, size, path)
    magic, version, zero, length = FIXED_PART.unpack(first)
    if magic != MAGIC:
        raise InputError(f"{path} is no .sfp file: it begins with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        hint = ": a newer sfpsim wrote it" if version > VERSION else ""
        raise InputError(f"{path}: version {version} of .sfp is not supported, {VERSION} is{hint}")
    if zero or length > MAX_HEADER_BYTES:
        raise InputError(f"{path}: the header's length ({length} bytes) is not possible")
    rest = _take(file, CHECKSUM.size + length, size - FIXED_PART.size, path)
    (checksum,), header = CHECKSUM.unpack(rest[:4]), rest[4:]
    if checksum != zlib.crc32(header, zlib.crc32(first)):
        raise InputError(f"{path}: the header is damaged (checksum)")
    try:
        decoded = msgspec.json.decode(header, type=Header)
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: the header is not valid: {error}") from error
    _check_header(decoded, size - file.tell(), path)
    return decoded


def _check_header(header: Header, left: int, path: Path) -> None:
    """Check every size against the file's bytes before anything is allocated."""
    sizes = (header.blocks, header.payload_bytes, header.metadata_bytes, header.index_bytes)
    if any(not 0 <= n <= MAX_VALUES for n in (*header.shape, *sizes)) or len(header.shape) > 32:
        raise InputError(f"{path}: sizes in the header are out of range")
    values, block = prod(header.shape), header.values_per_block
    if block < 1 or values > MAX_VALUES or header.blocks != -(-values // block):
        raise InputError(
            f"{path}: shape {header.shape} does not have {header.blocks} blocks of {block} values"
        )
    need = header.blocks * TABLE_ENTRY.itemsize + CHECKSUM.size + sum(sizes[1:])
    if need != left:
        raise InputError(f"{path}: {need} bytes follow the header by its sizes, {left} are there")


def _read_front(file: BinaryIO, path: Path) -> tuple[Header, NDArray[np.void], bytes]:
    """Read and check what stands before the streams: header, block table, index."""
    header = _read_header(file, os.fstat(file.fileno()).st_size, path)
    entries = file.read(header.blocks * TABLE_ENTRY.itemsize)
    checksum = file.read(CHECKSUM.size)
    index = file.read(header.index_bytes)
    if checksum != CHECKSUM.pack(zlib.crc32(index, zlib.crc32(entries))):
        raise InputError(f"{path}: the block table or the index is damaged (checksum)")
    table = np.frombuffer(entries, TABLE_ENTRY)
    lengths = int(table["payload"].sum(dtype=np.int64)), int(table["metadata"].sum(dtype=np.int64))
    if lengths != (header.payload_bytes, header.metadata_bytes):
        raise InputError(f"{path}: the block table does not add up to the streams")
    return header, table, index


def _read(path: Path) -> tuple[Header, Encoded]:
    try:
        with path.open("rb") as file:
            header, table, index = _read_front(file, path)
            payload = file.read(header.payload_bytes)
            metadata = file.read(header.metadata_bytes)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    _check_blocks(table, payload, metadata, path)
    return header, Encoded(
        payload=payload,
        metadata=metadata,
        index=index,
        shape=header.shape,
        dtype=header.dtype,
        signed=header.signed,
    )


def _check_blocks(table: NDArray[np.void], payload: bytes, metadata: bytes, path: Path) -> None:
    found = np.array(_block_checksums(table, payload, metadata), np.uint32)
    damaged = np.flatnonzero(found != table["crc"])
    if damaged.size:
        raise InputError(
            f"{path}: {damaged.size} of {len(table)} blocks are damaged (checksum), the first "
            f"is block {damaged[0]}"
        )


def verify_sfp(path: str | Path) -> Header:
    """Check the file's sizes and checksums without decoding; return its header.

    Raises
    ------
    InputError
        If the file is missing, no `.sfp`, or damaged.
    """
    header, _ = _read(Path(path))
    return header


def read_sfp(path: str | Path) -> Array:
    """Return the tensor in the file `path`, in its source dtype and shape.

    Raises
    ------
    InputError
        As `verify_sfp`, or if its container is unknown or its streams do not fit it.
    """
    header, stored = _read(Path(path))
    try:
        return _container_of(header).decode(stored)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _container_of(header: Header) -> Container:
    container = parse_container(header.container)
    if container.block_values != header.values_per_block:
        raise InputError(
            f"container {header.container!r} has blocks of {container.block_values} values, the "
            f"header says {header.values_per_block}"
        )
    return container


def read_sfp_block(path: str | Path, block: int) -> Array:
    """Return the values of one block, 1-D, reading no other block of the file.

    Raises
    ------
    InputError
        As `read_sfp`, if there is no such block, or if the container needs something of
        the whole tensor (a scale, a range) to read a block.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            header, table, index = _read_front(file, path)
            if not 0 <= block < header.blocks:
                raise InputError(f"{path}: block {block} is not there: 0 to {header.blocks - 1}")
            payload = _stream_part(file, table["payload"], block)
            file.seek(int(table["payload"][block + 1 :].sum(dtype=np.int64)), os.SEEK_CUR)
            metadata = _stream_part(file, table["metadata"], block)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if zlib.crc32(metadata, zlib.crc32(payload)) != table["crc"][block]:
        raise InputError(f"{path}: block {block} is damaged (checksum)")
    return _decode_alone(header, block, payload, metadata, index, path)


def _stream_part(file: BinaryIO, lengths: NDArray[np.uint32], block: int) -> bytes:
    """Read a block's part of the stream that begins here; stand behind it then."""
    file.seek(int(lengths[:block].sum(dtype=np.int64)), os.SEEK_CUR)
    return file.read(int(lengths[block]))


def _decode_alone(
    header: Header, block: int, payload: bytes, metadata: bytes, index: bytes, path: Path
) -> Array:
    try:
        container = _container_of(header)
        if not container.blockwise:
            raise InputError(f"container {header.container!r} reads whole tensors only")
        step = len(index) // header.blocks
        entry = container.index_alone(index[step * block : step * (block + 1)])
        size = header.values_per_block
        values = min(size, prod(header.shape) - block * size)
        alone = Encoded(
            payload=payload,
            metadata=metadata,
            index=entry,
            shape=(values,),
            dtype=header.dtype,
            signed=header.signed,
        )
        return container.decode(alone)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
