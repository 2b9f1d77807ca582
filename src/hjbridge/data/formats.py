"""Readers of the two binary layouts in which the small image sets are published: idx and CIFAR binary."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CIFAR_SHAPE = (3, 32, 32)


def _bytes_of(source: bytes | str | Path) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, "the given bytes"
    return Path(source).read_bytes(), str(source)


def read_idx(source: bytes | str | Path) -> np.ndarray:
    """Read one array in idx layout.

    Layout: two zero bytes, one byte for the type, one for the rank r, r big-endian 32-bit lengths, then the values.

    Args:
        source: the (uncompressed) bytes, or the path of a file that holds them.

    Returns:
        The array with the shape of the header, in native byte order.

    Raises:
        ValueError: the header is not idx, or the number of bytes differs from what the header says.

    Source: LeCun, Cortes and Burges, "The MNIST database", section "File formats".
    """
    raw, name = _bytes_of(source)
    if len(raw) < 4 or raw[:2] != b"\x00\x00" or raw[2] not in IDX_TYPES or raw[3] == 0:
        raise ValueError(
            f"{name} must start with an idx header (0, 0, type, rank), got {raw[:4].hex(' ') or 'nothing'}"
        )
    dtype, rank = np.dtype(IDX_TYPES[raw[2]]), raw[3]
    start = 4 + 4 * rank
    if len(raw) < start:
        raise ValueError(f"{name} must hold an idx header of {start} bytes, got {len(raw)} bytes")
    shape = struct.unpack(f">{rank}I", raw[4:start])
    expected = start + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if len(raw) != expected:
        raise ValueError(f"{name} must hold {expected} bytes for an idx array of shape {shape}, got {len(raw)} bytes")
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def read_cifar(source: bytes | str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read one file of CIFAR-10 in its binary layout.

    Layout: one record an image: a label byte (0..9), then 1024 red, 1024 green and 1024 blue bytes, rows first.

    Args:
        source: the bytes, or the path of a file that holds them.

    Returns:
        images, uint8 (n, 3, 32, 32), and labels, int64 (n,).

    Raises:
        ValueError: the length is not a multiple of 3073 bytes, or a label exceeds 9.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images", binary version.
    """
    raw, name = _bytes_of(source)
    record = 1 + int(np.prod(CIFAR_SHAPE))
    if not raw or len(raw) % record:
        raise ValueError(f"{name} must hold a positive multiple of {record} bytes, got {len(raw)} bytes")
    rows = np.frombuffer(raw, np.uint8).reshape(-1, record)
    labels = rows[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise ValueError(f"{name} must hold labels 0..9, got {labels.max()}")
    return rows[:, 1:].reshape(-1, *CIFAR_SHAPE).copy(), labels
