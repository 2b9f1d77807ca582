"""Readers of idx and CIFAR binary against small files of our own making."""

import struct

import numpy as np
import pytest

from hjbridge.data import read_cifar, read_idx


def idx(array: np.ndarray, code: int) -> bytes:
    """The idx layout of an array, written independently of the reader."""
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize(
    ("dtype", "code"), [(">u1", 8), (">i1", 9), (">i2", 0x0B), (">i4", 0x0C), (">f4", 0x0D), (">f8", 0x0E)]
)
def test_idx_round_trip(tmp_path, dtype, code):
    array = np.arange(-3, 21).reshape(2, 3, 4).astype(dtype)
    path = tmp_path / "array.idx"
    path.write_bytes(idx(array, code))
    for source in (path, str(path), path.read_bytes()):
        read = read_idx(source)
        assert read.dtype.isnative and read.shape == (2, 3, 4)
        np.testing.assert_array_equal(read, array)


def test_idx_one_byte_short_or_long_names_the_file(tmp_path):
    whole = idx(np.arange(12, dtype=np.uint8).reshape(3, 4), 8)
    for content in (whole[:-1], whole + b"\0"):
        path = tmp_path / "harmed-idx"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"harmed-idx must hold 24 bytes .* shape \(3, 4\), got {len(content)}"):
            read_idx(path)


@pytest.mark.parametrize("raw", [b"", b"\0\0\x08", b"\1\0\x08\1\0\0\0\0", b"\0\0\x07\1\0\0\0\0", b"\0\0\x08\0"])
def test_idx_header_is_checked(raw):
    with pytest.raises(ValueError, match="idx header"):
        read_idx(raw)


def test_idx_header_may_not_end_early():
    with pytest.raises(ValueError, match="header of 16 bytes, got 10"):
        read_idx(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0]))


def test_cifar_order_is_label_red_green_blue_by_rows(tmp_path):
    planes = np.arange(2 * 3 * 32 * 32, dtype=np.int64).reshape(2, 3, 32, 32) % 251
    raw = b"".join(bytes([label]) + planes[k].astype(np.uint8).tobytes() for k, label in enumerate((7, 2)))
    path = tmp_path / "batch.bin"
    path.write_bytes(raw)
    images, labels = read_cifar(path)
    assert images.dtype == np.uint8 and labels.dtype == np.int64
    np.testing.assert_array_equal(images, planes)
    np.testing.assert_array_equal(labels, [7, 2])
    assert images[0, 1, 0, 0] == 1024 % 251 and images[0, 0, 1, 0] == 32


@pytest.mark.parametrize("size", [0, 3072, 3074, 2 * 3073 - 1])
def test_cifar_length_is_checked(size):
    with pytest.raises(ValueError, match=f"multiple of 3073 bytes, got {size}"):
        read_cifar(bytes(size))


def test_cifar_label_is_checked():
    with pytest.raises(ValueError, match="labels 0..9, got 10"):
        read_cifar(bytes([10]) + bytes(3072))
