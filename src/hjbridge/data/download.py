"""Full data sets into the cache, from the published addresses or from a file at hand, verified byte by byte."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from hjbridge.data.sources import SOURCES, Source
from hjbridge.store import cache, verified, write_atomic


def member(name: str, filename: str) -> bytes:
    """The verified bytes of one file of a full data set, e.g. `member("mnist", "t10k-labels-idx1-ubyte")`."""
    source = _source(name)
    restore = f"hjbridge data fetch {name}  (offline: --from FILE, with {source.hint})"
    return verified(cache() / name / filename, source.members[filename], restore)


def fetch(name: str, source: str | Path | None = None) -> Path:
    """Put the full data set `name` into the cache, every file verified by the hash of its uncompressed bytes.

    Args:
        name: mnist, fashion-mnist or cifar10.
        source: None to download from the published addresses; or a folder, a .tar(.gz|.xz), .tgz, .zip or .deb archive
            that holds the files, raw or gzipped, in any sub-folder.

    Returns:
        The folder with the uncompressed files.

    Raises:
        ValueError: unknown name, or bytes that are not the published ones; nothing is written then.
        FileNotFoundError: `source` or one of the files in it does not exist.
    """
    spec, folder = _source(name), cache() / name
    wanted = {f"{filename}{ending}": filename for filename in spec.members for ending in ("", ".gz")}
    found: dict[str, bytes] = {}
    for filename, content, origin in _downloaded(spec, wanted) if source is None else _offered(Path(source), wanted):
        raw = _gunzip(content, origin) if filename.endswith(".gz") else content
        digest, expected = hashlib.sha256(raw).hexdigest(), spec.members[wanted[filename]]
        if digest != expected:
            raise ValueError(f"{origin} must have sha256 {expected} once uncompressed, got {digest}")
        found[wanted[filename]] = raw
    missing = sorted(set(spec.members) - set(found))
    if missing:
        raise FileNotFoundError(f"{source or spec.urls[0]} lacks {', '.join(missing)} of {name}; try {spec.hint}")
    for filename, raw in found.items():
        write_atomic(folder / filename, raw)
    return folder


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise ValueError(f"name must be one of {', '.join(SOURCES)}, got {name!r}")
    return SOURCES[name]


def _gunzip(content: bytes, origin: str) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{origin} must be a complete gzip file, got {len(content)} bytes: {error}") from error


Found = Iterator[tuple[str, bytes, str]]  # (file name, bytes, where they came from)


def _downloaded(spec: Source, wanted: Collection[str]) -> Found:
    """The published files, through pooch, which checks the hash of the compressed bytes."""
    import pooch

    with tempfile.TemporaryDirectory(prefix="hjbridge-") as folder:
        for filename, sha256 in spec.downloads.items():
            for url in spec.urls:
                try:
                    path = Path(pooch.retrieve(url + filename, f"sha256:{sha256}", filename, folder))
                    break
                except (OSError, ValueError) as error:  # unreachable, or not the published bytes: try the next address
                    failure = error
            else:
                raise OSError(
                    f"{filename} could not be had from {', '.join(spec.urls)}: {failure}; "
                    f"offline: --from FILE, with {spec.hint}"
                )
            yield from _offered(path, wanted)


def _offered(path: Path, wanted: Collection[str]) -> Found:
    """The wanted files in a folder or an archive, or the file itself."""
    if path.is_dir():
        for inner in sorted(path.rglob("*")):
            if inner.name in wanted and inner.is_file():
                yield inner.name, inner.read_bytes(), str(inner)
    elif not path.exists():
        raise FileNotFoundError(f"source must be an existing folder or archive, got {path}")
    elif path.suffix == ".deb":
        yield from _tar(_deb_payload(path.read_bytes(), path), path, wanted)
    elif path.name.endswith((".tar", ".tar.gz", ".tar.xz", ".tgz")):
        yield from _tar(path.read_bytes(), path, wanted)
    elif path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                for entry in archive.namelist():
                    if Path(entry).name in wanted:
                        yield Path(entry).name, archive.read(entry), f"{path}:{entry}"
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{path} must be a complete zip archive: {error}") from error
    elif path.name in wanted:
        yield path.name, path.read_bytes(), str(path)
    else:
        raise ValueError(f"source must be a folder or a .tar, .tar.gz, .tar.xz, .tgz, .zip or .deb archive, got {path}")


def _tar(content: bytes, path: Path, wanted: Collection[str]) -> Found:
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for entry in archive:
                file = archive.extractfile(entry) if Path(entry.name).name in wanted and entry.isfile() else None
                if file is not None:
                    yield Path(entry.name).name, file.read(), f"{path}:{entry.name}"
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path} must be a complete tar archive: {error}") from error


def _deb_payload(content: bytes, path: Path) -> bytes:
    """The data.tar.* of a Debian package.

    Layout `ar`: headers of 60 bytes, the name first and the size at 48; each member starts at an even position.
    """
    position = 8
    while content.startswith(b"!<arch>\n") and position + 60 <= len(content):
        digits = content[position + 48 : position + 58].strip()
        if not digits.isdigit():
            break
        size = int(digits)
        if content[position : position + 16].startswith(b"data.tar"):
            return content[position + 60 : position + 60 + size]
        position += 60 + size + size % 2
    raise ValueError(f"{path} must be a whole Debian package that holds a data.tar archive")
