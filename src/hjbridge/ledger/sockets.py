"""A folder for the sockets of a kernel, with a path so short that the system takes it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: bytes of the longest path of a socket: 107 on Linux, 103 on macOS
LONGEST = 103
#: what the kernel adds to its folder: `/kernel-` and 36 characters, `-ipc-` and the number of the socket
NAME = 60


def short_folders() -> list[Path]:
    """Folders for temporary files that can be written to and whose path leaves room for a socket, best first."""
    places = dict.fromkeys([tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/var/tmp"])
    room = LONGEST - NAME - len("/hj-12345678")
    return [Path(place) for place in places if place and len(os.fsencode(place)) <= room and os.access(place, os.W_OK)]


@contextmanager
def socket_folder() -> Iterator[Path | None]:
    """A new folder that is gone afterwards.

    Two kernels that start at once could be given one free port; a file of its own nobody else can take. The folder of
    the user's runtime files will not do: below a long home its paths are longer than a socket may have.
    Yields: the folder; None where the system has no such sockets, or no short place for them.
    """
    places = short_folders() if os.name == "posix" else []
    if not places:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="hj-", dir=places[0]) as folder:
        yield Path(folder)
