"""Folders of one's own pictures that are unusual: 16 bits, hidden names, pictures beside sub-folders."""

import numpy as np
import pytest
from PIL import Image

from hjbridge.data.images import from_folder

DEEP = np.array([[0, 128, 129, 257], [385, 386, 32768, 65535]], np.uint16)
#: DEEP / 257, rounded
SHALLOW = [[0, 0, 1, 1], [1, 2, 128, 255]]


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_of_grey_become_eight(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    if ending == "pgm":
        path.write_bytes(b"P5 4 2 65535\n" + DEEP.astype(">u2").tobytes())
    else:
        Image.fromarray(DEEP).save(path)
    images = from_folder(tmp_path)
    assert images.images.shape == (1, 1, 2, 4) and images.images[0, 0].tolist() == SHALLOW
    Image.new("L", (4, 2), 7).save(tmp_path / "b.png")
    assert from_folder(tmp_path).images[:, 0].tolist() == [SHALLOW, [[7] * 4] * 2]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_more_than_sixteen_bits_are_refused(tmp_path, kind):
    Image.fromarray(np.full((2, 4), 9, kind)).save(tmp_path / "a.tif")
    with pytest.raises(
        ValueError, match=f"a.tif must be a readable picture: its grey .* 8 or 16 bits, got {kind.__name__}"
    ):
        from_folder(tmp_path)


def test_hidden_names_are_passed_over(tmp_path):
    for name in (".ipynb_checkpoints", "cats", "dogs"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4), len(name)).save(tmp_path / name / "a.png")
    (tmp_path / "dogs" / "._a.png").write_bytes(b"no picture")
    (tmp_path / ".hidden.png").write_bytes(b"no picture")
    images = from_folder(tmp_path)
    assert images.labels.tolist() == [0, 1] and images.images.shape == (2, 1, 4, 4)


def test_a_hidden_folder_is_no_label_beside_loose_pictures(tmp_path):
    (tmp_path / ".ipynb_checkpoints").mkdir()
    Image.new("L", (4, 4), 7).save(tmp_path / "a.png")
    assert from_folder(tmp_path).labels.tolist() == [0]


def test_pictures_beside_sub_folders_are_refused_and_both_are_named(tmp_path):
    (tmp_path / "cats").mkdir()
    Image.new("L", (4, 4), 7).save(tmp_path / "cats" / "a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert len(from_folder(tmp_path)) == 1
    Image.new("L", (4, 4), 9).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=f"not both, got the picture b.png beside the sub-folder cats in {tmp_path}"):
        from_folder(tmp_path)
