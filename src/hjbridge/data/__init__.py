"""Labelled images with every byte verified: the book's data sets (`sets`) and one's own (`images`).

`sources` lists what is published and where, `download` brings it, `formats` reads it, and `embed` tells how the subsets
that come with the repository were cut. Nothing here knows of networks or metrics.
"""

from hjbridge.data.download import fetch
from hjbridge.data.formats import read_cifar, read_idx
from hjbridge.data.images import Images, from_files, from_folder, from_npz
from hjbridge.data.sets import NAMES, SPLITS, load
from hjbridge.store import cache, root, write_atomic

__all__ = [
    "NAMES",
    "SPLITS",
    "Images",
    "cache",
    "fetch",
    "from_files",
    "from_folder",
    "from_npz",
    "load",
    "read_cifar",
    "read_idx",
    "root",
    "write_atomic",
]
